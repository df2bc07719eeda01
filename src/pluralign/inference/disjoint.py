"""One head per user, each fitted to that user's decisions alone, shrunk to a common center.

Lock-step over disjoint users wastes memory traffic, because each sees its own rows. Users with few rows are instead
solved in one number per row, many at a time (`gaussian_blocks.solve_dual`: their heads lie in the span of their own
feature differences); users with many rows one after the other, their differences in cache for all passes
(`subspace`), with the preconditioner that all users share.
"""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.features.design import Differences
from pluralign.inference.gaussian_blocks import UserBlock, solve_dual, user_blocks
from pluralign.inference.lbfgs import Preconditioner, fit_lbfgs, rough_preconditioner_of
from pluralign.inference.stack import Stack
from pluralign.inference.subspace import Derivatives, fit_subspace
from pluralign.likelihoods import Decisions, Likelihood, Logit

_DUAL_FLOATS = 2**21
_LARGE = 2**21  # numbers, 8 MiB of float32; smaller matrices come from memory that malloc has kept
_DUAL_ROWS = 140  # of pairs; up to so many a Newton step in the rows is cheaper than passes over them
_DUAL_CHOICE_ROWS = 400  # of decisions among several items, whose passes cost more


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
    if center is None:
        center, base = design.features.new_zeros(design.dim), design.features.new_zeros(design.n_rows)
    else:
        base = design.margins(center[None])[:, 0]
    theta = center.repeat(design.n_users, 1)
    size = torch.bincount(design.user[design.decisions.index], minlength=design.n_users)
    by_pairs = design.decisions.pairwise and theta.device.type == "cpu"
    dual = size <= (_DUAL_ROWS if by_pairs else _DUAL_CHOICE_ROWS)
    few, many = dual.nonzero()[:, 0], (~dual).nonzero()[:, 0]
    tau = ridge**-0.5
    blocks = (
        user_blocks(design, lambda rows: 3 * rows**2 + 2 * rows * design.dim, few, _DUAL_FLOATS) if len(few) else []
    )
    for block in blocks:
        padded = block.differences(design)
        start = theta.new_zeros((block.count, block.width))
        alpha = solve_dual(block, padded @ padded.mT, base[block.rows], tau, start, likelihood, exact=False).alpha
        theta[block.user] += (alpha[:, None] @ padded)[:, 0] / ridge
    if not len(many):
        return theta
    shared = rough_preconditioner_of(design)
    if by_pairs:
        theta[many] += _offsets(design, many, base, ridge, shared, likelihood, tolerance, max_passes)
        return theta
    for block in user_blocks(design, lambda rows: rows, many, block_floats=1):  # a user each
        stack = _alone(design, block, ridge, center, likelihood)
        fit = fit_lbfgs(stack, stack.center, tolerance=tolerance, max_passes=max_passes, preconditioner=shared)
        theta[block.user] = fit[0]
    return theta


def _offsets(
    design: Design,
    users: Int[Tensor, " some"],
    base: Float[Tensor, " rows"],
    ridge: float,
    shared: Preconditioner,
    likelihood: Likelihood,
    tolerance: float,
    max_passes: int,
) -> Float[Tensor, "some dim"]:
    """What users' heads add to the margins `base`, where every decision is a pair; one user after the other."""
    user, whole = design.user.numpy(), design.decisions
    size = np.bincount(user, minlength=design.n_users)
    total = np.bincount(user, design.weight.numpy(), minlength=design.n_users)[users.numpy()].clip(1e-12)
    order, stop = torch.argsort(design.user, stable=True), size.cumsum()
    # A user's numbers side by side: picked out one user after the other they are in no cache.
    decisions = Decisions(index=whole.index, outcome=whole.outcome[order], position=whole.position[order])
    weight, base = design.weight[order], base[order]
    levels = shared.levels(ridge / torch.from_numpy(total))
    memory = base.new_empty((int(size[users.numpy()].max()), design.dim))
    found = []
    for person, mass, level in zip(users.tolist(), total.tolist(), levels, strict=True):
        n = int(size[person])
        own = slice(int(stop[person]) - n, int(stop[person]))
        differences = design.differences(order[own], memory[:n] if n * design.dim > _LARGE else None)
        found.append(
            fit_subspace(
                differences.numpy(),
                base.numpy()[own],
                _derivatives(decisions.take(own, own), weight[own], likelihood),
                total=mass,
                ridge=ridge,
                precondition=partial(np.dot, shared.inverse(level).numpy()),
                tolerance=tolerance,
                max_passes=max_passes,
            )
        )
    return torch.from_numpy(np.stack(found))


def _derivatives(own: Decisions, weight: Float[Tensor, " rows"], likelihood: Likelihood) -> Derivatives:
    """Of the log-likelihood of some pairs in their margins."""
    if isinstance(likelihood, Logit):  # most fits; on a thousand rows torch's calls take as long as the features
        half = weight.numpy() / 2
        start = 2 * half * own.outcome.numpy() - half

        def logit(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # With t = 2 p - 1: w (y - p) = w (y - 1/2) - w t / 2, and w p (1 - p) = w (1 - t^2) / 4.
            t = np.tanh(0.5 * margin)  # exp would overflow
            pull = half * t
            slope = start - pull
            pull *= t
            return slope, 0.5 * (half - pull)

        return logit

    def general(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        column = torch.from_numpy(margin)[:, None]
        slope, (curvature, _) = likelihood.slope(column, own), likelihood.curvature(column, own)
        return (weight * slope[:, 0]).numpy(), (weight * curvature[:, 0]).numpy()

    return general


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
