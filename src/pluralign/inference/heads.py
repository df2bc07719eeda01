"""Fit many linear heads at once: the one solver under `pooled`, the clusters' M-step, ridge paths and folds.

Every head k maximises

    sum_decisions weight[decision] group_weight[group[decision], k] log P(decision | theta_k)
        - ridge_k / 2 |theta_k - center_k|^2

so that cross-validation folds, cluster memberships and ridge candidates are all heads of one problem, and one pass
over the features serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.features import Design
from pluralign.likelihoods import Likelihood, Logit


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadsFit:
    """Fitted heads.

    Attributes:
        theta: (heads, dim).
        log_prob: Weighted log-likelihood of every head at the optimum, without the ridge term, in nats, (heads,).
        passes: Passes over the features.
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
        likelihood: Logit (Bradley-Terry, multinomial) by default.
        tolerance: Stop when the largest gradient entry of the mean (not summed) objective is below this.
        max_passes: Stop a run that does not converge; `converged` then says which heads did not.
    """
    likelihood = likelihood or Logit()
    heads, dim = ridge.numel(), design.dim
    center = design.features.new_zeros((heads, dim)) if center is None else center
    theta = (center if start is None else start).clone().requires_grad_(False)
    if group_weight is None:
        weight = design.weight[:, None].expand(-1, heads)
    else:
        weight = design.weight[:, None] * group_weight[design.user if group is None else group]
    total = weight.sum(0).clamp(min=1e-12)
    passes = 0

    def value_and_gradient(at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        margin = design.margins(at)
        log_prob = (weight * likelihood.log_prob(margin, design.decisions)).sum(0)
        slope = likelihood.slope(margin, design.decisions) * weight[design.decisions.index]
        away = at - center
        value = log_prob - ridge / 2 * (away**2).sum(1)
        return value / total, (design.pull(slope) - ridge[:, None] * away) / total[:, None], log_prob

    # A plain L-BFGS on the sum of the heads' mean objectives.
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=max_passes,
        tolerance_grad=tolerance,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
        max_eval=2 * max_passes,
    )

    def closure() -> Tensor:
        nonlocal passes
        passes += 1
        value, gradient, _ = value_and_gradient(theta)
        theta.grad = -gradient
        return -value.sum()

    optimizer.step(closure)
    _, gradient, log_prob = value_and_gradient(theta)
    return HeadsFit(theta=theta, log_prob=log_prob, passes=passes, converged=gradient.abs().amax(1) <= tolerance)
