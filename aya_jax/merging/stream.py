"""Tensors made ahead of their writing, in pieces, by threads; memory is bounded by the pieces that wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

_THREADS = 2
_WAITING = 4  # pieces of a tensor
_TENSORS = 3  # that are made, or wait to be taken
_POLL_SECONDS = 0.1


class Ahead:
    """Makes tensors in order, so many at a time as there are threads; also a context that ends them."""

    def __init__(self, make: Callable[[str], Iterator[np.ndarray]], names: Sequence[str]):
        """Starts the threads.

        Args:
          make: gives the pieces of a tensor.
          names: of the tensors, in the order in which they will be asked for.
        """
        self._make = make
        self._pieces: dict[str, queue.Queue] = {name: queue.Queue(_WAITING) for name in names}
        self._names = iter(names)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._free = threading.Semaphore(_TENSORS)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def take(self, name: str) -> Iterator[np.ndarray]:
        """The pieces of the next tensor; raises what its making has raised."""
        while (piece := self._pieces[name].get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        del self._pieces[name]
        self._free.release()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            if not self._free.acquire(timeout=_POLL_SECONDS):
                continue
            with self._lock:
                name = next(self._names, None)
            if name is None:
                return
            try:
                for piece in self._make(name):
                    if not self._put(name, piece):
                        return
                self._put(name, None)
            except BaseException as error:
                self._put(name, error)
                return

    def _put(self, name: str, piece: np.ndarray | BaseException | None) -> bool:
        """Whether it could be put, and nobody has stopped meanwhile."""
        while not self._stop.is_set():
            try:
                self._pieces[name].put(piece, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
