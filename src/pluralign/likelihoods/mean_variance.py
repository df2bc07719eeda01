"""A normal reward for every item, with a mean and a standard deviation of its own.

If the rewards are independent, P(A > B) = Phi(z) with z = (mu_A - mu_B) / sqrt(sd_A^2 + sd_B^2): Thurstone's (1927)
Case III, DPL's mean-variance model (arXiv 2312.08358). The released code of that paper trains with sigma(sqrt(2 pi) z)
instead. That is not the probit: at z = 0.5, 1, 2 it says .778, .925, .993 where Phi says .691, .841, .977, and a
logistic with the probit's slope at 0 would have sqrt(8 / pi) = 1.596 in place of 2.507. It is offered as `surrogate`.

Only z is identified: a common factor of all means and standard deviations, and a constant added to all means, change
nothing.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from pluralign.errors import ConfigError


@final
@dataclass(frozen=True)
class MeanVariance:
    """Two outputs per item: the mean, and a number whose softplus is the standard deviation.

    Attributes:
        link: "probit", Phi(z), or "surrogate", sigma(sqrt(2 pi) z) as released.
    """

    link: str = "probit"

    def __post_init__(self) -> None:
        if self.link not in ("probit", "surrogate"):
            raise ConfigError(f'unknown link "{self.link}"; known: probit, surrogate')

    @property
    def n_outputs(self) -> int:
        return 2

    def log_prob(
        self,
        first: Float[Tensor, "rows outputs"],
        second: Float[Tensor, "rows outputs"],
        outcome: Float[Tensor, " rows"],
    ) -> Float[Tensor, " rows"]:
        z = self._z(first, second)
        if self.link == "surrogate":
            steep = math.sqrt(2 * math.pi) * z
            return logsigmoid(steep) - (1 - outcome) * steep
        # One call on the side that was chosen, not two: soft labels alone need both.
        side = torch.where(outcome >= 0.5, z, -z)
        sure, share = torch.special.log_ndtr(side), (outcome - 0.5).abs() + 0.5
        if bool((share == 1).all()):
            return sure
        return share * sure + (1 - share) * torch.special.log_ndtr(-side)

    def probability(
        self, first: Float[Tensor, "rows outputs"], second: Float[Tensor, "rows outputs"]
    ) -> Float[Tensor, " rows"]:
        z = self._z(first, second)
        return torch.sigmoid(math.sqrt(2 * math.pi) * z) if self.link == "surrogate" else torch.special.ndtr(z)

    def mean(self, outputs: Float[Tensor, "*items outputs"]) -> Float[Tensor, "*items"]:
        return outputs[..., 0]

    def sd(self, outputs: Float[Tensor, "*items outputs"]) -> Float[Tensor, "*items"]:
        return softplus(outputs[..., 1])

    def quantile(self, outputs: Float[Tensor, "*items outputs"], level: float) -> Float[Tensor, "*items"]:
        check_level(level)
        return self.mean(outputs) + torch.special.ndtri(outputs.new_tensor(level)) * self.sd(outputs)

    def _z(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.mean(first) - self.mean(second)) / torch.hypot(self.sd(first), self.sd(second))


def check_level(level: float) -> None:
    """Check the level of a quantile.

    Raises:
        ConfigError: It is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; a quantile's level is between 0 and 1")
