"""Fit one user model to all rows: `pluralign.fit` and `pluralign fit`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.inference.folds import folds_by_source
from pluralign.rewards import LinearReward
from pluralign.studies.features import FeatureSource
from pluralign.studies.ladder import LadderSettings, Rung, fit_ladder
from pluralign.studies.settings import check_ridge, check_seed

logger = logging.getLogger(__name__)

USER_MODELS = ("pooled", "reliability", "cluster", "basis", "individual", "latent")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What to fit.

    Attributes:
        users: One of `USER_MODELS`.
        clusters: Number of clusters; None chooses it by cross-validation.
        soft: Latent classes rather than an assignment.
        rank: Rank of `basis`; None chooses it.
        ridge: Prior precision of the shared reward, and of the clusters' around it. None is 0 (maximum likelihood) for
            numeric attributes, and for texts chosen by cross-validation.
        starts: Restarts of EM.
        folds: Folds of every choice.
        seed: Of restarts and folds.
    """

    users: str = "pooled"
    clusters: int | None = None
    soft: bool = False
    rank: int | None = None
    ridge: float | None = None
    starts: int = 20
    folds: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.users not in USER_MODELS:
            raise ConfigError(f'unknown user model "{self.users}"; known: {", ".join(USER_MODELS)}')
        for name, given, needs in (
            ("clusters", self.clusters is not None, "cluster"),
            ("soft", self.soft, "cluster"),
            ("rank", self.rank is not None, "basis"),
        ):
            if given and self.users != needs:
                raise ConfigError(f"{name} is for {needs}, and the user model is {self.users}")
        check_ridge(self.ridge)
        check_seed(self.seed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit:
    """A fitted user model and what was found on the way.

    Attributes:
        reward: The reward model, which scores and saves.
        rung: The user model, its log-likelihood, and the evidence behind its settings.
        comparisons: What it was fitted to.
    """

    reward: LinearReward
    rung: Rung
    comparisons: Comparisons

    def as_dict(self) -> dict[str, object]:
        """Plain numbers: log_likelihood in nats, counts, what was chosen."""
        return {
            "users": self.rung.model.kind,
            "log_likelihood": self.rung.log_likelihood,
            "n_parameters": self.rung.model.n_parameters,
            "n_comparisons": self.comparisons.n_decisions,
            "n_rows": len(self.comparisons),
            "n_users": len(set(self.comparisons.user.tolist())),
            "n_items": len(self.comparisons.items),
            **self.rung.settings,
            "choice": self.rung.choice,
        }


def fit(
    comparisons: Comparisons,
    settings: FitSettings | None = None,
    *,
    encoder: str = "auto",
    cache_dir: Path | None = None,
    device: str = "cpu",
    **fields: object,
) -> Fit:
    """Fit one user model to all rows.

    Args:
        comparisons: The data.
        settings: What to fit; or give its fields by name, `fit(comparisons, users="cluster", clusters=2, soft=True)`.
        encoder: As `make_encoder` names them, or "auto": attributes for numeric items, tfidf for text.
        cache_dir: Feature cache.
        device: Where encoders and fits run.
        fields: Fields of `FitSettings`, instead of `settings`.

    Raises:
        ConfigError: A setting is not accepted.
        DataError: All rows come from one source.
    """
    settings = settings or FitSettings(**fields)  # type: ignore[arg-type]
    fitted, standardizer, features = FeatureSource(comparisons, encoder, cache_dir=cache_dir, device=device).of(
        comparisons
    )
    design = Design.of(comparisons, features)
    ridge = 0.0 if settings.ridge is None and comparisons.format == "numeric" else settings.ridge
    ladder = LadderSettings(
        ridge=ridge,
        clusters=LadderSettings.clusters if settings.clusters is None else (settings.clusters,),
        ranks=LadderSettings.ranks if settings.rank is None else (settings.rank,),
        starts=settings.starts,
        seed=settings.seed,
    )
    n_users = len(np.unique(comparisons.user))
    if settings.clusters is not None and settings.clusters > n_users:
        logger.warning(
            "clusters is %d, and the rows are of %d users: %d are fitted", settings.clusters, n_users, n_users
        )
    name = "cluster-hard" if settings.users == "cluster" and not settings.soft else settings.users
    n_sources = len(design.source.unique())
    if n_sources < 2:
        raise DataError(
            "too few sources: the rows come from 1, and a fit holds out whole sources to choose by, which takes 2",
            hint="add comparisons of another prompt, or name a finer source column",
        )
    folds = folds_by_source(design, min(settings.folds, n_sources), settings.seed)
    rung = fit_ladder(design, folds, ladder, (name,))[name]
    reward = LinearReward(users=rung.model, user_ids=comparisons.user_ids, encoder=fitted, standardizer=standardizer)
    return Fit(reward=reward, rung=rung, comparisons=comparisons)
