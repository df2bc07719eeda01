"""Fit a reward together with the tie parameter of `Davidson` or `RaoKupper`, by maximum likelihood.

The reward is fitted for a given parameter and the parameter for given margins, by turns. Davidson's log-likelihood is
jointly concave in theta and log nu, and Rao and Kupper's in theta and the threshold, so the turns end at the optimum.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Davidson, RaoKupper


@dataclass(frozen=True, eq=False, kw_only=True)
class TiesFit:
    """A reward and how ties come about.

    Attributes:
        theta: (dim,).
        likelihood: With its parameter fitted.
        log_prob: Weighted log-likelihood without the ridge term, in nats.
        converged: Whether the parameter stood still.
    """

    theta: Float[Tensor, " dim"]
    likelihood: Davidson | RaoKupper
    log_prob: float
    converged: bool


def fit_ties(
    design: Design,
    *,
    kind: type[Davidson] | type[RaoKupper] = Davidson,
    ridge: float = 0.0,
    max_rounds: int = 100,
    tolerance: float = 1e-7,
) -> TiesFit:
    """Maximise over theta and the tie parameter.

    Args:
        design: Pairs, ties at an outcome of 0.5.
        kind: Which model of ties.
        ridge: Prior precision of theta.
        max_rounds: Most turns.
        tolerance: Of the logarithm of the parameter.

    Raises:
        ConfigError: No decision is a tie, or all are, or some are among more than two items.
    """
    tied = design.decisions.outcome == 0.5
    if not bool(tied.any()) or bool(tied.all()):
        raise ConfigError(
            f"{int(tied.sum())} of {design.n_decisions} outcomes are ties; some must be, and not all",
            hint="use the likelihood Logit, or record ties with outcome 0.5",
        )
    log_parameter, theta = 0.0, None
    for _ in range(max_rounds):
        fit = fit_heads(
            design, ridge=design.features.new_tensor([ridge]), start=theta, likelihood=kind(math.exp(log_parameter))
        )
        theta = fit.theta
        margin = design.margins(theta)

        def loss(at: float, margin: Tensor = margin) -> float:
            log_prob = kind(math.exp(at)).log_prob(margin, design.decisions)[:, 0]
            return -float((log_prob * design.weight).sum())

        before = log_parameter
        found = minimize_scalar(loss, bounds=(-12.0, 12.0), method="bounded", options={"xatol": tolerance / 10})
        log_parameter = float(found.x)
        if abs(log_parameter - before) < tolerance:
            break
    return TiesFit(
        theta=fit.theta[0],
        likelihood=kind(math.exp(log_parameter)),
        log_prob=-float(found.fun),
        converged=abs(log_parameter - before) < tolerance,
    )
