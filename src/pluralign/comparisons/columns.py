"""The columns of what was read: which is which, and what a value may be.

A bad value is named by its row, with what is accepted and the way out; of many bad rows the first five are named.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn, TypeAlias, TypeGuard

import numpy as np
import pyarrow as pa

from pluralign.comparisons.chats import encode_chat, find_chat_fault, find_text_fault
from pluralign.comparisons.table import encode_texts
from pluralign.errors import ConfigError, DataError
from pluralign.types import FloatArray

RawColumn: TypeAlias = pa.ChunkedArray | list[Any]
Place: TypeAlias = Callable[[int], str]

REQUIRED = ("chosen", "rejected", "user")
N_NAMED = 5
SYNONYMS = {
    "prompt": ("question", "instruction", "context", "query", "input"),
    "chosen": ("preferred", "winner", "better"),
    "rejected": ("dispreferred", "loser", "worse"),
    "user": ("annotator", "worker", "rater", "judge", "labeler", "participant", "respondent", "voter"),
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of the data holds what.

    None stands for the column of the role's own name, if there is one (`chosen`, `rejected` and `user` must be
    there). A column that is named here must exist. An empty name means that there is none, even if a column is
    so called.
    """

    prompt: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    user: str | None = None
    outcome: str | None = None
    weight: str | None = None
    source: str | None = None
    split: str | None = None
    created_at: str | None = None
    choice: str | None = None
    position: str | None = None

    @property
    def wanted(self) -> dict[str, str]:
        """Name of the column that each role has if it is there."""
        named = {role: role if name is None else name for role, name in asdict(self).items()}
        return {role: name for role, name in named.items() if name}

    def find(self, names: Sequence[str], where: str) -> dict[str, str]:
        """Return the column of every role that is there.

        Raises:
            DataError: A column that must be there is not.
        """
        for role, name in self.wanted.items():
            if name not in names and (role in REQUIRED or getattr(self, role) is not None):
                fail_column(role, name, names, where)
        missing = [role for role in REQUIRED if role not in self.wanted]
        if missing:
            raise ConfigError(f'Columns({missing[0]}="") leaves out a column that must be there')
        return {role: name for role, name in self.wanted.items() if name in names}


ROLES = tuple(field.name for field in fields(Columns))


def as_columns(columns: Columns | Mapping[str, str] | None) -> Columns:
    """Accept a mapping in place of `Columns`.

    Raises:
        ConfigError: A role is unknown.
    """
    if isinstance(columns, Columns):
        return columns
    for role in columns or {}:
        if role not in ROLES:
            raise ConfigError(f'unknown role "{role}" of a column; known: {", ".join(ROLES)}')
    return Columns(**(columns or {}))


def fail_column(role: str, name: str, names: Sequence[str], where: str) -> NoReturn:
    """Say that a column is missing, which there are, and which of them may be meant."""
    words = (role, *SYNONYMS.get(role, ()))
    near = [column for column in names if any(word in column.lower() for word in words)]
    near += difflib.get_close_matches(name, [column for column in names if column not in ROLES])
    if near:
        hint = f'name it with --column {role}={near[0]}, in Python columns={{"{role}": "{near[0]}"}}'
    else:
        hint = f'name it with --column {role}=NAME, in Python columns={{"{role}": ...}}'
    raise DataError(f"{where} has no column {name}; it has: {', '.join(names)}", hint=hint)


def fail_rows(rows: np.ndarray, place: Place, tell: Callable[[int], str], hint: str) -> NoReturn:
    """Raise one error for all bad rows, naming the first few."""
    lines = [f"{place(row)}: {tell(row)}" for row in rows[:N_NAMED].tolist()]
    if len(rows) > N_NAMED:
        lines.append(f"and {len(rows) - N_NAMED} more such rows ({len(rows)} in all)")
    raise DataError("\n".join(lines), hint=hint)


def show(value: object, width: int = 60) -> str:
    """Spell a value for a message, cut to `width` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= width else text[: width - 3] + "..."


def is_text(column: RawColumn) -> TypeGuard[pa.ChunkedArray]:
    """Whether Arrow already knows that every value is a text or missing."""
    if isinstance(column, list):
        return False
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def value_at(column: RawColumn, row: int) -> Any:
    """One value as Python has it."""
    return column[row] if isinstance(column, list) else column[row].as_py()


def read_texts(
    column: RawColumn, name: str, place: Place, where: str, *, must_say: bool = True
) -> tuple[pa.ChunkedArray | list[Any], bool]:
    """Return a column of texts, each stored once, or of chats as lists of messages, and whether it holds chats.

    A column of empty texts is an empty column where it `must_say` something.

    Raises:
        DataError: The column is empty, a value is neither, or texts and chats are mixed.
    """
    import pyarrow.compute as pc

    if is_text(column):
        if column.null_count == len(column):
            fail_empty(name, where)
        if column.null_count:
            fail_values(column, name, np.flatnonzero(column.is_null().to_numpy()), place)
        texts = code_texts(column)
        if must_say and not any(pc.max(pc.binary_length(chunk.dictionary)).as_py() for chunk in texts.chunks):
            fail_empty(name, where)
        return texts, False
    values = column if isinstance(column, list) else column.to_pylist()
    if all(value is None for value in values):
        fail_empty(name, where)
    kind = np.array(
        [0 if isinstance(value, str) else 1 if is_messages(value) else 2 for value in values], dtype=np.int8
    )
    if (kind == 2).any():
        fail_values(values, name, np.flatnonzero(kind == 2), place)
    n_chats = int(np.count_nonzero(kind == 1))
    if 0 < n_chats < len(values):
        rare, common = (1, "texts") if 2 * n_chats <= len(values) else (0, "chats")
        fail_rows(
            np.flatnonzero(kind == rare),
            place,
            lambda row: (
                f"{name} is a {'chat' if rare else 'text'}, {show(values[row])}, where other rows hold {common}"
            ),
            hint="a file holds texts or chats (lists of messages), not both: write all rows in one way",
        )
    if not n_chats:
        if must_say and not any(values):
            fail_empty(name, where)
        return code_texts(as_arrow(values, name, place)), False
    faults = {row: fault for row, chat in enumerate(values) if (fault := find_chat_fault(chat)) is not None}
    if faults:
        fail_rows(
            np.array(list(faults)),
            place,
            lambda row: f"{name}: {faults[row]}",
            hint='a chat is a list of messages such as {"role": "user", "content": "Hello"}',
        )
    return values, True


def code_texts(texts: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Store every text once."""
    return pa.chunked_array([encode_texts(texts)])


def as_arrow(texts: list[str | None], name: str, place: Place) -> pa.Array:
    """Texts as Arrow holds them, in UTF-8.

    Raises:
        DataError: One cannot be written so.
    """
    try:
        return pa.array(texts, type=pa.large_string())
    except UnicodeEncodeError:
        faults = {row: fault for row, text in enumerate(texts) if text and (fault := find_text_fault(text)) is not None}
        fail_rows(
            np.array(list(faults)),
            place,
            lambda row: f"{name} {faults[row]}",
            hint="whatever cut the text cut an emoji or the like in two: take the half out, or drop the row",
        )


def is_messages(value: object) -> bool:
    """Whether a value is meant as a chat: a list of mappings."""
    return isinstance(value, list) and all(isinstance(message, Mapping) for message in value)


def fail_empty(name: str, where: str) -> NoReturn:
    raise DataError(f"{where}: column {name} is empty", hint="fill it, or name another column for it")


def fail_values(column: RawColumn, name: str, rows: np.ndarray, place: Place) -> NoReturn:
    """Say which values are no texts."""

    def tell(row: int) -> str:
        value = value_at(column, row)
        return f"{name} is missing" if is_missing(value) else f"{name} is {show(value)} ({kind_of(value)}), not a text"

    fail_rows(rows, place, tell, hint="accepted are texts and chats (lists of messages); drop or mend these rows")


def kind_of(value: object) -> str:
    return "a list" if isinstance(value, list) else type(value).__name__


def encode_chats(chats: Sequence[Any]) -> pa.ChunkedArray:
    """Spell every chat as canonical JSON."""
    return code_texts(pa.array([encode_chat(chat) for chat in chats], type=pa.large_string()))


def read_names(column: RawColumn, name: str, place: Place, *, may_miss: bool = False) -> pa.ChunkedArray:
    """Return a column of names (texts or whole numbers) as texts; a missing one is "" where it may be missing.

    Raises:
        DataError: A name is missing or empty, or is neither a text nor a whole number.
    """
    if is_text(column) or (not isinstance(column, list) and pa.types.is_integer(column.type)):
        names = column.cast(pa.large_string())
    else:
        names = name_values(column if isinstance(column, list) else column.to_pylist(), name, place)
    names = names.fill_null("")
    if not may_miss:
        codes = names.dictionary_encode().unify_dictionaries()
        known = codes.chunk(0).dictionary.to_pylist() if codes.num_chunks else []
        blank = [i for i, text in enumerate(known) if not text.strip()]
        if blank:
            index = np.concatenate([chunk.indices.to_numpy() for chunk in codes.chunks])
            fail_rows(
                np.flatnonzero(np.isin(index, blank)),
                place,
                lambda row: f"{name} is {'missing' if is_missing(value_at(column, row)) else 'empty'}",
                hint="accepted are texts and whole numbers; fill it, or drop these rows",
            )
    return names


def is_missing(value: object) -> bool:
    """Whether a value is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def name_values(values: list[Any], name: str, place: Place) -> pa.ChunkedArray:
    """Spell names that came as Python values or as floating point numbers."""
    texts: list[str | None] = []
    bad = []
    for row, value in enumerate(values):
        if is_missing(value):
            texts.append(None)
        elif isinstance(value, str):
            texts.append(value)
        elif not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        ):
            texts.append(str(int(value)))
        else:
            bad.append(row)
    if bad:
        fail_rows(
            np.array(bad),
            place,
            lambda row: f"{name} is {show(values[row])} ({kind_of(values[row])}), not a name",
            hint="accepted are texts and whole numbers",
        )
    return pa.chunked_array([as_arrow(texts, name, place)])


def read_numbers(
    column: RawColumn, name: str, place: Place, *, accepted: str, accept: Callable[[FloatArray], np.ndarray], hint: str
) -> FloatArray:
    """Return a column of numbers, (rows,).

    Args:
        column: The values as they were read.
        name: What the column is called.
        place: Names a row.
        accepted: The accepted numbers in words.
        accept: Says of every number, NaN for a missing one, whether it is accepted.
        hint: The way out.

    Raises:
        DataError: A value is not accepted.
    """
    numbers = as_numbers(column)
    bad = np.flatnonzero(~accept(numbers))
    if len(bad):
        fail_rows(bad, place, lambda row: f"{name} is {show(value_at(column, row))}; accepted is {accepted}", hint=hint)
    return numbers


def as_numbers(column: RawColumn) -> FloatArray:
    """Values as floating point numbers: NaN for a missing one, infinity for what is no number."""
    if not isinstance(column, list) and (
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
    ):
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    values = column if isinstance(column, list) else column.to_pylist()
    return np.array([as_number(value) for value in values], dtype=np.float64)


def as_number(value: object) -> float:
    if value is None:
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]  # what float() refuses is not a number
    except (TypeError, ValueError):
        return math.inf


def read_outcome(column: RawColumn, name: str, place: Place) -> FloatArray:
    return read_numbers(
        column,
        name,
        place,
        accepted="a number from 0 (rejected preferred) by 0.5 (a tie) to 1 (chosen preferred)",
        accept=lambda x: (x >= 0) & (x <= 1),
        hint="drop the rows whose outcome is not known, and rescale a rating to [0, 1]",
    )


def read_weight(column: RawColumn, name: str, place: Place) -> FloatArray:
    return read_numbers(
        column,
        name,
        place,
        accepted="a finite number from 0 up",
        accept=lambda x: np.isfinite(x) & (x >= 0),
        hint="a row that should not count has weight 0; for the opposite preference, exchange chosen and rejected",
    )


def read_position(column: RawColumn, name: str, place: Place) -> FloatArray:
    return np.nan_to_num(
        read_numbers(
            column,
            name,
            place,
            accepted="1 (chosen was shown first), -1 (second), 0 or nothing (not known)",
            accept=lambda x: np.isnan(x) | np.isin(x, (-1, 0, 1)),
            hint="leave the column out where the order of presentation is not known",
        )
    )
