"""How many of a new user's own comparisons a model needs: context of m decisions, one test part for every m.

All m are scored on the same decisions of the same users, and the contexts are nested: those of m = 4 are among those of
m = 8. Otherwise a curve over m would also compare users, or test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pluralign.errors import ConfigError, DataError
from pluralign.types import IntArray

SIZES = (0, 1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, eq=False, kw_only=True)
class FewShot:
    """Contexts and test part of unseen users; decisions are indices into the arrays given.

    Attributes:
        sizes: Numbers m of context decisions per user, ascending.
        context: For each m, m decisions of every user in `users`, in ascending order of user.
        test: The rest, the same for every m, (test decisions,).
        users: Users who have enough decisions for the largest m and a test part, (users,).
        left_out: Users who have not, (left out,); no m is scored on them.
        siblings: Users among `users` whose test part shares sources with their context because every split would
            (all their decisions are from one source, say).
    """

    sizes: tuple[int, ...]
    context: tuple[IntArray, ...]
    test: IntArray
    users: IntArray
    left_out: IntArray
    siblings: IntArray


def split_few_shot(
    user: np.ndarray, source: np.ndarray, *, sizes: Sequence[int] = SIZES, min_test: int = 4, seed: int
) -> FewShot:
    """Split each user's decisions into nested random contexts and a test part, disjoint by source where possible.

    A user's sources come in random order; those needed to fill the largest context serve context alone, which is drawn
    from them at random, and the others are the test part. Where that leaves fewer than `min_test` decisions, the
    context is drawn regardless of source and the user is listed in `siblings`.

    Args:
        user: User of every decision, (decisions,). Pass the unseen users' decisions only.
        source: Source of every decision, (decisions,).
        sizes: Numbers of context decisions. `feasible_sizes` says which the users can fill.
        min_test: Fewest test decisions per user.
        seed: Of the draw.

    Raises:
        ConfigError: Sizes are not distinct numbers of at least 0, or `min_test` is below 1.
        DataError: No user has enough decisions.
    """
    sizes = tuple(sorted(sizes))
    if not sizes or sizes[0] < 0 or len(set(sizes)) < len(sizes) or min_test < 1:
        raise ConfigError(
            f"sizes are {list(sizes)} and min_test is {min_test}; "
            "sizes must be distinct numbers of at least 0, and min_test at least 1"
        )
    largest = sizes[-1]
    everyone, code, count = np.unique(user, return_inverse=True, return_counts=True)
    enough = count >= largest + min_test
    if not enough.any():
        raise DataError(
            f"no user has {largest} + {min_test} decisions; the largest has {count.max(initial=0)}",
            hint="lower the largest of `sizes` (`feasible_sizes` finds it)",
        )
    rng = np.random.default_rng(seed)
    drawn_from, place = np.unique(source, return_inverse=True)
    cell, member = np.unique(code * len(drawn_from) + place, return_inverse=True)
    by_source = rng.permutation(len(cell))[member]  # a random place for every source of every user
    chance = rng.random(len(code))

    rank = _rank_within(code, by_source, chance)
    held = np.zeros(len(cell), dtype=bool)
    held[member[rank < largest]] = True  # the sources that context needs
    pool = held[member]
    sibling = enough & (np.bincount(code, ~pool, len(everyone)) < min_test)
    pool |= sibling[code]

    place = _rank_within(code, ~pool, chance)  # the pool first, in random order
    kept = enough[code]
    test = kept & np.where(sibling[code], place >= largest, ~pool)
    order = np.argsort(code, kind="stable")

    return FewShot(
        sizes=sizes,
        context=tuple(_entries(kept & (place < m), order) for m in sizes),
        test=_entries(test, order),
        users=everyone[enough].astype(np.int32),
        left_out=everyone[~enough].astype(np.int32),
        siblings=everyone[sibling].astype(np.int32),
    )


def feasible_sizes(
    user: np.ndarray, *, sizes: Sequence[int] = SIZES, min_test: int = 4, share: float = 0.5
) -> tuple[int, ...]:
    """Return the sizes that at least this share of the users can fill and still have `min_test` decisions to test."""
    count = np.unique(user, return_counts=True)[1]
    return tuple(m for m in sorted(sizes) if len(count) and (count >= m + min_test).mean() >= share)


def draw_contexts(user: np.ndarray, *, sizes: Sequence[int] = SIZES, seed: int) -> tuple[IntArray, ...]:
    """Draw nested contexts where the test part is given: for each size, that many decisions of every user, at random.

    Args:
        user: User of every decision that contexts may be drawn from, (decisions,). Users with fewer than the largest
            size are the caller's to leave out (`feasible_sizes` with `min_test=0` says how many there are).
        sizes: Numbers of context decisions, ascending.
        seed: Of the draw.

    Returns:
        Decision indices for each size, ascending.
    """
    chance = np.random.default_rng(seed).random(len(user))
    place = _rank_within(user, chance, chance) if len(user) else np.empty(0, dtype=np.int64)
    return tuple(np.flatnonzero(place < m).astype(np.int32) for m in sizes)


def _entries(mask: np.ndarray, order: np.ndarray) -> IntArray:
    """Indices where the mask is true, in this order."""
    return order[mask[order]].astype(np.int32)


def _rank_within(group: np.ndarray, key: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """Place of every entry in its group, 0 first, by key and then by tie."""
    order = np.lexsort((tie, key, group))
    ordered = group[order]
    start = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(start, np.diff(start, append=len(group)))
    return rank
