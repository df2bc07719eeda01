"""Comparisons back to files: TRL's preference format for others, an exact copy for ourselves.

A saved table is a folder: `comparisons.json` names the Arrow data, which lie beside it in parquet files whose names
carry a digest of their bytes. The JSON is replaced last, in one step, so whenever the writer is killed, a reader finds
the old table or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pluralign.comparisons.chats import decode_chat
from pluralign.comparisons.table import Comparisons, Items
from pluralign.errors import CacheError, ConfigError, DataError

if TYPE_CHECKING:
    import datasets

INDEX = "comparisons.json"
VERSION = 1
PARTS = ("items", "attributes", "prompts", "rows", "user_ids", "source_ids", "users")
ROW_COLUMNS = (
    "chosen",
    "rejected",
    "user",
    "source",
    "outcome",
    "weight",
    "choice",
    "position",
    "split",
    "created_at",
)


def to_table(comparisons: Comparisons, *, ties: str = "error") -> pa.Table:
    """Return TRL's preference format plus `user`: one row for each row, chats as lists of messages.

    TRL knows no outcome: it takes `chosen` for preferred. A row whose outcome is below 0.5 is therefore turned
    round. Columns that say nothing (no tie or soft label, no weight) are left out.

    Args:
        comparisons: A table of texts or chats.
        ties: TRL would take a tie for a preference: "error" refuses ties, "drop" leaves them out, "keep" keeps them.

    Raises:
        DataError: Items are numbers and not texts, or there are ties.
    """
    if ties not in ("error", "drop", "keep"):
        raise ConfigError(f'ties is "{ties}"; known: error, drop, keep')
    if comparisons.format == "numeric":
        raise DataError("numeric items have no text to export", hint="save the table with `save`")
    comparisons = settle_ties(comparisons, ties)
    turned = np.zeros(len(comparisons), dtype=np.bool_)
    if comparisons.outcome is not None:
        turned = comparisons.outcome < 0.5
    chosen = np.where(turned, comparisons.rejected, comparisons.chosen)
    rejected = np.where(turned, comparisons.chosen, comparisons.rejected)
    items = comparisons.items
    prompts, responses = items.prompts, items.response
    if comparisons.format == "chat":
        message = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
        prompts, responses = (decode_column(texts, message) for texts in (prompts, responses))
    columns: dict[str, Any] = {
        "prompt": prompts.take(pa.array(items.prompt[chosen])),
        "chosen": responses.take(pa.array(chosen)),
        "rejected": responses.take(pa.array(rejected)),
        "user": take_names(comparisons.user_ids, comparisons.user),
        "source": take_names(comparisons.source_ids, comparisons.source),
    }
    if comparisons.outcome is not None:
        columns["outcome"] = np.where(turned, 1 - comparisons.outcome, comparisons.outcome)
    if comparisons.position is not None:
        columns["position"] = np.where(turned, -comparisons.position, comparisons.position)
    for name in ("weight", "choice", "split", "created_at"):
        if getattr(comparisons, name) is not None:
            columns[name] = pa.array(getattr(comparisons, name).tolist())
    return pa.table(columns)


def settle_ties(comparisons: Comparisons, ties: str) -> Comparisons:
    """Refuse or drop ties, unless they are to be kept."""
    if comparisons.outcome is None or ties == "keep":
        return comparisons
    tied = comparisons.outcome == 0.5
    if tied.any() and ties == "error":
        raise DataError(
            f"{int(tied.sum())} rows are ties, which TRL would take for preferences",
            hint='leave them out with ties="drop", or ties="keep" where the reader knows the outcome column',
        )
    kept = comparisons.take_decisions(np.bincount(comparisons.decision, tied, comparisons.n_decisions) == 0)
    return replace(kept, outcome=None) if kept.outcome is not None and (kept.outcome == 1).all() else kept


def decode_column(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Chats as lists of messages; messages that say more than role and content keep it."""
    chats = [decode_chat(text) for text in texts.to_pylist()]
    plain = all(set(message) <= {"role", "content"} for chat in chats for message in chat)
    return pa.array(chats, type=kind if plain else None)


def take_names(names: tuple[str, ...], index: np.ndarray) -> pa.Array:
    return pa.array(names, type=pa.string()).take(pa.array(index))


def to_trl(comparisons: Comparisons, *, ties: str = "error") -> datasets.Dataset:
    """Return `to_table` as a `datasets.Dataset` that TRL's trainers read."""
    import datasets

    return datasets.Dataset(to_table(comparisons, ties=ties))


def write_jsonl(comparisons: Comparisons, path: str | Path, *, ties: str = "keep") -> None:
    """Write `to_table` as one JSON object on each line, which `read` reads back."""
    table = to_table(comparisons, ties=ties)

    with replacing(Path(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
        for batch in table.to_batches(max_chunksize=10_000):
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write beside `path`, which takes its place once it is whole."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        temporary = Path(file.name)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def save(comparisons: Comparisons, folder: str | Path) -> None:
    """Write an exact copy of the table to a folder, which is made; a table that is there is replaced in one step.

    Raises:
        DataError: The folder holds something else.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / INDEX).is_file() and any(not is_ours(file) for file in folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no saved comparisons", hint="name another folder")
    items = comparisons.items
    tables = {
        "items": pa.table({"prompt": items.prompt, "response": items.response}),
        "prompts": pa.table({"prompt": items.prompts}),
        "rows": pa.table(
            {name: array_of(column) for name in ROW_COLUMNS if (column := getattr(comparisons, name)) is not None}
        ),
        "user_ids": pa.table({"user": pa.array(comparisons.user_ids, type=pa.string())}),
        "source_ids": pa.table({"source": pa.array(comparisons.source_ids, type=pa.string())}),
    }
    if items.attributes is not None:
        # Named by number, since names of attributes may repeat or be empty.
        columns = {f"{i}": column for i, column in enumerate(np.ascontiguousarray(items.attributes.T))}
        tables["attributes"] = pa.table(columns)
    if comparisons.users is not None:
        tables["users"] = comparisons.users
    files = {name: write_parquet(table, folder, name) for name, table in tables.items()}
    index = {
        "version": VERSION,
        "name": comparisons.name,
        "format": comparisons.format,
        "attribute_names": list(items.attribute_names),
        "n_items": len(items),
        "dtypes": {name: getattr(comparisons, name).dtype.str for name in tables["rows"].column_names},
        "files": files,
    }
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        if is_ours(file) and file.name != INDEX and file.name not in files.values():
            file.unlink()


def is_ours(file: Path) -> bool:
    """Whether a file's name is one that `save` gives, also to a file that it left behind when it was killed."""
    stem, _, digest = file.stem.rpartition("-")
    named = file.suffix == ".parquet" and stem in PARTS and len(digest) == 16
    return file.name == INDEX or named or file.name.startswith((f".{INDEX}-", ".comparisons-"))


def array_of(column: np.ndarray) -> pa.Array:
    return pa.array(column.tolist() if column.dtype.kind in "OU" else column)


def write_parquet(table: pa.Table, folder: Path, name: str) -> str:
    """Write a table under a name that carries the digest of the file's bytes; return that name."""
    import pyarrow.parquet as pq

    with NamedTemporaryFile(dir=folder, prefix=".comparisons-", delete=False) as file:
        temporary = Path(file.name)
    try:
        pq.write_table(table, temporary, compression="zstd")
        final = f"{name}-{digest_of(temporary)}.parquet"
        os.replace(temporary, folder / final)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return final


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def load(folder: str | Path) -> Comparisons:
    """Read the table that `save` wrote.

    Raises:
        CacheError: There is none, it is of another version, or a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CacheError(f"{folder} holds no saved comparisons: it has no {INDEX}") from None
    except ValueError as error:
        raise CacheError(f"{folder / INDEX} is damaged: {error}", hint="save the table again") from error
    if index.get("version") != VERSION:
        raise CacheError(f"{folder} was saved in version {index.get('version')}; this version reads {VERSION}")
    tables = {name: read_parquet(folder / file) for name, file in index["files"].items()}
    rows = tables["rows"]
    arrays: dict[str, Any] = {
        name: np.array(rows.column(name).to_pylist(), dtype=dtype)
        if np.dtype(dtype).kind in "OU"
        else rows.column(name).to_numpy().astype(dtype)
        for name, dtype in index["dtypes"].items()
    }
    attributes = None
    if "attributes" in tables:
        columns = tables["attributes"].columns
        attributes = np.stack([column.to_numpy() for column in columns], axis=1) if columns else None
    if attributes is None and index["format"] == "numeric":
        attributes = np.empty((index["n_items"], 0))
    return Comparisons(
        items=Items(
            prompt=tables["items"].column("prompt").to_numpy().astype(np.int32),
            prompts=whole(tables["prompts"].column("prompt")),
            response=whole(tables["items"].column("response")),
            attributes=attributes,
            attribute_names=tuple(index["attribute_names"]),
        ),
        user_ids=tuple(tables["user_ids"].column("user").to_pylist()),
        source_ids=tuple(tables["source_ids"].column("source").to_pylist()),
        users=tables.get("users"),
        format=index["format"],
        name=index["name"],
        **arrays,
    )


def whole(texts: pa.ChunkedArray) -> pa.Array:
    """Texts in one array."""
    return pa.concat_arrays([pa.array([], type=pa.large_string()), *texts.cast(pa.large_string()).chunks])


def read_parquet(path: Path) -> pa.Table:
    """Read a file whose name carries the digest of its bytes."""
    import pyarrow.parquet as pq

    if not path.is_file():
        raise CacheError(f"{path} is missing", hint="save the table again")
    if digest_of(path) != path.stem.rpartition("-")[2]:
        raise CacheError(f"{path} is damaged: its bytes are not those that were saved", hint="save the table again")
    return pq.ParquetFile(path).read()
