"""Axes hold their values, and ticks are round."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pluralign.reports import axes

VALUES = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: round(v, 9)), max_size=20)


@given(VALUES, st.sampled_from([1.0, 100.0]))
def test_an_axis_holds_its_values_and_its_ticks(values, factor):
    axis = axes.numbers([*values, math.nan], "points", factor=factor)
    assert all(axis.low <= value <= axis.high for value in values)
    slack = 1e-9 * (axis.high - axis.low)  # a tick may stand on an end
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in axis.ticks)
    assert 2 <= len(axis.ticks) <= 14
    assert len(set(axis.names)) == len(axis.ticks)


def test_ticks_of_points_by_hand():
    axis = axes.numbers([-0.043, 0.127], "points", factor=100, include=(0,))
    # 17 points and margins: 18.36 wide, a sixth of it is 3.06, of which 5 is the next round step.
    assert axis.names == ("0", "5", "10")
    assert axis.ticks == (0.0, 0.05, 0.1)


def test_zero_is_held_where_it_is_asked_for():
    assert axes.numbers([0.6, 0.8], "accuracy", include=(0.5,)).low < 0.5


def test_categories_stand_from_the_top():
    axis = axes.categories(["first", "second"])
    assert (axis.low, axis.high, axis.ticks, axis.names) == (-0.5, 1.5, (0.0, 1.0), ("first", "second"))
    assert axis.categories
