"""An objective for tests: numbers of the parameters themselves, which need no text and no program to be compiled."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aya_jax.evaluation.weights import weights_digest

KILL_AT = "AYA_TEST_KILL_AT"


def numbers(params: Any, model: Any, tokenizer: Any) -> dict[str, float]:
    """The largest weight and the spread of all, by two languages, and 48 bits of the weights' digest."""
    _die_in_time()
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    largest = max(float(np.abs(leaf).max()) for leaf in leaves)
    spread = float(np.concatenate([leaf.ravel() for leaf in leaves]).std())
    digest = float(int(weights_digest(params)[:12], 16))
    return {"largest/de": largest, "largest/tr": 2 * largest, "spread": -spread, "digest": digest}


def _die_in_time() -> None:
    """As a kill would end it, at the call that the environment names."""
    file = os.environ.get(KILL_AT)
    if file:
        left = int(Path(file).read_text()) - 1
        Path(file).write_text(str(left))
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
