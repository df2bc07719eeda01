"""Comparisons from whatever the user named."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from pluralign.comparisons import Comparisons, read
from pluralign.comparisons import load as load_saved
from pluralign.comparisons.writing import INDEX
from pluralign.errors import ConfigError, DataError


def load(
    data: str | Path | object,
    *,
    path: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    **options: object,
) -> Comparisons:
    """Load comparisons by name, from a file, or from a `datasets.Dataset`.

    Args:
        data: "simulated"; the name of a public set (`pluralign.datasets.names()`); a file or folder of rows; a folder
            that `pluralign.comparisons.save` wrote; "hf:org/name"; or a table that `pluralign.comparisons.read` takes.
        path: Local folder of a public set. Without it the set's own public source is asked.
        columns: Which column holds what, for rows: {"user": "annotator"}.
        options: Of the set's loader, of `read`, or of `simulate`.

    Raises:
        DataError: There is no such set or file, or a row is not what it should be.
        ConfigError: An option that the data do not have, or a path or columns where they say nothing.
    """
    from pluralign import datasets

    if data == "simulated":
        from pluralign.populations import demo, simulate

        _check_idle(path, columns, '"simulated"')
        _check_options(simulate, options, '"simulated"')
        return (simulate(**options) if options else demo()).comparisons  # type: ignore[arg-type]
    if isinstance(data, str) and data in datasets.names():
        _check_idle(None, columns, f'"{data}"')
        return datasets.load(data, path, **options)  # type: ignore[arg-type]
    if isinstance(data, str | Path) and (Path(data) / INDEX).is_file():
        _check_idle(path, columns, f"{data}, a folder that `save` wrote,")
        return load_saved(data)
    if isinstance(data, str) and not data.startswith("hf:") and not Path(data).exists():
        raise DataError(
            f'"{data}" is neither a file nor a data set; known sets: simulated, {", ".join(datasets.names())}',
            hint='for a data set on the hub write "hf:organisation/name"',
        )
    _check_idle(path, None, "a table of rows")
    _check_options(read, options, "a table of rows")
    return read(data, columns=columns, **options)  # type: ignore[arg-type]


def _check_idle(path: object | None, columns: Mapping[str, str] | None, what: str) -> None:
    """Refuse what would be passed over."""
    if path is not None:
        raise ConfigError(
            f'path is "{path}", and {what} has no use for it', hint="path is the local folder of a named data set"
        )
    if columns:
        raise ConfigError(
            f"columns are given ({', '.join(columns)}), and {what} has no use for them",
            hint="columns are named in files and folders of rows, and in data sets of the hub",
        )


def _check_options(reader: Callable[..., object], options: Mapping[str, object], what: str) -> None:
    parameters = inspect.signature(reader).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "columns"]
    for name in options:
        if name not in known:
            raise ConfigError(f'{what} has no option "{name}"; it has {", ".join(known)}')
