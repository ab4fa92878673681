"""`aya serve`: a model on this machine behind an OpenAI-compatible HTTP interface, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from types import FrameType
from typing import Any

from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.engine import chunk_sizes
from aya_jax.inference.local import LocalGenerator, open_generator
from aya_jax.inference.protocol import Request
from aya_jax.inference.serve_config import LOOPBACK, LimitsConfig, ServeConfig

_KEEP_ALIVE = 15  # seconds that an idle connection stays open


def run(resolved: Resolved[ServeConfig]) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes what it has begun.

    Raises:
      UserError: the packages are missing, the address is taken, the model is not to be had, or the engine has stopped.
    """
    try:
        import uvicorn  # noqa: F401

        from aya_jax.inference.server import make_app
    except ImportError as error:
        raise UserError(f"aya serve needs {error.name}: pip install 'aya_jax[serve]'") from error
    config, console = resolved.config, Console(soft_wrap=True)
    key = config.api_key()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    # The address first: loading the model takes long.
    with listen(config) as listener, open_generator(config.model, say) as generator:
        warm_up(generator, config.model.engine.prefill_chunk)
        app = make_app(generator, config, key)
        url = f"http://{config.host}:{listener.getsockname()[1]}/v1"
        say(f"serving {app.state.server.name} at {url} ({_who(config, key)})")
        _log_to_stdout()
        serve(app, listener, config.limits)
        _check_engine(generator)
    console.print("served all that was begun; good-bye", highlight=False)


def warm_up(generator: LocalGenerator, chunk: int) -> None:
    """Compiles what a first client would wait for: chunks of prompts of every size, with and without scores."""
    lengths = [length for length in chunk_sizes(chunk) if length < generator.max_length] or [2]
    asked = [(length, None) for length in lengths] + [(length, 1) for length in lengths] + [(2, 0)]
    requests = [
        Request(
            id=f"{length}-{top}",
            prompt=(0,) * length,
            sampling=SamplingConfig(max_tokens=2, log_probs=top, prompt_log_probs=top is not None),
        )
        for length, top in asked
    ]
    for request in requests:  # one by one: together they would share what is compiled
        list(generator.generate([request]))


def listen(config: ServeConfig) -> socket.socket:
    """The listening socket. What is still unread after twice `write_seconds` the kernel drops.

    Raises:
      UserError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2000 * config.limits.write_seconds))
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"{config.host}:{config.port}: cannot be listened on: {error.strerror}; choose another --gin.ServeConfig.port"
        ) from error
    listener.listen(config.limits.connections)
    return listener


def serve(app: Any, listener: socket.socket, limits: LimitsConfig) -> None:
    """Serves an application of `make_app` in this thread until SIGTERM, SIGINT, or the end of its engine."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=_protocol(limits.body_seconds),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=1,
    )
    _draining(config, app.state.server).run(sockets=[listener])


def _draining(config: Any, state: Any) -> Any:
    """A uvicorn server that goes on with what it has begun after the first signal, and ends at the second."""
    import uvicorn

    class Server(uvicorn.Server):
        async def serve(self, sockets: list[socket.socket] | None = None) -> None:
            watch = asyncio.ensure_future(_end_when_done(self, state))
            try:
                await super().serve(sockets)
            finally:
                watch.cancel()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit = state.draining
            state.draining = True

    return Server(config)


async def _end_when_done(server: Any, state: Any) -> None:
    """Ends a server whose engine is gone, or which is told to end and has nothing left to do or no time."""
    loop, end = asyncio.get_running_loop(), None
    while state.generator.alive:
        if state.draining:
            end = loop.time() + state.limits.drain_seconds if end is None else end
            if not state.open_requests or loop.time() >= end:
                break
        await asyncio.sleep(0.05)
    server.should_exit = True


def _protocol(seconds: float) -> type:
    """uvicorn's HTTP protocol, with a limit on the time until a connection's first request has its headers."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._impatience = self.loop.call_later(seconds, self._check_begun)

        def connection_lost(self, exc: Exception | None) -> None:
            self._impatience.cancel()
            super().connection_lost(exc)

        def _check_begun(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.abort()

    return Protocol


def _who(config: ServeConfig, key: str | None) -> str:
    reach = "this machine only" if config.host in LOOPBACK else f"whoever reaches {config.host}"
    return f"{reach}; {'a key is asked for' if key else 'no key'}"


def _log_to_stdout() -> None:
    """One JSON line for each request; no prompts and no texts."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("aya_jax.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _check_engine(generator: LocalGenerator) -> None:
    if not generator.alive:
        raise UserError("the engine has stopped; what was being made is lost")
