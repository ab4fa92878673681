"""Rewards that can be computed: for `RewardFunctionConfig.function`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.data.tasks import LANGUAGES


def language_and_length(
    messages: Sequence[Message],
    answer: str,
    fields: Mapping[str, Any],
    *,
    least: int = 20,
    most: int = 200,
    language_field: str = "lang",
) -> float:
    """How much of an answer is in the row's language, times how well its length is within bounds; 0 to 1.

    Args:
      messages: not used.
      answer: what is judged.
      fields: of the prompt's row, with its language.
      least: characters below which the reward falls, to 0 at none.
      most: characters above which it falls, to 0 at twice as many.
      language_field: which field says the language.
    """
    del messages
    size = len(answer.strip())
    fit = size / least if size < least else max(0.0, 2 - size / most) if size > most else 1.0
    return language_share(answer, fields[language_field]) * fit


def language_share(text: str, language: str) -> float:
    """The share of a text's characters that stand in lines of a language, as py3langid tells it among the project's 23.

    Raises:
      UserError: py3langid is not installed, or does not know the language.
    """
    if language not in LANGUAGES:
        raise UserError(f"language {language!r}: known are {', '.join(LANGUAGES)}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    total = sum(map(len, lines))
    return sum(len(line) for line in lines if _identifier().classify(line)[0] == language) / total if total else 0.0


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UserError("the language of answers needs py3langid: pip install 'aya_jax[synthesis]'") from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier
