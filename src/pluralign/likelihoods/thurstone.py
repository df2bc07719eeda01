"""Normal noise instead of logistic: P(first) = Phi(margin), Thurstone (1927), Case V.

The margin is in units of the standard deviation of a difference, so coefficients are about 1.7 times smaller than
`Logit`'s. Pairs only; soft labels and ties at 0.5 are accepted, y log P + (1 - y) log(1 - P).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.likelihoods.decisions import Decisions


@final
@dataclass(frozen=True)
class Thurstone:
    """P(first) = Phi(margin), the probit."""

    def log_prob(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        y = self._outcome(decisions)
        return y * torch.special.log_ndtr(margin) + (1 - y) * torch.special.log_ndtr(-margin)

    def slope(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "rows heads"]:
        y = self._outcome(decisions)
        return y * self._hazard(margin) - (1 - y) * self._hazard(-margin)

    def curvature(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "rows heads"], None]:
        y, wide = self._outcome(decisions).double(), margin.double()  # hazard + margin cancels in float32
        up, down = self._hazard(wide), self._hazard(-wide)
        return (y * up * (up + wide) + (1 - y) * down * (down - wide)).to(margin.dtype), None

    def choice_probabilities(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "decisions heads"], Float[Tensor, "rows heads"]]:
        self._outcome(decisions)
        return torch.special.ndtr(margin), torch.special.ndtr(-margin)

    @staticmethod
    def _hazard(margin: Tensor) -> Tensor:
        """phi / Phi, without the underflow of either."""
        return math.sqrt(2 / math.pi) / torch.special.erfcx(-margin / math.sqrt(2))

    @staticmethod
    def _outcome(decisions: Decisions) -> Float[Tensor, "rows 1"]:
        if not decisions.pairwise:
            raise ConfigError(
                "Thurstone is about pairs, and some of these decisions are among more than two items",
                hint="use the likelihood Logit, or explode the choices into pairs",
            )
        return decisions.outcome[:, None]
