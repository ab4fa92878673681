"""The command line: what it runs, prints and returns, and how soon."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aya_jax import cli
from aya_jax.config import RunDirectory, UserError, resolve
from tests.config.examples import VALID, KitchenExample

CALLS = []


def record(resolved):
    """The test verb: remembers what it was called with; `seed` says how it ends."""
    CALLS.append(resolved)
    if resolved.config.seed == 1:
        raise UserError("cook.py: the soup is burnt; order a pizza.")
    if resolved.config.seed == 2:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def kitchen(monkeypatch, tmp_path):
    """A verb `cook` and an empty current directory."""
    verb = cli.Verb("tests.config.examples:KitchenExample", "tests.test_cli:record", "cook something")
    monkeypatch.setitem(cli.VERBS, "cook", verb)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AYA_DATA", raising=False)
    monkeypatch.delenv("AYA_DEBUG", raising=False)
    Path("run.gin").write_text(VALID)
    CALLS.clear()
    return tmp_path


def aya(capsys, *argv):
    code = cli.main(argv)
    output = capsys.readouterr()
    return code, output.out, output.err


class TestRunning:
    def test_files_flags_and_search_paths(self, capsys):
        Path("more").mkdir()
        Path("more/last.gin").write_text("KitchenExample.limit = 5")
        arguments = ["run.gin", "--gin.RUN_DIR=here", "--gin_file=last.gin", "--gin_search_paths=nowhere,more"]
        assert aya(capsys, "cook", *arguments) == (0, "", "")
        assert (CALLS[0].config.run_dir, CALLS[0].config.limit) == ("here", 5.0)

    def test_user_error_prints_the_message_alone(self, capsys, monkeypatch):
        code, out, err = aya(capsys, "cook", "run.gin", "--gin.KitchenExample.seed=1")
        assert (code, out, err) == (1, "", "cook.py: the soup is burnt; order a pizza.\n")
        monkeypatch.setenv("AYA_DEBUG", "1")
        code, _, err = aya(capsys, "cook", "run.gin", "--gin.KitchenExample.seed=1")
        assert code == 1
        assert "Traceback" in err

    def test_interruption(self, capsys):
        assert aya(capsys, "cook", "run.gin", "--gin.KitchenExample.seed=2")[0] == 130

    def test_a_mistake_runs_nothing(self, capsys):
        code, out, err = aya(capsys, "cook", "run.gin", "--gin.KitchenExample.sed=1", "--gin.SEED=3")
        assert (code, out, CALLS) == (2, "", [])
        assert err.splitlines() == [
            "--gin.KitchenExample.sed=1: KitchenExample.sed = 1: unknown field; did you mean seed?",
            "--gin.SEED=3: SEED = 3: nothing uses this macro; remove it, or write %SEED where it belongs",
            "2 problems; nothing was started.",
        ]

    def test_the_data_directory_comes_from_the_environment_where_asked_for(self, capsys, monkeypatch):
        Path("run.gin").write_text(VALID.replace("'somewhere'", "%DATA_DIR"))
        assert "DATA_DIR is required" in aya(capsys, "cook", "run.gin")[2]
        monkeypatch.setenv("AYA_DATA", "/corpora")
        assert aya(capsys, "cook", "run.gin")[0] == 0
        assert CALLS[0].config.run_dir == "/corpora"
        Path("run.gin").write_text(VALID)
        assert aya(capsys, "cook", "run.gin")[0] == 0


class TestMistakes:
    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (["coook"], "unknown verb; did you mean cook?"),
            (["confg"], "unknown verb; did you mean config?"),
            (["zzz"], "unknown verb; the verbs are tokenizer, "),
            (["run.gin"], "the verb comes first: aya VERB run.gin"),
            (["cook"], "no gin file given: aya cook FILE.gin"),
            (["cook", "rum.gin"], "no file rum.gin"),
            (["cook", "."], ". is a folder and no gin file"),
            (["cook", "run.gin", "--gin_files=x"], "unknown flag; did you mean --gin_file?"),
            (["cook", "run.gin", "--run_dir=x"], "unknown flag; did you mean --gin.RUN_DIR=?"),
            (["cook", "run.gin", "--gin_file", "x"], "expected --gin_file=VALUE, in one word"),
            (["cook", "run.gin", "--gin.RUN_DIR", "x"], "expected --gin.NAME=VALUE"),
            (["config", "shwo", "run.gin"], "did you mean show?"),
            (["config", "diff", "run.gin"], "aya config diff A B"),
            (["config", "show", "nope.gin"], "no file nope.gin"),
        ],
    )
    def test_each_is_explained_with_exit_code_2(self, capsys, argv, said):
        code, out, err = aya(capsys, *argv)
        assert (code, out) == (2, "")
        assert said in err
        assert "Traceback" not in err

    def test_all_wrong_flags_at_once(self, capsys):
        assert aya(capsys, "cook", "--a", "--b")[2].splitlines()[-1] == "2 problems; nothing was started."


TRAIN = """\
include 'models/25m.gin'
TrainConfig.run_dir = %RUN_DIR
TrainConfig.steps = %STEPS
STEPS = 100
DataConfig.store_dir = 'stores'
DataConfig.sequence_length = %SEQUENCE_LENGTH
SEQUENCE_LENGTH = 256
DataConfig.global_batch = 8
MixtureConfig.rates = {'text_*': 0.75, 'code_*': 0.25}
OptimizerConfig.learning_rate = 3e-4
"""


class TestTrain:
    """The real root class, with mistakes of every kind."""

    def test_a_good_file_resolves_and_repeats(self, capsys):
        Path("train.gin").write_text(TRAIN)
        code, _, err = aya(capsys, "config", "show", "train.gin")
        assert (code, err) == (0, "")
        root = cli.load(cli.VERBS["train"].root)
        first = resolve(root, ["train.gin"], ["RUN_DIR=runs/first"])
        Path("again.gin").write_text(first.text)
        again = resolve(root, ["again.gin"])
        assert (again.snapshot, again.text, again.fingerprint) == (first.snapshot, first.text, first.fingerprint)
        assert resolve(root, ["train.gin"], ["RUN_DIR=runs/second"]).fingerprint == first.fingerprint

    def test_xla_flags_of_the_hardware_file_are_set_before_the_run(self, capsys, monkeypatch):
        monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
        monkeypatch.setitem(cli.VERBS, "train", cli.Verb(cli.VERBS["train"].root, "tests.test_cli:record", ""))
        Path("train.gin").write_text(TRAIN + "MeshConfig.xla_flags = ('--xla_mine=2', '--xla_of_the_file=3')")
        assert aya(capsys, "train", "train.gin", "--gin.RUN_DIR=x") == (0, "", "")
        assert os.environ["XLA_FLAGS"] == "--xla_mine=1 --xla_of_the_file=3"
        assert CALLS[0].config.run_dir == "x"

    def test_everything_wrong_is_said_at_once(self, capsys):
        text = TRAIN.replace("OptimizerConfig.learning_rate", "OptimizerConfig.learning_rat")
        text += (
            "OptimizerConfig.clip_norm = 'one'\nMeshConfig.data = 3\nTransformerConfig.num_kv_heads = 3\nWARMUP = 10\n"
        )
        Path("train.gin").write_text(text)
        code, out, err = aya(capsys, "train", "train.gin", "--gin.SEQUENCE_LENGTH=4096", "--gin.STEP=5")
        assert (code, out) == (2, "")
        assert err.splitlines() == [
            "train.gin:8: DataConfig.global_batch = 8: expected a multiple of 3: "
            "accumulation x the 3 devices that the mesh divides it over",
            "train.gin:10: OptimizerConfig.learning_rat = 0.0003: unknown field; did you mean learning_rate?",
            "train.gin:11: OptimizerConfig.clip_norm = 'one': expected float or None",
            "train.gin:13: TransformerConfig.num_kv_heads = 3: expected a divisor of num_heads = 8",
            "train.gin:14: WARMUP = 10: nothing uses this macro; remove it, or write %WARMUP where it belongs",
            "--gin.SEQUENCE_LENGTH=4096: SEQUENCE_LENGTH = 4096 (it is DataConfig.sequence_length, train.gin:6): "
            "expected at most the model's max_sequence_length = 2048",
            "--gin.STEP=5: STEP = 5: nothing uses this macro; did you mean STEPS?",
            "RUN_DIR is required: add --gin.RUN_DIR=... (train.gin:2: TrainConfig.run_dir = %RUN_DIR)",
            "OptimizerConfig.learning_rate is required (float): "
            "bind it, or add --gin.OptimizerConfig.learning_rate=...",
            "9 problems; nothing was started.",
        ]


class TestConfig:
    def test_show_a_file_whose_verb_follows_from_it(self, capsys):
        code, out, _ = aya(capsys, "config", "show", "run.gin", "--gin.KitchenExample.seed=4")
        assert code == 0
        lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
        assert lines["seed"].split(maxsplit=1) == ["4", "# --gin.KitchenExample.seed=4"]
        assert lines["run_dir"].split(maxsplit=1) == ["'somewhere'", "# run.gin:1"]
        assert aya(capsys, "config", "show", "cook", "run.gin", "--gin.KitchenExample.seed=4")[1] == out

    def test_show_needs_no_run_dir(self, capsys):
        Path("run.gin").write_text(VALID.replace("RUN_DIR = 'somewhere'\n", ""))
        assert "# default of RUN_DIR" in aya(capsys, "config", "show", "run.gin")[1]

    def test_diff_of_files_and_of_run_directories(self, capsys):
        Path("other.gin").write_text("include 'run.gin'\nChefExample.bowls = 8")
        code, out, _ = aya(capsys, "config", "diff", "run.gin", "other.gin")
        expected = "--- {}\n+++ {}\nchef.bowls\n  - 4\n  + 8\n1 field differs\n"
        assert (code, out) == (0, expected.format("run.gin", "other.gin"))
        for name in ("run", "other"):
            RunDirectory.open(name, resolve(KitchenExample, [f"{name}.gin"]), {}).close()
        assert aya(capsys, "config", "diff", "run", "other") == (0, expected.format("run", "other"), "")
        assert aya(capsys, "config", "diff", "run", "run.gin") == (0, "run and run.gin: no difference\n", "")
        assert "chef.bowls    4\n" in aya(capsys, "config", "show", "run")[1]

    def test_a_folder_that_is_no_run(self, capsys):
        code, _, err = aya(capsys, "config", "show", ".")
        assert code == 1
        assert "it holds no config.json" in err


class TestHelp:
    def test_general(self, capsys):
        for argv in ([], ["--help"], ["-h"]):
            code, out, err = aya(capsys, *argv)
            assert (code, err) == (0, "")
            for word in (*cli.VERBS, *cli.MACROS, "config", "aya VERB [FILE.gin ...]"):
                assert word in out

    def test_of_a_verb(self, capsys):
        code, out, _ = aya(capsys, "cook", "--help")
        assert code == 0
        for text in ("aya cook: cook something", "run_dir: str  (required)", "OvenExample", "RUN_DIR"):
            assert text in out

    def test_version_and_config_usage(self, capsys):
        assert aya(capsys, "--version")[1] == "aya_jax 0.1.0\n"
        assert aya(capsys, "config", "--help")[1] == cli.CONFIG_USAGE


@pytest.mark.parametrize("file", ["models/25m.gin", "gin/models/25m.gin"])
def test_run_files_are_found_from_any_folder(capsys, file):
    assert aya(capsys, "config", "show", "describe", file)[0] == 0


def test_tensorflow_is_quiet_unless_the_user_wants_to_hear_it(capsys, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    aya(capsys, "--version")
    assert (os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["GRPC_VERBOSITY"]) == ("0", "ERROR")


class TestXlaFlags:
    def test_the_users_own_win_and_the_tpu_compilers_go_to_it(self):
        environ = {"XLA_FLAGS": "--xla_a=1 --xla_b"}
        cli.set_xla_flags(("--xla_a=2", "--xla_c=3", "--xla_tpu_d=true"), environ)
        assert environ == {"XLA_FLAGS": "--xla_a=1 --xla_b --xla_c=3", "LIBTPU_INIT_ARGS": "--xla_tpu_d=true"}

    def test_no_flags_no_variables(self):
        environ = {}
        cli.set_xla_flags((), environ)
        assert environ == {}


HEAVY = "{'jax', 'jaxlib', 'tensorflow', 'numpy', 'flax', 'torch'} & set(sys.modules)"


def python(code: str, *argv: str) -> tuple[subprocess.CompletedProcess, float]:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60, check=False)
    return done, time.perf_counter() - start


class TestSpeed:
    """Limits are the product's, several times what is measured on an idle machine, so that a busy one passes too."""

    def test_help_imports_nothing_heavy_and_takes_less_than_a_second(self):
        code = f"import sys; from aya_jax.cli import main; code = main(sys.argv[1:]); print({HEAVY}); sys.exit(code)"
        done, seconds = python(code, "--help")
        assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "set()", "")
        assert seconds < 1

    @pytest.mark.parametrize("verb", cli.VERBS)
    def test_help_and_mistakes_of_every_verb_come_without_jax(self, verb):
        module = cli.VERBS[verb].root.partition(":")[0]
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not there yet")
        code = (
            "import sys; from aya_jax.cli import main; "
            f"codes = main([{verb!r}, '--help']), main([{verb!r}, '--gin.NoSuchConfig.x=1']); print(codes, {HEAVY})"
        )
        done, seconds = python(code)
        assert done.stdout.splitlines()[-1] == "(0, 2) set()"
        assert "unknown configuration class NoSuchConfig" in done.stderr
        assert seconds < 3


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m aya_jax --help | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_with_130_and_no_trace(kitchen):
    Path("slow_to_import.py").write_text("import time; print('waiting', flush=True); time.sleep(30)")
    Path("slow.gin").write_text("import slow_to_import\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "aya_jax", "describe", "slow.gin"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # A shell that runs the tests in the background has its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Interrupted.\n")
