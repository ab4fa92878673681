"""Near names and the message of a configuration error."""

from aya_jax.config import ConfigError, UserError
from aya_jax.config.errors import did_you_mean, near_names


def test_near_names_are_few_close_and_in_order():
    assert near_names("learning_rat", ["learning_rate", "weight_decay", "learning_rates"]) == (
        "learning_rate",
        "learning_rates",
    )
    assert near_names("run_dir", ["RUN_DIR", "SEED"]) == ("RUN_DIR",)
    assert near_names("MixtureConfg", ["MixtureConfig", "MeshConfig", "ReportConfig"]) == ("MixtureConfig",)
    assert near_names("x", ["learning_rate"]) == ()
    assert near_names("x", []) == ()
    assert len(near_names("name_0", [f"name_{n}" for n in range(1, 9)])) == 3


def test_did_you_mean():
    assert did_you_mean([]) == ""
    assert did_you_mean(["a"]) == "; did you mean a?"
    assert did_you_mean("abcd") == "; did you mean a, b or c?"


def test_the_error_lists_and_counts():
    assert str(ConfigError(["p"])) == "p\n1 problem; nothing was started."
    assert str(ConfigError(["p", "q"])) == "p\nq\n2 problems; nothing was started."
    assert (ConfigError(["p"]).exit_code, UserError("x").exit_code) == (2, 1)
