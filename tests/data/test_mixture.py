"""The order of a run: shares by rule, exact over every prefix, and the same forever."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data import mixture
from aya_jax.data.config import MixtureConfig
from aya_jax.data.mixture import PERIOD, Interleave, Order, Permutation, expand, make_order, slots

GOLDEN = pathlib.Path(__file__).parent / "golden"
TOKENS = {"text_en": 900, "text_de": 100, "code_web": 50, "code_markup": 50}

share_lists = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30).map(lambda w: [x / sum(w) for x in w])


# Rates


def test_a_pattern_is_divided_by_tokens():
    shares = expand({"text_*": 0.75, "code_*": 0.25}, TOKENS, 1.0)
    assert shares == pytest.approx({"text_en": 0.675, "text_de": 0.075, "code_web": 0.125, "code_markup": 0.125})
    assert list(shares) == sorted(shares)


def test_temperature_flattens_a_pattern():
    # tokens^(1/2): 30 to 10
    assert expand({"text_*": 1}, TOKENS, 2.0) == pytest.approx({"text_en": 0.75, "text_de": 0.25})
    assert expand({"text_*": 1}, TOKENS, 1e9) == pytest.approx({"text_en": 0.5, "text_de": 0.5})


def test_a_task_named_alone_leaves_the_pattern():
    assert expand({"text_*": 3, "text_en": 1}, TOKENS, 1.0) == pytest.approx({"text_de": 0.75, "text_en": 0.25})


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"text_fr": 1.0}, "no task matches 'text_fr'; did you mean text_"),
        ({"zzz*": 1.0}, "no task matches 'zzz*'; token stores: code_markup, code_web, text_de, text_en"),
        ({"text_*": 1.0, "*_en": 1.0}, "'text_*' and '*_en' both match text_en"),
        ({"text_en": 1.0, "text_de": 1e-9}, "text_de would have a share of 1.0e-09"),
    ],
)
def test_rates_that_cannot_be_met_are_named(rates, message):
    with pytest.raises(UserError) as error:
        expand(rates, TOKENS, 1.0)
    assert message in str(error.value)


def test_a_mixture_by_name_is_one_task_or_a_pattern():
    assert make_order(MixtureConfig(rates="text_de"), TOKENS, 8).tasks == ("text_de",)
    assert make_order(MixtureConfig(rates="text_*"), TOKENS, 8).tasks == ("text_de", "text_en")


# Interleaving


@settings(deadline=None)
@given(share_lists)
def test_slots_are_the_shares_to_within_one(shares):
    counts = slots(shares)
    assert sum(counts) == PERIOD
    assert max(abs(count - share * PERIOD) for count, share in zip(counts, shares, strict=True)) <= 1


def test_a_tiny_share_keeps_one_slot():
    assert slots([0.6e-6, 1 - 0.6e-6]) == [1, PERIOD - 1]
    assert slots([0.5 / PERIOD] * 3 + [1 - 1.5 / PERIOD]) == [1, 1, 1, PERIOD - 3]


@settings(deadline=None, max_examples=40)
@given(share_lists)
def test_every_prefix_has_its_shares_to_within_one_sequence(shares):
    length = 3000
    task, number = Interleave(shares).locate(np.arange(length))
    had = np.cumsum(task[:, None] == np.arange(len(shares)), axis=0)
    exact = np.arange(1, length + 1)[:, None] * np.array(slots(shares)) / PERIOD
    assert np.abs(had - exact).max() < 1
    np.testing.assert_array_equal(number, had[np.arange(length), task] - 1)  # each task's sequences in turn


def test_a_whole_period_gives_every_task_its_slots_and_repeats():
    shares = [0.61, 0.3, 0.05, 0.04]
    order = Interleave(shares)
    task, number = order.locate(np.arange(PERIOD - 100, PERIOD + 100))
    np.testing.assert_array_equal(np.bincount(order.locate(np.arange(PERIOD))[0]), slots(shares))
    first, first_number = order.locate(np.arange(100))
    np.testing.assert_array_equal(task[100:], first)
    np.testing.assert_array_equal(number[100:], first_number + np.array(slots(shares))[first])
    far = 10**12 + 7  # no table as long as the run
    np.testing.assert_array_equal(order.locate(np.array([far]))[0], order.locate(np.array([far % PERIOD]))[0])
    assert order.counts(far).sum() == far


@given(st.permutations(range(600)))
@settings(deadline=None, max_examples=10)
def test_the_order_does_not_depend_on_what_was_asked_before(indices):
    shares = [0.2, 0.5, 0.3]
    order = Interleave(shares)
    asked = np.array([order.locate(np.array([i * 31]))[0][0] for i in indices])
    np.testing.assert_array_equal(asked, Interleave(shares).locate(np.array(indices) * 31)[0])


# Stages


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 400), min_size=0, max_size=3), st.data())
def test_stages_keep_their_shares_and_go_on_with_each_task(gaps, data):
    names = ["a", "b", "c"]
    starts = np.cumsum([0, *gaps]).tolist()
    stages = []
    for start in starts:
        chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        stages.append((start, {name: 1 / len(chosen) for name in chosen}))
    order, length = Order(stages), 1500
    task, number = order.locate(np.arange(length))
    for k in range(len(order.tasks)):  # numbers run on over stages: no sequence is read twice, none is left out
        np.testing.assert_array_equal(number[task == k], np.arange((task == k).sum()))
    for (start, shares), stop in zip(stages, [*starts[1:], length], strict=True):
        for name, share in shares.items():
            had = (task[start:stop] == order.tasks.index(name)).sum()
            assert abs(had - share * (stop - start)) < 1.01
    for stop in (0, 1, starts[-1], length):
        np.testing.assert_array_equal(order.counts(stop), np.bincount(task[:stop], minlength=len(order.tasks)))


def test_a_schedule_counts_steps_of_the_global_batch():
    config = MixtureConfig(rates={"text_en": 1.0}, schedule=((3, {"code_web": 1.0}), (5, {"text_en": 1.0})))
    order = make_order(config, TOKENS, 8)
    task, _ = order.locate(np.arange(8 * 7))
    steps = np.array(order.tasks)[task].reshape(7, 8)
    assert [set(step) for step in steps] == [{"text_en"}] * 3 + [{"code_web"}] * 2 + [{"text_en"}] * 2


# Permutations


@pytest.mark.parametrize("size", [1, 2, 7, 5000, (1 << 14) + 1])
def test_an_epoch_draws_everything_once(size):
    epochs, indices = Permutation(3, "text_en", size).locate(np.arange(2 * size))
    np.testing.assert_array_equal(epochs, np.repeat([0, 1], size))
    for epoch in (0, 1):
        np.testing.assert_array_equal(np.sort(indices[epoch * size : (epoch + 1) * size]), np.arange(size))
    if size > 10:
        assert not np.array_equal(indices[:size], indices[size:])
        assert not np.array_equal(indices[:size], Permutation(4, "text_en", size).locate(np.arange(size))[1])
        assert not np.array_equal(indices[:size], Permutation(3, "text_de", size).locate(np.arange(size))[1])
        # The next epoch of one seed is no epoch of another seed (Grain's own shuffle adds the two).
        assert not np.array_equal(indices[size:], Permutation(4, "text_en", size).locate(np.arange(size))[1])


def test_a_large_store_needs_no_table():
    size = 2**32
    _, indices = Permutation(0, "big", size).locate(np.arange(1000) * 10**6)
    assert len(set(indices.tolist())) == 1000
    assert 0.4 < indices.mean() / size < 0.6
    with pytest.raises(UserError, match="lengthen the sequences"):
        Permutation(0, "big", size + 1)


def test_the_order_is_pinned():
    """Golden file. A change here gives running runs other batches: raise ORDER_VERSION with it."""
    config = MixtureConfig(rates={"text_*": 0.7, "code_*": 0.3}, temperature=2.0, schedule=((10, {"code_web": 1.0}),))
    task, number = make_order(config, TOKENS, 4).locate(np.arange(60))
    found = {
        "order_version": mixture.ORDER_VERSION,
        "tasks": task.tolist(),
        "numbers": number.tolist(),
        "small_store": Permutation(1, "text_en", 9).locate(np.arange(18))[1].tolist(),
        "large_store": Permutation(1, "text_en", 10**9).locate(np.arange(6))[1].tolist(),
        "draws": [mixture.draw(f"{k}", 1000) for k in range(5)],
    }
    golden = GOLDEN / "order.json"
    if not golden.exists():
        golden.write_text(json.dumps(found) + "\n")
        pytest.fail(f"wrote {golden}: look at it and commit it")
    assert found == json.loads(golden.read_text())


# SeqIO


def test_a_registered_seqio_mixture_gives_its_own_rates():
    seqio = pytest.importorskip("aya_jax.data.seqio_source").seqio
    for name in ("mixture_test_a", "mixture_test_b"):
        if name not in seqio.TaskRegistry.names():
            source = seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: None, splits=("train",))
            seqio.TaskRegistry.add(name, source=source, preprocessors=[], output_features={})
    if "mixture_test" not in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.add("mixture_test", [("mixture_test_a", 3.0), ("mixture_test_b", lambda task: 1.0)])
    assert mixture.registered_rates("mixture_test") == {"mixture_test_a": 3.0, "mixture_test_b": 1.0}
    tokens = {"mixture_test_a": 10, "mixture_test_b": 10}
    counts = make_order(MixtureConfig(rates="mixture_test"), tokens, 1).counts(400)
    assert counts.tolist() == [300, 100]
    with pytest.raises(UserError, match="no task or mixture 'mixture_tset'; did you mean mixture_test"):
        mixture.registered_rates("mixture_tset")
