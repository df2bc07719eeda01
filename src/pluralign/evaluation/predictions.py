"""What a model says of held-out decisions: probabilities, and whose they are. Evaluation sees nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from pluralign.errors import DataError
from pluralign.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """Predicted probabilities of held-out decisions.

    Attributes:
        chosen: Probability given to the item that was chosen, (decisions,).
        best_other: Largest probability given to an item that was not, (decisions,). For a pair 1 - chosen.
        outcome: 1, or a soft label (0.5 a tie), (decisions,); a choice among several has 1.
        user: User of every decision, (decisions,).
        source: Source of every decision, (decisions,).
        weight: Weight of every decision, (decisions,).
    """

    chosen: FloatArray
    best_other: FloatArray
    outcome: FloatArray
    user: IntArray
    source: IntArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def log_prob(self) -> FloatArray:
        """Log-probability of what was decided, in nats, (decisions,)."""
        tiny = np.finfo(np.float64).tiny
        sure = np.log(np.maximum(self.chosen, tiny))
        soft = self.outcome * sure + (1 - self.outcome) * np.log(np.maximum(1 - self.chosen, tiny))
        return np.where(self.outcome == 1, sure, soft)

    @property
    def correct(self) -> FloatArray:
        """1 where the item preferred has the largest probability, 0 where not, 0.5 where undecided; NaN for a tie."""
        ahead = (np.sign(self.chosen - self.best_other) + 1) / 2
        return np.where(self.outcome == 0.5, np.nan, np.where(self.outcome > 0.5, ahead, 1 - ahead))

    @property
    def squared_error(self) -> FloatArray:
        """Squared error of the probability of what was chosen, (decisions,): the Brier score of a pair.

        For a choice among several it leaves out the errors on the other items, whose probabilities are not kept.
        """
        return (self.chosen - self.outcome) ** 2

    @property
    def probability(self) -> FloatArray:
        """Probability given to what was decided, (decisions,); a soft label takes the mean of both sides."""
        return self.outcome * self.chosen + (1 - self.outcome) * (1 - self.chosen)

    def take(self, decisions: np.ndarray) -> Predictions:
        """Return some decisions, by index or by mask: those of one cluster's users, say."""
        return replace(self, **{field.name: getattr(self, field.name)[decisions] for field in fields(self)})


def combine_seeds(seeds: Sequence[Predictions]) -> Predictions:
    """Join the test parts of several splits (or seeds) of the same users, so that each split counts the same.

    Weights are scaled to make the splits' totals equal. A mean over the result is the mean of the splits' means, and a
    user's or source's decisions from all splits stay one cluster: an interval clustered by user does not take five
    splits of 40 users for 200 users.

    Args:
        seeds: Predictions whose user and source numbers mean the same in all of them, as `Comparisons.take` keeps them.

    Raises:
        DataError: There is none, or one of them has no weight.
    """
    totals = np.array([seed.weight.sum() for seed in seeds])
    if not len(seeds) or not (totals > 0).all():
        raise DataError(f"the total weights of the splits are {totals.tolist()}; each must be above 0")
    scale = totals.mean() / totals
    joined = {
        field.name: np.concatenate([getattr(seed, field.name) for seed in seeds]) for field in fields(Predictions)
    }
    joined["weight"] = np.concatenate([seed.weight * by for seed, by in zip(seeds, scale, strict=True)])
    return Predictions(**joined)


def same_decisions(a: Predictions, b: Predictions) -> None:
    """Check that two models predicted the same decisions in the same order.

    Raises:
        DataError: They did not; it names the first decision that differs.
    """
    if len(a) != len(b):
        raise DataError(
            f"one model predicts {len(a)} decisions and the other {len(b)}", hint="score both on the same rows"
        )
    for name in ("user", "source", "outcome", "weight"):
        differ = np.flatnonzero(getattr(a, name) != getattr(b, name))
        if len(differ):
            at = differ[0]
            one, other = getattr(a, name)[at], getattr(b, name)[at]
            raise DataError(
                f"decision {at}: {name} is {one} for one model and {other} for the other",
                hint="score both models on the same rows in the same order",
            )
