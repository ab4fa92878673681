"""The command line: `aya VERB [FILE.gin ...] [--gin.NAME=VALUE ...]`.

Reads the flags and the environment, which nothing below does, resolves the verb's configuration, and only then imports
what runs it. So help and mistakes come at once, without JAX.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import aya_jax
from aya_jax.config.loading import load

if TYPE_CHECKING:
    from aya_jax.config import Resolved
    from aya_jax.parallel.launch import Launch


@dataclasses.dataclass(frozen=True)
class Verb:
    """What a verb needs and does.

    Attributes:
      root: "module:Class" of its root configuration class; the module imports neither JAX nor TensorFlow.
      run: "module:function" that is called with the `Resolved` configuration.
      help: one line.
      together: whether several processes can do it together (docs/distributed.md); a configuration whose `alone` says why it
        cannot is an exception.
      base: gin files that are read before those of the command line.
      names: the field that takes what stands on the command line and is no gin file.
    """

    root: str
    run: str
    help: str
    together: bool = False
    base: tuple[str, ...] = ()
    names: str = ""


VERBS: dict[str, Verb] = {
    "tokenizer": Verb(
        "aya_jax.data.tokenizer_config:TokenizerConfig",
        "aya_jax.data.tokenizer:run",
        "train a byte-level BPE tokenizer, with a fertility table by language",
    ),
    "prepare": Verb(
        "aya_jax.data.prepare_config:PrepareConfig", "aya_jax.data.prepare:run", "turn text into token stores"
    ),
    "inspect": Verb("aya_jax.data.config:InspectConfig", "aya_jax.data.inspect:run", "show the rows of a batch"),
    "describe": Verb(
        "aya_jax.models.config:DescribeConfig",
        "aya_jax.models.describe:run",
        "a model's shapes, parameters, FLOPs and memory",
    ),
    "plan": Verb(
        "aya_jax.planning.config:PlanConfig",
        "aya_jax.planning.plan:run",
        "will a training run fit on a machine, and how fast can it be there",
        base=("plan/base.gin",),
    ),
    "train": Verb(
        "aya_jax.training.config:TrainConfig",
        "aya_jax.training.train:run",
        "train a model, or go on with it",
        together=True,
    ),
    "online": Verb(
        "aya_jax.synthesis.config:OnlineConfig",
        "aya_jax.synthesis.online:run",
        "rounds of sampling answers, scoring them, and training on the best against the worst",
        together=True,
    ),
    "evaluate": Verb(
        "aya_jax.evaluation.config:EvaluateConfig",
        "aya_jax.evaluation.evaluate:run",
        "benchmarks, loss on held-out text, a profile of answers, bias, contamination",
        together=True,
    ),
    "convert": Verb(
        "aya_jax.interop.config:ConvertConfig",
        "aya_jax.interop.convert:run",
        "a Hugging Face model to one of ours, or the other way round",
        base=("convert/base.gin",),
    ),
    "merge": Verb(
        "aya_jax.merging.config:MergeConfig",
        "aya_jax.merging.merge:run",
        "one model from several: linear, SLERP, TIES, DARE, ..., or a file of mergekit's",
        base=("merge/base.gin",),
        names="MergeConfig.recipe",
    ),
    "merge_search": Verb(
        "aya_jax.merging.search_config:MergeSearchConfig",
        "aya_jax.studies.merge_search:run",
        "the best merge of several models by several objectives, merged and measured in memory",
        together=True,
    ),
    "merge_diagnose": Verb(
        "aya_jax.merging.diagnose_config:MergeDiagnoseConfig",
        "aya_jax.studies.merge_map:run",
        "where models pull their base in different directions: cosines, signs and norms by layer and matrix",
    ),
    "select": Verb(
        "aya_jax.selection.config:SelectConfig",
        "aya_jax.studies.selection:run",
        "the rows to train on: diverse by clusters, good by a quality, or both",
        base=("select/base.gin",),
    ),
    "generate": Verb(
        "aya_jax.inference.generate_config:GenerateConfig",
        "aya_jax.inference.generate:run",
        "answers to a prompt, or to the rows of a JSONL file",
        together=True,
        base=("generate/base.gin",),
    ),
    "serve": Verb(
        "aya_jax.inference.serve_config:ServeConfig",
        "aya_jax.inference.serve:run",
        "a model behind an OpenAI-compatible HTTP interface",
        base=("serve/base.gin",),
    ),
    "judge": Verb(
        "aya_jax.evaluation.judging.config:JudgeConfig",
        "aya_jax.evaluation.judging.run:run",
        "win rates, grades, harm rates, reward benchmarks and agreement with people, by a judge",
        together=True,
        base=("judge/base.gin",),
    ),
    "compare": Verb(
        "aya_jax.studies.config:CompareConfig",
        "aya_jax.studies.benchmarks:run",
        "models on the benchmarks that both have run: differences with intervals, answers side by side",
        names="CompareConfig.run_dirs",
    ),
    "study": Verb(
        "aya_jax.studies.config:StudyConfig", "aya_jax.studies.study:run", "run the stages of a study, sweeps included"
    ),
    "report": Verb(
        "aya_jax.studies.config:ReportConfig", "aya_jax.studies.report:run", "write the report of a study or a run"
    ),
}

MACROS = {
    "RUN_DIR": "where the run writes",
    "SEED": "what all randomness derives from",
    "STEPS": "optimizer steps",
    "GLOBAL_BATCH": "sequences in a step, over all devices",
    "SEQUENCE_LENGTH": "tokens in a sequence",
    "LEARNING_RATE": "the highest learning rate",
    "MIXTURE": "tasks and their rates, or the name of one",
    "MODEL_DIR": "a model to start from, to judge or to generate with: a run directory, a checkpoint, a Hugging Face directory",
    "ADAPTER": "a LoRA adapter in PEFT's format, for MODEL_DIR or SOURCE",
    "TASKS": "what is measured: names or patterns",
    "JUDGE_DIR": "the model that judges",
    "REFERENCE_DIR": "the model that a policy was trained from",
    "ANSWERS": "a model's answers: a file of `aya generate`",
    "BASELINE": "another model's answers to the same prompts",
    "TRAINED": "files of answers by what each model was trained on",
    "PAIRS": "files of pairs of answers",
    "PROMPT": "a text to go on from",
    "ROWS": "files of rows to choose from",
    "BUDGET": "rows to take",
    "PREVIOUS": "the RUN_DIR of the round of selection before",
    "INPUT": "a JSONL file of prompts",
    "OUTPUT": "the JSONL file that answers are written to",
    "SOURCE": "a model to convert",
    "MODELS": "models to merge: \"('runs/a', 'runs/b')\"",
    "BASE": "the model that those to merge were made from",
    "WEIGHTS": "of the models to merge, one for each",
    "TARGET": "the directory that convert or merge writes; the machine that a run is planned for: v5p-128, v5e-256, h200-8",
    "API_KEY_FILE": "a file with the key that an endpoint asks for, on one line",
    "PROFILE_STEPS": "(FIRST, LAST): the steps to trace",
    "DATA_DIR": "the corpus: 'sample', or a folder; the environment variable AYA_DATA where nothing binds it",
    "STORE_DIR": "where token stores are",
    "VOCABULARY": "'bytes', a tokenizer.json or a SentencePiece .model",
    "PLAN_JSON": "where a plan is written as JSON",
}

USAGE = "aya VERB [FILE.gin ...] [--gin_file=F] [--gin_search_paths=A,B] [--gin.NAME=VALUE ...]"
CONFIG_USAGE = """\
aya config show [VERB] FILE.gin ... [--gin.NAME=VALUE ...]   every value, and where it was written
aya config show RUN_DIR                                      the configuration of a run
aya config diff A B [--gin.NAME=VALUE ...]                   what differs; A and B are run directories or gin files
"""
PROCESS_FLAGS = {
    "coordinator_address": "HOST:PORT of process 0, which the others can reach",
    "process_index": "this process's number, from 0",
    "process_count": "how many there are; 1, alone, whatever a scheduler says",
    "join_timeout": "seconds to wait for all of them at the start (300)",
    "heartbeat_timeout": "seconds after which a silent machine counts as gone (100)",
}
_FLAGS = ("--gin_file", "--gin_search_paths", "--help", "--version", "--chat", *(f"--{name}" for name in PROCESS_FLAGS))
_INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A command line, taken apart."""

    words: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    search_paths: tuple[str, ...] = ()
    processes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    help: bool = False
    version: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `aya` and returns its exit code: 0, 1 (user error), 2 (configuration) or 130 (Ctrl-C)."""
    from aya_jax.config.errors import UserError

    _quieten(os.environ)
    atexit.register(gc.freeze)  # else the interpreter looks through every object several times before it ends
    try:
        _dispatch(parse_arguments(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except UserError as error:
        if os.environ.get("AYA_DEBUG") == "1":
            traceback.print_exc()
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output (`| head`) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Takes a command line apart.

    Raises:
      ConfigError: an unknown flag, or one that is not written as --NAME=VALUE.
    """
    from aya_jax.config.errors import ConfigError, did_you_mean, near_names

    words, files, bindings, search_paths, processes, problems = [], [], [], [], {}, []
    flags = {"help": False, "version": False}
    for argument in argv:
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            words.append(argument)
        elif name.startswith("--gin."):
            bindings.append(argument)
        elif argument == "--chat":
            bindings.append("--gin.GenerateConfig.chat=True")
        elif argument in ("-h", "--help", "--version"):
            flags["version" if argument == "--version" else "help"] = True
        elif name in ("--gin_file", "--gin_search_paths") and equals and value:
            files += [value] if name == "--gin_file" else []
            search_paths += value.split(",") if name == "--gin_search_paths" else []
        elif name[2:] in PROCESS_FLAGS and equals and value:
            processes[name[2:]] = value
            if name != "--coordinator_address" and not value.isdigit():
                problems.append(f"{argument}: expected a whole number")
        elif name in _FLAGS[:2] or name[2:] in PROCESS_FLAGS:
            problems.append(f"{argument}: expected {name}=VALUE, in one word")
        else:
            near = [f"--gin.{MACRO}=" for MACRO in near_names(name.lstrip("-"), MACROS)] or near_names(name, _FLAGS)
            problems.append(f"{argument}: unknown flag{did_you_mean(near) or f' ({USAGE})'}")
    if problems:
        raise ConfigError(problems)
    return Arguments(tuple(words), tuple(files), tuple(bindings), tuple(search_paths), processes, **flags)


def _dispatch(arguments: Arguments) -> None:
    if arguments.version:
        print(f"aya_jax {aya_jax.__version__}")
    elif not arguments.words:
        print(_help_text())
    elif arguments.words[0] == "config":
        _config(dataclasses.replace(arguments, words=arguments.words[1:]))
    else:
        _run_verb(arguments.words[0], dataclasses.replace(arguments, words=arguments.words[1:]))


def _run_verb(name: str, arguments: Arguments) -> None:
    """Resolves a verb's configuration, then imports and calls what runs it."""
    from aya_jax.config.errors import ConfigError

    verb = _verb_named(name)
    if arguments.help:
        print(_verb_help(name, verb))
        return
    if verb.names:
        named = tuple(word for word in arguments.words if not word.endswith(".gin"))
        words = tuple(word for word in arguments.words if word not in named)
        bound = (f"{verb.names}={named!r}",) if named else ()
        arguments = dataclasses.replace(arguments, words=words, bindings=(*bound, *arguments.bindings))
    files = [*arguments.words, *arguments.files]
    if not files and not arguments.bindings:
        raise ConfigError(
            [f"aya {name}: no gin file given: aya {name} FILE.gin; aya {name} --help lists what it takes"]
        )

    launch = _launch(name, verb, arguments.processes)

    def prepare() -> Resolved:
        resolved = _resolve(load(verb.root), [*verb.base, *files], arguments)
        if launch is not None and (reason := getattr(resolved.config, "alone", None)):
            raise ConfigError([f"aya {name}: {reason}; start it once, with --process_count=1"])
        # The mesh is the verb's own, or that of the model that it runs.
        owner = resolved.config if hasattr(resolved.config, "mesh") else getattr(resolved.config, "model", None)
        flags = getattr(getattr(owner, "mesh", None), "xla_flags", ())
        set_xla_flags(flags, os.environ)
        return resolved

    if launch is None:
        resolved = prepare()  # before the import: mistakes come without JAX
        load(verb.run)(resolved)
    else:
        _run_together(launch, arguments.processes, prepare, lambda resolved: load(verb.run)(resolved))


def _launch(name: str, verb: Verb, flags: Mapping[str, str]) -> Launch | None:
    """This process's place among several; None for a run of one."""
    from aya_jax.config.errors import ConfigError
    from aya_jax.parallel.launch import LaunchFlags, detect

    if not verb.together:
        if flags:
            given = ", ".join(f"--{flag}" for flag in flags)
            raise ConfigError([f"aya {name}: {given}: this verb runs in one process; start it once"])
        return None
    place = {flag: int(flags[flag]) for flag in ("process_index", "process_count") if flag in flags}
    launch_flags = LaunchFlags(coordinator_address=flags.get("coordinator_address"), **place)
    launch = detect(os.environ, launch_flags)
    # A TPU VM asks its metadata server, which needs JAX; so only where its compiler is installed.
    if launch is None and launch_flags == LaunchFlags() and importlib.util.find_spec("libtpu"):
        launch = load("aya_jax.parallel.distributed:cloud_tpu_vm")()
    return launch


def _run_together(
    launch: Launch, flags: Mapping[str, str], prepare: Callable[[], Resolved], run: Callable[[Resolved], None]
) -> None:
    from aya_jax.parallel.session import run_together

    # gRPC would ask a proxy for the way to the coordinator.
    for variable in ("no_grpc_proxy", "no_proxy"):
        hosts = [os.environ.get(variable, ""), launch.coordinator.rpartition(":")[0]]
        os.environ[variable] = ",".join(filter(None, hosts))
    limits = {name: int(flags[name]) for name in ("join_timeout", "heartbeat_timeout") if name in flags}
    run_together(launch, prepare, run, **limits)


def set_xla_flags(flags: Sequence[str], environ: MutableMapping[str, str]) -> None:
    """Adds flags to XLA_FLAGS, and those of the TPU compiler to LIBTPU_INIT_ARGS; one that is set there already stays.

    JAX reads both when it first looks for devices, so this must come before.
    """
    for flag in flags:
        variable = "LIBTPU_INIT_ARGS" if flag.startswith("--xla_tpu") else "XLA_FLAGS"
        present = environ.get(variable, "").split()
        if flag.partition("=")[0] not in {other.partition("=")[0] for other in present}:
            environ[variable] = " ".join([*present, flag])


def _resolve(
    root: type, files: Sequence[str], arguments: Arguments, offered: Mapping[str, str] | None = None
) -> Resolved:
    from aya_jax.config import resolve

    defaults = dict(offered or {})
    if os.environ.get("AYA_DATA"):
        defaults["DATA_DIR"] = os.environ["AYA_DATA"]
    return resolve(root, files, arguments.bindings, arguments.search_paths, defaults)


def _config(arguments: Arguments) -> None:
    """`aya config show` and `aya config diff`."""
    from aya_jax.config.errors import ConfigError, did_you_mean, near_names

    action, words = (arguments.words or ("",))[0], [*arguments.words[1:], *arguments.files]
    if arguments.help or not action:
        print(CONFIG_USAGE, end="")
    elif action == "show" and words:
        _config_show(words, arguments)
    elif action == "diff" and len(words) == 2:
        _config_diff(words, arguments)
    else:
        near = did_you_mean(near_names(action, ["show", "diff"])) if action not in ("show", "diff") else ""
        raise ConfigError([f"aya config {' '.join([action, *words])}: not understood{near}\n{CONFIG_USAGE.rstrip()}"])


def _config_show(words: Sequence[str], arguments: Arguments) -> None:
    from aya_jax.config.run_directory import read_snapshot
    from aya_jax.config.show import show
    from aya_jax.config.snapshot import to_plain

    if Path(words[0]).is_dir():
        print(show(read_snapshot(words[0])), end="")
        return
    verb, files = (words[0], words[1:]) if words[0] in VERBS else ("", words)
    resolved = _resolve_files(files, arguments, verb)
    print(show(to_plain(resolved.config), resolved.origins), end="")


def _config_diff(words: Sequence[str], arguments: Arguments) -> None:
    from aya_jax.config.run_directory import read_snapshot
    from aya_jax.config.show import show_differences
    from aya_jax.config.snapshot import differences, to_plain

    old, new = (
        read_snapshot(word) if Path(word).is_dir() else to_plain(_resolve_files([word], arguments).config)
        for word in words
    )
    print(show_differences(differences(old, new), *words), end="")


def _resolve_files(files: Sequence[str], arguments: Arguments, verb: str = "") -> Resolved:
    """Resolves gin files for looking at; RUN_DIR may be missing."""
    offered = {"RUN_DIR": "RUN_DIR"}
    if verb := verb or _verb_bound_in(files, arguments):
        return _resolve(load(VERBS[verb].root), [*VERBS[verb].base, *files], arguments, offered)
    return _resolve_for_any(files, arguments, offered)


def _verb_bound_in(files: Sequence[str], arguments: Arguments) -> str:
    """The verb whose root class the files bind, or "" where they bind none."""
    from aya_jax.config.errors import ConfigError
    from aya_jax.config.source import Source

    source = Source(arguments.search_paths)
    for file in files:
        source.read_file(file)
    if source.problems:
        raise ConfigError([f"{where}: {text}" if where else text for where, text in source.problems])
    bound = {key.name.rpartition(".")[2] for key in source.bindings}
    return next((name for name, verb in VERBS.items() if verb.root.rpartition(":")[2] in bound), "")


def _resolve_for_any(files: Sequence[str], arguments: Arguments, offered: Mapping[str, str]) -> Resolved:
    """Resolves files that bind no root class (a model, say) for the first verb that they are enough for."""
    from aya_jax.config.errors import ConfigError

    for verb in VERBS.values():
        with contextlib.suppress(ConfigError):
            return _resolve(load(verb.root), files, arguments, offered)
    shown = " ".join(files)
    raise ConfigError([f"{shown}: not a whole configuration; say for which verb: aya config show VERB {shown}"])


def _verb_named(name: str) -> Verb:
    from aya_jax.config.errors import ConfigError, did_you_mean, near_names

    if name in VERBS:
        return VERBS[name]
    if name.endswith(".gin"):
        raise ConfigError([f"aya {name}: the verb comes first: aya VERB {name} ({', '.join(VERBS)})"])
    near = did_you_mean(near_names(name, [*VERBS, "config"]))
    raise ConfigError([f"aya {name}: unknown verb{near or '; the verbs are ' + ', '.join([*VERBS, 'config'])}"])


def _help_text() -> str:
    verbs = {**{name: verb.help for name, verb in VERBS.items()}, "config": "show a configuration, or what differs"}
    lines = [f"{aya_jax.__doc__}", "", f"  {USAGE}", "", "Verbs:"]
    lines += [f"  {name:<14} {text}" for name, text in verbs.items()]
    lines += ["", "aya VERB --help lists all that a verb's gin files can bind.", "", _macros_text()]
    lines += ["", "Example: aya train gin/train/pretrain.gin --gin.RUN_DIR=runs/first --gin.STEPS=100"]
    return "\n".join(lines)


def _verb_help(name: str, verb: Verb) -> str:
    from aya_jax.config.show import describe_class

    heading = f"aya {name}: {verb.help}\n\n  {USAGE.replace('VERB', name)}\n"
    together = [f"  --{flag + '=':<21} {text}" for flag, text in PROCESS_FLAGS.items()] if verb.together else []
    together = ["\nSeveral processes (found by themselves under SLURM, Open MPI, JobSets and on TPUs):", *together, ""]
    return "\n".join([heading, describe_class(load(verb.root)), _macros_text(), *(together if verb.together else [])])


def _macros_text() -> str:
    heading = "Macros that run files use (each reads those it needs; set with --gin.NAME=VALUE):"
    return "\n".join([heading, *(f"  {name:<16} {text}" for name, text in MACROS.items())])


def _quieten(environ: MutableMapping[str, str]) -> None:
    """Keeps TensorFlow, which only reads text here, from reporting on devices that it does not use."""
    for name, value in {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"}.items():
        environ.setdefault(name, value)
