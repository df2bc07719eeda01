"""A vector for every user, shrunk to the common one: o_u ~ N(0, Sigma), Sigma from the data (empirical Bayes).

In low dimension Sigma is tau^2 I, diagonal or any covariance, and (theta, Sigma) maximise the Laplace evidence: the
hierarchical logit. In high dimension Sigma = tau^2 I: the modes of all users come from one batched Newton, on one
number per row where a user has fewer rows than features (`offset_panel`). tau is first sought by the evidence of a
sample of users over a grid; then theta is refitted at the joint mode, for next to personal offsets the common reward is
larger than the pooled one, which had to pass people's disagreement off as noise; and there tau climbs by the evidence
of all users. tau = 0, the pooled model, is a candidate.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.gaussian_evidence import Pattern, curvature_sample, maximise_evidence, posterior
from pluralign.inference.heads import fit_heads
from pluralign.inference.offset_panel import OffsetPanel
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
        taus: Prior standard deviations tried on all users (isotropic, high dimension), 0 first, (candidates,).
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
    panel = OffsetPanel(design, likelihood)
    pooled = panel.pooled(start)
    theta, tried, converged = start, {0.0: pooled}, True
    if tau is None:
        tau, seen = _guess(panel.sample, theta)
        if not seen:
            tau = _climb(panel, theta, tau, tried)
        if seen or max(tried.values()) > pooled:
            theta, _ = panel.settle(theta, tau, ridge, max_evaluations, tolerance=1e-5)
            tau = _climb(panel, theta, tau, tried)
            theta, converged = panel.settle(theta, tau, ridge, max_evaluations)
        else:
            tau = 0.0
    elif tau > 0:
        theta, converged = panel.settle(theta, tau, ridge, max_evaluations)
    model, evidence = panel.posterior(theta, tau, principal_axes(design, theta, likelihood))
    if tau == 0 or (len(tried) > 1 and evidence <= pooled):
        model, evidence = panel.model(start, 0.0, model.axes), pooled
    order = sorted(tried)
    return IndividualFit(
        model=_in_dtype(model, dtype),
        evidence=evidence,
        pooled_evidence=pooled,
        taus=tuple(order),
        tau_evidence=tuple(tried[t] for t in order),
        converged=converged,
    )


def _guess(panel: OffsetPanel, theta: Tensor) -> tuple[float, bool]:
    """The tau of the grid with the best evidence, to a parabola's top, and whether it is better than the pooled one."""
    unit, found = float(margin_unit(panel.design)), dict[float, float]()
    for scale in MARGIN_SCALES:
        found[scale / unit] = panel.solve(theta, scale / unit)[0]
        if found[scale / unit] < max(found.values()) - 10:
            break  # the evidence has one peak along tau, and it is behind us
    best = max(found, key=lambda t: found[t])
    return _top(found, best), found[best] > panel.pooled(theta)


def _top(found: dict[float, float], best: float) -> float:
    """The top of the parabola in log tau through the best and its neighbours; the best itself at an end."""
    at = sorted(found)
    i = at.index(best)
    if not 0 < i < len(at) - 1:
        return best
    left, right = math.log(at[i - 1] / best), math.log(at[i + 1] / best)
    down, up = (found[at[i - 1]] - found[best]) / left, (found[at[i + 1]] - found[best]) / right
    bend = (up - down) / (right - left)
    if bend >= 0:
        return best
    slope = (right * down - left * up) / (right - left)
    return best * math.exp(min(right, max(left, -slope / bend / 2)))


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


def _climb(panel: OffsetPanel, theta: Tensor, tau: float, tried: dict[float, float]) -> float:
    """Walk along tau at a new theta until the evidence falls on both sides, then to a parabola's top."""
    step, here = 2**0.5, {tau: panel.solve(theta, tau)[0]}
    for factor in (step, 1 / step):
        at = tau
        while here[at] >= max(here.values()) and len(here) < 12:
            at *= factor
            here[at] = panel.solve(theta, at)[0]
    tried.update(here)
    return _top(here, max(here, key=lambda t: here[t]))
