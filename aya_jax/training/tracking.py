"""Where a run's numbers go: `metrics.jsonl` always, TensorBoard and Weights & Biases where they are asked for."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from aya_jax.config import UserError
from aya_jax.config.files import unwritable, write_atomic
from aya_jax.training.config import TrackingConfig

METRICS = "metrics.jsonl"


class Tracker(Protocol):
    """Takes records; one record is a flat dict with `step`, `tokens`, `wall_time`, `kind` and the numbers."""

    def write(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonlTracker:
    """Appends records to `metrics.jsonl`, one JSON object a line, each out of this process before `write` returns.

    Opening it for a run that goes on from `step` drops the records after that step, so that the file reads as that of an
    uninterrupted run.
    """

    def __init__(self, run_dir: Path, step: int):
        self._path = run_dir / METRICS
        kept = [line for line, record in read_records(self._path) if record["step"] <= step]
        write_atomic(self._path, "".join(line + "\n" for line in kept))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `close`

    def write(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(finite(record), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        self._file.close()


class TensorBoardTracker:
    """Writes scalars below `RUN_DIR/tensorboard`, over steps."""

    def __init__(self, run_dir: Path, step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers(record).items():
            self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"], walltime=record["wall_time"])

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """Sends records to Weights & Biases; the run's id follows from its directory, so a resumed run goes on there."""

    def __init__(self, run_dir: Path, project: str, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise UserError(
                "TrackingConfig.wandb_project is set and wandb is not installed: `pip install wandb`, or unset it."
            ) from None
        identity = hashlib.sha256(str(run_dir.absolute()).encode()).hexdigest()[:16]
        self._run = wandb.init(project=project, name=run_dir.name, id=identity, resume="allow", config=dict(config))

    def write(self, record: Mapping[str, Any]) -> None:
        self._run.log(
            {f"{record['kind']}/{name}": value for name, value in _numbers(record).items()}, step=record["step"]
        )

    def close(self) -> None:
        self._run.finish()


class Trackers:
    """All of a run's trackers as one; a context that closes them.

    Attributes:
      kinds_at_start: kinds of the records that were already written for the step that the run goes on from.
    """

    def __init__(
        self,
        config: TrackingConfig,
        run_dir: str | os.PathLike[str],
        step: int,
        snapshot: Mapping[str, Any],
        *,
        writer: bool = True,
    ):
        """`writer` is False for a further process of the run: it keeps what the first one writes apart from itself."""
        run_dir = Path(run_dir)
        self.kinds_at_start = {
            record["kind"] for _, record in read_records(run_dir / METRICS) if record["step"] == step
        }
        self._trackers: list[Tracker] = []
        if not writer:
            return
        self._trackers.append(JsonlTracker(run_dir, step))
        if config.tensorboard:
            self._trackers.append(TensorBoardTracker(run_dir, step))
        if config.wandb_project is not None:
            self._trackers.append(WandbTracker(run_dir, config.wandb_project, snapshot))

    def write(self, record: Mapping[str, Any]) -> None:
        """Gives the record to every tracker."""
        for tracker in self._trackers:
            tracker.write(record)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed: Exception | None = None
        for tracker in self._trackers:
            try:
                tracker.close()
            except Exception as one:  # a full disk fails here too; the others are closed all the same
                failed = failed or one
        if failed is not None and error is None:
            raise UserError(f"the last records could not be written: {failed}") from failed


def read_records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of a metrics file, each with its record; a last line that a kill has cut short is left out.

    Raises:
      UserError: another line is not a record.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not {"step", "kind"} <= record.keys():
                raise ValueError
        except (ValueError, AttributeError):
            raise UserError(f"{path}:{number}: not a record of a run; delete this line to go on.") from None
        records.append((line.decode("utf-8"), record))
    return records


def finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with numbers that JSON has no word for (nan, inf) as null."""
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in record.items()}


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in finite(record).items()
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and name not in ("step", "wall_time")
    }
