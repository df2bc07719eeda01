"""Comparisons from ratings, rankings, choices among several and votes.

An item is given in one of three ways: as its text; as a number into `responses`, the texts; or as a number into
`attributes`, vectors of numbers (with `responses` as their labels, if wanted). Numbers keep their meaning: where
no prompt is given and the texts are distinct, item i of the table is the caller's i, so a feature matrix may be
prepared beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from pluralign.comparisons.given_items import (
    Given,
    ItemTable,
    Names,
    Numbers,
    assemble,
    check_distinct,
    check_length,
    check_present,
    flatten,
    number_names,
    number_sources,
    read_numbers,
    repeat_texts,
)
from pluralign.comparisons.table import Comparisons, Texts, index_items
from pluralign.errors import ConfigError, DataError
from pluralign.types import FloatArray, IntArray

BLOCK_PAIRS = 1 << 22  # pairs formed at a time, 64 MiB of indices


def from_ratings(
    *,
    user: Names,
    item: Given,
    rating: Numbers,
    prompt: Texts | None = None,
    source: Names | None = None,
    responses: Texts | None = None,
    attributes: np.ndarray | None = None,
    attribute_names: Sequence[str] = (),
    min_gap: float = 0.0,
    max_pairs: int | None = None,
    seed: int = 0,
    name: str = "ratings",
) -> Comparisons:
    """Compare every two items that one user rated differently (for the same prompt, where there are prompts).

    Pairs of one user are not independent: n ratings carry at most n - 1 comparisons' worth of order, all pairs count
    n (n - 1) / 2. `max_pairs` bounds what a diligent user weighs.

    Args:
        user: Who rated, (ratings,).
        item: What was rated, (ratings,); a text, or a number into `responses` or `attributes`.
        rating: The higher the better, (ratings,).
        prompt: Prompt of the rated response, (ratings,).
        source: What the rating was drawn from, (ratings,); only ratings of one source are then compared. By default
            a row's source is its prompt, or else its pair of items.
        responses: Texts of the items, (items,).
        attributes: Attributes of the items, (items, attributes).
        attribute_names: Names of the attributes.
        min_gap: Pairs whose ratings differ by less are left out; equal ratings always are.
        max_pairs: At most so many pairs of each user, drawn at random; None for all.
        seed: Of that draw.
        name: What the data are called.

    Returns:
        One row for each pair, users in order of appearance, the higher rated item chosen.

    Raises:
        DataError: A rating is not finite, an item is not known, or no pair is left.
        ConfigError: `min_gap` is negative or `max_pairs` below 1.
    """
    if not min_gap >= 0:
        raise ConfigError(f"min_gap is {min_gap}; it must be 0 or more")
    if max_pairs is not None and max_pairs < 1:
        raise ConfigError(f"max_pairs is {max_pairs}; it must be 1 or more, or None for all pairs")
    score = read_numbers("rating", rating)
    for what, column in (("user", user), ("item", item)):
        check_length(what, column, len(score))
    check_present("rating", score, "finite numbers", np.isfinite(score))
    items, item_index, format = ItemTable(
        responses=responses, attributes=attributes, attribute_names=attribute_names
    ).build(item, prompt)
    user_index, user_ids = number_names(user)
    sources = number_sources(source, len(score))
    within = items.prompt[item_index] if sources is None else index_items(items.prompt[item_index], sources[0])[0]
    order = np.lexsort((within, user_index))
    first, second = pair_up(
        user_index[order],
        within[order],
        score[order],
        item_index[order],
        min_gap,
        max_pairs,
        np.random.default_rng(seed),
    )
    first, second = order[first], order[second]
    better = score[first] > score[second]
    high, low = np.where(better, first, second), np.where(better, second, first)
    return assemble(
        items,
        format,
        item_index[high],
        item_index[low],
        user_index[high],
        user_ids,
        name=name,
        source=None if sources is None else (sources[0][high], sources[1]),
    )


def pair_up(
    user: IntArray,
    within: IntArray,
    score: FloatArray,
    item: IntArray,
    min_gap: float,
    max_pairs: int | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all pairs in ratings sorted by user and by what they were given within, a few users at a time."""
    starts = np.flatnonzero(np.diff(user, prepend=-1) | np.diff(within, prepend=-1))
    size = np.diff(starts, append=len(user))
    group = np.repeat(np.arange(len(starts)), size)
    n_later = (starts + size)[group] - 1 - np.arange(len(user))
    total = np.concatenate([[0], np.cumsum(n_later)])
    bounds = [0]
    user_starts = np.append(np.flatnonzero(np.diff(user, prepend=-1)), len(user))
    while bounds[-1] < len(user):
        reach = int(np.searchsorted(total, total[bounds[-1]] + BLOCK_PAIRS, side="right")) - 1
        at = int(np.searchsorted(user_starts, reach, side="right")) - 1
        following = int(np.searchsorted(user_starts, bounds[-1], side="right"))
        bounds.append(int(user_starts[max(at, following)]))
    firsts, seconds = [], []
    for begin, end in itertools.pairwise(bounds):
        first = np.repeat(np.arange(begin, end), n_later[begin:end])
        second = np.arange(len(first)) + total[begin] - total[first] + first + 1
        gap = np.abs(score[first] - score[second])
        kept = (gap > 0) & (gap >= min_gap) & (item[first] != item[second])
        first, second = first[kept], second[kept]
        if max_pairs is not None:
            shuffled = np.lexsort((rng.random(len(first)), user[first]))
            own = user[first][shuffled]
            rank = np.arange(len(own)) - np.searchsorted(own, own)
            drawn = np.sort(shuffled[rank < max_pairs])
            first, second = first[drawn], second[drawn]
        firsts.append(first)
        seconds.append(second)
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *firsts]), np.concatenate([empty, *seconds])


def from_rankings(
    *,
    user: Names,
    ranking: Sequence[Given],
    prompt: Texts | None = None,
    source: Names | None = None,
    responses: Texts | None = None,
    attributes: np.ndarray | None = None,
    attribute_names: Sequence[str] = (),
    form: str = "choices",
    name: str = "rankings",
) -> Comparisons:
    """Turn rankings, of any lengths, into decisions.

    Plackett-Luce (Plackett 1975, as exploded logit: Chapman and Staelin 1982) reads a ranking of k items as k - 1
    choices, each of one item among those not yet ranked. These and the k (k - 1) / 2 pairs are the same rows; as
    "choices" the rows of one choice share `choice`, as "pairs" each row is taken for a decision of its own, which
    overstates what a ranking says.

    Args:
        user: Who ranked, (rankings,).
        ranking: Items from best to worst, each a text, or a number into `responses` or `attributes`, (rankings,).
        prompt: Prompt of the ranked responses, (rankings,).
        source: What the ranking was drawn from, (rankings,); by default its prompt, or else the ranking itself.
        responses: Texts of the items, (items,).
        attributes: Attributes of the items, (items, attributes).
        attribute_names: Names of the attributes.
        form: "choices" or "pairs".
        name: What the data are called.

    Raises:
        DataError: A ranking has fewer than two items or one of them twice, or an item is not known.
        ConfigError: `form` is not known.
    """
    if form not in ("choices", "pairs"):
        raise ConfigError(f'form is "{form}"; known: choices, pairs')
    check_length("ranking", ranking, len(user))
    flat, size = flatten(ranking, "ranking")
    member = np.repeat(np.arange(len(size)), size)
    items, item, format = ItemTable(responses=responses, attributes=attributes, attribute_names=attribute_names).build(
        flat, repeat_texts(prompt, member)
    )
    check_distinct(item, member, items, "ranking")
    n_later = np.repeat(np.cumsum(size), size) - 1 - np.arange(len(item))
    first = np.repeat(np.arange(len(item)), n_later)
    second = np.arange(len(first)) - np.repeat(np.cumsum(n_later) - n_later, n_later) + first + 1
    user_index, user_ids = number_names(user)
    sources = number_sources(source, len(size))
    if sources is None and prompt is None:
        sources = np.arange(len(size), dtype=np.int32), tuple(f"ranking {i + 1}" for i in range(len(size)))
    return assemble(
        items,
        format,
        item[first],
        item[second],
        user_index[member[first]],
        user_ids,
        name=name,
        source=None if sources is None else (sources[0][member[first]], sources[1]),
        choice=first.astype(np.int32) if form == "choices" else None,
    )


def from_best_of(
    *,
    user: Names,
    options: Sequence[Given],
    best: Numbers,
    prompt: Texts | None = None,
    source: Names | None = None,
    responses: Texts | None = None,
    attributes: np.ndarray | None = None,
    attribute_names: Sequence[str] = (),
    name: str = "choices",
) -> Comparisons:
    """Turn choices of one among k, where k may differ, into decisions of k - 1 rows.

    Args:
        user: Who chose, (choices,).
        options: What was offered, the chosen one included, (choices,); texts, or numbers into `responses` or
            `attributes`.
        best: Place of the chosen one among its options, from 0, (choices,).
        prompt: Prompt of the offered responses, (choices,).
        source: What the choice was drawn from, (choices,); by default its prompt, or else the choice itself.
        responses: Texts of the items, (items,).
        attributes: Attributes of the items, (items, attributes).
        attribute_names: Names of the attributes.
        name: What the data are called.

    Raises:
        DataError: A choice has fewer than two options or one of them twice, `best` is out of range, or an item is
            not known.
    """
    for what, column in (("options", options), ("best", best)):
        check_length(what, column, len(user))
    flat, size = flatten(options, "choice")
    given = read_numbers("best", best)
    check_present("best", given, "whole numbers", np.isfinite(given) & (given == np.round(given)))
    place = given.astype(np.int64)
    bad = np.flatnonzero((place < 0) | (place >= size))
    if len(bad):
        raise DataError(
            f"choice {bad[0] + 1}: best is {place[bad[0]]}, its options are numbered 0 to {size[bad[0]] - 1}"
        )
    member = np.repeat(np.arange(len(size)), size)
    items, item, format = ItemTable(responses=responses, attributes=attributes, attribute_names=attribute_names).build(
        flat, repeat_texts(prompt, member)
    )
    check_distinct(item, member, items, "choice")
    taken = np.cumsum(size) - size + place
    other = np.delete(np.arange(len(item)), taken)
    user_index, user_ids = number_names(user)
    sources = number_sources(source, len(size))
    if sources is None and prompt is None:
        sources = np.arange(len(size), dtype=np.int32), tuple(f"choice {i + 1}" for i in range(len(size)))
    return assemble(
        items,
        format,
        item[taken[member[other]]],
        item[other],
        user_index[member[other]],
        user_ids,
        name=name,
        source=None if sources is None else (sources[0][member[other]], sources[1]),
        choice=member[other].astype(np.int32),
    )


def from_votes(
    *,
    user: Names,
    first: Given,
    second: Given,
    vote: Numbers,
    prompt: Texts | None = None,
    source: Names | None = None,
    responses: Texts | None = None,
    attributes: np.ndarray | None = None,
    attribute_names: Sequence[str] = (),
    first_shown_first: bool = False,
    name: str = "votes",
) -> Comparisons:
    """Turn votes on pairs, a row for each judge of each pair, into comparisons.

    Args:
        user: Who voted, (votes,).
        first: One item of the pair, (votes,); a text, or a number into `responses` or `attributes`.
        second: The other item, (votes,).
        vote: 1 for the first, -1 for the second, 0 for neither (a tie, recorded as outcome 0.5), (votes,).
        prompt: Prompt of the two responses, (votes,).
        source: What the pair was drawn from, (votes,); by default its prompt, or else the pair.
        responses: Texts of the items, (items,).
        attributes: Attributes of the items, (items, attributes).
        attribute_names: Names of the attributes.
        first_shown_first: Whether `first` was shown first to the judges, which sets `position`.
        name: What the data are called.

    Raises:
        DataError: A vote is none of the three, both items of a pair are the same, or an item is not known.
    """
    choice = read_numbers("vote", vote)
    n = len(choice)
    for what, column in (("user", user), ("first", first), ("second", second)):
        check_length(what, column, n)
    check_present("vote", choice, "1 (first), -1 (second) and 0 (tie)", np.isin(choice, (-1, 0, 1)))
    both: Given = [*first, *second] if n and isinstance(first[0], str) else np.concatenate([first, second])
    twice = repeat_texts(prompt, np.tile(np.arange(n), 2))
    items, item, format = ItemTable(responses=responses, attributes=attributes, attribute_names=attribute_names).build(
        both, twice
    )
    user_index, user_ids = number_names(user)
    turned = choice < 0
    return assemble(
        items,
        format,
        np.where(turned, item[n:], item[:n]),
        np.where(turned, item[:n], item[n:]),
        user_index,
        user_ids,
        name=name,
        source=number_sources(source, n),
        outcome=np.where(choice == 0, 0.5, 1.0) if (choice == 0).any() else None,
        position=np.where(turned, -1, 1).astype(np.int32) if first_shown_first else None,
    )
