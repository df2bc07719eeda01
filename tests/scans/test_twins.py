"""Nearly equal texts are found without comparing all with all."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.scans.texts import hash_words
from pluralign.scans.twins import find_twins


def as_text(rows):
    return pa.array([" ".join(f"w{i}" for i in row) for row in rows], type=pa.large_string())


def test_the_overlap_is_that_of_the_runs_of_three_words():
    text = pa.array(["One two, three four five six!", "one two three four five seven", "nothing in common with that"])
    twins = find_twins(text, threshold=0.5, seed=0)
    # Runs of the first: 123 234 345 456; of the second: 123 234 345 457. Three of five are shared.
    assert list(zip(twins.first, twins.second, strict=True)) in ([], [(0, 1)])
    certain = find_twins(pa.array([*text.to_pylist(), "One two; three four five SIX"]), threshold=0.9, seed=0)
    assert (certain.first.tolist(), certain.second.tolist(), certain.overlap.tolist()) == ([0], [3], [1.0])


def test_short_texts_have_no_twins():
    assert len(find_twins(pa.array(["Yes, it is.", "Yes it is", "", "!"]), threshold=0.5, seed=0).first) == 0


def test_planted_twins_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5_000, (3_000, 80))
    copies = rows[:200].copy()
    copies[:, 40] = 5_001  # one word of eighty: 75 of 81 runs shared, 0.93
    twins = find_twins(as_text([*rows, *copies]), threshold=0.8, seed=1)
    found = set(zip(twins.first.tolist(), twins.second.tolist(), strict=True))
    planted = {(i, 3_000 + i) for i in range(200)}
    assert found <= planted
    assert len(found) >= 195  # each is missed with a probability of (1 - 0.93^4)^8 < 1e-4
    np.testing.assert_allclose(twins.overlap, 75 / 81)


def test_a_thousand_nearly_equal_texts_are_not_compared_with_one_another():
    rng = np.random.default_rng(0)
    template = rng.integers(0, 5_000, 100)
    rows = np.tile(template, (1_000, 1))
    rows[np.arange(1_000), rng.integers(0, 100, 1_000)] = 6_000 + np.arange(1_000)
    twins = find_twins(as_text(rows), threshold=0.8, seed=0)
    assert len(np.unique([twins.first, twins.second])) == 1_000  # all have one
    assert len(twins.first) < 20 * 1_000  # of half a million pairs


@given(st.integers(0, 2**32 - 1))
def test_overlaps_are_exact(seed):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 3, rng.integers(5, 12)).tolist() for _ in range(20)]
    rows = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    runs = [{tuple(row[i : i + 3]) for i in range(len(row) - 2)} for row in rows]
    twins = find_twins(as_text(rows), threshold=0.4, seed=seed)
    assert (twins.first < twins.second).all()
    for one, other, overlap in zip(twins.first, twins.second, twins.overlap, strict=True):
        exact = len(runs[one] & runs[other]) / len(runs[one] | runs[other])
        assert overlap == pytest.approx(exact)
        assert overlap >= 0.4


def test_words_are_what_stands_between_punctuation_in_any_script():
    words = next(
        hash_words(pa.array(["Über-Größe, naïve!", "über größe NAÏVE", "", "中文 字"], type=pa.large_string()))
    )
    assert np.diff(words.start).tolist() == [3, 3, 0, 2]
    assert (words.word[:3] == words.word[3:6]).all()
    assert np.diff(words.shingles(3).start).tolist() == [1, 1, 0, 1]
