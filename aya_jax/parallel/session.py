"""One process of several, from the roll call to its end: every process ends when one of them must, and one says why."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from aya_jax.config.errors import UserError
from aya_jax.parallel import roll_call
from aya_jax.parallel.launch import Launch

JOIN_TIMEOUT = 300.0  # seconds
HEARTBEAT_TIMEOUT = 100  # seconds; JAX's own default
_INTERRUPTED = 130

Prepared = TypeVar("Prepared")


def run_together(
    launch: Launch,
    prepare: Callable[[], Prepared],
    run: Callable[[Prepared], None],
    *,
    join_timeout: float = JOIN_TIMEOUT,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
) -> None:
    """Does `run(prepare())` as one of several processes, and ends this process where one of them fails.

    Returns when all have succeeded. In an error the process ends here, without Python's clean-up, which would wait for the
    others.

    Args:
      launch: this process's place.
      prepare: what can be found wrong before the others are needed (the configuration).
      run: the work; JAX knows all processes when it is called.
      join_timeout: seconds to wait for all processes to come.
      heartbeat_timeout: seconds after which a machine that does not answer counts as gone.
    """
    prepared, error = _try(prepare)
    try:
        peers = roll_call.join(launch, timeout=join_timeout, error=None if error is None else str(error))
    except roll_call.Ended as ended:
        _end(str(ended), error)
    except UserError as missing:
        _end(str(missing), error or missing)
    peers.watch(heartbeat_timeout)
    try:
        from aya_jax.parallel import distributed

        distributed.initialize(launch, peers.hosts, join_timeout=join_timeout, heartbeat_timeout=heartbeat_timeout)
        run(prepared)
        distributed.shutdown()
    except UserError as failure:
        _end(peers.fail(str(failure)), failure)
    except KeyboardInterrupt as interrupt:
        _end(peers.fail("Interrupted."), interrupt)
    except BaseException as failure:
        # A collective breaks when a process dies, before it is said which: the watching thread ends this one with a reason.
        time.sleep(roll_call.GRACE)
        traceback.print_exc()
        _end(peers.fail(f"failed: {type(failure).__name__}: {failure}"), failure)
    peers.finish()


def _try(prepare: Callable[[], Prepared]) -> tuple[Prepared | None, UserError | None]:
    try:
        return prepare(), None
    except UserError as error:
        return None, error


def _end(message: str, error: BaseException | None) -> NoReturn:
    """Prints a message and ends the process."""
    code = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
    try:
        sys.stdout.flush()
        print(message, file=sys.stderr, flush=True)
    finally:
        os._exit(code)
