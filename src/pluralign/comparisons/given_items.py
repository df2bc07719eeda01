"""Items as callers give them, numbered: texts, numbers into texts, or numbers into vectors of attributes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from pluralign.comparisons.columns import N_NAMED, show
from pluralign.comparisons.table import (
    Comparisons,
    Format,
    Items,
    Texts,
    default_source,
    index_items,
    index_texts,
)
from pluralign.errors import DataError
from pluralign.types import FloatArray, IntArray

Numbers: TypeAlias = Sequence[float | int] | np.ndarray
Given: TypeAlias = Sequence[str] | Sequence[int] | np.ndarray
Names: TypeAlias = Texts | Sequence[int] | np.ndarray


@dataclass(frozen=True, kw_only=True)
class ItemTable:
    """What the numbers of items stand for.

    Attributes:
        responses: Texts of the items, (items,), or None where items are given as texts, or have none.
        attributes: Numeric attributes of the items, (items, attributes), or None.
        attribute_names: Names of the columns of `attributes`; by default x0, x1, ...
    """

    responses: Texts | None = None
    attributes: np.ndarray | None = None
    attribute_names: Sequence[str] = ()

    def build(self, given: Given, prompt: Texts | None) -> tuple[Items, IntArray, Format]:
        """Number what was given.

        Args:
            given: Items as texts or numbers, (given,).
            prompt: Prompt of each of them, (given,), or None.

        Returns:
            The distinct items, the item of each that was given, (given,), and their format.

        Raises:
            DataError: A number is out of range, or the table of items does not fit together.
        """
        response, responses = self.number(given)
        attributes = None
        names: tuple[str, ...] = ()
        if self.attributes is not None:
            attributes = np.asarray(self.attributes, dtype=np.float64)
            names = tuple(self.attribute_names) or tuple(f"x{i}" for i in range(attributes.shape[1]))
            if len(names) != attributes.shape[1]:
                raise DataError(f"{len(names)} attribute names for {attributes.shape[1]} attributes")
            bad = np.argwhere(~np.isfinite(attributes))
            if len(bad):
                item, column = bad[0].tolist()
                raise DataError(f"item {item} has {names[column]} {attributes[item, column]}; it must be finite")
        if prompt is None:
            prompt_of_item = np.zeros(len(responses), dtype=np.int32)
            prompts = pa.array([""], type=pa.large_string())
        else:
            check_length("prompt", prompt, len(response))
            prompt_index, prompts = index_texts(prompt)
            response, prompt_of_item, which = index_items(prompt_index, response)
            responses = responses.take(pa.array(which))
            attributes = None if attributes is None else attributes[which]
        items = Items(
            prompt=prompt_of_item,
            prompts=prompts,
            response=responses,
            attributes=attributes,
            attribute_names=names,
        )
        return items, response, "text" if attributes is None else "numeric"

    def number(self, given: Given) -> tuple[IntArray, pa.Array]:
        """Number of each given item, and the texts of the items."""
        if self.responses is None and self.attributes is None:
            wrong = next((value for value in given if not isinstance(value, str)), None)
            if wrong is not None:
                raise DataError(
                    f"item {show_given(wrong)} is not a text",
                    hint="items given as numbers need responses or attributes",
                )
            return index_texts(given)
        if self.responses is None:
            texts = pa.array([f"item {i}" for i in range(len(self.attributes))], type=pa.large_string())  # type: ignore[arg-type]
        else:
            texts = as_array(self.responses)
        if self.attributes is not None and len(texts) != len(self.attributes):
            raise DataError(f"{len(texts)} responses for {len(self.attributes)} rows of attributes")
        number = np.asarray(given)
        if number.dtype.kind not in "iu" and len(number):
            raise DataError(f"items are {number.dtype}, such as {show_given(given[0])}; accepted are whole numbers")
        bad = np.flatnonzero((number < 0) | (number >= len(texts)))
        if len(bad):
            raise DataError(f"item {number[bad[0]]} is out of range; there are {len(texts)}, numbered from 0")
        if self.attributes is not None:
            return number.astype(np.int32), texts
        distinct, responses = index_texts(texts)
        return distinct[number.astype(np.int32)], responses


def show_given(value: object) -> str:
    return show(value.item() if isinstance(value, np.generic) else value)


def check_length(name: str, column: Sequence[object] | np.ndarray | Texts, n: int) -> None:
    if len(column) != n:
        raise DataError(f"{name} has {len(column)} values where there are {n}")


def check_present(name: str, values: FloatArray, accepted: str, ok: np.ndarray) -> None:
    """Name the first values that are not accepted."""
    bad = np.flatnonzero(~ok)
    if len(bad):
        named = ", ".join(f"{values[row]} (row {row + 1})" for row in bad[:N_NAMED])
        raise DataError(f"{name} has {len(bad)} values that are not accepted: {named}; accepted: {accepted}")


def assemble(
    items: Items,
    format: Format,
    chosen: IntArray,
    rejected: IntArray,
    user: IntArray,
    user_ids: tuple[str, ...],
    *,
    name: str,
    source: tuple[IntArray, tuple[str, ...]] | None = None,
    outcome: FloatArray | None = None,
    choice: IntArray | None = None,
    position: IntArray | None = None,
) -> Comparisons:
    """The table of rows already numbered."""
    chosen, rejected = chosen.astype(np.int32), rejected.astype(np.int32)
    same = np.flatnonzero(chosen == rejected)
    if len(same):
        response = show(items.response[int(chosen[same[0]])].as_py())
        raise DataError(
            f"row {same[0] + 1}: chosen and rejected are the same response ({response}), and so in {len(same)} rows",
            hint="give each item once",
        )
    if not len(chosen):
        raise DataError("no comparison is left", hint="lower the minimum gap, or give users with two items or more")
    if source is None:
        source = default_source(items.prompt[chosen], items.prompts, chosen, rejected, choice)
    return Comparisons(
        items=items,
        chosen=chosen,
        rejected=rejected,
        user=user.astype(np.int32),
        user_ids=user_ids,
        source=source[0].astype(np.int32),
        source_ids=source[1],
        outcome=outcome,
        choice=choice,
        position=position,
        format=format,
        name=name,
    )


def number_names(names: Names) -> tuple[IntArray, tuple[str, ...]]:
    """Number distinct names, texts or whole numbers."""
    if not isinstance(names, pa.Array | pa.ChunkedArray):
        array = np.asarray(names)
        names = [str(each) for each in array.tolist()] if array.dtype.kind in "iu" else list(names)
        wrong = next((each for each in names if each is not None and not isinstance(each, str)), None)
        if wrong is not None:
            raise DataError(f"{show_given(wrong)} is no name; accepted are texts, or whole numbers alone")
    index, ids = index_texts(names)
    return index, tuple(ids.to_pylist())


def number_sources(source: Names | None, n: int) -> tuple[IntArray, tuple[str, ...]] | None:
    if source is None:
        return None
    check_length("source", source, n)
    return number_names(source)


def read_numbers(name: str, values: Numbers) -> FloatArray:
    """Numbers, None among them as NaN."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} holds something else than numbers: {error}") from None


def flatten(lists: Sequence[Given], what: str) -> tuple[list[str] | np.ndarray, np.ndarray]:
    """Put lists of items one after the other; also the length of each."""
    if not len(lists):
        raise DataError(f"there is no {what}")
    text = next((i for i, items in enumerate(lists) if isinstance(items, str)), None)
    if text is not None:
        raise DataError(f"{what} {text + 1} is one text, {show(lists[text])}; it must be a list of items")
    size = np.fromiter((len(items) for items in lists), dtype=np.int64, count=len(lists))
    short = np.flatnonzero(size < 2)
    if len(short):
        raise DataError(f"{what} {short[0] + 1} has {size[short[0]]} items; it must have at least 2")
    flat: list = list(itertools.chain.from_iterable(lists))
    return (flat if flat and isinstance(flat[0], str) else np.array(flat)), size


def check_distinct(item: IntArray, member: np.ndarray, items: Items, what: str) -> None:
    """Hold that no list names an item twice."""
    order = np.lexsort((item, member))
    again = np.flatnonzero((np.diff(item[order]) == 0) & (np.diff(member[order]) == 0))
    if len(again):
        row = int(order[again[0]])
        text = show(items.response[int(item[row])].as_py())
        raise DataError(f"{what} {member[row] + 1} has {text} twice", hint="give each item once")


def as_array(texts: Texts) -> pa.Array:
    """Texts in one array."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    return texts.cast(pa.large_string()) if isinstance(texts, pa.Array) else pa.array(texts, type=pa.large_string())


def repeat_texts(texts: Texts | None, member: np.ndarray) -> Texts | None:
    """The text of each list, once for each of its members."""
    return None if texts is None else as_array(texts).take(pa.array(member))
