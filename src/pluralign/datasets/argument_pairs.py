"""Crowd workers say which of two arguments convinces more: UKPConvArg1 (Habernal and Gurevych, ACL 2016)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pluralign.comparisons import Comparisons, from_columns
from pluralign.datasets.local_files import TEXT, decided, lookup, preferences, read_csv, texts


def ukpconvarg(path: Path, *, ties: str = "drop") -> Comparisons:
    """Load 3,013 workers' votes on pairs of arguments of one debate side.

    The prompt is the debate's title and side, a source is a pair of arguments (five workers judged nearly every pair),
    and `created_at` orders the votes in time.

    Args:
        path: Folder of the files.
        ties: "drop", or "keep" the votes for "equal" (22.9 %) with outcome 0.5.
    """
    topics = read_csv(path, "topics.csv", dict.fromkeys(("topic_id", "title", "stance"), TEXT))
    title = {
        topic: f"{name} / {stance}"
        for topic, name, stance in zip(*(texts(topics, c) for c in ("topic_id", "title", "stance")), strict=True)
    }
    arguments = read_csv(path, "arguments.csv.gz", dict.fromkeys(("topic_id", "arg_id", "text"), TEXT))
    argument = {
        (topic, name): text
        for topic, name, text in zip(*(texts(arguments, c) for c in ("topic_id", "arg_id", "text")), strict=True)
    }
    votes = read_csv(path, "votes.csv.gz", dict.fromkeys(("user", "topic_id", "arg1", "arg2", "choice"), TEXT))
    answer = preferences(texts(votes, "choice"), {"a1": 1.0, "a2": 0.0, "equal": 0.5}, "votes.csv.gz, column choice")
    rows, second, outcome = decided(answer, ties)
    votes = votes.take(rows)
    topic, first, other = (texts(votes, c) for c in ("topic_id", "arg1", "arg2"))
    one = np.array(lookup(argument, zip(topic, first, strict=True), "votes.csv.gz"), dtype=object)
    two = np.array(lookup(argument, zip(topic, other, strict=True), "votes.csv.gz"), dtype=object)
    return from_columns(
        prompt=lookup(title, topic, "votes.csv.gz"),
        chosen=np.where(second, two, one).tolist(),
        rejected=np.where(second, one, two).tolist(),
        user=texts(votes, "user"),
        source=[f"{t} {min(a, b)} {max(a, b)}" for t, a, b in zip(topic, first, other, strict=True)],
        outcome=outcome,
        created_at=votes["seq"].to_numpy() if "seq" in votes.column_names else None,
        name="ukpconvarg",
    )
