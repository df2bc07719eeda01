"""Whether and how users differ, and whether the data can be trusted: what a study knows besides its ladder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.errors import PluralignError
from pluralign.evaluation import combine_seeds
from pluralign.features import Design
from pluralign.heterogeneity.ceiling import Ceiling, noise_ceiling
from pluralign.heterogeneity.components import Components, components
from pluralign.heterogeneity.covariates import CovariateTest, compare_covariates
from pluralign.heterogeneity.embeddings import embed_users
from pluralign.heterogeneity.likes import ClusterLikes, UserApart, likes, name_users_apart
from pluralign.heterogeneity.power import Power, power_of
from pluralign.heterogeneity.projection import Projection, project
from pluralign.heterogeneity.score_tests import Tests, score_tests
from pluralign.heterogeneity.similarity import Similarity, similarity
from pluralign.scans import Scan, scan
from pluralign.studies.features import Step
from pluralign.studies.kept import SeedResult
from pluralign.studies.ladder import Rung
from pluralign.studies.settings import StudySettings
from pluralign.types import IntArray
from pluralign.users import Basis, Clusters, Individual

Part = TypeVar("Part")


@dataclass(frozen=True, eq=False, kw_only=True)
class Diagnosis:
    """The parts that could be made; the others are None or empty.

    Attributes:
        tests: Do users differ in taste, and in reliability?
        components: How much of what they disagree about is taste, reliability, chance.
        ceiling: What agreement on equal questions leaves to be had.
        power: What gain the held-out decisions would show.
        similarity: Who is like whom, beside what chance shows.
        projection: Users in two and three dimensions.
        covariates: What clusters and tastes go with.
        likes: What each cluster likes.
        users_apart: Users who stand apart from all others.
        scan: What may fool a model.
        missing: Why a part is not there, by name.
    """

    tests: Tests | None = None
    components: Components | None = None
    ceiling: Ceiling | None = None
    power: Power | None = None
    similarity: Similarity | None = None
    projection: Projection | None = None
    covariates: tuple[CovariateTest, ...] = ()
    likes: tuple[ClusterLikes, ...] = ()
    users_apart: tuple[UserApart, ...] = ()
    scan: Scan | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def heterogeneity(self) -> dict[str, object]:
        """What is about users, for `results.json`."""
        names = ("tests", "components", "ceiling", "power", "similarity", "projection", "covariates", "users_apart")
        return {name: getattr(self, name) for name in names} | {"missing": self.missing}


def diagnose(
    comparisons: Comparisons,
    settings: StudySettings,
    design: Design,
    rungs: Mapping[str, Rung],
    *,
    reference: IntArray | None,
    seeds: Sequence[SeedResult],
    personal: str | None,
    cache_dir: Path | None = None,
    on_step: Step,
) -> Diagnosis:
    """Make every part that the data allow.

    Args:
        comparisons: The data.
        settings: Of the study.
        design: All rows.
        rungs: Fitted to all rows.
        reference: Cluster of every user in the `cluster` rung, -1 for none, (users,); None without the rung.
        seeds: What each split showed.
        personal: The rung of taste whose power is asked for; None where there is none.
        cache_dir: Cache of style columns.
        on_step: Called with a few words at the beginning of each step.
    """
    missing: dict[str, str] = {}

    def attempt(name: str, words: str, make: Callable[[], Part | None], otherwise: str) -> Part | None:
        on_step(words)
        try:
            found = make()
        except PluralignError as error:
            missing[name] = str(error)
            return None
        if found is None:
            missing[name] = otherwise
        return found

    level, seed, ridge = settings.level, settings.seed, rungs["pooled"].settings["ridge"]
    theta = rungs["pooled"].model.theta  # type: ignore[attr-defined]
    rung = _embedded(rungs)
    embedding = None if rung is None else embed_users(rung, design)
    cluster = reference if reference is not None and reference.max(initial=-1) > 0 else None
    nobody = "no rung that was fitted gives users a taste of their own"
    alone = "the users are one cluster"

    def test() -> Tests:
        return score_tests(
            design, ridge=ridge, n_draws=settings.draws, n_permuted=max(settings.draws // 5, 19), seed=seed
        )

    def compare() -> Similarity | None:
        if rung is None:
            return None
        return similarity(rung, design, user_ids=comparisons.user_ids, cluster=cluster, theta=theta, seed=seed)

    def lay_out() -> Projection | None:
        if embedding is None:
            return None
        return project(embedding, cluster, user_ids=comparisons.user_ids, seed=seed)

    def ask_power() -> Power | None:
        if personal is None:
            return None
        own, pooled = (combine_seeds([each.test[name] for each in seeds]) for name in (personal, "pooled"))
        return power_of(own, pooled, n_splits=len(seeds), level=level)

    def relate() -> tuple[CovariateTest, ...] | None:
        if comparisons.users is None:
            return None
        taste = None
        if embedding is not None:
            taste = np.full((comparisons.n_users, embedding.width), np.nan)
            taste[embedding.user] = embedding.vector
        return compare_covariates(comparisons.users, cluster, taste, seed=seed)

    def like() -> tuple[ClusterLikes, ...] | None:
        model = rungs["cluster"].model if "cluster" in rungs else None
        if cluster is None or not isinstance(model, Clusters):
            return None
        present = (cluster >= 0)[:, None]
        membership = np.where(present, model.membership.double().numpy(force=True), 0.0)
        return likes(comparisons, membership, model=model, features=design.features, cache_dir=cache_dir, seed=seed)

    return Diagnosis(
        tests=attempt("tests", "test whether users differ", test, ""),
        components=attempt(
            "components",
            "taste, reliability and chance",
            lambda: components(comparisons, design, theta=theta, level=level, seed=seed),
            "",
        ),
        ceiling=attempt(
            "ceiling",
            "the noise ceiling",
            lambda: noise_ceiling(comparisons, level=level),
            "no two decisions are about the same items",
        ),
        power=attempt("power", "power", ask_power, nobody),
        similarity=attempt("similarity", "who is like whom", compare, nobody),
        projection=attempt("projection", "lay out the users", lay_out, nobody),
        covariates=attempt("covariates", "covariates", relate, "the users have no covariates") or (),
        likes=attempt("likes", "what each cluster likes", like, alone) or (),
        users_apart=attempt(
            "users_apart", "who stands apart", lambda: name_users_apart(comparisons, cache_dir=cache_dir, seed=seed), ""
        )
        or (),
        scan=attempt("scan", "scan the data", lambda: scan(comparisons, seed=seed), ""),
        missing=missing,
    )


def _embedded(rungs: Mapping[str, Rung]) -> Basis | Individual | None:
    """The rung whose users have embeddings: the basis, or where its rank is 0 the individual rung."""
    for name in ("basis", "individual"):
        model = rungs[name].model if name in rungs else None
        if isinstance(model, Basis) and model.rank == 0:
            continue
        if isinstance(model, Basis | Individual):
            return model
    return None
