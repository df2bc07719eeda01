"""A pool of pairs that could be put to a user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pluralign.comparisons import Comparisons, read
from pluralign.comparisons.columns import as_columns
from pluralign.comparisons.reading import load as load_columns
from pluralign.comparisons.table import index_pairs
from pluralign.errors import DataError
from pluralign.features import Item
from pluralign.types import IntArray

NOBODY = "nobody"
_ROLES = ("prompt", "chosen", "rejected", "source")


def read_pool(data: str | Path, *, columns: Mapping[str, str] | None = None) -> Comparisons:
    """Read pairs that nobody has answered yet from a file or folder of rows.

    As `pluralign.comparisons.read`, but no column says who chose, and the two responses may also be called `first` and
    `second`. What else the rows say (a user, an outcome) is not read: a pool may be comparisons that others made.

    Args:
        data: File or folder.
        columns: Which column holds what, as for `read`.

    Raises:
        DataError: Something is not as it should be; the message names the row.
    """
    given = dict(columns or {})
    as_columns(given)
    names = {name for part in load_columns(data, ["chosen"], [], config=None, revision=None) for name in part.names}
    for role, name in (("chosen", "first"), ("rejected", "second")):
        if role not in given and role not in names and name in names:
            given[role] = name
    kept = {role: given.get(role, role) for role in _ROLES}
    # Whoever chose is left out by naming a column that is there in any case.
    others = dict.fromkeys(("outcome", "weight", "split", "created_at", "choice", "position"), "")
    return without_answers(read(data, columns={**given, **others, "user": kept["chosen"]}))


def without_answers(comparisons: Comparisons) -> Comparisons:
    """The rows of a table as pairs that nobody has answered, in their order."""
    return replace(
        comparisons,
        user=np.zeros(len(comparisons), dtype=np.int32),
        user_ids=(NOBODY,),
        outcome=None,
        weight=None,
        choice=None,
        position=None,
        split=None,
        created_at=None,
        users=None,
    )


def distinct_pairs(comparisons: Comparisons) -> IntArray:
    """The first row of every unordered pair of items, ascending.

    Raises:
        DataError: There is no row.
    """
    if not len(comparisons):
        raise DataError("the pool is empty", hint="give a pool of at least one pair")
    number = index_pairs(comparisons.chosen, comparisons.rejected)
    return np.sort(np.unique(number, return_index=True)[1]).astype(np.int32)


def pairs_among(pool: Comparisons, answers: Comparisons) -> np.ndarray:
    """Which pairs of a pool occur in another table, in either order, (rows,)."""
    known = {frozenset(pair) for pair in zip(*_names(answers), strict=True)}
    return np.array([frozenset(pair) in known for pair in zip(*_names(pool), strict=True)], dtype=np.bool_)


def show_prompt(pool: Comparisons, row: int) -> str:
    """The prompt of a pair as plain text; empty where there is none."""
    text = pool.items.prompts[int(pool.items.prompt[pool.chosen[row]])].as_py()
    return Item("", text, True).text(prompt=False) if pool.format == "chat" and text else text


def show_response(pool: Comparisons, item: int) -> str:
    """A response as plain text; of numbers, one line for each."""
    items = pool.items
    text = items.response[int(item)].as_py()
    if pool.format == "chat":
        return Item("", text, True).text(prompt=False)
    if items.attributes is None:
        return text
    return "\n".join(
        f"{name} = {value:g}" for name, value in zip(items.attribute_names, items.attributes[item], strict=True)
    )


def _names(table: Comparisons) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """What the first and the second item of every row are, by text and by numbers."""
    items = table.items
    prompts, responses = items.prompts.to_pylist(), items.response.to_pylist()

    def name(item: int) -> tuple[object, ...]:
        numbers = None if items.attributes is None else items.attributes[item].tobytes()
        return prompts[items.prompt[item]], None if numbers else responses[item], numbers

    return [name(item) for item in table.chosen.tolist()], [name(item) for item in table.rejected.tolist()]
