"""Users who differ in a few shared directions: theta and V of (theta + V w_u) . phi, w_u ~ N(0, I_r).

theta and V maximise the Laplace evidence (`gaussian_evidence`), with a Gaussian prior on the entries of V that decides
what happens where the items say nothing. V begins at the leading directions of the users' score vectors
g_u = D_u' (y - p) at the pooled reward: under the model sum_u g_u g_u' exceeds its expectation sum_u H_u by
sum_u H_u V V' H_u, H_u being the user's information, which gives both the directions and their size. Nothing is random.

V and V R are one model for a rotation R: V is returned with its columns sorted by how much of the margins' variance
each explains, and uncorrelated in that sense.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.gaussian_blocks import user_blocks
from pluralign.inference.gaussian_evidence import curvature_sample, maximise_evidence, posterior
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Likelihood, Logit
from pluralign.users.gaussian import Basis


@dataclass(frozen=True, eq=False, kw_only=True)
class BasisFit:
    """A fitted `Basis`.

    Attributes:
        model: The users.
        evidence: Laplace log marginal likelihood, in nats.
        pooled_evidence: Log-likelihood of the pooled fit, the evidence at V = 0.
        strength: Prior standard deviation of a margin along each direction, in nats of reward, largest first, (rank,).
        converged: Whether the optimizer met its tolerance.
    """

    model: Basis
    evidence: float
    pooled_evidence: float
    strength: tuple[float, ...]
    converged: bool


def fit_basis(
    design: Design,
    rank: int,
    *,
    ridge: float = 1.0,
    ridge_basis: float | None = None,
    start: Float[Tensor, " dim"] | None = None,
    likelihood: Likelihood | None = None,
    max_evaluations: int = 200,
    tolerance: float = 1e-7,
) -> BasisFit:
    """Fit theta and V by empirical Bayes, and every user's posterior.

    Args:
        design: Rows and features, (items, dim).
        rank: Number of directions; 0 is the pooled model.
        ridge: Precision of the Gaussian prior of theta around 0.
        ridge_basis: Precision of that of every entry of V; None takes `ridge`.
        start: The pooled theta, (dim,), where it is known; None fits it.
        likelihood: Logit (Bradley-Terry, multinomial) by default.
        max_evaluations: Evaluations of the evidence (passes over the features) after which to stop.
        tolerance: Stop when a step gains less than this part of the evidence.

    Raises:
        ConfigError: A rank below 0 or above the number of features.
    """
    if not 0 <= rank <= design.dim:
        raise ConfigError(f"rank is {rank}; it must be from 0 to the number of features, {design.dim}")
    likelihood = likelihood or Logit()
    if start is None:
        start = fit_heads(design, ridge=design.features.new_tensor([ridge]), likelihood=likelihood).theta[0]
    start = start.to(design.features.dtype)
    empty = start.new_zeros((design.dim, 0))
    pooled = float(posterior(design, start, empty, likelihood).evidence.sum())
    theta, basis, evidence, converged = start, empty, pooled, True
    if rank:
        best = maximise_evidence(
            design,
            start,
            score_directions(design, start, rank, likelihood),
            pattern="free",
            ridge=ridge,
            ridge_basis=ridge if ridge_basis is None else ridge_basis,
            likelihood=likelihood,
            max_evaluations=max_evaluations,
            tolerance=tolerance,
        )
        theta, basis, evidence, converged = best.theta, best.basis, best.log_prob, best.converged
    basis, strength = _by_strength(design, basis)
    found = posterior(design, theta, basis, likelihood)
    return BasisFit(
        model=Basis(theta=theta, basis=basis, mean=found.mean.to(theta), covariance=found.covariance.to(theta)),
        evidence=evidence,
        pooled_evidence=pooled,
        strength=tuple(strength.tolist()),
        converged=converged,
    )


def score_directions(
    design: Design, theta: Float[Tensor, " dim"], rank: int, likelihood: Likelihood
) -> Float[Tensor, "dim rank"]:
    """Moment estimate of V from the users' scores at the pooled theta (module docstring)."""
    information = curvature_sample(design, theta, likelihood)
    lift = 1e-3 * information.diagonal().mean() + 1e-12
    factor = torch.linalg.cholesky(information + lift * torch.eye(design.dim).to(information))
    score = design.features @ theta
    excess = information.new_zeros((design.dim, design.dim))
    for block in user_blocks(design, lambda width: width * design.dim):
        margin = score[design.chosen[block.rows]] - score[design.rejected[block.rows]]
        rows = block.pad(design.differences(block.rows))
        each = (block.pad(block.slope(margin, likelihood))[:, None] @ rows)[:, 0]
        whitened = torch.linalg.solve_triangular(factor, each.double().T, upper=False)
        excess += whitened @ whitened.T
    weight = design.features.new_zeros(design.n_users).index_add_(0, design.user, design.weight).double()
    share = float((weight / weight.sum()).square().sum())
    size, direction = torch.linalg.eigh(excess)
    # A direction that shows no excess still begins a little away from 0, where the gradient vanishes.
    size = ((size.flip(0)[:rank] - 1) / share).clamp(min=0.01 * float((size[-1] - 1).clamp(min=1e-3)) / share)
    whole = torch.linalg.solve_triangular(factor.T, direction.flip(1)[:, :rank].contiguous(), upper=True)
    return (whole * size.sqrt()).to(theta.dtype)


def _by_strength(design: Design, basis: Float[Tensor, "dim rank"]) -> tuple[Tensor, Tensor]:
    """Rotate V so that its columns explain margins one after the other; what each explains, as a standard deviation."""
    coordinate = (design.features @ basis).double()
    rows = coordinate[design.chosen] - coordinate[design.rejected]
    variance, turn = torch.linalg.eigh(rows.T @ rows / max(1, design.n_rows))
    turned = basis.double() @ turn.flip(1)
    # The sign is free too: the largest entry of every direction is positive.
    largest = turned.gather(0, turned.abs().argmax(0, keepdim=True)) if basis.shape[1] else turned[:1]
    return (turned * torch.where(largest < 0, -1.0, 1.0)).to(basis.dtype), variance.flip(0).clamp(min=0).sqrt()
