"""Who gains and who loses, and what pooling costs a cluster, on predictions written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.evaluation import Predictions
from pluralign.studies.groups import cluster_gains, find_losers, find_minority, match_clusters, stability_of
from pluralign.studies.kept import SeedResult


def predictions(chosen: list[float], user: list[int], source: list[int] | None = None) -> Predictions:
    p = np.array(chosen)
    return Predictions(
        chosen=p,
        best_other=1 - p,
        outcome=np.ones(len(p)),
        user=np.array(user, dtype=np.int32),
        source=np.arange(len(p), dtype=np.int32) if source is None else np.array(source, dtype=np.int32),
        weight=np.ones(len(p)),
    )


def seed_of(number: int, cluster: list[int], own: list[float], pooled: list[float], user: list[int]) -> SeedResult:
    return SeedResult(
        seed=number,
        candidate="cluster",
        evidence=[],
        rungs={},
        counts={},
        test={"pooled": predictions(pooled, user), "cluster": predictions(own, user)},
        unknown={},
        unseen={},
        cluster=np.array(cluster, dtype=np.int32),
    )


def test_clusters_are_matched_by_the_users_they_share():
    # Cluster 0 here is cluster 1 there, and a user that either fit does not know counts for nothing.
    mine, theirs = np.array([0, 0, 0, 1, 1, -1]), np.array([1, 1, 0, 0, 0, 0])
    assert match_clusters(mine, theirs) == {0: 1, 1: 0}


def test_a_cluster_too_many_is_matched_to_none():
    assert match_clusters(np.array([0, 0, 1, 1, 2]), np.array([1, 1, 0, 0, 0])) == {0: 1, 1: 0}


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_renamed_clusters_are_matched_to_themselves(order, seed):
    cluster = np.concatenate([np.arange(4), np.random.default_rng(seed).integers(0, 4, 30)])
    assert match_clusters(np.array(order)[cluster], cluster) == {order[k]: k for k in range(4)}


def test_a_cluster_is_one_over_splits_that_number_it_differently():
    # Users 0, 1 and 2 are one cluster and user 3 the other; the second split calls them 1 and 0.
    first = seed_of(0, [0, 0, 0, 1], [0.9, 0.9, 0.9, 0.8], [0.9, 0.9, 0.9, 0.2], [0, 1, 2, 3])
    second = seed_of(1, [1, 1, 1, 0], [0.9, 0.4, 0.9, 0.8], [0.9, 0.9, 0.9, 0.2], [0, 1, 2, 3])
    large, small = cluster_gains([first, second], np.array([0, 0, 0, 1]), level=0.95)
    assert (large.cluster, large.share, large.users) == (1, 0.75, 3)
    assert (small.cluster, small.share, small.users) == (2, 0.25, 1)
    assert large.gain_accuracy.estimate == pytest.approx(-1 / 6)  # one of six decisions lost
    assert small.gain_accuracy.estimate == pytest.approx(1.0)
    assert small.gain_log_prob.estimate == pytest.approx(np.log(4))
    assert find_minority([large, small]) is small


def test_one_cluster_costs_nobody_anything():
    assert cluster_gains([], np.array([0, 0, -1]), level=0.95) == []
    assert find_minority([]) is None


def test_two_equal_clusters_have_no_minority():
    splits = [seed_of(0, [0, 0, 1, 1], [0.9] * 4, [0.8] * 4, [0, 1, 2, 3])]
    assert find_minority(cluster_gains(splits, np.array([0, 0, 1, 1]), level=0.95)) is None


def test_losers_by_chance_and_beyond_it():
    # User 0 loses the same on each of 30 sources, user 1 now gains and now loses a little more, user 2 gains.
    user = [0] * 30 + [1] * 30 + [2] * 30
    jitter = np.tile([0.01, -0.01], 15)
    own = [*(0.4 + jitter), *([0.55, 0.44] * 15), *([0.8] * 30)]
    found = find_losers(predictions(own, user), predictions([0.5] * 90, user))
    assert (found.users, found.share, found.beyond_chance) == (2, pytest.approx(2 / 3), 1)
    assert found.median_gain < 0


def test_a_source_tested_in_several_splits_is_one_source():
    # The same decision from one source 30 times over says no more than once.
    own, user = [0.4 + 0.001 * (i % 2) for i in range(30)], [0] * 30
    pooled = predictions([0.5] * 30, user, [0] * 30)
    assert find_losers(predictions(own, user, [0] * 30), pooled).beyond_chance == 0


def test_stability_is_that_of_the_number_chosen():
    choice = [{"n_clusters": 1, "half_agreement": None}, {"n_clusters": 3, "half_agreement": 0.7}]
    assert stability_of({"cluster": {"settings": {"n_clusters": 3}, "choice": choice}}) == 0.7
    assert stability_of({"cluster": {"settings": {"n_clusters": 1}, "choice": choice}}) is None
    assert stability_of({"cluster": {"settings": {"n_clusters": 3}, "choice": []}}) is None
    assert stability_of({}) is None
