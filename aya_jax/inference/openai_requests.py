"""What clients of an OpenAI-compatible server send, read strictly: a field is honoured, or refused by name, or harmless.

Sources: the OpenAI API reference (chat completions, completions); vLLM's OpenAI-compatible server for `top_k`, `min_p`,
`repetition_penalty`, `stop_token_ids`, `ignore_eos` and `prompt_logprobs`, which OpenAI's has not.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aya_jax.data.chat import Message
from aya_jax.inference.config import MAX_TOP_LOG_PROBS, SamplingConfig

# Fields that change nothing of an answer, whatever they hold.
_HARMLESS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
)
# Fields that this server cannot honour → the values with which nothing is asked for.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "suffix": ("",),
}
_DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's, where a completion does not say
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class ApiError(Exception):
    """An answer that is an error, in OpenAI's form.

    Attributes:
      status: of HTTP.
      message: for the person who wrote the client.
      kind: OpenAI's "type".
      param: the field that is wrong.
      code: for programs.
      headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.headers = param, code, headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class StreamOptions(_Body):
    """`include_usage`: a last chunk with the token counts."""

    include_usage: bool = False
    include_obfuscation: bool = False  # of the sizes of chunks; never done


class _Generation(_Body):
    """What both endpoints have."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[int], Field(max_length=16)] | None = None
    ignore_eos: bool | None = False


class TextPart(_Body):
    """A part of a message; others (images, sound) are refused."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def message(self) -> Message:
        """As templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(_ROLES[self.role], text)


class ChatBody(_Generation):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOG_PROBS)] | None = None


class CompletionBody(_Generation):
    """Body of /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOG_PROBS)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOG_PROBS)] | None = None
    echo: bool | None = False
    best_of: Annotated[int, Field(ge=1)] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A body, understood.

    Attributes:
      chat: whether the answer is a chat completion.
      model: the name that the client gave.
      prompts: texts, token ids, or one conversation.
      sampling: its `max_tokens` is to be bounded by what each prompt leaves of the context.
      max_tokens: what was asked for; None: as many as there is room for.
      stream: whether the answer comes in pieces.
      include_usage: whether a stream ends with the token counts.
      echo: whether texts begin with their prompts.
      log_probs: of how many of the likeliest tokens at each place; None: not asked for.
    """

    chat: bool
    model: str
    prompts: tuple[str | tuple[int, ...] | tuple[Message, ...], ...]
    sampling: SamplingConfig
    max_tokens: int | None
    stream: bool
    include_usage: bool
    echo: bool = False
    log_probs: int | None = None


def read_chat(body: bytes) -> Asked:
    """A chat completion that is asked for.

    Raises:
      ApiError: names the field.
    """
    found = _validated(ChatBody, body)
    if found.top_logprobs is not None and not found.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if found.max_tokens == 0:
        raise ApiError(400, "max_tokens: at least 1", param="max_tokens")
    limits = [count for count in (found.max_completion_tokens, found.max_tokens) if count is not None]
    log_probs = (found.top_logprobs or 0) if found.logprobs else None
    return Asked(
        chat=True,
        prompts=(tuple(message.message() for message in found.messages),),
        max_tokens=limits[0] if limits else None,
        **_common(found, log_probs),
    )


def read_completion(body: bytes) -> Asked:
    """A completion that is asked for.

    Raises:
      ApiError: names the field.
    """
    found = _validated(CompletionBody, body)
    if found.best_of not in (None, found.n or 1):
        raise ApiError(
            400,
            f"best_of: {found.best_of} and n: {found.n or 1} differ, and the best of more is not sought here",
            param="best_of",
        )
    if found.max_tokens == 0 and not found.echo:
        raise ApiError(400, "max_tokens: 0 makes sense with echo: true only", param="max_tokens")
    if found.prompt_logprobs is not None and not found.echo:
        raise ApiError(400, "prompt_logprobs: ask for echo: true and logprobs instead", param="prompt_logprobs")
    log_probs = found.logprobs if found.logprobs is not None else found.prompt_logprobs
    asked = Asked(
        chat=False,
        prompts=_prompts(found.prompt),
        max_tokens=_DEFAULT_COMPLETION_TOKENS if found.max_tokens is None else found.max_tokens,
        echo=bool(found.echo),
        **_common(found, log_probs),
    )
    if asked.echo and log_probs is not None:
        return dataclasses.replace(asked, sampling=dataclasses.replace(asked.sampling, prompt_log_probs=True))
    return asked


def _validated(kind: type[_Generation], body: bytes) -> Any:
    """The body as the class, its own first mistake as an error."""
    try:
        given = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {str(error)[:200]}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the body is JSON, and not an object", code="invalid_json")
    for name, neutral in _NEUTRAL.items():
        value = given.pop(name, None)
        if value is not None and value not in neutral:
            raise ApiError(
                400, f"{name}: this server cannot do it; leave it out", param=name, code="unsupported_parameter"
            )
    for name in _HARMLESS:
        given.pop(name, None)
    if given.get("logprobs") is False and kind is CompletionBody:
        given["logprobs"] = None
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _mistake(error) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _mistake(error: ValidationError) -> ApiError:
    """The first mistake; among alternatives (a text or a list) the one that went furthest into the value."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    problem = max(problems, key=lambda each: (each["loc"][:1] == problems[0]["loc"][:1], len(each["loc"])))
    steps = [
        step for step in problem["loc"] if isinstance(step, int) or (step.isidentifier() and step not in ("str", "int"))
    ]
    param = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"{param}: no such field", param=param, code="unknown_parameter")
    if problem["type"] == "missing":
        return ApiError(400, f"{param}: is missing", param=param, code="missing_required_parameter")
    return ApiError(400, f"{param}: {problem['msg']}", param=param, code="invalid_value")


def _common(found: _Generation, log_probs: int | None) -> dict[str, Any]:
    if found.stream_options is not None and not found.stream:
        raise ApiError(400, "stream_options needs stream: true", param="stream_options")
    stop = [found.stop] if isinstance(found.stop, str) else found.stop or []
    if any(not text for text in stop) or len(stop) > 16:
        raise ApiError(400, "stop: at most 16 texts of at least one character", param="stop")
    given = {
        "temperature": found.temperature,
        "top_p": found.top_p,
        "top_k": None if found.top_k is None else max(found.top_k, 0),  # -1 is vLLM's word for all
        "min_p": found.min_p,
        "repetition_penalty": found.repetition_penalty,
        "n": found.n,
        "ignore_stop_tokens": found.ignore_eos,
    }
    sampling = SamplingConfig(
        stop=tuple(stop),
        stop_ids=tuple(found.stop_token_ids or ()),
        seed=secrets.randbits(63) if found.seed is None else found.seed % 2**63,
        log_probs=log_probs,
        **{name: value for name, value in given.items() if value is not None},
    )
    return {
        "model": found.model,
        "sampling": sampling,
        "stream": bool(found.stream),
        "include_usage": found.stream_options is not None and found.stream_options.include_usage,
        "log_probs": log_probs,
    }


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if not prompt:
        raise ApiError(400, "prompt: there is nothing in it", param="prompt")
    if isinstance(prompt[0], int):
        return (tuple(prompt),)
    return tuple(each if isinstance(each, str) else tuple(each) for each in prompt)
