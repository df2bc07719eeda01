"""Who gains by a study's models, and what the pooled reward costs each group of users.

The clusters of one split are numbered by falling share, so that cluster 1 of two splits need not be the same people.
Here they are matched to the clusters of the fit to all rows by the users they share (the assignment that shares most,
Kuhn 1955); whose cluster a user is in comes from the split's training rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import t

from pluralign.comparisons import Comparisons
from pluralign.evaluation import (
    Interval,
    Predictions,
    combine_seeds,
    holm,
    mean_interval,
    paired_difference,
    user_gains,
)
from pluralign.evaluation.groups import sum_by
from pluralign.studies.kept import SeedResult
from pluralign.types import IntArray


@dataclass(frozen=True, kw_only=True)
class ClusterGain:
    """One cluster's own reward and the pooled one on the same rows: the test decisions of its members.

    Attributes:
        cluster: Number in the fit to all rows, from 1, by falling share.
        share: Of the users, in the fit to all rows.
        users: Members who have test decisions.
        accuracy_own: With the cluster's reward.
        accuracy_pooled: With everybody's.
        gain_accuracy: The difference, which is what pooling costs the cluster.
        gain_log_prob: The same in nats per decision.
    """

    cluster: int
    share: float
    users: int
    accuracy_own: Interval
    accuracy_pooled: Interval
    gain_accuracy: Interval
    gain_log_prob: Interval


@dataclass(frozen=True, kw_only=True)
class Losers:
    """Users whom the personal model predicts worse than the pooled one does.

    Attributes:
        users: How many users have a mean gain in log-probability below 0, by chance or not.
        share: Of the users tested.
        beyond_chance: How many of them are below 0 beyond chance: one-sided t-tests over their sources, 5 % for all
            users together (Holm 1979).
        median_gain: Median user's gain, nats per decision.
    """

    users: int
    share: float
    beyond_chance: int
    median_gain: float


def cluster_gains(seeds: Sequence[SeedResult], reference: IntArray, *, level: float) -> list[ClusterGain]:
    """What each cluster gains by its own reward, over all splits; empty where the clusters are one.

    Args:
        seeds: What each split showed.
        reference: Cluster of every user in the fit to all rows, -1 for none, (users,).
        level: Of the intervals.
    """
    n_clusters = int(reference.max(initial=-1)) + 1
    if n_clusters < 2:
        return []
    own: dict[int, list[Predictions]] = {k: [] for k in range(n_clusters)}
    pooled: dict[int, list[Predictions]] = {k: [] for k in range(n_clusters)}
    for seed in seeds:
        if not len(seed.cluster) or "cluster" not in seed.test:
            continue
        for mine, theirs in match_clusters(seed.cluster, reference).items():
            member = seed.cluster[seed.test["pooled"].user] == mine
            if seed.test["pooled"].weight[member].sum() > 0:
                own[theirs].append(seed.test["cluster"].take(member))
                pooled[theirs].append(seed.test["pooled"].take(member))
    share = np.bincount(reference[reference >= 0], minlength=n_clusters) / (reference >= 0).sum()
    rows = []
    for k in (k for k in range(n_clusters) if own[k]):
        a, b = combine_seeds(own[k]), combine_seeds(pooled[k])
        rows.append(
            ClusterGain(
                cluster=k + 1,
                share=float(share[k]),
                users=len(np.unique(a.user)),
                accuracy_own=mean_interval(a, "accuracy", level=level),
                accuracy_pooled=mean_interval(b, "accuracy", level=level),
                gain_accuracy=paired_difference(a, b, "accuracy", level=level),
                gain_log_prob=paired_difference(a, b, "log_prob", level=level),
            )
        )
    return rows


def match_clusters(mine: IntArray, theirs: IntArray) -> dict[int, int]:
    """Which cluster of `theirs` each cluster of `mine` is: the matching that shares most users.

    Args:
        mine: Cluster of every user, -1 for none, (users,).
        theirs: The same in another fit; it may have more clusters, or fewer.

    Returns:
        One entry for each cluster that was matched; a pair without a user in common is none.
    """
    both = (mine >= 0) & (theirs >= 0)
    shared = np.zeros((int(mine.max(initial=-1)) + 1, int(theirs.max(initial=-1)) + 1), dtype=np.int64)
    np.add.at(shared, (mine[both], theirs[both]), 1)
    rows, columns = linear_sum_assignment(-shared)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if shared[i, j]}


def find_minority(gains: Sequence[ClusterGain]) -> ClusterGain | None:
    """The smallest cluster, where it is less than half of the users."""
    smallest = min(gains, key=lambda row: row.share, default=None)
    return smallest if smallest is not None and smallest.share < 0.5 else None


def find_losers(personal: Predictions, pooled: Predictions) -> Losers:
    """Count the users whom the personal model serves worse, by chance and beyond it."""
    gains = user_gains(personal, pooled)
    below, n = gains.log_prob < 0, len(gains.user)
    # Sources are what a user was sampled on: several splits may test the same decision.
    answered, group = np.unique(np.stack([personal.user, personal.source]), axis=1, return_inverse=True)
    user = np.searchsorted(gains.user, answered[0])
    difference = personal.log_prob - pooled.log_prob
    total = sum_by(group, personal.weight * difference, len(user))
    weight = sum_by(group, personal.weight, len(user))
    n_sources = np.bincount(user, minlength=n)
    squares = sum_by(user, (total - gains.log_prob[user] * weight) ** 2, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(squares * n_sources / (n_sources - 1)) / sum_by(user, weight, n)
        p = np.where((n_sources > 1) & (error > 0), t.cdf(gains.log_prob / error, n_sources - 1), 1.0)
    return Losers(
        users=int(below.sum()),
        share=float(below.mean()),
        beyond_chance=int((holm(p) < 0.05).sum()),
        median_gain=float(np.median(gains.log_prob)),
    )


def describe_users(
    comparisons: Comparisons, personal: Predictions, pooled: Predictions, reference: IntArray | None
) -> list[dict[str, Any]]:
    """Each user's gain over all splits, and the cluster it is in (from 1) where there are clusters."""
    gains = user_gains(personal, pooled)
    cluster = np.full(comparisons.n_users, -1) if reference is None else reference
    return [
        {
            "user": comparisons.user_ids[user],
            "cluster": int(cluster[user]) + 1 or None,
            "decisions": int(gains.n_decisions[i]),
            "gain_accuracy": float(gains.accuracy[i]),
            "gain_log_prob": float(gains.log_prob[i]),
            "standard_error": float(gains.standard_error[i]),
        }
        for i, user in enumerate(gains.user)
    ]


def stability_of(rungs: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Agreement (adjusted Rand index) of the clusters found in two halves of a split's training sources, at the K
    chosen; None where there is one cluster, or K was not chosen."""
    rung = rungs.get("cluster")
    if rung is None:
        return None
    rows = [row for row in rung["choice"] if row["n_clusters"] == rung["settings"]["n_clusters"]]
    value = rows[0].get("half_agreement") if rows else None
    return None if value is None or not np.isfinite(value) else float(value)
