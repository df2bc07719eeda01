"""Fit many linear heads at once: the one solver under `pooled`, the clusters' M-step, ridge paths and folds.

Every head k maximises

    sum_decisions weight[decision] group_weight[group[decision], k] log P(decision | theta_k)
        - ridge_k / 2 |theta_k - center_k|^2

so that cross-validation folds, cluster memberships and ridge candidates are all heads of one problem, and one pass
over the features serves them all. Below 100 dimensions the fit is Newton's in float64 (`newton.py`), above it
preconditioned L-BFGS in the dtype of the features (`lbfgs.py`). Heads go in blocks whose (rows, heads) buffers take no
more than the feature matrix (or 16 MiB); with `Design.compact` the peak stays below three feature matrices.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.lbfgs import fit_lbfgs
from pluralign.inference.newton import fit_newton
from pluralign.inference.stack import Stack
from pluralign.likelihoods import Likelihood, Logit

EXACT_DIM = 100  # below this many dimensions fits are in float64, and by Newton where Hessians are cheap
_EXACT_WORK = 2e11  # rows * dim^2 * heads above which L-BFGS, to a tight tolerance, is quicker
_ROOM = 2**22  # numbers that the (rows, heads) buffers may take however small the feature matrix: 16 MiB of float32


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadsFit:
    """Fitted heads.

    Attributes:
        theta: (heads, dim).
        log_prob: Weighted log-likelihood of every head at the optimum, without the ridge term, in nats, float64,
            (heads,).
        passes: Passes over the features, forward and back.
        converged: Whether each head met the tolerance, (heads,).
    """

    theta: Float[Tensor, "heads dim"]
    log_prob: Float[Tensor, " heads"]
    passes: int
    converged: Tensor


def fit_heads(
    design: Design,
    *,
    ridge: Float[Tensor, " heads"],
    group: Int[Tensor, " decisions"] | None = None,
    group_weight: Float[Tensor, "groups heads"] | None = None,
    center: Float[Tensor, "heads dim"] | None = None,
    start: Float[Tensor, "heads dim"] | None = None,
    scale: Float[Tensor, " rows"] | None = None,
    offset: Float[Tensor, " rows"] | None = None,
    likelihood: Likelihood | None = None,
    tolerance: float = 1e-5,
    max_passes: int = 200,
) -> HeadsFit:
    """Maximise the penalised likelihood of every head (module docstring).

    Args:
        design: Rows and features.
        ridge: Precision of the Gaussian prior around `center`, at least 0, (heads,).
        group: Group of every decision, (decisions,): its user, its fold, ... None with `group_weight` means the user.
        group_weight: Weight of every group in every head, (groups, heads); None means 1.
        center: Prior mean of every head; None means 0.
        start: Where to begin; None means `center`.
        scale: What every margin is multiplied by, (rows,); None means 1.
        offset: What is then added to it, (rows,); None means 0.
        likelihood: Logit (Bradley-Terry, multinomial) by default.
        tolerance: Stop when the largest gradient entry of the mean (not summed) objective is below this, or what is
            left to gain is below rounding. Below 100 dimensions fits go on to about 1e-13 nats a decision.
        max_passes: Stop a run that does not converge; `converged` then says which heads did not.

    Raises:
        ConfigError: A ridge is negative.
    """
    heads, dim = ridge.numel(), design.dim
    if bool((ridge < 0).any()):
        raise ConfigError(f"ridge is {float(ridge.min()):g}; a prior precision is at least 0")
    exact = dim < EXACT_DIM and design.n_rows * dim**2 * heads <= _EXACT_WORK
    fitted = design.double if dim < EXACT_DIM else design.compact
    dtype, device = fitted.features.dtype, fitted.features.device
    center = torch.zeros((heads, dim), dtype=dtype, device=device) if center is None else center.to(dtype)
    start = center if start is None else start.to(dtype)
    stack = Stack(
        design=fitted,
        likelihood=likelihood or Logit(),
        ridge=ridge.to(dtype),
        center=center,
        group=design.user if group is None else group,
        group_weight=None if group_weight is None else group_weight.to(dtype),
        scale=None if scale is None else scale.to(dtype),
        offset=None if offset is None else offset.to(dtype),
    )
    items = len(fitted.features)
    width = max(8, max(items * dim, _ROOM) // (3 * design.n_rows + 2 * items + 1))
    parts = []
    for some in torch.arange(heads, device=device).split(width):
        part = stack.take(some) if width < heads else stack
        if exact:
            theta, passes, converged = fit_newton(part, start[some], tolerance=tolerance, max_passes=max_passes)
            log_prob = part.log_prob(part.margins(theta))
        else:
            tight = tolerance if dim >= EXACT_DIM else min(tolerance, 1e-9)
            theta, log_prob, passes, converged = fit_lbfgs(part, start[some], tolerance=tight, max_passes=max_passes)
        parts.append((theta, log_prob, passes, converged))
    return HeadsFit(
        theta=torch.cat([part[0] for part in parts]).to(design.features.dtype),
        log_prob=torch.cat([part[1] for part in parts]),
        passes=max(part[2] for part in parts),
        converged=torch.cat([part[3] for part in parts]),
    )
