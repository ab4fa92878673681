"""What `aya prepare` shows: a bar while it works, and a table of what there is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from aya_jax.data.shards import ShardJob
from aya_jax.data.store import Manifest


class PrepareProgress:
    """Documents, bytes and tokens so far, with their rates. A context manager."""

    def __init__(self, console: Console, total_bytes: int | None):
        """`total_bytes` is an estimate; None shows no share and no time left."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("reading", total=total_bytes, figures="")
        self._documents = self._bytes = self._tokens = 0
        self._begin = time.monotonic()

    def __enter__(self) -> PrepareProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def report(self, documents: int, num_bytes: int, tokens: int) -> None:
        """Adds what was done since the last report."""
        self._documents += documents
        self._bytes += num_bytes
        self._tokens += tokens
        seconds = max(time.monotonic() - self._begin, 1e-3)
        figures = (
            f"{self._documents:,} documents  {self._bytes / seconds / 1e6:.1f} MB/s  "
            f"{self._tokens / seconds / 1e6:.2f}M tokens/s"
        )
        self._bar.update(self._task, completed=self._bytes, figures=figures)

    def shard_done(self, job: ShardJob) -> None:
        """Names the last shard that was finished."""
        self._bar.update(self._task, description=f"{job.task.name} {job.shard + 1}/{job.num_shards}")


def summary_table(store_dir: str, manifests: Sequence[Manifest]) -> Table:
    """A row per task: its tags, documents, tokens, bytes of text (MB is 10^6), and validation's share of the tokens."""
    table = Table(title=f"Token stores in {store_dir}", title_justify="left", box=SIMPLE_HEAD)
    for name in ("task", "lang", "domain"):
        table.add_column(name, no_wrap=True)
    for name in ("documents", "tokens", "MB", "B/token", "held out"):
        table.add_column(name, justify="right", no_wrap=True)
    by_task: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        by_task.setdefault(manifest.task, []).append(manifest)
    for name, stores in by_task.items():
        table.add_row(name, stores[0].language, stores[0].domain, *_figures(stores))
    table.add_section()
    table.add_row("all", "", "", *_figures(manifests))
    return table


def _figures(stores: Sequence[Manifest]) -> tuple[str, ...]:
    tokens = sum(each.tokens for each in stores)
    num_bytes = sum(each.bytes for each in stores)
    held_out = sum(each.tokens for each in stores if each.split == "validation")
    return (
        f"{sum(each.documents for each in stores):,}",
        f"{tokens:,}",
        f"{num_bytes / 1e6:,.2f}",
        f"{num_bytes / max(tokens, 1):.2f}",
        f"{held_out / max(tokens, 1):.1%}",
    )
