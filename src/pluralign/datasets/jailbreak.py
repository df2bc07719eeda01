"""Reward models' outputs on 187 jailbreak prompts, published with DPL (arXiv 2312.08358).

Nine models: three kinds (`base`, `mean_and_variance`, `categorical`), each trained on the helpful, the harmless or both
parts of HH-RLHF. There are neither texts nor people: these are outputs, not comparisons, so the set is not among
`names()`.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from pluralign.datasets.local_files import require_file
from pluralign.errors import DataError
from pluralign.types import FloatArray

FILE = "outputs.json.gz"
TRAINED_ON = ("helpful", "harmless", "both")
KINDS = {"base": 1, "mean_and_variance": 2, "categorical": 10}  # and how many outputs each has
SAFE, UNSAFE = 0, 1


def jailbreak_outputs(path: Path) -> dict[tuple[str, str], FloatArray]:
    """Read the outputs by (trained on, kind): (prompts, 2, outputs), the safe response's first, then the unsafe one's.

    Args:
        path: Folder of outputs.json.gz, whose keys are `helpful`, `helpful_categorical`, and so on.

    Raises:
        DataError: The file is absent, is not JSON, or lacks a model or some of its numbers.
    """
    file = require_file(path, FILE)
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as text:
            models = json.load(text)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}", hint="fetch the file again") from error
    found = {}
    for trained_on in TRAINED_ON:
        for kind, n_outputs in KINDS.items():
            key = trained_on if kind == "base" else f"{trained_on}_{kind}"
            if key not in models:
                raise DataError(f"{file} has no model {key}; it has {', '.join(models)}")
            try:
                outputs = np.array(models[key], dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise DataError(f"{file}: {key} is not an array of numbers: {error}") from error
            if outputs.shape[1:] != (2, n_outputs) or not np.isfinite(outputs).all():
                raise DataError(
                    f"{file}: {key} has shape {outputs.shape}; expected finite numbers, (prompts, 2, {n_outputs})"
                )
            found[trained_on, kind] = outputs
    return found
