"""Why a call gave no answer, whether to call again, and what a person can do about it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.inference.remote_pace import wait_asked_for
from aya_jax.inference.remote_wire import clip, error_message

_PASSING = (408, 409, 425, 429)
_REQUEST_IDS = ("x-request-id", "request-id", "x-debug-trace-id")


class CallFailed(Exception):
    """A call that gave no answer.

    Attributes:
      again: it may succeed when it is made again.
      everyone: it is not this request's fault: every other would fail too.
      wait: seconds that the endpoint asks to wait for; None: it does not say.
    """

    def __init__(self, message: str, *, again: bool = False, everyone: bool = False, wait: float | None = None):
        super().__init__(message)
        self.again, self.everyone, self.wait = again, everyone, wait


def status_failure(
    config: RemoteModelConfig, status: int, headers: Mapping[str, str], content: bytes, now: float, answered: bool
) -> CallFailed:
    """What an answer with another status than 200 means.

    408, 409, 425, 429 and 5xx are passing, but for a quota that is used up. 401, 402, 404, 405 and redirections concern
    every request; so does 403 as long as nothing was answered with the same key (afterwards it is taken for a prompt that
    a provider's moderation refuses). All others are about the request.

    Args:
      headers: case-insensitive.
      now: seconds since the epoch.
      answered: whether the endpoint has given an answer before.
    """
    text = content.decode("utf-8", errors="replace")
    said, code = clip(text) or "(nothing)", None
    with contextlib.suppress(ValueError, RecursionError):
        parsed = json.loads(text)
        said, code = error_message(parsed), _code(parsed)
    name = next((f" (its request {clip(headers[name])})" for name in _REQUEST_IDS if name in headers), "")
    message = f"{config.url} answered {status}{name}: {said}{_advice(config, status, headers)}"
    if code == "insufficient_quota":
        return CallFailed(message, everyone=True)
    if is_passing(status):
        return CallFailed(message, again=True, everyone=status == 429, wait=wait_asked_for(headers, now))
    everyone = status < 400 or status in (401, 402, 404, 405) or (status == 403 and not answered)
    return CallFailed(message, everyone=everyone)


def is_passing(status: int) -> bool:
    """Whether a call that was answered so may succeed when it is made again."""
    return status in _PASSING or status >= 500


def _code(answer: object) -> object:
    error = answer.get("error") if isinstance(answer, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def _advice(config: RemoteModelConfig, status: int, headers: Mapping[str, str]) -> str:
    if status in (401, 403):
        held = config.api_key_file and f"the key in {config.api_key_file} is not accepted: put a valid one there"
        return f"; {held or 'set RemoteModelConfig.api_key_file to a file that holds a key'}"
    if status in (404, 405):
        return f"; check RemoteModelConfig.base_url, .endpoint = {config.endpoint!r} and .model = {config.model!r}"
    if status < 400:
        return f"; set RemoteModelConfig.base_url to where it sends: {clip(headers.get('location', 'it does not say'))}"
    return ""
