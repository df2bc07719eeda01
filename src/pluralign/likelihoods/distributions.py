"""What a likelihood of whole reward distributions offers.

A `Likelihood` sees margins: one number per row and head. A model of a population without user ids (Siththaranjan,
Laidlaw and Hadfield-Menell 2023, arXiv 2312.08358: distributional preference learning, DPL) gives every item a
*distribution* of reward, so that what it says of a pair depends on several numbers per item and not on a difference.
That is no special case of the other, and it has this protocol of its own.

The distribution is that of the reward over whatever the model does not see ("hidden context"): over users, above all.
It is not the uncertainty of an estimate, and it says nothing of any one user.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class RewardDistribution(Protocol):
    """P(decision | what is said of either item's reward). Every item has `n_outputs` numbers."""

    @property
    def n_outputs(self) -> int:
        """Numbers per item."""

    def log_prob(
        self,
        first: Float[Tensor, "rows outputs"],
        second: Float[Tensor, "rows outputs"],
        outcome: Float[Tensor, " rows"],
    ) -> Float[Tensor, " rows"]:
        """Log-probability of the outcome in nats, y log P(first > second) + (1 - y) log P(second > first)."""

    def probability(
        self, first: Float[Tensor, "rows outputs"], second: Float[Tensor, "rows outputs"]
    ) -> Float[Tensor, " rows"]:
        """Probability that the first item is preferred."""

    def mean(self, outputs: Float[Tensor, "*items outputs"]) -> Float[Tensor, "*items"]:
        """Mean reward."""

    def sd(self, outputs: Float[Tensor, "*items outputs"]) -> Float[Tensor, "*items"]:
        """Standard deviation of the reward."""

    def quantile(self, outputs: Float[Tensor, "*items outputs"], level: float) -> Float[Tensor, "*items"]:
        """The reward that a share `level` of the distribution is below: at a low level, a risk-averse reward."""


def explained_by_items(mean: Float[Tensor, " items"], sd: Float[Tensor, " items"]) -> float:
    """DPL's r^2 = Var(means) / (Var(means) + mean variance) over one set of responses; NaN where nothing varies.

    Near 1 the item says it all; the further below, the more of the reward is in what the model does not see. Both
    variances have the units of the model's own reward, so that it compares models of one family.
    """
    between, within = float(mean.var(correction=0)), float(sd.square().mean())
    return between / (between + within) if between + within > 0 else float("nan")
