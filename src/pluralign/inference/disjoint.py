"""One head per user, each fitted to that user's decisions alone, shrunk to a common center.

Lock-step over disjoint users wastes memory traffic, because each sees its own rows. Users with few rows are instead
solved in one number per row, many at a time (`gaussian_blocks.solve_dual`: their heads lie in the span of their own
feature differences); of users with many rows a few are fitted at a time, their differences in cache for all passes,
with the preconditioner that all users share.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.features.design import Differences
from pluralign.inference.gaussian_blocks import UserBlock, solve_dual, user_blocks
from pluralign.inference.lbfgs import fit_lbfgs, preconditioner_of
from pluralign.inference.stack import Stack
from pluralign.likelihoods import Decisions, Likelihood, Logit

_ABREAST_FLOATS = 2**22  # features of users whose passes go in lock-step, 16 MiB of float32: they stay in cache
_DUAL_FLOATS = 2**21
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
    for block in user_blocks(design, lambda rows: 3 * rows**2 + 2 * rows * design.dim, few, _DUAL_FLOATS):
        padded = block.differences(design)
        start = theta.new_zeros((block.count, block.width))
        alpha = solve_dual(block, padded @ padded.mT, base[block.rows], tau, start, likelihood, exact=False).alpha
        theta[block.user] += (alpha[:, None] @ padded)[:, 0] / ridge
    shared = preconditioner_of(design) if len(many) else None
    abreast = design.decisions.pairwise and design.decisions.sure
    for block in user_blocks(design, lambda rows: rows * design.dim, many, _ABREAST_FLOATS if abreast else 1):
        stack = (_abreast if abreast else _alone)(design, block, ridge, center, likelihood)
        fit = fit_lbfgs(stack, stack.center, tolerance=tolerance, max_passes=max_passes, preconditioner=shared)
        theta[block.user] = fit[0]
    return theta


def _alone(design: Design, block: UserBlock, ridge: float, center: Tensor, likelihood: Likelihood) -> Stack:
    """The head of the one user of a block."""
    own = Differences.of_rows(
        design.differences(block.rows),
        block.decisions,
        block.decision_owner,
        block.weight,
        block.decision_owner,
        block.count,
    )
    return Stack(
        design=own,
        likelihood=likelihood,
        ridge=center.new_tensor([ridge]),
        center=center[None],
        group=own.user,
        group_weight=None,
    )


def _abreast(design: Design, block: UserBlock, ridge: float, center: Tensor, likelihood: Likelihood) -> Stack:
    """The heads of all users of a block, whose decisions are pairs with the first item preferred.

    Row r of head k is row r of user k; a user with fewer rows has rows of weight 0.
    """
    rows = torch.arange(block.width, device=center.device)
    ones = center.new_ones(block.width)
    own = _Abreast(
        features=block.differences(design).flatten(0, 1),
        chosen=rows,
        rejected=rows,
        decisions=Decisions(index=rows, outcome=ones, position=0 * ones),
        user=rows,
        weight=ones,
        source=rows,
        n_users=block.width,
        heads=tuple(range(block.count)),
    )
    return Stack(
        design=own,
        likelihood=likelihood,
        ridge=center.new_full((block.count,), ridge),
        center=center.expand(block.count, -1),
        group=rows,
        group_weight=block.pad(block.weight).T.contiguous(),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Abreast(Design):
    """A design in which every head has rows of its own: differences of users side by side, (users * rows, dim)."""

    heads: tuple[int, ...]

    def margins(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "rows heads"]:
        own = self.features.view(-1, self.n_rows, self.dim)
        margin = theta.new_empty((len(theta), self.n_rows))
        for row, user in enumerate(self.heads):
            torch.mv(own[user], theta[row], out=margin[row])
        return margin.T

    def pull(self, slope: Float[Tensor, "rows heads"]) -> Float[Tensor, "heads dim"]:
        own, slopes = self.features.view(-1, self.n_rows, self.dim), slope.T.contiguous()
        pulled = slope.new_empty((len(slopes), self.dim))
        for row, user in enumerate(self.heads):
            torch.mm(slopes[row : row + 1], own[user], out=pulled[row : row + 1])
        return pulled

    def of_heads(self, heads: Int[Tensor, " some"]) -> "_Abreast":
        return replace(self, heads=tuple(self.heads[head] for head in heads.tolist()))
