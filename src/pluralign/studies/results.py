"""A study as plain values: what `results.json` holds."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from pluralign import __version__
from pluralign.comparisons import Comparisons, check
from pluralign.evaluation import (
    Predictions,
    Table,
    combine_seeds,
    mean_interval,
    paired_difference,
    user_gains,
)
from pluralign.files import plain
from pluralign.studies.kept import SeedResult
from pluralign.studies.settings import StudySettings
from pluralign.studies.verdict import Verdict

LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pyarrow", "transformers", "sentence-transformers")


def summarise(
    comparisons: Comparisons,
    settings: StudySettings,
    encoder: Mapping[str, object],
    seeds: Sequence[SeedResult],
    table: Table,
    unseen: Mapping[int, Table],
    verdict: Verdict,
) -> dict[str, object]:
    """Collect everything of a study as values that JSON has.

    Args:
        comparisons: The data.
        settings: Of the study.
        encoder: Identity of the encoder.
        seeds: What each split showed.
        table: Seen users.
        unseen: Unseen users by number of their own comparisons.
        verdict: What to train.
    """
    results = {
        "pluralign": __version__,
        "python": platform.python_version(),
        "versions": _versions(),
        "data": describe_data(comparisons),
        "settings": settings.to_dict(),
        "encoder": encoder,
        "verdict": verdict,
        "ladder": table.as_dict(),
        "unknown_user": _unknown(seeds, settings),
        "unseen_users": [{"n_context": m, **each.as_dict()} for m, each in unseen.items()],
        "clusters": cluster_rows(seeds, settings),
        "users": _users(comparisons, seeds, verdict),
        "seeds": [
            {
                "seed": seed.seed,
                "candidate": seed.candidate,
                "cross_validation": seed.evidence,
                "rungs": seed.rungs,
                "counts": seed.counts,
            }
            for seed in seeds
        ],
    }
    return plain(results)


def describe_data(comparisons: Comparisons) -> dict[str, object]:
    """Counts of a table and what its check found."""
    own = np.bincount(comparisons.user[comparisons.first_row], minlength=comparisons.n_users)
    own = own[own > 0]
    return {
        "name": comparisons.name,
        "format": comparisons.format,
        "rows": len(comparisons),
        "decisions": comparisons.n_decisions,
        "items": len(comparisons.items),
        "users": len(own),
        "sources": len(np.unique(comparisons.source)),
        "decisions_per_user": {"median": np.median(own), "min": own.min(), "max": own.max()},
        "findings": [{"name": each.name, "count": each.count, "message": each.message} for each in check(comparisons)],
    }


def cluster_rows(seeds: Sequence[SeedResult], settings: StudySettings) -> list[dict[str, object]]:
    """Each cluster's model and the pooled one on the same rows: its own members' test decisions, split by split.

    Clusters are numbered by falling share within a split, so that cluster 1 of two splits need not be the same people.
    """
    rows = []
    for seed in seeds:
        if not len(seed.cluster) or "cluster" not in seed.test:
            continue
        for k in range(int(seed.cluster.max()) + 1):
            member = seed.cluster[seed.test["pooled"].user] == k
            if not member.any():
                continue
            own, pooled = seed.test["cluster"].take(member), seed.test["pooled"].take(member)
            rows.append(
                {
                    "seed": seed.seed,
                    "cluster": k + 1,
                    "users": int((seed.cluster == k).sum()),
                    "share": float((seed.cluster == k).sum() / (seed.cluster >= 0).sum()),
                    "decisions": int(member.sum()),
                    "accuracy": mean_interval(own, "accuracy", level=settings.level),
                    "accuracy_pooled": mean_interval(pooled, "accuracy", level=settings.level),
                    "gain_accuracy": paired_difference(own, pooled, "accuracy", level=settings.level),
                    "gain_log_prob": paired_difference(own, pooled, "log_prob", level=settings.level),
                }
            )
    return rows


def _unknown(seeds: Sequence[SeedResult], settings: StudySettings) -> dict[str, object]:
    """What each rung gives a user it knows nothing of, on the seen users' test decisions."""

    def joined(which: str, name: str) -> Predictions:
        return combine_seeds([getattr(seed, which)[name] for seed in seeds])

    pooled = joined("test", "pooled")
    return {
        name: {
            "accuracy": mean_interval(joined("unknown", name), "accuracy", level=settings.level),
            "gain_log_prob": paired_difference(joined("unknown", name), pooled, "log_prob", level=settings.level),
        }
        for name in seeds[0].unknown
    }


def _users(comparisons: Comparisons, seeds: Sequence[SeedResult], verdict: Verdict) -> list[dict[str, object]]:
    """Who gains and who loses by the candidate, over all splits."""
    if verdict.candidate == "pooled":
        return []
    gains = user_gains(
        combine_seeds([seed.test[verdict.candidate] for seed in seeds]),
        combine_seeds([seed.test["pooled"] for seed in seeds]),
    )
    return [
        {
            "user": comparisons.user_ids[user],
            "decisions": int(gains.n_decisions[i]),
            "gain_accuracy": float(gains.accuracy[i]),
            "gain_log_prob": float(gains.log_prob[i]),
        }
        for i, user in enumerate(gains.user)
    ]


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
