"""Whether a model prefers the same answers in another language: Cohen's kappa with its preferences in English (papers.md 4).

A label is which answer was preferred: the better one, the worse one, or neither. Kappa is taken over instances that both
languages have, for each language; the study reports its mean and standard deviation over languages.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np

from aya_jax.config import UserError
from aya_jax.evaluation.judging.agreement import confusions, kappas
from aya_jax.evaluation.judging.krippendorff import krippendorff_alpha
from aya_jax.evaluation.judging.resampling import Estimate, estimate, mean_estimate
from aya_jax.evaluation.reward_bench.instances import Outcome, Preferred
from aya_jax.evaluation.statistics import resample_counts


@dataclass(frozen=True, kw_only=True)
class LanguageAgreement:
    """A model's agreement with itself across languages.

    Attributes:
      languages: kappa of each with the reference; NaN where it does not exist.
      instances: how many each shares with the reference.
      left_out: how many either has alone.
      mean: over languages; NaN if one has no kappa.
      sd: standard deviation over languages, with n - 1 in the denominator; NaN for one language.
      alpha: Krippendorff's, of all languages as raters of the same instances, the reference too: how stable labels are.
    """

    languages: dict[str, Estimate]
    instances: dict[str, int]
    left_out: dict[str, int]
    mean: Estimate
    sd: float
    alpha: Estimate


def language_agreement(
    outcomes: Iterable[Outcome],
    reference: Iterable[Outcome],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LanguageAgreement:
    """Kappa of each language's labels with the reference's, instance by instance.

    Args:
      outcomes: of one model in any languages.
      reference: of the same model in one language, English in the study; it may be among `outcomes` and is not compared
        with itself.
      resamples, confidence, seed: of the bootstrap over instances, which draws an instance in all languages at once.

    Raises:
      UserError: no reference, one of several languages, or two outcomes of one instance.
    """
    base = _by_language(reference)
    if len(base) != 1:
        raise UserError(f"the reference has {len(base)} languages ({', '.join(sorted(base))}); it needs one")
    ((own, english),) = base.items()
    found = {name: labels for name, labels in sorted(_by_language(outcomes).items()) if name != own}
    ids = sorted(english)
    shared = {name: [key for key in ids if key in labels] for name, labels in found.items()}
    present = np.array([[key in labels for key in ids] for labels in found.values()], bool).reshape(
        len(found), len(ids)
    )
    tables = {
        name: confusions(
            [labels.get(key) for key in ids], [english[key] for key in ids], range(len(ids)), get_args(Preferred)
        )
        for name, labels in found.items()
    }
    usable = np.flatnonzero(present.any(0))
    parts = [
        np.stack([kappas(np.tensordot(counts, table[usable], 1)) for table in tables.values()], 1)
        for counts in resample_counts(len(usable), resamples, seed)
    ]
    draws = np.concatenate(parts) if parts else np.zeros((0, len(found)))
    languages = {
        name: estimate(float(kappas(table.sum(0))), draws[:, k], len(shared[name]), confidence)
        for k, (name, table) in enumerate(tables.items())
    }
    values = [part.value for part in languages.values()]
    everybody = [english, *found.values()]
    return LanguageAgreement(
        languages=languages,
        instances={name: len(keys) for name, keys in shared.items()},
        left_out={name: len(english) + len(labels) - 2 * len(shared[name]) for name, labels in found.items()},
        mean=mean_estimate(list(languages.values()), draws, min(map(len, shared.values()), default=0), confidence),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
        alpha=krippendorff_alpha(
            [[labels.get(key) for labels in everybody] for key in sorted(set().union(*everybody))],
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        ),
    )


def _by_language(outcomes: Iterable[Outcome]) -> dict[str, dict[tuple[str, str], Preferred]]:
    """Labels by language and (subset, id)."""
    found: dict[str, dict[tuple[str, str], Preferred]] = {}
    for outcome in outcomes:
        labels, key = found.setdefault(outcome.language, {}), (outcome.subset, outcome.id)
        if key in labels:
            raise UserError(f"instance {outcome.id!r} ({outcome.language}) was judged twice")
        labels[key] = outcome.preferred
    return found
