"""Which subsets RewardBench and M-RewardBench consist of, and what each counts for.

A section's score weighs its subsets by published numbers, which are their sizes but for one: `math-prm` has 447 pairs and
counts as much as all code together, so that mathematics and code are half of Reasoning each (RewardBench, arXiv
2403.13787; M-RewardBench, arXiv 2410.15522; papers.md 4, peers.md 1.6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Section = Literal["Chat", "Chat Hard", "Safety", "Reasoning"]
SECTIONS: tuple[Section, ...] = get_args(Section)


@dataclass(frozen=True)
class Subset:
    """One source of pairs.

    Attributes:
      section: that it belongs to.
      weight: what its accuracy counts for within the section.
      instances: pairs that are published.
    """

    section: Section
    weight: int
    instances: int


Subsets = Mapping[str, Subset]


def _table(math_weight: int, **sections: dict[str, int]) -> Subsets:
    named = zip(SECTIONS, sections.values(), strict=True)
    sized = {name: Subset(section, size, size) for section, sizes in named for name, size in sizes.items()}
    sized["math-prm"] = Subset("Reasoning", math_weight, sized["math-prm"].instances)
    return sized


REWARD_BENCH: Subsets = _table(
    984,
    chat={
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28, "mt-bench-med": 40,
    },
    chat_hard={
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    safety={
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154, "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    reasoning={
        "math-prm": 447, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164,
        "hep-rust": 164,
    },
)  # fmt: skip
"""English; 2,985 pairs."""

M_REWARD_BENCH: Subsets = _table(
    983,
    chat={
        "alpacaeval-easy": 79, "alpacaeval-length": 79, "alpacaeval-hard": 76, "mt-bench-easy": 24, "mt-bench-med": 38,
    },
    chat_hard={
        "mt-bench-hard": 35, "llmbar-natural": 76, "llmbar-adver-neighbor": 124, "llmbar-adver-GPTInst": 87,
        "llmbar-adver-GPTOut": 42, "llmbar-adver-manual": 43,
    },
    safety={
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154, "xstest-should-respond": 247,
        "donotanswer": 135,
    },
    reasoning={
        "math-prm": 447, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 163,
        "hep-rust": 164,
    },
)  # fmt: skip
"""Each of 23 languages; the 2,869 pairs that are left after filtering."""

M_REWARD_BENCH_LANGUAGES = (
    "arb_Arab", "ces_Latn", "deu_Latn", "ell_Grek", "fra_Latn", "heb_Hebr", "hin_Deva", "ind_Latn", "ita_Latn",
    "jpn_Jpan", "kor_Hang", "nld_Latn", "pes_Arab", "pol_Latn", "por_Latn", "ron_Latn", "rus_Cyrl", "spa_Latn",
    "tur_Latn", "ukr_Cyrl", "vie_Latn", "zho_Hans", "zho_Hant",
)  # fmt: skip

PRIOR_SETS = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
"""Older preference test sets; the plain mean of their accuracies is half a section in RewardBench v1."""

CELLS = tuple(f"{level} {way}" for level in ("easy", "hard") for way in ("de-en", "en-de", "zh-en", "en-zh"))
"""M-RewardBench's translation task: sentences of MAPLE by level and direction, about 100 pairs in each."""


def cell_of(subset: str) -> str | None:
    """The cell that a subset is, by level and direction; None for a subset that is no translation.

    Published subsets begin with "maple-". How the rest is spelt is not documented where we could read it, so a level and a
    direction are read from any usual spelling: "maple-easy-de-en", "maple-de2en-hard", "hard_en_zh".
    """
    name = re.sub(r"[-_ →2]|to", "", re.sub(r"^(maple|translation)[-_ ]", "", subset.lower()))
    words = re.findall(r"easy|hard|de|en|zh", name)
    levels, languages = [w for w in words if len(w) == 4], [w for w in words if len(w) == 2]
    if len(levels) != 1 or "".join(words) != name:
        return None
    cell = f"{levels[0]} {'-'.join(languages)}"
    return cell if cell in CELLS else None
