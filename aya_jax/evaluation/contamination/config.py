"""What is looked for in which training text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from aya_jax.config.registry import Problem, configurable
from aya_jax.evaluation.measure_config import MeasureConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class ContaminationConfig(MeasureConfig):
    """Overlap of evaluation rows with token stores: n-grams of the rows that occur in a training document.

    Attributes:
      store_dir: the token stores; bind STORE_DIR.
      stores: names or patterns of the stores' tasks.
      split: of the stores.
      tasks: names, groups or patterns of benchmarks, as `HarnessConfig.tasks`; their rows are read from `data_dir`. Bind TASKS.
      data_dir: a folder with copies of the benchmarks' rows; None: the Hugging Face hub's. Bind DATA_DIR.
      files: more rows to look for, as JSON lines (.jsonl, .jsonl.gz), with a `language` where they have one.
      fields: of the rows of `files`: those that hold text.
      records: evaluations whose questions are looked for and whose scores are told with and without the contaminated rows, as
        files `RUN/evaluations/<name>.json` of `aya evaluate`.
      n: tokens of an n-gram; rows without a text of so many are counted, and nothing is said of them.
      threshold: share of a row's n-grams from which on it counts as contaminated.
    """

    RUN_ON_TEXTS: ClassVar[str] = "aya_jax.evaluation.contamination.run:run"

    store_dir: str
    stores: tuple[str, ...] = ("*",)
    split: str = "train"
    tasks: tuple[str, ...] = ()
    data_dir: str | None = None
    files: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("text",)
    records: tuple[str, ...] = ()
    n: int = 13
    threshold: float = 0.5

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty or out of range."""
        for name in ("store_dir", "stores", "split", "fields"):
            if not getattr(self, name):
                yield Problem(name, "not empty")
        if not self.tasks and not self.files and not self.records:
            yield Problem(
                "tasks", "rows to look for: bind TASKS, ContaminationConfig.files or ContaminationConfig.records"
            )
        if self.n < 1:
            yield Problem("n", "at least 1")
        if not 0 < self.threshold <= 1:
            yield Problem("threshold", "above 0 and at most 1")
