"""Which columns two groups of users weigh differently: style columns of texts, attributes of numeric items.

For every group one logit is fitted to its members and one to the others, and their difference has an interval by the
sandwich: users are what was sampled, so the score of a user (of a source, where a group has fewer than 5 users) is one
draw, and what soft members give to both sides is counted. Columns are standardised, so that a weight is in logits per
standard deviation.

`alone` fits each column by itself: "they choose the longer response", whatever else goes with length. That is right for
the 28 style columns, of which many say the same thing and few users can tell apart. `together` fits all at once: "all
else equal", right for the attributes of a designed choice. A prior of precision 1 keeps separable groups finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import ndtr, stdtr, stdtrit
from torch import Tensor

from pluralign.evaluation import holm
from pluralign.features import Design
from pluralign.inference.heads import fit_heads
from pluralign.inference.newton import hessian
from pluralign.inference.stack import Stack
from pluralign.likelihoods import Logit

FEW_USERS = 5
RIDGE = 1.0
MAX_STEPS = 30
LARGEST_STEP = 2.0


@dataclass(frozen=True, kw_only=True)
class ColumnDifference:
    """One column, weighed by a group and by the others.

    Attributes:
        name: Of the column.
        weight: The group's, in logits per standard deviation of the column.
        weight_others: The other users'.
        difference: The first minus the second.
        low: Lower end of its 95 % interval; NaN where fewer than 5 users (sources) on either side compared responses
            that differ in the column.
        high: Upper end.
        p_value: Two-sided, of no difference.
        p_adjusted: After Holm, over all columns (of all users, where each is compared).
        unit: What was sampled, "user" or "source".
    """

    name: str
    weight: float
    weight_others: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    unit: str


class _Fit(NamedTuple):
    weight: Float[Tensor, "heads columns"]
    influence: Float[Tensor, "units heads columns"]  # what a user or a source moves every weight by


def compare_columns(
    design: Design, names: Sequence[str], member: Float[np.ndarray, "users groups"], *, together: bool
) -> tuple[tuple[ColumnDifference, ...], ...]:
    """Compare each group's weights with those of the users outside it.

    Args:
        design: Rows, on standardised columns, float64.
        names: Of the columns.
        member: Probability of each group for every user, rows of zeros for users of none.
        together: Fit all columns at once rather than each alone.

    Returns:
        For every group its columns, clearest difference first.
    """
    n_groups = member.shape[1]
    others = member.sum(1, keepdims=True) - member
    weights = torch.as_tensor(np.concatenate([member, others], axis=1)).to(design.features)
    present = np.bincount(design.user.numpy(force=True), minlength=design.n_users) > 0
    sizes = (member[present] > 0.5).sum(0), (others[present] > 0.5).sum(0)
    fit = _fit_together if together else _fit_alone
    source = torch.unique(design.source, return_inverse=True)[1]
    user = torch.unique(design.user, return_inverse=True)[1]
    fits = {"user": fit(design, weights, user)}
    found = []
    for k in range(n_groups):
        few = min(int(sizes[0][k]), int(sizes[1][k]))
        unit = "user" if few >= FEW_USERS else "source"
        if unit not in fits:
            fits[unit] = fit(design, weights, source)
        here = fits[unit]
        own, theirs = here.influence[:, k], here.influence[:, n_groups + k]
        # Units that a column says anything about, on the side that has fewer: the degrees of freedom.
        n = torch.minimum((own != 0).sum(0), (theirs != 0).sum(0)).numpy(force=True)
        enough = n >= FEW_USERS
        square = (own - theirs).square().sum(0).numpy(force=True)
        error = np.sqrt(np.where(enough, square * n / np.maximum(n - 1, 1), np.nan))
        weight = here.weight.numpy(force=True)
        found.append(_rank(names, weight[k], weight[n_groups + k], error, n - 1.0, unit))
    return tuple(found)


def _rank(
    names: Sequence[str], first: np.ndarray, second: np.ndarray, error: np.ndarray, degrees: np.ndarray, unit: str
) -> tuple[ColumnDifference, ...]:
    difference = first - second
    t = np.divide(difference, error, out=np.zeros_like(difference), where=error > 0)
    degrees = np.maximum(degrees, 1)
    p = np.where(error > 0, 2 * stdtr(degrees, -np.abs(t)), np.nan)
    half = stdtrit(degrees, 0.975) * error
    adjusted = holm(p)
    return tuple(
        ColumnDifference(
            name=names[i],
            weight=float(first[i]),
            weight_others=float(second[i]),
            difference=float(difference[i]),
            low=float(difference[i] - half[i]),
            high=float(difference[i] + half[i]),
            p_value=float(p[i]),
            p_adjusted=float(adjusted[i]),
            unit=unit,
        )
        for i in np.lexsort((-np.abs(t), np.where(np.isfinite(p), p, 2)))
    )


def _fit_together(design: Design, weights: Float[Tensor, "users heads"], unit: Int[Tensor, " decisions"]) -> _Fit:
    n_heads, likelihood = weights.shape[1], Logit()
    ridge = weights.new_full((n_heads,), RIDGE)
    theta = fit_heads(design, ridge=ridge, group_weight=weights, likelihood=likelihood).theta
    stack = Stack(
        design=design,
        likelihood=likelihood,
        ridge=ridge,
        center=torch.zeros_like(theta),
        group=design.user,
        group_weight=weights,
    )
    margin = stack.margins(theta)
    slope = stack.slopes(margin)
    score = theta.new_zeros((int(unit.max()) + 1, n_heads, design.dim))
    rows = torch.arange(design.n_rows, device=theta.device)
    for block in stack.blocks:
        here = slope[block.rows][:, :, None] * design.differences(rows[block.rows])[:, None]
        score.index_add_(0, unit[block.decisions][block.within.index], here)
    inverse = torch.linalg.inv(hessian(stack, margin))
    return _Fit(theta, torch.einsum("uhd,hde->uhe", score, inverse))


def _fit_alone(design: Design, weights: Float[Tensor, "users heads"], unit: Int[Tensor, " decisions"]) -> _Fit:
    n_heads, likelihood, decisions = weights.shape[1], Logit(), design.decisions
    each = design.weight[:, None] * weights[design.user]
    theta = weights.new_zeros((n_heads, design.dim))
    influence = weights.new_zeros((int(unit.max()) + 1, n_heads, design.dim))
    for c in range(design.dim):
        value = design.features[:, c]
        x = (value[design.chosen] - value[design.rejected])[:, None]
        at = weights.new_zeros(n_heads)
        for _ in range(MAX_STEPS):
            margin = x * at
            score = each * decisions.sum(likelihood.slope(margin, decisions) * x)
            a, b = likelihood.curvature(margin, decisions)
            bend = decisions.sum(a * x * x) - (0 if b is None else decisions.sum(b * x) ** 2)
            curvature = (each * bend).sum(0) + RIDGE
            step = (score.sum(0) - RIDGE * at) / curvature
            if float(step.abs().max()) < 1e-9:
                break
            at = at + step.clamp(-LARGEST_STEP, LARGEST_STEP)
        theta[:, c] = at
        influence[:, :, c].index_add_(0, unit, score / curvature)
    return _Fit(theta, influence)


@dataclass(frozen=True, eq=False, kw_only=True)
class UserColumns:
    """What one user weighs unlike the others.

    Attributes:
        user: Their number.
        n_decisions: Their decisions.
        columns: Where they stand apart, clearest first.
    """

    user: int
    n_decisions: int
    columns: tuple[ColumnDifference, ...]


def users_apart(design: Design, names: Sequence[str], *, level: float = 0.05) -> tuple[UserColumns, ...]:
    """Find the users whose weight of a column is not the other users' weight.

    Each column stands alone. The others' weight is the common one without the user, to one step; the user's own is
    shrunk towards it by a prior of precision 1. The test is of the user's score at the others' weight; what is random
    is which sources came up, for the user and for the others, so that it speaks of these users and not of others like
    them: where everybody differs, many stand apart.

    Args:
        design: Rows, on standardised columns, float64.
        names: Of the columns.
        level: Of the family of all users and columns (Holm).

    Returns:
        Those users, clearest first, each with the columns that say so.
    """
    likelihood, decisions, user = Logit(), design.decisions, design.user
    n_users, row_user = design.n_users, design.user[design.decisions.index]
    own_source = torch.unique(user * (int(design.source.max()) + 1) + design.source, return_inverse=True)[1]
    owner = torch.zeros(int(own_source.max()) + 1, dtype=torch.int64).index_copy(0, own_source, user)
    n_sources = torch.bincount(owner, minlength=n_users)
    n_decisions = torch.bincount(user, minlength=n_users)
    weight = design.weight

    def by_user(x: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score, curvature and squared scores of sources for every user at a weight for each."""
        margin = (x * at[row_user])[:, None]
        score = weight * decisions.sum(likelihood.slope(margin, decisions)[:, 0] * x)
        a, b = likelihood.curvature(margin, decisions)
        bend = decisions.sum(a[:, 0] * x * x)
        bend = weight * (bend if b is None else bend - decisions.sum(b[:, 0] * x) ** 2)
        squares = score.new_zeros(len(owner)).index_add_(0, own_source, score).square()
        zeros = score.new_zeros(n_users)
        return zeros.index_add(0, user, score), zeros.index_add(0, user, bend), zeros.index_add(0, owner, squares)

    table = []
    for c in range(design.dim):
        value = design.features[:, c]
        x = value[design.chosen] - value[design.rejected]
        common = x.new_zeros(n_users)
        for _ in range(MAX_STEPS):
            score, bend, _ = by_user(x, common)
            step = (score.sum() - RIDGE * common[0]) / (bend.sum() + RIDGE)
            common = common + step.clamp(-LARGEST_STEP, LARGEST_STEP)
            if abs(float(step)) < 1e-9:
                break
        score, bend, squares = by_user(x, common)
        rest = (bend.sum() - bend).clamp(min=0) + RIDGE
        others = common - score / rest
        spread = (squares.sum() - squares).clamp(min=0) / rest**2
        at_others, bend_others, squares = by_user(x, others)
        error = (squares + bend_others.square() * spread).sqrt()
        own = others.clone()
        for _ in range(MAX_STEPS):
            score, bend, squares = by_user(x, own)
            step = (score - RIDGE * (own - others)) / (bend + RIDGE)
            own = own + step.clamp(-LARGEST_STEP, LARGEST_STEP)
            if float(step.abs().max()) < 1e-9:
                break
        own_error = (squares / (bend + RIDGE) ** 2 + spread).sqrt()
        table.append(torch.stack([own, others, at_others / error.clamp(min=1e-300), own_error]))
    own_, others_, t, errors = torch.stack(table).permute(1, 2, 0).numpy(force=True)
    degrees = np.maximum(n_sources.numpy(force=True) - 1, 1).astype(np.float64)[:, None]
    testable = (n_sources.numpy(force=True) >= FEW_USERS)[:, None] & (errors > 0)
    # A sum over the root of its own squares: far out, its tail is no heavier than the normal one (symmetric scores).
    # Student's t about the mean score names somebody in every fourth null of 60 users with 30 decisions each.
    p = np.where(testable, 2 * ndtr(-np.abs(t)), np.nan)
    adjusted = holm(p.ravel()).reshape(p.shape)
    half = stdtrit(degrees, 0.975) * errors
    apart = adjusted <= level
    found = []
    for u in np.flatnonzero(apart.any(axis=1)):
        columns = [
            ColumnDifference(
                name=names[c],
                weight=float(own_[u, c]),
                weight_others=float(others_[u, c]),
                difference=float(own_[u, c] - others_[u, c]),
                low=float(own_[u, c] - others_[u, c] - half[u, c]),
                high=float(own_[u, c] - others_[u, c] + half[u, c]),
                p_value=float(p[u, c]),
                p_adjusted=float(adjusted[u, c]),
                unit="source",
            )
            for c in np.flatnonzero(apart[u])[np.argsort(p[u, apart[u]], kind="stable")]
        ]
        found.append(UserColumns(user=int(u), n_decisions=int(n_decisions[u]), columns=tuple(columns)))
    return tuple(sorted(found, key=lambda each: each.columns[0].p_value))
