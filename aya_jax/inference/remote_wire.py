"""Requests as an OpenAI-compatible endpoint reads them, and its answers, read strictly.

Sources: the OpenAI API reference (chat completions, completions), and vLLM's OpenAI-compatible server for the fields of
dialect "vllm".
"""

from __future__ import annotations

import json
from typing import Any

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Completion, Prompt, Request, Response, Token
from aya_jax.inference.remote_config import RemoteModelConfig

CLIP = 300
_MOST = 1e300  # JSON has integers that no float holds, and 1e999 reads as infinity


class BadAnswer(Exception):
    """An answer that gives no text. `again`: asking again may help, for it is not the model that answered so."""

    def __init__(self, message: str, again: bool = False):
        super().__init__(message)
        self.again = again


# Requests ------------------------------------------------------------------------------------------------------------


def body_of(request: Request, config: RemoteModelConfig) -> dict[str, Any]:
    """What is posted for a request.

    Temperature, top_p and seed are always sent, and in the vllm dialect all the others too: an endpoint's own defaults
    (vLLM takes them from the model's generation_config.json) would otherwise change what was asked for.

    Raises:
      UserError: the endpoint cannot express a field; names the request and the field.
    """
    sampling = request.sampling
    body = {
        "model": config.model,
        **_prompt(request, config),
        config.max_tokens_field: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if sampling.n != 1:
        body["n"] = sampling.n
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.log_probs is not None:
        chat = {"logprobs": True, "top_logprobs": sampling.log_probs}
        body |= chat if config.endpoint == "chat" else {"logprobs": sampling.log_probs}
    extension = _extension(request, config)
    return {name: value for name, value in (body | extension | config.extra_body).items() if value is not None}


def _prompt(request: Request, config: RemoteModelConfig) -> dict[str, Any]:
    prompt, chat = request.prompt, config.endpoint == "chat"
    if not prompt:
        raise refusal(request, "prompt", "there is nothing in it")
    if is_conversation(prompt):
        if not chat:
            raise refusal(request, "prompt", "a conversation needs RemoteModelConfig.endpoint = 'chat'")
        return {"messages": [{"role": message.role, "content": message.content} for message in prompt]}
    if chat:
        kind = "a text to go on with" if isinstance(prompt, str) else "token ids"
        raise refusal(
            request, "prompt", f"{kind} cannot be sent to a chat endpoint; give messages, or set "
            "RemoteModelConfig.endpoint = 'completions'"
        )  # fmt: skip
    return {"prompt": prompt if isinstance(prompt, str) else list(prompt)}


def is_conversation(prompt: Prompt) -> bool:
    """Whether a prompt is messages, and not a text or token ids."""
    return not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Message)


def _extension(request: Request, config: RemoteModelConfig) -> dict[str, Any]:
    """The fields that vLLM has beyond OpenAI's; refused in the openai dialect where they are asked for."""
    sampling, default = request.sampling, SamplingConfig()
    if config.dialect == "openai":
        names = ("top_k", "min_p", "repetition_penalty", "stop_ids", "ignore_stop_tokens", "prompt_log_probs")
        for name in names:
            if getattr(sampling, name) != getattr(default, name):
                raise refusal(
                    request, f"sampling.{name}", "OpenAI's API has no such field; set RemoteModelConfig.dialect = "
                    "'vllm' if the endpoint is vLLM or `aya serve`"
                )  # fmt: skip
        return {}
    extension: dict[str, Any] = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
    }
    if sampling.stop_ids:
        extension["stop_token_ids"] = list(sampling.stop_ids)
    if sampling.ignore_stop_tokens:
        extension["ignore_eos"] = True
    if sampling.prompt_log_probs:
        extension["prompt_logprobs"] = sampling.log_probs or 0
    return extension


def refusal(request: Request, field: str, reason: str) -> UserError:
    """The error for a request that the endpoint cannot serve."""
    return UserError(f"request {request.id!r}: {field}: {reason}")


# Answers -------------------------------------------------------------------------------------------------------------


def decode(content: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object of an answer with status 200.

    Raises:
      BadAnswer: it is something else: a page, a part of an object, an error.
    """
    try:
        answer = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        start = clip(content.decode("utf-8", errors="replace"))
        if "html" in content_type or start.lower().startswith(("<!doctype", "<html")):
            message = f"a web page and not JSON (is base_url right, or a proxy in the way?): {start}"
            raise BadAnswer(message, again=True) from None
        raise BadAnswer(f"JSON that is cut off or damaged, {len(content)} bytes: {start}", again=True) from None
    if not isinstance(answer, dict):
        raise BadAnswer(f"no JSON object: {clip(repr(answer))}", again=True)
    if answer.get("error"):
        code = answer["error"].get("code") if isinstance(answer["error"], dict) else None
        passing = isinstance(code, int) and (code in (408, 409, 425, 429) or code >= 500)
        raise BadAnswer(f"status 200 and an error: {error_message(answer)}", again=passing)
    return answer


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def error_message(answer: Any) -> str:
    """What an error object says, clipped: {"error": {"message"}}, {"error": "..."}, {"message"} or {"detail"}."""
    found = answer
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return clip(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))


def clip(text: str) -> str:
    """At most `CLIP` characters on one line."""
    text = " ".join(text[: 4 * CLIP].split())
    return text if len(text) <= CLIP else text[:CLIP] + "..."


def response_of(request: Request, answer: dict[str, Any], config: RemoteModelConfig) -> Response:
    """The response that an answer holds.

    Raises:
      BadAnswer: something that was asked for is not there, or no text came.
    """
    sampling = request.sampling
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices) or not choices:
        raise BadAnswer(f"no choices in it: {clip(json.dumps(answer, ensure_ascii=False))}", again=True)
    if len(choices) != sampling.n:
        raise BadAnswer(f"{len(choices)} choices, and n = {sampling.n} were asked for")
    choices = sorted(choices, key=lambda choice: _typed(choice.get("index", 0), int, "choices[].index"))
    return Response(
        id=request.id,
        completions=tuple(_completion(choice, sampling, config) for choice in choices),
        prompt_tokens=usage_of(answer)[0],
        prompt=_prompt_tokens(answer, choices[0], sampling) if sampling.prompt_log_probs else (),
    )


def usage_of(answer: dict[str, Any]) -> tuple[int, int]:
    """How many tokens the prompt and the output were.

    Raises:
      BadAnswer: it does not say.
    """
    usage = _typed(answer.get("usage"), dict, "usage")
    prompt = _typed(usage.get("prompt_tokens"), int, "usage.prompt_tokens")
    return prompt, _typed(usage.get("completion_tokens", 0), int, "usage.completion_tokens")


def _completion(choice: dict[str, Any], sampling: SamplingConfig, config: RemoteModelConfig) -> Completion:
    chat, reason = config.endpoint == "chat", choice.get("finish_reason")
    message = _typed(choice.get("message"), dict, "choices[].message") if chat else choice
    text = message.get("content" if chat else "text")
    if reason == "content_filter":
        raise BadAnswer("finish_reason 'content_filter': the provider withheld the text")
    if message.get("refusal"):
        raise BadAnswer(f"a refusal: {clip(str(message['refusal']))}")
    if reason not in ("stop", "length"):
        raise BadAnswer(f"finish_reason {reason!r}, and neither 'stop' nor 'length'")
    if text is None:
        advice = "; reasoning took all of max_tokens: raise it" if reason == "length" else ""
        raise BadAnswer(f"no text (null), finish_reason {reason!r}{advice}")
    return Completion(
        text=_typed(text, str, "the text"),
        tokens=() if sampling.log_probs is None else _tokens(choice, sampling.log_probs, chat),
        finish_reason=reason,
    )


def _tokens(choice: dict[str, Any], top: int, chat: bool) -> tuple[Token, ...]:
    if choice.get("logprobs") is None:
        raise BadAnswer("no log-probabilities, which were asked for: the endpoint or the model may have none")
    log_probs = _typed(choice["logprobs"], dict, "choices[].logprobs")
    if chat:
        places = _typed(log_probs.get("content"), list, "choices[].logprobs.content")
        return tuple(_chat_token(_typed(place, dict, "choices[].logprobs.content[]"), top) for place in places)
    texts = _typed(log_probs.get("tokens"), list, "choices[].logprobs.tokens")
    values = _typed(log_probs.get("token_logprobs"), list, "choices[].logprobs.token_logprobs")
    tops = log_probs.get("top_logprobs") or [{}] * len(texts)
    if not len(texts) == len(values) == len(_typed(tops, list, "choices[].logprobs.top_logprobs")):
        raise BadAnswer("lists of unequal length in choices[].logprobs")
    return tuple(
        Token(
            id=None,
            text=_typed(text, str, "choices[].logprobs.tokens[]"),
            log_prob=_number(value, "choices[].logprobs.token_logprobs[]"),
            top=_top(list(_typed(others or {}, dict, "choices[].logprobs.top_logprobs[]").items()), top),
        )
        for text, value, others in zip(texts, values, tops, strict=True)
    )


def _chat_token(place: dict[str, Any], top: int) -> Token:
    others = _typed(place.get("top_logprobs") or [], list, "choices[].logprobs.content[].top_logprobs")
    return Token(
        id=None,
        text=_typed(place.get("token"), str, "choices[].logprobs.content[].token"),
        log_prob=_number(place.get("logprob"), "choices[].logprobs.content[].logprob"),
        top=_top([(_typed(o, dict, "top_logprobs[]").get("token"), o.get("logprob")) for o in others], top),
    )


def _top(others: list[tuple[Any, Any]], most: int) -> tuple[tuple[None, str, float], ...]:
    """The likeliest first; vLLM appends the chosen token where it is not among them, so there may be one too many."""
    checked = [(None, _typed(text, str, "a token"), _number(value, "a log-probability")) for text, value in others]
    return tuple(sorted(checked, key=lambda other: -other[2])[:most])


def _prompt_tokens(answer: dict[str, Any], choice: dict[str, Any], sampling: SamplingConfig) -> tuple[Token, ...]:
    """vLLM's prompt_logprobs: for each token {id: {logprob, rank, decoded_token}}, the prompt's own first; null at first."""
    places = answer.get("prompt_logprobs") or choice.get("prompt_logprobs")
    return tuple(
        _prompt_token(place, sampling.log_probs or 0) for place in _typed(places, list, "prompt_logprobs")
    )  # fmt: skip


def _prompt_token(place: Any, top: int) -> Token:
    if place is None:
        return Token(id=None, text="")
    found = []
    for name, entry in _typed(place, dict, "prompt_logprobs[]").items():
        entry = _typed(entry, dict, "prompt_logprobs[][]")
        if not name.isdecimal():
            raise BadAnswer(f"{clip(name)!r} where prompt_logprobs has a token id")
        found.append((int(name), entry.get("decoded_token") or "", _number(entry.get("logprob"), "a log-probability")))
    if not found:
        raise BadAnswer("nothing for a token in prompt_logprobs")
    return Token(
        id=found[0][0], text=found[0][1], log_prob=found[0][2], top=tuple(sorted(found, key=lambda t: -t[2])[:top])
    )


def _typed(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadAnswer(f"no {kind.__name__} where {name} should be: {clip(repr(value))}")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
        raise BadAnswer(f"no number where {name} should be: {clip(repr(value))}")
    return float(value)
