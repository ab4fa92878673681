"""What `aya serve` serves, to whom, and how much of it at a time. Imports neither JAX nor FastAPI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from aya_jax.config.errors import UserError
from aya_jax.config.registry import Problem, configurable
from aya_jax.inference.config import LocalModelConfig

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@configurable
@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What one client, and all of them together, can take of a server.

    Attributes:
      body_bytes: the longest request body.
      body_seconds: how long a client may take to send one, its headers included.
      write_seconds: how long a client may leave an answer unread; then it is cut off and its samples are cancelled.
      request_seconds: how long a request may take in all.
      drain_seconds: how long requests may go on after SIGTERM.
      connections: open ones; further ones get 503.
      max_tokens: the most that a request can ask for, and what it gets where it asks for nothing; None: what the model's
        longest sequence leaves.
      samples: of one request: prompts times `n`.
      waiting: samples that may wait for a slot of the engine; further requests get 429.
    """

    body_bytes: int = 2**20
    body_seconds: float = 20.0
    write_seconds: float = 30.0
    request_seconds: float = 600.0
    drain_seconds: float = 30.0
    connections: int = 512
    max_tokens: int | None = None
    samples: int = 64
    waiting: int = 128

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for every limit that would let nothing through."""
        for name in ("body_bytes", "body_seconds", "write_seconds", "request_seconds", "connections", "samples"):
            if getattr(self, name) <= 0:
                yield Problem(name, "a positive number")
        for name in ("drain_seconds", "waiting"):
            if getattr(self, name) < 0:
                yield Problem(name, "0 or more")
        if self.max_tokens is not None and self.max_tokens < 1:
            yield Problem("max_tokens", "at least 1, or None for what the context leaves")


@configurable
@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Root of `aya serve`: a model on this machine behind an OpenAI-compatible HTTP interface.

    Attributes:
      model: which, and how it is run.
      host: the address to listen on; by default this machine alone can reach it.
      port: 0 takes a free one, which is printed.
      name: what clients call the model; None: its directory's name.
      api_key_file: a file with the key, on one line, that clients must send ("Authorization: Bearer KEY"); None asks for none.
        Bind API_KEY_FILE.
      limits: what clients can take.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("host", "port", "api_key_file")

    model: LocalModelConfig
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    api_key_file: str | None = None
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def validate(self) -> Iterator[Problem]:
        """Yields a port that does not exist, and an open door."""
        if not 0 <= self.port < 2**16:
            yield Problem("port", "0 (any free one) to 65535")
        if self.host not in LOOPBACK and self.api_key_file is None:
            yield Problem(
                "host",
                "127.0.0.1, or a key: whoever reaches this address could use the model; add --gin.API_KEY_FILE=FILE",
            )

    def api_key(self) -> str | None:
        """The key.

        Raises:
          UserError: the file cannot be read or holds no key.
        """
        if self.api_key_file is None:
            return None
        try:
            key = Path(self.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.api_key_file}: the key cannot be read: {error}") from error
        if not key or len(key.split()) != 1 or not key.isascii():
            raise UserError(f"{self.api_key_file}: expected a key, one ASCII word on one line")
        return key
