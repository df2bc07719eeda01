"""Pairs in which a tie is an outcome of its own: `Davidson` and `RaoKupper`.

An outcome of exactly 0.5 is a tie; 1 and 0 are wins of the first and the second item, and any other label y mixes the
two wins, y log P(first) + (1 - y) log P(second). Under `Logit` a tie is half a win of each instead. The parameter of
either model is fitted by `inference.ties.fit_ties`.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from pluralign.errors import ConfigError
from pluralign.likelihoods.decisions import Decisions


def _pairs(decisions: Decisions, name: str) -> tuple[Float[Tensor, "rows 1"], Tensor]:
    """Outcomes, and which are ties, as columns."""
    if not decisions.pairwise:
        raise ConfigError(
            f"{name} is about pairs, and some of these decisions are among more than two items",
            hint="use the likelihood Logit, or explode the choices into pairs",
        )
    y = decisions.outcome[:, None]
    return y, y == 0.5


@final
@dataclass(frozen=True)
class Davidson:
    """P(first), P(second), P(tie) in proportion to exp(m / 2), exp(-m / 2), tie; Davidson (1970), Eq. (2.7).

    Attributes:
        tie: nu, above 0. Between equals a tie is nu / 2 times as likely as a win of either.
    """

    tie: float

    def __post_init__(self) -> None:
        if not (self.tie > 0 and math.isfinite(self.tie)):
            raise ConfigError(f"tie is {self.tie}; it must be above 0", hint="where there are no ties use Logit")

    def log_prob(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        y, tied = _pairs(decisions, "Davidson")
        # A tie's own term is log nu; at y = 0.5 the margin's falls away.
        return (y - 0.5) * margin - self._log_total(margin) + math.log(self.tie) * tied.to(margin.dtype)

    def slope(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "rows heads"]:
        y, _ = _pairs(decisions, "Davidson")
        first, second = self._wins(margin)
        return y - 0.5 - (first - second) / 2

    def curvature(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "rows heads"], None]:
        _pairs(decisions, "Davidson")
        first, second = self._wins(margin)
        tie = 1 - first - second
        return first * second + tie * (first + second) / 4, None

    def choice_probabilities(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "decisions heads"], Float[Tensor, "rows heads"]]:
        """Probabilities of the two wins; what is missing to 1 is the tie's."""
        _pairs(decisions, "Davidson")
        return self._wins(margin)

    def _log_total(self, margin: Tensor) -> Tensor:
        either = torch.logaddexp(margin / 2, -margin / 2)
        return torch.logaddexp(either, torch.full_like(either, math.log(self.tie)))

    def _wins(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        total = self._log_total(margin)
        return (margin / 2 - total).exp(), (-margin / 2 - total).exp()


@final
@dataclass(frozen=True)
class RaoKupper:
    """P(first) = s(m - threshold), P(second) = s(-m - threshold), the rest a tie; Rao and Kupper (1967), Eq. (2.2).

    s is the sigmoid, and exp(threshold) their theta.

    Attributes:
        threshold: What a margin must exceed to be noticed, in nats, above 0.
    """

    threshold: float

    def __post_init__(self) -> None:
        if not (self.threshold > 0 and math.isfinite(self.threshold)):
            raise ConfigError(
                f"threshold is {self.threshold}; it must be above 0", hint="where there are no ties use Logit"
            )

    def log_prob(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        y, tied = _pairs(decisions, "RaoKupper")
        first, second = logsigmoid(margin - self.threshold), logsigmoid(-margin - self.threshold)
        # P(tie) = (exp(2 threshold) - 1) P(first) P(second)
        return torch.where(tied, self._log_excess() + first + second, y * first + (1 - y) * second)

    def slope(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "rows heads"]:
        up, down = self._weights(decisions)
        return up * torch.sigmoid(self.threshold - margin) - down * torch.sigmoid(self.threshold + margin)

    def curvature(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "rows heads"], None]:
        up, down = self._weights(decisions)
        first, second = torch.sigmoid(margin - self.threshold), torch.sigmoid(-margin - self.threshold)
        return up * first * (1 - first) + down * second * (1 - second), None

    def choice_probabilities(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "decisions heads"], Float[Tensor, "rows heads"]]:
        """Probabilities of the two wins; what is missing to 1 is the tie's."""
        _pairs(decisions, "RaoKupper")
        return torch.sigmoid(margin - self.threshold), torch.sigmoid(-margin - self.threshold)

    def _log_excess(self) -> float:
        """log(exp(2 threshold) - 1), without overflow."""
        return 2 * self.threshold + math.log(-math.expm1(-2 * self.threshold))

    def _weights(self, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """How often log P(first) and log P(second) occur in each row's log-probability."""
        y, tied = _pairs(decisions, "RaoKupper")
        return torch.where(tied, 1.0, y), torch.where(tied, 1.0, 1 - y)
