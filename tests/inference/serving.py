"""A server on a free port of this machine, around an engine with a small random model and a chat tokenizer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai

from aya_jax.inference import serve
from aya_jax.inference.config import EngineConfig, LocalModelConfig
from aya_jax.inference.local import LocalGenerator, open_generator
from aya_jax.inference.serve_config import LimitsConfig, ServeConfig

SLOTS = 4


@contextlib.contextmanager
def engine(folder: Any, **options: Any) -> Iterator[LocalGenerator]:
    """A generator over the model in a folder."""
    config = EngineConfig(**{"slots": SLOTS, "prefill_chunk": 32} | options)
    with open_generator(LocalModelConfig(model_dir=str(folder), engine=config), print) as generator:
        yield generator


@dataclasses.dataclass(frozen=True)
class Running:
    """A server that runs, and ways to it."""

    port: int
    state: Any
    key: str | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: str | None = None) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key or self.key or "none", max_retries=0, timeout=60)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(f"{self.url}/{path}", content=content, timeout=60, **options)

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics").text

    def wait_until_idle(self, seconds: float = 20) -> None:
        """Returns when no sample is being made; fails where that does not come."""
        end = time.monotonic() + seconds
        while self.state.samples or self.state.open_requests or _busy(self.state.generator):
            assert time.monotonic() < end, (self.state.samples, self.state.open_requests, self.state.generator.stats())
            time.sleep(0.02)

    def send_raw(self, content: bytes) -> socket.socket:
        """A connection on which something has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(content)
        return connection


def raw_request(body: Any, path: str = "/v1/completions", length: int | None = None) -> bytes:
    """A request's bytes; `length`: what its head claims of the body."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length or len(content)}\r\n\r\n"
    return head.encode() + content


@contextlib.contextmanager
def served(generator: Any, key: str | None = None, **limits: Any) -> Iterator[Running]:
    """Serves a generator in a thread."""
    from aya_jax.inference.server import make_app

    config = ServeConfig(
        model=LocalModelConfig(model_dir="unused"), port=0, name="tiny", limits=LimitsConfig(drain_seconds=5, **limits)
    )
    app = make_app(generator, config, key)
    with serve.listen(config) as listener:
        thread = threading.Thread(target=serve.serve, args=(app, listener, config.limits))
        thread.start()
        try:
            yield Running(listener.getsockname()[1], app.state.server, key)
        finally:
            app.state.server.draining = True
            thread.join(timeout=20)
            assert not thread.is_alive()


def _busy(generator: Any) -> bool:
    stats = generator.stats()
    return bool(stats.running or stats.waiting)
