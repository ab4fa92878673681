"""Krippendorff's alpha: how far any number of raters agree, some of whom may have left things out.

Of nominal labels (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability). Global-MMLU reports it of its annotators for
each subject (papers.md 2). Cohen's kappa compares two raters and takes each one's own habits as chance; alpha takes those of
all together, so that two raters with other habits have a lower alpha than kappa.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from aya_jax.evaluation.analyses.resampling import ratio
from aya_jax.evaluation.judging.resampling import Estimate, estimate
from aya_jax.evaluation.statistics import resample_counts


def krippendorff_alpha(
    things: Sequence[Sequence[Hashable | None]], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Alpha of nominal labels: 1 if all agree, 0 as by chance; intervals draw things.

    Args:
      things: of each thing that is labelled, the labels that it was given; None where a rater gave none.
      resamples, confidence, seed: of the bootstrap.

    Returns:
      NaN where nothing has two labels, and where all labels are one and the same, so that there is no chance to disagree.
    """
    labels = sorted({label for given in things for label in given if label is not None}, key=repr)
    tables = np.stack([_coincidences(given, labels) for given in things]) if things else np.zeros((0, 0, 0))
    tables = tables[tables.any((1, 2))]  # what one rater has labelled says nothing of agreement
    if not len(tables):
        return Estimate(float("nan"))
    draws = [alphas(np.tensordot(counts, tables, 1)) for counts in resample_counts(len(tables), resamples, seed)]
    return estimate(float(alphas(tables.sum(0))), np.concatenate(draws), len(tables), confidence)


def alphas(tables: np.ndarray) -> np.ndarray:
    """1 - D_o / D_e of coincidences, [..., C, C] -> [...].

    With n_c a label's coincidences and n all of them, D_o is the share of unequal ones, and D_e = sum over unequal c, k of
    n_c n_k / (n (n - 1)).
    """
    of_label = tables.sum(-1)
    total = of_label.sum(-1)
    observed = ratio(total - np.trace(tables, axis1=-2, axis2=-1), total)
    expected = ratio(total**2 - (of_label**2).sum(-1), total * (total - 1.0))
    return 1.0 - ratio(observed, expected)


def _coincidences(given: Sequence[Hashable | None], labels: Sequence[Hashable]) -> np.ndarray:
    """How often each two labels were given to one thing by two raters, over one less than the raters of it, [C, C]."""
    counts = np.array([sum(label == name for label in given) for name in labels], np.float64)
    raters = counts.sum()
    if raters < 2:
        return np.zeros((len(labels), len(labels)))
    return (np.outer(counts, counts) - np.diag(counts)) / (raters - 1.0)
