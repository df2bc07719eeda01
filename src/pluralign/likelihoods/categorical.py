"""A reward on K atoms for every item.

DPL's categorical model (arXiv 2312.08358): softmax of K outputs over atoms in [0, 1]; an independent draw for either
item, the higher one preferred, equal ones half and half. P(A > B) depends on the atoms' order alone, so that a mean, a
standard deviation or a quantile of this reward means something only as far as equal steps do.

Atom k is the centre of the k-th of K equal cells of [0, 1], and a quantile spreads its mass evenly over the cell. The
released code has the atoms at k / (K - 1) for the mean and the same cells for the quantile, which are two scales; the
order of items is the same.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.likelihoods.mean_variance import check_level


@final
@dataclass(frozen=True)
class Categorical:
    """K outputs per item, the logits of its atoms.

    Attributes:
        n_atoms: K; the paper has 10 for language models, 20 and 8 in its small examples.
    """

    n_atoms: int = 10

    def __post_init__(self) -> None:
        if self.n_atoms < 2:
            raise ConfigError(f"n_atoms is {self.n_atoms}; it must be at least 2")

    @property
    def n_outputs(self) -> int:
        return self.n_atoms

    def log_prob(
        self,
        first: Float[Tensor, "rows outputs"],
        second: Float[Tensor, "rows outputs"],
        outcome: Float[Tensor, " rows"],
    ) -> Float[Tensor, " rows"]:
        one, other = first.softmax(-1), second.softmax(-1)
        if bool((outcome == 1).all()):
            return self._log(self._above(one, other))
        above, below = self._log(self._above(one, other)), self._log(self._above(other, one))
        return outcome * above + (1 - outcome) * below

    def probability(
        self, first: Float[Tensor, "rows outputs"], second: Float[Tensor, "rows outputs"]
    ) -> Float[Tensor, " rows"]:
        return self._above(first.softmax(-1), second.softmax(-1))

    def mean(self, outputs: Float[Tensor, "*items outputs"]) -> Float[Tensor, "*items"]:
        return outputs.softmax(-1) @ self._atoms(outputs)

    def sd(self, outputs: Float[Tensor, "*items outputs"]) -> Float[Tensor, "*items"]:
        away = self._atoms(outputs) - self.mean(outputs)[..., None]
        return (outputs.softmax(-1) * away.square()).sum(-1).sqrt()

    def quantile(self, outputs: Float[Tensor, "*items outputs"], level: float) -> Float[Tensor, "*items"]:
        check_level(level)
        mass = outputs.softmax(-1)
        total = mass.cumsum(-1)
        # The first cell at whose end the mass reaches the level; rounding may leave the last total below it.
        cell = (total < level).sum(-1, keepdim=True).clamp(max=self.n_atoms - 1)
        own = mass.gather(-1, cell)
        below = total.gather(-1, cell) - own
        return ((cell + ((level - below) / own).clamp(0, 1)) / self.n_atoms)[..., 0]

    def entropy_of_mean(
        self, outputs: Float[Tensor, "items outputs"], count: Float[Tensor, " items"] | None = None
    ) -> Float[Tensor, ""]:
        """Entropy, in nats, of the mean over items, each counted so often (None: once), of their distributions.

        DPL adds 0.1 times it to the mean log-probability while it trains, over the chosen and the rejected items of the
        batch together, so that all atoms are used: log K is the most it can be.
        """
        mass = outputs.softmax(-1)
        mean = mass.mean(0) if count is None else count @ mass / count.sum()
        return torch.special.entr(mean).sum()

    def _atoms(self, outputs: Tensor) -> Float[Tensor, " atoms"]:
        return (torch.arange(self.n_atoms, dtype=outputs.dtype, device=outputs.device) + 0.5) / self.n_atoms

    @staticmethod
    def _above(one: Tensor, other: Tensor) -> Float[Tensor, " rows"]:
        """sum_i p_one(i) (P_other(below i) + p_other(i) / 2)."""
        n = other.shape[-1]
        beats = torch.ones(n, n, dtype=other.dtype, device=other.device).triu(1)
        beats = beats + torch.eye(n, dtype=other.dtype, device=other.device) / 2
        return (one * (other @ beats)).sum(-1).clamp(max=1)  # rounding may end above it

    @staticmethod
    def _log(p: Tensor) -> Tensor:
        # 0 is reached where logits are some 700 apart (90 in float32). In logarithms throughout it would not be, at
        # twenty times the cost.
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()
