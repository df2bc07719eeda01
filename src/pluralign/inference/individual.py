"""A vector for every user, shrunk to the common one: o_u ~ N(0, Sigma), Sigma from the data (empirical Bayes).

In low dimension Sigma is tau^2 I, diagonal or any covariance, and (theta, Sigma) maximise the Laplace evidence: the
hierarchical logit. In high dimension Sigma = tau^2 I: the modes of all users come from one batched Newton, on one
number per row where a user has fewer rows than features (`gaussian_blocks`), tau from the evidence over a grid for
which the users' Gram matrices are formed once, and theta is then refitted at the joint mode: next to personal offsets
the common reward is larger than the pooled one, which had to pass people's disagreement off as noise. tau = 0, the
pooled model, is a candidate.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.gaussian_blocks import UserBlock, solve_dual, solve_primal, user_blocks
from pluralign.inference.gaussian_evidence import Pattern, curvature_sample, maximise_evidence, posterior
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Likelihood, Logit
from pluralign.users.gaussian import Individual, Structure

LOW_DIM = 32  # up to here posterior covariances are kept whole, and Sigma may be any
FLOAT64_DIM = 100
# Prior standard deviations of a margin that the grid of tau covers: from a taste too weak to see to one that leaves
# no doubt about any choice.
MARGIN_SCALES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)


@dataclass(frozen=True, eq=False, kw_only=True)
class IndividualFit:
    """A fitted `Individual`.

    Attributes:
        model: The users.
        evidence: Laplace log marginal likelihood, in nats.
        pooled_evidence: The same at Sigma = 0, which is the pooled log-likelihood.
        taus: Prior standard deviations tried (isotropic, high dimension), 0 first, (candidates,).
        tau_evidence: Their evidence, (candidates,), at the theta that each was tried with.
        converged: Whether the optimizer met its tolerance.
    """

    model: Individual
    evidence: float
    pooled_evidence: float
    taus: tuple[float, ...]
    tau_evidence: tuple[float, ...]
    converged: bool


def fit_individual(
    design: Design,
    *,
    ridge: float = 1.0,
    start: Float[Tensor, " dim"] | None = None,
    tau: float | None = None,
    covariance: Structure | Literal["auto"] = "auto",
    likelihood: Likelihood | None = None,
    max_evaluations: int = 200,
    tolerance: float = 1e-9,
) -> IndividualFit:
    """Fit the hierarchical logit.

    Args:
        design: Rows and features, (items, dim).
        ridge: Precision of the Gaussian prior of theta around 0.
        start: The pooled theta, (dim,), where it is known; None fits it.
        tau: Prior standard deviation of the offsets (isotropic only); None takes the one of largest evidence.
        covariance: "isotropic", "diagonal" or "full"; "auto" is "full" up to 32 features and "isotropic" above.
        likelihood: Logit (Bradley-Terry, multinomial) by default.
        max_evaluations: Evaluations of the evidence after which to stop.
        tolerance: Stop when a step gains less than this part of the evidence.

    Raises:
        ConfigError: A covariance other than isotropic above 32 features, or with a given tau; a negative tau.
    """
    if covariance == "auto":
        covariance = "full" if design.dim <= LOW_DIM and tau is None else "isotropic"
    if covariance != "isotropic" and (design.dim > LOW_DIM or tau is not None):
        raise ConfigError(
            f'covariance "{covariance}" was asked of {design.dim} features and tau = {tau}; '
            f"it is accepted up to {LOW_DIM} features, tau not given",
            hint='take covariance="isotropic", or `fit_basis`, whose covariance is any of low rank',
        )
    if tau is not None and tau < 0:
        raise ConfigError(f"tau is {tau}; it must be at least 0")
    likelihood = likelihood or Logit()
    dtype = design.features.dtype
    if design.dim < FLOAT64_DIM:
        design = design.with_features(design.features.double())
    if start is None:
        start = fit_heads(design, ridge=design.features.new_tensor([ridge]), likelihood=likelihood).theta[0]
    start = start.to(design.features.dtype)
    if design.dim <= LOW_DIM:
        return _fit_low(design, start, ridge, tau, covariance, likelihood, max_evaluations, tolerance, dtype)
    return _fit_high(design, start, ridge, tau, likelihood, max_evaluations, dtype)


def margin_unit(design: Design) -> Float[Tensor, ""]:
    """Standard deviation of a margin per unit of an isotropic prior's: root mean square length of a difference."""
    rows = torch.linspace(0, design.n_rows - 1, min(design.n_rows, 4096), device=design.features.device).long()
    return design.differences(rows).square().sum(1).mean().sqrt().clamp(min=1e-12)


def _log_likelihood(design: Design, theta: Tensor, likelihood: Likelihood) -> float:
    each = likelihood.log_prob(design.margins(theta[None]), design.decisions)[:, 0]
    return float((design.weight * each).double().sum())


def _fit_low(
    design: Design,
    start: Tensor,
    ridge: float,
    tau: float | None,
    structure: Structure,
    likelihood: Likelihood,
    max_evaluations: int,
    tolerance: float,
    dtype: torch.dtype,
) -> IndividualFit:
    pooled = _log_likelihood(design, start, likelihood)
    spread = design.differences(torch.arange(design.n_rows, device=start.device)).square().mean(0).sqrt().clamp(1e-9)
    basis = (0.5 / spread).diag() if tau is None else tau * torch.eye(design.dim, dtype=start.dtype)
    if structure == "isotropic" and tau is None:
        basis = torch.eye(design.dim, dtype=start.dtype) / margin_unit(design)
    patterns: dict[str, Pattern] = {"isotropic": "isotropic", "diagonal": "diagonal", "full": "free"}
    best = maximise_evidence(
        design,
        start,
        basis,
        pattern="fixed" if tau is not None else patterns[structure],
        ridge=ridge,
        ridge_basis=0.0,
        likelihood=likelihood,
        max_evaluations=max_evaluations,
        tolerance=tolerance,
    )
    theta, basis, evidence = best.theta, best.basis, best.log_prob
    if tau is None and evidence <= pooled:
        theta, basis, evidence = start, torch.zeros_like(best.basis), pooled
    found = posterior(design, theta, basis, likelihood)
    variance, axes = torch.linalg.eigh(basis @ basis.T)
    turn = axes.T @ basis
    model = Individual(
        theta=theta,
        axes=axes.T.contiguous(),
        scale=variance.clamp(min=0).sqrt(),
        offset=found.mean @ basis.T,
        covariance=turn @ found.covariance @ turn.T,
        structure=structure,
    )
    return IndividualFit(
        model=_in_dtype(model, dtype),
        evidence=evidence,
        pooled_evidence=pooled,
        taus=(),
        tau_evidence=(),
        converged=best.converged,
    )


def _fit_high(
    design: Design,
    start: Tensor,
    ridge: float,
    tau: float | None,
    likelihood: Likelihood,
    max_evaluations: int,
    dtype: torch.dtype,
) -> IndividualFit:
    pooled = _log_likelihood(design, start, likelihood)
    panel = OffsetPanel(design, likelihood)
    theta, tried, converged = start, {0.0: pooled}, True
    if tau is None:
        unit = float(margin_unit(design))
        for scale in MARGIN_SCALES:
            tried[scale / unit] = panel.solve(theta, scale / unit)[0]
            if tried[scale / unit] < max(tried.values()) - 10:
                break  # the evidence has one peak along tau, and it is behind us
        best = max(tried, key=lambda t: tried[t])
        if best > 0:
            theta, converged = panel.settle(theta, best, ridge, max_evaluations)
            best = _climb(panel, theta, best, tried)
            theta, converged = panel.settle(theta, best, ridge, max_evaluations)
        tau = best
    elif tau > 0:
        theta, converged = panel.settle(theta, tau, ridge, max_evaluations)
    evidence = panel.solve(theta, tau)[0] if tau > 0 else pooled
    if len(tried) > 1 and evidence <= pooled:
        theta, tau, evidence = start, 0.0, pooled
    order = sorted(tried)
    return IndividualFit(
        model=_in_dtype(panel.model(theta, tau, principal_axes(design, theta, likelihood)), dtype),
        evidence=evidence,
        pooled_evidence=pooled,
        taus=tuple(order),
        tau_evidence=tuple(tried[t] for t in order),
        converged=converged,
    )


def principal_axes(design: Design, theta: Float[Tensor, " dim"], likelihood: Likelihood) -> Float[Tensor, "dim dim"]:
    """Orthonormal rows along which an average user's curvature is diagonal."""
    return torch.linalg.eigh(curvature_sample(design, theta, likelihood)).eigenvectors.T.to(theta).contiguous()


def _in_dtype(model: Individual, dtype: torch.dtype) -> Individual:
    return replace(
        model,
        theta=model.theta.to(dtype),
        axes=model.axes.to(dtype),
        scale=model.scale.to(dtype),
        offset=model.offset.to(dtype),
        covariance=model.covariance.to(dtype),
    )


def _climb(panel: "OffsetPanel", theta: Tensor, tau: float, tried: dict[float, float]) -> float:
    """Walk along tau at a new theta until the evidence falls on both sides, then to a parabola's top."""
    step, here = 2**0.5, {tau: panel.solve(theta, tau)[0]}
    for factor in (step, 1 / step):
        at = tau
        while here[at] >= max(here.values()) and len(here) < 12:
            at *= factor
            here[at] = panel.solve(theta, at)[0]
    tried.update(here)
    best = max(here, key=lambda t: here[t])
    low, high = here.get(best / step), here.get(best * step)
    around = sorted(here)
    i = around.index(best)
    if low is None or high is None:
        low, high = (here[around[i - 1]], here[around[i + 1]]) if 0 < i < len(around) - 1 else (None, None)
    if low is None or high is None or 2 * here[best] - low - high <= 0:
        return best
    shift = (high - low) / (2 * here[best] - low - high) / 2
    return float(best * step ** min(1.0, max(-1.0, shift)))


@dataclass(eq=False)
class OffsetPanel:
    """Offsets of all users under o_u ~ N(0, tau^2 I); Gram matrices are formed once, modes kept as the next start."""

    design: Design
    likelihood: Likelihood
    users: Tensor | None = None
    blocks: list[UserBlock] = field(init=False)
    grams: list[Tensor | None] = field(init=False)
    starts: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        design = self.design
        self.blocks = user_blocks(
            design, lambda m: m * m + m * design.dim + (design.dim**2 if m > design.dim else 0), self.users
        )
        self.grams = [None] * len(self.blocks)
        self.starts = [
            design.features.new_zeros((block.count, min(block.width, design.dim)))
            if self._primal(block)
            else design.features.new_zeros((block.count, block.width))
            for block in self.blocks
        ]
        # Gram matrices that would outgrow the features are formed anew each time.
        self._room = max(design.features.numel(), 2**24)

    def _primal(self, block: UserBlock) -> bool:
        return block.width > self.design.dim

    def _gram(self, i: int) -> Tensor:
        kept = self.grams[i]
        if kept is not None:
            return kept
        padded = self.blocks[i].pad(self.design.differences(self.blocks[i].rows))
        gram = padded @ padded.mT
        if gram.numel() <= self._room:
            self._room -= gram.numel()
            self.grams[i] = gram
        return gram

    def _solve(self, i: int, base: Tensor, tau: float):  # type: ignore[no-untyped-def]
        block = self.blocks[i]
        if self._primal(block):
            rows = self.design.differences(block.rows)
            precision = rows.new_full((self.design.dim,), tau**-2)
            solved = solve_primal(block, rows, base, precision, self.starts[i], self.likelihood)
            self.starts[i] = solved.mode
            return solved
        # Between a prior that rules (alpha stays) and data that rule (tau^2 alpha stays): tau alpha stays, about.
        dual = solve_dual(block, self._gram(i), base, tau, self.starts[i] / tau, self.likelihood)
        self.starts[i] = dual.alpha * tau
        return dual

    def _base(self, theta: Tensor, block: UserBlock, score: Tensor | None = None) -> Tensor:
        score = self.design.features @ theta if score is None else score
        return score[self.design.chosen[block.rows]] - score[self.design.rejected[block.rows]]

    def _some_users(self, n_rows: int) -> Tensor:
        """Evenly spaced users who have about so many rows together."""
        users = torch.cat([block.user for block in self.blocks]).sort().values
        return users[:: max(1, self.design.n_rows // n_rows)]

    def solve(self, theta: Float[Tensor, " dim"], tau: float) -> tuple[float, float, Tensor]:
        """Evidence, joint log density at the modes, and the latter's gradient in theta (float64)."""
        score = self.design.features @ theta
        slope = score.new_empty((self.design.n_rows, 1))
        evidence = value = 0.0
        for i, block in enumerate(self.blocks):
            solved = self._solve(i, self._base(theta, block, score), tau)
            evidence += float(solved.evidence.double().sum())
            value += float(solved.value.double().sum())
            slope[block.rows, 0] = block.slope(solved.margin, self.likelihood)
        return evidence, value, self.design.pull(slope)[0].double()

    def effective(self, theta: Float[Tensor, " dim"], tau: float) -> Float[Tensor, "dim dim"]:
        """Information on theta that is left once every user's offset follows it: sum D' (W^-1 + tau^2 D D')^-1 D."""
        score, dim = self.design.features @ theta, self.design.dim
        total = score.new_zeros((dim, dim), dtype=torch.float64)
        for i, block in enumerate(self.blocks):
            solved = self._solve(i, self._base(theta, block, score), tau)
            if self._primal(block):
                total += block.count * torch.eye(dim).to(total) / tau**2
                total -= torch.cholesky_inverse(solved.factor).double().sum(0) / tau**4
                continue
            half = block.pad(block.curvature(solved.margin, self.likelihood).half(self.design.differences(block.rows)))
            flat = torch.linalg.solve_triangular(solved.factor, half, upper=False).flatten(0, 1)
            total += (flat.T @ flat).double()
        return total

    def settle(self, theta: Tensor, tau: float, ridge: float, max_evaluations: int) -> tuple[Tensor, bool]:
        """theta at the joint mode of theta and the offsets, and whether it converged."""
        sample = OffsetPanel(self.design, self.likelihood, users=self._some_users(8 * self.design.dim))
        n_rows = sum(block.rows.numel() for block in sample.blocks)
        metric = sample.effective(theta, tau) * (self.design.n_rows / n_rows)
        eye = torch.eye(self.design.dim, dtype=metric.dtype, device=metric.device)
        factor = torch.linalg.cholesky(metric + (ridge + 1e-4 * metric.diagonal().mean() + 1e-12) * eye)

        def unpack(u: np.ndarray) -> Tensor:
            right = torch.from_numpy(u).to(factor)[:, None]
            return torch.linalg.solve_triangular(factor.T, right, upper=True)[:, 0]

        def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
            at = unpack(u)
            _, value, gradient = self.solve(at.to(theta.dtype), tau)
            pulled = torch.linalg.solve_triangular(factor, (gradient - ridge * at)[:, None], upper=False)[:, 0]
            return -value + ridge / 2 * float(at.square().sum()), -pulled.cpu().numpy()

        found = minimize(
            objective,
            (factor.T @ theta.double()).cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={"maxfun": max_evaluations, "maxiter": max_evaluations, "ftol": 1e-6, "gtol": 1e-5, "maxcor": 20},
        )
        return unpack(found.x).to(theta.dtype), bool(found.status == 0)

    def model(self, theta: Float[Tensor, " dim"], tau: float, axes: Float[Tensor, "dim dim"]) -> Individual:
        """Posterior of every user, its variances along the axes (orthonormal rows)."""
        design = self.design
        offset = axes.new_zeros((design.n_users, design.dim))
        variance = torch.full_like(offset, tau**2)
        score = design.features @ theta
        for i, block in enumerate(self.blocks if tau > 0 else []):
            solved = self._solve(i, self._base(theta, block, score), tau)
            if self._primal(block):
                half = torch.linalg.solve_triangular(solved.factor, axes.T.expand(block.count, -1, -1), upper=False)
                offset[block.user] = solved.mode
                variance[block.user] = half.square().sum(1)
                continue
            rows = design.differences(block.rows)
            curved = block.pad(block.curvature(solved.margin, self.likelihood).half(rows @ axes.T))
            half = torch.linalg.solve_triangular(solved.factor, curved, upper=False)
            offset[block.user] = tau**2 * (block.pad(rows).mT @ solved.alpha[..., None])[..., 0]
            variance[block.user] = (tau**2 - tau**4 * half.square().sum(1)).clamp(min=0)
        return Individual(
            theta=theta,
            axes=axes,
            scale=torch.full_like(theta, tau),
            offset=offset,
            covariance=variance,
            structure="isotropic",
        )
