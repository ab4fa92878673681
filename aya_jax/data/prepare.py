"""`aya prepare`: text to token stores, shard by shard.

The plan is made first: which tasks, whether their sources are there, and which shards of their stores are finished.
Then the shards that are left are prepared, by a pool of processes or by Apache Beam, and each store that has all its
shards gets its manifest. Stopped at any moment, the same command goes on where it was; done twice, it changes nothing.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.data import arrays, beam, store, tasks, workers
from aya_jax.data.config import DataConfig, mixture_keys
from aya_jax.data.prepare_config import PrepareConfig
from aya_jax.data.progress import PrepareProgress, summary_table
from aya_jax.data.shards import (
    ShardJob,
    TaskSpec,
    import_modules,
    load_tokenizer,
    load_vocabulary,
    own_vocabulary,
    source_info,
)
from aya_jax.data.sources import ConversationSource, FileSource, Source, storage
from aya_jax.data.stdlib_code import DEFAULT_BYTES, StandardLibrarySource
from aya_jax.data.store import Manifest, ShardInfo, VocabularyInfo

if TYPE_CHECKING:
    from aya_jax.config import Resolved

SPLITS = ("train", "validation")
SETTINGS = "prepare.json"
VOCABULARY_DIRECTORY = "vocabulary"
SMALL_BYTES = 256 << 20  # text that training prepares by itself: about a minute
_UNPACKED = 3.0  # bytes of text per byte of .gz or .zst or Parquet, roughly: for estimates alone
_IMPORT = re.compile(r"^\s*(?:import|from)\s+([\w.]+)", re.MULTILINE)


def run(resolved: Resolved) -> None:
    """Prepares what the configuration asks for, showing progress, and prints what there is.

    Raises:
      UserError: a task, source or vocabulary is not there; a store was made with other settings; the disk is full.
    """
    console = Console()
    manifests = prepare(resolved.config, modules=imported_modules(resolved.text), console=console)
    console.print(summary_table(resolved.config.store_dir, manifests))


def prepare(config: PrepareConfig, *, modules: tuple[str, ...] = (), console: Console | None = None) -> list[Manifest]:
    """Prepares every task of the configuration and returns the manifests of its stores, in order.

    Args:
      config: what to prepare.
      modules: modules that register SeqIO tasks; every worker imports them.
      console: where progress is shown; None shows none.

    Raises:
      UserError: as `run`.
    """
    plans = plan(config, modules)
    for each in plans:
        _check_settings(each)
    _copy_vocabulary(config)
    for each in plans:
        arrays.write_json(each.directory, SETTINGS, each.settings)
    console = console or Console(quiet=True)
    known = {(each.task, each.split): _finished_shards(each, config.verify, console) for each in plans}
    jobs = _jobs(plans, known)
    with PrepareProgress(console, total_bytes=estimate(config, {job.task.name for job in jobs})) as progress:
        if config.runner == "beam":
            beam.run(jobs, config.beam_options)
            for job in jobs:
                for split, directory in job.stores.items():
                    known[job.task.name, split][job.shard] = store.read_shard_info(directory, job.shard)
        else:
            for job, infos in workers.run(jobs, config.num_workers, progress.report):
                for split, info in infos.items():
                    known[job.task.name, split][job.shard] = info
                progress.shard_done(job)
    manifests = [_manifest(each, known[each.task, each.split]) for each in plans]
    _refuse_empty(manifests)
    for each, manifest in zip(plans, manifests, strict=True):
        if arrays.read_json(each.directory, store.MANIFEST) != manifest.to_json():
            store.write_manifest(each.directory, manifest, token_bytes=each.token_bytes)
    return manifests


# Planning -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StorePlan:
    """One store that is to be.

    Attributes:
      spec: the task.
      split: which split of it.
      directory: the store's.
      vocabulary: spec of the tokenizer.
      manifest: everything but the shards.
      token_bytes: int32 [V].
      settings: what the store depends on; kept in it, and compared when work is resumed.
    """

    spec: TaskSpec
    split: str
    directory: str
    vocabulary: str
    num_shards: int
    manifest: Manifest
    token_bytes: np.ndarray
    settings: dict[str, object]

    @property
    def task(self) -> str:
        """The task's name."""
        return self.spec.name


def plan(config: PrepareConfig, modules: tuple[str, ...] = ()) -> list[StorePlan]:
    """The stores that the configuration asks for, with their sources' fingerprints; nothing is written.

    Raises:
      UserError: no such task, no such source or vocabulary.
    """
    vocab = load_vocabulary(config.vocabulary)
    spec = config.vocabulary if config.vocabulary == "bytes" else _copied_name(config.vocabulary)
    ours = VocabularyInfo.of(vocab, spec), vocab.token_bytes()
    import_modules(modules)
    share = tasks.held_out_share(config.data_dir, config.validation_permille, config.validation_fold)
    described = {task.name: task for task in config.described}
    plans = []
    for name in _names(config):
        spec = TaskSpec(name, config.data_dir, share, described.get(name), modules)
        task = spec.task()
        info, token_bytes = own_vocabulary(task) or ours
        plans += [_store_plan(config, spec, task, split, info, token_bytes) for split in SPLITS]
    return plans


def _store_plan(
    config: PrepareConfig, spec: TaskSpec, task: object, split: str, info: VocabularyInfo, token_bytes: np.ndarray
) -> StorePlan:
    from aya_jax.data import seqio_source

    tags = tasks.tags_of(spec.name, config.described)
    try:
        source = source_info(task, split)
    except UserError as error:
        raise UserError(f"task {spec.name} has no documents: {error}") from error
    manifest = Manifest(
        task=spec.name,
        split=split,
        language=tags.language,
        domain=tags.domain,
        vocabulary=info,
        source=source,
        group=2 if spec.form == "preference" else 1,
        loss_weights=spec.form != "text" or seqio_source.loss_weights_key(task, split) is not None,
        shards=(),
    )
    settings = {
        "language": tags.language,
        "domain": tags.domain,
        "vocabulary": info.digest,
        "source": source.digest,
        "num_shards": config.num_shards,
        "validation_permille": spec.share.permille,
    }
    if spec.share.fold is not None:
        settings["validation_fold"] = spec.share.fold
    if spec.form != "text":
        settings["chat_template"] = load_tokenizer(config.vocabulary).template_digest
    directory = store.store_path(config.store_dir, spec.name, split)
    return StorePlan(spec, split, directory, config.vocabulary, config.num_shards, manifest, token_bytes, settings)


def _jobs(plans: Sequence[StorePlan], known: Mapping[tuple[str, str], Sequence[ShardInfo | None]]) -> list[ShardJob]:
    """A job for each shard that a split of a task lacks; a task's splits are made in one reading."""
    stores: dict[tuple[str, int], dict[str, str]] = {}
    for each in plans:
        for shard, info in enumerate(known[each.task, each.split]):
            if info is None:
                stores.setdefault((each.task, shard), {})[each.split] = each.directory
    specs = {each.task: each for each in plans}
    return [
        ShardJob(specs[task].spec, directories, shard, specs[task].num_shards, specs[task].vocabulary)
        for (task, shard), directories in stores.items()
    ]


def _names(config: PrepareConfig) -> tuple[str, ...]:
    """The tasks asked for: of the corpus and of gin by name or pattern, others by the name SeqIO knows them by."""
    extra = [task.name for task in config.described]
    shadowed = sorted(set(extra) & tasks.TASK_TAGS.keys())
    if shadowed:
        raise UserError(f"extra_tasks: {', '.join(shadowed)} is a shipped task's name; choose another")
    present = [*tasks.available(config.data_dir), *extra]
    chosen = dict.fromkeys(extra)
    for pattern in config.tasks:
        registered = () if pattern in present or _is_pattern(pattern) else tasks.registered(pattern)
        chosen.update(dict.fromkeys(registered or tasks.match((pattern,), present)))
    return tuple(chosen)


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def imported_modules(text: str) -> tuple[str, ...]:
    """Modules that a gin file imports: what registers the user's tasks, here and in every worker."""
    return tuple(dict.fromkeys(name for name in _IMPORT.findall(text) if name.split(".")[0] not in ("aya_jax", "gin")))


# What is there already ------------------------------------------------------------------------------------------------


def _check_settings(each: StorePlan) -> None:
    """Refuses a store that other settings made, naming what differs."""
    before = arrays.read_json(each.directory, SETTINGS) if _may_exist(each.directory) else None
    if before is None or before == each.settings:
        return
    differ = sorted(
        name for name in before.keys() | each.settings.keys() if before.get(name) != each.settings.get(name)
    )
    lines = "; ".join(
        f"{name} was {_short(before.get(name))}, is now {_short(each.settings.get(name))}" for name in differ
    )
    raise UserError(
        f"{each.directory}: prepared with other settings: {lines}. Choose another store_dir, or delete this directory"
    )


def _short(value: object) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 16 else repr(value)


def _may_exist(directory: str) -> bool:
    return arrays.is_remote(directory) or os.path.isdir(directory)


def _finished_shards(each: StorePlan, verify: bool, console: Console) -> list[ShardInfo | None]:
    """Totals of each shard that is there and whole; one that is damaged is named and made again."""
    infos: list[ShardInfo | None] = []
    for shard in range(each.num_shards):
        info = store.read_shard_info(each.directory, shard) if _may_exist(each.directory) else None
        try:
            if info is not None and verify:
                store.verify_shard(each.directory, shard)
        except UserError as error:
            console.print(f"[yellow]damaged, prepared again:[/] {error}")
            info = None
        infos.append(info)
    return infos


def _manifest(each: StorePlan, infos: Sequence[ShardInfo | None]) -> Manifest:
    """The manifest of a store that has all its shards."""
    missing = [shard for shard, info in enumerate(infos) if info is None]
    if missing:
        raise UserError(f"{each.directory}: shards {missing} were not written; run the same command again")
    return replace(each.manifest, shards=tuple(info for info in infos if info is not None))


def _refuse_empty(manifests: Sequence[Manifest]) -> None:
    """Refuses a split without documents: it could neither be trained on nor measured."""
    documents = {(manifest.task, manifest.split): manifest.documents for manifest in manifests}
    for manifest in manifests:
        if manifest.documents:
            continue
        only = manifest.split == "train" and documents[manifest.task, "validation"]
        hint = "; what there is is held out for validation, beginning with the first document" if only else ""
        raise UserError(f"task {manifest.task} has no {manifest.split} documents: {manifest.source.description}{hint}")


# The vocabulary beside the stores -------------------------------------------------------------------------------------


def _vocabulary_file(spec: str) -> Path:
    path = Path(spec)
    if path.is_dir():
        return next(path / name for name in ("tokenizer.json", "tokenizer.model") if (path / name).is_file())
    return path


def _copied_name(spec: str) -> str:
    """The copy's path relative to a store's directory, `STORE_DIR/<task>/<split>/`."""
    return f"../../{VOCABULARY_DIRECTORY}/tokenizer{_vocabulary_file(spec).suffix}"


def _copy_vocabulary(config: PrepareConfig) -> None:
    """Copies the tokenizer to `STORE_DIR/vocabulary/`, so that training needs the stores alone."""
    if config.vocabulary == "bytes":
        return
    file = _vocabulary_file(config.vocabulary)
    directory = arrays.join(config.store_dir, VOCABULARY_DIRECTORY)
    copies = {f"tokenizer{file.suffix}": file}
    copies |= {name: file.with_name(name) for name in ("tokenizer_config.json", "chat_template.jinja")}
    for name, original in copies.items():
        content = original.read_bytes() if original.is_file() else None
        if content is not None and arrays.read_bytes(directory, name) != content:
            arrays.write_bytes(directory, name, content)


# Preparing on demand --------------------------------------------------------------------------------------------------


def estimate(config: PrepareConfig, names: Iterable[str] | None = None) -> int | None:
    """About how many bytes of text the tasks hold, by the sizes of their files; None where a source does not say.

    Args:
      config: what is to be prepared.
      names: which of its tasks; None is all.
    """
    described = {task.name: task for task in config.described}
    total = 0
    for name in _names(config) if names is None else names:
        if name in described:
            source = described[name].source("train")
        else:
            source = tasks.source(name, config.data_dir) if name in tasks.TASK_TAGS else None
        size = _source_bytes(source)
        if size is None:
            return None
        total += size
    return total


def _source_bytes(source: Source | None) -> int | None:
    if isinstance(source, StandardLibrarySource):
        return source.max_bytes or DEFAULT_BYTES[source.kind]
    if isinstance(source, ConversationSource):
        source = source.records_of
    if not isinstance(source, FileSource):
        return None
    total = 0.0
    for file in storage.find(source.patterns):
        if arrays.is_remote(file.path):
            return None
        packed = file.path.endswith((*storage.COMPRESSIONS, ".parquet"))
        total += os.path.getsize(file.path) * (_UNPACKED if packed else 1)
    return int(total)


def ensure(config: DataConfig) -> None:
    """Prepares the stores that a mixture needs, that are missing, and that are small (`SMALL_BYTES`).

    Of several processes that share a file system one must call this, and the others wait for it.

    Raises:
      UserError: a store is missing and `data_dir` is not set, or there is too much text: with the command to run.
    """
    missing = missing_tasks(config)
    if not missing:
        return
    if config.data_dir is None or config.vocabulary is None:
        command = prepare_command(config, missing, data_dir="DATA_DIR", vocabulary="TOKENIZER.json")
        raise UserError(f"{config.store_dir} has no token store of {', '.join(missing)}. Prepare it:\n  {command}")
    wanted = PrepareConfig(
        store_dir=config.store_dir, data_dir=config.data_dir, vocabulary=config.vocabulary, tasks=missing
    )
    size = estimate(wanted)
    if size is None or size > SMALL_BYTES:
        amount = "text of unknown size" if size is None else f"about {size / 1e9:.1f} GB of text"
        command = prepare_command(config, missing, data_dir=config.data_dir, vocabulary=config.vocabulary)
        raise UserError(f"{', '.join(missing)} ({amount}) must be prepared before training:\n  {command}")
    prepare(wanted, console=Console(stderr=True))


def missing_tasks(config: DataConfig) -> tuple[str, ...]:
    """The mixture's tasks that lack a finished store of either split.

    A pattern stands for the tasks of `data_dir`, and for none where that is not set: the stores that are there are its
    tasks then.
    """
    stored = set(store.names(config.store_dir, "train")) & set(store.names(config.store_dir, "validation"))
    present = tasks.available(config.data_dir) if config.data_dir else ()
    wanted: dict[str, None] = {}
    for key in mixture_keys(config.mixture):
        if not _is_pattern(key):
            names = (key,) if key in stored or key in tasks.TASK_TAGS else tasks.registered(key) or (key,)
        else:
            names = tuple(fnmatch.filter(present, key))
        wanted.update(dict.fromkeys(names))
    return tuple(name for name in wanted if name not in stored)


def prepare_command(config: DataConfig, names: Sequence[str], *, data_dir: str, vocabulary: str) -> str:
    """The command line that prepares the tasks into the mixture's store."""
    values = {
        "store_dir": repr(config.store_dir),
        "data_dir": repr(data_dir),
        "vocabulary": repr(vocabulary),
        "tasks": repr(tuple(names)),
        "num_workers": "0",
    }
    return shlex.join(["aya", "prepare", *(f"--gin.PrepareConfig.{name}={value}" for name, value in values.items())])
