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
)
from pluralign.files import plain
from pluralign.queries.curves import QueryCurve
from pluralign.studies.conclusion import best_of_taste
from pluralign.studies.diagnosis import Diagnosis
from pluralign.studies.groups import ClusterGain, describe_users
from pluralign.studies.kept import SeedResult
from pluralign.studies.settings import StudySettings
from pluralign.studies.verdict import Verdict
from pluralign.types import IntArray

LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pyarrow", "transformers", "sentence-transformers")


def summarise(
    comparisons: Comparisons,
    settings: StudySettings,
    encoder: Mapping[str, object],
    seeds: Sequence[SeedResult],
    table: Table,
    unseen: Mapping[int, Table],
    verdict: Verdict,
    diagnosis: Diagnosis,
    *,
    reference: IntArray | None,
    gains: Sequence[ClusterGain] = (),
    latent: Mapping[str, object] | None = None,
    curves: Mapping[str, QueryCurve] | None = None,
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
        diagnosis: Whether and how users differ.
        reference: Cluster of every user in the fit to all rows, -1 for none.
        gains: What each of these clusters gains.
        latent: What `describe_latent` says of the latent rung.
        curves: Query-efficiency curve of every rung that one was asked for.
    """
    pooled = combine_seeds([seed.test["pooled"] for seed in seeds])
    personal = best_of_taste(seeds)
    own = None if personal is None else combine_seeds([seed.test[personal] for seed in seeds])
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
        "query_curves": [{"rung": rung, **curve.as_dict()} for rung, curve in (curves or {}).items()],
        "latent": latent,
        "clusters": gains,
        "users_of": personal,
        "users": [] if own is None else describe_users(comparisons, own, pooled, reference),
        "heterogeneity": diagnosis.heterogeneity,
        "likes": diagnosis.likes,
        "scan": diagnosis.scan,
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


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
