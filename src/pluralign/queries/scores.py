"""How much a pair deserves to be asked: one score for every row, larger is better.

- `information_gain`: mutual information of the answer and the user, H[E p] - E H[p] in nats. BALD (Houlsby et al. 2011,
  arXiv 1112.5745); the spread of the posterior means after either answer is in it.
- `uncertainty`: how near one half p is for the user whom the posterior mean describes.
- `uncertainty_predictive`: the same for p averaged over the posterior; it cannot tell a pair on which users differ from
  one on which everybody tosses a coin.
- `d_optimal`: the gain in log det of the posterior precision, log(1 + a v), with a the expected Fisher information of
  the answer and v the variance of the margin.
- `random`: every pair the same chance.
- `vpl_released`: what the public code of VPL (arXiv 2408.10075) computes, for comparison only.

In `vpl_released` a pair's score is log(2 pi mean_y sum_d s_yd) - mean_y sum_d log(2 pi s_yd), s_yd being the posterior
variance of coordinate d after answer y, and both answers counting the same. Two things are missing that the mutual
information of the paper's text has: where the posterior *mean* goes after either answer, and how likely each answer is.
There the variances are an amortised encoder's; here they are those of the Laplace posterior after the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.queries.beliefs import Belief, Gaussian

Score = Callable[[Belief], Float[Tensor, " rows"]]
_NEWTON_STEPS = 12


def uncertainty(belief: Belief) -> Float[Tensor, " rows"]:
    """Less the distance from one half of p at the posterior mean."""
    return -(belief.at_mean() - 0.5).abs()


def uncertainty_predictive(belief: Belief) -> Float[Tensor, " rows"]:
    """Less the distance from one half of p over the posterior."""
    return -(belief.predictive() - 0.5).abs()


def information_gain(belief: Belief) -> Float[Tensor, " rows"]:
    """Mutual information of the answer and the user, in nats."""
    return belief.information_gain()


def d_optimal(belief: Belief) -> Float[Tensor, " rows"]:
    """log det(C^-1 + a x x') - log det C^-1 = log(1 + a x' C x)."""
    return torch.log1p(belief.fisher() * belief.variance())


def vpl_released(belief: Belief) -> Float[Tensor, " rows"]:
    """The released formula, without the posterior means (module docstring).

    Raises:
        ConfigError: The posterior is not Gaussian.
    """
    if not isinstance(belief, Gaussian):
        raise ConfigError(
            "vpl_released needs a Gaussian posterior, which basis and individual have",
            hint="take information_gain, which serves every rung",
        )
    prior = belief.coordinate.double().square().sum(1)
    # Coordinate by coordinate: the variance, and the covariance with the margin.
    whole = belief.factor.ndim == 3
    factor = belief.factor.double()
    variance = (factor.square().sum(2) if whole else factor.square())[belief.user]
    along = belief.coordinate.double()
    pulled = (factor[belief.user] @ along[..., None])[..., 0] if whole else along * factor[belief.user]
    left = []
    for answer in (1.0, 0.0):
        p = torch.sigmoid(_mode_after(belief.mean, prior, answer))
        information = p * (1 - p)
        left.append(variance - (information / (1 + information * prior))[:, None] * pulled**2)
    after = torch.stack(left).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.log(2 * math.pi * after.sum(2).mean(0)) - torch.log(2 * math.pi * after).sum(2).mean(0)


def _mode_after(mean: Tensor, variance: Tensor, answer: float) -> Float[Tensor, " rows"]:
    """Mode of a margin after one answer: the root of m = mean + variance (answer - sigmoid(m))."""
    low, high = mean - variance, mean + variance
    mode = mean.clone()
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(mode)
        gap = mode - mean - variance * (answer - p)
        low, high = torch.where(gap < 0, mode, low), torch.where(gap > 0, mode, high)
        step = mode - gap / (1 + variance * p * (1 - p))
        mode = torch.where((step < low) | (step > high), (low + high) / 2, step)
    return mode


SCORES: dict[str, Score] = {
    "information_gain": information_gain,
    "uncertainty": uncertainty,
    "uncertainty_predictive": uncertainty_predictive,
    "d_optimal": d_optimal,
    "vpl_released": vpl_released,
}
METHODS = ("information_gain", "d_optimal", "uncertainty", "uncertainty_predictive", "random", "vpl_released")


def check_method(method: str) -> None:
    """Check the name of a method.

    Raises:
        ConfigError: There is none of that name.
    """
    if method not in METHODS:
        raise ConfigError(f'unknown method "{method}"; known: {", ".join(METHODS)}')
