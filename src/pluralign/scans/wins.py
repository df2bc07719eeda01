"""Rows as wins: who beat whom, in whose eyes. And the exact tests that the scan makes of them.

A row with a soft label below 0.5 was won by its second item; ties and rows of weight 0 are left out. In a choice among
k the chosen item won k - 1 times.

Rows of one user about one source (all pairs of one ranking, say) hang together, so a user's habit is tested on the
user's sources, not rows: each counts once, by the sign of its sum. Where that sign is a coin's, the number of sources
with the habit is binomial, however the rows of a source hang together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.stats import beta, binom

from pluralign.comparisons import Comparisons
from pluralign.types import FloatArray, IntArray

Number: TypeAlias = np.ndarray | np.number | float | int


@dataclass(frozen=True, eq=False, kw_only=True)
class Wins:
    """Decided rows.

    Attributes:
        row: Row number, (wins,).
        winner: Item preferred, (wins,).
        loser: The other, (wins,).
        user: Whose choice, (wins,).
        source: Drawn from what, (wins,).
        turned: Whether the winner is the row's second item, (wins,).
    """

    row: np.ndarray
    winner: IntArray
    loser: IntArray
    user: IntArray
    source: IntArray
    turned: np.ndarray

    @classmethod
    def of(cls, comparisons: Comparisons) -> Wins:
        """The decided rows of a table."""
        outcome = np.ones(len(comparisons)) if comparisons.outcome is None else comparisons.outcome
        kept = (outcome != 0.5) & (comparisons.chosen != comparisons.rejected)
        if comparisons.weight is not None:
            kept &= comparisons.weight > 0
        row = np.flatnonzero(kept)
        turned = outcome[row] < 0.5
        chosen, rejected = comparisons.chosen[row], comparisons.rejected[row]
        return cls(
            row=row,
            winner=np.where(turned, rejected, chosen),
            loser=np.where(turned, chosen, rejected),
            user=comparisons.user[row],
            source=comparisons.source[row],
            turned=turned,
        )

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, eq=False, kw_only=True)
class Habit:
    """How many of each user's sources show something, of those that show it or its opposite.

    Attributes:
        shown: Sources that show it, (users,).
        n: Sources that show it or its opposite, (users,).
    """

    shown: np.ndarray
    n: np.ndarray

    @classmethod
    def of(cls, user: np.ndarray, source: np.ndarray, sign: np.ndarray, n_users: int) -> Habit:
        """Count sources by the sign of the sum of their rows' signs (-1, 0 or 1), (rows,)."""
        if not len(user):
            return cls(shown=np.zeros(n_users, dtype=np.int64), n=np.zeros(n_users, dtype=np.int64))
        width = int(source.max()) + 1
        keys, cell = np.unique(user.astype(np.int64) * width + source, return_inverse=True)
        total = np.bincount(cell, weights=sign)
        owner = keys // width
        return cls(
            shown=np.bincount(owner[total > 0], minlength=n_users),
            n=np.bincount(owner[total != 0], minlength=n_users),
        )

    @property
    def share(self) -> FloatArray:
        """Share of the sources that show it, NaN where a user has none, (users,)."""
        return np.divide(self.shown, self.n, out=np.full(len(self.n), np.nan), where=self.n > 0)

    def p_below(self, share: float) -> FloatArray:
        """One-sided p-value of a true share of at least `share`, (users,); NaN without sources."""
        return np.where(self.n > 0, binom.cdf(self.shown, self.n, share), np.nan)

    def p_above(self, share: float) -> FloatArray:
        """One-sided p-value of a true share of at most `share`, (users,); NaN without sources."""
        return np.where(self.n > 0, binom.sf(self.shown - 1, self.n, share), np.nan)

    def p_two_sided(self) -> FloatArray:
        """Two-sided p-value of a true share of a half, (users,); NaN without sources."""
        return np.minimum(2 * np.minimum(self.p_below(0.5), self.p_above(0.5)), 1)


def lower_bound(k: Number, n: Number, alpha: float) -> np.ndarray:
    """Clopper and Pearson's (1934) lower bound of a share, k of n seen, at one-sided level alpha; 0 where k is 0."""
    k, n = np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64)
    bound = beta.ppf(alpha, np.maximum(k, 1e-12), np.maximum(n - k, 0) + 1)
    return np.where(k > 0, bound, 0.0)


def upper_bound(k: Number, n: Number, alpha: float) -> np.ndarray:
    """The upper bound that goes with `lower_bound`."""
    n = np.asarray(n, dtype=np.float64)
    return np.asarray(1 - lower_bound(n - np.asarray(k, dtype=np.float64), n, alpha))
