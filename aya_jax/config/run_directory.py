"""The directory of one run: made once, re-opened by the same configuration only, held by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from aya_jax.config.errors import UserError
from aya_jax.config.files import unwritable, write_atomic
from aya_jax.config.resolve import Resolved
from aya_jax.config.snapshot import differences, fingerprint, from_json, is_excluded, to_json, to_plain

CONFIG_GIN, CONFIG_JSON, ENVIRONMENT, LOCK = "config.gin", "config.json", "environment.json", ".lock"
_SHOWN = 20


class RunDirectory:
    """An open run directory.

    Attributes:
      path: the directory.
      resumed: whether it held this configuration's run before. Only the writer's answer counts: a further process of a
        new run may come after the writer has written.
    """

    def __init__(self, path: Path, lock: int | None, resumed: bool):
        self.path = path
        self.resumed = resumed
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        resolved: Resolved,
        environment: Mapping[str, Any],
        *,
        writer: bool = True,
    ) -> RunDirectory:
        """Makes or re-opens the directory of a run and, for the writer, locks it until `close` or the process's end.

        Writes `config.gin` (the operative text), `config.json` (the snapshot) and `environment.json` (`environment`,
        with those of earlier sessions that differ under "earlier").

        Args:
          path: the directory.
          resolved: the run's configuration.
          environment: what the results may depend on beside it: versions, commit, devices; JSON values.
          writer: False for a further process of the same run, which checks the configuration and writes nothing.

        Raises:
          UserError: the directory is of another configuration, is in use, or cannot be written.
        """
        if "://" in os.fspath(path):
            raise UserError(
                f"{path}: RUN_DIR must be a directory that this machine sees; mount the bucket, or choose another."
            )
        path = Path(path)
        if not writer:
            return cls(path, None, _check_same_configuration(path, resolved))
        lock = _take_lock(path)
        try:
            resumed = _check_same_configuration(path, resolved)
            sessions = _with_earlier(path / ENVIRONMENT, environment)
            write_atomic(path / ENVIRONMENT, json.dumps(sessions, indent=2, ensure_ascii=False) + "\n")
            write_atomic(path / CONFIG_GIN, resolved.text)
            write_atomic(path / CONFIG_JSON, to_json(to_plain(resolved.config)))
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock, resumed)

    def close(self) -> None:
        """Gives up the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_snapshot(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The plain snapshot in a run directory; needs no lock and changes nothing.

    Raises:
      UserError: the directory holds no configuration that can be read.
    """
    file = Path(path) / CONFIG_JSON
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no run directory: it holds no {CONFIG_JSON}.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: cannot be read as a configuration ({error}); if the run is worth keeping, restore this file, "
            "otherwise choose another RUN_DIR."
        ) from error


def _take_lock(path: Path) -> int:
    """Locks the directory for this process; the operating system unlocks it when the process ends, however it ends."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 200, 0).decode("utf-8", "replace").strip() or "another process"
        os.close(lock)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise UserError(
                f"{path}: in use by {holder}; wait for it or stop it, "
                "or give this run another directory with --gin.RUN_DIR=..."
            ) from None
        raise unwritable(path, error) from error
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError as error:
        os.close(lock)
        raise unwritable(path, error) from error
    return lock


def _check_same_configuration(path: Path, resolved: Resolved) -> bool:
    """Whether the directory holds this configuration (True) or none yet (False).

    Raises:
      UserError: it holds another.
    """
    if not (path / CONFIG_JSON).exists():
        return False
    old = read_snapshot(path)
    excluded = getattr(type(resolved.config), "NOT_IN_FINGERPRINT", ())
    if fingerprint(old, excluded) == resolved.fingerprint:
        return True
    changed = [d for d in differences(old, to_plain(resolved.config)) if not is_excluded(d.field, excluded)]
    lines = [f"  {difference}" for difference in changed[:_SHOWN]]
    if len(changed) > _SHOWN:
        lines.append(f"  ... and {len(changed) - _SHOWN} more (`aya config diff`)")
    raise UserError(
        "\n".join(
            [
                f"{path}: this directory holds a run of another configuration (old -> new):",
                *lines,
                "Give this run another directory with --gin.RUN_DIR=..., "
                "or put these values back to continue the old one; nothing was changed.",
            ]
        )
    )


def _with_earlier(file: Path, environment: Mapping[str, Any]) -> dict[str, Any]:
    """This session's environment, with the different ones of earlier sessions under "earlier", oldest first."""
    try:
        previous = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return dict(environment)
    earlier = previous.pop("earlier", [])
    if previous != json.loads(json.dumps(dict(environment))) and previous not in earlier:
        earlier = [*earlier, previous]
    return {**environment, "earlier": earlier} if earlier else dict(environment)
