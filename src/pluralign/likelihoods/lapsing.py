"""Logistic choice by someone who now and then answers at random.

With probability `lapse` the answer is uniform over the k items of the decision, otherwise it is `Logit`'s:
P = (1 - lapse) P_logit + lapse / k. A lapse bounds what one answer can cost, log(lapse / k) nats at worst.

log P is not concave in the margins. `curvature` is therefore that of EM's bound, the curvature of `Logit` times the
probability that this answer was no lapse: never negative, and exact at lapse 0.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.likelihoods.decisions import Decisions
from pluralign.likelihoods.logit import Logit


@final
@dataclass(frozen=True)
class Lapsing:
    """P = (1 - lapse) P_logit + lapse / k, for pairs (soft labels accepted) and choices among k.

    Attributes:
        lapse: Probability of an answer at random, from 0 to below 1.
    """

    lapse: float

    def __post_init__(self) -> None:
        if not 0 <= self.lapse < 1:
            raise ConfigError(f"lapse is {self.lapse}; it is a probability, from 0 to below 1")

    def log_prob(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        if self.lapse == 0:
            return Logit().log_prob(margin, decisions)
        if not decisions.pairwise:
            return self._mixed(Logit().log_prob(margin, decisions), decisions)
        first = self._held(torch.sigmoid(margin)).log_()
        if decisions.sure:
            return first
        y = decisions.outcome[:, None]
        return y * first + (1 - y) * self._held(torch.sigmoid(-margin)).log_()

    def slope(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "rows heads"]:
        if self.lapse == 0:
            return Logit().slope(margin, decisions)
        if not decisions.pairwise:
            return self._awake(margin, decisions)[decisions.index] * Logit().slope(margin, decisions)
        p, q = torch.sigmoid(margin), torch.sigmoid(-margin)
        steep = (p * q).mul_(1 - self.lapse)
        if decisions.sure:
            return steep.div_(self._held(p))
        y = decisions.outcome[:, None]
        return steep * (y / self._held(p) - (1 - y) / self._held(q))

    def slope_in_lapse(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> Float[Tensor, "decisions heads"]:
        """Derivative of the log-probability with respect to `lapse`, (1 / k - P_logit) / P, for a lapse above 0."""
        if not decisions.pairwise:
            log_prob = Logit().log_prob(margin, decisions)
            return (1 / decisions.n_items[:, None] - log_prob.exp()) / self._mixed(log_prob, decisions).exp()
        p = torch.sigmoid(margin)
        if decisions.sure:
            return (0.5 - p).div_(self._held(p))
        y, q = decisions.outcome[:, None], torch.sigmoid(-margin)
        return y * (0.5 - p) / self._held(p) + (1 - y) * (0.5 - q) / self._held(q)

    def curvature(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "rows heads"], Float[Tensor, "rows heads"] | None]:
        a, b = Logit().curvature(margin, decisions)
        if self.lapse == 0:
            return a, b
        if decisions.pairwise:
            y, p, q = decisions.outcome[:, None], torch.sigmoid(margin), torch.sigmoid(-margin)
            return a * (1 - self.lapse) * (y * p / self._held(p) + (1 - y) * q / self._held(q)), None
        awake = self._awake(margin, decisions)[decisions.index]
        return awake * a, None if b is None else awake.sqrt() * b

    def choice_probabilities(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "decisions heads"], Float[Tensor, "rows heads"]]:
        first, second = Logit().choice_probabilities(margin, decisions)
        floor = (self.lapse / decisions.n_items)[:, None]
        return (1 - self.lapse) * first + floor, (1 - self.lapse) * second + floor[decisions.index]

    def _held(self, p: Tensor) -> Tensor:
        """(1 - lapse) p + lapse / 2."""
        return (p * (1 - self.lapse)).add_(self.lapse / 2)

    def _mixed(self, log_prob: Tensor, decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        """log((1 - lapse) P + lapse / k)."""
        floor = math.log(self.lapse) - decisions.n_items.to(log_prob.dtype).log()[:, None]
        return torch.logaddexp(log_prob + math.log1p(-self.lapse), floor)

    def _awake(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        """Probability that the answer was no lapse."""
        log_prob = Logit().log_prob(margin, decisions)
        return (log_prob + math.log1p(-self.lapse) - self._mixed(log_prob, decisions)).exp()
