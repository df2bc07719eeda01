"""Which rows to fit on and which to be judged by.

A *source* (a post, a conversation, a pair that several people judged) is never on both sides, a decision is never
torn, and users who are to be new at the test appear in no training row. Sizes are counted in rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pluralign.comparisons.table import Comparisons, index_texts
from pluralign.errors import ConfigError, DataError
from pluralign.types import BoolArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Split:
    """Row numbers for `Comparisons.take`, ascending.

    Attributes:
        train: Rows to fit on.
        test: Rows to be judged by.
        n_dropped: Rows in neither.
    """

    train: IntArray
    test: IntArray
    n_dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class StudySplit:
    """Row numbers of a study, ascending. Test sources occur in `test` and `unseen_test` alone.

    Attributes:
        train: Seen users, training sources.
        test: Seen users, test sources.
        unseen_adapt: Unseen users, training sources: from these a new user may be learnt.
        unseen_test: Unseen users, test sources.
        unseen_users: Indices of the unseen users.
    """

    train: IntArray
    test: IntArray
    unseen_adapt: IntArray
    unseen_test: IntArray
    unseen_users: IntArray


def group_rows(comparisons: Comparisons, together: str = "source") -> IntArray:
    """Number what may not be torn apart, 0, 1, 2, ... without gaps, (rows,).

    Args:
        comparisons: The table.
        together: "source" keeps the rows of a source together; "response" also all sources that share a response,
            directly or by way of others.

    Raises:
        DataError: The rows of one decision come from several sources.
    """
    if together not in ("source", "response"):
        raise ConfigError(f'together is "{together}"; known: source, response')
    source = comparisons.source
    if comparisons.choice is not None:
        torn = np.flatnonzero(source != source[comparisons.first_row][comparisons.decision])
        if len(torn):
            raise DataError(
                f"row {torn[0] + 1} has another source than the first row of its decision",
                hint="give all rows of a decision one source",
            )
    group = np.unique(source, return_inverse=True)[1]
    if together == "source" or not len(group):
        return group.astype(np.int32)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    response = index_texts(comparisons.items.response)[0]
    n_groups, n_responses = int(group.max()) + 1, int(response.max()) + 1
    edges = np.concatenate([response[comparisons.chosen], response[comparisons.rejected]]) + n_groups
    n_nodes = n_groups + n_responses
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (np.tile(group, 2), edges)), shape=(n_nodes, n_nodes))
    return connected_components(graph, directed=False)[1][:n_groups][group].astype(np.int32)


def pick_groups(size: IntArray, share: float, rng: np.random.Generator) -> BoolArray:
    """Mark groups that hold about a share of all rows, (groups,).

    Groups come in random order and each is taken that still fits, so a group larger than the share stays out.
    At least one group is marked and one is not.
    """
    room = share * int(size.sum())
    picked = np.zeros(len(size), dtype=np.bool_)
    sizes = size.tolist()
    for group in rng.permutation(len(size)).tolist():
        if sizes[group] <= room:
            picked[group] = True
            room -= sizes[group]
    if not picked.any():
        picked[int(np.argmin(size))] = True
    return picked


def split_by_source(comparisons: Comparisons, test: float = 0.2, *, seed: int, together: str = "source") -> Split:
    """Put whole sources on one side; about a share `test` of the rows is on the test side.

    Raises:
        DataError: There are fewer than two sources (or connected groups of sources).
        ConfigError: `test` is not between 0 and 1.
    """
    check_share("test", test)
    group = group_rows(comparisons, together)
    size = count_groups(group, 2, together)
    marked = pick_groups(size, test, np.random.default_rng(seed))[group]
    return Split(train=rows_of(~marked), test=rows_of(marked))


def fold_by_source(comparisons: Comparisons, n_folds: int = 5, *, seed: int, together: str = "source") -> IntArray:
    """Number the fold of every row, (rows,), such that no source is in two folds and folds are of about equal size.

    The largest source goes first, always into the fold that holds the fewest rows; equal sizes in random order.

    Raises:
        DataError: There are fewer sources than folds.
        ConfigError: `n_folds` is below 2.
    """
    if n_folds < 2:
        raise ConfigError(f"n_folds is {n_folds}; it must be at least 2")
    group = group_rows(comparisons, together)
    size = count_groups(group, n_folds, together)
    order = np.random.default_rng(seed).permutation(len(size))
    order = order[np.argsort(-size[order], kind="stable")]
    fold = np.empty(len(size), dtype=np.int32)
    held = [(0, number) for number in range(n_folds)]
    sizes = size.tolist()
    for source in order.tolist():
        n_rows, number = held[0]
        fold[source] = number
        heapq.heapreplace(held, (n_rows + sizes[source], number))
    return fold[group]


def split_users(comparisons: Comparisons, unseen: float = 0.2, *, seed: int) -> Split:
    """Keep about a share `unseen` of the users apart: all their rows are on the test side.

    Users are counted, not rows, and only those who have rows.

    Raises:
        DataError: Fewer than two users have rows.
        ConfigError: `unseen` is not between 0 and 1.
    """
    check_share("unseen", unseen)
    marked = np.isin(comparisons.user, pick_users(comparisons, unseen, np.random.default_rng(seed)))
    return Split(train=rows_of(~marked), test=rows_of(marked))


def pick_users(comparisons: Comparisons, share: float, rng: np.random.Generator) -> IntArray:
    """Draw a share of the users who have rows, at least one and not all."""
    present = np.unique(comparisons.user)
    if len(present) < 2:
        raise DataError(f"unseen users need at least 2 users with rows, there is {len(present)}")
    n_unseen = min(max(round(share * len(present)), 1), len(present) - 1)
    return np.sort(rng.choice(present, size=n_unseen, replace=False)).astype(np.int32)


def split_by_item(comparisons: Comparisons, test: float = 0.2, *, seed: int) -> Split:
    """Divide the responses: test rows compare only responses that no training row has.

    A share `test` of the distinct responses is held out, whichever prompt they answer. A decision with responses on
    both sides is dropped and its rows are counted; with pairs drawn at random about test² of the rows are left to
    test on.

    Raises:
        DataError: A side has no row.
        ConfigError: `test` is not between 0 and 1.
    """
    check_share("test", test)
    response = index_texts(comparisons.items.response)[0]
    compared = np.unique(response[np.concatenate([comparisons.chosen, comparisons.rejected])])
    n_held = min(max(round(test * len(compared)), 1), len(compared))
    held = np.random.default_rng(seed).permutation(compared)[:n_held]
    is_held = np.zeros(int(response.max(initial=0)) + 1, dtype=np.bool_)
    is_held[held] = True
    n_held_items = is_held[response[comparisons.chosen]].astype(int) + is_held[response[comparisons.rejected]]
    decision = comparisons.decision
    low = np.full(comparisons.n_decisions, 2)
    high = np.zeros(comparisons.n_decisions, dtype=int)
    np.minimum.at(low, decision, n_held_items)
    np.maximum.at(high, decision, n_held_items)
    train, test_rows = rows_of((high == 0)[decision]), rows_of((low == 2)[decision])
    if not len(train) or not len(test_rows):
        raise DataError(
            f"of {len(compared)} responses {n_held} were held out, which leaves {len(train)} rows to train on "
            f"and {len(test_rows)} to test on",
            hint="choose another share or seed, or split by source",
        )
    return Split(train=train, test=test_rows, n_dropped=len(comparisons) - len(train) - len(test_rows))


def split_last(comparisons: Comparisons, share: float = 0.25) -> Split:
    """Test on the last share of each user's decisions, in row order: for panels, where a source is a decision.

    The number of test decisions is rounded down, so a user with one decision has none.

    Raises:
        DataError: No user has enough decisions for one to be tested on.
        ConfigError: `share` is not between 0 and 1.
    """
    check_share("share", share)
    user = comparisons.user[comparisons.first_row]
    n_own = np.bincount(user, minlength=comparisons.n_users)
    order = np.argsort(user, kind="stable")
    starts = np.cumsum(n_own) - n_own
    rank = np.empty(len(user), dtype=np.int64)
    rank[order] = np.arange(len(user)) - starts[user[order]]
    n_test = np.floor(share * n_own + 1e-9).astype(np.int64)
    late = (rank >= (n_own - n_test)[user])[comparisons.decision]
    if not late.any():
        raise DataError(
            f"a share of {share} is less than one decision of every user; they have at most {n_own.max(initial=0)}",
            hint="choose a larger share",
        )
    return Split(train=rows_of(~late), test=rows_of(late))


def split_given(
    comparisons: Comparisons,
    *,
    train: Sequence[str] = ("train",),
    test: Sequence[str] = ("test",),
    straddling: str = "error",
) -> Split:
    """Use the split that the data came with; rows of other splits are dropped and counted.

    Args:
        comparisons: The table.
        train: Names of the splits to fit on.
        test: Names of the splits to be judged by.
        straddling: Whether a source on both sides is an error, or kept as it is (to follow a published split).

    Raises:
        DataError: There is no `split`, a side has no row, or a source straddles.
    """
    if straddling not in ("error", "keep"):
        raise ConfigError(f'straddling is "{straddling}"; known: error, keep')
    if comparisons.split is None:
        raise DataError("the data have no split column", hint="split them by source")
    both = sorted(set(train) & set(test))
    if both:
        raise ConfigError(f'split "{both[0]}" is named for training and for testing')
    sides = np.isin(comparisons.split, list(train)), np.isin(comparisons.split, list(test))
    for names, side in zip((train, test), sides, strict=True):
        if not side.any():
            there = ", ".join(sorted(set(comparisons.split.tolist())))
            raise DataError(f"no row has split {' or '.join(names)}; there are: {there}")
    shared = np.intersect1d(comparisons.source[sides[0]], comparisons.source[sides[1]])
    if len(shared) and straddling == "error":
        raise DataError(
            f"{len(shared)} sources are in training and in test rows, such as {comparisons.source_ids[shared[0]]!r}",
            hint='split by source instead, or keep them knowingly with straddling="keep"',
        )
    return Split(
        train=rows_of(sides[0]),
        test=rows_of(sides[1]),
        n_dropped=int(len(comparisons) - sides[0].sum() - sides[1].sum()),
    )


def study_split(
    comparisons: Comparisons,
    *,
    seed: int,
    test: float = 0.2,
    unseen: float = 0.2,
    together: str = "source",
) -> StudySplit:
    """Hold out sources and users at once.

    Args:
        comparisons: The table.
        seed: Of the draw.
        test: Share of the rows, in whole sources, to be judged by.
        unseen: Share of the users who are new at the test; 0 for none.
        together: What may not be torn apart; see `group_rows`.

    Raises:
        DataError: Too few sources or users, or the seen users have no row on a side.
        ConfigError: A share is not accepted.
    """
    check_share("test", test)
    if unseen:
        check_share("unseen", unseen)
    rng = np.random.default_rng(seed)
    group = group_rows(comparisons, together)
    held = pick_groups(count_groups(group, 2, together), test, rng)[group]
    users = pick_users(comparisons, unseen, rng) if unseen else np.empty(0, dtype=np.int32)
    new = np.isin(comparisons.user, users)
    split = StudySplit(
        train=rows_of(~new & ~held),
        test=rows_of(~new & held),
        unseen_adapt=rows_of(new & ~held),
        unseen_test=rows_of(new & held),
        unseen_users=users,
    )
    if not len(split.train) or not len(split.test):
        raise DataError(
            f"the seen users have {len(split.train)} rows to train on and {len(split.test)} to test on",
            hint="choose smaller shares or another seed",
        )
    return split


def count_groups(group: IntArray, n_needed: int, together: str) -> IntArray:
    """Rows of every group; too few groups are an error."""
    size = np.bincount(group).astype(np.int32)
    if len(size) < n_needed:
        what = "sources" if together == "source" else "groups of sources without a response in common"
        raise DataError(
            f"the split needs at least {n_needed} {what}, there are {len(size)}",
            hint="name a finer source column, or split by item, by user, or the last share of each user's decisions",
        )
    return size


def check_share(name: str, share: float) -> None:
    if not 0 < share < 1:
        raise ConfigError(f"{name} is {share}; it must be between 0 and 1, both excluded")


def rows_of(mask: BoolArray) -> IntArray:
    return np.flatnonzero(mask).astype(np.int32)
