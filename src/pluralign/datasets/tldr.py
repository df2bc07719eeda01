"""Summaries of Reddit posts and news, compared by workers with ids: summarize-from-feedback (Stiennon et al. 2020).

Two papers cut their own data out of it, and each cut is an option here. The row counts that they print, and that a
recipe with the real files asserts, are in `EXPECTED`:

- arXiv 2601.20760, Table 1: workers who compared in both splits (`workers="common"`).
- P-RLHF (arXiv 2402.05133): pairs of two supervised policies (`filter="sup"`), then the workers with the most
  training rows (`top_workers=10` or 40). Its prompts are spelled with single newlines (`prompt_format="p-rlhf"`).

Beyond the papers: a post is a source, so that no post straddles a split of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pluralign.comparisons import Comparisons, from_columns
from pluralign.datasets.local_files import one_of, read_lines
from pluralign.errors import ConfigError, DataError
from pluralign.types import BoolArray, FloatArray

HUB = "openai/summarize_from_feedback"
KEYS = ("info", "summaries", "choice", "worker", "split")

# What the papers print: options, then training and validation rows (2601.20760 rounds to hundreds).
EXPECTED: tuple[tuple[dict[str, Any], tuple[int, int]], ...] = (
    ({}, (92_858, 86_086)),
    ({"filter": "sup"}, (38_487, 16_294)),
    ({"filter": "sup", "top_workers": 10}, (23_299, 4_921)),
    ({"filter": "sup", "top_workers": 10, "unseen": True}, (23_299, 16_294)),
    ({"filter": "sup", "top_workers": 40}, (38_065, 13_060)),
    ({"workers": "common"}, (78_500, 71_500)),
)
EXPECTED_WORKERS = {"train": 53, "validation": 63, "common": 40}
# Training and validation rows of the ten busiest workers under filter="sup".
EXPECTED_TOP_WORKERS = (
    (5245, 1175),
    (2920, 643),
    (2437, 381),
    (2366, 604),
    (2200, 586),
    (2126, 360),
    (1824, 321),
    (1606, 263),
    (1366, 177),
    (1209, 411),
)
BLANK_LINES = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
SINGLE_NEWLINES = "SUBREDDIT: r/{subreddit}\nTITLE: {title}\nPOST: {post}\nTL;DR: "
ARTICLE = "Article:\n\n{article}\n\nTL;DR:"


@dataclass(frozen=True)
class Row:
    """One comparison, as far as it is needed."""

    post: str
    prompt: str
    chosen: str
    rejected: str
    worker: str
    split: str
    supervised: bool
    confidence: float
    choice: int


def tldr(
    path: Path | None,
    *,
    filter: str = "none",
    workers: str = "all",
    top_workers: int | None = None,
    unseen: bool = False,
    prompt_format: str = "openai",
    weight: str = "none",
) -> Comparisons:
    """Load the comparisons; `split` is train, or valid1 and valid2 (model selection and final evaluation).

    The filters work one after the other, in the order of the arguments.

    Args:
        path: Folder of the batches (`comparisons/*.json`, one JSON object per line, or .jsonl, .gz, .parquet of the
            same rows), or None for the copy on the Hugging Face hub, which downloads.
        filter: "none", or "sup": both summaries come from a policy with "sup" in its name, without "ppo" or "cnn".
        workers: "all", or "common": those with rows in training and in validation.
        top_workers: Keep this many workers, those with the most training rows (ties by name); None for all.
        unseen: With `top_workers`: keep the validation rows of the other workers too.
        prompt_format: "openai" parts the fields of a post with blank lines, "p-rlhf" with single newlines.
        weight: "none", or "confidence": the worker's confidence, scaled to mean 1 over the rows that have one; a row
            without gets 1. Where the values run from the first summary to the second (a slider), it is the distance
            from the middle.

    Raises:
        DataError: A file or row is not what it should be, or no row is left.
        ConfigError: An option is not accepted.
    """
    one_of("filter", filter, ("none", "sup"))
    one_of("workers", workers, ("all", "common"))
    one_of("prompt_format", prompt_format, ("openai", "p-rlhf"))
    one_of("weight", weight, ("none", "confidence"))
    if top_workers is not None and top_workers < 1:
        raise ConfigError(f"top_workers is {top_workers}; it must be at least 1")
    known: dict[str, str] = {}  # a post is told with each of its comparisons: keep one copy
    found = (_row(row, i, prompt_format, known) for i, row in enumerate(_read(path), start=1))
    rows = [row for row in found if row.supervised or filter == "none"]
    kept = _keep_workers(rows, workers, top_workers, unseen)
    rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
    if not rows:
        raise DataError("tldr: no row is left by these options", hint="the files may hold some batches only")
    return from_columns(
        prompt=[row.prompt for row in rows],
        chosen=[row.chosen for row in rows],
        rejected=[row.rejected for row in rows],
        user=[row.worker for row in rows],
        source=[row.post for row in rows],
        weight=_confidence(rows) if weight == "confidence" else None,
        split=np.array([row.split for row in rows]),
        name="tldr",
    )


def _read(path: Path | None) -> Iterator[dict[str, Any]]:
    """Rows as they were published."""
    if path is None:
        return _read_hub()
    folder = path / "comparisons" if (path / "comparisons").is_dir() else path
    files = [file for file in sorted(folder.rglob("*")) if file.name.removesuffix(".gz").endswith((".json", ".jsonl"))]
    if files:
        return chain.from_iterable(read_lines(file, KEYS) for file in files)
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(
            f"{folder} has no .json, .jsonl or .parquet file",
            hint="name the folder that holds comparisons/ with --path",
        )
    return chain.from_iterable(_read_parquet(file) for file in files)


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = pq.ParquetFile(path)
        missing = [key for key in KEYS if key not in file.schema_arrow.names]
        if missing:
            raise DataError(f"{path} has no column {missing[0]}; it has {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(batch_size=4096):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}", hint="fetch the file again") from error


def _read_hub() -> Iterator[dict[str, Any]]:
    """Rows of the hub's copy, from its conversion to parquet: the repository itself holds a script only."""
    from datasets import load_dataset

    files = {split: f"comparisons/{split}/*.parquet" for split in ("train", "validation")}
    try:
        loaded = load_dataset(HUB, data_files=files, revision="refs/convert/parquet")
    except Exception as error:  # the hub client raises many kinds
        raise DataError(
            f"{HUB} cannot be fetched from the Hugging Face hub: {error}",
            hint="fetch the files elsewhere and name their folder with --path",
        ) from error
    return chain.from_iterable(loaded[split] for split in files)


def _row(row: dict[str, Any], number: int, prompt_format: str, known: dict[str, str]) -> Row:
    """Take what is needed of a published row.

    Raises:
        DataError: It is not there.
    """
    info, summaries, choice = row["info"], row["summaries"], row["choice"]
    if choice not in (0, 1):
        raise DataError(f"tldr: row {number} has choice {choice!r}; accepted: 0, 1")
    if len(summaries) != 2 or not all(
        isinstance(each.get(key), str) for each in summaries for key in ("text", "policy")
    ):
        raise DataError(f"tldr: row {number} has not two summaries with a text and a policy")
    if info.get("id") is None or (info.get("post") is None and info.get("article") is None):
        raise DataError(f"tldr: row {number} has no id, or neither post nor article")
    prompt = _prompt(info, prompt_format)
    chosen, rejected = summaries[choice]["text"], summaries[1 - choice]["text"]
    confidence = (row.get("extra") or {}).get("confidence")
    return Row(
        post=info["id"],
        prompt=known.setdefault(prompt, prompt),
        chosen=known.setdefault(chosen, chosen),
        rejected=known.setdefault(rejected, rejected),
        worker=row["worker"],
        split=row["split"],
        supervised=all(_is_supervised(each["policy"]) for each in summaries),
        confidence=float("nan") if confidence is None else float(confidence),
        choice=choice,
    )


def _is_supervised(policy: str) -> bool:
    return "sup" in policy and "ppo" not in policy and "cnn" not in policy


def _keep_workers(rows: list[Row], workers: str, top_workers: int | None, unseen: bool) -> BoolArray:
    """Which rows the filters of workers leave, (rows,)."""
    names, who = np.unique(np.array([row.worker for row in rows], dtype=str), return_inverse=True)
    train = np.array([row.split == "train" for row in rows], dtype=np.bool_)
    n_train, n_rows = np.bincount(who[train], minlength=len(names)), np.bincount(who, minlength=len(names))
    good = np.ones(len(names), dtype=np.bool_)
    if workers == "common":
        good = (n_train > 0) & (n_train < n_rows)
    if top_workers is not None:
        busiest = np.argsort(np.where(good, -n_train, 1), kind="stable")[:top_workers]  # names are sorted: ties by name
        top = np.zeros_like(good)
        top[busiest] = True
        good &= top & (n_train > 0)
    return good[who] | (~train & unseen)


def _prompt(info: dict[str, Any], prompt_format: str) -> str:
    """Spell a post or an article; P-RLHF puts the article where the post would be."""
    post, fields = info.get("post"), {key: info.get(key) for key in ("subreddit", "title", "article")}
    if prompt_format == "p-rlhf":
        return SINGLE_NEWLINES.format(post=fields["article"] if post is None else post, **fields)
    return ARTICLE.format(**fields) if post is None else BLANK_LINES.format(post=post, **fields)


def _confidence(rows: list[Row]) -> FloatArray:
    """Weight of every row, of mean 1 (see `tldr`)."""
    value = np.array([row.confidence for row in rows])
    choice = np.array([row.choice for row in rows])
    known = np.isfinite(value)
    first, second = value[known & (choice == 0)], value[known & (choice == 1)]
    if len(first) and len(second) and first.max() <= second.min():
        value = np.abs(value - (first.max() + second.min()) / 2)
    return np.where(known, value / value[known].mean(), 1.0) if known.any() else np.ones(len(rows))
