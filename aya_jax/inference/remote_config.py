"""A model behind an OpenAI-compatible endpoint, and how it may be called. Imports neither JAX nor httpx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from aya_jax.config.registry import Problem, configurable

Endpoint = Literal["chat", "completions"]
Dialect = Literal["openai", "vllm"]

PATHS: dict[Endpoint, str] = {"chat": "chat/completions", "completions": "completions"}

_OURS = (
    "model",
    "messages",
    "prompt",
    "n",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "logprobs",
    "top_logprobs",
)
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop", "stop_token_ids")
_SAMPLING += ("ignore_eos", "prompt_logprobs")


@configurable
@dataclass(frozen=True, kw_only=True)
class RemoteModelConfig:
    """A model behind an OpenAI-compatible endpoint: ours (`aya serve`), vLLM, Cohere, OpenAI.

    The key is read from a file when calls are made, so that neither it nor a digest of it is in config.gin, config.json,
    a fingerprint, or the cache. For the same reason `base_url` holds no user, password or query.

    Attributes:
      base_url: up to and with /v1: "http://127.0.0.1:8000/v1".
      model: its name at the endpoint.
      endpoint: "chat" answers conversations; "completions" goes on from a text or from token ids.
      dialect: "openai": the fields of OpenAI's API alone; "vllm": also top_k, min_p, repetition_penalty, stop_token_ids,
        ignore_eos and prompt_logprobs, as vLLM and `aya serve` understand them. What a dialect cannot say is refused.
      api_key_file: a file with the key on one line; None sends no key.
      max_tokens_field: how the endpoint calls the most new tokens; OpenAI's reasoning models: "max_completion_tokens".
      extra_body: fields for this provider, sent with every request; a sampling field bound to None is not sent, for a
        model that refuses it ({"seed": None}).
      concurrency: calls that are under way at the same time.
      requests_per_minute: calls that are begun in any 60 seconds, retries included, evenly spaced; None: no limit.
      tokens_per_minute: prompt tokens and max_tokens of those calls (a prompt counts as a quarter of its characters);
        in any 60 seconds at most one call's more than this. None: no limit.
      timeout: seconds for one call from connecting to the last byte.
      retries: how often a call that failed for a passing reason is made again.
      backoff_min: seconds; the first pause is a random part of this, and it doubles each time.
      backoff_max: seconds; a pause is at most this, unless the endpoint asks for a longer one.
      longest_wait: seconds; an endpoint that asks for a longer pause ends the run instead (a daily quota, say).
      max_failures: how many requests of a call of `generate` may fail before it ends in an error; those up to there are
        answered by a `FailedResponse`. 0: the first one ends it.
      cache_dir: where answers are kept; a request whose answer is there makes no call. None keeps none.
      input_price: price of a million prompt tokens, for estimates and `max_cost`; in any currency.
      output_price: price of a million new tokens.
      max_cost: no call is begun once the answers of this process have cost so much; needs both prices.
    """

    base_url: str
    model: str
    endpoint: Endpoint = "chat"
    dialect: Dialect = "openai"
    api_key_file: str | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_body: dict[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 600.0
    retries: int = 6
    backoff_min: float = 1.0
    backoff_max: float = 60.0
    longest_wait: float = 600.0
    max_failures: int = 0
    cache_dir: str | None = None
    input_price: float | None = None
    output_price: float | None = None
    max_cost: float | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for what is no address, a secret in it, and every number out of range."""
        if problem := address_problem(self.base_url):
            yield Problem("base_url", problem)
        if not self.model:
            yield Problem("model", "the model's name at the endpoint (GET /v1/models lists them)")
        yield from self._body_problems()
        yield from self._number_problems()
        if (self.input_price is None) != (self.output_price is None):
            yield Problem("output_price", "both prices, or none")
        if self.max_cost is not None and self.input_price is None:
            yield Problem("max_cost", "None, or input_price and output_price with it")

    def _body_problems(self) -> Iterator[Problem]:
        for name, value in self.extra_body.items():
            if name in _OURS:
                yield Problem("extra_body", f"no {name!r} in it: that follows from the request and the other fields")
            if name in _SAMPLING and value is not None:
                yield Problem("extra_body", f"no {name!r} in it but None (not sent): set it in SamplingConfig")
        try:
            json.dumps(self.extra_body, allow_nan=False)
        except (TypeError, ValueError):
            yield Problem("extra_body", "what JSON can hold")

    def _number_problems(self) -> Iterator[Problem]:
        if self.concurrency < 1:
            yield Problem("concurrency", "at least 1")
        for name in ("retries", "max_failures"):
            if getattr(self, name) < 0:
                yield Problem(name, "0 or more")
        for name in ("requests_per_minute", "tokens_per_minute", "max_cost"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                yield Problem(name, "a positive number, or None")
        for name in ("input_price", "output_price"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < float("inf"):
                yield Problem(name, "0 or more, or None")
        for name in ("timeout", "backoff_min"):
            if not 0 < getattr(self, name) < float("inf"):
                yield Problem(name, "a positive number of seconds")
        if not self.backoff_min <= self.backoff_max < float("inf"):
            yield Problem("backoff_max", f"at least backoff_min = {self.backoff_min} seconds")
        if not 0 <= self.longest_wait < float("inf"):
            yield Problem("longest_wait", "0 seconds or more")

    @property
    def url(self) -> str:
        """What is posted to."""
        return f"{self.base_url.rstrip('/')}/{PATHS[self.endpoint]}"

    def cost(self, prompt_tokens: int, new_tokens: int) -> float | None:
        """What so many tokens cost; None without prices."""
        if self.input_price is None or self.output_price is None:
            return None
        return (prompt_tokens * self.input_price + new_tokens * self.output_price) / 1e6


def address_problem(base_url: str) -> str | None:
    """What is wrong with an endpoint's address."""
    try:
        parts = urlsplit(base_url)
        parts.port  # noqa: B018 (raises for a port that is none)
    except ValueError:
        return "an address such as 'http://127.0.0.1:8000/v1'"
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in base_url):
        return "an address such as 'http://127.0.0.1:8000/v1'"
    if parts.username is not None or parts.password is not None:
        return "no user or password in it, which config.gin would show: put the key into a file, api_key_file"
    if parts.query or parts.fragment:
        return "nothing from ? or # on"
    if parts.path.rstrip("/").endswith(("/completions", "/chat")):
        return "only the part before /chat/completions or /completions; endpoint says which"
    return None
