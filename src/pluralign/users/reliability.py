"""`Reliability`: one taste for everybody, followed more or less closely.

The reward of item phi for user u is s_u theta . phi with log s_u ~ N(0, spread^2); every answer is at random with
probability `lapse`, and the item shown first has `position_bias` nats on its side. It is annotator skill (Whitehill
et al. 2009, GLAD; Dawid and Skene 1979), noise and not taste: s_u > 0, so no user's order of two items differs from
another's. It stands on the ladder so that noise is not mistaken for taste.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.likelihoods import Lapsing
from pluralign.users.model import predictions_from

_N_NODES = 9
_BLOCK_ROWS = 2**15


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Reliability:
    """One reward for everybody, scaled by each user's reliability.

    Attributes:
        theta: What everybody wants, at the reliability of the median user, (dim,).
        log_scale: Posterior mean of log s_u, (users,).
        log_scale_sd: Posterior standard deviation of log s_u, (users,).
        spread: Standard deviation of log s_u over users, 0 where all are alike; an unknown user has this prior.
        lapse: Probability of an answer at random.
        position_bias: Nats on the side of the item shown first.
    """

    kind: ClassVar[str] = "reliability"
    theta: Float[Tensor, " dim"]
    log_scale: Float[Tensor, " users"]
    log_scale_sd: Float[Tensor, " users"]
    spread: float
    lapse: float
    position_bias: float

    @property
    def n_users(self) -> int:
        return self.log_scale.numel()

    @property
    def dim(self) -> int:
        return self.theta.numel()

    @property
    def n_parameters(self) -> int:
        return self.dim + 2 + (self.position_bias != 0)

    def predict(self, design: Design, user: Int[Tensor, " decisions"] | None = None) -> Predictions:
        mean, sd = self._of(design.user if user is None else user)
        node, mass = np.polynomial.hermite_e.hermegauss(_N_NODES)
        at = torch.as_tensor(node, dtype=mean.dtype, device=mean.device)
        share = torch.as_tensor(mass / mass.sum(), dtype=mean.dtype, device=mean.device)
        margin, likelihood = design.margins(self.theta[None]), Lapsing(self.lapse)
        chosen, other = torch.empty_like(mean), torch.empty_like(margin[:, 0])
        for rows, decisions, within in design.decisions.blocks(_BLOCK_ROWS):
            scale = torch.exp(mean[decisions, None] + sd[decisions, None] * at)
            shifted = margin[rows] * scale[within.index] + self.position_bias * within.position[:, None]
            first, second = likelihood.choice_probabilities(shifted, within)
            chosen[decisions], other[rows] = first @ share, second @ share
        return predictions_from(design, chosen, other)

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        mean, sd = self._of(user)
        expected = (features @ self.theta) * torch.exp(mean + sd**2 / 2)  # of a log-normal
        return expected, expected.abs() * torch.expm1(sd**2).sqrt()

    def _of(self, user: Int[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        # UNKNOWN is -1, which indexes the number appended last.
        mean = torch.cat([self.log_scale, self.log_scale.new_zeros(1)])
        sd = torch.cat([self.log_scale_sd, self.log_scale_sd.new_full((1,), self.spread)])
        return mean[user], sd[user]
