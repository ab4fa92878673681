"""Which weights a result is of."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from aya_jax.parallel.distributed import whole


def weights_digest(params: Any) -> str:
    """SHA-256 over the names, types, shapes and bytes of the parameters, whatever file or mesh they came from."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = whole(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8))
    return digest.hexdigest()
