"""The panel mixed logit by simulated maximum likelihood, as choice modellers fit it.

McFadden and Train (2000); Train (2009), chapter 6: beta_u = mean + root e_u with e_u ~ N(0, I), and the simulated
likelihood of user u is the average over draws r of prod_t P(choice t | beta_ur), the product running over all the
user's decisions (the panel). Coefficients may be fixed (no spread), and the root is diagonal or lower triangular
(correlated). Draws are scrambled Halton or Sobol points, so that a few hundred do. The log of an average over draws is
low in expectation, so log-likelihoods from 100 draws lie tens of nats below those from many.

It is the small-d oracle of `individual`: no Laplace approximation, at the cost of draws x rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.stats import norm, qmc
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.gaussian_blocks import user_blocks
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Logit


@dataclass(frozen=True, eq=False, kw_only=True)
class MixedLogitFit:
    """A fitted mixed logit.

    Attributes:
        mean: Mean of every coefficient, (dim,).
        root: Lower triangular root of their covariance; rows of fixed coefficients are 0, (dim, dim).
        log_prob: Simulated log-likelihood, in nats.
        n_parameters: Free parameters.
        mean_error: Standard errors of `mean` from the inverse of the summed outer products of the users' scores (BHHH).
        root_error: The same for `root`, NaN where nothing was estimated, (dim, dim).
        converged: Whether the optimizer met its tolerance.
    """

    mean: Float[Tensor, " dim"]
    root: Float[Tensor, "dim dim"]
    log_prob: float
    n_parameters: int
    mean_error: Float[Tensor, " dim"]
    root_error: Float[Tensor, "dim dim"]
    converged: bool

    @property
    def deviation(self) -> Float[Tensor, " dim"]:
        """Standard deviation of every coefficient."""
        return self.root.norm(dim=1)


def fit_mixed_logit(
    design: Design,
    *,
    random: Sequence[bool] | None = None,
    correlated: bool = False,
    n_draws: int = 500,
    draws: Literal["halton", "sobol"] = "halton",
    seed: int = 0,
    max_iterations: int = 200,
) -> MixedLogitFit:
    """Maximise the simulated likelihood.

    Args:
        design: Rows and features of few columns, (items, dim).
        random: Which coefficients vary among users, (dim,); None means all.
        correlated: Whether they may covary.
        n_draws: Draws per user.
        draws: Kind of quasi-random points; every user has points of their own.
        seed: Of their scrambling.
        max_iterations: Where to stop without convergence.

    Raises:
        ConfigError: `random` is not one flag per feature, or fewer than one draw.
    """
    dim = design.dim
    flags = [True] * dim if random is None else [bool(flag) for flag in random]
    if len(flags) != dim:
        raise ConfigError(f"random has {len(flags)} flags and there are {dim} features; give one flag for each")
    if n_draws < 1:
        raise ConfigError(f"n_draws is {n_draws}; it must be at least 1")
    design = design.with_features(design.features.double())
    varies = torch.tensor(flags)
    free = (varies[:, None] & varies).tril() if correlated else varies.diag()
    simulated = _Simulated(design, varies, _normal(int(varies.sum()), design.n_users, n_draws, draws, seed))
    pooled = fit_heads(design, ridge=design.features.new_zeros(1)).theta[0]
    start = torch.cat([pooled, 0.1 * torch.eye(dim).to(pooled)[free]])

    def unpack(u: Tensor) -> tuple[Tensor, Tensor]:
        root = u.new_zeros((dim, dim))
        root[free] = u[dim:]
        return u[:dim], root

    def scores(u: Tensor) -> tuple[float, Tensor]:
        """Log-likelihood, and every user's gradient, (users, parameters)."""
        value, of_mean, of_root = simulated.value_and_scores(*unpack(u))
        return value, torch.cat([of_mean, of_root[:, free]], dim=1)

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, score = scores(torch.from_numpy(u))
        return -value, -score.sum(0).numpy()

    found = minimize(
        objective, start.numpy(), jac=True, method="BFGS", options={"maxiter": max_iterations, "gtol": 0.05}
    )
    best = torch.from_numpy(found.x)
    mean, root = unpack(best)
    # A deviation's sign is free: print the positive one.
    flip = torch.where(root.diagonal() < 0, -1.0, 1.0).double()
    _, score = scores(best)
    error = torch.linalg.pinv(score.T @ score).diagonal().sqrt()
    root_error = torch.full((dim, dim), torch.nan, dtype=torch.float64)
    root_error[free] = error[dim:]
    return MixedLogitFit(
        mean=mean.clone(),
        root=root * flip,
        log_prob=float(-found.fun),
        n_parameters=len(best),
        mean_error=error[:dim],
        root_error=root_error,
        converged=bool(found.success or np.abs(found.jac).max() < 0.5),
    )


def _normal(width: int, n_users: int, n_draws: int, kind: str, seed: int) -> Float[Tensor, "users draws width"]:
    """Quasi-random N(0, 1) points; consecutive stretches of one sequence go to consecutive users."""
    if width == 0:
        return torch.zeros((n_users, n_draws, 0), dtype=torch.float64)
    points = qmc.Halton(width, seed=seed) if kind == "halton" else qmc.Sobol(width, seed=seed)
    if kind == "halton":
        uniform = points.random(n_users * n_draws)
    else:
        uniform = points.random_base2(int(np.ceil(np.log2(n_users * n_draws))))[: n_users * n_draws]
    return torch.from_numpy(norm.ppf(np.clip(uniform, 1e-12, 1 - 1e-12))).view(n_users, n_draws, width)


class _Simulated:
    """The simulated likelihood of a design under fixed draws."""

    def __init__(self, design: Design, varies: Tensor, draws: Float[Tensor, "users draws width"]) -> None:
        self.design, self.varies, self.draws = design, varies, draws
        self.blocks = user_blocks(design, lambda m: m * (draws.shape[1] + design.dim))
        self.rows = [design.differences(block.rows) for block in self.blocks]

    def value_and_scores(
        self, mean: Float[Tensor, " dim"], root: Float[Tensor, "dim dim"]
    ) -> tuple[float, Float[Tensor, "users dim"], Float[Tensor, "users dim dim"]]:
        """Simulated log-likelihood, and every user's derivatives in the mean and in the root."""
        dim, n_draws = self.design.dim, self.draws.shape[1]
        likelihood, value = Logit(), 0.0
        of_mean = mean.new_zeros((self.design.n_users, dim))
        of_root = mean.new_zeros((self.design.n_users, dim, dim))
        for block, rows in zip(self.blocks, self.rows, strict=True):
            noise = self.draws[block.user]  # (block, draws, width)
            taste = mean + noise @ root[:, self.varies].T  # (block, draws, dim)
            margin = block.flat(block.pad(rows) @ taste.mT)  # (rows, draws)
            each = block.weight[:, None] * likelihood.log_prob(margin, block.decisions)
            panel = each.new_zeros((block.count, n_draws)).index_add_(0, block.decision_owner, each)
            value += float((panel.logsumexp(1) - np.log(n_draws)).sum())
            slope = likelihood.slope(margin, block.decisions) * block.weight[block.decisions.index, None]
            # d log mean_r exp(panel_r) = sum_r softmax(panel)_r d panel_r
            pulled = block.pad(slope).mT @ block.pad(rows) * panel.softmax(1)[..., None]  # (block, draws, dim)
            of_mean[block.user] = pulled.sum(1)
            part = of_root[block.user]
            part[:, :, self.varies] = pulled.mT @ noise
            of_root[block.user] = part
        return value, of_mean, of_root
