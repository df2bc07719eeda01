"""Comparisons from files, folders and data sets, checked row by row.

The format is TRL's preference format plus `user`: `prompt`, `chosen` and `rejected` are texts or chats. Where there is
no `prompt` column, the prompt of a chat is the leading messages that chosen and rejected share, as in TRL. A text
stays whole unless `prompt_end` says what a prompt ends with: TRL cuts after the longest common prefix, which tears
words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from pluralign.comparisons.chats import divide_chats
from pluralign.comparisons.columns import (
    REQUIRED,
    ROLES,
    Columns,
    Place,
    as_columns,
    code_texts,
    encode_chats,
    fail_column,
    fail_rows,
    read_names,
    read_outcome,
    read_position,
    read_texts,
    read_weight,
    show,
)
from pluralign.comparisons.files import Raw, kind_of_path, list_files, load_dataset_columns, load_file, raw_of_table
from pluralign.comparisons.prompts import divide_texts
from pluralign.comparisons.table import Comparisons, Format, from_columns, index_texts
from pluralign.errors import ConfigError, DataError

if TYPE_CHECKING:
    import datasets

Readable: TypeAlias = "str | Path | pa.Table | Mapping[str, Any] | datasets.Dataset | datasets.DatasetDict"

NUMBERS = ("outcome", "weight", "position")
HUB = "hf:"


def read(
    data: Readable,
    *,
    columns: Columns | Mapping[str, str] | None = None,
    users: Readable | None = None,
    identical: str = "error",
    prompt_end: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    name: str | None = None,
) -> Comparisons:
    """Read and check comparisons.

    Args:
        data: A jsonl, json, csv, tsv or parquet file (.gz too, but for parquet), a folder of those, a data set that
            `datasets` saved, a `Dataset` or `DatasetDict`, an Arrow table, a mapping of columns, or "hf:org/name" or
            "hf:org/name:split" for a data set on the Hugging Face hub (the only one that uses the network).
        columns: Which column holds what; `Columns`, or a mapping of its fields.
        users: Covariates of the users, one row each, with the user's name in a column named as in `data`.
        identical: What to do with a row whose responses are the same: "error", "drop" it, or record a "tie".
        prompt_end: For texts without a prompt column: what a prompt ends with, as "\\n\\nAssistant:". The prompt is
            what chosen and rejected share up to the last such marker; " " keeps whole words.
        config: Name of the hub data set's configuration.
        revision: Commit, tag or branch of the hub data set.
        name: What the data are called in reports; by default the file's name without its endings.

    Returns:
        The table, rows in their order, unless `choice` is scattered: then decisions stand where their first row did.

    Raises:
        DataError: Something is not as it should be; the message names the row, the value and what is accepted.
        ConfigError: A setting is not accepted.
    """
    if identical not in ("error", "drop", "tie"):
        raise ConfigError(f'identical is "{identical}"; known: error, drop, tie')
    roles = as_columns(columns)
    wanted = list(roles.wanted.values())
    numbers = [roles.wanted[role] for role in NUMBERS if role in roles.wanted]
    parts = load(data, wanted, numbers, config=config, revision=revision)
    found = join_parts([read_part(raw, roles, prompt_end) for raw in parts])
    found = settle_identical(gather_choices(found), identical)
    table = from_columns(
        prompt=found.prompt,
        chosen=found.chosen,
        rejected=found.rejected,
        user=found.user,
        source=found.source,
        outcome=found.outcome,
        weight=found.weight,
        choice=found.choice,
        position=found.position,
        split=None if found.split is None else spell(found.split),
        created_at=found.created_at,
        format=found.format,
        name=name or name_of(data),
    )
    check_decisions(table, found.place)
    check_weights(table, found.place)
    if users is not None:
        table = replace(table, users=read_users(users, table.user_ids, roles.wanted["user"]))
    return table


@dataclass(frozen=True, kw_only=True)
class Found:
    """Checked columns, (rows,) each; None where there is no such column."""

    where: str
    place: Place
    format: Format
    prompt: pa.ChunkedArray
    chosen: pa.ChunkedArray
    rejected: pa.ChunkedArray
    user: pa.ChunkedArray
    source: pa.ChunkedArray | None = None
    split: pa.ChunkedArray | None = None
    choice: Any = None
    outcome: Any = None
    weight: Any = None
    position: Any = None
    created_at: Any = None

    def take(self, rows: np.ndarray) -> Found:
        """Keep some rows, in their order."""
        columns = {
            role: column.take(pa.array(rows)) if isinstance(column, pa.ChunkedArray) else column[rows]
            for role in ROLES
            if (column := getattr(self, role)) is not None
        }
        return replace(self, place=lambda row: self.place(int(rows[row])), **columns)


def load(
    data: Readable, wanted: Sequence[str], numbers: Sequence[str], *, config: str | None, revision: str | None
) -> list[Raw]:
    """Raw columns of everything that `data` stands for."""
    if isinstance(data, pa.Table):
        kept = [name for name in wanted if name in data.column_names]
        return [raw_of_table(data.select(kept), tuple(data.column_names), where="the table")]
    if isinstance(data, str) and data.startswith(HUB):
        return load_hub(data.removeprefix(HUB), wanted, config=config, revision=revision)
    if config is not None or revision is not None:
        raise ConfigError(f'config and revision are for data on the hub, which is named "{HUB}org/name"')
    if isinstance(data, str | Path):
        return load_path(data, wanted, numbers)
    if hasattr(data, "with_format"):
        return load_dataset(data, wanted, "the data set")
    if isinstance(data, Mapping):
        lengths = {name: len(column) for name, column in data.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns of unequal length: {lengths}")
        return [
            Raw(
                where="the data",
                names=tuple(data),
                columns={name: as_raw(data[name]) for name in wanted if name in data},
            )
        ]
    raise DataError(
        f"{type(data).__name__} cannot be read; accepted are a path, a datasets.Dataset or DatasetDict, "
        f'a pyarrow.Table, a mapping of columns and "{HUB}org/name"'
    )


def as_raw(column: Any) -> Any:
    """A column that a caller gave, as a list or as Arrow has it."""
    if isinstance(column, pa.ChunkedArray):
        return column
    if isinstance(column, pa.Array):
        return pa.chunked_array([column])
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def load_path(data: str | Path, wanted: Sequence[str], numbers: Sequence[str]) -> list[Raw]:
    path = Path(data).expanduser()
    if not path.exists():
        looks_remote = isinstance(data, str) and data.count("/") == 1 and not path.suffix
        raise DataError(
            f'there is no file or folder "{data}"',
            hint=f'if it is a data set on the Hugging Face hub, write "{HUB}{data}"' if looks_remote else None,
        )
    if path.is_dir() and ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file()):
        import datasets

        return load_dataset(datasets.load_from_disk(str(path)), wanted, path.name)
    return [load_file(file, wanted, numbers) for file in list_files(path)]


def load_hub(name: str, wanted: Sequence[str], *, config: str | None, revision: str | None) -> list[Raw]:
    """Read from the hub, because the caller named it.

    Raises:
        ConfigError: The name is not one of a data set.
        DataError: It cannot be fetched.
    """
    import datasets

    repository, _, split = name.partition(":")
    if repository.count("/") != 1:
        raise ConfigError(f'"{HUB}{name}" names no data set; accepted is "{HUB}org/name" or "{HUB}org/name:split"')
    try:
        dataset = datasets.load_dataset(repository, config, split=split or None, revision=revision)
    except Exception as error:  # the hub client raises many kinds
        raise DataError(
            f"{name} cannot be fetched from the Hugging Face hub: {error}",
            hint="check the name and the network; or fetch the files elsewhere and name their folder",
        ) from error
    return load_dataset(dataset, wanted, name)


def load_dataset(dataset: Any, wanted: Sequence[str], where: str) -> list[Raw]:
    if isinstance(dataset, Mapping):
        return [
            load_dataset_columns(part, wanted, f"{where}, split {split}", str(split)) for split, part in dataset.items()
        ]
    return [load_dataset_columns(dataset, wanted, where, None)]


def name_of(data: Readable) -> str:
    if isinstance(data, str) and data.startswith(HUB):
        return data.removeprefix(HUB)
    return Path(data).name.split(".")[0] or "comparisons" if isinstance(data, str | Path) else "comparisons"


def read_part(raw: Raw, roles: Columns, prompt_end: str | None) -> Found:
    """Check the columns of one file."""
    if not raw.names or (raw.columns and not len(raw)):
        raise DataError(f"{raw.where} has no rows", hint="write at least one comparison to it")
    at = {
        role: raw.columns[name]
        for role, name in roles.find(raw.names, raw.where).items()
        if role in REQUIRED or getattr(roles, role) is not None or not is_blank(raw.columns[name])
    }
    called = roles.wanted

    def names(role: str, *, may_miss: bool = False) -> pa.ChunkedArray | None:
        return read_names(at[role], called[role], raw.place, may_miss=may_miss) if role in at else None

    prompt, chosen, rejected, format = read_responses(raw, at, called, prompt_end)
    split = names("split", may_miss=True)
    if split is None and raw.split is not None:
        split = pa.chunked_array(
            [pa.array([raw.split], type=pa.large_string()).take(pa.array(np.zeros(len(raw), int)))]
        )
    return Found(
        where=raw.where,
        place=raw.place,
        format=format,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        user=names("user"),
        source=names("source"),
        split=split,
        choice=names("choice"),
        outcome=read_outcome(at["outcome"], called["outcome"], raw.place) if "outcome" in at else None,
        weight=read_weight(at["weight"], called["weight"], raw.place) if "weight" in at else None,
        position=read_position(at["position"], called["position"], raw.place) if "position" in at else None,
        created_at=read_times(at["created_at"]) if "created_at" in at else None,
    )


def is_blank(column: Any) -> bool:
    """Whether a column has no value at all."""
    if isinstance(column, list):
        return all(value is None for value in column)
    return column.null_count == len(column)


def read_responses(
    raw: Raw, at: Mapping[str, Any], called: Mapping[str, str], prompt_end: str | None
) -> tuple[pa.ChunkedArray, pa.ChunkedArray, pa.ChunkedArray, Format]:
    """Return prompt, chosen and rejected as texts (chats as canonical JSON), and which of the two they are."""
    given = [role for role in ("prompt", "chosen", "rejected") if role in at]
    values, chats = {}, {}
    for role in given:
        values[role], chats[role] = read_texts(at[role], called[role], raw.place, raw.where, must_say=role != "prompt")
    if len(set(chats.values())) > 1:
        kinds = ", ".join(f"{called[role]} holds {'chats' if chats[role] else 'texts'}" for role in given)
        hint = "write all of them in one way"
        if not chats.get("prompt", True):
            hint += '; if the chats begin with the prompt, leave it out: Columns(prompt="")'
        raise DataError(f"{raw.where} mixes chats and texts: {kinds}", hint=hint)
    if prompt_end is not None and ("prompt" in given or chats["chosen"]):
        raise ConfigError(
            "prompt_end is for texts that begin with their prompt, but "
            + (f"there is a column {called['prompt']}" if "prompt" in given else "these are chats"),
            hint='columns={"prompt": ""} leaves a prompt column out' if "prompt" in given else None,
        )
    if chats["chosen"]:
        if "prompt" not in given:
            shared = [divide_chats(*both) for both in zip(values["chosen"], values["rejected"], strict=True)]
            values["prompt"] = [chat[:n] for chat, n in zip(values["chosen"], shared, strict=True)]
            for role in ("chosen", "rejected"):
                values[role] = [chat[n:] for chat, n in zip(values[role], shared, strict=True)]
        prompt, chosen, rejected = (encode_chats(values[role]) for role in ("prompt", "chosen", "rejected"))
        return prompt, chosen, rejected, "chat"
    if "prompt" in given:
        return values["prompt"], values["chosen"], values["rejected"], "text"
    if prompt_end is not None:
        return *divide_texts(values["chosen"], values["rejected"], prompt_end, raw.place), "text"
    return repeat("", len(raw)), values["chosen"], values["rejected"], "text"


def repeat(text: str, n: int) -> pa.ChunkedArray:
    """One text, n times."""
    index = pa.array(np.zeros(n, dtype=np.int32))
    return code_texts(pa.DictionaryArray.from_arrays(index, pa.array([text], type=pa.large_string())))


def read_times(column: Any) -> np.ndarray:
    """Timestamps as they came: numbers as numbers, all else as texts."""
    if isinstance(column, list):
        return np.array(column) if all(isinstance(x, int | float) for x in column) else np.array(column, dtype=object)
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.string())
    return column.to_numpy()


def spell(texts: pa.ChunkedArray) -> np.ndarray:
    """A few distinct texts as a numpy array of texts, (rows,)."""
    coded = texts.combine_chunks().dictionary_encode()
    return np.array(coded.dictionary.to_pylist(), dtype=np.str_)[coded.indices.to_numpy(zero_copy_only=False)]


def join_parts(parts: list[Found]) -> Found:
    """Put the files of a folder, or the splits of a data set, one after the other."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        for role in ROLES:
            if (getattr(part, role) is None) != (getattr(first, role) is None):
                has, lacks = (first, part) if getattr(part, role) is None else (part, first)
                raise DataError(
                    f"{has.where} has {role}, {lacks.where} has not",
                    hint=f'give both the column, or leave it out with Columns({role}="")',
                )
        if part.format != first.format:
            raise DataError(
                f"{first.where} holds {first.format}, {part.where} {part.format}", hint="read them one at a time"
            )
    starts = np.cumsum([0] + [len(part.chosen) for part in parts])

    def place(row: int) -> str:
        i = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[i].place(row - int(starts[i]))

    def join(role: str) -> Any:
        columns = [getattr(part, role) for part in parts]
        if columns[0] is None:
            return None
        if isinstance(columns[0], pa.ChunkedArray):
            return pa.chunked_array([chunk for column in columns for chunk in column.chunks])
        return np.concatenate(columns)

    return Found(
        where=f"{first.where} and {len(parts) - 1} more",
        place=place,
        format=first.format,
        **{role: join(role) for role in ROLES},
    )


def gather_choices(found: Found) -> Found:
    """Number the decisions and bring the rows of each together."""
    if found.choice is None:
        return found
    coded = found.choice.combine_chunks().dictionary_encode()
    number = coded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    order = np.argsort(number, kind="stable")
    if (np.diff(number) < 0).any():
        found = found.take(order)
    return replace(found, choice=number[order])


def settle_identical(found: Found, identical: str) -> Found:
    """Deal with the rows whose responses are the same.

    Raises:
        DataError: There is such a row, and `identical` is "error"; or nothing else is left.
    """
    number, _ = index_texts(found.chosen, found.rejected)
    chosen, rejected = np.split(number, 2)
    same = np.flatnonzero(chosen == rejected)
    if not len(same):
        return found
    if identical == "error":
        fail_rows(
            same,
            found.place,
            lambda row: f"chosen and rejected are the same response ({show(found.chosen[row].as_py())})",
            hint='drop the row or record a tie: identical="drop" or identical="tie"',
        )
    n_rows = len(found.chosen)
    if identical == "drop":
        if len(same) == n_rows:
            raise DataError(f"{found.where}: in all {n_rows} rows chosen and rejected are the same response")
        return found.take(np.delete(np.arange(n_rows), same))
    outcome = np.ones(n_rows) if found.outcome is None else found.outcome.copy()
    outcome[same] = 0.5
    return replace(found, outcome=outcome)


def check_decisions(table: Comparisons, place: Place) -> None:
    """Hold the rows of each decision against its first row.

    Raises:
        DataError: They differ in what was chosen, by whom, in their source or weight; or an outcome is not 1, which
            among several items says nothing.
    """
    if table.choice is None:
        return
    unsure = np.flatnonzero(table.outcome != 1) if table.outcome is not None else np.empty(0, dtype=np.int64)
    if len(unsure) and table.n_decisions < len(table):
        outcome = table.outcome
        fail_rows(
            unsure,
            place,
            lambda row: f"its outcome is {outcome[row]:g}, and the table has choices among several",  # type: ignore[index]
            hint="a choice is for certain: turn rows with outcome 0 round, and read ties and soft labels apart from it",
        )
    first = table.first_row[table.decision]
    names = table.items.response
    shared: list[tuple[str, np.ndarray, Callable[[Any], object]]] = [
        ("chosen response", table.chosen, lambda i: names[i].as_py()),
        ("user", table.user, lambda i: table.user_ids[i]),
        ("source", table.source, lambda i: table.source_ids[i]),
    ]
    if table.weight is not None:
        shared.append(("weight", table.weight, float))
    for what, column, tell in shared:
        bad = np.flatnonzero(column != column[first])
        if len(bad):
            fail_rows(
                bad,
                place,
                lambda row, what=what, column=column, tell=tell: (  # type: ignore[misc]  # bound for this round
                    f"its {what} is {show(tell(column[row].item()))}, that of the same choice's first row "
                    f"({place(int(first[row]))}) is {show(tell(column[first[row]].item()))}"
                ),
                hint="rows that share a choice are one decision of one user: one chosen response, several rejected",
            )


def check_weights(table: Comparisons, place: Place) -> None:
    """Hold the weights against each other.

    Raises:
        DataError: They are all 0, or the others vanish beside one of them in double precision.
    """
    if table.weight is None:
        return
    if not table.weight.any():
        raise DataError("the weights of all rows are 0, so that nothing counts", hint="leave the column of weights out")
    top = int(table.weight.argmax())
    rest = np.delete(table.weight, top)
    if rest.any() and table.weight[top] + rest.sum() == table.weight[top]:
        raise DataError(
            f"{place(top)}: weight is {table.weight[top]:g}, beside which those of the other {len(rest)} rows vanish: "
            f"their sum is {rest.sum():g}",
            hint="mend the weight, or drop the other rows",
        )


def read_users(data: Readable, user_ids: tuple[str, ...], key: str) -> pa.Table:
    """Covariates of the users in the order of `user_ids`; nulls for a user who is not in `data`.

    Raises:
        DataError: There is no column of users, a user has two rows, or nobody who compared is there.
    """
    import pyarrow.compute as pc

    table, where = load_table(data, key)
    if key not in table.column_names:
        fail_column("user", key, table.column_names, where)
    names = read_names(table.column(key), key, lambda row: f"{where}, row {row + 1}")
    number = names.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    again = np.setdiff1d(np.arange(len(number)), np.unique(number, return_index=True)[1])
    if len(again):
        fail_rows(
            again,
            lambda row: f"{where}, row {row + 1}",
            lambda row: f"user {show(names[row].as_py())} has a row already",
            hint="the users' table has one row for each user",
        )
    row = pc.index_in(pa.array(user_ids, type=pa.large_string()), value_set=names.combine_chunks())
    if row.null_count == len(row):
        raise DataError(
            f"{where} has none of the {len(user_ids)} users who compared, such as {show(user_ids[0])}; "
            f"it has {show(names[0].as_py())}",
            hint="the users' names must be spelled alike in both",
        )
    covariates = table.drop_columns([key]).take(row)
    return covariates.add_column(0, "user", pa.array(user_ids, type=pa.large_string()))


def load_table(data: Readable, key: str) -> tuple[pa.Table, str]:
    """All columns of a small table, and what it is called."""
    if isinstance(data, pa.Table):
        return data, "the users' table"
    if isinstance(data, Mapping):
        return pa.table(dict(data)), "the users' table"
    if hasattr(data, "with_format"):
        return data.with_format("arrow")[:], "the users' table"
    if not isinstance(data, str | Path) or not Path(data).is_file():
        raise DataError(
            f'there is no users\' table "{data}"; accepted are a file, a Dataset, an Arrow table, a mapping'
        )
    path = Path(data)
    names = load_file(path, [], []).names
    inferred = [name for name in names if name != key] if kind_of_path(path) == "csv" else []
    raw = load_file(path, names, inferred)
    return pa.table(dict(raw.columns)), raw.where
