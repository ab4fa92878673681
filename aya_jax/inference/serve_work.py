"""One HTTP request's prompts in a generator that works in another thread, as an asynchronous stream of what comes."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Sequence

from aya_jax.config import UserError
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.openai_requests import ApiError
from aya_jax.inference.protocol import Delta, Job, Request, StreamingGenerator


class Work:
    """Jobs of one request. All methods are called in the event loop.

    Attributes:
      begin: when it was made.
      first: when its first token came, or None.
      last: when its last one came.
    """

    def __init__(
        self,
        generator: StreamingGenerator,
        identity: str,
        prompts: Sequence[tuple[tuple[int, ...], SamplingConfig]],
        seconds: float,
    ):
        """`seconds`: how long all of it may take."""
        self.begin = time.monotonic()
        self.first: float | None = None
        self.last = self.begin
        self._generator, self._prompts, self._deadline = generator, prompts, self.begin + seconds
        self._identity = identity
        self._queue: asyncio.Queue[tuple[int, Delta]] = asyncio.Queue()
        self._jobs: list[Job] = []

    def start(self) -> None:
        """Hands the prompts over.

        Raises:
          ApiError: the generator refuses one; the others are cancelled.
        """
        loop = asyncio.get_running_loop()
        try:
            for number, (prompt, sampling) in enumerate(self._prompts):
                request = Request(id=f"{self._identity}-{number}", prompt=prompt, sampling=sampling)
                put = functools.partial(self._put, loop, number * sampling.n)
                self._jobs.append(self._generator.start(request, put))
        except UserError as error:
            self.cancel()
            raise ApiError(400, str(error)) from error
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Ends what is not finished, and frees what it occupies."""
        for job in self._jobs:
            job.cancel()

    async def deltas(self) -> AsyncIterator[tuple[int, Delta]]:
        """What comes, with the number of the sample among those of all prompts; never ends by itself.

        Raises:
          ApiError: the time is over.
        """
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._deadline - time.monotonic()):
                    index, delta = await self._queue.get()
            except TimeoutError:
                raise ApiError(504, "the request took too long", kind="server_error", code="timeout") from None
            if delta.tokens:
                self.last = time.monotonic()
                self.first = self.first or self.last
            yield index, delta

    def _put(self, loop: asyncio.AbstractEventLoop, offset: int, delta: Delta) -> None:
        loop.call_soon_threadsafe(self._queue.put_nowait, (offset + delta.index, delta))
