"""Fit `Distribution`: DPL's mean-variance and categorical rewards (arXiv 2312.08358) on frozen features.

Maximises sum weight log P(outcome) - penalty, plus, for the categorical family, the total weight times `entropy` times
the entropy of the mean distribution over the items of all rows, chosen and rejected together (0.1 in the paper, which
takes the mean over a batch; a batch is all rows here). L-BFGS on all rows in float64; every item is scored once
whatever the number of its rows. Two layers or the product of two outputs make the objective not concave: this is a
local maximum, from a start that is 0 or drawn from `seed`.

Where it leaves the paper: the mean-variance family is identified up to scale and shift only, so its biases are held, at
a mean of 0 and a standard deviation of 1 / sqrt(2) for an item whose features are 0. Margins are then in units of the
standard deviation of a difference, and a spread that no feature moves is Thurstone's Case V. Both outputs have a ridge;
that of the spread is chosen among candidates the last of which is infinity: the same spread for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import linear, relu

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.folds import Folds, default_folds
from pluralign.inference.pooled import fit_pooled
from pluralign.likelihoods import Categorical, RewardDistribution, explained_by_items
from pluralign.users import Distribution
from pluralign.users.distribution import check_pairs, make_family

_EVEN = math.log(math.expm1(math.sqrt(0.5)))  # softplus of it is 1 / sqrt(2)
# Coefficients are in units of z, this many times smaller than those of a logit: its slope at 0 over the family's.
_PER_LOGIT = {"mean-variance": math.sqrt(8 / math.pi), "mean-variance-surrogate": math.sqrt(2 * math.pi)}
SPREADS = (1.0, 8.0, 64.0, math.inf)  # of the ridge of the mean
LOGITS = (0.01, 0.1, 1.0)  # of the pooled ridge: an atom's logits move further than a reward


@dataclass(frozen=True, eq=False, kw_only=True)
class DplReport:
    """How a distribution was fitted.

    Attributes:
        ridge: Prior precision of the weights, but for those of the spread.
        ridge_spread: Of the spread's weights; that of the others where the family is categorical.
        choice: Held-out log-probability per decision, in nats, by candidate ridge; empty where none was chosen.
        log_prob: Weighted log-likelihood of the fitted rows, without penalty and entropy, in nats.
        explained: r^2 = Var(means) / (Var(means) + mean variance) over the items of the fitted rows.
        passes: Passes over the features of the last fit.
        converged: Whether the last fit met its tolerance.
    """

    ridge: float
    ridge_spread: float
    choice: dict[float, float]
    log_prob: float
    explained: float
    passes: int
    converged: bool


def fit_dpl(
    design: Design,
    family: str = "mean-variance",
    *,
    ridge: float | None = None,
    ridge_spread: float | None = None,
    hidden: int = 0,
    n_atoms: int = 10,
    entropy: float = 0.1,
    folds: Folds | None = None,
    seed: int = 0,
    max_passes: int = 500,
) -> tuple[Distribution, DplReport]:
    """Fit one distribution of reward per item to all users together.

    Args:
        design: Rows and features; pairs, soft labels and ties at 0.5 accepted.
        family: "mean-variance", "mean-variance-surrogate" (the paper's link) or "categorical".
        ridge: Prior precision of the weights; None means what `fit_pooled` chooses, in the family's units, or for the
            categorical family the best of `LOGITS` times that.
        ridge_spread: That of the spread's weights, `math.inf` for an equal spread; None chooses among `SPREADS` times
            `ridge`. The categorical family has none.
        hidden: Units of a hidden layer (ReLU); 0 means outputs linear in the features.
        n_atoms: Of the categorical family.
        entropy: Of the categorical family (module docstring).
        folds: Of the choices; None means five folds of whole sources.
        seed: Of the hidden layer's start.
        max_passes: Stop a fit that does not converge; the report then says so.

    Raises:
        ConfigError: An unknown family, a number out of range, or decisions among more than two items.
    """
    likelihood = make_family(family, n_atoms)
    for name, value in (("ridge", ridge), ("ridge_spread", ridge_spread), ("hidden", hidden), ("entropy", entropy)):
        if value is not None and not value >= 0:
            raise ConfigError(f"{name} is {value}; it must be at least 0")
    check_pairs(design)
    candidates = _candidates(design, family, ridge, ridge_spread, folds)

    def fit(ridges: tuple[float, float], rows: Design) -> tuple[Distribution, int, bool]:
        return _fit(rows, family, likelihood, ridges, hidden, entropy, seed, max_passes)

    choice: dict[float, float] = {}
    best = candidates[0]
    if len(candidates) > 1:
        folds = folds or default_folds(design)
        position = 0 if family == "categorical" else 1
        for each in candidates:
            choice[each[position]] = _held_out(design, folds, partial(fit, each))
        best = max(candidates, key=lambda each: (choice[each[position]], each[position]))
    model, passes, converged = fit(best, design)
    used = torch.cat([design.chosen, design.rejected]).unique()
    outputs = model.outputs(design.features[used])
    return model, DplReport(
        ridge=best[0],
        ridge_spread=best[1],
        choice=choice,
        log_prob=float((design.weight * _log_prob(model, design)).sum()),
        explained=explained_by_items(likelihood.mean(outputs), likelihood.sd(outputs)),
        passes=passes,
        converged=converged,
    )


def _candidates(
    design: Design, family: str, ridge: float | None, ridge_spread: float | None, folds: Folds | None
) -> list[tuple[float, float]]:
    """Ridges of the weights and of the spread's to choose among."""
    base = fit_pooled(design, folds=folds)[1].ridge if ridge is None else ridge
    # Where the pooled model has no ridge, a thousandth of the decisions stands in as the scale of the others.
    scale = base or float(design.weight.sum()) * 1e-3
    if family == "categorical":
        if ridge_spread is not None:
            raise ConfigError("the categorical family has no ridge_spread; give ridge alone")
        return [(base, base)] if ridge is not None else [(scale * each,) * 2 for each in LOGITS]
    unit = 1.0 if ridge is not None else _PER_LOGIT[family] ** 2
    spreads = [scale * unit * each for each in SPREADS] if ridge_spread is None else [ridge_spread]
    return [(base * unit, each) for each in spreads]


def _held_out(design: Design, folds: Folds, fit: Callable[[Design], tuple[Distribution, int, bool]]) -> float:
    """Mean held-out log-probability per decision."""
    total = size = 0.0
    for fold in range(len(folds)):
        held = design.take(folds.held(fold))
        model = fit(design.take(folds.training(fold)))[0]
        total += float((held.weight * _log_prob(model, held)).sum())
        size += float(held.weight.sum())
    return total / size


def _log_prob(model: Distribution, design: Design) -> Float[Tensor, " decisions"]:
    outputs = model.outputs(design.features)
    outcome = design.decisions.outcome.to(outputs.dtype)
    return model.likelihood.log_prob(outputs[design.chosen], outputs[design.rejected], outcome)


def _fit(
    design: Design,
    family: str,
    likelihood: RewardDistribution,
    ridges: tuple[float, float],
    hidden: int,
    entropy: float,
    seed: int,
    max_passes: int,
) -> tuple[Distribution, int, bool]:
    """Maximise (module docstring) by L-BFGS over one vector of all parameters."""
    items, place = torch.cat([design.chosen, design.rejected]).unique(return_inverse=True)
    chosen, rejected = place.split(design.n_rows)
    features, count = design.features[items].double(), torch.bincount(place).double()
    weight, outcome = design.weight.double(), design.decisions.outcome.double()
    total = float(weight.sum())
    outputs, width = likelihood.n_outputs, hidden or design.dim
    normal = family != "categorical"

    shapes = [(outputs, width), (outputs,), (hidden, design.dim), (hidden,)]
    sizes = [math.prod(shape) for shape in shapes]
    precision = [torch.full((outputs, width), ridges[0], dtype=torch.float64), torch.zeros(outputs).double()]
    precision += [torch.full((hidden, design.dim), ridges[0], dtype=torch.float64), torch.zeros(hidden).double()]
    free = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
    start = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    if normal:
        precision[0][1], free[1] = ridges[1], torch.zeros(outputs).double()
        start[1][1] = _EVEN
        if math.isinf(ridges[1]):
            precision[0][1], free[0][1] = 0.0, 0.0
    if hidden:
        g = torch.Generator().manual_seed(seed)
        start[2] = torch.randn(hidden, design.dim, generator=g, dtype=torch.float64) * math.sqrt(2 / design.dim)
        start[3] = torch.randn(hidden, generator=g, dtype=torch.float64)
        start[0] = free[0] * torch.randn(outputs, width, generator=g, dtype=torch.float64) * 0.01
    penalty, moves, initial = (torch.cat([each.flatten() for each in parts]) for parts in (precision, free, start))
    penalty, moves = penalty.to(features.device), moves.to(features.device)

    def parts(vector: Tensor) -> list[Tensor]:
        return [part.reshape(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.from_numpy(values).to(features.device).requires_grad_()
        top, bias, first, first_bias = parts(vector)
        seen = relu(linear(features, first, first_bias)) if hidden else features
        said = linear(seen, top, bias)
        one, other = said.index_select(0, chosen), said.index_select(0, rejected)
        value = -(weight * likelihood.log_prob(one, other, outcome)).sum() / total
        value = value + (penalty * vector.square()).sum() / (2 * total)
        if isinstance(likelihood, Categorical) and entropy:
            value = value - entropy * likelihood.entropy_of_mean(said, count)
        value.backward()
        assert vector.grad is not None
        return float(value.detach()), (vector.grad * moves).cpu().numpy()

    # A pass is one value and gradient; ftol is relative to a value of about log 2.
    found = minimize(
        loss,
        initial.numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxfun": max_passes, "maxiter": max_passes, "ftol": 1e-9, "gtol": 1e-6, "maxcor": 20},
    )
    top, bias, first, first_bias = (
        part.to(design.features.dtype) for part in parts(torch.from_numpy(found.x).to(features.device))
    )
    model = Distribution(
        weight=top, bias=bias, hidden=first, hidden_bias=first_bias, family=family, n_users=design.n_users
    )
    return model, int(found.nfev), bool(found.success)
