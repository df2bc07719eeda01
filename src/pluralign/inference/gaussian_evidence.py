"""The Laplace evidence of users who differ by a Gaussian vector, and its exact gradient.

With margins D theta + D V w_u and w_u ~ N(0, I), the evidence of user u is

    log P(y | w) - |w|^2 / 2 - log det(I + Z' W Z) / 2    at the mode w,  Z = D_u V,

W being the curvature of the log-likelihood at the mode. Its gradient in theta and V counts that the mode moves and
that W moves with it, so that an ordinary quasi-Newton method maximises it: no EM, whose last digits take hundreds of
rounds. An evaluation is a pass over the features with 1 + rank heads, a batched Newton over users, and a pass back.

V = 0 is the pooled model, and the evidence chooses between them: this is empirical Bayes, in which shrinkage can go to
no personalisation at all.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.gaussian_blocks import Primal, UserBlock, one_thread, solve_primal, user_blocks
from pluralign.likelihoods import Likelihood

Pattern = Literal["free", "diagonal", "isotropic", "fixed"]


class Posterior(NamedTuple):
    """Every user's posterior, the prior where a user has no rows; float64."""

    mean: Float[Tensor, "users rank"]
    covariance: Float[Tensor, "users rank rank"]
    evidence: Float[Tensor, " users"]


def posterior(
    design: Design, theta: Float[Tensor, " dim"], basis: Float[Tensor, "dim rank"], likelihood: Likelihood
) -> Posterior:
    """Posterior of w_u for all users at once, given theta and V."""
    return _Evidence(design, basis.shape[1], likelihood).posterior(theta, basis)


class Maximum(NamedTuple):
    """A maximum of the evidence. `basis` is V, `log_prob` the evidence in nats without the ridge terms."""

    theta: Float[Tensor, " dim"]
    basis: Float[Tensor, "dim rank"]
    log_prob: float
    evaluations: int
    converged: bool


def maximise_evidence(
    design: Design,
    theta: Float[Tensor, " dim"],
    basis: Float[Tensor, "dim rank"],
    *,
    pattern: Pattern,
    ridge: float,
    ridge_basis: float,
    likelihood: Likelihood,
    max_evaluations: int,
    tolerance: float,
) -> Maximum:
    """Maximise evidence - ridge / 2 |theta|^2 - ridge_basis / 2 |V|^2, beginning at `theta` and `basis`.

    Args:
        design: Rows and features.
        theta: Where to begin, (dim,).
        basis: Where to begin, and the whole answer where `pattern` is "fixed", (dim, rank).
        pattern: "free" V, "diagonal" or "isotropic" (V = tau I, rank = dim), or "fixed".
        ridge: Prior precision of theta.
        ridge_basis: Prior precision of the entries of V.
        likelihood: P(decision | margins).
        max_evaluations: Where to stop without convergence.
        tolerance: Stop when a step gains less than this part of the evidence.
    """
    evidence = _Evidence(design, basis.shape[1], likelihood)
    inner = curvature_sample(design, theta, likelihood)
    eye = torch.eye(design.dim, dtype=torch.float64, device=inner.device)
    lift = 1e-6 * inner.diagonal().mean() + 1e-12
    of_theta, of_basis = (_factor(inner + precision * eye, lift) for precision in (ridge, ridge_basis))
    by_axis = (inner.diagonal() + ridge_basis + lift).sqrt()
    dim, fixed = design.dim, basis.double()

    # The optimizer's variables are whitened by the curvature, so that one step length suits every direction.
    def unpack(u: Tensor) -> tuple[Tensor, Tensor]:
        theta = torch.linalg.solve_triangular(of_theta.T, u[:dim, None], upper=True)[:, 0]
        rest = u[dim:]
        if pattern == "free":
            return theta, torch.linalg.solve_triangular(of_basis.T, rest.view(dim, -1), upper=True)
        if pattern == "diagonal":
            return theta, (rest / by_axis).diag()
        if pattern == "isotropic":
            return theta, rest / by_axis.square().sum().sqrt() * eye
        return theta, fixed

    def pack_gradient(of: Tensor, of_v: Tensor) -> Tensor:
        first = torch.linalg.solve_triangular(of_theta, of[:, None], upper=False)[:, 0]
        if pattern == "free":
            return torch.cat([first, torch.linalg.solve_triangular(of_basis, of_v, upper=False).flatten()])
        if pattern == "diagonal":
            return torch.cat([first, of_v.diagonal() / by_axis])
        if pattern == "isotropic":
            return torch.cat([first, (of_v.diagonal().sum() / by_axis.square().sum().sqrt())[None]])
        return first

    start = {
        "free": lambda: (of_basis.T @ fixed).flatten(),
        "diagonal": lambda: fixed.diagonal() * by_axis,
        "isotropic": lambda: fixed.diagonal().mean()[None] * by_axis.square().sum().sqrt(),
        "fixed": lambda: fixed.new_zeros(0),
    }[pattern]()
    evaluations = 0

    def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal evaluations
        evaluations += 1
        at, v = unpack(torch.from_numpy(u).to(fixed))
        value, of_at, of_v = evidence.value_and_gradient(at, v)
        value -= float(ridge / 2 * at.square().sum() + ridge_basis / 2 * v.square().sum())
        gradient = pack_gradient(of_at - ridge * at, of_v - ridge_basis * v)
        return -value, -gradient.cpu().numpy()

    found = minimize(
        objective,
        torch.cat([of_theta.T @ theta.double(), start]).cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxfun": max_evaluations, "maxiter": max_evaluations, "ftol": tolerance, "gtol": 1e-6, "maxcor": 20},
    )
    at, v = unpack(torch.from_numpy(found.x).to(fixed))
    penalty = float(ridge / 2 * at.square().sum() + ridge_basis / 2 * v.square().sum())
    return Maximum(
        at.to(theta.dtype), v.to(theta.dtype), float(-found.fun) + penalty, evaluations, bool(found.status == 0)
    )


def _factor(curvature: Float[Tensor, "dim dim"], lift: Tensor) -> Float[Tensor, "dim dim"]:
    """Cholesky factor of a curvature whose diagonal is lifted until it is above the rounding of its float32 sums.

    Raises:
        LinAlgError: Rounding is not what it lacks: a number is not finite.
    """
    eye, largest = torch.eye(len(curvature)).to(curvature), curvature.diagonal().sum()
    while True:
        factor, failed = torch.linalg.cholesky_ex(curvature + lift * eye, check_errors=not lift < largest)
        if not bool(failed):
            return factor
        lift = 10 * lift


def curvature_sample(
    design: Design, theta: Float[Tensor, " dim"], likelihood: Likelihood, n_decisions: int | None = None
) -> Float[Tensor, "dim dim"]:
    """Information D' W D of the pooled reward, from evenly spaced decisions scaled up to all; float64."""
    wanted = max(1024, 4 * design.dim) if n_decisions is None else n_decisions
    keep = torch.zeros(design.n_decisions, dtype=torch.bool, device=design.user.device)
    keep[torch.linspace(0, design.n_decisions - 1, min(wanted, design.n_decisions), device=keep.device).long()] = True
    some = design.take(keep)
    total = design.features.new_zeros((design.dim, design.dim), dtype=torch.float64)
    for block in user_blocks(some, lambda width: width * design.dim):
        rows = some.differences(block.rows)
        half = block.curvature(rows @ theta, likelihood).half(rows)
        total += (half.T @ half).double()
    return total * (design.weight.sum() / some.weight.sum().clamp(min=1e-12)).double()


@dataclass(eq=False)
class _Evidence:
    """The evidence as a function of theta and V; users' modes are kept as the next evaluation's start."""

    design: Design
    rank: int
    likelihood: Likelihood
    blocks: list[UserBlock] = field(init=False)
    mode: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = user_blocks(self.design, lambda width: (width + self.rank) * (self.rank + 2))
        self.mode = self.design.features.new_zeros((self.design.n_users, self.rank), dtype=torch.float64)

    def _score(self, theta: Tensor, basis: Tensor) -> Tensor:
        return self.design.features @ torch.cat([theta[:, None], basis], dim=1).to(self.design.features.dtype)

    def _solve(self, block: UserBlock, score: Tensor) -> tuple[Tensor, Primal]:
        first, second = self.design.chosen[block.rows], self.design.rejected[block.rows]
        difference = (score[first] - score[second]).double()
        rows, unit = difference[:, 1:], difference.new_ones(self.rank)
        solved = solve_primal(block, rows, difference[:, 0], unit, self.mode[block.user], self.likelihood)
        self.mode[block.user] = solved.mode
        return rows, solved

    @one_thread()
    def posterior(self, theta: Tensor, basis: Tensor) -> Posterior:
        score = self._score(theta, basis)
        eye = torch.eye(self.rank, dtype=torch.float64, device=score.device)
        covariance = eye.expand(self.design.n_users, -1, -1).clone()
        evidence = self.mode.new_zeros(self.design.n_users)
        for block in self.blocks:
            _, solved = self._solve(block, score)
            covariance[block.user], evidence[block.user] = solved.covariance(), solved.evidence
        return Posterior(self.mode.clone(), covariance, evidence)

    def value_and_gradient(self, theta: Tensor, basis: Tensor) -> tuple[float, Tensor, Tensor]:
        """Evidence, and its derivatives with respect to theta and V."""
        score = self._score(theta, basis)
        slope = score.new_empty((self.design.n_rows, 1 + self.rank))
        value = 0.0
        with one_thread():
            for block in self.blocks:
                rows, solved = self._solve(block, score)
                value += float(solved.evidence.sum())
                slope[block.rows] = self._slopes(block, rows, solved).to(slope.dtype)
        pulled = self.design.pull(slope).double()
        return value, pulled[0], pulled[1:].T

    def _slopes(self, block: UserBlock, rows: Tensor, solved: Primal) -> Tensor:
        """Derivative of the evidence with respect to every row's margin, and to its coordinates D V."""
        mode, covariance = solved.mode[block.owner], solved.covariance()
        slope = block.slope(solved.margin, self.likelihood)
        spread = block.flat(block.pad(rows) @ covariance)
        bend = self._bend(block, rows, spread, solved.margin)
        # The mode moves by S (what its own gradient moves); `pushed` is S times the evidence's pull on the mode.
        pushed = (covariance @ block.total(bend[:, None] * rows)[..., None])[..., 0][block.owner]
        curved = block.curvature(solved.margin, self.likelihood).times(
            torch.cat([(rows * pushed).sum(1, keepdim=True), spread], dim=1)
        )
        along = (slope + bend)[:, None] - curved[:, :1]
        return torch.cat([along, along * mode + slope[:, None] * pushed - curved[:, 1:]], dim=1)

    def _bend(self, block: UserBlock, rows: Tensor, spread: Tensor, margin: Tensor) -> Tensor:
        """Derivative of -tr(S Z' W Z) / 2 with respect to the margins, on which W depends."""
        weight, decisions = block.weight[block.decisions.index], block.decisions
        with torch.enable_grad():
            at = margin.detach().requires_grad_()
            a, b = self.likelihood.curvature(at[:, None], decisions)
            each = a[:, 0] * (rows * spread).sum(1)
            if b is not None:
                each = each - b[:, 0] * (spread * decisions.sum(b * rows)[decisions.index]).sum(1)
            (gradient,) = torch.autograd.grad(-(weight * each).sum() / 2, at)
        return gradient
