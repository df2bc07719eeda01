"""Fit `Reliability`: a taste, each user's reliability, a lapse rate and a position bias.

A user's log reliability a is one number, so it is integrated over numerically: with the row margins m of theta at hand,

    F = sum_u log integral N(a; 0, spread^2) prod_j P(decision j of u | e^a c m + bias position, lapse) da

is tabulated on 25 values of a, interpolated by a cubic spline, and maximised over the four numbers log c, bias, lapse
and spread. Then theta is refitted with every user at the posterior median reliability, and so in turn.

The margins are those of thetas that did not see the decision (folds). Margins of rows that theta was fitted to are too
large wherever features are many, and reliability, a scale, would take overfitting for certainty. The refit of theta is
at a point, not over the posterior of a, so that F need not rise in the last digits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.folds import Folds, default_folds
from pluralign.inference.heads import fit_heads
from pluralign.inference.pooled import choose_ridge
from pluralign.likelihoods import Decisions, Lapsing
from pluralign.users.reliability import Reliability

_REACH = 3.0  # a reliability of e^-3 is hardly told from guessing, nor e^3 from certainty
_COARSE, _FINE = 25, 241
_LEAST_SPREAD = 0.02  # below the fine grid's step a spread is none
_LEAST_LAPSE = 1e-4  # one answer in ten thousand: at a bound of 0 the slope of log P has none
_BLOCK = 2**20


@dataclass(frozen=True, eq=False, kw_only=True)
class ReliabilityReport:
    """How a reliability rung was fitted.

    Attributes:
        ridge: Prior precision of theta.
        log_prob: Log-likelihood with the users' reliabilities integrated over, in nats.
        n_decisions: Decisions fitted.
        rounds: Times theta was refitted.
        converged: Whether the last round gained less than the tolerance.
    """

    ridge: float
    log_prob: float
    n_decisions: int
    rounds: int
    converged: bool


@dataclass(frozen=True)
class _Numbers:
    """The four numbers beside theta."""

    log_factor: float = 0.0
    position_bias: float = 0.0
    lapse: float = 0.01
    spread: float = 0.3

    def array(self) -> np.ndarray:
        return np.array(
            [self.log_factor, self.position_bias, np.log(max(self.lapse, _LEAST_LAPSE)), np.log(self.spread)]
        )


def fit_reliability(
    design: Design,
    *,
    ridge: float | None = None,
    folds: Folds | None = None,
    max_rounds: int = 8,
    tolerance: float = 1e-5,
) -> tuple[Reliability, ReliabilityReport]:
    """Fit one taste and everybody's reliability.

    Args:
        design: Rows and features.
        ridge: Prior precision of theta, 0 for none; None chooses it as `fit_pooled` does.
        folds: Of that choice, and of the margins; None means five folds of whole sources.
        max_rounds: Most refits of theta.
        tolerance: Stop when a round gains less than this, in nats per decision.

    Raises:
        ConfigError: Folds that cannot be made, or a negative ridge.
    """
    features, decisions = design.features, design.decisions
    folds = folds or default_folds(design)
    if ridge is None:
        path = choose_ridge(design, folds=folds)
        ridge = float(path.ridge[path.best])
    every = torch.cat([folds.trains, folds.trains.new_ones((len(folds.trains), 1))], 1)  # the last head sees all rows
    prior, apart = features.new_full((len(folds) + 1,), ridge), folds.absent_from()[decisions.index]
    theta = fit_heads(design, ridge=prior, group=folds.group, group_weight=every).theta
    biased = bool(decisions.position.any())
    numbers, reached, rounds, converged = _Numbers(), -np.inf, 0, False
    while True:
        margin = design.margins(theta).gather(1, apart[:, None])[:, 0]
        numbers, value, mean, sd = _maximise(design, margin, numbers, biased)
        converged = value - reached < tolerance * design.n_decisions
        reached = value
        if converged or rounds == max_rounds:
            break
        factor = float(np.exp(numbers.log_factor))
        theta = fit_heads(
            design,
            ridge=prior,
            group=folds.group,
            group_weight=every,
            start=theta * factor,
            scale=mean.exp().to(features.dtype)[design.user][decisions.index],
            offset=numbers.position_bias * decisions.position,
            likelihood=Lapsing(numbers.lapse),
        ).theta
        numbers = replace(numbers, log_factor=0.0)
        rounds += 1
    none = numbers.spread <= _LEAST_SPREAD * 1.001
    model = Reliability(
        theta=theta[-1] * float(np.exp(numbers.log_factor)),
        log_scale=torch.zeros_like(mean, dtype=features.dtype) if none else mean.to(features.dtype),
        log_scale_sd=torch.zeros_like(sd, dtype=features.dtype) if none else sd.to(features.dtype),
        spread=0.0 if none else numbers.spread,
        lapse=0.0 if numbers.lapse <= _LEAST_LAPSE * 1.001 else numbers.lapse,
        position_bias=numbers.position_bias,
    )
    report = ReliabilityReport(
        ridge=ridge,
        log_prob=float(_joint(design, model.theta, numbers)[0].logsumexp(1).sum()),
        n_decisions=design.n_decisions,
        rounds=rounds,
        converged=bool(converged),
    )
    return model, report


def place_reliability(model: Reliability, design: Design) -> Reliability:
    """Return the model of the design's users: the posterior of each one's reliability, the rest staying as it is.

    A user without a decision gets the prior's mean, 0, and its standard deviation, `model.spread`.
    """
    theta = model.theta
    absent = torch.bincount(design.user, minlength=design.n_users) == 0
    if model.spread == 0:
        mean = sd = theta.new_zeros(design.n_users)
    else:
        joint, node = _joint(design, theta, _Numbers(0.0, model.position_bias, model.lapse, model.spread))
        mean, sd = (each.to(theta) for each in _moments(joint, node))
    return replace(
        model,
        log_scale=mean.masked_fill(absent, 0.0),
        log_scale_sd=sd.masked_fill(absent, model.spread),
    )


def _joint(
    design: Design, theta: Float[Tensor, " dim"], numbers: _Numbers
) -> tuple[Float[Tensor, "users nodes"], Float[Tensor, " nodes"]]:
    """Log density of every user's decisions and log s_u at given numbers (their factor is theta's), and the nodes."""
    coarse = torch.linspace(-_REACH, _REACH, _COARSE, dtype=torch.float64, device=theta.device)
    fine = torch.linspace(-_REACH, _REACH, _FINE, dtype=torch.float64, device=theta.device)
    at = replace(numbers, log_factor=0.0).array()
    table = _tabulate(design, design.margins(theta[None])[:, 0], coarse, at)
    spline = torch.as_tensor(_spline(), device=theta.device)
    return table @ spline.T + torch.log_softmax(-((fine / numbers.spread) ** 2) / 2, 0), fine


def _maximise(
    design: Design, margin: Float[Tensor, " rows"], numbers: _Numbers, biased: bool
) -> tuple[_Numbers, float, Float[Tensor, " users"], Float[Tensor, " users"]]:
    """Best numbers for given margins, F there, and the posterior mean and standard deviation of every user's log s."""
    coarse = torch.linspace(-_REACH, _REACH, _COARSE, dtype=torch.float64, device=margin.device)
    fine = torch.linspace(-_REACH, _REACH, _FINE, dtype=torch.float64, device=margin.device)
    spline = torch.as_tensor(_spline(), device=margin.device)

    def posterior(at: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        table = _tabulate(design, margin, coarse, at)
        log_spread = torch.tensor(at[3], dtype=torch.float64, device=margin.device, requires_grad=True)
        log_prior = torch.log_softmax(-(fine**2) / 2 * torch.exp(-2 * log_spread), 0)
        joint = table @ spline.T + log_prior
        return joint, log_spread, joint.logsumexp(1).sum()

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        joint, log_spread, value = posterior(at)
        (in_spread,) = torch.autograd.grad(value, log_spread)
        share = torch.softmax(joint.detach(), 1) @ spline  # derivative of F in the coarse table
        slope = _slopes(design, margin, coarse, at, share)
        return -float(value.detach()), -np.array([*slope, float(in_spread)])

    bounds = [
        (-3.0, 3.0),
        (-5.0, 5.0) if biased else (0.0, 0.0),
        (float(np.log(_LEAST_LAPSE)), float(np.log(0.5))),
        (float(np.log(_LEAST_SPREAD)), float(np.log(2.0))),
    ]
    found = _minimise(loss, numbers.array(), bounds, design.n_decisions)
    with torch.no_grad():
        joint, *_ = posterior(found)
    value = -loss(found)[0]
    mean, sd = _moments(joint, fine)
    best = _Numbers(float(found[0]), float(found[1]), float(np.exp(found[2])), float(np.exp(found[3])))
    return best, value, mean, sd


def _moments(
    joint: Float[Tensor, "users nodes"], node: Float[Tensor, " nodes"]
) -> tuple[Float[Tensor, " users"], Float[Tensor, " users"]]:
    """Mean and standard deviation of log s_u where `joint` is its log density on the nodes, up to a constant."""
    share = torch.softmax(joint, 1)
    mean = share @ node
    return mean, (share @ node**2 - mean**2).clamp(min=0).sqrt()


def _minimise(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    bounds: list[tuple[float, float]],
    n_decisions: int,
) -> np.ndarray:
    """Bounded quasi-Newton on the mean loss, which is well scaled."""

    def mean_loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(at)
        return value / n_decisions, slope / n_decisions

    options = {"maxiter": 50, "ftol": 1e-9, "gtol": 1e-6}
    return np.asarray(minimize(mean_loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x)


@lru_cache(maxsize=1)
def _spline() -> np.ndarray:
    """Matrix from values on the coarse grid to values on the fine one, (fine, coarse)."""
    coarse, fine = np.linspace(-_REACH, _REACH, _COARSE), np.linspace(-_REACH, _REACH, _FINE)
    return np.asarray(CubicSpline(coarse, np.eye(_COARSE), axis=0)(fine))


def _scaled(
    margin: Float[Tensor, " rows"], within: Decisions, node: Float[Tensor, " nodes"], at: np.ndarray
) -> tuple[Float[Tensor, "rows nodes"], Float[Tensor, "rows nodes"]]:
    """Margins of a block at every node, and the part of them that the factor scales."""
    own = margin[:, None] * torch.exp(node + at[0]).to(margin.dtype)
    return own if at[1] == 0 else own + at[1] * within.position[:, None], own


def _tabulate(
    design: Design, margin: Float[Tensor, " rows"], node: Float[Tensor, " nodes"], at: np.ndarray
) -> Float[Tensor, "users nodes"]:
    """Log-likelihood of every user at every node."""
    table = node.new_zeros((design.n_users, len(node)))
    likelihood = Lapsing(float(np.exp(at[2])))
    for rows, decisions, within in design.decisions.blocks(_BLOCK // len(node)):
        shifted, _ = _scaled(margin[rows], within, node, at)
        log_prob = likelihood.log_prob(shifted, within) * design.weight[decisions, None]
        table.index_add_(0, design.user[decisions], log_prob.double())
    return table


def _slopes(
    design: Design,
    margin: Float[Tensor, " rows"],
    node: Float[Tensor, " nodes"],
    at: np.ndarray,
    share: Float[Tensor, "users nodes"],
) -> np.ndarray:
    """Derivatives of F in log factor, bias and log lapse, `share` being its derivative in the table, (3,)."""
    likelihood = Lapsing(float(np.exp(at[2])))
    share, total = share.to(margin.dtype), node.new_zeros(3)
    for rows, decisions, within in design.decisions.blocks(_BLOCK // len(node)):
        shifted, own = _scaled(margin[rows], within, node, at)
        weight = share.index_select(0, design.user[decisions]) * design.weight[decisions, None]
        slope = likelihood.slope(shifted, within).mul_(weight if within.pairwise else weight[within.index])
        total[0] += (slope * own).sum()
        total[1] += (slope.sum(1) * within.position).sum()
        total[2] += likelihood.lapse * likelihood.slope_in_lapse(shifted, within).mul_(weight).sum()
    return total.numpy(force=True)
