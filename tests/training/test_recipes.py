"""The recipes of gin/train/: each resolves with what its head calls required, at the paper's scale and in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest

from aya_jax.config import ConfigError, resolve
from aya_jax.objectives.config import PreferenceConfig, RewardConfig
from aya_jax.synthesis.config import OnlineConfig
from aya_jax.training.config import TrainConfig
from tests.training.tuning import ROOT, SEARCH_PATHS

GIVEN = ["RUN_DIR=runs/x", "MODEL_DIR=models/base"]
RECIPES = {
    "aya_23_sft": type(None),
    "expanse_sft": type(None),
    "expanse_dpo": PreferenceConfig,
    "reward_model": RewardConfig,
    "safety_sft": type(None),
    "safety_dpo": PreferenceConfig,
}
SHARES = ("000", "015", "100")


def files(*names):
    return [str(ROOT / "gin" / f"{name}.gin") for name in names]


def resolved(root, names, *bindings):
    return resolve(root, files=files(*names), bindings=[*GIVEN, *bindings], search_paths=SEARCH_PATHS).config


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_at_the_paper_s_scale(name):
    mixtures = [f"mixtures/safety_{SHARES[1]}"] if name.startswith("safety") else []
    config = resolved(TrainConfig, [f"train/{name}", *mixtures], "STORE_DIR=stores")
    assert isinstance(config.objective, RECIPES[name])
    assert config.model.embed_dim == 4096
    assert config.precision.compute == "bfloat16"
    assert config.data.packing == "documents"
    assert config.data.long_documents == "truncate"


def test_aya_23_is_tuned_as_the_paper_says():
    """13,200 steps x 64 rows x 8,192 tokens = 6.9 billion; cosine from 6e-4 to 6e-5."""
    config = resolved(TrainConfig, ["train/aya_23_sft"], "STORE_DIR=stores")
    assert config.steps * config.data.global_batch * config.data.sequence_length == 6_920_601_600
    assert (config.optimizer.learning_rate, config.optimizer.schedule.final_learning_rate) == (6e-4, 6e-5)
    assert config.optimizer.schedule.kind == "cosine"


@pytest.mark.parametrize("path", sorted((ROOT / "gin/train/miniature").glob("*.gin")), ids=lambda path: path.stem)
def test_a_miniature_is_the_same_recipe_small(path: Path):
    names = [
        f"train/miniature/{path.stem}",
        *([f"mixtures/safety_{SHARES[2]}"] if path.stem.startswith("safety") else []),
    ]
    if path.stem == "expanse_online":
        config = resolved(OnlineConfig, names, "INPUT=prompts.jsonl")
        large = resolved(
            OnlineConfig, ["train/expanse_online"], "INPUT=prompts.jsonl", "RewardModelConfig.model_dir='rm'"
        )
        assert (config.rounds, large.rounds) == (3, 3)
        small, large = config.train, large.train
    else:
        small = resolved(TrainConfig, names, "STORE_DIR=stores")
        mixtures = names[1:]
        large = resolved(TrainConfig, [f"train/{path.stem}", *mixtures], "STORE_DIR=stores")
    assert small.objective == large.objective or isinstance(small.objective, RewardConfig)
    assert small.data.mixture == large.data.mixture
    assert (
        small.steps * small.data.global_batch * small.data.sequence_length
        < 1e6
        < large.steps * large.data.sequence_length
    )


@pytest.mark.parametrize(
    ("share", "rates"), [("000", {"general_*": 1}), ("015", {"general_*": 0.85, "safety_*": 0.15})]
)
def test_safety_mixtures(share, rates):
    config = resolved(TrainConfig, ["train/safety_dpo", f"mixtures/safety_{share}"], "STORE_DIR=stores")
    assert config.data.mixture.rates == rates


def test_a_safety_recipe_without_its_mixture_says_what_is_missing():
    with pytest.raises(ConfigError, match="MIXTURE is required"):
        resolved(TrainConfig, ["train/safety_sft"], "STORE_DIR=stores")
