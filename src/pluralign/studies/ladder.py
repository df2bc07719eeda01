"""Fit every rung of the ladder to the same training rows, each choosing its settings among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.basis import fit_basis
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.inference.clusters import fit_clusters
from pluralign.inference.folds import Folds
from pluralign.inference.gaussian_choice import choose_rank
from pluralign.inference.individual import fit_individual
from pluralign.inference.pooled import fit_pooled
from pluralign.inference.reliability import fit_reliability
from pluralign.inference.selection import Candidate, cross_validate, pick_simplest
from pluralign.users import UserModel

LADDER = ("pooled", "reliability", "cluster", "cluster-hard", "basis", "individual")


@dataclass(frozen=True, kw_only=True)
class LadderSettings:
    """What the rungs try.

    Attributes:
        ridge: Prior precision of the shared reward and of the clusters' around it; None chooses it.
        clusters: Numbers of clusters tried; one of them alone is taken without a choice.
        ranks: Ranks of `basis` tried, likewise.
        covariance: Prior covariance of `individual`: "isotropic", "diagonal", "full", or "auto".
        starts: Restarts of the clusters' EM.
        seed: Of the restarts.
    """

    ridge: float | None = None
    clusters: tuple[int, ...] = tuple(range(1, 9))
    ranks: tuple[int, ...] = (0, 1, 2, 4, 8)
    covariance: str = "auto"
    starts: int = 20
    seed: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Rung:
    """A fitted rung.

    Attributes:
        model: The fitted users.
        log_likelihood: Of the rows fitted, in nats; what is random about a user is integrated over (by Laplace's method
            in `basis` and `individual`), but for hard clusters: theirs is the classification log-likelihood.
        settings: What was chosen inside the rows given ("n_clusters", "rank", ...), for JSON.
        choice: The evidence behind it, one row per candidate, for JSON.
        described: The rung in words, as the verdict names it.
        refit: Fit the same rung with the same settings to other rows.
    """

    model: UserModel
    log_likelihood: float
    settings: dict[str, Any]
    choice: list[dict[str, Any]]
    described: str
    refit: Callable[[Design], UserModel]


def fit_ladder(
    design: Design, folds: Folds, settings: LadderSettings, names: tuple[str, ...] = LADDER
) -> dict[str, Rung]:
    """Fit rungs, poorest first; `pooled` is always among them.

    Args:
        design: Training rows.
        folds: Folds of them, for every choice that is made.
        settings: What the rungs try.
        names: Rungs to fit, of `LADDER`.

    Raises:
        ConfigError: A name that is no rung.
    """
    unknown = [name for name in names if name not in LADDER]
    if unknown:
        raise ConfigError(f'unknown rung "{unknown[0]}"; known: {", ".join(LADDER)}')
    pooled = _pooled(design, folds, settings)
    rungs = {"pooled": pooled}
    ridge = pooled.settings["ridge"]
    build = {
        "reliability": _reliability,
        "cluster": partial(_clusters, soft=True),
        "cluster-hard": partial(_clusters, soft=False),
        "basis": _basis,
        "individual": _individual,
    }
    for name in LADDER:
        if name in names and name in build:
            rungs[name] = build[name](design, folds, settings, ridge)
    return rungs


def choose_rung(design: Design, folds: Folds, rungs: dict[str, Rung]) -> tuple[str, tuple[Candidate, ...]]:
    """Choose among fitted rungs inside the training rows: the simplest within one standard error of the best."""
    names = [name for name in LADDER if name in rungs]
    predictions = [cross_validate(design, rungs[name].refit, folds) for name in names]
    chosen, evidence = pick_simplest(names, predictions)
    return names[chosen], evidence


def _pooled(design: Design, folds: Folds, settings: LadderSettings) -> Rung:
    model, report = fit_pooled(design, ridge=settings.ridge, folds=folds)
    ridge = report.ridge

    def refit(rows: Design) -> UserModel:
        return fit_pooled(rows, ridge=ridge)[0]

    path = report.path
    return Rung(
        model=model,
        log_likelihood=report.log_prob,
        settings={"ridge": ridge},
        choice=[]
        if path is None
        else [
            {"ridge": r, "log_prob": -loss} for r, loss in zip(path.ridge.tolist(), path.log_loss.tolist(), strict=True)
        ],
        described="one reward for everybody",
        refit=refit,
    )


def _reliability(design: Design, folds: Folds, settings: LadderSettings, ridge: float) -> Rung:
    def refit(rows: Design) -> UserModel:
        return fit_reliability(rows, ridge=ridge)[0]

    model, report = fit_reliability(design, ridge=ridge)
    return Rung(
        model=model,
        log_likelihood=report.log_prob,
        settings={"spread": model.spread, "lapse": model.lapse, "position_bias": model.position_bias},
        choice=[],
        described="one reward for everybody, and a reliability for each user",
        refit=refit,
    )


def _clusters(design: Design, folds: Folds, settings: LadderSettings, ridge: float, *, soft: bool) -> Rung:
    choice = choose_clusters(
        design, settings.clusters, folds=folds, soft=soft, ridge=ridge, n_starts=settings.starts, seed=settings.seed
    )
    k = choice.n_clusters

    def refit(rows: Design) -> UserModel:
        n_present = len(rows.user.unique())
        center = fit_pooled(rows, ridge=ridge)[0].theta
        starts = max(settings.starts // 4, 4)
        return fit_clusters(
            rows, min(k, n_present), soft=soft, ridge=ridge, center=center, n_starts=starts, seed=settings.seed
        ).model

    which = "one reward per cluster" if soft else "one reward per cluster, each user in one"
    return Rung(
        model=choice.fit.model,
        log_likelihood=choice.fit.log_likelihood,
        settings={"n_clusters": k, "shares": choice.fit.model.shares.tolist(), "bic": choice.fit.bic},
        choice=[asdict(row) for row in choice.candidates],
        described=f"{which} ({k} clusters)",
        refit=refit,
    )


def _basis(design: Design, folds: Folds, settings: LadderSettings, ridge: float) -> Rung:
    ranks = tuple(rank for rank in settings.ranks if rank <= design.dim)
    choice = choose_rank(design, ranks, folds=folds, ridge=ridge) if len(ranks) > 1 else None
    rank = choice.chosen if choice else ranks[0]
    fit = fit_basis(design, rank, ridge=ridge)

    def refit(rows: Design) -> UserModel:
        return fit_basis(rows, rank, ridge=ridge).model

    return Rung(
        model=fit.model,
        log_likelihood=fit.evidence,
        settings={"rank": rank, "strength": list(fit.strength)},
        choice=[]
        if choice is None
        else [
            {"rank": r, "log_prob": value, "error": error}
            for r, value, error in zip(choice.candidates, choice.log_prob, choice.error, strict=True)
        ],
        described=f"one reward per user, in {rank} shared direction{'s' if rank != 1 else ''} of taste",
        refit=refit,
    )


def _individual(design: Design, folds: Folds, settings: LadderSettings, ridge: float) -> Rung:
    fit = fit_individual(design, ridge=ridge, covariance=settings.covariance)  # type: ignore[arg-type]

    def refit(rows: Design) -> UserModel:
        return fit_individual(rows, ridge=ridge, covariance=settings.covariance).model  # type: ignore[arg-type]

    return Rung(
        model=fit.model,
        log_likelihood=fit.evidence,
        settings={"pooled_evidence": fit.pooled_evidence},
        choice=[{"tau": tau, "evidence": evidence} for tau, evidence in zip(fit.taus, fit.tau_evidence, strict=True)],
        described="one reward per user, shrunk to the shared one",
        refit=refit,
    )
