"""Principal components: the directions in which vectors differ most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Principal(NamedTuple):
    """An orthonormal frame.

    Attributes:
      mean: float64 [D].
      directions: float64 [D, d], the one along which most varies first; the largest entry of each is positive.
    """

    mean: np.ndarray
    directions: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates, float64 [N, d]."""
        return (np.asarray(vectors, np.float64) - self.mean) @ self.directions


def principal(vectors: np.ndarray, count: int) -> Principal:
    """The first components of vectors [N, D]; as many as there are dims where these are fewer than `count`."""
    mean = np.mean(vectors, axis=0, dtype=np.float64)
    centred = np.asarray(vectors, np.float64) - mean
    directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    largest = directions[np.argmax(np.abs(directions), axis=0), np.arange(directions.shape[1])]
    return Principal(mean, directions * np.sign(largest))
