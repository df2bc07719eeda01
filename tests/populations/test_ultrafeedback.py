"""UF-P on small files of UltraFeedback's schema; its real counts are not verified here."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pluralign.errors import ConfigError, DataError
from pluralign.populations.ultrafeedback import ATTRIBUTES, RatedPairs, read_rated_pairs, simulate_uf_p

# Ratings of the chosen and of the rejected answer, by helpfulness, honesty, instruction following, truthfulness.
CASES = {
    "all agree": ("5555", "1111"),
    "two users oppose": ("5155", "1555"),
    "only others oppose": ("5551", "1115"),
    "honesty ties": ("5351", "1315"),
    "ties but for one": ("5333", "1333"),
    "reversed by all": ("1111", "5555"),
}


def completion(text: str, ratings: str) -> dict[str, Any]:
    values = dict(zip(ATTRIBUTES, ratings, strict=True))
    given = {name: {"Rating": "N/A" if r == "x" else r, "Rationale": ""} for name, r in values.items()}
    return {"response": text, "model": "m", "annotations": given}


def chat(prompt: str, text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]


def sets() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rated = [
        {
            "instruction": name,
            "completions": [completion("other", "2222"), completion("good", good), completion("bad", bad)],
        }
        for name, (good, bad) in CASES.items()
    ]
    pairs = [{"prompt": name, "chosen": chat(name, "good"), "rejected": chat(name, "bad")} for name in CASES]
    rated.append({"instruction": "n/a", "completions": [completion("good", "5x55"), completion("bad", "1111")]})
    pairs.append({"prompt": "n/a", "chosen": chat("n/a", "good"), "rejected": chat("n/a", "bad")})
    pairs.append({"prompt": "unrated", "chosen": chat("unrated", "good"), "rejected": chat("unrated", "bad")})
    pairs.append({"prompt": "all agree", "chosen": chat("", ""), "rejected": chat("", "bad")})
    pairs.append({"prompt": "all agree", "chosen": chat("", "good"), "rejected": chat("", "good")})
    return rated, pairs


@pytest.fixture(params=["jsonl", "parquet"])
def files(request, tmp_path) -> tuple[Path, Path]:
    found = []
    for name, rows in zip(("ratings", "pairs"), sets(), strict=True):
        folder = tmp_path / name
        folder.mkdir()
        if request.param == "parquet":
            parquet.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
        else:  # in two files, as published
            (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
            (folder / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
        found.append(folder)
    return found[0], found[1]


@pytest.fixture
def rated(files) -> RatedPairs:
    return read_rated_pairs(*files)


def said(comparisons) -> set[tuple[str, str, str]]:
    """(prompt, user, what was chosen)."""
    items = comparisons.items
    prompts, responses = items.prompts.to_pylist(), items.response.to_pylist()
    return {
        (prompts[items.prompt[item]], comparisons.user_ids[user], responses[item])
        for item, user in zip(comparisons.chosen, comparisons.user, strict=True)
    }


def test_pairs_are_joined_with_ratings_of_both_answers(rated):
    assert rated.prompt == tuple(CASES)
    assert rated.n_left_out == 4  # N/A, unrated, an empty answer, twice the same
    assert rated.gap[1].tolist() == [4, -4, 0, 0]


def test_the_papers_two_users_strictly_disagree_on_every_pair(rated):
    found = simulate_uf_p(rated, 2)
    assert said(found) == {
        ("two users oppose", "helpfulness", "good"),
        ("two users oppose", "honesty", "bad"),
    }


def test_the_papers_four_users_leave_out_unanimous_pairs_and_their_own_ties(rated):
    found = said(simulate_uf_p(rated, 4))
    assert {case for case, _, _ in found} == {"two users oppose", "only others oppose", "honesty ties"}
    assert {user for case, user, _ in found if case == "two users oppose"} == {"helpfulness", "honesty"}
    assert ("only others oppose", "honesty", "good") in found
    assert ("only others oppose", "truthfulness", "bad") in found
    assert {user for case, user, _ in found if case == "honesty ties"} == set(ATTRIBUTES) - {"honesty"}


def test_the_released_readings_keep_ties_by_a_coin_and_pairs_on_which_both_agree(rated):
    cases = [simulate_uf_p(rated, 2, reading="released", seed=seed) for seed in range(200)]
    kept = Counter(case for each in cases for case in {case for case, _, _ in said(each)})
    assert kept["two users oppose"] == kept["only others oppose"] == kept["honesty ties"] == 200
    assert not kept["all agree"] + kept["reversed by all"]  # unanimous whatever the coins
    assert kept["ties but for one"] == pytest.approx(200 * 7 / 8, abs=20)  # all three coins as the one: 1 in 8
    agreeing = {user: choice for case, user, choice in said(cases[0]) if case == "only others oppose"}
    assert agreeing == {"helpfulness": "good", "honesty": "good"}
    coin = [{u: c for case, u, c in said(each) if case == "honesty ties"}["honesty"] for each in cases]
    assert np.mean([choice == "good" for choice in coin]) == pytest.approx(0.5, abs=0.11)
    assert simulate_uf_p(rated, 4, reading="released").n_users == 4


def test_no_prompt_is_on_both_sides_of_the_split(rated):
    found = simulate_uf_p(rated, 4, test=0.5, seed=1)
    split = {found.source_ids[source]: set() for source in found.source}
    for source, side in zip(found.source, found.split, strict=True):
        split[found.source_ids[source]].add(side)
    assert all(len(sides) == 1 for sides in split.values())


def test_bad_input_is_named(tmp_path, rated):
    with pytest.raises(ConfigError, match="n_users is 3; accepted: 2, 4"):
        simulate_uf_p(rated, 3)
    with pytest.raises(ConfigError, match="reading is 'both'; accepted: paper, released"):
        simulate_uf_p(rated, 2, reading="both")
    with pytest.raises(ConfigError, match=r"test is 1\.0; it is a share"):
        simulate_uf_p(rated, 2, test=1.0)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"has no \.jsonl, \.jsonl\.gz, \.parquet file"):
        read_rated_pairs(empty, empty)
    rows, pairs = sets()
    rows[0]["completions"][1]["annotations"]["honesty"]["Rating"] = "high"
    for name, content in (("r.jsonl", rows), ("p.jsonl", pairs)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    with pytest.raises(DataError, match="row 1: the rating of honesty is 'high'; a number or N/A is needed"):
        read_rated_pairs(tmp_path / "r.jsonl", tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=r"r\.jsonl, row 1 has no prompt; it has instruction, completions"):
        read_rated_pairs(tmp_path / "r.jsonl", tmp_path / "r.jsonl")
    (tmp_path / "q.jsonl").write_text(json.dumps({"prompt": "?", "chosen": [], "rejected": "b"}) + "\n")
    with pytest.raises(DataError, match=r"row 1, chosen is '\[\]'; a text, or a chat with one answer"):
        read_rated_pairs(tmp_path / "r.jsonl", tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text(json.dumps({"prompt": "?", "chosen": "a", "rejected": "b"}) + "\n")
    (tmp_path / "one.jsonl").write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(DataError, match="none of 1 pairs has ratings of both answers"):
        read_rated_pairs(tmp_path / "one.jsonl", tmp_path / "q.jsonl")
