"""Prompts of texts that begin with them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pluralign.comparisons.columns import Place, code_texts, fail_rows, show
from pluralign.errors import ConfigError


def divide_texts(
    chosen: pa.ChunkedArray, rejected: pa.ChunkedArray, prompt_end: str, place: Place
) -> tuple[pa.ChunkedArray, pa.ChunkedArray, pa.ChunkedArray]:
    """Take the prompt off texts that begin with it: what both share up to the last `prompt_end`.

    Raises:
        DataError: A row shares no such marker.
    """
    if not prompt_end:
        raise ConfigError('prompt_end is ""; accepted is a text such as "\\n\\nAssistant:" or " "')
    pairs = list(zip(chosen.to_pylist(), rejected.to_pylist(), strict=True))
    ends = np.array([shared_end(first, second, prompt_end) for first, second in pairs])
    bad = np.flatnonzero(ends < 0)
    if len(bad):
        fail_rows(
            bad,
            place,
            lambda row: (
                f"chosen and rejected share no {show(prompt_end)}: {show(pairs[row][0])}, {show(pairs[row][1])}"
            ),
            hint="drop these rows, or give the prompt a column of its own",
        )
    parts = [(first[:end], first[end:], second[end:]) for (first, second), end in zip(pairs, ends, strict=True)]
    prompt, first_rest, second_rest = (
        code_texts(pa.array(part, type=pa.large_string())) for part in zip(*parts, strict=True)
    )
    return prompt, first_rest, second_rest


def shared_end(first: str, second: str, marker: str) -> int:
    """Where the last marker ends that two texts share from their beginning on, or -1."""
    end = -1
    found = first.find(marker)
    while found >= 0 and first[max(end, 0) : found + len(marker)] == second[max(end, 0) : found + len(marker)]:
        end = found + len(marker)
        found = first.find(marker, end)
    return end
