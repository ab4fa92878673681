"""k-means against scikit-learn, planted groups and plain float64; silhouettes against their definition."""

from __future__ import annotations

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from scipy.spatial.distance import cdist

from aya_jax.config import UserError
from aya_jax.selection import kmeans as rows_of_kmeans
from aya_jax.selection.kmeans import _assign, _Rows, draw_centres, kmeans, lloyd
from aya_jax.selection.silhouette import choose_clusters, silhouette
from tests import eight_devices


def blobs(rows, width, groups, seed=0, spread=0.1):
    """Rows about well parted middles, each with its group."""
    rng = np.random.default_rng(seed)
    middles = 3 * rng.standard_normal((groups, width))
    own = rng.permutation(np.arange(rows) % groups)
    return (middles[own] + spread * rng.standard_normal((rows, width))).astype(np.float32), own


def cloud(rows, width, seed=0):
    """Rows in no groups, of unlike scales, far from zero."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, width)) * rng.uniform(0.2, 2, width) + 50).astype(np.float32)


def check_against_float64(vectors, found):
    """Labels are of the nearest centres (of those as near but for rounding), and distances are to them."""
    squares = cdist(vectors.astype(np.float64), found.centres.astype(np.float64), "sqeuclidean")
    own = squares[np.arange(len(vectors)), found.labels]
    scale = np.square(vectors - vectors.mean(0), dtype=np.float64).sum(1).max()
    np.testing.assert_allclose(own, squares.min(1), rtol=1e-6, atol=2e-6 * scale)
    np.testing.assert_allclose(found.distances, own, rtol=1e-4, atol=1e-6 * scale)
    np.testing.assert_allclose(found.inertia, own.sum(), rtol=1e-5, atol=1e-6 * scale)
    assert (found.centres.dtype, found.labels.dtype, found.distances.dtype) == (np.float32, np.int32, np.float32)
    assert np.bincount(found.labels, minlength=len(found.centres)).all()


@pytest.mark.parametrize(("rows", "groups", "seed"), [(9_001, 20, 1), (40, 40, 2)])
def test_planted_groups_are_found(rows, groups, seed):
    metrics = pytest.importorskip("sklearn.metrics")
    vectors, own = blobs(rows, 12, groups, seed)
    found = kmeans(vectors, groups, seed=seed)
    assert metrics.adjusted_rand_score(own, found.labels) == 1.0
    check_against_float64(vectors, found)


@pytest.mark.parametrize("chunk", [None, 100])
def test_lloyd_goes_where_scikit_learn_goes(chunk):
    cluster = pytest.importorskip("sklearn.cluster")
    vectors = cloud(1_500, 8)
    first = vectors[np.random.default_rng(1).choice(len(vectors), 25, replace=False)]
    theirs = cluster.KMeans(25, init=first, n_init=1, algorithm="lloyd", max_iter=300, tol=0).fit(vectors)
    ours = lloyd(vectors, first, iterations=300, chunk=chunk)
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-4)
    assert 5 < ours.iterations <= theirs.n_iter_ + 1


def test_one_pass_is_lloyds_in_float64():
    vectors = cloud(700, 5)
    first = vectors[:11]
    labels = cdist(vectors.astype(np.float64), first.astype(np.float64)).argmin(1)
    means = np.stack([vectors[labels == k].mean(0, dtype=np.float64) for k in range(11)])
    found = lloyd(vectors, first, iterations=1, chunk=64)
    np.testing.assert_allclose(found.centres, means, rtol=1e-6)
    check_against_float64(vectors, found)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 8]), st.booleans())
def test_inertia_never_rises(seed, clusters, repeated):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (60, 3)).astype(np.float32)  # many rows are alike
    first = vectors[rng.choice(60, clusters)] if repeated else rng.standard_normal((clusters, 3)).astype(np.float32) * 9
    try:
        inertias = [lloyd(vectors, first, iterations=turns).inertia for turns in range(5)]
    except UserError:
        assert len(np.unique(vectors, axis=0)) < clusters
    else:
        for before, after in itertools.pairwise(inertias):
            assert after <= before * (1 + 1e-6)


def test_samples_that_grow_end_as_well_as_all_rows(monkeypatch):
    """A small sample first, then more: no worse than scikit-learn's best of several by much, and the same bits twice."""
    cluster = pytest.importorskip("sklearn.cluster")
    vectors, _ = blobs(6_000, 6, 60, spread=0.8)
    read = []
    monkeypatch.setattr(rows_of_kmeans, "_SAMPLE", 8)
    passes = rows_of_kmeans._lloyd
    monkeypatch.setattr(rows_of_kmeans, "_lloyd", lambda *given: (read.append(given[2]), passes(*given))[1])
    found = kmeans(vectors, 60, seed=0)
    assert read == [480, 1920, 6000]
    check_against_float64(vectors, found)
    theirs = cluster.KMeans(60, n_init=3, random_state=0).fit(vectors)
    assert found.inertia < 1.1 * theirs.inertia_
    again = kmeans(vectors, 60, seed=0)
    for name in ("centres", "labels", "distances"):
        assert getattr(found, name).tobytes() == getattr(again, name).tobytes()
    assert not np.array_equal(found.centres, kmeans(vectors, 60, seed=1).centres)


def test_first_centres_are_drawn_by_squares_of_distances():
    """k-means++ by rejection has the chances of k-means++ one at a time: of three centres of seven points, by counts."""
    points = np.array([[0.0], [1], [2], [4], [7], [7.5], [13]], np.float32)
    rng = np.random.default_rng(0)
    expected, squares = np.zeros((7, 7)), cdist(points, points, "sqeuclidean")
    for second in range(7):
        chance = squares[0, second] / squares[0].sum()
        left = np.minimum(squares[0], squares[second])
        expected[second] = chance * left / max(left.sum(), 1e-9)
    draws = 4_000
    keys = jax.vmap(jax.random.key)(jnp.asarray(rng.integers(2**31, size=draws)))
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: draw_centres(points, key, 3, trials=1)))(keys))
    assert (drawn[:, 0] == 0).all()
    counts = np.zeros((7, 7))
    np.add.at(counts, tuple(np.searchsorted(points[:, 0], drawn[:, 1:, 0].T)), 1)
    wide = expected > 0
    assert not counts[~wide].any()
    spread = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(counts / draws - expected)[wide] < 5 * spread[wide] + 1 / draws).all()


def test_empty_clusters_get_the_farthest_rows():
    vectors = np.concatenate([blobs(300, 4, 3)[0], [[90, 0, 0, 0]], [[0, -70, 0, 0]]]).astype(np.float32)
    first = np.concatenate([vectors[:1], np.full((4, 4), 1e4, np.float32)])  # all rows go to the first
    found = lloyd(vectors, first, iterations=0)
    check_against_float64(vectors, found)
    centres = {tuple(row) for row in np.round(found.centres[1:3]).tolist()}
    assert centres == {(90, 0, 0, 0), (0, -70, 0, 0)}
    settled = lloyd(vectors, first, iterations=50)
    check_against_float64(vectors, settled)
    assert settled.inertia < found.inertia


def test_all_clusters_have_rows_where_as_many_differ():
    """Copies of a few rows: the last row of a cluster may go to another that is seeded anew."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((12, 5)).astype(np.float32)
    vectors = kinds[np.concatenate([np.arange(12), rng.integers(0, 3, 2_000)])]
    found = kmeans(vectors, 12, seed=0)
    check_against_float64(vectors, found)
    assert found.inertia < 1e-5
    again = lloyd(vectors, np.zeros((12, 5), np.float32), iterations=3)
    assert again.inertia < 1e-5
    assert len(np.unique(again.labels)) == 12


def test_rows_far_from_zero_keep_their_differences():
    vectors, own = blobs(600, 4, 6)
    found = kmeans(vectors + np.float32(20_000), 6, seed=0)
    assert len({(a, b) for a, b in zip(own.tolist(), found.labels.tolist(), strict=True)}) == 6


def test_sums_by_products_are_sums_by_labels():
    """What GPUs and TPUs do."""
    vectors = cloud(900, 6)
    rows = _Rows(vectors, np.arange(900), 7, None, 128)
    one, other = (
        _assign(rows.placed, rows.shifted(vectors[:7]), 850, mesh=rows.mesh, chunk=rows.chunk, one_hot=one_hot)
        for one_hot in (False, True)
    )
    assert int(other[3].sum()) == 850
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("vectors", "clusters", "told"),
    [
        (np.zeros(4, np.float32), 1, r"float32 \[4\]: give float32 \[N, D\]"),
        (np.zeros((3, 0), np.float32), 1, r"give float32 \[N, D\]"),
        (np.array([["a"]]), 1, "rows of numbers"),
        (np.zeros((4, 2), np.float32), 0, "at least 1"),
        (np.zeros((4, 2), np.float32), 5, "4 vectors cannot fill 5 clusters: ask for 4 or fewer"),
        (np.eye(3, dtype=np.float32)[[0, 1, 1, 0, 2, 2]], 4, "only 3 of the 6 vectors differ.*ask for 3 or fewer"),
        (np.array([[0, 1], [np.nan, 0]], np.float32), 1, "vector 1 is not finite"),
        (np.array([[0, -np.inf], [1, 0]], np.float32), 1, "vector 0 is not finite"),
        (np.array([[0, 1], [3e18, 0]], np.float32), 1, "vector 1 is not finite, or too long"),
    ],
)
def test_what_cannot_be_clustered_is_refused(vectors, clusters, told):
    with pytest.raises(UserError, match=told):
        kmeans(vectors, clusters, seed=0)


def test_wrong_numbers_are_refused():
    vectors = cloud(9, 2)
    with pytest.raises(UserError, match="0 or more"):
        kmeans(vectors, 2, seed=0, iterations=-1)
    with pytest.raises(UserError, match="chunk"):
        kmeans(vectors, 2, seed=0, chunk=0)
    with pytest.raises(UserError, match="as wide"):
        lloyd(vectors, np.zeros((2, 3), np.float32), iterations=1)
    with pytest.raises(UserError, match="finite centres"):
        lloyd(vectors, np.full((2, 2), np.nan, np.float32), iterations=1)


def test_vectors_are_left_alone():
    vectors = cloud(200, 3)
    vectors.flags.writeable = False
    double = kmeans(vectors.astype(np.float64), 4, seed=0)
    assert np.array_equal(kmeans(vectors, 4, seed=0).centres, double.centres)


def by_definition(vectors, labels):
    gaps, scores = cdist(vectors.astype(np.float64), vectors.astype(np.float64)), []
    for row, own in enumerate(labels):
        to = {k: gaps[row, labels == k] for k in np.unique(labels)}
        beside = to.pop(own)
        inner, outer = beside.sum() / max(1, len(beside) - 1), min(other.mean() for other in to.values())
        scores.append(0.0 if len(beside) == 1 else (outer - inner) / max(inner, outer))
    return np.mean(scores)


def test_silhouette_is_its_definition():
    pytest.importorskip("sklearn")
    vectors, own = blobs(120, 4, 5, spread=1.5)
    own[0] = 99  # alone
    np.testing.assert_allclose(silhouette(vectors, own), by_definition(vectors, own), rtol=1e-4)
    drawn = np.sort(np.random.default_rng(3).choice(120, 50, replace=False))
    sampled = silhouette(vectors, own, sample=50, seed=3)
    np.testing.assert_allclose(sampled, by_definition(vectors[drawn], own[drawn]), rtol=1e-4)
    assert sampled != silhouette(vectors, own, sample=50, seed=4)


def test_the_number_of_planted_groups_is_chosen():
    metrics = pytest.importorskip("sklearn.metrics")
    vectors, _ = blobs(900, 6, 7)
    best, scores = choose_clusters(vectors, (12, 7, 12), seed=0, sample=400)
    assert best == 7
    assert list(scores) == [7, 12]
    drawn = np.sort(np.random.default_rng(0).choice(900, 400, replace=False))
    labels = kmeans(vectors, 12, seed=0).labels
    np.testing.assert_allclose(scores[12], metrics.silhouette_score(vectors[drawn], labels[drawn]), rtol=1e-6)


def test_silhouettes_that_say_nothing_are_refused(monkeypatch):
    pytest.importorskip("sklearn")
    vectors = cloud(8, 2)
    for labels in (np.zeros(8, int), np.arange(8)):
        with pytest.raises(UserError, match="2 or more clusters"):
            silhouette(vectors, labels)
    for candidates in ((), (1, 2)):
        with pytest.raises(UserError, match="at least 2"):
            choose_clusters(vectors, candidates, seed=0)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match="eval"):
        silhouette(vectors, np.arange(8) % 2)


def test_eight_devices_cluster_as_one():
    eight_devices.run("-c", "from tests.selection.test_kmeans import on_eight; on_eight()")


def on_eight():
    """Run by the test above with eight emulated devices."""
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "tensor"))
    rows_of_kmeans._SAMPLE = 8
    vectors, chunk = cloud(3_001, 6), 200
    for own, clusters in ((vectors, 17), (cloud(5, 2), 3)):
        one, eight = (kmeans(own, clusters, seed=1, mesh=on, chunk=chunk) for on in (None, mesh))
        assert np.mean(one.labels != eight.labels) < 0.002
        np.testing.assert_allclose(one.centres, eight.centres, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(one.inertia, eight.inertia, rtol=1e-5)
        check_against_float64(own, eight)
    again = kmeans(vectors, 17, seed=1, mesh=mesh, chunk=chunk)
    assert again.centres.tobytes() == kmeans(vectors, 17, seed=1, mesh=mesh, chunk=chunk).centres.tobytes()
    alike = np.zeros((17, 6), np.float32)  # all rows go to the first, and the others are seeded anew
    one, eight = (lloyd(vectors, alike, iterations=2, mesh=on, chunk=chunk) for on in (None, mesh))
    assert np.mean(one.labels != eight.labels) < 0.002
    np.testing.assert_allclose(one.centres, eight.centres, rtol=1e-3, atol=1e-3)
    check_against_float64(vectors, eight)
    with np.testing.assert_raises(UserError):
        lloyd(np.ones_like(vectors), alike, iterations=0, mesh=mesh, chunk=chunk)
