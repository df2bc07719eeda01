"""Fit one reward for everybody, its ridge chosen by cross-validation on log loss.

Every (ridge, fold) pair is a head of one `fit_heads` call, so that the whole choice is a few passes over the features.
Folds hold out what the evaluation will (`folds`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.folds import Folds, default_folds
from pluralign.inference.heads import EXACT_DIM, fit_heads
from pluralign.likelihoods import Likelihood, Logit
from pluralign.users import Pooled

_PRIOR_SD = (0.05, 0.15, 0.4, 0.8, 1.5, 3.0, 6.0, 15.0)  # standard deviations of a margin, in nats


@dataclass(frozen=True, eq=False, kw_only=True)
class RidgePath:
    """Held-out log loss along candidate ridges.

    Attributes:
        ridge: Candidates, (ridges,).
        log_loss: Mean held-out log loss of each, nats per decision, (ridges,).
        deviation: Standard deviation over folds of the mean log loss, (ridges,).
        start: Mean over folds of each candidate's head: where a fit to all rows may begin, (ridges, dim).
    """

    ridge: Float[Tensor, " ridges"]
    log_loss: Float[Tensor, " ridges"]
    deviation: Float[Tensor, " ridges"]
    start: Float[Tensor, "ridges dim"]

    @property
    def best(self) -> int:
        """Which candidate has the least log loss; the largest ridge among equals."""
        least = self.log_loss == self.log_loss.min()
        return int(self.ridge.masked_fill(~least, -1).argmax())


@dataclass(frozen=True, eq=False, kw_only=True)
class PooledReport:
    """How a pooled reward was fitted.

    Attributes:
        ridge: Prior precision used.
        path: Cross-validation of the ridge, or None where it was given.
        log_prob: Weighted log-likelihood of the fitted rows, without the ridge term, in nats.
        n_decisions: Decisions fitted.
        passes: Passes over the features of the last fit.
        converged: Whether the last fit met its tolerance.
    """

    ridge: float
    path: RidgePath | None
    log_prob: float
    n_decisions: int
    passes: int
    converged: bool


def default_ridges(design: Design) -> Float[Tensor, " ridges"]:
    """Candidates at which the prior's margins have a standard deviation of 0.05 to 15 nats.

    0, no prior at all, is among them where there are fewer than 100 features and 20 decisions for each.
    """
    spread = 4 * design.gram.diagonal().sum().clamp(min=1e-12)  # variance of a margin under theta ~ N(0, I)
    ridges = spread / torch.tensor(_PRIOR_SD, dtype=spread.dtype, device=spread.device) ** 2
    if design.dim < EXACT_DIM and design.n_decisions >= 20 * design.dim:
        ridges = torch.cat([ridges, ridges.new_zeros(1)])
    return ridges


def choose_ridge(
    design: Design,
    *,
    ridges: Float[Tensor, " ridges"] | None = None,
    folds: Folds | None = None,
    center: Float[Tensor, " dim"] | None = None,
    likelihood: Likelihood | None = None,
    tolerance: float = 1e-4,
) -> RidgePath:
    """Cross-validate one head over candidate ridges.

    Args:
        design: Rows and features.
        ridges: Candidates; None means `default_ridges`.
        folds: What trains and what is held out; None means five folds of whole sources.
        center: Prior mean of the head; None means 0.
        likelihood: Logit by default.
        tolerance: Of `fit_heads`.

    Raises:
        ConfigError: Folds that cannot be made, or a negative ridge.
    """
    likelihood = likelihood or Logit()
    ridges = default_ridges(design) if ridges is None else ridges.to(design.features)
    folds = folds or default_folds(design)
    n_folds = len(folds)
    fit = fit_heads(
        design,
        ridge=ridges.repeat_interleave(n_folds),
        group=folds.group,
        group_weight=folds.trains.repeat(1, len(ridges)),
        center=None if center is None else center.expand(len(ridges) * n_folds, -1),
        likelihood=likelihood,
        tolerance=tolerance,
    )
    theta = fit.theta.reshape(len(ridges), n_folds, design.dim)
    scored = folds.held_in >= 0
    held_in, weight = folds.held_in[scored], design.weight[scored].double()
    size = weight.new_zeros(n_folds).index_add_(0, held_in, weight)
    loss = []
    for each in theta:
        log_prob = likelihood.log_prob(design.margins(each), design.decisions)[scored]
        own = log_prob.gather(1, held_in[:, None])[:, 0]
        loss.append(-weight.new_zeros(n_folds).index_add_(0, held_in, weight * own))
    by_fold = torch.stack(loss)
    return RidgePath(
        ridge=ridges,
        log_loss=by_fold.sum(1) / size.sum(),
        deviation=(by_fold / size.clamp(min=1e-12)).std(1),
        start=theta.mean(1),
    )


def fit_pooled(
    design: Design,
    *,
    ridge: float | None = None,
    ridges: Float[Tensor, " ridges"] | None = None,
    folds: Folds | None = None,
    likelihood: Likelihood | None = None,
    tolerance: float = 1e-5,
) -> tuple[Pooled, PooledReport]:
    """Fit theta for all users together.

    Args:
        design: Rows and features.
        ridge: Prior precision of theta, 0 for maximum likelihood; None chooses it among `ridges`.
        ridges: Candidates; None means `default_ridges`.
        folds: Of the choice; None means five folds of whole sources.
        likelihood: Logit by default.
        tolerance: Of `fit_heads`.

    Raises:
        ConfigError: Folds that cannot be made, or a negative ridge.
    """
    path = None
    start = None
    if ridge is None:
        path = choose_ridge(design, ridges=ridges, folds=folds, likelihood=likelihood)
        ridge, start = float(path.ridge[path.best]), path.start[path.best][None]
    fit = fit_heads(
        design,
        ridge=design.features.new_tensor([ridge]),
        start=start,
        likelihood=likelihood,
        tolerance=tolerance,
    )
    report = PooledReport(
        ridge=ridge,
        path=path,
        log_prob=float(fit.log_prob[0]),
        n_decisions=design.n_decisions,
        passes=fit.passes,
        converged=bool(fit.converged[0]),
    )
    return Pooled(theta=fit.theta[0], n_users=design.n_users), report
