"""What calls to an endpoint are made with: HTTP clients, and the key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.inference.remote_config import RemoteModelConfig

_CONNECT_SECONDS = 30.0


def make_clients(config: RemoteModelConfig, key: str | None) -> asyncio.LifoQueue[Any]:
    """A client for each call that may be under way; a call takes the one that was used last, and gives it back.

    One client for all would look through all its connections at the begin and end of each call: 7 ms for 64.
    """
    httpx = import_httpx()
    context = httpx.create_ssl_context()
    timeout = httpx.Timeout(None, connect=min(config.timeout, _CONNECT_SECONDS))
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "aya_jax"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    clients: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
    for _ in range(config.concurrency):
        clients.put_nowait(httpx.AsyncClient(headers=headers, timeout=timeout, verify=context))
    return clients


def read_key(file: str | None, owner: str = "RemoteModelConfig") -> str | None:
    """The key in a file, or None for no file; `owner` is the configuration class that names it.

    Raises:
      UserError: it cannot be read, or holds no key.
    """
    if file is None:
        return None
    try:
        key = Path(file).expanduser().read_text(encoding="ascii").strip()
    except OSError as error:
        raise UserError(f"{owner}.api_key_file = {file!r}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable() or " " in key:
        raise UserError(f"{owner}.api_key_file = {file!r}: write the key, and nothing else, on one line of it")
    return key


def import_httpx() -> Any:
    """The module, imported when the first remote model is opened.

    Raises:
      UserError: it is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise UserError("a remote model needs httpx: pip install 'aya_jax[remote]'") from error
    return httpx
