"""Choose the rank of a basis, or the shrinkage of individual users, by what they predict of held-out decisions.

Folds hold out what the evaluation will (`folds`), and the rule is `selection`'s; no personalisation is a candidate.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.inference.basis import fit_basis
from pluralign.inference.folds import Folds, default_folds
from pluralign.inference.heads import fit_heads
from pluralign.inference.individual import MARGIN_SCALES, margin_unit, principal_axes
from pluralign.inference.offset_panel import OffsetPanel
from pluralign.inference.selection import cross_validate_all, pick_simplest
from pluralign.likelihoods import Logit
from pluralign.users import Pooled, UserModel

T = TypeVar("T", int, float)


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice(Generic[T]):
    """Candidates from simple to rich and what they predict.

    Attributes:
        candidates: Ranks, or taus, 0 first.
        log_prob: Mean held-out log-probability of each, nats per decision.
        error: Standard error, clustered by user, of its difference from the best.
        chosen: The simplest within one standard error of the best.
        best: The best.
        held_out: What each predicted of the held-out decisions.
    """

    candidates: tuple[T, ...]
    log_prob: tuple[float, ...]
    error: tuple[float, ...]
    chosen: T
    best: T
    held_out: tuple[Predictions, ...]


def choose_rank(
    design: Design,
    ranks: Sequence[int] = (0, 1, 2, 4, 8, 16),
    *,
    ridge: float = 1.0,
    ridge_basis: float | None = None,
    folds: Folds | None = None,
    seed: int = 0,
) -> Choice[int]:
    """Choose the rank of a basis.

    Args:
        design: The training rows; no other enters the choice.
        ranks: Candidates, ascending; those above the number of features are left out.
        ridge: As in `fit_basis`.
        ridge_basis: As in `fit_basis`.
        folds: What to hold out; None means `default_folds`.
        seed: Of those folds.

    Raises:
        ConfigError: Ranks are not ascending from 0.
    """
    if not ranks or ranks[0] != 0 or list(ranks) != sorted(set(ranks)):
        raise ConfigError(f"ranks are {tuple(ranks)}; they must ascend from 0, which is no personalisation")
    ranks = tuple(rank for rank in ranks if rank <= design.dim)

    def models(train: Design) -> Iterable[UserModel]:
        start = fit_heads(train, ridge=train.features.new_tensor([ridge])).theta[0]
        for rank in ranks:
            yield fit_basis(train, rank, ridge=ridge, ridge_basis=ridge_basis, start=start, tolerance=1e-5).model

    return _choose(design, ranks, models, folds or default_folds(design, seed))


def choose_tau(
    design: Design,
    taus: Sequence[float] | None = None,
    *,
    ridge: float = 1.0,
    folds: Folds | None = None,
    seed: int = 0,
) -> Choice[float]:
    """Choose the prior standard deviation of individual offsets, theta staying at each fold's pooled fit.

    The evidence asks which tau explains the training rows; this asks which one predicts, on new items for instance.

    Args:
        design: The training rows; no other enters the choice.
        taus: Candidates, ascending from 0; None covers margins' standard deviations from 0.25 to 5.6.
        ridge: Precision of the Gaussian prior of theta around 0.
        folds: What to hold out; None means `default_folds`.
        seed: Of those folds.

    Raises:
        ConfigError: Taus do not ascend from 0.
    """
    if taus is None:
        unit = float(margin_unit(design))
        taus = (0.0, *(scale / unit for scale in MARGIN_SCALES))
    if not taus or taus[0] != 0 or list(taus) != sorted(set(taus)):
        raise ConfigError(f"taus are {tuple(taus)}; they must ascend from 0, which is no personalisation")
    taus = tuple(taus)

    def models(train: Design) -> Iterable[UserModel]:
        theta = fit_heads(train, ridge=train.features.new_tensor([ridge])).theta[0]
        yield Pooled(theta=theta, n_users=train.n_users)
        panel, axes = OffsetPanel(train, Logit()), principal_axes(train, theta, Logit())
        for tau in taus[1:]:
            yield panel.model(theta, tau, axes)

    return _choose(design, taus, models, folds or default_folds(design, seed))


def _choose(
    design: Design, candidates: tuple[T, ...], models: Callable[[Design], Iterable[UserModel]], folds: Folds
) -> Choice[T]:
    held_out = cross_validate_all(design, models, folds)
    position, evidence = pick_simplest([str(each) for each in candidates], held_out)
    log_prob = [each.log_prob for each in evidence]
    return Choice(
        candidates=candidates,
        log_prob=tuple(log_prob),
        error=tuple(each.standard_error for each in evidence),
        chosen=candidates[position],
        best=candidates[log_prob.index(max(log_prob))],
        held_out=tuple(held_out),
    )
