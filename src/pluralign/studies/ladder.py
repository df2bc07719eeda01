"""Fit every rung of the ladder to the same training rows, each choosing its settings among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.inference.basis import fit_basis
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.inference.clusters import fit_clusters
from pluralign.inference.folds import Folds
from pluralign.inference.gaussian_choice import Choice, choose_rank, choose_tau
from pluralign.inference.individual import LOW_DIM, IndividualFit, fit_individual
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
    few = min(3, max(settings.clusters))

    def fit(rows: Design, n_clusters: int, own_ridge: float, starts: int) -> UserModel:
        n_clusters = min(n_clusters, len(rows.user.unique()))
        center = fit_pooled(rows, ridge=ridge)[0].theta
        return fit_clusters(
            rows, n_clusters, soft=soft, ridge=own_ridge, center=center, n_starts=starts, seed=settings.seed
        ).model

    def held_out(own_ridge: float) -> float:
        return _mean_log_prob(cross_validate(design, lambda rows: fit(rows, few, own_ridge, 4), folds))

    own_ridge = ridge if ridge == 0 or few == 1 else search_scale(held_out, ridge)
    choice = choose_clusters(
        design,
        settings.clusters,
        folds=folds,
        soft=soft,
        ridge=own_ridge,
        pooled_ridge=ridge,
        n_starts=settings.starts,
        seed=settings.seed,
    )
    k = choice.n_clusters
    which = "one reward per cluster" if soft else "one reward per cluster, each user in one"
    return Rung(
        model=choice.fit.model,
        log_likelihood=choice.fit.log_likelihood,
        settings={
            "n_clusters": k,
            "ridge": own_ridge,
            "shares": choice.fit.model.shares.tolist(),
            "bic": choice.fit.bic,
        },
        choice=[asdict(row) for row in choice.candidates],
        described=f"{which} ({k} clusters)",
        refit=lambda rows: fit(rows, k, own_ridge, max(settings.starts // 4, 4)),
    )


def _basis(design: Design, folds: Folds, settings: LadderSettings, ridge: float) -> Rung:
    ranks = tuple(rank for rank in settings.ranks if rank <= design.dim)
    few = min(2, max(ranks))

    def held_out(ridge_basis: float) -> float:
        return choose_rank(design, (0, few), ridge=ridge, ridge_basis=ridge_basis, folds=folds).log_prob[1]

    ridge_basis = ridge if ridge == 0 or few == 0 else search_scale(held_out, ridge)
    choice = choose_rank(design, ranks, ridge=ridge, ridge_basis=ridge_basis, folds=folds) if len(ranks) > 1 else None
    # The best rank and not the simplest: what is too rich for the data, the evidence shrinks and the ladder turns down.
    rank = choice.best if choice else ranks[0]
    fit = fit_basis(design, rank, ridge=ridge, ridge_basis=ridge_basis)
    return Rung(
        model=fit.model,
        log_likelihood=fit.evidence,
        settings={"rank": rank, "ridge": ridge_basis, "strength": list(fit.strength)},
        choice=_rows("rank", choice) if choice else [],
        described=f"one reward per user, in {rank} shared direction{'s' if rank != 1 else ''} of taste",
        refit=lambda rows: fit_basis(rows, rank, ridge=ridge, ridge_basis=ridge_basis).model,
    )


def _individual(design: Design, folds: Folds, settings: LadderSettings, ridge: float) -> Rung:
    # Few features: the evidence is nearly exact, and a whole covariance is estimated. Many: Laplace's method shrinks
    # too far where a user has fewer decisions than features, and the evidence knows nothing of new items; folds do.
    by_evidence = settings.covariance != "isotropic" and design.dim <= LOW_DIM
    choice = None if by_evidence else choose_tau(design, ridge=ridge, folds=folds)
    tau = choice.best if choice else None
    covariance = settings.covariance if by_evidence else "isotropic"

    def fit(rows: Design) -> IndividualFit:
        return fit_individual(rows, ridge=ridge, tau=tau, covariance=covariance)  # type: ignore[arg-type]

    found = fit(design)
    return Rung(
        model=found.model,
        log_likelihood=found.evidence,
        settings={"covariance": covariance, "tau": tau},
        choice=_rows("tau", choice) if choice else [],
        described="one reward per user, shrunk to the shared one",
        refit=lambda rows: fit(rows).model,
    )


def search_scale(held_out: Callable[[float], float], start: float, *, factor: float = 4.0, steps: int = 3) -> float:
    """Walk from `start` by a factor, down or else up, as long as the held-out log-probability rises."""
    best, value = start, held_out(start)
    for by in (1 / factor, factor):
        moved = False
        for _ in range(steps):
            tried = held_out(best * by)
            if tried <= value:
                break
            best, value, moved = best * by, tried, True
        if moved:
            break
    return best


def _mean_log_prob(predictions: Predictions) -> float:
    return float(np.average(predictions.log_prob, weights=predictions.weight))


def _rows(name: str, choice: Choice[Any]) -> list[dict[str, Any]]:
    return [
        {name: candidate, "log_prob": value, "standard_error": error}
        for candidate, value, error in zip(choice.candidates, choice.log_prob, choice.error, strict=True)
    ]
