"""What a run minimises where it is not the loss of the next token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aya_jax.config.registry import Problem, configurable

REFERENCE = "reference_log_probs"
"""The batch's field with each answer's log-probability under the reference."""
MARGINS = "margins"
"""The batch's field with the margin of each answer's pair."""
ADVANTAGES = "advantages"
"""The batch's field with each answer's advantage."""


@configurable
@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Prefers chosen answers to rejected ones: DPO (Rafailov et al. 2023) and its kin; formulas in `objectives.preference`.

    Attributes:
      loss: "sigmoid" (DPO), "conservative", "robust", "hinge", "ipo", "sigmoid_norm" or "simpo".
      beta: how strongly the model is held to the reference.
      label_smoothing: share of pairs that are taken to be the wrong way round; with "conservative" and "robust" alone.
      target_margin: by how much a chosen answer's reward is to be above the rejected one's; with "simpo" alone.
      reference: the model that answers are measured against, as `MODEL_DIR` names one; None is the one the run starts from.
    """

    loss: Literal["sigmoid", "conservative", "robust", "hinge", "ipo", "sigmoid_norm", "simpo"] = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    target_margin: float = 0.0
    reference: str | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range, and options of another loss."""
        if not self.beta > 0:
            yield Problem("beta", "a number above 0")
        if not 0 <= self.label_smoothing < 0.5:
            yield Problem("label_smoothing", "at least 0 and below 0.5")
        if self.label_smoothing and self.loss not in ("conservative", "robust"):
            yield Problem("label_smoothing", "0, or loss = 'conservative' or 'robust'")
        if self.target_margin and self.loss != "simpo":
            yield Problem("target_margin", "0, or loss = 'simpo'")
        if self.reference is not None and not self.has_reference:
            yield Problem("reference", "None: loss = 'simpo' has no reference")

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares with a reference."""
        return self.loss != "simpo"

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a batch that the objective reads beside the usual ones."""
        return (REFERENCE,) if self.has_reference else ()


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Learns to give chosen answers a higher reward than rejected ones; `objectives.reward` has the formula.

    Attributes:
      use_margins: whether chosen answers are to be better by the margin that the data says.
      centering: weight of the squared sum of a pair's rewards, which keeps their mean near 0 (0: they float).
    """

    use_margins: bool = False
    centering: float = 0.0

    def validate(self) -> Iterator[Problem]:
        """Yields a negative weight."""
        if self.centering < 0:
            yield Problem("centering", "0 or more")

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a batch that the objective reads beside the usual ones."""
        return (MARGINS,) if self.use_margins else ()


@configurable
@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig:
    """Learns from the rewards of a round's own answers (`aya online`); `objectives.policy_gradient` has the formulas.

    Attributes:
      advantage: how answers to one prompt are compared: "leave_one_out" (RLOO) or "group" (GRPO).
      beta: weight of the divergence from the model as it came, which is taken off rewards.
      epsilon: how far an answer's probability may move before its gradient stops.
    """

    advantage: Literal["leave_one_out", "group"] = "leave_one_out"
    beta: float = 0.05
    epsilon: float = 0.2

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range."""
        if self.beta < 0:
            yield Problem("beta", "0 or more")
        if not 0 < self.epsilon < 1:
            yield Problem("epsilon", "between 0 and 1")

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of a batch that the objective reads beside the usual ones."""
        return (REFERENCE, ADVANTAGES)
