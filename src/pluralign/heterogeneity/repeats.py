"""Disagreement and its parts from pairs that one user decided more than once and others decided too.

The disagreement of a task is that of the answers of two different users, self-disagreement that of two answers of one
user, each a mean over such pairs (U-statistics), and tasks count by their decisions in both. Half of the difference is
the variance over users of the probability p of an answer. Reliability's part of it comes from what a user's answers to
*different* tasks have in common along the tasks' log odds m: with p = E sigmoid(scale (c m + own)), scale log-normal
and own Gaussian and independent between tasks, c and the two variances are those that reproduce the mean score along m,
the difference, and the covariance within users of (y - p) m between tasks (less that between users). What a taste has
in common along m therefore counts as reliability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit

from pluralign.comparisons import Comparisons
from pluralign.evaluation.groups import sum_by
from pluralign.heterogeneity.jackknife import spread_of
from pluralign.heterogeneity.votes import Cells, Voices, Votes
from pluralign.types import FloatArray

_N_SCALES, _N_OWN = 15, 20


@dataclass(frozen=True, eq=False)
class Estimates:
    """Disagreement, self-disagreement, and the shares taste, reliability and chance, in this order.

    Attributes:
        value: Cut to what is possible, (5,).
        uncut: What the intervals are built around, (5,).
        error: Standard errors, (5,).
        degrees: Degrees of freedom.
        taste_spread: As in `Components`.
        reliability_spread: As in `Components`.
    """

    value: FloatArray
    uncut: FloatArray
    error: FloatArray
    degrees: float
    taste_spread: float
    reliability_spread: float


@dataclass(frozen=True, eq=False)
class Repeats:
    """Sums over tasks that have repeated decisions and more than one user.

    Attributes:
        n_repeated: (user, task) with more than one decision.
        n_repeaters: Users of them.
        sums: Weight, weight times disagreement and weight times self-disagreement of all tasks, (3,).
        leaving: What of it leaves with each user, (users, 3).
        size: Decisions of every user, (users,).
        margin: Log odds of every task, (tasks,).
        weight: Decisions of every task, (tasks,).
        shared: Covariance along the margins within users between tasks, less that between users.
        shared_without: The same without each user, (users,).
    """

    n_repeated: int
    n_repeaters: int
    sums: FloatArray
    leaving: FloatArray
    size: FloatArray
    margin: FloatArray
    weight: FloatArray
    shared: float
    shared_without: FloatArray

    @property
    def note(self) -> str:
        return f"from {self.n_repeated:,} pairs of items that a user decided more than once"

    @classmethod
    def of(cls, comparisons: Comparisons) -> Repeats:
        """Collect the pairs; choices among more than two items are left out."""
        votes = Votes.of(comparisons)
        cells = Cells.of(votes)
        n_tasks = votes.n_tasks
        users = sum_by(cells.task, np.ones(len(cells.n)), n_tasks)
        repeated = sum_by(cells.task, (cells.n > 1).astype(np.float64), n_tasks)
        used = (users > 1) & (repeated > 0) & (votes.n_items == 2)
        votes = votes.take(used[votes.task])
        cells = Cells.of(votes)
        n_users, again = comparisons.n_users, cells.n > 1
        if not len(votes):
            none = np.zeros(0)
            return cls(0, 0, np.zeros(3), np.zeros((0, 3)), none, none, none, 0.0, none)
        n_tasks, voices = votes.n_tasks, Voices.of(cells, votes.n_tasks)

        first = sum_by(cells.cell, np.where(cells.answer == 0, cells.count, 0.0), len(cells.n))
        differ = np.where(again, 2 * first * (cells.n - first) / np.maximum(cells.n * (cells.n - 1), 1), 0.0)
        weight = sum_by(cells.task, cells.n, n_tasks)
        own, owners = sum_by(cells.task, differ, n_tasks), sum_by(cells.task, again.astype(np.float64), n_tasks)
        whole = _rows(weight, voices.users, voices.agreed, own, owners)
        t = cells.task
        without = _rows(
            weight[t] - cells.n,
            voices.users[t] - 1,
            voices.agreed[t] - 2 * voices.with_others,
            own[t] - differ,
            owners[t] - again,
        )
        leaving = np.stack([sum_by(cells.user, column, n_users) for column in (whole[t] - without).T], axis=1)

        share = (sum_by(t, first, n_tasks) + 0.5) / (weight + 1)
        margin = logit(share)
        pull = (first - cells.n * share[t]) * margin[t]  # of every cell
        shared, shared_without = _contrast(pull, cells, n_tasks, n_users)
        return cls(
            n_repeated=int(again.sum()),
            n_repeaters=len(np.unique(cells.user[again])),
            sums=whole.sum(0),
            leaving=leaving,
            size=sum_by(cells.user, cells.n, n_users),
            margin=margin,
            weight=weight,
            shared=shared,
            shared_without=shared_without,
        )

    def parts(self) -> Estimates:
        """Estimate all parts."""
        all_sums = np.concatenate([self.sums[None], self.sums - self.leaving])
        with np.errstate(invalid="ignore", divide="ignore"):
            d, s = all_sums[:, 1] / all_sums[:, 0], all_sums[:, 2] / all_sums[:, 0]
        shared = np.concatenate([[self.shared], self.shared_without])
        error = spread_of(np.array([d[0] - s[0], shared[0]]), np.stack([d - s, shared], axis=1)[1:], self.size)[0]
        step = np.maximum(np.nan_to_num(error), 1e-6)
        base = np.maximum([d[0] - s[0], shared[0]], 0)
        reliability, own, spread = self._reliability(base[0], base[1])
        rise = [
            (self._reliability(*(base + step * axis))[0] - reliability) / step[i] for i, axis in enumerate(np.eye(2))
        ]
        part = reliability + rise[0] * (np.maximum(d - s, 0) - base[0]) + rise[1] * (shared - base[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            numbers = np.stack([d, s, (d - s - part) / d, part / d, s / d], axis=1)
        spread_all, degrees = spread_of(numbers[0], numbers[1:], self.size)
        value = numbers[0].copy()
        value[3] = min(max(reliability, 0.0), base[0]) / d[0]
        value[2] = max(base[0] / d[0] - value[3], 0.0)
        value[4] = 1 - value[2] - value[3]
        return Estimates(value, numbers[0], spread_all, degrees, own, spread)

    def _reliability(self, difference: float, shared: float) -> tuple[float, float, float]:
        """Reliability's part of the difference, and the spreads of own parts and of log scale (module docstring)."""
        (z, scale_mass), (g, own_mass) = _hermite(_N_SCALES), _hermite(_N_OWN)
        v, m = self.weight / self.weight.sum(), self.margin

        def population(at: FloatArray) -> tuple[FloatArray, float]:
            scale = np.exp(at[2] * z - at[2] ** 2 / 2)
            inner = np.exp(at[0]) * m[:, None] + at[1] * g  # (tasks, own)
            p = expit(inner[:, None, :] * scale[:, None])  # (tasks, scales, own)
            by_scale, square = p @ own_mass, (p**2) @ own_mass @ scale_mass
            mean = by_scale @ scale_mass
            away = (by_scale - mean[:, None]) * (v * m)[:, None]
            along = ((away.sum(0) ** 2 - (away**2).sum(0)) @ scale_mass) / (1 - (v**2).sum())
            moments = np.array([((expit(m) - mean) * m) @ v, 2 * (square - mean**2) @ v, along])
            return moments, float(2 * ((by_scale**2) @ scale_mass - mean**2) @ v)

        wanted = np.array([0.0, difference, shared])
        size = np.array([max(float((m**2) @ v), 1e-6), max(difference, 1e-3), max(shared, 1e-4)])
        found = least_squares(
            lambda at: (population(at)[0] - wanted) / size,
            np.array([0.05, max(difference, 1e-3) ** 0.5 * 3, 0.3]),
            bounds=([-1, 0, 0], [2.5, 50, 2]),
            xtol=1e-6,
            ftol=1e-8,
            diff_step=1e-3,
        ).x
        return population(found)[1], float(found[1]), float(found[2])


def _hermite(n: int) -> tuple[FloatArray, FloatArray]:
    node, mass = np.polynomial.hermite_e.hermegauss(n)
    return node, mass / mass.sum()


def _rows(weight: FloatArray, users: FloatArray, agreed: FloatArray, own: FloatArray, owners: FloatArray) -> FloatArray:
    """Weight, weight times disagreement, weight times self-disagreement; 0 where a task has not both, (tasks, 3)."""
    both = (users > 1.5) & (owners > 0.5)
    pairs = np.maximum(users * (users - 1), 1)
    kept = np.where(both, weight, 0.0)
    return np.stack([kept, kept * (1 - agreed / pairs), kept * own / np.maximum(owners, 1)], axis=1)


def _contrast(pull: FloatArray, cells: Cells, n_tasks: int, n_users: int) -> tuple[float, FloatArray]:
    """Mean product over two decisions on different tasks, by one user less by two; of all users, and without each."""
    by_user, by_task = sum_by(cells.user, pull, n_users), sum_by(cells.task, pull, n_tasks)
    n_user, n_task = sum_by(cells.user, cells.n, n_users), sum_by(cells.task, cells.n, n_tasks)

    def of(each: FloatArray, user: FloatArray, task: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sums over ordered pairs on different tasks, by one user and by two: of all, then without each user."""
        own = sum_by(cells.user, each**2, n_users)
        task_without = (task**2).sum() - sum_by(cells.user, 2 * task[cells.task] * each - each**2, n_users)
        squares = np.concatenate([[(user**2).sum()], (user**2).sum() - user**2])
        owns = np.concatenate([[own.sum()], own.sum() - own])
        totals = np.concatenate([[user.sum() ** 2], (user.sum() - user) ** 2])
        tasks = np.concatenate([[(task**2).sum()], task_without])
        return squares - owns, totals - squares - (tasks - owns)

    seen, expected = of(pull, by_user, by_task), of(cells.n, n_user, n_task)
    with np.errstate(invalid="ignore", divide="ignore"):
        within, between = (np.where(e > 0, s / e, 0.0) for s, e in zip(seen, expected, strict=True))
    found = within - between
    return float(found[0]), found[1:]
