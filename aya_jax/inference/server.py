"""A generator behind HTTP, as clients of OpenAI's API speak it (API reference: chat completions, completions, models).

Each request is read within limits, admitted or refused at once, and worked on by the generator's own thread; here, in one
event loop, its pieces are passed on as they come. Whoever leaves, or does not read, has nothing more done for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import itertools
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.engine import EngineStats
from aya_jax.inference.openai_answers import Choice, Counts, envelope, whole
from aya_jax.inference.openai_requests import ApiError, Asked, read_chat, read_completion
from aya_jax.inference.protocol import StreamingGenerator
from aya_jax.inference.serve_config import ServeConfig
from aya_jax.inference.serve_metrics import Metrics
from aya_jax.inference.serve_work import Work

LOG = logging.getLogger("aya_jax.serve")
_RETRY = {"retry-after": "1"}


class Served(StreamingGenerator, Protocol):
    """A generator that a server can stand before."""

    tokenizer: ChatTokenizer
    max_length: int
    slots: int

    @property
    def alive(self) -> bool:
        """Whether it can still answer."""
        ...

    def stats(self) -> EngineStats:
        """What its engine is doing."""
        ...


class Server:
    """What the routes share: the generator, the limits, and who is being served."""

    def __init__(self, generator: Served, config: ServeConfig, key: str | None):
        self.generator, self.limits, self._key = generator, config.limits, key
        self.name = config.name or generator.name
        self.metrics = Metrics(generator.stats)
        self.draining = False
        self.samples = 0  # admitted and not finished
        self.open_requests = 0

    # Before an answer ------------------------------------------------------------------------------------------------

    def check_ready(self) -> None:
        """Refuses while the server is going down, or its engine is gone."""
        if not self.generator.alive:
            raise ApiError(503, "the engine has stopped", kind="server_error", code="engine_stopped")
        if self.draining:
            headers = {**_RETRY, "connection": "close"}
            raise ApiError(503, "the server is shutting down", kind="server_error", code="draining", headers=headers)

    def check_key(self, request: Request) -> None:
        """Refuses a client without the key."""
        if self._key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key.encode()):
            headers = {"www-authenticate": "Bearer"}
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key", headers=headers)

    async def body(self, request: Request) -> bytes:
        """The body, if it is small enough and comes soon enough."""
        most = self.limits.body_bytes
        too_large = ApiError(413, f"the body is longer than {most:,} bytes", code="request_too_large")
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise too_large
                    parts.append(part)
        except ClientDisconnect:
            raise ApiError(
                499, "the client left before its request was complete"
            ) from None  # nginx's number for the log
        except TimeoutError:
            headers = {"connection": "close"}
            raise ApiError(408, "the body did not come in time", code="request_timeout", headers=headers) from None
        return b"".join(parts)

    def admit(self, asked: Asked) -> int:
        """Takes so many samples in, or refuses."""
        if asked.model != self.name:
            message = f"there is no model {asked.model!r} here; there is {self.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        count, most = len(asked.prompts) * asked.sampling.n, self.limits.samples
        if count > most:
            raise ApiError(400, f"n: {count} samples in one request, and at most {most} are made", param="n")
        if self.samples and self.samples + count > self.generator.slots + self.limits.waiting:
            message = f"{self.samples} samples are being made or wait; try again later"
            raise ApiError(429, message, kind="rate_limit_error", code="overloaded", headers=_RETRY)
        return count

    def tokens(self, asked: Asked) -> list[tuple[int, ...]]:
        """Each prompt's token ids; called in a thread."""
        tokenizer, found = self.generator.tokenizer, []
        if asked.chat and not tokenizer.has_template:
            raise ApiError(400, "this model has no chat template; ask /v1/completions", param="messages")
        for prompt in asked.prompts:
            try:
                if isinstance(prompt, str):
                    ids = tokenizer.encode_text(prompt)
                elif prompt and isinstance(prompt[0], Message):
                    ids = tokenizer.encode_chat(prompt)
                else:
                    ids = prompt
            except UserError as error:
                field = "messages" if asked.chat else "prompt"
                message = str(error).removeprefix(f"{tokenizer.directory}: ")  # no client's business
                raise ApiError(400, f"{field}: {message}", param=field) from error
            found.append(tuple(ids))
        return found

    # Answers ---------------------------------------------------------------------------------------------------------

    async def pieces(self, asked: Asked, work: Work, counts: Counts) -> AsyncIterator[dict[str, Any]]:
        """The choices of chunks, until every sample has its last."""
        echoed = [""] * len(asked.prompts)
        if asked.echo:
            tokenizer = self.generator.tokenizer
            echoed = [p if isinstance(p, str) else tokenizer.decode(p) for p in asked.prompts]
        samples = asked.sampling.n
        choices = [Choice(asked, index, echoed[index // samples]) for index in range(len(echoed) * samples)]
        left = len(choices)
        async for index, delta in work.deltas():
            if delta.finish_reason == "cancelled":
                self.check_ready()
                raise ApiError(500, "the sample was cancelled", kind="server_error", code="cancelled")
            if delta.prompt:  # told of a prompt's first sample; with echo every one of them begins with it
                for each in range(index, index + samples):
                    yield choices[each].grow(delta)
                continue
            counts.completion += 0 if asked.max_tokens == 0 else len(delta.tokens)
            yield choices[index].grow(delta)
            left -= delta.finish_reason is not None
            if not left:
                return


def make_app(generator: Served, config: ServeConfig, key: str | None = None) -> FastAPI:
    """The application.

    Args:
      generator: what answers; its `start` and `tokenizer` are used from several threads.
      config: names and limits.
      key: that clients must send; None: none.
    """
    server = Server(generator, config, key)
    app = FastAPI(title="aya serve", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.server = server

    @app.get("/health")
    async def health() -> dict[str, str]:
        server.check_ready()
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        server.check_key(request)
        return {"object": "list", "data": [_model(server)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> dict[str, Any]:
        server.check_key(request)
        if name != server.name:
            raise ApiError(404, f"there is no model {name!r} here; there is {server.name!r}", code="model_not_found")
        return _model(server)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _answer(server, request, read_chat)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await _answer(server, request, read_completion)

    @app.exception_handler(ApiError)
    async def refuse(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> Response:
        said = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        return JSONResponse(said.body(), error.status_code, error.headers)

    app.add_middleware(_Watch, server=server)
    return app


def _model(server: Server) -> dict[str, Any]:
    return {
        "id": server.name,
        "object": "model",
        "created": 0,
        "owned_by": "aya_jax",
        "max_model_len": server.generator.max_length,
    }


async def _answer(server: Server, request: Request, read: Callable[[bytes], Asked]) -> Response:
    """The answer to a request for text; what it occupies is given back whatever becomes of it."""
    server.check_key(request)
    server.check_ready()
    asked = read(await server.body(request))
    count = server.admit(asked)
    server.samples += count
    record: dict[str, Any] = request.state.record
    try:
        prompts = await asyncio.to_thread(server.tokens, asked)
        counts = Counts(prompt=sum(map(len, prompts)))
        work = Work(server.generator, record["id"], _bounded(server, asked, prompts), server.limits.request_seconds)
        work.start()
    except BaseException:
        server.samples -= count
        raise

    def release() -> None:
        work.cancel()
        server.samples -= count
        record.update(prompt_tokens=counts.prompt, tokens=counts.completion)
        server.metrics.prompt_tokens.inc(counts.prompt)
        server.metrics.generated_tokens.inc(counts.completion)
        if work.first is not None:
            server.metrics.first_token.observe(work.first - work.begin)
            if counts.completion > 1:
                server.metrics.per_token.observe((work.last - work.first) / counts.completion)

    head = envelope(asked, record["id"], server.name, chunk=asked.stream)
    pieces = server.pieces(asked, work, counts)
    if asked.stream:
        events = _events(server, head, pieces, counts if asked.include_usage else None)
        return _Stream(events, release, server)
    try:
        return await _whole(server, request, asked, head, pieces, counts)
    finally:
        release()


def _bounded(
    server: Server, asked: Asked, prompts: list[tuple[int, ...]]
) -> list[tuple[tuple[int, ...], SamplingConfig]]:
    """Each prompt with how many tokens it gets."""
    found, longest, cap = [], server.generator.max_length, server.limits.max_tokens
    field = "messages" if asked.chat else "prompt"
    wanted = asked.max_tokens
    if cap is not None and wanted is not None and wanted > cap:
        raise ApiError(400, f"max_tokens: {wanted}, and this server makes at most {cap}", param="max_tokens")
    for prompt in prompts:
        left = longest - len(prompt)
        if not prompt:
            raise ApiError(400, f"{field}: there is nothing in it", param=field)
        if left < 1 or (wanted or 1) > left:
            message = f"the context is {longest} tokens; the prompt has {len(prompt)}"
            message += f" and max_tokens is {wanted}" if wanted else ""
            raise ApiError(400, message, param=field, code="context_length_exceeded")
        found.append((prompt, min(left, cap or left) if wanted is None else max(wanted, 1)))
    return [(prompt, dataclasses.replace(asked.sampling, max_tokens=count)) for prompt, count in found]


async def _whole(
    server: Server, request: Request, asked: Asked, head: dict[str, Any], pieces: AsyncIterator, counts: Counts
) -> Response:
    """The answer at once, unless the client leaves before."""

    async def gather() -> list[dict[str, Any]]:
        return [piece async for piece in pieces]

    gathering, leaving = asyncio.ensure_future(gather()), asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((gathering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not gathering.done():
            server.metrics.cancelled.labels("disconnected").inc()
            return Response(status_code=499)  # nobody reads it; nginx's number for the log
        found = sorted(gathering.result(), key=lambda piece: piece["index"])
    finally:
        for task in (gathering, leaving):
            task.cancel()
    by_choice = itertools.groupby(found, key=lambda piece: piece["index"])
    head["choices"] = [whole(list(each), asked.chat) for _, each in by_choice]
    return JSONResponse(head | {"usage": counts.usage()})


async def _events(
    server: Server, head: dict[str, Any], pieces: AsyncIterator, counts: Counts | None
) -> AsyncIterator[bytes]:
    """Server-sent events: a chunk for each piece, an error if there is one, and the end."""
    usage = {} if counts is None else {"usage": None}
    try:
        async for piece in pieces:
            yield _event(head | usage | {"choices": [piece]})
        if counts is not None:
            yield _event(head | {"choices": [], "usage": counts.usage()})
    except ApiError as error:
        yield _event(error.body())
        return
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def _left(receive: Callable) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Stream(Response):
    """Events to a client that reads them; one that leaves or stops reading is cut off."""

    def __init__(self, events: AsyncIterator[bytes], release: Callable[[], None], server: Server):
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self._events, self._release, self._server = events, release, server

    async def __call__(self, scope: Any, receive: Callable, send: Callable) -> None:
        sending, leaving = asyncio.ensure_future(self._send(send)), asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                self._server.metrics.cancelled.labels("disconnected").inc()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._release()

    async def _send(self, send: Callable) -> None:
        async def within(message: dict[str, Any]) -> None:
            async with asyncio.timeout(self._server.limits.write_seconds):
                await send(message)

        try:
            await within({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with aclosing(self._events) as events:
                async for event in events:
                    await within({"type": "http.response.body", "body": event, "more_body": True})
            await within({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:  # the server closes a connection whose answer does not end
            self._server.metrics.cancelled.labels("unread").inc()


class _Watch:
    """Around all routes: an id, a line in the log and a count for each request; a failure becomes a plain 500."""

    def __init__(self, app: Any, server: Server):
        self._app, self._server = app, server

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = {"id": secrets.token_hex(12), "method": scope["method"], "path": scope["path"], "status": None}
        scope.setdefault("state", {})["record"] = record

        async def watched(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record["id"].encode())]
            await send(message)

        begin, server = time.monotonic(), self._server
        server.open_requests += 1
        try:
            await self._app(scope, receive, watched)
        except Exception:
            LOG.exception("request %s failed", record["id"])
            error = ApiError(500, f"the server failed; its log says more at {record['id']}", kind="server_error")
            if record["status"] is None:
                await JSONResponse(error.body(), 500)(scope, receive, watched)
        finally:
            server.open_requests -= 1
            record["seconds"] = round(time.monotonic() - begin, 4)
            route = getattr(scope.get("route"), "path", "other")
            server.metrics.requests.labels(route, str(record["status"])).inc()
            server.metrics.duration.labels(route).observe(record["seconds"])
            LOG.info(json.dumps(record))
