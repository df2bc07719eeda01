"""Judged pairs and rankings of texts: counts of the published files, and rows worked by hand."""

import json

import numpy as np
import pytest

from pluralign import datasets
from pluralign.errors import ConfigError, DataError


def write_jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def told(comparisons):
    """Every row in words: user, prompt, chosen, rejected."""
    prompts, response = comparisons.items.prompts.to_pylist(), comparisons.items.response.to_pylist()
    return [
        (comparisons.user_ids[u], prompts[comparisons.items.prompt[c]], response[c], response[r])
        for u, c, r in zip(comparisons.user, comparisons.chosen, comparisons.rejected, strict=True)
    ]


# name, users, strict comparisons, per user (median, least, most), rows that compare a text with itself
COUNTS = [
    ("ukpconvarg", 3013, 47_883, (3, 1, 2477), 4),
    ("news", 6, 365, (61, None, 74), 0),
    ("pandalm", 3, 2671, (886, 883, 902), 0),
    ("tulu", 16, 774, (40.5, 13, 125), 1),
    ("lfqa", 13, 260, (20, 20, 20), 0),
    ("hh_hidden_context", 2, 4043, (None, 1886, 2157), 2),
    ("lamp", 13, 1467, (None, None, None), 0),
    ("cobbler", 6, 31_500, (5250, 5250, 5250), None),
]


@pytest.mark.data
@pytest.mark.parametrize(("name", "n_users", "n_rows", "per_user", "identical"), COUNTS)
def test_published_counts(data_dir, name, n_users, n_rows, per_user, identical):
    loaded = datasets.load(name, data_dir)
    count = np.bincount(loaded.user)
    assert (loaded.n_users, len(loaded)) == (n_users, n_rows)
    for found, published in zip((np.median(count), count.min(), count.max()), per_user, strict=True):
        assert published is None or found == published
    if identical is not None:
        assert len(datasets.load(name, data_dir, identical="drop")) == n_rows - identical


@pytest.mark.data
def test_ties_that_sources_count(data_dir):
    # ukpconvarg: 62,087 votes, 22.9 % equal; news: 447 verdicts; tulu: 376 ties of 1,150; pandalm: 999 pairs, 3 users.
    for name, n_rows in (("ukpconvarg", 62_087), ("news", 447), ("tulu", 1150), ("pandalm", 2997)):
        kept = datasets.load(name, data_dir, ties="keep")
        strict = datasets.load(name, data_dir)
        assert len(kept) == n_rows
        assert (kept.outcome == 0.5).sum() == n_rows - len(strict)
        assert told(kept.take(kept.outcome == 1)) == told(strict)


@pytest.mark.data
def test_siblings_share_a_source(data_dir):
    # ukpconvarg: 15,136 distinct pairs; lamp: 163 prompts; cobbler: 50 questions.
    for name, n_sources in (("ukpconvarg", 15_136), ("lamp", 163), ("cobbler", 50)):
        assert len(datasets.load(name, data_dir).source_ids) == n_sources
    news = datasets.load("news", data_dir)
    assert len(np.unique(np.stack([news.items.prompt[news.chosen], news.source]), axis=1).T) == len(news.source_ids)


@pytest.mark.data
def test_people_disagree_as_counted(data_dir):
    # Over all pairs of users who judged one pair (no user repeats one here).
    for name, published in (("ukpconvarg", 0.280), ("news", 0.456)):
        loaded = datasets.load(name, data_dir)
        low, high = np.minimum(loaded.chosen, loaded.rejected), np.maximum(loaded.chosen, loaded.rejected)
        _, pair = np.unique(np.stack([loaded.source, low, high]), axis=1, return_inverse=True)
        for_low = np.bincount(pair, weights=loaded.chosen == low)
        votes = np.bincount(pair)
        disagreement = (for_low * (votes - for_low)).sum() / (votes * (votes - 1) / 2).sum()
        assert disagreement == pytest.approx(published, abs=0.002)


@pytest.mark.data
def test_cobbler_was_shown_in_one_order(data_dir):
    cobbler = datasets.load("cobbler", data_dir)
    assert (cobbler.position == 1).mean() > 0.65  # rankings correlate .55 to .70 with the order
    ranking = datasets.load("cobbler", data_dir, form="choices")
    assert ranking.n_decisions == 300 * 14
    assert told(ranking) == told(cobbler)


def test_argument_votes_by_hand(tmp_path):
    (tmp_path / "topics.csv").write_text("topic_id,title,stance\nt1,Bottles,Ban\n")
    (tmp_path / "arguments.csv").write_text('arg_id,topic_id,text\nx,t1,"Yes, ""waste""\nof oil"\ny,t1,Cheap\n')
    (tmp_path / "votes.csv").write_text(
        "seq,user,topic_id,arg1,arg2,choice\n5,w1,t1,x,y,a1\n6,w2,t1,y,x,a1\n7,w1,t1,x,y,equal\n"
    )
    votes = datasets.load("ukpconvarg", tmp_path, ties="keep")
    waste = 'Yes, "waste"\nof oil'
    assert told(votes) == [
        ("w1", "Bottles / Ban", waste, "Cheap"),
        ("w2", "Bottles / Ban", "Cheap", waste),
        ("w1", "Bottles / Ban", waste, "Cheap"),
    ]
    assert votes.outcome.tolist() == [1, 1, 0.5]
    assert votes.source.tolist() == [0, 0, 0]
    assert votes.created_at.tolist() == [5, 6, 7]


def test_graded_preferences_by_hand(tmp_path):
    row = {"user": "e1", "prompt_id": "p", "prompt": "Hi", "completion_a": "A", "completion_b": "B"}
    grades = ("a-is-better", "b-is-slightly-better", "tie")
    write_jsonl(tmp_path / "pairs.jsonl", *({**row, "seq": i, "preference": grade} for i, grade in enumerate(grades)))
    assert told(datasets.load("tulu", tmp_path)) == [("e1", "Hi", "A", "B"), ("e1", "Hi", "B", "A")]


def test_three_annotators_make_three_rows(tmp_path):
    row = {"prompt": "Hi", "response_1": True, "response_2": "B", "annotator1": 1, "annotator2": 2, "annotator3": 0}
    write_jsonl(tmp_path / "pairs.jsonl", row)
    assert told(datasets.load("pandalm", tmp_path)) == [
        ("annotator1", "Hi", "True", "B"),
        ("annotator2", "Hi", "B", "True"),
    ]


def write_lamp(folder, version="AI-edited"):
    texts = {"AI-generated": "g", "AI-edited": "e", "Human-edited": "h"}
    write_jsonl(folder / "items.jsonl", {"prompt_id": "p", "prompt": "Tell", "texts": texts})
    (folder / "rankings.csv").write_text(
        "user,batch,prompt_id,rank_1,shown_1,rank_2,shown_2,rank_3,shown_3\n"
        f"w1,b,p,Human-edited,2,AI-generated,3,{version},1\n"
    )


def test_a_ranking_is_three_pairs_or_two_decisions(tmp_path):
    write_lamp(tmp_path)
    pairs = datasets.load("lamp", tmp_path)
    assert told(pairs) == [("w1", "Tell", "h", "g"), ("w1", "Tell", "h", "e"), ("w1", "Tell", "g", "e")]
    assert pairs.position.tolist() == [1, -1, -1]
    assert pairs.n_decisions == 3
    assert datasets.load("lamp", tmp_path, form="choices").decision.tolist() == [0, 0, 1]


def test_hidden_context_has_two_simulated_users(tmp_path):
    row = {"prompt": "Human: hi", "responses": ["A", "B"]}
    write_jsonl(tmp_path / "both_test.jsonl", {**row, "objective": "helpful", "label": 1},
                {**row, "objective": "harmless", "label": 0})  # fmt: skip
    assert told(datasets.load("hh_hidden_context", tmp_path)) == [
        ("helpful", "Human: hi", "B", "A"),
        ("harmless", "Human: hi", "A", "B"),
    ]


def test_a_version_without_text_is_named(tmp_path):
    write_lamp(tmp_path, version="AI-written")
    with pytest.raises(DataError, match="lamp: ranking 1 names 'AI-written' of 'p', which has no text"):
        datasets.load("lamp", tmp_path)


def test_a_response_that_is_no_text_is_named(tmp_path):
    row = {"user": "x", "prompt_id": "p", "prompt": "Q", "answer_1": None, "answer_2": "B", "choice": "1"}
    write_jsonl(tmp_path / "pairs.jsonl", row)
    with pytest.raises(DataError, match="lfqa: row 1 has first response None, which is not a text"):
        datasets.load("lfqa", tmp_path)


def test_options_are_checked(tmp_path):
    write_lamp(tmp_path)
    with pytest.raises(ConfigError, match="form is 'list'; accepted: pairs, choices"):
        datasets.load("lamp", tmp_path, form="list")
