"""Looking for NaN and infinity at the speed of memory: their exponents are all ones, which integers show."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from aya_jax.merging.pages import release
from aya_jax.merging.sources import Source

_ENTRIES = 1 << 17  # at a time, which a processor's cache holds
_KEPT = 32  # times as many, whose pages stay in memory
_THREADS = 2
_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}


def first_not_finite(array: np.ndarray) -> tuple[int, ...] | None:
    """The index of the first entry that is NaN or infinite; None where there is none."""
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    kind = np.dtype(f"u{array.dtype.itemsize}")
    mask = kind.type(_EXPONENTS[array.dtype.name])
    bits = array.reshape(-1).view(kind)
    masked = np.empty(min(_ENTRIES, bits.size), kind)
    for number, start in enumerate(range(0, bits.size, _ENTRIES)):
        if number % _KEPT == 0:
            release(array)
        part = bits[start : start + _ENTRIES]
        found = np.bitwise_and(part, mask, out=masked[: part.size])
        if found.max() == mask:
            at = start + int(np.argmax(found == mask))
            return tuple(int(number) for number in np.unravel_index(at, array.shape))
    return None


def scan(source: Source) -> Iterator[str]:
    """What to say of each tensor of a model that is not finite throughout: its file, its name, and where."""

    def look(name: str) -> str | None:
        array = source.read(name)
        at = first_not_finite(array)
        if at is None:
            return None
        return f"{source.file_of(name)}: {name}[{', '.join(map(str, at))}] is {float(array[at])}; this model is damaged"

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from filter(None, pool.map(look, source.shapes()))
