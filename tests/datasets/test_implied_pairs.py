"""Pairs that ratings imply, against a plain double loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.datasets.implied_pairs import ImpliedPairs
from pluralign.errors import ConfigError


def listed(user, rating, gap, ties):
    """The definition, in two loops: ((higher, lower), tied)."""
    found = set()
    for i in range(len(user)):
        for j in range(len(user)):
            if user[i] == user[j] and rating[i] > rating[j] and rating[i] - rating[j] >= gap - 1e-9:
                found.add((i, j, False))
            if ties == "keep" and i < j and user[i] == user[j] and rating[i] == rating[j]:
                found.add((i, j, True))
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from(["drop", "keep"]))
def test_all_pairs_are_found_once(seed, gap, ties):
    rng = np.random.default_rng(seed)
    user, rating = rng.integers(0, 5, 30), rng.integers(-15, 15, 30) / 10
    pairs = ImpliedPairs.of(user, rating, 6, gap, ties)
    high, low, tied = pairs.decode(np.arange(pairs.start[-1]))
    found = [(min(i, j), max(i, j), True) if t else (i, j, False) for i, j, t in zip(high, low, tied, strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == listed(user, rating, gap, ties)
    assert pairs.count.tolist() == np.bincount(user[high], minlength=6).tolist()


def test_a_gap_that_binary_cannot_hold_still_counts():
    rating = np.array([2.62, 1.62, 1.63])  # 2.62 - 1.62 is a little less than 1 in binary
    assert ImpliedPairs.of(np.zeros(3, dtype=int), rating, 1, min_gap=1.0).count.tolist() == [1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_draw_has_no_doubles_and_is_as_large_as_it_can_be(seed, per_user):
    rng = np.random.default_rng(seed)
    user, rating = rng.integers(0, 8, 40), rng.integers(0, 4, 40).astype(float)
    pairs = ImpliedPairs.of(user, rating, 9)
    drawn = pairs.draw(per_user, rng)
    assert len(set(drawn.tolist())) == len(drawn)
    owner = np.searchsorted(pairs.start, drawn, side="right") - 1
    assert (np.diff(owner) >= 0).all()
    assert np.bincount(owner, minlength=9).tolist() == np.minimum(pairs.count, per_user).tolist()


@pytest.mark.parametrize("per_user", [4, 7])
def test_every_pair_is_as_likely_as_the_next_in_every_place(per_user):
    # 5 distinct ratings imply 10 pairs; draw 4 of them (or 7), 4,000 times as 4,000 users.
    user, rating = np.repeat(np.arange(4000), 5), np.tile(np.arange(5.0), 4000)
    pairs = ImpliedPairs.of(user, rating, 4000)
    drawn = pairs.draw(per_user, np.random.default_rng(0)).reshape(4000, per_user) % 10
    for place in range(per_user):
        share = np.bincount(drawn[:, place], minlength=10) / 4000
        assert abs(share - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / 4000)


def test_nearly_all_pairs_are_drawn_at_once(monkeypatch):
    # Topping up until the last few are found would take hundreds of rounds: each user is one pair short of all.
    rounds = []
    monkeypatch.setattr(np, "unique", lambda *args, unique=np.unique, **more: rounds.append(1) or unique(*args, **more))
    user, rating = np.repeat(np.arange(50), 30), np.tile(np.arange(30.0), 50)
    pairs = ImpliedPairs.of(user, rating, 50)
    rounds.clear()
    assert len(pairs.draw(434, np.random.default_rng(0))) == 50 * 434
    assert len(rounds) == 0


def test_settings_are_checked():
    user, rating = np.zeros(2, dtype=int), np.array([0.0, 1.0])
    with pytest.raises(ConfigError, match=r"min_gap is -1.0; it must be at least 0"):
        ImpliedPairs.of(user, rating, 1, min_gap=-1.0)
    with pytest.raises(ConfigError, match="pairs_per_user is 0; it must be at least 1"):
        ImpliedPairs.of(user, rating, 1).draw(0, np.random.default_rng(0))
