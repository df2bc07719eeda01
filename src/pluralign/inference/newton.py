"""Newton's method on stacked heads, for few dimensions: exact Hessians, one Cholesky factor per head, float64.

The negative Hessian of a head is sum_rows a x x' - sum_decisions (sum b x)(sum b x)' + ridge, with (a, b) from
`Likelihood.curvature`. Margins are linear in theta, so that halving a step costs no pass over the features.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.inference.stack import Stack

_BLOCK = 2**20  # numbers in a block of curvature-weighted differences: 8 MiB of float64
_ROUNDING = 1e-12  # value differences below this, relative, are rounding


def hessian(stack: Stack, margin: Float[Tensor, "rows heads"]) -> Float[Tensor, "heads dim dim"]:
    """Negative Hessian of every head's summed objective, the ridge included."""
    design, (heads, dim) = stack.design, stack.center.shape
    total = torch.diag_embed(stack.ridge[:, None].expand(-1, dim)).clone()
    rows = torch.arange(design.n_rows, device=margin.device)
    for block in design.decisions.blocks(max(64, _BLOCK // (heads * dim))):
        weight = stack.weights(block)
        x = design.differences(rows[block.rows])
        if stack.scale is not None:
            x = x * stack.scale[block.rows, None]
        a, b = stack.likelihood.curvature(margin[block.rows], block.within)
        a = a * (weight if block.within.pairwise else weight[block.within.index])
        scaled = (a[:, :, None] * x[:, None, :]).reshape(len(x), heads * dim)
        total += (scaled.T @ x).reshape(heads, dim, dim)
        if b is not None:
            mean = block.within.sum(b[:, :, None] * x[:, None, :]).permute(1, 2, 0)
            total -= (mean * weight.T[:, None, :]) @ mean.transpose(1, 2)
    return total


def solve(matrix: Float[Tensor, "heads dim dim"], right: Float[Tensor, "heads dim"]) -> Float[Tensor, "heads dim"]:
    """Solve positive semi-definite systems, along a flat direction as if it had a tiny ridge."""
    scale = matrix.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-300)
    eye = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    for jitter in (0.0, 1e-10, 1e-6, 1e-2):
        factor, info = torch.linalg.cholesky_ex(matrix + (jitter * scale)[:, None, None] * eye)
        if not info.any():
            break
    return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]


def fit_newton(
    stack: Stack, theta: Float[Tensor, "heads dim"], *, tolerance: float, max_passes: int
) -> tuple[Float[Tensor, "heads dim"], int, Tensor]:
    """Maximise from `theta`; stop where the gradient is small and the next step would gain under 1e-13 nats a decision.

    Returns:
        Heads (heads, dim), passes over the features, and whether each head converged, (heads,).
    """
    theta = theta.clone()
    converged = torch.zeros(len(theta), dtype=torch.bool, device=theta.device)
    active = torch.arange(len(theta), device=theta.device)
    part, at = stack, theta.clone()
    margin = part.margins(at)
    value = _value(part, margin, at)
    passes = 1
    while True:
        gradient = part.gradient(part.slopes(margin), at)
        direction = solve(hessian(part, margin) / part.total[:, None, None], gradient)
        gain = (direction * gradient).sum(1) / 2
        done = (gradient.abs().amax(1) <= tolerance) & (gain <= 1e-13)
        if done.any():
            theta[active] = at
            converged[active[done]] = True
            keep = (~done).nonzero()[:, 0]
            active, part, at, margin, value = active[keep], part.take(keep), at[keep], margin[:, keep], value[keep]
            direction, gain = direction[keep], gain[keep]
        if not len(active) or passes >= max_passes:
            break
        along = part.along(direction)
        passes += 1
        step = torch.ones_like(gain)
        for _ in range(30):
            reached = _value(part, margin + step * along, at + step[:, None] * direction)
            enough = reached >= value + 1e-4 * step * gain - _ROUNDING * (1 + value.abs())
            if enough.all():
                break
            step = torch.where(enough, step, step / 2)
        step = torch.where(enough, step, 0.0)  # no way up along this line: leave the head where it is
        at, margin, value = at + step[:, None] * direction, margin + step * along, torch.where(enough, reached, value)
    theta[active] = at
    return theta, passes, converged


def _value(
    stack: Stack, margin: Float[Tensor, "rows heads"], theta: Float[Tensor, "heads dim"]
) -> Float[Tensor, " heads"]:
    """Mean objective of every head."""
    away = (theta - stack.center).square().sum(1)
    return (stack.log_prob(margin) - stack.ridge / 2 * away) / stack.total
