"""From gin files and flags to one checked configuration, or to one error that lists everything wrong with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aya_jax.config.build import Builder, Report
from aya_jax.config.check import unused_reports, validation_reports
from aya_jax.config.errors import ConfigError
from aya_jax.config.snapshot import fingerprint, freeze, key_name, to_plain
from aya_jax.config.source import Source
from aya_jax.config.text import operative_text
from aya_jax.config.tree import Node, children

if TYPE_CHECKING:
    from ml_collections import FrozenConfigDict

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Resolved(Generic[C]):
    """A configuration that has passed every check.

    Attributes:
      config: the typed tree, an object of the root class.
      snapshot: all of it as one frozen, nested dict.
      text: operative gin text, from which `resolve` alone gives the same again.
      fingerprint: SHA-256 of the snapshot without the root's `NOT_IN_FINGERPRINT` fields.
      origins: dotted field → where its value was written ("gin/train/pretrain.gin:12", "--gin.SEED=1"); a field that is
        missing here has its default.
    """

    config: C
    snapshot: FrozenConfigDict
    text: str
    fingerprint: str
    origins: Mapping[str, str]


def resolve(
    root: type[C],
    files: Iterable[str | os.PathLike[str]] = (),
    bindings: Iterable[str] = (),
    search_paths: Sequence[str | os.PathLike[str]] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Resolved[C]:
    """Reads gin files and flags, builds an object of `root` with all it holds, and checks everything.

    Args:
      root: the configuration class to build.
      files: gin files, read in order; a later binding of the same name wins.
      bindings: "NAME=VALUE" as given with `--gin.NAME=VALUE`; they win over files, a later one over an earlier one.
      search_paths: folders in which files and includes are looked for first; the current directory, the package's run
        files and, for an include, the folder of the file that includes come after them.
      defaults: macros that have these values unless something binds them, and that nothing need use.

    Raises:
      ConfigError: with every problem found.
    """
    source = Source(search_paths)
    for file in files:
        source.read_file(file)
    for binding in bindings:
        source.read_flag(binding)
    source.read_defaults(defaults or {})
    builder = Builder(source)
    node = builder.build(root)
    _refuse_problems(source, builder, node)
    plain = to_plain(node.value)
    return Resolved(
        config=node.value,
        snapshot=freeze(plain),
        text=operative_text(node, source.imports),
        fingerprint=fingerprint(plain, getattr(root, "NOT_IN_FINGERPRINT", ())),
        origins=_origins(node),
    )


def _refuse_problems(source: Source, builder: Builder, node: Node) -> None:
    """Raises the error with all problems, those in files first and by line, then flags, then what is missing."""
    reports = [Report(where, text) for where, text in source.problems]
    reports += unused_reports(source, builder, node)
    # With an include missing, everything in it would seem missing too, and cross-checks would see defaults for it.
    reports += [report for report in builder.reports if source.complete or report.where is not None]
    if source.complete:
        reports += validation_reports(node)
    if reports:
        files = list(dict.fromkeys(report.where.file for report in reports if report.where))
        ordered = sorted(
            reports,
            key=lambda r: (r.where is None, bool(r.where and r.where.flag), *_place(r, files)),
        )
        raise ConfigError(list(dict.fromkeys(map(str, ordered))))


def _place(report: Report, files: list[str]) -> tuple[int, int]:
    return (files.index(report.where.file), report.where.line) if report.where else (0, 0)


def _origins(node: Node, prefix: str = "") -> dict[str, str]:
    """Where the value of each field was written, for each field that something binds."""
    origins: dict[str, str] = {}
    for name, entry in node.entries.items():
        if entry.written is not None:
            origins[prefix + name] = str(entry.written.where)
        for path, child in children(entry.content):
            below = ".".join(map(key_name, path)) + "." if path else ""
            origins |= _origins(child, f"{prefix}{name}.{below}")
    return origins
