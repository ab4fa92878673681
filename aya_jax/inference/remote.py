"""A model behind an OpenAI-compatible endpoint as a generator: many calls at once, patient, and never paid for twice.

Calls are made in an event loop in a thread of its own. Requests come from any thread, and their responses go back to it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from aya_jax.config import UserError
from aya_jax.inference.protocol import FailedResponse, Request, Response
from aya_jax.inference.remote_cache import RemoteCache, request_key
from aya_jax.inference.remote_client import import_httpx, make_clients, read_key
from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.inference.remote_estimate import rough_tokens
from aya_jax.inference.remote_failure import CallFailed, status_failure
from aya_jax.inference.remote_pace import Pace, backoff
from aya_jax.inference.remote_wire import BadAnswer, body_of, decode, response_of, usage_of

_AHEAD = 2  # requests that `generate` holds for each call that may be under way, so that none waits for the caller


@dataclass(frozen=True, kw_only=True)
class RemoteStats:
    """What a generator has done so far.

    Attributes:
      calls: HTTP requests, retries included.
      retries: calls that repeated one.
      cached: requests that were answered from the cache.
      failed: requests that were not answered.
      prompt_tokens: that the answers to the calls say they read.
      new_tokens: that they say they wrote.
    """

    calls: int = 0
    retries: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0


class _Abandoned(Exception):
    """The run is ending, so a call that has not begun is not made."""


class _Run:
    """One call of `generate`.

    Attributes:
      done: what became of its requests, by id.
      ended: set when no further call may begin.
      failures: how many requests have failed.
    """

    def __init__(self) -> None:
        self.done: queue.SimpleQueue[tuple[str, Response | BaseException]] = queue.SimpleQueue()
        self.ended = asyncio.Event()
        self.failures = 0


class RemoteGenerator:
    """A `Generator` over HTTP; a context that ends its thread.

    What fails for a passing reason is tried again after a growing, random pause, or after the one that the endpoint asks
    for. What fails for good ends the run when it concerns every request (the key, the address, no connection, the quota),
    or when more than `max_failures` requests have failed; until then the request gets a `FailedResponse`. A run that ends
    so begins no more calls, but waits for those under way, and yields their answers before the error.
    """

    def __init__(
        self,
        config: RemoteModelConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        """Reads the key and starts the thread; calls nothing yet.

        Args:
          config: the endpoint, and how it may be called.
          clock: seconds that never go back.
          sleep: waits so many of them.

        Raises:
          UserError: httpx is not installed, the key cannot be read, or the cache cannot be made.
        """
        self.name, self.config = config.model, config
        self._httpx, self._key = import_httpx(), read_key(config.api_key_file)
        self.cache = RemoteCache(config.cache_dir) if config.cache_dir is not None else None
        self._clock, self._sleep = clock, sleep
        self._pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        self._stats, self._answered, self._closed = RemoteStats(), False, False
        self._clients = make_clients(config, self._key)
        self._asking: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._writers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="remote cache")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="remote", daemon=True)
        self._thread.start()

    def stats(self) -> RemoteStats:
        """What was done so far."""
        return self._stats

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """As `Generator.generate`; see the class for what happens to requests that fail."""
        if self._closed:
            raise UserError("the generator was closed")
        source, run = iter(requests), _Run()
        under_way: dict[str, Future[None]] = {}
        most, error = _AHEAD * self.config.concurrency, None
        try:
            while True:
                # An answer that is there goes out before another request is read: reading may take its time.
                while error is None and len(under_way) < most and run.done.empty():
                    request = next(source, None)
                    if request is None:
                        break
                    try:
                        under_way[request.id] = self._start(request, under_way, run)
                    except UserError as refused:
                        error = refused
                        self._loop.call_soon_threadsafe(run.ended.set)
                if not under_way:
                    break
                name, outcome = run.done.get()
                del under_way[name]
                if isinstance(outcome, Response):
                    yield outcome
                elif not isinstance(outcome, _Abandoned):
                    error = error or outcome
            if error is not None:
                raise error
        finally:
            for future in under_way.values():
                future.cancel()

    def close(self) -> None:
        """Ends the thread; calls under way are cancelled, and answers that have come are in the cache."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._writers.shutdown()

    def __enter__(self) -> RemoteGenerator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # In the caller's thread ------------------------------------------------------------------------------------------

    def _start(self, request: Request, under_way: dict[str, Any], run: _Run) -> Future[None]:
        if request.id in under_way:
            raise UserError(f"request {request.id!r}: another one has this id")
        body = body_of(request, self.config)
        return asyncio.run_coroutine_threadsafe(self._tell(request, body, run), self._loop)

    # In the thread of the loop ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._finish())
        self._loop.close()

    async def _finish(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not self._clients.empty():
            await self._clients.get_nowait().aclose()

    async def _tell(self, request: Request, body: dict[str, Any], run: _Run) -> None:
        """Answers a request, and tells the run; after a failure that ends it, nothing more begins."""
        try:
            outcome: Response | BaseException = await self._answer(request, body, run.ended)
        except asyncio.CancelledError:
            run.done.put((request.id, UserError(f"request {request.id!r}: the generator was closed meanwhile")))
            raise
        except CallFailed as failure:
            outcome = self._failed(request, failure, run)
        except Exception as error:
            outcome = error
        if isinstance(outcome, Exception):
            run.ended.set()
        run.done.put((request.id, outcome))

    def _failed(self, request: Request, failure: CallFailed, run: _Run) -> FailedResponse | UserError:
        """What a failure means to a run: a response like another, or its end."""
        self._count(failed=1)
        run.failures += 1
        most = self.config.max_failures
        if failure.everyone:
            return UserError(f"request {request.id!r}: {failure}")
        if run.failures <= most:
            return FailedResponse(id=request.id, completions=(), prompt_tokens=0, error=str(failure))
        if most == 0:
            advice = "set RemoteModelConfig.max_failures to go on without such requests"
            return UserError(f"request {request.id!r}: {failure}; {advice}")
        return UserError(
            f"{run.failures} requests have failed, more than RemoteModelConfig.max_failures = {most}; the last one, "
            f"{request.id!r}: {failure}"
        )

    async def _answer(self, request: Request, body: dict[str, Any], ended: asyncio.Event) -> Response:
        """The response, from the cache or by calls."""
        if self.cache is None:
            return await self._ask(request, body, ended)
        # Two equal requests are one question: the second waits for the answer to the first.
        lock = self._asking.setdefault(request_key(self.config.url, body), asyncio.Lock())
        async with lock:
            if (kept := self._kept(request, body)) is not None:
                self._count(cached=1)
                return kept
            return await self._ask(request, body, ended)

    def _kept(self, request: Request, body: dict[str, Any]) -> Response | None:
        answer = self.cache.get(self.config.url, body)
        try:
            return None if answer is None else response_of(request, answer, self.config)
        except BadAnswer:
            return None

    async def _keep(self, body: dict[str, Any], answer: dict[str, Any]) -> None:
        if self.cache is not None:
            writing = self._writers.submit(self.cache.put, self.config.url, body, answer)
            await asyncio.shield(asyncio.wrap_future(writing))

    async def _ask(self, request: Request, body: dict[str, Any], ended: asyncio.Event) -> Response:
        """Calls until there is an answer, or no hope of one.

        A call holds its place until its answer is on disk, so that a kill loses no more than `concurrency` answers.
        """
        config, content = self.config, json.dumps(body).encode("ascii")
        tokens = rough_tokens(request.prompt) + request.sampling.n * request.sampling.max_tokens
        for attempt in itertools.count():
            try:
                client = await self._clients.get()
                try:
                    await self._pause(self._pace.reserve(self._clock(), tokens) - self._clock(), ended)
                    self._check_cost()
                    answer = await self._call(client, content, again=attempt > 0)
                    response = self._read(request, answer)
                    # No await lies between an answer and its writing, which goes on if this task is cancelled.
                    await self._keep(body, answer)
                    return response
                finally:
                    self._clients.put_nowait(client)
            except CallFailed as failure:
                if not failure.again or attempt == config.retries:
                    raise
                if failure.wait is not None and failure.wait > config.longest_wait:
                    raise CallFailed(
                        f"{failure}; it asks to wait for {failure.wait:,.0f} s, and RemoteModelConfig.longest_wait is "
                        f"{config.longest_wait:,.0f}", everyone=True
                    ) from None  # fmt: skip
                if failure.wait is not None:
                    self._pace.hold(self._clock() + failure.wait)
                pause = backoff(attempt, config.backoff_min, config.backoff_max, random.random())
                await self._pause((failure.wait or 0.0) + pause, ended)
        raise AssertionError("unreachable")

    async def _pause(self, seconds: float, ended: asyncio.Event) -> None:
        """Waits, but not on when the run is ending."""
        if seconds > 0 and not ended.is_set():
            waits = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(ended.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if ended.is_set():
            raise _Abandoned

    async def _call(self, client: Any, content: bytes, again: bool) -> dict[str, Any]:
        """One HTTP request.

        Raises:
          CallFailed: there is no answer.
        """
        httpx, config = self._httpx, self.config
        self._count(calls=1, retries=int(again))
        try:
            async with asyncio.timeout(config.timeout):
                reply = await client.post(config.url, content=content)
        except TimeoutError:
            raise CallFailed(f"{config.url}: no answer within {config.timeout:g} s", again=True) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise CallFailed(
                f"{config.url}: no connection: {error!r}; is it running, and is RemoteModelConfig.base_url right?",
                again=True, everyone=True,
            ) from error  # fmt: skip
        except httpx.HTTPError as error:
            raise CallFailed(f"{config.url}: the connection broke: {error!r}", again=True) from error
        try:
            if reply.status_code == 200:
                return decode(reply.content, reply.headers.get("content-type", ""))
        except BadAnswer as bad:
            raise self._bad(bad) from None
        failure = status_failure(
            config, reply.status_code, reply.headers, reply.content, time.time(), answered=self._answered
        )
        raise self._without_key(failure)

    def _read(self, request: Request, answer: dict[str, Any]) -> Response:
        try:
            response = response_of(request, answer, self.config)
        except BadAnswer as bad:
            raise self._bad(bad) from None
        finally:
            self._count_tokens(answer)
        self._answered = True
        return response

    def _bad(self, bad: BadAnswer) -> CallFailed:
        return self._without_key(CallFailed(f"{self.config.url} answered {bad}", again=bad.again))

    def _without_key(self, failure: CallFailed) -> CallFailed:
        """A failure whose message cannot show the key, which some servers repeat."""
        if self._key is not None:
            failure.args = (str(failure).replace(self._key, "(the key)"),)
        return failure

    def _check_cost(self) -> None:
        config, cost = self.config, self.config.cost(self._stats.prompt_tokens, self._stats.new_tokens)
        if config.max_cost is not None and cost is not None and cost >= config.max_cost:
            raise CallFailed(
                f"answers have cost {cost:,.4f}, and RemoteModelConfig.max_cost is {config.max_cost:,.4f}",
                everyone=True,
            )

    def _count_tokens(self, answer: dict[str, Any]) -> None:
        try:
            prompt_tokens, new_tokens = usage_of(answer)
        except BadAnswer:
            return
        self._count(prompt_tokens=prompt_tokens, new_tokens=new_tokens)

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})
