"""Every branch of the verdict, on intervals written by hand."""

import pytest

from pluralign.evaluation import Interval
from pluralign.studies.verdict import decide

DESCRIBED = {
    "pooled": "one reward for everybody",
    "reliability": "one reward for everybody, and a reliability for each user",
    "cluster": "one reward per cluster (3 clusters)",
}


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(
        estimate=estimate,
        low=low,
        high=high,
        level=0.95,
        standard_error=(high - low) / 4,
        degrees=30.0,
        p_value=0.5,
        cluster="user",
        few_users=False,
        n_users=40,
        n_sources=100,
        n_decisions=400,
    )


NOTHING = interval(0.0, 0.0, 0.0)
REAL = interval(0.05, 0.02, 0.08)
UNSURE = interval(0.02, -0.01, 0.05)
POINTS = interval(0.031, 0.012, 0.05)


def test_cross_validation_that_finds_nothing_is_pooled():
    verdict = decide("pooled", NOTHING, NOTHING, None, DESCRIBED)
    assert (verdict.answer, verdict.rung, verdict.candidate) == ("do not personalise", "pooled", "pooled")
    assert "found nothing" in verdict.reason


def test_a_candidate_that_test_rows_do_not_bear_out_is_pooled():
    verdict = decide("cluster", UNSURE, POINTS, REAL, DESCRIBED)
    assert (verdict.answer, verdict.rung, verdict.candidate) == ("do not personalise", "pooled", "cluster")
    assert "one reward per cluster (3 clusters)" in verdict.reason
    assert "+0.020 (-0.010 to +0.050) nats" in verdict.reason


def test_a_gain_whose_interval_ends_at_0_is_not_borne_out():
    assert decide("cluster", interval(0.02, 0.0, 0.04), POINTS, REAL, DESCRIBED).rung == "pooled"


@pytest.mark.parametrize("low", [float("nan"), -0.3])
def test_a_gain_without_an_interval_is_not_borne_out(low):
    # One user from one source has no interval.
    assert decide("cluster", interval(0.02, low, 0.04), POINTS, REAL, DESCRIBED).rung == "pooled"


def test_a_harmful_candidate_is_pooled():
    assert decide("cluster", interval(-0.2, -0.3, -0.1), POINTS, None, DESCRIBED).rung == "pooled"


def test_reliability_alone_is_one_reward_and_no_personalisation():
    verdict = decide("reliability", REAL, POINTS, None, DESCRIBED)
    assert (verdict.answer, verdict.rung) == ("do not personalise", "reliability")
    assert "noise, not in taste" in verdict.reason


def test_taste_that_adds_nothing_to_reliability_is_reliability():
    verdict = decide("cluster", REAL, POINTS, UNSURE, DESCRIBED)
    assert (verdict.answer, verdict.rung, verdict.candidate) == ("do not personalise", "reliability", "cluster")
    assert "+0.020 (-0.010 to +0.050) nats" in verdict.reason  # beyond reliability, not over pooled


def test_taste_beyond_reliability_personalises():
    verdict = decide("cluster", REAL, POINTS, REAL, DESCRIBED)
    assert (verdict.answer, verdict.rung) == ("personalise", "cluster")
    assert "+3.1 (+1.2 to +5.0) points of accuracy" in verdict.reason
    assert "+0.050 (+0.020 to +0.080) nats" in verdict.reason


def test_where_reliability_was_not_fitted_the_gain_over_pooled_decides():
    assert decide("cluster", REAL, POINTS, None, DESCRIBED).answer == "personalise"
