"""Two responses to one prompt, judged by people: summaries, and answers of language models.

- `news`: Zhang, Ladhak, Durmus, Liang, McKeown and Hashimoto (2023, arXiv 2301.13848).
- `pandalm`: PandaLM's test set (Wang et al. 2023), published after pairs of large divergence were removed.
- `tulu`: human evaluation of Tulu 1 (Wang et al. 2023).
- `lfqa`: Xu, Song, Iyyer and Choi (ACL 2023).
- `hh_hidden_context`: Siththaranjan, Laidlaw and Hadfield-Menell (2023); its users are simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pluralign.comparisons import Comparisons, from_columns
from pluralign.datasets.local_files import decided, lookup, preferences, read_jsonl
from pluralign.errors import DataError
from pluralign.types import FloatArray


def news(path: Path, *, ties: str = "drop", question: str = "overall") -> Comparisons:
    """Load six evaluators' choices between a writer's and a model's summary of a news article.

    Args:
        path: Folder of the files.
        ties: "drop", or "keep" the verdict "equal" with outcome 0.5.
        question: "overall" or "informative".
    """
    articles = {r["prompt_id"]: r["article"] for r in read_jsonl(path, "articles.jsonl.gz", ("prompt_id", "article"))}
    keys = ("prompt_id", "user", "writer_summary", "model_summary", question)
    rows = read_jsonl(path, "pairs.jsonl.gz", keys)
    accepted = {"writer": 1.0, "model": 0.0, "equal": 0.5}
    return _pairs(
        prompt=lookup(articles, [row["prompt_id"] for row in rows], "pairs.jsonl.gz"),
        first=[row["writer_summary"] for row in rows],
        second=[row["model_summary"] for row in rows],
        user=[row["user"] for row in rows],
        source=[row["prompt_id"] for row in rows],
        answer=preferences([row[question] for row in rows], accepted, f"pairs.jsonl.gz, {question}"),
        ties=ties,
        name="news",
    )


def pandalm(path: Path, *, ties: str = "drop") -> Comparisons:
    """Load three annotators' verdicts on 999 pairs of answers: a control, for the publishers removed disagreement.

    Args:
        path: Folder of the files.
        ties: "drop", or "keep" verdict 0 with outcome 0.5.
    """
    users = ("annotator1", "annotator2", "annotator3")
    pairs = read_jsonl(path, "pairs.jsonl.gz", ("prompt", "response_1", "response_2", *users))
    rows = [(row, user) for row in pairs for user in users]
    return _pairs(
        prompt=[row["prompt"] for row, _ in rows],
        first=[str(row["response_1"]) for row, _ in rows],  # the answer "True" was published as JSON's true
        second=[str(row["response_2"]) for row, _ in rows],
        user=[user for _, user in rows],
        answer=preferences([row[user] for row, user in rows], {1: 1.0, 2: 0.0, 0: 0.5}, "pairs.jsonl.gz, annotators"),
        ties=ties,
        name="pandalm",
    )


def tulu(path: Path, *, ties: str = "drop") -> Comparisons:
    """Load sixteen evaluators' graded choices between answers of Tulu 65B and of another model.

    Args:
        path: Folder of the files.
        ties: "drop", or "keep" ties (376) with outcome 0.5.
    """
    rows = read_jsonl(
        path, "pairs.jsonl.gz", ("seq", "user", "prompt_id", "prompt", "completion_a", "completion_b", "preference")
    )
    grades = {
        "a-is-better": 1.0,
        "a-is-slightly-better": 1.0,
        "tie": 0.5,
        "b-is-slightly-better": 0.0,
        "b-is-better": 0.0,
    }
    return _pairs(
        prompt=[row["prompt"] for row in rows],
        first=[row["completion_a"] for row in rows],
        second=[row["completion_b"] for row in rows],
        user=[row["user"] for row in rows],
        source=[row["prompt_id"] for row in rows],
        answer=preferences([row["preference"] for row in rows], grades, "pairs.jsonl.gz, preference"),
        created_at=np.array([row["seq"] for row in rows]),
        ties=ties,
        name="tulu",
    )


def lfqa(path: Path) -> Comparisons:
    """Load thirteen experts' choices between two long answers to a question of their field."""
    rows = read_jsonl(path, "pairs.jsonl.gz", ("user", "prompt_id", "prompt", "answer_1", "answer_2", "choice"))
    return _pairs(
        prompt=[row["prompt"] for row in rows],
        first=[row["answer_1"] for row in rows],
        second=[row["answer_2"] for row in rows],
        user=[row["user"] for row in rows],
        source=[row["prompt_id"] for row in rows],
        answer=preferences([row["choice"] for row in rows], {"1": 1.0, "2": 0.0}, "pairs.jsonl.gz, choice"),
        name="lfqa",
    )


def hh_hidden_context(path: Path) -> Comparisons:
    """Load test pairs of HH-RLHF relabelled for two objectives, which stand for two simulated users."""
    rows = read_jsonl(path, "both_test.jsonl.gz", ("prompt", "responses", "objective", "label"))
    return _pairs(
        prompt=[row["prompt"] for row in rows],
        first=[row["responses"][0] for row in rows],
        second=[row["responses"][1] for row in rows],
        user=[row["objective"] for row in rows],
        answer=preferences([row["label"] for row in rows], {0: 1.0, 1: 0.0}, "both_test.jsonl.gz, label"),
        name="hh_hidden_context",
    )


def _pairs(
    *,
    prompt: Sequence[Any],
    first: Sequence[Any],
    second: Sequence[Any],
    user: Sequence[str],
    answer: FloatArray,
    source: Sequence[str] | None = None,
    created_at: np.ndarray | None = None,
    ties: str = "drop",
    name: str,
) -> Comparisons:
    """Turn judged pairs the way round they were decided; the prompt is the source unless one is given.

    Raises:
        DataError: A prompt or a response is not a text.
    """
    for what, texts in (("prompt", prompt), ("first response", first), ("second response", second)):
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise DataError(f"{name}: row {wrong + 1} has {what} {texts[wrong]!r}, which is not a text")
    rows, swap, outcome = decided(answer, ties)
    one, two = (np.array(each, dtype=object)[rows] for each in (first, second))
    return from_columns(
        prompt=[prompt[i] for i in rows],
        chosen=np.where(swap, two, one).tolist(),
        rejected=np.where(swap, one, two).tolist(),
        user=[user[i] for i in rows],
        source=None if source is None else [source[i] for i in rows],
        outcome=outcome,
        created_at=None if created_at is None else created_at[rows],
        name=name,
    )
