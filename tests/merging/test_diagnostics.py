"""What models changed of their base, against NumPy in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.merging.diagnostics import place, sums_of
from tests.merging.models import tensors, variant


def planted(*deltas: np.ndarray, density: float = 0.5):
    base = np.zeros(deltas[0].shape, np.float32)
    return sums_of(base, [base + delta.astype(np.float32) for delta in deltas], density)


def test_planted_cases():
    rng = np.random.default_rng(0)
    delta = rng.normal(size=(40, 50))
    left, right = (np.where(np.arange(50) % 2 == parity, delta, 0) for parity in range(2))
    found = planted(delta, delta, -delta).record([(0, 1), (0, 2)])
    assert found["cosine"] == pytest.approx([1, -1], abs=1e-6)
    assert found["agreement"] == found["agreement_trimmed"] == [1.0, 0.0]
    assert found["conflict"] == [0.0, 1.0]
    assert found["conflict_trimmed"] == [0.0, 0.5]  # half of the entries stay, the same ones of both
    assert (found["mixed"], found["mixed_trimmed"]) == (1.0, 0.5)
    apart = planted(left, right, density=0.25).record([(0, 1)])
    assert apart["cosine"] == [0.0]
    assert apart["agreement"] == [None]  # no entry that both changed
    assert apart["conflict"] == [0.0]
    assert planted(delta, 0 * delta).record([(0, 1)])["cosine"] == [0.0]


def test_sums_of_tensors_of_several_blocks_are_numpys():
    rng = np.random.default_rng(1)
    shape, density = (1100, 1003), 0.2
    base = rng.normal(size=shape).astype(np.float32)
    models = [(base + rng.normal(size=shape)).astype(np.float32) for _ in range(3)]
    found = sums_of(base, models, density)
    deltas = np.stack([(model - base).ravel() for model in models])  # as float32, of which signs and ranks are
    wide = deltas.astype(np.float64)
    np.testing.assert_allclose(found.gram, wide @ wide.T, rtol=1e-5, atol=1e-6 * base.size)
    np.testing.assert_allclose(found.base, np.sum(base.astype(np.float64) ** 2), rtol=1e-6)
    kept = int(density * base.size)
    trimmed = np.zeros_like(deltas)
    for row, delta in zip(trimmed, deltas, strict=True):
        largest = np.argsort(-np.abs(delta), kind="stable")[:kept]
        row[largest] = delta[largest]
    for number, some in enumerate((deltas, trimmed)):
        signs = np.sign(some)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert found.same[number, i, j] == np.count_nonzero(signs[i] * signs[j] > 0)
            assert found.opposite[number, i, j] == np.count_nonzero(signs[i] * signs[j] < 0)
        assert found.mixed[number] == np.count_nonzero((signs > 0).any(0) & (signs < 0).any(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.12.self_attn.q_proj.weight", ("12", "q_proj")),
        ("model.layers.0.mlp.up_proj.weight", ("0", "up_proj")),
        ("model.layers.3.input_layernorm.weight", ("3", "input_layernorm")),
        ("model.embed_tokens.weight", ("–", "embed_tokens")),
        ("lm_head.weight", ("–", "lm_head")),
    ],
)
def test_the_place_of_a_tensor(name, expected):
    assert place(name) == expected


def test_the_report_adds_up_over_layers_and_kinds(tmp_path, capsys):
    base, *models = (variant(tmp_path / name, seed) for seed, name in enumerate("cab"))
    flags = [f"--gin.MODELS={tuple(map(str, models))!r}", f"--gin.BASE={base}", f"--gin.RUN_DIR={tmp_path / 'run'}"]
    assert main(["merge_diagnose", "merge/diagnose.gin", *flags]) == 0
    found = json.loads((tmp_path / "run" / "diagnostics.json").read_text())
    own, *others = (tensors(path) for path in (base, *models))
    deltas = [{name: other[name].astype(np.float64) - own[name] for name in own} for other in others]

    def cosine(names):
        one, other = (np.concatenate([delta[name].ravel() for name in names]) for delta in deltas)
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    layer, kind = [n for n in own if ".layers.1." in n], [n for n in own if "up_proj" in n]
    for group, names in ((found["layers"]["1"], layer), (found["kinds"]["up_proj"], kind), (found["all"], list(own))):
        assert group["cosine"] == pytest.approx([cosine(names)], abs=1e-5)
        assert group["entries"] == sum(own[name].size for name in names)
    for groups in ("layers", "kinds", "tensors"):
        shares = np.array([group["norm_share"] for group in found[groups].values()])
        np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    page = (tmp_path / "run" / "diagnostics.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "up_proj" in page
    assert "cosine" in capsys.readouterr().out


def test_a_base_that_is_missing_or_given_twice_is_refused(tmp_path, capsys):
    base = variant(tmp_path / "c", 0)
    flags = [f"--gin.MODELS=('{base}',)", f"--gin.BASE={base}", f"--gin.RUN_DIR={tmp_path / 'run'}"]
    assert main(["merge_diagnose", "merge/diagnose.gin", *flags]) == 2
    assert "is given twice" in capsys.readouterr().err
