"""Fit every rung of the ladder to the same training rows, each choosing its settings among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.inference.basis import fit_basis
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.inference.clusters import ClustersFit, fit_clusters
from pluralign.inference.embedding_route import fit_embedding_route
from pluralign.inference.folds import Folds
from pluralign.inference.gaussian_choice import Choice, choose_rank, choose_tau
from pluralign.inference.heads import EXACT_DIM
from pluralign.inference.individual import LOW_DIM, IndividualFit, fit_individual
from pluralign.inference.latent import fit_latent, refit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.inference.pooled import fit_pooled
from pluralign.inference.reliability import fit_reliability
from pluralign.inference.selection import Candidate, cross_validate, cross_validate_all, pick_simplest
from pluralign.likelihoods import Logit
from pluralign.users import Clusters, Pooled, UserModel

LADDER = ("pooled", "reliability", "cluster-hard", "cluster", "cluster-embedding", "basis", "individual", "latent")
RUNGS = LADDER[:-1]  # fitted unless others are named: `latent` costs more than all of them together
EMBEDDING_WIDTH = 8  # of arXiv 2601.20760; its other one is 16


@dataclass(frozen=True, kw_only=True)
class LadderSettings:
    """What the rungs try.

    Attributes:
        ridge: Prior precision of the shared reward and of the clusters' around it; None chooses it.
        clusters: Numbers of clusters tried; one of them alone is taken without a choice.
        ranks: Ranks of `basis` tried, likewise.
        covariance: Prior covariance of `individual`: "isotropic", "diagonal", "full", or "auto".
        starts: Restarts of the clusters' EM.
        latent_dim: Numbers that describe a user of `latent`.
        seed: Of the restarts, and of the training of `latent`.
    """

    ridge: float | None = None
    clusters: tuple[int, ...] = tuple(range(1, 9))
    ranks: tuple[int, ...] = (0, 1, 2, 4, 8)
    covariance: str = "auto"
    starts: int = 20
    latent_dim: int = 4
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
        held_out: What the folds' fits predicted when settings were chosen; None where none were, or where those fits
            are not the rung's own (`refit`).
    """

    model: UserModel
    log_likelihood: float
    settings: dict[str, Any]
    choice: list[dict[str, Any]]
    described: str
    refit: Callable[[Design], UserModel]
    held_out: Predictions | None = None


def fit_ladder(
    design: Design, folds: Folds, settings: LadderSettings, names: tuple[str, ...] = RUNGS
) -> dict[str, Rung]:
    """Fit rungs, poorest first; `pooled` is always among them.

    Args:
        design: Training rows.
        folds: Folds of them, for every choice that is made.
        settings: What the rungs try.
        names: Rungs to fit, of `LADDER`.

    Raises:
        ConfigError: A name that is no rung, or only ranks of `basis` above the number of features.
    """
    unknown = [name for name in names if name not in LADDER]
    if unknown:
        raise ConfigError(f'unknown rung "{unknown[0]}"; known: {", ".join(LADDER)}')
    pooled = _pooled(design, folds, settings)
    rungs = {"pooled": pooled}
    ridge = pooled.settings["ridge"]
    if "reliability" in names:
        rungs["reliability"] = _reliability(design, ridge)
    if any(name.startswith("cluster") for name in names):
        own_ridge = _cluster_ridge(design, folds, settings, ridge)
        if "cluster" in names:
            rungs["cluster"] = _clusters(design, folds, settings, ridge, own_ridge, soft=True)
        if "cluster-hard" in names:
            rungs["cluster-hard"] = _clusters(design, folds, settings, ridge, own_ridge, soft=False)
        if "cluster-embedding" in names:
            rungs["cluster-embedding"] = _embeddings(design, folds, settings, ridge, own_ridge)
    if "basis" in names:
        rungs["basis"] = _basis(design, folds, settings, ridge)
    if "individual" in names:
        rungs["individual"] = _individual(design, folds, settings, ridge)
    if "latent" in names:
        basis = rungs["basis"].settings["ridge"] if "basis" in rungs else ridge
        rungs["latent"] = _latent(design, pooled, basis, settings)
    return rungs


def choose_rung(design: Design, folds: Folds, rungs: dict[str, Rung]) -> tuple[str, tuple[Candidate, ...]]:
    """Choose among fitted rungs inside the training rows: the simplest within one standard error of the best.

    Args:
        design: Training rows.
        folds: Those with which the rungs were fitted: what their `held_out` predicts is not fitted again.
        rungs: By name.
    """
    names = [name for name in LADDER if name in rungs]
    predictions = []
    for name in names:
        kept = rungs[name].held_out
        predictions.append(cross_validate(design, rungs[name].refit, folds) if kept is None else kept)
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


def _reliability(design: Design, ridge: float) -> Rung:
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


def _fit_clusters(
    rows: Design,
    n_clusters: int,
    ridge: float,
    own_ridge: float,
    settings: LadderSettings,
    *,
    soft: bool,
    exact: bool = False,
) -> ClustersFit:
    """Clusters around the pooled reward of the same rows, no more of them than users.

    A fit that is not `exact` is one of many, to a part of the rows: it takes fewer restarts and fewer digits.
    """
    return fit_clusters(
        rows,
        min(n_clusters, rows.n_counted_users),
        soft=soft,
        ridge=own_ridge,
        center=fit_pooled(rows, ridge=ridge)[0].theta,
        n_starts=settings.starts if exact else max(settings.starts // 4, 4),
        seed=settings.seed,
        exact=exact,
    )


def _cluster_ridge(design: Design, folds: Folds, settings: LadderSettings, ridge: float) -> float:
    """How strongly clusters are held to the pooled reward: as given, or what a few soft clusters predict best with."""
    few = min(3, max(settings.clusters))
    if settings.ridge is not None or ridge == 0 or few == 1:
        return ridge

    def held_out(own_ridge: float) -> float:
        def fit(rows: Design) -> UserModel:
            return _fit_clusters(rows, few, ridge, own_ridge, settings, soft=True).model

        return _mean_log_prob(cross_validate(design, fit, folds))

    return search_scale(held_out, ridge)


def _clusters(
    design: Design, folds: Folds, settings: LadderSettings, ridge: float, own_ridge: float, *, soft: bool
) -> Rung:
    choice, held_out, many_features = [], None, design.dim >= EXACT_DIM
    if len(settings.clusters) == 1:
        found = _fit_clusters(design, settings.clusters[0], ridge, own_ridge, settings, soft=soft, exact=True)
    else:
        chosen = choose_clusters(
            design,
            settings.clusters,
            folds=folds,
            soft=soft,
            ridge=own_ridge,
            pooled_ridge=ridge,
            n_starts=settings.starts,
            # Many features: restarts are screened on an expansion, where they cost little.
            fold_starts=settings.starts if many_features else max(settings.starts // 4, 4),
            seed=settings.seed,
        )
        found, choice = chosen.fit, [asdict(row) for row in chosen.candidates]
        held_out = None if many_features else chosen.held_out  # those of many features end after a few rounds
    k = found.model.n_clusters
    which = "one reward per cluster" if soft else "one reward per cluster, each user in one"
    return Rung(
        model=found.model,
        log_likelihood=found.log_likelihood,
        settings={"n_clusters": k, "ridge": own_ridge, "shares": found.model.shares.tolist(), "bic": found.bic},
        choice=choice,
        described=f"{which} ({k} clusters)",
        refit=lambda rows: _fit_clusters(rows, k, ridge, own_ridge, settings, soft=soft).model,
        held_out=held_out,
    )


def _embeddings(design: Design, folds: Folds, settings: LadderSettings, ridge: float, own_ridge: float) -> Rung:
    """The route of the experiments of arXiv 2601.20760: embeddings learned with a reward, grouped, a reward per group.

    K is chosen as it is for the other clusters; the paper saw two in a plot.
    """

    def models(rows: Design, ks: tuple[int, ...]) -> list[UserModel]:
        learned = fit_basis(rows, min(EMBEDDING_WIDTH, rows.dim), ridge=ridge, tolerance=1e-5).model.mean
        center, n_present = fit_pooled(rows, ridge=ridge)[0].theta, rows.n_counted_users
        return [
            fit_embedding_route(
                rows, min(k, n_present), embeddings=learned, ridge=own_ridge, center=center, seed=settings.seed
            ).model
            if min(k, n_present) > 1
            else fit_clusters(rows, 1, soft=False, ridge=own_ridge, center=center).model
            for k in ks
        ]

    ks = tuple(sorted({min(k, design.n_counted_users) for k in settings.clusters}))
    held = cross_validate_all(design, lambda rows: models(rows, ks), folds)
    position, evidence = pick_simplest([str(k) for k in ks], held)
    (model,) = models(design, (ks[position],))
    assert isinstance(model, Clusters)
    log_prob = Logit().log_prob(design.margins(model.theta), design.decisions)
    own = log_prob.gather(1, model.membership.argmax(1)[design.user][:, None])[:, 0]
    return Rung(
        model=model,
        log_likelihood=float((own * design.weight).sum()),
        settings={"n_clusters": ks[position], "ridge": own_ridge, "shares": model.shares.tolist()},
        choice=[{"n_clusters": k, **asdict(row)} for k, row in zip(ks, evidence, strict=True)],
        described=f"one reward per cluster of user embeddings ({ks[position]} clusters)",
        refit=lambda rows: models(rows, (ks[position],))[0],
        held_out=held[position],
    )


def _basis(design: Design, folds: Folds, settings: LadderSettings, ridge: float) -> Rung:
    ranks = tuple(rank for rank in settings.ranks if rank <= design.dim)
    if not ranks:
        tried = ", ".join(map(str, settings.ranks))
        raise ConfigError(
            f"rank of `basis` is {tried}, and there are {design.dim} features; it must be at most {design.dim}"
        )
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
        held_out=choice.held_out[choice.candidates.index(rank)] if choice else None,
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
        refit=lambda rows: fit(rows).model,  # theta too, which the choice of tau leaves at the pooled fit
    )


def _latent(design: Design, pooled: Rung, ridge_basis: float, settings: LadderSettings) -> Rung:
    how, ridge = LatentSettings(latent_dim=settings.latent_dim, seed=settings.seed), pooled.settings["ridge"]
    assert isinstance(pooled.model, Pooled)
    found = fit_latent(design, how, ridge=ridge, ridge_basis=ridge_basis, start=pooled.model.theta)
    seen = found.diagnosis
    return Rung(
        model=found.model,
        log_likelihood=found.log_likelihood,
        settings={
            "latent_dim": how.latent_dim,
            "steps": found.steps,
            "ridge": ridge_basis,
            "active_units": seen.active_units,
            "variance": list(seen.variance),
            "kl": list(seen.kl),
            "kl_total": seen.kl_total,
            "fell_back": found.fell_back,
            "own_over_shuffled": asdict(seen.own_over_shuffled),
            "collapsed": seen.collapsed,
            "accuracy": seen.accuracy,
            "log_prob": seen.log_prob,
            "words": seen.words,
        },
        choice=[asdict(look) for look in found.looks],
        described=f"one reward per user, inferred by an encoder ({how.latent_dim} latent dimensions)",
        refit=lambda rows: refit_latent(rows, found, how, ridge=ridge, ridge_basis=ridge_basis),
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
