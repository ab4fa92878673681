"""Token sequences of many lengths as batches of a few shapes, for models that score them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_SHORTEST = 32


def token_batches(sequences: Sequence[Sequence[int]], rows: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Batches of `rows` sequences, padded with zeros behind: which they are, and their tokens, int32 [rows, S].

    Those of like length come together, and S is a power of two, so that few programs serve all. The last batch of a length may
    have rows of zeros alone.
    """
    by_size: dict[int, list[int]] = {}
    for number, sequence in enumerate(sequences):
        by_size.setdefault(max(_SHORTEST, 1 << (len(sequence) - 1).bit_length()), []).append(number)
    for size, numbers in sorted(by_size.items()):
        for start in range(0, len(numbers), rows):
            chosen = numbers[start : start + rows]
            tokens = np.zeros((rows, size), np.int32)
            for row, number in enumerate(chosen):
                tokens[row, : len(sequences[number])] = sequences[number]
            yield chosen, tokens
