"""Logistic choice: Bradley-Terry for pairs, the multinomial logit for choices among k.

With m_j the margins of the chosen item over each other one, both are P = 1 / (1 + sum_j exp(-m_j)) (Bradley and
Terry 1952; McFadden 1974; Plackett and Luce rank by repeating it on what is left). A pair is the case of one m_j, where
soft labels and ties at 0.5 are accepted too: y log P + (1 - y) log(1 - P), which is log P - (1 - y) m. Where a decision
is among more, y is 1.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from pluralign.likelihoods.decisions import Decisions


@final
@dataclass(frozen=True)
class Logit:
    """Bradley-Terry where a decision is one row, multinomial logit where it is several."""

    def log_prob(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        if decisions.pairwise:
            # y log s(m) + (1 - y) log s(-m), with log s(-m) = log s(m) - m.
            return logsigmoid(margin) - (1 - decisions.outcome)[:, None] * margin
        log_prob = -self._log_total(margin, decisions)
        if decisions.sure:
            return log_prob
        return log_prob - decisions.sum((1 - decisions.outcome)[:, None] * margin)

    def slope(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "rows heads"]:
        if decisions.pairwise:
            return decisions.outcome[:, None] - torch.sigmoid(margin)
        return self._others(margin, decisions) - (1 - decisions.outcome)[:, None]

    def curvature(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "rows heads"], Float[Tensor, "rows heads"] | None]:
        if decisions.pairwise:
            p = torch.sigmoid(margin)
            return p * (1 - p), None
        p = self._others(margin, decisions)
        return p, p

    def choice_probabilities(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "decisions heads"], Float[Tensor, "rows heads"]]:
        if decisions.pairwise:
            return torch.sigmoid(margin), torch.sigmoid(-margin)
        return (-self._log_total(margin, decisions)).exp(), self._others(margin, decisions)

    def _log_total(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        """log(1 + sum_j exp(-m_j)) of every decision, without overflow."""
        index = decisions.index[:, None].expand_as(margin)
        top = margin.new_zeros((decisions.count, margin.shape[1]))  # the chosen item itself has margin 0
        top = top.scatter_reduce(0, index, -margin, "amax")
        return top + torch.log((-top).exp() + decisions.sum((-margin - top[decisions.index]).exp()))

    def _others(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "rows heads"]:
        """Probability of each row's second item."""
        return (-margin - self._log_total(margin, decisions)[decisions.index]).exp()
