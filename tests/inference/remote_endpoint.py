"""A real HTTP endpoint on this machine that answers, or misbehaves, as a test tells it to."""

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Request
from aya_jax.inference.remote_config import RemoteModelConfig


@dataclass(frozen=True)
class Reply:
    """What is sent back.

    Attributes:
      cut: the connection is closed after so many bytes of the content.
      after: seconds before anything is sent.
      dribble: seconds between two bytes of the content.
    """

    content: bytes | dict[str, Any]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    after: float = 0.0
    dribble: float = 0.0


def chat(text: str | None, finish_reason: str | None = "stop", **fields: Any) -> dict[str, Any]:
    """A chat completion as OpenAI writes it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        **fields,
    }


def echo(body: dict[str, Any]) -> Reply:
    """Answers with the last message and the seed, so that every request has its own answer."""
    return Reply(chat(f"{body['messages'][-1]['content']}/{body['seed']}"))


def error(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI writes it."""
    content = {"error": {"message": message, "type": "x", "param": None, "code": None}}
    return Reply(content, status, {name.replace("_", "-"): value for name, value in headers.items()})


class RemoteEndpoint:
    """The server; `answer(body)` says what to reply, from many threads. A context that stops it.

    Attributes:
      bodies: what was asked, in order of arrival.
      headers: of each request.
      times: of each arrival, by the monotonic clock.
      most: the largest number of requests that were under way at once.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Reply] = echo):
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.most = self.under_way = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"endpoint": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def asked(self) -> list[str]:
        """The last message of every request."""
        return [body["messages"][-1]["content"] for body in self.bodies]

    def config(self, **fields: Any) -> RemoteModelConfig:
        """A configuration that calls this endpoint, with tiny pauses."""
        usual = {"model": "m", "backoff_min": 0.001, "backoff_max": 0.002, "timeout": 20.0}
        config = RemoteModelConfig(base_url=self.url, **(usual | fields))
        assert list(config.validate()) == []
        return config

    def begin(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        with self._lock:
            self.paths.append(path)
            self.headers.append(headers)
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.under_way += 1
            self.most = max(self.most, self.under_way)

    def end(self) -> None:
        with self._lock:
            self.under_way -= 1

    def __enter__(self) -> "RemoteEndpoint":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *args: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    endpoint: RemoteEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.endpoint.begin(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        try:
            reply = self.endpoint.answer(body)
            time.sleep(reply.after)
        finally:
            self.endpoint.end()
        content = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for byte in content if reply.dribble else b"":
            self.wfile.write(bytes([byte]))
            time.sleep(reply.dribble)
        self.wfile.write(b"" if reply.dribble else content[: reply.cut])
        if reply.cut is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Keeps the test's output clean."""


def question(text: str, **sampling: Any) -> Request:
    """A conversation of one turn; its id is its text."""
    return Request(id=text, prompt=(Message("user", text),), sampling=SamplingConfig(**sampling))


def questions(number: int) -> list[Request]:
    """q0, q1, ..."""
    return [question(f"q{index}") for index in range(number)]
