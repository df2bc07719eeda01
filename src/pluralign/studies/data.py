"""Comparisons from whatever the user named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pluralign.comparisons import Comparisons, read
from pluralign.errors import DataError


def load(
    data: str | Path | object,
    *,
    path: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    **options: object,
) -> Comparisons:
    """Load comparisons by name, from a file, or from a `datasets.Dataset`.

    Args:
        data: "simulated"; the name of a public set (`pluralign.datasets.names()`); a file or folder of rows; "hf:org/name";
            or a table that `pluralign.comparisons.read` takes.
        path: Local folder of a public set. Without it the set's own public source is asked.
        columns: Which column holds what, for rows: {"user": "annotator"}.
        options: Of the set's loader, of `read`, or of `simulate`.

    Raises:
        DataError: There is no such set or file, or a row is not what it should be.
    """
    from pluralign import datasets

    if not isinstance(data, str):
        return read(data, columns=columns, **options)  # type: ignore[arg-type]
    if data == "simulated":
        from pluralign.populations import demo, simulate

        return (simulate(**options) if options else demo()).comparisons  # type: ignore[arg-type]
    if data in datasets.names():
        return datasets.load(data, path, **options)
    if not data.startswith("hf:") and not Path(data).exists():
        raise DataError(
            f'"{data}" is neither a file nor a data set; known sets: simulated, {", ".join(datasets.names())}',
            hint='for a data set on the hub write "hf:organisation/name"',
        )
    return read(data, columns=columns, **options)  # type: ignore[arg-type]
