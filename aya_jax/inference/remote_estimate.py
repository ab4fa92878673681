"""What a batch of requests to an endpoint comes to, before any of them is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aya_jax.inference.protocol import Prompt, Request
from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.inference.remote_pace import MINUTE

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The most that a batch comes to, if none of its answers is in the cache and no call is repeated.

    Attributes:
      requests: how many.
      prompt_tokens: of all prompts.
      counted: by a tokenizer; else a token is taken for 4 characters, which is right for English and too few for many
        other languages.
      new_tokens: the most that may be generated: max_tokens of every sample.
      seconds: at the rate limits; None without one.
      cost: at the prices, every sample as long as it may be; None without prices.
    """

    requests: int
    prompt_tokens: int
    counted: bool
    new_tokens: int
    seconds: float | None
    cost: float | None

    def __str__(self) -> str:
        how = "" if self.counted else f" (characters / {CHARACTERS_PER_TOKEN})"
        text = f"{self.requests:,} requests, {self.prompt_tokens:,} prompt tokens{how}, at most {self.new_tokens:,} new"
        if self.seconds is not None:
            text += f"; at the rate limits at least {self.seconds:,.0f} s"
        if self.cost is not None:
            text += f"; costs at most {self.cost:,.{2 if self.cost >= 1 else 4}f}"
        return text


def estimate(
    requests: Iterable[Request], config: RemoteModelConfig, count: Callable[[Prompt], int] | None = None
) -> Estimate:
    """Reads all requests, keeping none, and adds up.

    Args:
      count: the tokens of a prompt, by the model's tokenizer; without it, characters are counted.
    """
    number = prompt_tokens = new_tokens = 0
    for request in requests:
        number += 1
        prompt_tokens += count(request.prompt) if count else rough_tokens(request.prompt)
        new_tokens += request.sampling.n * request.sampling.max_tokens
    limits = [
        MINUTE * amount / limit
        for amount, limit in (
            (number, config.requests_per_minute),
            (prompt_tokens + new_tokens, config.tokens_per_minute),
        )
        if limit
    ]
    return Estimate(
        requests=number,
        prompt_tokens=prompt_tokens,
        counted=count is not None,
        new_tokens=new_tokens,
        seconds=max(limits, default=None),
        cost=config.cost(prompt_tokens, new_tokens),
    )


def rough_tokens(prompt: Prompt) -> int:
    """Tokens of a prompt without a tokenizer: exact for token ids, else a quarter of the characters, rounded up."""
    if isinstance(prompt, str):
        return -(-len(prompt) // CHARACTERS_PER_TOKEN)
    return sum(1 if isinstance(part, int) else rough_tokens(part.content) for part in prompt)
