"""TL;DR on small files of the published schema; the papers' counts need the real ones."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pluralign import datasets
from pluralign.datasets import tldr
from pluralign.errors import ConfigError, DataError


def row(worker, split, policies=("sup1", "sup2"), choice=0, post="t3_a", confidence=None, texts=("one", "two")):
    return {
        "info": {"id": post, "post": "I lost my cat.", "title": "Cat", "subreddit": "pets"},
        "summaries": [{"text": t, "policy": p, "note": None} for t, p in zip(texts, policies, strict=True)],
        "choice": choice,
        "worker": worker,
        "batch": "batch3",
        "split": split,
        "extra": {"confidence": confidence},
    }


ROWS = [
    row("ann", "train", choice=1),
    row("ann", "train", post="t3_b"),
    row("ann", "valid1"),
    row("bob", "train"),
    row("bob", "train", policies=("sup1", "sup4_ppo_rm3_kl10")),
    row("bob", "train", policies=("sup1", "cnndm_sup1")),
    row("bob", "valid2", policies=("ref", "sup1")),
    row("cat", "valid2"),
    row("dan", "train"),
]


def write(folder, rows=ROWS, name="comparisons/batch3.json"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


def workers(comparisons):
    """Rows of every worker, in training and in validation."""
    train = comparisons.split == "train"
    return {
        name: (int((train & (comparisons.user == u)).sum()), int((~train & (comparisons.user == u)).sum()))
        for u, name in enumerate(comparisons.user_ids)
    }


def test_rows_in_words(tmp_path):
    write(tmp_path, ROWS[:3])
    loaded = datasets.load("tldr", tmp_path)
    response = loaded.items.response.to_pylist()
    assert [response[i] for i in loaded.chosen] == ["two", "one", "one"]
    assert loaded.split.tolist() == ["train", "train", "valid1"]
    assert [loaded.source_ids[i] for i in loaded.source] == ["t3_a", "t3_b", "t3_a"]
    assert loaded.items.prompts.to_pylist() == ["SUBREDDIT: r/pets\n\nTITLE: Cat\n\nPOST: I lost my cat.\n\nTL;DR:"]
    single = datasets.load("tldr", tmp_path, prompt_format="p-rlhf")
    assert single.items.prompts.to_pylist() == ["SUBREDDIT: r/pets\nTITLE: Cat\nPOST: I lost my cat.\nTL;DR: "]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"ann": (2, 1), "bob": (3, 1), "cat": (0, 1), "dan": (1, 0)}),
        ({"workers": "common"}, {"ann": (2, 1), "bob": (3, 1)}),
        ({"filter": "sup"}, {"ann": (2, 1), "bob": (1, 0), "cat": (0, 1), "dan": (1, 0)}),
        ({"filter": "sup", "workers": "common"}, {"ann": (2, 1)}),
        ({"top_workers": 1}, {"bob": (3, 1)}),
        ({"filter": "sup", "top_workers": 1}, {"ann": (2, 1)}),
        # Bob and Dan have one training row each: the name decides. Cat has none and is never among the busiest.
        ({"filter": "sup", "top_workers": 2}, {"ann": (2, 1), "bob": (1, 0)}),
        ({"top_workers": 9}, {"ann": (2, 1), "bob": (3, 1), "dan": (1, 0)}),
        ({"filter": "sup", "top_workers": 1, "unseen": True}, {"ann": (2, 1), "cat": (0, 1)}),
    ],
)
def test_filters_in_their_order(tmp_path, options, expected):
    write(tmp_path)
    assert workers(datasets.load("tldr", tmp_path, **options)) == expected


def test_raw_batches_and_the_hub_s_parquet_are_one(tmp_path):
    write(tmp_path / "raw", ROWS[:5])
    write(tmp_path / "raw", ROWS[5:], "comparisons/batch4.json")
    (tmp_path / "raw" / "axis_evals").mkdir()
    (tmp_path / "raw" / "axis_evals" / "axis.json").write_text("{}\n")
    (tmp_path / "hub").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "hub" / "train.parquet")
    raw, hub = (datasets.load("tldr", tmp_path / each) for each in ("raw", "hub"))
    assert raw.items.response.to_pylist() == hub.items.response.to_pylist()
    for column in ("chosen", "rejected", "user", "source", "split"):
        assert getattr(raw, column).tolist() == getattr(hub, column).tolist()


def test_without_a_path_the_hub_is_asked(tmp_path, monkeypatch):
    hub = pytest.importorskip("datasets")
    asked = {}

    def load_dataset(name, **settings):
        asked.update(name=name, **settings)
        return {split: hub.Dataset.from_list(rows) for split, rows in (("train", ROWS[:5]), ("validation", ROWS[5:]))}

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    loaded = datasets.load("tldr")
    assert asked["name"] == "openai/summarize_from_feedback"
    write(tmp_path)
    assert workers(loaded) == workers(datasets.load("tldr", tmp_path))


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch):
    hub = pytest.importorskip("datasets")

    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "load_dataset", fail)
    with pytest.raises(DataError, match="cannot be fetched from the Hugging Face hub: no route") as caught:
        datasets.load("tldr")
    assert "--path" in caught.value.hint


def test_news_articles_have_their_own_prompt(tmp_path):
    news = {**row("ann", "train"), "info": {"id": "n1", "site": "cnn", "title": "T", "article": "It rained."}}
    write(tmp_path, [news])
    assert datasets.load("tldr", tmp_path).items.prompts.to_pylist() == ["Article:\n\nIt rained.\n\nTL;DR:"]


def test_confidence_as_weight(tmp_path):
    write(tmp_path, [row("a", "train", confidence=2), row("a", "train", choice=1, confidence=1), row("a", "train")])
    assert datasets.load("tldr", tmp_path).weight is None
    weight = datasets.load("tldr", tmp_path, weight="confidence").weight
    np.testing.assert_allclose(weight, [2 / 1.5, 1 / 1.5, 1])


def test_confidence_on_a_slider_counts_from_the_middle(tmp_path):
    rows = [row("a", "train", choice=int(c > 5), confidence=c) for c in (1, 4, 6, 9)]
    write(tmp_path, rows)
    weight = datasets.load("tldr", tmp_path, weight="confidence").weight
    np.testing.assert_allclose(weight, np.array([4, 1, 1, 4]) / 2.5)


def test_the_papers_tables_agree_with_one_another():
    counts = {tuple(options.items()): rows for options, rows in tldr.EXPECTED}
    assert len(tldr.EXPECTED_TOP_WORKERS) == 10
    top = np.sum(tldr.EXPECTED_TOP_WORKERS, axis=0).tolist()
    assert counts[(("filter", "sup"), ("top_workers", 10))] == tuple(top)


def test_bad_rows_are_named(tmp_path):
    write(tmp_path, [ROWS[0], {**ROWS[1], "choice": 2}])
    with pytest.raises(DataError, match="tldr: row 2 has choice 2; accepted: 0, 1"):
        datasets.load("tldr", tmp_path)
    write(tmp_path, [{**ROWS[0], "summaries": ROWS[0]["summaries"][:1]}])
    with pytest.raises(DataError, match="tldr: row 1 has not two summaries with a text and a policy"):
        datasets.load("tldr", tmp_path)
    (tmp_path / "comparisons" / "batch3.json").write_text(json.dumps(ROWS[0]) + "\n{cut\n")
    with pytest.raises(DataError, match=r"batch3.json, line 2 is not JSON"):
        datasets.load("tldr", tmp_path)
    write(tmp_path, [{"summary": {}, "worker": "a"}])
    with pytest.raises(DataError, match=r"batch3.json, line 1: there is no info, summaries, choice, split"):
        datasets.load("tldr", tmp_path)


def test_nothing_left_and_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"has no .json, .jsonl or .parquet file"):
        datasets.load("tldr", tmp_path)
    write(tmp_path, ROWS[7:8])
    with pytest.raises(DataError, match="tldr: no row is left by these options"):
        datasets.load("tldr", tmp_path, workers="common")
    with pytest.raises(ConfigError, match="top_workers is 0; it must be at least 1"):
        datasets.load("tldr", tmp_path, top_workers=0)
