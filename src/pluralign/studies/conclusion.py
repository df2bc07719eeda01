"""From what the splits showed to the verdict: which rung is the candidate, its gains, and what stands beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pluralign.evaluation import Interval, Table, combine_seeds, paired_difference
from pluralign.heterogeneity.power import Power
from pluralign.heterogeneity.score_tests import Tests
from pluralign.studies.diagnosis import Diagnosis
from pluralign.studies.groups import ClusterGain, find_losers, find_minority, stability_of
from pluralign.studies.kept import SeedResult
from pluralign.studies.ladder import LADDER
from pluralign.studies.settings import StudySettings
from pluralign.studies.verdict import SHARED, Beside, Verdict, decide
from pluralign.types import IntArray


def conclude(
    seeds: Sequence[SeedResult],
    table: Table,
    settings: StudySettings,
    *,
    described: Mapping[str, str] | None = None,
    reference: IntArray | None = None,
    gains: Sequence[ClusterGain] = (),
    diagnosis: Diagnosis | None = None,
) -> Verdict:
    """The verdict on the rung that cross-validation chose most often (the simplest of equals).

    Args:
        seeds: What each split showed.
        table: Of the seen users.
        settings: Of the study.
        described: The rungs fitted to all rows in words; None takes those of a split that chose the candidate.
        reference: Cluster of every user in the fit to all rows; None where there are no clusters.
        gains: What each of these clusters gains; none leaves out what a minority pays.
        diagnosis: Whether tastes differ at all; None leaves it out.
    """
    candidate = voted(seeds)
    if described is None:
        chooser = next((seed for seed in seeds if seed.candidate == candidate), seeds[0])
        described = {name: str(rung["described"]) for name, rung in chooser.rungs.items()}
    beside = look_beside(seeds, settings, described, reference, gains, diagnosis)
    pooled = combine_seeds([seed.test["pooled"] for seed in seeds])
    if candidate == "pooled":
        none = paired_difference(pooled, pooled, "log_prob", level=settings.level)
        gain, gain_accuracy = none, none
    else:
        row = table[candidate]
        gain, gain_accuracy = row.gains["log_prob"], row.gains["accuracy"]
    over_reliability: Interval | None = None
    if "reliability" in seeds[0].test and candidate not in SHARED:
        over_reliability = paired_difference(
            combine_seeds([seed.test[candidate] for seed in seeds]),
            combine_seeds([seed.test["reliability"] for seed in seeds]),
            "log_prob",
            level=settings.level,
        )
    return decide(
        candidate,
        gain,
        gain_accuracy,
        over_reliability,
        described,
        beside,
        worthwhile=settings.worthwhile,
        level=settings.level,
    )


def voted(seeds: Sequence[SeedResult]) -> str:
    """The rung that cross-validation chose in most splits, the simplest of equals."""
    votes = Counter(seed.candidate for seed in seeds)
    return max(LADDER, key=lambda name: (votes[name], -LADDER.index(name)))


def look_beside(
    seeds: Sequence[SeedResult],
    settings: StudySettings,
    described: Mapping[str, str],
    reference: IntArray | None,
    gains: Sequence[ClusterGain],
    diagnosis: Diagnosis | None,
) -> Beside:
    """What the verdict says beside the candidate's gains."""
    personal = best_of_taste(seeds)
    pooled = combine_seeds([seed.test["pooled"] for seed in seeds])
    own = None if personal is None else combine_seeds([seed.test[personal] for seed in seeds])
    stable = [value for seed in seeds if (value := stability_of(seed.rungs)) is not None]
    power = None if diagnosis is None else diagnosis.power
    taste_p = None if diagnosis is None or diagnosis.tests is None else _taste_p(diagnosis.tests)
    gain = None if own is None else paired_difference(own, pooled, "accuracy", level=settings.level)
    untried = None
    if taste_p is None and len(np.unique(pooled.user)) > 1:
        if gain is None:
            untried = "no model of taste was fitted"
        elif gain.low == gain.high:
            untried = "no model of taste decides anything otherwise than the pooled reward"
    return Beside(
        untried=untried,
        taste_p=taste_p,
        personal=None if personal is None else described[personal],
        personal_accuracy=gain,
        detectable=None if power is None else power.detectable,
        needed=None if power is None else _for_one_point(power),
        n_clusters=None if reference is None else len(np.unique(reference[reference >= 0])),
        stability=float(np.mean(stable)) if stable else None,
        minority=find_minority(gains),
        losers=None if own is None else find_losers(own, pooled),
    )


def best_of_taste(seeds: Sequence[SeedResult]) -> str | None:
    """The rung of taste that cross-validation liked best inside the training rows, over all splits; None without one.

    It is the candidate where that is a rung of taste.
    """
    candidate = voted(seeds)
    if candidate not in SHARED:
        return candidate
    found = {name: 0.0 for name in seeds[0].rungs if name not in SHARED}
    for seed in seeds:
        for row in seed.evidence:
            if row["name"] in found:
                found[row["name"]] += row["log_prob"]
    return max(found, key=lambda name: found[name]) if found else None


def _taste_p(tests: Tests) -> float:
    """The larger of the two p-values: a small one from the bootstrap alone may be misfit that all users share."""
    taste = tests.taste
    return taste.p_bootstrap if taste.p_permutation is None else max(taste.p_bootstrap, taste.p_permutation)


def _for_one_point(power: Power) -> tuple[int, int] | None:
    """Users, and held-out decisions of each, that would show a gain of one point."""
    return next(
        ((row.n_users, row.n_decisions) for row in power.needed if row.gain == 1.0 and row.n_users is not None), None
    )
