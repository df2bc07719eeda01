"""Who chose what: the `Comparisons` table.

In memory it is three things: the distinct *items* (a prompt and a response, or a vector of attributes), the *rows*
(index of the chosen and of the rejected item) and the *user* of each row. A text is stored once however often it
is compared, and a subset of the rows shares items and users with the whole, so that a feature matrix computed
once serves every split.

A choice of one response among k is k - 1 rows that share a number in `choice`: one decision, not k - 1
independent ones. Where `choice` is None every row is a decision of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from pluralign.errors import DataError
from pluralign.types import BoolArray, FloatArray, IntArray

Format = Literal["text", "chat", "numeric"]
Texts: TypeAlias = Sequence[str] | pa.Array | pa.ChunkedArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Items:
    """The distinct things that were compared.

    Attributes:
        prompt: Index into `prompts` of every item, (items,).
        prompts: Distinct prompts, (prompts,); chat prompts as canonical JSON. One empty string where there is none.
        response: Response text of every item, (items,); chat responses as canonical JSON, numeric items a label.
        attributes: Numeric attributes of every item, (items, attributes), or None where items are texts alone.
        attribute_names: Names of the columns of `attributes`.
    """

    prompt: IntArray
    prompts: pa.Array
    response: pa.Array
    attributes: FloatArray | None = None
    attribute_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Comparisons:
    """A table of comparisons: the chosen item, the rejected item, and who chose.

    Attributes:
        items: The distinct items.
        chosen: Item index of the chosen (first) response, (rows,).
        rejected: Item index of the rejected (second) response, (rows,).
        user: User index, (rows,), into `user_ids`.
        user_ids: The users' names, (users,). A user need not have a row (after `take`, say).
        outcome: 1 where `chosen` was preferred, 0.5 a tie, soft labels between, (rows,); None means all 1.
        weight: Weight of every row, (rows,); None means all 1.
        choice: Decision number, non-decreasing, (rows,); rows of one decision are contiguous, share their chosen
            item and their user. None means that each row is a decision.
        source: Index into `source_ids` of what the row was drawn from, (rows,). Siblings share it and never
            straddle a split.
        source_ids: Names of the sources.
        position: 1 where `chosen` was shown first, -1 second, 0 unknown, (rows,); None means all unknown.
        split: Name of the split the data came with, (rows,), or None.
        created_at: Timestamp strings or numbers as they came, (rows,), or None.
        users: Covariates of the users, one row each in the order of `user_ids`, or None.
        format: Whether items are texts, chats or numbers.
        name: What the data are called in reports.
    """

    items: Items
    chosen: IntArray
    rejected: IntArray
    user: IntArray
    user_ids: tuple[str, ...]
    source: IntArray
    source_ids: tuple[str, ...]
    outcome: FloatArray | None = None
    weight: FloatArray | None = None
    choice: IntArray | None = None
    position: IntArray | None = None
    split: np.ndarray | None = None
    created_at: np.ndarray | None = None
    users: pa.Table | None = None
    format: Format = "text"
    name: str = "comparisons"

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.chosen)

    def __repr__(self) -> str:
        return (
            f"<Comparisons {self.name}: {len(self):,} rows, {self.n_decisions:,} decisions, {self.n_users:,} users, "
            f"{len(self.items):,} {self.format} items, {len(self.source_ids):,} sources>"
        )

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @cached_property
    def decision(self) -> IntArray:
        """Decision of every row, 0, 1, 2, ... without gaps, (rows,)."""
        if self.choice is None:
            return np.arange(len(self), dtype=np.int32)
        if not len(self):
            return np.empty(0, dtype=np.int32)
        return np.cumsum(np.diff(self.choice, prepend=self.choice[0]) != 0, dtype=np.int32)

    @cached_property
    def first_row(self) -> IntArray:
        """First row of every decision, (decisions,): where its user, source and weight stand."""
        return np.flatnonzero(np.diff(self.decision, prepend=-1)).astype(np.int32)

    @property
    def n_decisions(self) -> int:
        return int(self.decision[-1]) + 1 if len(self) else 0

    def take(self, rows: np.ndarray) -> Comparisons:
        """Return the table of some rows, in their order; items, users and sources keep their numbers.

        Args:
            rows: Row indices (rows,) or a boolean mask over rows.

        Raises:
            DataError: Some rows of a decision are taken and others left.
        """
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows)
        if self.choice is not None and len(rows):
            kept = np.bincount(self.decision[rows], minlength=self.n_decisions)
            whole = np.bincount(self.decision, minlength=self.n_decisions)
            torn = np.flatnonzero((kept != 0) & (kept != whole))
            if len(torn):
                raise DataError(
                    f"decision {torn[0]} would be torn: {kept[torn[0]]} of its {whole[torn[0]]} rows were taken",
                    hint="take whole decisions: `rows = mask[comparisons.decision]`",
                )

        def at(column: np.ndarray | None) -> np.ndarray | None:
            return None if column is None else column[rows]

        return replace(
            self,
            chosen=self.chosen[rows],
            rejected=self.rejected[rows],
            user=self.user[rows],
            source=self.source[rows],
            outcome=at(self.outcome),
            weight=at(self.weight),
            choice=at(self.choice),
            position=at(self.position),
            split=at(self.split),
            created_at=at(self.created_at),
        )

    def take_decisions(self, decisions: np.ndarray) -> Comparisons:
        """Return the rows of the decisions marked in a boolean mask, (decisions,)."""
        mask: BoolArray = np.asarray(decisions, dtype=np.bool_)
        return self.take(mask[self.decision])


def encode_texts(texts: Texts) -> pa.DictionaryArray:
    """Texts in order, each stored once; what is so stored already is not read again."""
    if not isinstance(texts, pa.ChunkedArray):
        texts = pa.chunked_array([texts if isinstance(texts, pa.Array) else pa.array(texts, type=pa.large_string())])
    if pa.types.is_dictionary(texts.type):
        coded = texts.cast(pa.dictionary(pa.int32(), pa.large_string())).unify_dictionaries()
    else:
        coded = texts.cast(pa.large_string()).dictionary_encode()  # all chunks share one dictionary
    if not coded.num_chunks:
        return pa.array([], type=pa.large_string()).dictionary_encode()
    indices = pa.chunked_array([chunk.indices for chunk in coded.chunks]).combine_chunks()
    return pa.DictionaryArray.from_arrays(indices, coded.chunk(coded.num_chunks - 1).dictionary)


def index_texts(*columns: Texts) -> tuple[IntArray, pa.Array]:
    """Number the distinct texts of some columns, one after the other, in order of first appearance.

    Returns:
        The number of every text, (texts,), and the distinct texts.

    Raises:
        DataError: A text is missing.
    """
    each = [encode_texts(column) for column in columns]
    for column in each:
        if column.null_count:
            raise DataError(
                f"row {column.is_null().index(True).as_py() + 1}: a text is missing", hint="fill or drop it"
            )
    coded = encode_texts(pa.chunked_array(each))
    # A dictionary may hold texts that no row has, and in another order.
    used = coded.indices.dictionary_encode()
    return used.indices.to_numpy(zero_copy_only=False).astype(np.int32), coded.dictionary.take(used.dictionary)


def index_items(prompt: IntArray, response: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Number distinct (prompt, response) pairs in order of first appearance.

    Returns:
        Item number of every pair, (pairs,), and the prompt and the response number of every item, (items,).
    """
    width = int(response.max(initial=0)) + 1
    coded = pa.array(prompt.astype(np.int64) * width + response).dictionary_encode()
    keys = coded.dictionary.to_numpy()
    item = coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return item, (keys // width).astype(np.int32), (keys % width).astype(np.int32)


def index_pairs(first: IntArray, second: IntArray) -> IntArray:
    """Number distinct unordered pairs in order of first appearance: (a, b) and (b, a) have one number, (pairs,)."""
    return index_items(np.minimum(first, second), np.maximum(first, second))[0]


def default_source(
    prompt: IntArray, prompts: pa.Array, chosen: IntArray, rejected: IntArray, choice: np.ndarray | None
) -> tuple[IntArray, tuple[str, ...]]:
    """What a row was drawn from, where the data do not say: its prompt.

    Rows without a prompt that compare the same two items, in either order, are siblings; those of a choice among
    more than two are siblings of one another.

    Returns:
        Source of every row, (rows,), and the sources' names.
    """
    texts = prompts.to_pylist()
    blank = np.array([text == "" for text in texts], dtype=np.bool_)[prompt]
    if not blank.any():
        return prompt, tuple(texts)
    pair = index_pairs(chosen, rejected)
    own = len(texts) + pair
    if choice is not None and len(choice):
        decision = np.cumsum(np.diff(choice, prepend=choice[0]) != 0)
        several = np.bincount(decision)[decision] > 1
        own = np.where(several, len(texts) + int(pair.max()) + 1 + decision, own)
    used, first, source = np.unique(np.where(blank, own, prompt), return_index=True, return_inverse=True)
    names = [texts[key] if key < len(texts) else f"row {row}" for key, row in zip(used, first, strict=True)]
    return source.astype(np.int32), tuple(names)


def from_columns(
    *,
    prompt: Texts,
    chosen: Texts,
    rejected: Texts,
    user: Texts,
    source: Texts | None = None,
    outcome: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    choice: np.ndarray | None = None,
    position: np.ndarray | None = None,
    split: np.ndarray | None = None,
    created_at: np.ndarray | None = None,
    users: pa.Table | None = None,
    format: Format = "text",
    name: str = "comparisons",
) -> Comparisons:
    """Build the table from one value per row.

    `source` defaults to the prompt; rows without a prompt are siblings where they compare the same two responses.

    This trusts its input; `pluralign.comparisons.read` checks it and names the bad rows.
    """
    n = len(chosen)
    prompt_index, prompts = index_texts(prompt)
    response_index, responses = index_texts(chosen, rejected)
    item, item_prompt, item_response = index_items(np.concatenate([prompt_index, prompt_index]), response_index)
    user_index, user_ids = index_texts(user)
    if source is None:
        source_index, source_ids = default_source(prompt_index, prompts, item[:n], item[n:], choice)
    else:
        source_index, source_names = index_texts(source)
        source_ids = tuple(source_names.to_pylist())
    return Comparisons(
        items=Items(prompt=item_prompt, prompts=prompts, response=responses.take(pa.array(item_response))),
        chosen=item[:n],
        rejected=item[n:],
        user=user_index,
        user_ids=tuple(user_ids.to_pylist()),
        source=source_index,
        source_ids=source_ids,
        outcome=None if outcome is None else np.asarray(outcome, dtype=np.float64),
        weight=None if weight is None else np.asarray(weight, dtype=np.float64),
        choice=None if choice is None else np.asarray(choice, dtype=np.int32),
        position=None if position is None else np.asarray(position, dtype=np.int32),
        split=split,
        created_at=created_at,
        users=users,
        format=format,
        name=name,
    )


def from_attributes(
    *,
    attributes: np.ndarray,
    attribute_names: Sequence[str],
    chosen: np.ndarray,
    rejected: np.ndarray,
    user: Sequence[str],
    source: Sequence[str] | None = None,
    outcome: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    choice: np.ndarray | None = None,
    position: np.ndarray | None = None,
    created_at: np.ndarray | None = None,
    users: pa.Table | None = None,
    labels: Sequence[str] | None = None,
    name: str = "comparisons",
) -> Comparisons:
    """Build the table of numeric items: attribute vectors (items, attributes) and the rows that compare them.

    `source` defaults to the decision, so that the rows of one choice stay together.
    """
    n_items = len(attributes)
    user_index, user_ids = index_texts(user)
    if source is None:
        steps = np.arange(len(chosen)) if choice is None else np.cumsum(np.diff(choice, prepend=choice[0]) != 0)
        source = [f"decision {i}" for i in steps]
    source_index, source_ids = index_texts(source)
    names = [f"item {i}" for i in range(n_items)] if labels is None else list(labels)
    return Comparisons(
        items=Items(
            prompt=np.zeros(n_items, dtype=np.int32),
            prompts=pa.array([""], type=pa.large_string()),
            response=pa.array(names, type=pa.large_string()),
            attributes=np.asarray(attributes, dtype=np.float64),
            attribute_names=tuple(attribute_names),
        ),
        chosen=np.asarray(chosen, dtype=np.int32),
        rejected=np.asarray(rejected, dtype=np.int32),
        user=user_index,
        user_ids=tuple(user_ids.to_pylist()),
        source=source_index,
        source_ids=tuple(source_ids.to_pylist()),
        outcome=None if outcome is None else np.asarray(outcome, dtype=np.float64),
        weight=None if weight is None else np.asarray(weight, dtype=np.float64),
        choice=None if choice is None else np.asarray(choice, dtype=np.int32),
        position=None if position is None else np.asarray(position, dtype=np.int32),
        created_at=created_at,
        users=users,
        format="numeric",
        name=name,
    )
