"""Users whose answers look like no taste: by a rule, at random, the other way round, or too few.

What a single user's answers cannot tell is said in the words: a user who is at chance under everybody's model may have
a taste of their own; one who contradicts himself as often as a coin has none that this model could learn.
"""

from __future__ import annotations

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.comparisons.table import index_items, index_pairs
from pluralign.evaluation import Predictions, holm
from pluralign.scans.findings import LEVEL, Finding, count_of, some_rows, some_users
from pluralign.scans.texts import Texts
from pluralign.scans.wins import Habit, Wins, lower_bound, upper_bound

RULE = 0.85  # share of the sources that go by length, at the bound, from which it is called a rule
MANY = 0.5  # share of the testable users by a rule from which the labels are suspected
TOP, MOST = 0.1, 0.5  # the most active tenth, and a share of the decisions that is much for it
MANY_SMALL = 0.5


def find_length_rules(texts: Texts, wins: Wins, comparisons: Comparisons) -> list[Finding]:
    """Users who (nearly) always choose the longer, or the shorter, response.

    With several users a rule that turns by user scores 0.50 as a baseline of everybody's; this finds it.
    """
    n = texts.n_characters
    sign = np.sign(n[texts.of_item[wins.winner]] - n[texts.of_item[wins.loser]])
    habit = Habit.of(wins.user, wins.source, sign, comparisons.n_users)
    testable = habit.n >= np.log(LEVEL / 2 / max((habit.n > 0).sum(), 1)) / np.log(RULE)
    alpha = LEVEL / 2 / max(testable.sum(), 1)
    longer = testable & (lower_bound(habit.shown, habit.n, alpha) > RULE)
    shorter = testable & (lower_bound(habit.n - habit.shown, habit.n, alpha) > RULE)
    ruled = longer | shorter
    if not ruled.any():
        return _find_divided(habit, comparisons)
    share = ruled.sum() / testable.sum()
    made = share >= MANY and (testable.sum() > 2 or testable.sum() == len(np.unique(wins.user)))
    users = np.flatnonzero(ruled)
    return [
        *_find_divided(habit, comparisons),
        Finding(
            name="length_rule",
            severity="error" if made else "note",
            message=f"of {count_of(int(testable.sum()), 'user')} with enough decisions {len(users):,} go by length: "
            f"{int(longer.sum()):,} nearly always the longer response and {int(shorter.sum()):,} the shorter "
            f"(more than {RULE:.0%} of their sources, at the bound of an exact interval)"
            + ("; such labels were made by a rule" if made else ""),
            advice="find out whether a script wrote over the labels (published loaders have done so); what is learnt "
            "from them is length"
            if made
            else "look at their rows: a habit that saves reading, or a taste",
            count=len(users),
            rows=some_rows(wins.row[ruled[wins.user]]),
            users=some_users(comparisons.user_ids, users),
        ),
    ]


def _find_divided(habit: Habit, comparisons: Comparisons) -> list[Finding]:
    """Users for whom length goes the other way, or no way, where it goes one way for all together."""
    total = habit.n.sum()
    if not total:
        return []
    share = habit.shown.sum() / total
    word, own = ("longer", habit) if share >= 0.5 else ("shorter", Habit(shown=habit.n - habit.shown, n=habit.n))
    share = max(share, 1 - share)
    p = holm(own.p_below(share))
    users = np.flatnonzero((p <= LEVEL) & (own.share <= 0.5))
    if not len(users):
        return []
    users = users[np.argsort(p[users], kind="stable")]
    shown = ", ".join(f"{comparisons.user_ids[user]} {own.shown[user]} of {own.n[user]}" for user in users[:5])
    return [
        Finding(
            name="length_divides_users",
            severity="note",
            message=f"the {word} response wins in {share:.0%} of all users' sources, but not with "
            f"{count_of(len(users), 'user')}: {shown}{', ...' if len(users) > 5 else ''} (exact, Holm, 5 %)",
            advice="a baseline of length for everybody understates what length decides here; it is a taste that a "
            "personal model can learn",
            count=len(users),
            rows=some_rows(np.isin(comparisons.user, users)),
            users=some_users(comparisons.user_ids, users),
        )
    ]


def find_contradicting_users(comparisons: Comparisons, wins: Wins) -> list[Finding]:
    """Users who answer repeated pairs as a coin would, where others do not.

    Each answer is compared with the same user's answer before it to the same pair. For a coin those are independent
    halves, so the number that differ is binomial.
    """
    pair = index_pairs(wins.winner, wins.loser)
    key = index_items(pair, wins.user)[0]
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(np.diff(key[order]) == 0) + 1
    lower = (wins.winner < wins.loser)[order]
    differs = lower[again] != lower[again - 1]
    owner = wins.user[order][again]
    n = np.bincount(owner, minlength=comparisons.n_users)
    k = np.bincount(owner, weights=differs, minlength=comparisons.n_users)
    if not n.sum():
        return []
    rate = k.sum() / n.sum()
    n_pairs = len(np.unique(key[order][again]))
    found = [
        Finding(
            name="self_disagreement",
            severity="note",
            message=f"users answered {count_of(n_pairs, 'pair')} again, and differently from the time before in "
            f"{rate:.1%} of {count_of(int(n.sum()), 'repeat')}",
            advice="no model that knows the users' tastes can be right more often than people agree with themselves: "
            "hold every accuracy against that",
            count=int(k.sum()),
            rows=some_rows(wins.row[order[again[differs]]]),
        )
    ]
    habit = Habit(shown=k.astype(np.int64), n=n)
    p = holm(habit.p_above(rate))
    coin = (p <= LEVEL) & (upper_bound(k, n, LEVEL / 2) >= 0.5)
    if coin.any():
        users = np.flatnonzero(coin)
        users = users[np.argsort(p[users], kind="stable")]
        shown = ", ".join(f"{comparisons.user_ids[u]} {int(k[u])} of {int(n[u])}" for u in users[:5])
        found.append(
            Finding(
                name="inconsistent_user",
                severity="warning",
                message=f"the answers of {count_of(len(users), 'user')} to repeated pairs differ as often as a coin's, "
                f"and more often than others': {shown}{', ...' if len(users) > 5 else ''} (exact, Holm, 5 %)",
                advice="leave them out, or keep them and let the `reliability` rung weigh them down",
                count=len(users),
                rows=some_rows(wins.row[np.isin(wins.user, users)]),
                users=some_users(comparisons.user_ids, users),
            )
        )
    return found


def find_misfits(comparisons: Comparisons, predictions: Predictions, what: str) -> list[Finding]:
    """Users for whom everybody's model, on decisions it was not fitted to, is at chance or below it.

    Args:
        comparisons: The table, for the users' names and rows.
        predictions: Held-out predictions that know no user.
        what: What predicts, in words.
    """
    size_two = (predictions.chosen + predictions.best_other > 1 - 1e-6) & (predictions.outcome != 0.5)
    sign = np.sign(2 * predictions.correct[size_two] - 1)
    habit = Habit.of(predictions.user[size_two], predictions.source[size_two], sign, comparisons.n_users)
    total = habit.n.sum()
    if not total or lower_bound(habit.shown.sum(), total, LEVEL) <= 0.5:
        return []  # a model at chance says nothing about anybody
    share = habit.shown.sum() / total
    below = holm(habit.p_below(0.5)) <= LEVEL
    at_chance = (holm(habit.p_below(share)) <= LEVEL) & ~below & (lower_bound(habit.shown, habit.n, LEVEL) <= 0.5)
    found = []
    for name, users, is_so, advice in (
        (
            "reversed_user",
            np.flatnonzero(below),
            "mostly the reverse of everybody's",
            (
                "two things look alike here: labels or columns exchanged for these users, or a taste opposite to "
                "that of most; ask where their rows come from, then let the study say whether their taste can be learnt"
            ),
        ),
        (
            "user_at_chance",
            np.flatnonzero(at_chance),
            "no better predicted than by a coin",
            "answers at random or a taste of their own: the study's personal rungs and the test of reliability tell",
        ),
    ):
        if not len(users):
            continue
        users = users[np.argsort(habit.share[users], kind="stable")]
        shown = ", ".join(f"{comparisons.user_ids[u]} {habit.share[u]:.0%}" for u in users[:5])
        found.append(
            Finding(
                name=name,
                severity="note",
                message=f"the choices of {count_of(len(users), 'user')} are {is_so}: {what} is right about {shown}"
                f"{', ...' if len(users) > 5 else ''} of their sources, and {share:.0%} of all users' "
                "(exact, Holm, 5 %)",
                advice=advice,
                count=len(users),
                rows=some_rows(np.isin(comparisons.user, users)),
                users=some_users(comparisons.user_ids, users),
            )
        )
    return found


def find_small_users(comparisons: Comparisons, min_decisions: int) -> list[Finding]:
    """Users with few decisions, and users with most of them."""
    user = comparisons.user[comparisons.first_row]
    n_own = np.bincount(user, minlength=comparisons.n_users)
    present = np.flatnonzero(n_own)
    found = []
    small = present[n_own[present] < min_decisions]
    if len(small):
        found.append(
            Finding(
                name="few_decisions",
                severity="note",
                message=f"{count_of(len(small), 'user')} of {len(present):,} made fewer than {min_decisions} "
                f"decisions; they hold {n_own[small].sum() / n_own.sum():.0%} of all",
                advice="for them a personal model is nearly the common one; judge personalisation on the others"
                if len(small) < MANY_SMALL * len(present)
                else "most users are nearly unknown: ask for more decisions per user before personalising",
                count=len(small),
                rows=some_rows(np.isin(comparisons.user, small)),
                users=some_users(comparisons.user_ids, small),
            )
        )
    n_top = max(1, round(TOP * len(present)))
    top = present[np.argsort(-n_own[present], kind="stable")[:n_top]]
    share = n_own[top].sum() / n_own.sum()
    if len(present) >= 5 and share > MOST:
        found.append(
            Finding(
                name="few_users_dominate",
                severity="note",
                message=f"the {count_of(n_top, 'user')} with the most decisions (of {len(present):,}) hold {share:.0%} "
                "of them",
                advice="an average over decisions speaks of them: read the average over users beside it, or cap the "
                "decisions per user",
                count=n_top,
                users=some_users(comparisons.user_ids, top),
            )
        )
    if len(present) < 5:
        found.append(
            Finding(
                name="few_users",
                severity="note",
                message=f"there {'is' if len(present) == 1 else 'are'} {count_of(len(present), 'user')}",
                advice="they are no sample of users: what is found holds for them, not for others",
                count=len(present),
                users=some_users(comparisons.user_ids, present),
            )
        )
    return found
