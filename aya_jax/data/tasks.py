"""Tasks: names and tags of the data that ship with the project, and their registration with SeqIO.

Names, tags and look-ups are plain Python. TensorFlow and SeqIO are imported when a task is registered or read, once per
process (`seqio_source.py`).

Any other registered `seqio.Task` takes part as it is: put the module that registers it in a gin `import` and name the
task. A task whose feature `targets` (or `text`) is a string is tokenised by `aya prepare`; one whose `targets` are ids
keeps its own vocabulary, and its `targets_loss_weights` or `loss_weights`, one per id, are stored with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from aya_jax.config import UserError
from aya_jax.data.held_out import HeldOutShare
from aya_jax.data.sources import FileSource, Source, storage
from aya_jax.data.stdlib_code import StandardLibrarySource

if TYPE_CHECKING:
    import seqio

    from aya_jax.data.prepare_config import TaskConfig

SAMPLE = "sample"
# fmt: off
LANGUAGES = (
    "ar", "cs", "de", "el", "en", "es", "fa", "fr", "he", "hi", "id", "it",
    "ja", "ko", "nl", "pl", "pt", "ro", "ru", "tr", "uk", "vi", "zh",
)
# fmt: on


@dataclasses.dataclass(frozen=True)
class Tags:
    """What a task's documents are.

    Attributes:
      language: ISO 639-1 code of a natural language; `code` for the kinds of code, which mix programming languages.
      domain: `text`, `web_code`, `markup`, `quality_code` or `code_adjacent` for the tasks here; a name of the user's
        choice for others.
    """

    language: str
    domain: str


CODE_LANGUAGE = "code"
_CODE_DOMAINS = {
    "code_web": "web_code",
    "code_markup": "markup",
    "code_quality": "quality_code",
    "code_adjacent": "code_adjacent",
}
_CODE_DIRECTORIES = {
    "code_web": "web_code",
    "code_markup": "markup",
    "code_quality": "high_quality",
    "code_adjacent": "code_adjacent",
}
TASK_TAGS: Mapping[str, Tags] = {f"text_{language}": Tags(language, "text") for language in LANGUAGES} | {
    name: Tags(CODE_LANGUAGE, domain) for name, domain in _CODE_DOMAINS.items()
}
UNTAGGED = Tags(language="und", domain="other")  # "und": ISO 639-2 for undetermined


def held_out_share(data_dir: str | None, permille: int | None = None, fold: int | None = None) -> HeldOutShare:
    """What to hold out: `permille` of 1000 documents, else 80 of the sample (of 15 a language) and 20 of a corpus."""
    return HeldOutShare(permille if permille is not None else 80 if data_dir == SAMPLE else 20, fold)


def match(patterns: Iterable[str], available: Iterable[str]) -> tuple[str, ...]:
    """Task names that the patterns (`text_*`, `code_?eb`, whole names) select, in the patterns' order, each once.

    Raises:
      UserError: a pattern selects nothing; at most three near names are given.
    """
    names = tuple(available)
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            near = difflib.get_close_matches(pattern, names, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names) or 'none'}"
            raise UserError(f"no task matches {pattern!r}; {hint}")
        chosen.update(dict.fromkeys(found))
    return tuple(chosen)


def source(name: str, data_dir: str) -> Source:
    """Where a task of `TASK_TAGS` reads its documents; whether there are any shows when it is read."""
    tags = TASK_TAGS[name]
    if data_dir == SAMPLE and tags.language == CODE_LANGUAGE:
        return StandardLibrarySource(tags.domain)
    if data_dir == SAMPLE:
        return FileSource((f"{_sample_directory()}/corpus/{tags.language}.jsonl",))
    if tags.language == CODE_LANGUAGE:
        return FileSource((f"{data_dir}/code/{_CODE_DIRECTORIES[name]}/*",))
    return FileSource((f"{data_dir}/corpus/{tags.language}.*",))


def available(data_dir: str) -> tuple[str, ...]:
    """The tasks of `TASK_TAGS` that have files under `data_dir` (a path or a URL), in the order of `TASK_TAGS`."""
    return tuple(name for name in TASK_TAGS if _has_files(source(name, data_dir)))


def _has_files(source: Source) -> bool:
    if not isinstance(source, FileSource):
        return True
    try:
        return bool(storage.find(source.patterns))
    except UserError:
        return False


def _sample_directory() -> str:
    return str(resources.files("aya_jax.data") / "samples")


# What follows imports SeqIO ------------------------------------------------------------------------------------------

# Our own tasks in SeqIO's registry, and what each was made from: another data directory replaces the task.
_registered: dict[str, tuple[str | None, HeldOutShare, TaskConfig | None]] = {}


def register(
    data_dir: str | None,
    names: Iterable[str] | None = None,
    *,
    extra: Iterable[TaskConfig] = (),
    share: HeldOutShare | None = None,
) -> tuple[str, ...]:
    """Registers tasks with SeqIO, so that `seqio.get_mixture_or_task(name)` finds them; doing it twice changes nothing.

    Args:
      data_dir: `sample`, or a directory or URL with `corpus/` and `code/`; None registers `extra` alone.
      names: tasks of `TASK_TAGS`; None is every one that has files.
      extra: tasks that a gin file describes.
      share: what is held out; None is `held_out_share(data_dir)`.

    Returns:
      the names registered.

    Raises:
      UserError: a name is another SeqIO task's.
    """
    share = share or held_out_share(data_dir)
    if data_dir is None:
        names = ()
    chosen = tuple(available(data_dir) if names is None else names)
    for name in chosen:
        _register(name, source(name, data_dir), None, (data_dir, share, None))
    for config in extra:
        train = config.source("train")
        if train is not None:  # else it only tags a task that another module registers
            _register(config.name, train, config.source("validation"), (None, share, config))
    return chosen + tuple(config.name for config in extra)


def _register(
    name: str, train: Source, validation: Source | None, made_from: tuple[str | None, HeldOutShare, TaskConfig | None]
) -> None:
    if _registered.get(name) == made_from:
        return
    from aya_jax.data import seqio_source

    registry = seqio_source.seqio.TaskRegistry
    if name in registry.names():
        if name not in _registered:
            raise UserError(f"the SeqIO task {name!r} is registered by another module; give this one another name")
        registry.remove(name)
    documents = seqio_source.DocumentSource(train, validation, made_from[1])
    registry.add_provider(name, seqio_source.text_task(name, documents))
    _registered[name] = made_from


def documents(
    name: str,
    split: str,
    data_dir: str,
    shard: int = 0,
    num_shards: int = 1,
    *,
    extra: Sequence[TaskConfig] = (),
    share: HeldOutShare | None = None,
) -> Iterator[dict[str, str]]:
    """Documents of a task as its SeqIO task gives them, streamed.

    Args:
      name: a task of `TASK_TAGS`, of `extra`, or any registered `seqio.Task` whose output is text.
      split: `train` or `validation`.
      data_dir, extra, share: as for `register`.
      shard, num_shards: which part of the task; the parts together are all of it, each document once.

    Yields:
      `{"text", "language", "domain"}`.

    Raises:
      UserError: there is no such task, it gives ids and not text, or its source cannot be read.
    """
    from aya_jax.data import seqio_source

    task = find(name, data_dir, extra=extra, share=share)
    if seqio_source.output_form(task).vocabulary is not None:
        raise UserError(f"task {name} gives token ids, not text; it cannot be used where text is needed")
    tags = dataclasses.asdict(tags_of(name, extra))
    share = share or held_out_share(data_dir)
    for example in seqio_source.read(task, (split,), shard, num_shards, share=share):
        yield {"text": example.content.decode(), **tags}


def find(
    name: str, data_dir: str | None, *, extra: Iterable[TaskConfig] = (), share: HeldOutShare | None = None
) -> seqio.Task:
    """The SeqIO task of this name, registered first if it is ours.

    Raises:
      UserError: there is none; at most three near names are given.
    """
    described = [config for config in extra if config.name == name]
    if described or name in TASK_TAGS:
        register(data_dir, () if described else (name,), extra=described, share=share)
    from aya_jax.data import seqio_source

    registry = seqio_source.seqio.TaskRegistry
    if name not in registry.names():
        near = difflib.get_close_matches(name, [*TASK_TAGS, *registry.names()], n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UserError(f"there is no task {name!r}; {hint}A module that registers it must be imported in the gin file")
    return registry.get(name)


def registered(name: str) -> tuple[str, ...]:
    """Names of the SeqIO tasks behind the name of a task or mixture that a module registered; () if there is none."""
    from aya_jax.data import seqio_source

    seqio = seqio_source.seqio
    if name in seqio.TaskRegistry.names():
        return (name,)
    if name in seqio.MixtureRegistry.names():
        return tuple(sorted(task.name for task in seqio.MixtureRegistry.get(name).tasks))
    return ()


def tags_of(name: str, extra: Iterable[TaskConfig] = ()) -> Tags:
    """A task's tags; `UNTAGGED` for a SeqIO task of another module."""
    for config in extra:
        if config.name == name:
            return Tags(config.language, config.domain)
    return TASK_TAGS.get(name, UNTAGGED)
