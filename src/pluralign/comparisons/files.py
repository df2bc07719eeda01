"""Files and data sets as raw columns: only those that are wanted, and where each row stands.

Text never passes through Python on the way, except where a jsonl file holds chats or cannot be read in one piece;
then it is read line by line, which also finds the bad line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pluralign.comparisons.columns import RawColumn, fail_rows, show
from pluralign.errors import DataError

if TYPE_CHECKING:
    import datasets

ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
MAGIC = {b"\x1f\x8b": "gzip", b"PAR1": "parquet", b"PK\x03\x04": "zip", b"ARROW1": "arrow", b"\x28\xb5\x2f\xfd": "zstd"}
BLOCK_BYTES = 16 << 20  # a row must fit in one block
N_PEEKED = 100
ABOUT_FILES = ("dataset_info.json", "dataset_infos.json")  # what `datasets` writes beside rows
TEXT = pa.dictionary(pa.int32(), pa.large_string())  # a text is stored once however often it is read


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Columns as they were read.

    Attributes:
        where: What was read, for messages.
        names: All columns that are there.
        columns: Those of the wanted columns that are there.
        row_word: What a row is called: "row", "line" (of a jsonl file), "data row" (below a header).
        path: The file, where there is one.
        split: Name of the split that all rows belong to, where the data set says so.
    """

    where: str
    names: tuple[str, ...]
    columns: Mapping[str, RawColumn]
    row_word: str = "row"
    path: Path | None = None
    split: str | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def place(self, row: int) -> str:
        """Name a row, counted from 1."""
        number = row + 1
        if self.row_word == "line" and self.path is not None:
            with open_bytes(self.path) as file:
                filled = (number for number, line in enumerate(file, start=1) if line.strip())
                number = next(number for i, number in enumerate(filled) if i == row)
        return f"{self.where}, {self.row_word} {number}" if self.path else f"{self.row_word} {number}"


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a file, unpacked where it ends in .gz."""
    return io.BufferedReader(gzip.GzipFile(path)) if path.suffix == ".gz" else path.open("rb")


def kind_of_path(path: Path) -> str | None:
    """What a file's name says that it is, or None."""
    return ENDINGS.get(Path(path.stem if path.suffix == ".gz" else path.name).suffix.lower())


def list_files(path: Path) -> list[Path]:
    """The files that a path stands for, by name.

    Raises:
        DataError: There is none that can be read.
    """
    known = ", ".join(ENDINGS) + " (and these with .gz)"
    if path.is_file():
        if kind_of_path(path) is None:
            raise DataError(f'{path.name}: the ending "{path.suffix}" is not known; known: {known}')
        return [path]
    files = sorted(
        file
        for file in path.iterdir()
        if file.is_file() and kind_of_path(file) is not None and file.name not in ABOUT_FILES
    )
    if not files:
        there = ", ".join(sorted(file.name for file in path.iterdir())[:10]) or "nothing"
        raise DataError(f"{path} has no file to read; it has: {there}", hint=f"known endings: {known}")
    return files


def load_file(path: Path, wanted: Sequence[str], numbers: Sequence[str]) -> Raw:
    """Read the wanted columns of a file; `numbers` are those of them that hold numbers.

    Raises:
        DataError: The file is empty, not what its ending says, or has a row that cannot be read.
    """
    kind = kind_of_path(path)
    try:
        check_content(path, kind)
        if kind == "parquet":
            return load_parquet(path, wanted)
        if kind == "csv":
            return load_csv(path, wanted, numbers)
        if kind == "json" and first_byte(path) == b"[":
            return load_json_list(path, wanted)
        return load_jsonl(path, wanted, numbers)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path.name} cannot be read: {error}", hint="it may be cut off; fetch it again") from error


def first_byte(path: Path) -> bytes:
    """First byte that is no blank and no byte order mark."""
    with open_bytes(path) as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def check_content(path: Path, kind: str | None) -> None:
    """Hold a file's first bytes against its name."""
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty (0 bytes)", hint="write at least one comparison to it")
    with path.open("rb") as file:
        head = file.read(8)
    found = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
    expected = "gzip" if path.suffix == ".gz" else "parquet" if kind == "parquet" else None
    if found != expected:
        raise DataError(
            f'{path.name} is not what its ending says: "{path.suffix}" is {expected or "plain text"}, '
            f"the file is {found or 'something else'} (it begins with {head[:4]!r})",
            hint=f"rename it, or write it again as {expected or 'plain text'}",
        )
    if kind == "parquet":
        return
    byte = first_byte(path)
    if not byte:
        raise DataError(f"{path.name} is empty (blanks only)", hint="write at least one comparison to it")
    if kind == "csv" and byte in (b"{", b"["):
        raise DataError(
            f'{path.name} is not what its ending says: it begins with "{byte.decode()}" as JSON does, '
            "not with a header",
            hint="rename it to .jsonl",
        )
    if kind in ("jsonl", "json") and byte not in (b"{", b"["):
        with open_bytes(path) as file:
            line = file.readline().decode(errors="replace").strip()
        raise DataError(
            f"{path.name} is not what its ending says: it begins with {show(line)}, not with a JSON object",
            hint="rename it to .csv if its first line is a header; else write one JSON object on each line",
        )


def load_parquet(path: Path, wanted: Sequence[str]) -> Raw:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = tuple(file.schema_arrow.names)
        texts = [field.name for field in file.schema_arrow if field.name in wanted and is_text_type(field.type)]
        file = pq.ParquetFile(path, read_dictionary=texts)
        table = file.read(columns=[name for name in wanted if name in names])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path.name} cannot be read as parquet: {error}", hint="write the file again") from error
    return raw_of_table(table, names, where=path.name, path=path)


def is_text_type(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def raw_of_table(
    table: pa.Table, names: tuple[str, ...], *, where: str, path: Path | None = None, split: str | None = None
) -> Raw:
    """Raw columns of an Arrow table."""
    columns = {name: table.column(name) for name in table.column_names}
    return Raw(where=where, names=names, columns=columns, path=path, split=split)


def load_csv(path: Path, wanted: Sequence[str], numbers: Sequence[str]) -> Raw:
    from pyarrow import csv as arrow_csv

    delimiter = "\t" if ".tsv" in path.suffixes else ","
    try:
        with io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="") as file:
            names = tuple(next(csv.reader(file, delimiter=delimiter)))
    except UnicodeDecodeError:
        fail_encoding(path)
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise DataError(
            f"{path.name} has one column, {show(names[0])}",
            hint="separate its fields by commas; a file ending in .tsv by tabs",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has two columns {twice[0]}", hint="rename one of them in the header")
    ragged: list[tuple[int | None, int, int]] = []

    def note(row: Any) -> str:
        ragged.append((row.number, row.expected_columns, row.actual_columns))
        return "skip"

    def read(use_threads: bool) -> pa.Table:
        ragged.clear()
        with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
            return arrow_csv.read_csv(
                stream,
                read_options=arrow_csv.ReadOptions(use_threads=use_threads, block_size=BLOCK_BYTES),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note
                ),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=[name for name in wanted if name in names],
                    column_types={name: TEXT for name in wanted if name not in numbers},
                ),
            )

    try:
        table = read(use_threads=True)
        if ragged:
            read(use_threads=False)  # with threads Arrow does not count the rows
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            fail_encoding(path)
        raise DataError(f"{path.name} cannot be read: {error}", hint="check its quotes and separators") from error
    if ragged:
        fields = {(number or 0) - 2: (expected, actual) for number, expected, actual in ragged}
        fail_rows(
            np.array(list(fields)),
            lambda row: f"{path.name}, data row {row + 1}",
            lambda row: f"{fields[row][1]} fields, where the header has {fields[row][0]}",
            hint=f"a field that holds {show(delimiter)} or a line break must stand in double quotes",
        )
    columns = {name: table.column(name) for name in table.column_names}
    return Raw(where=path.name, names=names, columns=columns, row_word="data row", path=path)


def fail_encoding(path: Path) -> None:
    """Name the first line that is not UTF-8."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path.name}, line {number}: {error.object[error.start : error.end]!r} is not UTF-8",
                    hint="write the file again in UTF-8, for example with `iconv -f latin1 -t utf-8`",
                ) from error


def load_jsonl(path: Path, wanted: Sequence[str], numbers: Sequence[str]) -> Raw:
    from pyarrow import json as arrow_json

    peeked = peek_lines(path)
    types = {name: arrow_type(name, peeked, name in numbers) for name in wanted}
    names = list(dict.fromkeys(name for line in peeked for name in line))
    if peeked and None not in types.values():
        try:
            with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
                table = arrow_json.read_json(
                    stream,
                    read_options=arrow_json.ReadOptions(block_size=BLOCK_BYTES),
                    parse_options=arrow_json.ParseOptions(
                        explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore"
                    ),
                )
        except pa.ArrowInvalid:
            pass  # line by line, which reads it or names the bad line
        else:
            filled = {name: table.column(name) for name in wanted if table.column(name).null_count < len(table)}
            columns = {name: table.column(name) for name in wanted if name in filled or name in names}
            return Raw(
                where=path.name,
                names=tuple(dict.fromkeys([*names, *filled])),
                columns=columns,
                row_word="line",
                path=path,
            )
    return load_lines(path, wanted)


def peek_lines(path: Path) -> list[dict[str, Any]]:
    """The first lines of a jsonl file; none where one of them is not as it should be."""
    lines: list[dict[str, Any]] = []
    with open_bytes(path) as file:
        for line in file:
            if line.strip():
                try:
                    value = json.loads(line)
                except ValueError:
                    return []
                if not isinstance(value, dict):
                    return []
                lines.append(value)
            if len(lines) == N_PEEKED:
                break
    return lines


def arrow_type(name: str, lines: list[dict[str, Any]], is_number: bool) -> pa.DataType | None:
    """Type to read a column of a jsonl file with, judged by its first lines; None where Arrow should not."""
    value = next((line[name] for line in lines if line.get(name) is not None), None)
    if is_number:
        return pa.float64()
    if value is None or isinstance(value, str):
        return pa.large_string()
    return pa.int64() if type(value) is int else None


def load_lines(path: Path, wanted: Sequence[str]) -> Raw:
    """Read a jsonl file line by line."""
    rows: list[dict[str, Any]] = []
    bad: dict[int, str] = {}
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                bad[number] = f"not JSON ({fault_of(error)}): {show(line.decode(errors='replace').strip())}"
                continue
            if isinstance(value, dict):
                rows.append(value)
            else:
                bad[number] = f"{show(value)} is JSON, but no object"
    if bad:
        fail_rows(
            np.array(list(bad)),
            lambda number: f"{path.name}, line {number}",
            bad.__getitem__,
            hint='each line is one JSON object, such as {"prompt": ..., "chosen": ..., "rejected": ..., "user": ...}',
        )
    return raw_of_rows(rows, wanted, path, "line")


def fault_of(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def load_json_list(path: Path, wanted: Sequence[str]) -> Raw:
    """Read a .json file that is one list of objects."""
    with open_bytes(path) as file:
        try:
            rows = json.load(file)
        except ValueError as error:
            raise DataError(f"{path.name} is not JSON: {error}", hint="write the file again") from error
    bad = [i for i, row in enumerate(rows) if not isinstance(row, dict)]
    if bad:
        fail_rows(
            np.array(bad),
            lambda row: f"{path.name}, row {row + 1}",
            lambda row: f"{show(rows[row])} is no JSON object",
            hint="the list holds one object for each comparison",
        )
    return raw_of_rows(rows, wanted, path, "row")


def raw_of_rows(rows: list[dict[str, Any]], wanted: Sequence[str], path: Path, row_word: str) -> Raw:
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, RawColumn] = {name: [row.get(name) for row in rows] for name in wanted if name in names}
    return Raw(where=path.name, names=names, columns=columns, row_word=row_word, path=path)


def load_dataset_columns(dataset: datasets.Dataset, wanted: Sequence[str], where: str, split: str | None) -> Raw:
    """Wanted columns of a `datasets.Dataset`."""
    names = tuple(dataset.column_names)
    kept = [name for name in wanted if name in names]
    table = dataset.select_columns(kept).with_format("arrow")[:] if kept else pa.table({})
    return raw_of_table(table, names, where=where, split=split)
