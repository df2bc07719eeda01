"""One head per user, each fitted to that user's decisions alone, shrunk to a common center.

Lock-step over disjoint users wastes memory traffic, because each sees its own rows. Users with few rows are instead
solved in one number per row, many at a time (`gaussian_blocks.solve_dual`: their heads lie in the span of their own
feature differences); a user with many rows is fitted alone, the differences in cache for all passes, with the
preconditioner that all users share.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.features.design import Differences
from pluralign.inference.gaussian_blocks import UserBlock, solve_dual, user_blocks
from pluralign.inference.lbfgs import fit_lbfgs, preconditioner_of
from pluralign.inference.stack import Stack
from pluralign.likelihoods import Likelihood, Logit

_DUAL_ROWS = 400  # up to so many rows a Newton step in the rows is cheaper than passes over them


def fit_disjoint(
    design: Design,
    *,
    ridge: float,
    center: Float[Tensor, " dim"] | None = None,
    likelihood: Likelihood | None = None,
    tolerance: float = 1e-5,
    max_passes: int = 200,
) -> Float[Tensor, "users dim"]:
    """Maximise, for every user, log P(own decisions | theta) - ridge / 2 |theta - center|^2.

    Args:
        design: Rows and features.
        ridge: Precision of the Gaussian prior around `center`, above 0.
        center: Prior mean; None means 0. A user without decisions gets it.
        likelihood: Logit by default.
        tolerance: Largest gradient entry of a user's mean objective; users with few rows are fitted closer.
        max_passes: Most passes over one user's rows.

    Raises:
        ConfigError: The ridge is not above 0.
    """
    if not ridge > 0:
        raise ConfigError(f"ridge is {ridge:g}; with one head per user it must be above 0")
    likelihood = likelihood or Logit()
    center = design.features.new_zeros(design.dim) if center is None else center
    base = design.margins(center[None])[:, 0]
    theta = center.repeat(design.n_users, 1)
    size = torch.bincount(design.user[design.decisions.index], minlength=design.n_users)
    few, many = (size <= _DUAL_ROWS).nonzero()[:, 0], (size > _DUAL_ROWS).nonzero()[:, 0]
    tau = ridge**-0.5
    for block in user_blocks(design, lambda rows: 3 * rows**2 + 2 * rows * design.dim, few):
        padded = block.differences(design)
        start = theta.new_zeros((block.count, block.width))
        alpha = solve_dual(block, padded @ padded.mT, base[block.rows], tau, start, likelihood, exact=False).alpha
        theta[block.user] += (alpha[:, None] @ padded)[:, 0] / ridge
    shared = preconditioner_of(design) if len(many) else None
    for block in user_blocks(design, lambda rows: rows * design.dim, many, block_floats=1):
        stack = Stack(
            design=_own(design, block),
            likelihood=likelihood,
            ridge=center.new_tensor([ridge]),
            center=center[None],
            group=block.decision_owner,
            group_weight=None,
        )
        fit = fit_lbfgs(stack, center[None], tolerance=tolerance, max_passes=max_passes, preconditioner=shared)
        theta[block.user] = fit[0]
    return theta


def _own(design: Design, block: UserBlock) -> Differences:
    """The rows of a block as a design of their own."""
    return Differences.of_rows(
        design.differences(block.rows),
        block.decisions,
        block.decision_owner,
        block.weight,
        block.decision_owner,
        block.count,
    )
