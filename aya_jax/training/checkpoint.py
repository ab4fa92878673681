"""Checkpoints: written by Orbax in the background, read back on any mesh, and never trusted unread.

`checkpoints/<step>/` holds `params/`, `rest/` (optimizer, guard, step) and `meta/` (JSON), and, written once it is
complete, `checksums.json` with one of every file. A checkpoint whose files do not match is named and passed over for
the one before.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from aya_jax.config import UserError
from aya_jax.config.files import file_checksum, unwritable, write_atomic
from aya_jax.parallel.distributed import agree
from aya_jax.training.config import CheckpointConfig
from aya_jax.training.state import TrainState

FORMAT_VERSION = 1
_LAST_SAVE_SECONDS = 30.0  # for a save to end when a process of several has failed
CHECKSUMS = "checksums.json"
FOLDER = "checkpoints"

# Orbax tells of every barrier, and prints the stack of every error that it raises too.
logging.getLogger("absl").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Restored:
    """What `Checkpoints.restore` gives.

    Attributes:
      state: on the devices.
      meta: what was saved with it.
    """

    state: TrainState
    meta: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run directory; also a context that waits for the last save on the way out."""

    def __init__(self, run_dir: str | os.PathLike[str], config: CheckpointConfig, warn: Callable[[str], None]):
        self._folder = Path(run_dir).absolute() / FOLDER
        self._warn = warn
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                for leftover in self._folder.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(leftover, ignore_errors=True)
        except OSError as error:
            raise unwritable(self._folder, error) from error
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=config.keep, keep_period=config.keep_period),
        )
        self._sealing: threading.Thread | None = None
        self._seal_error: UserError | None = None

    def save(self, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Copies the state to the host and returns; writing goes on in the background.

        Raises:
          UserError: this save could not start, or the one before it failed.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            rest=ocp.args.StandardSave(_rest(state)),
            meta=ocp.args.JsonSave({"format_version": FORMAT_VERSION, "step": step, **meta}),
        )
        self._reporting_errors(lambda: self._manager.save(step, args=items))
        self._join()
        self._sealing = threading.Thread(target=self._seal_when_finished, args=(step,), daemon=True)
        self._sealing.start()

    def wait(self) -> None:
        """Waits until everything that was saved is on the disk.

        Raises:
          UserError: a save failed; earlier checkpoints are as they were.
        """
        self._reporting_errors(self._manager.wait_until_finished)
        self._join()

    def restore(self, like: TrainState, check: Callable[[Mapping[str, Any]], None]) -> Restored | None:
        """The newest checkpoint that is whole, or None if there has never been one.

        A damaged one is named and set aside, so that its step can be saved again. One whose files are as they were written
        is never set aside: where it cannot be read, something else is wrong.

        Args:
          like: `jax.ShapeDtypeStruct`s with the shardings to restore into.
          check: is given the saved meta, and raises if the run may not go on from it.

        Raises:
          UserError: there are checkpoints and all are damaged, or a whole one is of another version.
        """
        # Process 0 looks, and the others do as it says: reading all files of a large model on every host would take long.
        steps = json.loads(agree(json.dumps(sorted(self._manager.all_steps(), reverse=True))))
        for step in steps:
            path = self._folder / str(step)
            damage = agree(find_damage(path) if jax.process_index() == 0 else None)
            if damage is None:
                sealed = agree("sealed" if (path / CHECKSUMS).exists() else None) is not None
                try:
                    restored = self._read(step, like, check)
                except UserError:
                    raise
                except Exception as error:  # damaged files make Orbax and TensorStore raise almost anything
                    damage = f"{path}: cannot be read: {_first_line(error)}"
                    if sealed:
                        raise UserError(f"{damage}. Its files are as they were written.") from error
                    if jax.process_count() > 1:  # the others may have read it
                        raise UserError(
                            f"{damage}. Rename it to {step}.damaged to go on from the one before."
                        ) from error
                else:
                    if not sealed:
                        self._seal(step)
                    return restored
            self._warn(f"Checkpoint {step} is damaged and is set aside. {damage}")
            self._set_aside(step)
        if steps or any(self._folder.glob("*.damaged")):
            raise UserError(
                f"{self._folder}: none of the checkpoints can be read (set aside as *.damaged); "
                "choose another RUN_DIR to start over, or put back a good copy."
            )
        return None

    def close(self) -> None:
        """Waits for the last save and ends the background threads."""
        self._reporting_errors(self._manager.wait_until_finished)
        self._join()
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and jax.process_count() > 1:
            # Perhaps this process alone has failed, and the others will not come to the end of a save.
            closing = threading.Thread(target=self._close_quietly, daemon=True)
            closing.start()
            closing.join(_LAST_SAVE_SECONDS)
        elif error is not None:
            self._close_quietly()
        else:
            self.close()

    def _close_quietly(self) -> None:
        with contextlib.suppress(UserError):
            self.close()

    def _read(self, step: int, like: TrainState, check: Callable[[Mapping[str, Any]], None]) -> Restored:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        check(_checked(meta, self._folder / str(step)))
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(like.params), rest=ocp.args.StandardRestore(_rest(like))
            ),
        )
        rest = read.rest
        return Restored(TrainState(rest["step"], read.params, rest["optimizer"], rest["guard"]), meta)

    def _set_aside(self, step: int) -> None:
        """Renames a damaged checkpoint, so that its step can be saved again."""
        damaged = self._folder / str(step)
        target = damaged.with_name(f"{step}.damaged")
        if jax.process_index() == 0:
            shutil.rmtree(target, ignore_errors=True)
            damaged.rename(target)
        multihost_utils.sync_global_devices(f"checkpoint {step} set aside")
        self._manager.reload()

    def _seal_when_finished(self, step: int) -> None:
        """Waits, beside training, for a save to be committed, and writes the checksums of its files."""
        while self._manager.is_saving_in_progress():
            time.sleep(0.02)
        try:
            self._seal(step)
        except UserError as error:
            self._seal_error = error

    def _seal(self, step: int) -> None:
        path = self._folder / str(step)
        if jax.process_index() == 0 and path.is_dir():
            write_atomic(path / CHECKSUMS, json.dumps(checksums(path), indent=1))

    def _join(self) -> None:
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        if self._seal_error is not None:
            error, self._seal_error = self._seal_error, None
            raise error

    def _reporting_errors(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except UserError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise _save_error(self._folder, error) from error


def finished(folder: Path) -> list[Path]:
    """Complete checkpoints of a folder, by step."""
    return sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))


def checksums(path: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of every file below a checkpoint, by its relative name; of those in `known`, what is said there."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != CHECKSUMS)
    names = [str(file.relative_to(path)) for file in files]

    def find(name: str) -> str:
        return known[name] if known and name in known else file_checksum(path / name)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(names, pool.map(find, names), strict=True))


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, naming the first; None where they are as they were written.

    A checkpoint without `checksums.json` (killed between its commit and its seal) is taken as it is; reading it decides.
    """
    try:
        written = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{path / CHECKSUMS}: cannot be read: {_first_line(error)}"
    found = checksums(path)
    for name in sorted(written.keys() | found.keys()):
        if name not in found:
            return f"{path / name}: missing."
        if written.get(name) != found[name]:
            return f"{path / name}: not as it was written."
    return None


def locate(model_dir: str | os.PathLike[str], warn: Callable[[str], None]) -> Path:
    """The checkpoint that MODEL_DIR means: itself, or the newest whole one of a run directory.

    Of several processes, all of which must call it, process 0 looks.

    Args:
      model_dir: what the user named.
      warn: is told of each damaged checkpoint that is passed over.

    Raises:
      UserError: there is none, or the one that was named is damaged.
    """
    checkpoint = Path(agree(str(_locate(model_dir, warn)) if jax.process_index() == 0 else None))
    if not checkpoint.is_dir():
        raise UserError(
            f"{checkpoint}: process 0 sees this checkpoint, and this process does not; put it on shared storage."
        )
    return checkpoint


def _locate(model_dir: str | os.PathLike[str], warn: Callable[[str], None]) -> Path:
    path = Path(model_dir).absolute()
    if path.name.isdigit() and (path / "params").is_dir():
        damage = find_damage(path)
        if damage:
            raise UserError(f"{path}: this checkpoint is damaged. {damage}")
        return path
    for candidate in reversed(finished(path / FOLDER)):
        damage = find_damage(candidate)
        if damage is None:
            return candidate
        warn(f"Checkpoint {candidate.name} is damaged and is passed over. {damage}")
    raise UserError(f"{model_dir}: no checkpoint is there; MODEL_DIR is a run directory or one of its checkpoints.")


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """What was saved with a checkpoint from `locate` beside its state.

    Raises:
      UserError: another version of aya_jax wrote it.
    """
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return _checked(reader.restore(checkpoint / "meta"), checkpoint)


def write_meta(checkpoint: Path, meta: Mapping[str, Any]) -> None:
    """Writes what `read_meta` reads, for parameters that come from elsewhere."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
        writer.save(checkpoint / "meta", {"format_version": FORMAT_VERSION, **meta})


def load_params(checkpoint: Path, like: Any) -> Any:
    """The parameters of a checkpoint.

    Args:
      checkpoint: from `locate`.
      like: the tree of `jax.ShapeDtypeStruct`s with the shardings to load into.

    Raises:
      UserError: they are of another shape.
    """
    with ocp.StandardCheckpointer() as reader:
        saved = reader.metadata(checkpoint / "params").item_metadata.tree
        mismatch = _shape_mismatch(saved, like)
        if mismatch:
            raise UserError(f"{checkpoint}: these weights are of another model: {mismatch}")
        return reader.restore(checkpoint / "params", like)


def _checked(meta: dict[str, Any], path: Path) -> dict[str, Any]:
    if meta["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version {meta['format_version']}, this version of aya_jax reads {FORMAT_VERSION}; use the "
            "version that wrote it, or start over in another RUN_DIR."
        )
    return meta


def _shape_mismatch(saved: Any, like: Any) -> str | None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}

    there, here = shapes(saved), shapes(like)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            return f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} in this configuration"
    return None


def _rest(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "optimizer": state.optimizer, "guard": state.guard}


def _save_error(folder: Path, error: Exception) -> UserError:
    text = str(error)
    if "No space left" in text or "RESOURCE_EXHAUSTED" in text or getattr(error, "errno", None) == 28:
        advice = "the disk is full; free some space and start the same command again"
    elif "ermission denied" in text or "Read-only" in text:
        advice = "no permission to write there; change its permissions, or choose another RUN_DIR"
    else:
        advice = _first_line(error)
    return UserError(f"{folder}: a checkpoint could not be saved: {advice}. Earlier checkpoints are as they were.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
