"""A reward model behind an HTTP endpoint, as vLLM serves them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aya_jax.config import UserError
from aya_jax.inference.remote_client import import_httpx, read_key
from aya_jax.inference.remote_failure import CallFailed, is_passing
from aya_jax.inference.remote_pace import backoff, wait_asked_for
from aya_jax.synthesis.config import RewardEndpointConfig
from aya_jax.synthesis.scorers import Answer

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class EndpointScorer:
    """Asks for each answer's reward, several at a time; what fails in passing is asked again after a growing pause."""

    def __init__(self, config: RewardEndpointConfig, *, sleep: Callable[[float], None] = time.sleep):
        """Reads the key; calls nothing yet.

        Raises:
          UserError: httpx is not installed, or the key cannot be read.
        """
        self._config, self._sleep = config, sleep
        self._httpx, key = import_httpx(), read_key(config.api_key_file, "RewardEndpointConfig")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = self._httpx.Client(headers=headers, timeout=config.timeout)
        self._url = f"{config.base_url.rstrip('/')}/{config.endpoint}"

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """As `Scorer.score`; an empty answer, and one that the endpoint finds too long (413), has no reward.

        Raises:
          UserError: the endpoint cannot be reached, refuses, or answers with something that holds no reward.
        """
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            return list(pool.map(self._score, answers))

    def _score(self, answer: Answer) -> float:
        if not answer.text.strip():
            return math.nan
        said = [{"role": m.role, "content": m.content} for m in answer.messages]
        body = {
            "model": self._config.model,
            "messages": [*said, {"role": "assistant", "content": answer.text}],
            "add_generation_prompt": False,
        }
        for attempt in range(self._config.retries + 1):
            try:
                return self._ask(body)
            except CallFailed as error:
                failure = error
            if attempt < self._config.retries:
                pause = backoff(attempt, _FIRST_PAUSE, _LONGEST_PAUSE, random.random())
                self._sleep(max(pause, failure.wait or 0.0))
        raise UserError(f"{self._url}: {failure}; asked {self._config.retries + 1} times")

    def _ask(self, body: Mapping[str, Any]) -> float:
        """The reward.

        Raises:
          CallFailed: there is none yet.
          UserError: asking again is of no use.
        """
        try:
            response = self._client.post(self._url, json=body)
        except self._httpx.HTTPError as error:
            raise CallFailed(f"{type(error).__name__}: {error}", again=True) from error
        if response.status_code == 413:
            return math.nan
        if is_passing(response.status_code):
            message = f"answered {response.status_code}: {response.text[:200]}"
            raise CallFailed(message, again=True, wait=wait_asked_for(response.headers, time.time()))
        if response.status_code != 200:
            raise UserError(f"{self._url} answered {response.status_code}: {response.text[:300]}")
        try:
            return _reward(response.json())
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{self._url}: no reward in {response.text[:200]!r}; RewardEndpointConfig.endpoint = 'pooling' or 'classify', "
                f"and a model with one label ({error})"
            ) from error


def _reward(answer: Mapping[str, Any]) -> float:
    """vLLM's /classify gives `probs` of the one label (its value, with softmax off), /pooling `data` of all tokens or one."""
    (found,) = answer["data"]
    value = found["probs"] if "probs" in found else found["data"]
    if "probs" in found and len(value) != 1:
        raise ValueError(f"{len(value)} labels")
    while isinstance(value, list):
        value = value[-1]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
