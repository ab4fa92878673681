"""Rows of a batch from tokens: windows of the running text, or whole documents side by side.

Every row is a dict of [S] arrays (batched here, [N, S]): `tokens` and `targets` int32, `loss_weights` float32,
`segment_ids` and `positions` int32. A target is the token that follows in the same document; where a document's last token
has none the weight is 0. Segments count from 1 in each row and positions from 0 in each segment; segment 0 is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FIELDS = {
    "tokens": np.int32,
    "targets": np.int32,
    "loss_weights": np.float32,
    "segment_ids": np.int32,
    "positions": np.int32,
}


def pack_windows(
    windows: np.ndarray, *, bos_id: int | None, eos_id: int, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Cuts windows into segments where documents begin.

    Args:
      windows: int32 [N, S + 1], anywhere in a concatenation of documents `[bos] tokens eos`.
      bos_id: opens every document, and stands nowhere else; None where documents have none and `eos_id` marks their
        ends. It may be `eos_id` itself.
      eos_id: ends every document. Where there is another bos it may stand inside too (turns of a conversation).
      weights: float32 [N, S + 1], the weight of predicting each token; None is 1.

    Returns:
      the fields above, [N, S].
    """
    tokens, targets = windows[:, :-1].copy(), windows[:, 1:].copy()
    across = tokens == eos_id if bos_id is None else targets == bos_id
    if bos_id == eos_id:  # one token opens and ends documents: a boundary is two of them
        across &= tokens == eos_id
    begins = np.ones_like(across)
    begins[:, 1:] = across[:, :-1]
    loss_weights = np.logical_not(across).astype(np.float32)
    if weights is not None:
        loss_weights *= weights[:, 1:]
    segment_ids, positions = _segments(begins)
    return {
        "tokens": tokens,
        "targets": targets,
        "loss_weights": loss_weights,
        "segment_ids": segment_ids,
        "positions": positions,
    }


def _segments(begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segment ids and positions, int32 [N, S], from where segments begin, bool [N, S] with its first column true.

    Works on the few beginnings and repeats them: ten times as fast as cumulative sums over every token.
    """
    rows, length = begins.shape
    at = np.flatnonzero(begins)
    lengths = np.diff(at, append=rows * length)
    row_begins = np.arange(rows) * length
    first = np.searchsorted(at, row_begins)
    numbers = (np.arange(len(at)) - first[at // length] + 1).astype(np.int32)
    segment_ids = np.repeat(numbers, lengths).reshape(rows, length)
    positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1)).reshape(-1)
    positions -= np.repeat((at % length).astype(np.int32), lengths)
    return segment_ids, positions.reshape(rows, length)


def empty_rows(rows: int, length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Rows of padding, [rows, length]: segment 0, weight 0."""
    fields = {name: np.zeros((rows, length), dtype) for name, dtype in FIELDS.items()}
    fields["tokens"][:] = fields["targets"][:] = pad_id
    return fields


def pad_from(fields: dict[str, np.ndarray], row: int, start: int, pad_id: int) -> None:
    """Turns positions [start, S) of one row into padding."""
    padding = empty_rows(1, fields["tokens"].shape[1] - start, pad_id)
    for name, values in padding.items():
        fields[name][row, start:] = values[0]


@dataclass(frozen=True)
class Piece:
    """A document, or the part of a longer one that fits a row.

    Attributes:
      document: its number in the list that was packed.
      start: first token of it.
      length: tokens, 1 to S.
      last: whether the document ends with it.
    """

    document: int
    start: int
    length: int
    last: bool


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[Piece]]:
    """Fills rows with whole documents: each goes, in order, to the first row with room for it (Johnson 1973).

    A document longer than `capacity` is cut into pieces of that length, and what remains is placed like a document; no
    token is dropped and none appears twice.

    Args:
      lengths: tokens of each document, at least 1.
      capacity: tokens in a row, S.

    Returns:
      the pieces of each row, in the order they were placed.
    """
    rows: list[list[Piece]] = []
    room = np.zeros(len(lengths) + sum(length // capacity for length in lengths), np.int64)
    for document, length in enumerate(lengths):
        for start in range(0, length, capacity):
            size = min(capacity, length - start)
            row = int(np.argmax(room[: len(rows)] >= size)) if rows else 0
            if not rows or room[row] < size:
                row = len(rows)
                rows.append([])
                room[row] = capacity
            rows[row].append(Piece(document, start, size, start + size == length))
            room[row] -= size
    return rows


def place_piece(
    fields: dict[str, np.ndarray],
    row: int,
    start: int,
    segment: int,
    tokens: np.ndarray,
    length: int,
    weights: np.ndarray | None = None,
) -> None:
    """Puts a piece into a row.

    Args:
      fields: rows of padding or partly filled, [N, S].
      row: which of them.
      start: where in it.
      segment: its segment id.
      tokens: int32 [length] for a document's last piece, [length + 1] with the token that follows for others.
      length: tokens of the piece.
      weights: float32 like `tokens`, the weight of predicting each; None is 1.
    """
    end, predicted = start + length, len(tokens) - 1
    fields["tokens"][row, start:end] = tokens[:length]
    fields["targets"][row, start : start + predicted] = tokens[1:]
    fields["loss_weights"][row, start : start + predicted] = 1.0 if weights is None else weights[1:]
    fields["segment_ids"][row, start:end] = segment
    fields["positions"][row, start:end] = np.arange(length)
