"""Rows as wins, and exact tests of users' habits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.comparisons import from_columns
from pluralign.scans.wins import Habit, Wins, lower_bound, upper_bound


def test_a_soft_label_turns_a_row_and_ties_and_weightless_rows_are_left_out():
    table = from_columns(
        prompt=["p"] * 4,
        chosen=["a", "a", "b", "c"],
        rejected=["b", "c", "c", "a"],
        user=["u", "u", "v", "v"],
        outcome=np.array([1.0, 0.3, 0.5, 1.0]),
        weight=np.array([1.0, 2.0, 1.0, 0.0]),
    )
    wins = Wins.of(table)
    names = table.items.response.to_pylist()
    assert wins.row.tolist() == [0, 1]
    assert [names[i] for i in wins.winner] == ["a", "c"]
    assert [names[i] for i in wins.loser] == ["b", "a"]
    assert wins.turned.tolist() == [False, True]


def test_a_source_counts_once_by_the_sign_of_its_sum():
    # User 0: three rows of source 0 (2 to 1), two of source 1 (even), one of source 2 (against).
    user = np.array([0, 0, 0, 0, 0, 0, 1])
    source = np.array([0, 0, 0, 1, 1, 2, 0])
    sign = np.array([1, 1, -1, 1, -1, -1, 1])
    habit = Habit.of(user, source, sign, 3)
    assert habit.shown.tolist() == [1, 1, 0]
    assert habit.n.tolist() == [2, 1, 0]
    assert np.isnan(habit.share[2])
    assert np.isnan(habit.p_two_sided()[2])


def test_p_values_are_the_binomials():
    habit = Habit(shown=np.array([9, 1]), n=np.array([10, 10]))
    # 11 of 1,024 sequences of ten have nine heads or more.
    np.testing.assert_allclose(habit.p_above(0.5), [11 / 1024, 1023 / 1024])
    np.testing.assert_allclose(habit.p_below(0.5), [1023 / 1024, 11 / 1024])
    np.testing.assert_allclose(habit.p_two_sided(), [22 / 1024, 22 / 1024])


def test_the_bounds_are_those_of_a_table():
    # Clopper and Pearson, 8 of 10, 95 %: 0.444 to 0.975; all of n: alpha^(1/n).
    assert lower_bound(8, 10, 0.025) == pytest.approx(0.4439, abs=1e-4)
    assert upper_bound(8, 10, 0.025) == pytest.approx(0.9748, abs=1e-4)
    assert lower_bound(30, 30, 0.01) == pytest.approx(0.01 ** (1 / 30))
    assert lower_bound(0, 30, 0.01) == 0
    assert upper_bound(30, 30, 0.01) == 1


@given(st.integers(0, 2**32 - 1))
def test_turning_every_sign_turns_the_habit(seed):
    rng = np.random.default_rng(seed)
    user, source, sign = rng.integers(0, 4, 60), rng.integers(0, 9, 60), rng.integers(-1, 2, 60)
    one, other = Habit.of(user, source, sign, 5), Habit.of(user, source, -sign, 5)
    assert (one.n == other.n).all()
    assert (one.shown + other.shown == one.n).all()
    np.testing.assert_allclose(one.p_above(0.5), other.p_below(0.5))
