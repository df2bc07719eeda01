"""Rankings of several responses to one prompt.

- `lamp`: three versions of a creative paragraph, ranked by professional writers (Chakrabarty, Laban and Wu 2024, arXiv
  2409.14509).
- `cobbler`: fifteen answers of language models, ranked by six annotators (Koo et al. 2023).

A ranking is all its pairs, or, with `form="choices"`, the same rows as decisions: the best of all, then the best of
those left, and so on (Plackett and Luce).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pluralign.comparisons import Comparisons, from_columns
from pluralign.datasets.local_files import TEXT, one_of, read_csv, read_jsonl, texts
from pluralign.errors import DataError


def lamp(path: Path, *, form: str = "pairs") -> Comparisons:
    """Load thirteen writers' rankings of the AI-generated, AI-edited and human-edited version of a paragraph.

    Args:
        path: Folder of the files.
        form: "pairs", three per ranking, or "choices", decisions of three and of two.
    """
    items = {r["prompt_id"]: r for r in read_jsonl(path, "items.jsonl.gz", ("prompt_id", "prompt", "texts"))}
    columns = ["user", "prompt_id", *(f"rank_{i}" for i in (1, 2, 3))]
    table = read_csv(path, "rankings.csv", dict.fromkeys(columns, TEXT))
    ranked = np.stack([np.array(texts(table, f"rank_{i}"), dtype=object) for i in (1, 2, 3)], axis=1)
    shown = np.stack([table[f"shown_{i}"].to_numpy() for i in (1, 2, 3)], axis=1)
    return _rankings(items, texts(table, "user"), texts(table, "prompt_id"), ranked, shown, "texts", form, "lamp")


def cobbler(path: Path, *, form: str = "pairs") -> Comparisons:
    """Load six annotators' rankings of fifteen models' answers to fifty questions.

    The answers were always shown in one order, with which every ranking correlates: good for trying out models of
    position bias, bad as evidence of taste.

    Args:
        path: Folder of the files.
        form: "pairs", 105 per ranking, or "choices", decisions of fifteen, fourteen, ... and two.
    """
    items = {r["prompt_id"]: r for r in read_jsonl(path, "prompts.jsonl.gz", ("prompt_id", "prompt", "responses"))}
    table = read_csv(path, "ranks.csv.gz", dict.fromkeys(("user", "prompt_id"), TEXT))
    models = np.array([c for c in table.column_names if c not in ("user", "prompt_id")], dtype=object)
    order = np.argsort(np.stack([table[model].to_numpy() for model in models], axis=1), axis=1, kind="stable")
    return _rankings(
        items, texts(table, "user"), texts(table, "prompt_id"), models[order], order, "responses", form, "cobbler"
    )


def _rankings(
    items: dict[str, dict],
    user: list[str],
    prompt_id: list[str],
    ranked: np.ndarray,
    shown: np.ndarray,
    field: str,
    form: str,
    name: str,
) -> Comparisons:
    """Build the table from what stood at every rank, and where each was shown, both (rankings, ranks)."""
    one_of("form", form, ("pairs", "choices"))
    for number, (prompt, labels) in enumerate(zip(prompt_id, ranked, strict=True)):
        absent = [label for label in labels if label not in items.get(prompt, {field: {}})[field]]
        if absent:
            raise DataError(f"{name}: ranking {number + 1} names {absent[0]!r} of {prompt!r}, which has no text")
    n, k = ranked.shape
    better, worse = np.triu_indices(k, 1)
    row = np.repeat(np.arange(n), len(better))
    better, worse = np.tile(better, n), np.tile(worse, n)
    ids = [prompt_id[i] for i in row]
    return from_columns(
        prompt=[items[each]["prompt"] for each in ids],
        chosen=[items[each][field][label] for each, label in zip(ids, ranked[row, better], strict=True)],
        rejected=[items[each][field][label] for each, label in zip(ids, ranked[row, worse], strict=True)],
        user=[user[i] for i in row],
        source=ids,
        choice=row * (k - 1) + better if form == "choices" else None,
        position=np.where(shown[row, better] < shown[row, worse], 1, -1),
        name=name,
    )
