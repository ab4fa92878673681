"""What a task's name says: its language, what the task is in other languages, and which of its questions those share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from aya_jax.evaluation.languages import NAMES, THREE_LETTERS

# fmt: off
# Benchmarks whose languages have the same questions in the same order, or name them.
PARALLEL = (
    "afrimgsm", "afrimmlu", "belebele", "flores", "global_mmlu", "lambada_openai_mt", "m_mmlu", "mgsm", "mmmlu", "ntrex",
    "sib200", "xcopa", "xnli", "xquad", "xstorycloze",
)
# fmt: on
_BY_NAME = {name.lower(): code for code, name in NAMES.items()}
_ITEM_FIELDS = ("sample_id", "index_id", "idx", "id")
_SCRIPT = re.compile(
    r"Arab|Cyrl|Deva|Grek|Hans|Hant|Hang|Hebr|Jpan|Latn|Beng|Thai|Taml|Telu|Ethi|Sinh|Mymr|Geor|Armn|Mlym"
)


class Described(NamedTuple):
    """A task.

    Attributes:
      family: its name without the language.
      language: ISO 639-1 code; "en" where the name says nothing.
    """

    family: str
    language: str


def describe(task: str, dataset_name: str | None = None) -> Described:
    """The family and language of a task.

    The language is the last part of the name, between underscores, that is one; a part that could be an English word besides
    ("no", "is") is one only where the dataset's configuration says so too. English beside another language, as in
    translation, is part of the family.

    Args:
      task: the task's name.
      dataset_name: of its dataset's configuration.
    """
    parts = task.split("_")
    configured = _language((dataset_name or "").split(".")[-1].split("_")[0])
    found = [(place, code) for place, part in enumerate(parts) if place and (code := _language(part))]
    if configured and any(code == configured for _, code in found):
        found = [(place, code) for place, code in found if code == configured]
    foreign = [(place, code) for place, code in found if code != "en"] or found
    if not foreign:
        return Described(task, configured or "en")
    place, code = foreign[-1]
    after = place + 1
    if after < len(parts) and _SCRIPT.fullmatch(parts[after]):
        after += 1
    rest = parts[:place] + (["x"] if len(found) > len(foreign) else []) + parts[after:]
    return Described("_".join(rest), code)


def item_name(family: str, task: str, number: int, doc: Mapping[str, Any]) -> str:
    """The name of a question: the same in all languages of a benchmark that is parallel."""
    own = next((str(doc[field]) for field in _ITEM_FIELDS if doc.get(field) not in (None, "")), str(number))
    return f"{family if family.startswith(PARALLEL) else task}/{own}"


def _language(part: str) -> str | None:
    if part in NAMES:
        return part
    return THREE_LETTERS.get(part) or _BY_NAME.get(part.lower())
