"""Whether what was shown first is chosen more often, by everybody and by each user."""

from __future__ import annotations

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.comparisons.table import index_pairs
from pluralign.evaluation import holm, mean_interval
from pluralign.scans.findings import LEVEL, Baseline, Finding, count_of, range_of, some_rows, some_users
from pluralign.scans.predicting import predict_margin
from pluralign.scans.wins import Habit, Wins

FEWEST = 20  # rows whose position is known
FIXED = 0.98  # of the pairs shown again, in one order: then the order was not drawn
WARNED = 0.02  # from a half
FATAL = 0.9


def find_position_bias(comparisons: Comparisons) -> tuple[list[Finding], list[Baseline]]:
    """Findings about the order of presentation; nothing where it was not recorded."""
    if comparisons.position is None:
        return [], []
    wins = Wins.of(comparisons)
    # +1 where the winner was shown first.
    first = np.where(wins.turned, -1, 1) * comparisons.position[wins.row]
    if np.count_nonzero(first) < FEWEST:
        return [], []
    by_row, missing = comparisons.position[wins.row], float((first == 0).mean())
    if (by_row == 1).all() or (by_row == -1).all():
        side = "first" if by_row[0] == 1 else "second"
        return [
            Finding(
                name="position_constant",
                severity="error",
                message=f"the chosen response was shown {side} in all {count_of(len(wins), 'row')}",
                advice="`position` was probably filled from the order of the columns and not from what people saw: "
                "give it as shown, or leave it out; if it is right, these rows say nothing but where people clicked",
                count=len(wins),
                rows=some_rows(wins.row),
            )
        ], []

    known = np.bincount(comparisons.decision, comparisons.position == 0, comparisons.n_decisions) == 0
    predictions = predict_margin(comparisons, comparisons.position.astype(np.float64)).take(known)
    accuracy = mean_interval(predictions)
    size = np.bincount(comparisons.decision, minlength=comparisons.n_decisions)[known] + 1
    baseline = Baseline(
        name="position",
        accuracy=accuracy,
        chance=float((1 / size).mean()),
        cross_validated=False,
        message=f"always choosing what was shown first scores {range_of(accuracy)} here"
        + (f", where the order is known (not in {missing:.0%} of the rows)" if missing else "")
        + "; nothing is fitted",
    )
    seen = first != 0
    everybody = Habit.of(np.zeros(int(seen.sum()), dtype=np.int64), wins.source[seen], first[seen], 1)
    habit = Habit.of(wins.user[seen], wins.source[seen], first[seen], comparisons.n_users)
    p = holm(habit.p_two_sided())
    biased = np.flatnonzero(p <= LEVEL)
    biased = biased[np.argsort(p[biased], kind="stable")]
    fixed = _always_the_same_order(comparisons, wins, first)
    findings = []
    if everybody.p_two_sided()[0] <= LEVEL and abs(accuracy.estimate - baseline.chance) >= WARNED:
        findings.append(
            Finding(
                name="position_bias",
                severity="error" if accuracy.low >= FATAL or accuracy.high <= 1 - FATAL else "warning",
                message=f"{baseline.message}, where guessing scores {baseline.chance:.2f}",
                advice="shuffle the order of presentation and record it; with a recorded order the `reliability` rung "
                "fits the bias"
                + ("; here the order was always the same, so no model can tell it from quality" if fixed else ""),
                count=int((first > 0).sum() if accuracy.estimate > 0.5 else (first < 0).sum()),
                rows=some_rows(wins.row[first > 0] if accuracy.estimate > 0.5 else wins.row[first < 0]),
                accuracy=accuracy,
            )
        )
    if len(biased):
        shares = ", ".join(f"{comparisons.user_ids[user]} {habit.share[user]:.0%}" for user in biased[:5])
        findings.append(
            Finding(
                name="position_bias_of_users",
                severity="warning",
                message=f"of {count_of(int((habit.n > 0).sum()), 'user')} {len(biased):,} choose by position more than "
                f"chance allows; share of their sources in which the first wins more: {shares}"
                f"{', ...' if len(biased) > 5 else ''} (exact, Holm, 5 %)",
                advice="look at these users' rows; leave them out, or give their position to the `reliability` rung",
                count=len(biased),
                rows=some_rows(wins.row[np.isin(wins.user, biased)]),
                users=some_users(comparisons.user_ids, biased),
            )
        )
    if fixed:
        findings.append(
            Finding(
                name="position_fixed",
                severity="warning",
                message=f"{fixed:,} pairs were shown more than once, and each in the same order every time: position "
                "and quality cannot be told apart",
                advice="do not read a bias of position, or its absence, out of these data; shuffle the order next time",
                count=fixed,
            )
        )
    return findings, [baseline]


def _always_the_same_order(comparisons: Comparisons, wins: Wins, first: np.ndarray) -> int:
    """How many pairs were shown more than once and always in one order, if nearly all that were shown again; else 0.

    Equal responses from two places of a fixed order are one item, hence "nearly".
    """
    seen = first != 0
    winner, loser = wins.winner[seen], wins.loser[seen]
    pair = index_pairs(winner, loser)
    lower_first = np.where(winner < loser, first[seen], -first[seen])
    n = np.bincount(pair)
    several = n > 1
    mixed = np.abs(np.bincount(pair, weights=lower_first)) < n
    n_fixed = int((several & ~mixed).sum())
    return n_fixed if n_fixed >= FEWEST and n_fixed >= FIXED * several.sum() else 0
