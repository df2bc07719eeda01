"""How many clusters: chosen inside the training rows, with one as a candidate.

Decisions are split by source into folds. For each K clusters are fitted on the other folds, every user is placed by
its own decisions there, and its decisions in the fold are predicted. The best K has the largest mean log-probability
of held-out decisions; the K chosen is the smallest whose loss against it is within one standard error (Breiman et al.
1984), that of the paired difference, clustered by user. Beside it stand BIC, and two kinds of stability, both
adjusted Rand indices: of restarts, and of fits to two halves of the sources.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from torch import Tensor

from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.inference.clusters import LEAST_RIDGE, ClustersFit, fit_clusters, screen_users
from pluralign.inference.folds import Folds, default_folds, folds_by_source
from pluralign.inference.heads import EXACT_DIM, fit_heads
from pluralign.inference.restarts import agreement
from pluralign.inference.selection import cross_validate_all, pick_simplest
from pluralign.likelihoods import Likelihood, Logit
from pluralign.users import Clusters

ROUNDS_OF_A_PART = 5  # for folds and halves of many dimensions: what prediction gains comes in the first rounds


@final
@dataclass(frozen=True, kw_only=True)
class ClusterCandidate:
    """One K.

    Attributes:
        n_clusters: K.
        log_prob: Mean log-probability of a held-out decision, in nats.
        behind: How far that is below the best K's.
        standard_error: Of `behind`, paired and clustered by user; 0 for the best itself.
        log_likelihood: Of the fit to all rows.
        bic: Of the fit to all rows.
        n_parameters: Of the fit to all rows.
        restart_agreement: Mean adjusted Rand index of the restarts' partitions with the winner's; NaN for K = 1.
        half_agreement: Adjusted Rand index of the partitions found in two halves of the sources; NaN for K = 1, and
            where a half has fewer than K users.
        shares: Of the fit to all rows, falling.
    """

    n_clusters: int
    log_prob: float
    behind: float
    standard_error: float
    log_likelihood: float
    bic: float
    n_parameters: int
    restart_agreement: float
    half_agreement: float
    shares: tuple[float, ...]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class ClusterChoice:
    """The table of candidates and what was chosen from it.

    Attributes:
        candidates: In rising K.
        n_clusters: The K chosen by the one-standard-error rule.
        best: The K of the largest held-out log-probability.
        best_bic: The K of the smallest BIC.
        fits: The fit of every K to all rows; that of the K chosen to the last digits (`fit_clusters(exact=True)`).
        held_out: What the folds' fits of the K chosen predicted of the held-out decisions.
    """

    candidates: tuple[ClusterCandidate, ...]
    n_clusters: int
    best: int
    best_bic: int
    fits: Mapping[int, ClustersFit]
    held_out: Predictions

    @property
    def fit(self) -> ClustersFit:
        """The fit of the K chosen."""
        return self.fits[self.n_clusters]


def choose_clusters(
    design: Design,
    candidates: Sequence[int] = tuple(range(1, 9)),
    *,
    soft: bool = True,
    ridge: float = 0.0,
    pooled_ridge: float | None = None,
    folds: Folds | None = None,
    n_starts: int = 20,
    fold_starts: int = 8,
    seed: int = 0,
    max_norm: float | None = None,
    likelihood: Likelihood | None = None,
    stability: bool = True,
    progress: Callable[[int], None] | None = None,
) -> ClusterChoice:
    """Choose K by cross-validation over sources (module docstring).

    Args:
        design: Training rows and features.
        candidates: The K to try; 1, no clusters at all, should be among them. Those above the number of users with rows
            are left out.
        soft: Latent classes, rather than an assignment of each user.
        ridge: Precision of the Gaussian prior of every head.
        pooled_ridge: Precision of the prior (around 0) of the pooled reward that the heads' prior is centred on; None
            takes `ridge`.
        folds: What to hold out; None means `default_folds`.
        n_starts: Restarts of the fits to all rows.
        fold_starts: Restarts in each fold and each half.
        seed: Of the folds and the restarts.
        max_norm: Bound on the norm of every head.
        likelihood: Logit by default.
        stability: Whether to fit the two halves.
        progress: Called with K when a candidate is done.

    Raises:
        ConfigError: No candidate, one below 1, or folds that cannot be made.
        DataError: There is no row.
    """
    likelihood = likelihood or Logit()
    tried = sorted({k for k in candidates if k <= design.n_counted_users})
    if not design.n_decisions:
        raise DataError("there is no comparison to choose clusters from")
    if not tried or tried[0] < 1:
        raise ConfigError(f"candidates are {list(candidates)}; each is from 1 to the number of users")
    folds = folds or default_folds(design, seed)

    part_rounds = 300 if design.dim < EXACT_DIM else ROUNDS_OF_A_PART

    def fitter(some: Design, starts: int, max_rounds: int) -> Callable[..., ClustersFit]:
        around = max(ridge if pooled_ridge is None else pooled_ridge, LEAST_RIDGE)
        center = fit_heads(some, ridge=some.features.new_tensor([around]), likelihood=likelihood).theta[0]
        screen = screen_users(some, ridge=ridge, center=center, likelihood=likelihood, seed=seed)

        def fit(n_clusters: int, *, exact: bool = False) -> ClustersFit:
            return fit_clusters(
                some,
                n_clusters,
                soft=soft,
                ridge=ridge,
                center=center,
                n_starts=starts,
                seed=seed,
                max_norm=max_norm,
                likelihood=likelihood,
                screen=screen,
                max_rounds=max_rounds,
                exact=exact,
            )

        return fit

    def models(kept: Design) -> Iterator[Clusters]:
        fit, n_present = fitter(kept, fold_starts, part_rounds), kept.n_counted_users
        return (fit(min(k, n_present)).model for k in tried)

    def partitions(half: Design) -> dict[int, np.ndarray]:
        fit, n_present = fitter(half, fold_starts, part_rounds), half.n_counted_users
        return {k: fit(k).model.membership.argmax(1).numpy(force=True) for k in tried if 1 < k <= n_present}

    # Fits to a half may copy the features of its items: all K in one half before the next, while nothing else is held.
    halves = [partitions(design.take(half)) for half in _halves(design, seed)] if stability else []
    predictions = cross_validate_all(design, models, folds)
    position, evidence = pick_simplest([str(k) for k in tried], predictions)
    held_out = predictions[position]
    del predictions
    fit, table, fits = fitter(design, n_starts, 300), [], {}
    for k, row in zip(tried, evidence, strict=True):
        fits[k] = fit(k, exact=k == tried[position])
        twice = [half[k] for half in halves if k in half]
        table.append(
            ClusterCandidate(
                n_clusters=k,
                log_prob=row.log_prob,
                behind=row.behind,
                standard_error=row.standard_error,
                log_likelihood=fits[k].log_likelihood,
                bic=fits[k].bic,
                n_parameters=fits[k].n_parameters,
                restart_agreement=fits[k].agreement,
                half_agreement=agreement(*twice) if len(twice) == 2 else math.nan,
                shares=tuple(fits[k].model.shares.tolist()),
            )
        )
        if progress is not None:
            progress(k)
    return ClusterChoice(
        candidates=tuple(table),
        n_clusters=tried[position],
        best=max(table, key=lambda row: row.log_prob).n_clusters,
        best_bic=min(table, key=lambda row: row.bic).n_clusters,
        fits=fits,
        held_out=held_out,
    )


def _halves(design: Design, seed: int) -> list[Tensor]:
    # A number of its own, so that the halves are not unions of folds.
    halves = folds_by_source(design, 2, seed + 1)
    return [halves.held(0), halves.held(1)]
