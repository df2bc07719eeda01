"""Read the files of a public set, and say which file, line and column is not what it should be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.types import BoolArray, FloatArray, IntArray

TEXT = pa.large_string()


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of a folder, compressed with gzip or not, or None."""
    plain = name.removesuffix(".gz")
    return next((folder / each for each in (name, plain, f"{plain}.gz") if (folder / each).is_file()), None)


def require_file(folder: Path, name: str) -> Path:
    """Return the file of a folder, compressed with gzip or not.

    Raises:
        DataError: There is no such file.
    """
    path = find_file(folder, name)
    if path is None:
        raise DataError(f"{folder} has no {name}", hint="name the folder that holds the set's files with --path")
    return path


def read_csv(folder: Path, name: str, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Read a CSV file with a header; columns that are not named get the type their values suggest.

    Raises:
        DataError: The file is absent or not CSV, a column is missing, or a value has not the column's type.
    """
    path = require_file(folder, name)
    try:
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=dict(columns)),
        )
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as {'gzipped ' if path.suffix == '.gz' else ''}CSV: {error}",
            hint="fetch the file again, or rename it to what it is",
        ) from error
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]}; it has {', '.join(table.column_names)}")
    return table


def read_lines(path: Path, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, each with all of `keys`.

    Raises:
        DataError: The file is not what its ending says, a line is no JSON object, or lacks a key.
    """
    line, number = "", 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                absent = keys if not isinstance(row, dict) else [key for key in keys if key not in row]
                if absent or not isinstance(row, dict):
                    raise DataError(
                        f"{path}, line {number}: there is no {', '.join(absent) or 'object'}: {line[:80]!r}"
                    )
                yield row
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {number} is not JSON ({error.msg}): {line[:80]!r}",
            hint="each line must be one JSON object; fetch the file again if it was cut short",
        ) from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as {'gzipped ' if path.suffix == '.gz' else ''}JSON lines: {error}",
            hint="fetch the file again, or rename it to what it is",
        ) from error


def read_jsonl(folder: Path, name: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Read all lines of a file of JSON objects (see `read_lines`)."""
    return list(read_lines(require_file(folder, name), keys))


def lookup(texts: Mapping[Any, str], keys: Iterable[Any], where: str) -> list[str]:
    """Return the text of every key.

    Raises:
        DataError: A key has no text.
    """
    wanted = list(keys)
    absent = next((key for key in wanted if key not in texts), None)
    if absent is not None:
        raise DataError(f"{where} names {absent!r}, which has no text", hint="fetch all files of the set again")
    return [texts[key] for key in wanted]


def preferences(values: Sequence[Any], accepted: Mapping[Any, float], where: str) -> FloatArray:
    """Translate the answers of a column: 1 the first response is preferred, 0 the second, 0.5 a tie.

    Raises:
        DataError: A value is not among the accepted ones.
    """
    unknown = next((i for i, value in enumerate(values) if value not in accepted), None)
    if unknown is not None:
        raise DataError(
            f"{where}: row {unknown + 1} is {values[unknown]!r}; accepted: {', '.join(map(repr, accepted))}"
        )
    return np.array([accepted[value] for value in values], dtype=np.float64)


def decided(preference: FloatArray, ties: str) -> tuple[IntArray, BoolArray, FloatArray | None]:
    """Say which rows stay and which way round they go.

    Args:
        preference: 1 where the first response is preferred, 0 the second, 0.5 a tie, (rows,).
        ties: "drop", or "keep" with outcome 0.5.

    Returns:
        Rows that stay, whether the second response of each is the chosen one, and the outcomes (None: all 1).
    """
    one_of("ties", ties, ("drop", "keep"))
    rows = np.flatnonzero((preference != 0.5) | (ties == "keep")).astype(np.int32)
    tied = preference[rows] == 0.5
    return rows, preference[rows] < 0.5, np.where(tied, 0.5, 1.0) if tied.any() else None


def one_of(option: str, value: Any, accepted: Sequence[Any]) -> None:
    """Check the value of an option.

    Raises:
        ConfigError: It is not among the accepted ones.
    """
    if value not in accepted:
        raise ConfigError(f"{option} is {value!r}; accepted: {', '.join(map(str, accepted))}")


def with_users(comparisons: Comparisons, people: pa.Table, key: str) -> Comparisons:
    """Attach covariates of the users, in the order of `user_ids`.

    Args:
        comparisons: The table.
        people: One row per person (where one has several, the first counts); a user without any gets nulls.
        key: Its column of user names, which is left out of the covariates.
    """
    names, first = np.unique(people[key].to_numpy(), return_index=True)
    row_of = dict(zip(names, first, strict=True))
    rows = pa.array([row_of.get(user) for user in comparisons.user_ids], type=pa.int64())
    return replace(comparisons, users=people.drop_columns([key]).take(rows))


def texts(table: pa.Table, column: str) -> list[str]:
    """Return a column as strings; an empty cell is an empty string."""
    return [value if value is not None else "" for value in table[column].to_pylist()]
