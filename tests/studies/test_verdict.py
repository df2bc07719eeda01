"""Every branch of the verdict, on intervals written by hand."""

import pytest

from pluralign.evaluation import Interval
from pluralign.studies.groups import ClusterGain, Losers
from pluralign.studies.verdict import Beside, decide

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


def cluster_gain(share: float, gain: Interval) -> ClusterGain:
    return ClusterGain(
        cluster=2,
        share=share,
        users=12,
        accuracy_own=interval(0.66, 0.6, 0.7),
        accuracy_pooled=interval(0.52, 0.5, 0.6),
        gain_accuracy=gain,
        gain_log_prob=gain,
    )


def test_a_gain_worth_having_that_is_not_ruled_out_leaves_it_open():
    wide = interval(0.01, -0.01, 0.03)
    beside = Beside(personal="one reward per user", personal_accuracy=wide, detectable=2.4, needed=(340, 25))
    verdict = decide("pooled", NOTHING, NOTHING, None, DESCRIBED, beside)
    assert (verdict.answer, verdict.rung, verdict.kind) == ("cannot tell yet", "pooled", "unknown")
    gains = "The best model of taste, one reward per user, gains +1.0 (-1.0 to +3.0) points: 1 point or more cannot be"
    assert gains in verdict.reason
    assert "show a gain of 2.4 points in 8 of 10 cases" in verdict.reason
    assert "about 340 users with 25 held-out comparisons each" in verdict.reason


def test_a_gain_worth_having_that_is_ruled_out_is_a_no():
    narrow = interval(0.001, -0.003, 0.005)
    beside = Beside(personal="one reward per user", personal_accuracy=narrow, taste_p=0.4, detectable=0.6)
    verdict = decide("pooled", NOTHING, NOTHING, None, DESCRIBED, beside)
    assert (verdict.answer, verdict.kind) == ("do not personalise", "none")
    assert "8 of 10" not in verdict.reason
    small = decide("pooled", NOTHING, NOTHING, None, DESCRIBED, beside, worthwhile=0.004)
    assert small.answer == "cannot tell yet"


def test_where_nothing_was_tried_nothing_is_known():
    verdict = decide("pooled", NOTHING, NOTHING, None, DESCRIBED, Beside(untried="no model of taste was fitted"))
    assert (verdict.answer, verdict.kind) == ("cannot tell yet", "unknown")
    assert "could have shown a difference of taste: no model of taste was fitted" in verdict.reason


def test_tastes_that_differ_though_no_model_gains_leave_it_open():
    beside = Beside(personal="one reward per user", personal_accuracy=NOTHING, taste_p=0.001)
    verdict = decide("pooled", NOTHING, NOTHING, None, DESCRIBED, beside)
    assert verdict.answer == "cannot tell yet"
    assert "tastes do differ (score test, p = 0.001)" in verdict.reason


def test_reliability_is_what_is_trained_while_taste_is_open():
    beside = Beside(personal="one reward per user", personal_accuracy=POINTS, taste_p=0.5)
    verdict = decide("reliability", REAL, POINTS, None, DESCRIBED, beside)
    assert (verdict.answer, verdict.rung, verdict.kind) == ("cannot tell yet", "reliability", "reliability")


def test_what_pooling_costs_a_minority_is_said():
    beside = Beside(n_clusters=2, stability=0.9, minority=cluster_gain(0.3, interval(0.14, 0.09, 0.19)))
    verdict = decide("cluster", REAL, POINTS, REAL, DESCRIBED, beside)
    assert verdict.answer == "personalise"
    assert "The smallest of the 2 clusters that users fall into is 30 % of them" in verdict.reason
    assert "right in 52.0 % of their held-out decisions, their own in 66.0 %" in verdict.reason
    assert "pooling costs them +14.0 (+9.0 to +19.0) points" in verdict.reason
    assert (verdict.n_clusters, verdict.stability) == (2, 0.9)


def test_a_minority_that_pooling_costs_nothing_is_not_spoken_of_under_a_shared_reward():
    beside = Beside(n_clusters=2, minority=cluster_gain(0.3, UNSURE))
    assert "smallest" not in decide("pooled", NOTHING, NOTHING, None, DESCRIBED, beside).reason


@pytest.mark.parametrize(("beyond", "words"), [(0, "none of them beyond chance"), (3, "3 of them beyond chance")])
def test_who_loses_under_the_recommendation_is_said(beyond, words):
    losers = Losers(users=10, share=0.25, beyond_chance=beyond, median_gain=0.02)
    verdict = decide("cluster", REAL, POINTS, REAL, DESCRIBED, Beside(losers=losers))
    assert f"25 % of the users are predicted worse than by the pooled reward, {words}" in verdict.reason
