"""Losses of a comparison as functions of its margin.

A margin is a reward model's r(x, y1, u) - r(x, y2, u), or beta times a policy's log-ratio against its reference, the
first response's minus the second's (the implicit reward of DPO, arXiv 2305.18290, Eq. 7). Every loss L of a choice of
the first response extends to an outcome p between 0 and 1 (a tie is 0.5) as p L(m) + (1 - p) L(-m): the expectation
over a choice with that probability.

Losses, with h the log-ratio, m = beta h, and e the label smoothing:
    sigmoid: -log sigmoid(m), Bradley-Terry; smoothing is an outcome of 1 - e.
    robust: [(1 - e) L(m) - e L(-m)] / (1 - 2 e), unbiased where choices are flipped with probability e
        (arXiv 2403.00409).
    hinge: max(0, 1 - m) (SLiC, arXiv 2305.10425).
    ipo: (h - 1 / (2 beta))^2 with h per token of each response, as its authors have it (arXiv 2310.12036, Eq. 17).
    sigmoid_norm: sigmoid with h per token of each response.
    exo_pair: KL from softmax over the pair to (1 - e, e) (arXiv 2402.00856, Eq. 16).
    discopop: logistic and exponential loss, blended by sigmoid(m / 0.05) (arXiv 2406.08414, Eq. 5).
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from pluralign.errors import ConfigError

Loss: TypeAlias = Literal["sigmoid", "robust", "hinge", "ipo", "sigmoid_norm", "exo_pair", "discopop"]
LOSSES: tuple[str, ...] = get_args(Loss)
PER_TOKEN = ("ipo", "sigmoid_norm")  # of which the log-ratio is each response's, divided by its number of tokens
DISCOPOP_TAU = 0.05


def check_loss(loss: str, *, beta: float, smoothing: float) -> None:
    """Check the settings of a loss.

    Raises:
        ConfigError: There is no such loss, or a setting is out of its range.
    """
    if loss not in LOSSES:
        raise ConfigError(f'unknown loss "{loss}"; known: {", ".join(LOSSES)}')
    if not beta > 0:
        raise ConfigError(f"beta is {beta}; it must be above 0")
    if not 0 <= smoothing < 0.5:
        raise ConfigError(f"smoothing is {smoothing}; it must be at least 0 and below 0.5")
    if loss == "exo_pair" and not smoothing:
        raise ConfigError("smoothing is 0; exo_pair needs it above 0, because it takes its logarithm")
    if smoothing and loss not in ("sigmoid", "sigmoid_norm", "robust", "exo_pair"):
        raise ConfigError(f"smoothing is {smoothing}; {loss} has none")


def preference_loss(
    ratio: Float[Tensor, " terms"],
    outcome: Float[Tensor, " terms"],
    *,
    loss: str = "sigmoid",
    beta: float = 1.0,
    smoothing: float = 0.0,
) -> Float[Tensor, " terms"]:
    """Loss of every term.

    Args:
        ratio: The margin over beta, (terms,).
        outcome: Probability that the first response is preferred, (terms,).
        loss: Name of the loss.
        beta: Strength of the reference's pull; 1 for a reward model.
        smoothing: Probability that a choice is the opposite of what was meant.
    """
    margin = beta * ratio
    if loss in ("sigmoid", "sigmoid_norm"):
        p = outcome * (1 - smoothing) + (1 - outcome) * smoothing
        return -(p * logsigmoid(margin) + (1 - p) * logsigmoid(-margin))
    if loss == "robust":
        p = (outcome * (1 - smoothing) - (1 - outcome) * smoothing) / (1 - 2 * smoothing)
        q = ((1 - outcome) * (1 - smoothing) - outcome * smoothing) / (1 - 2 * smoothing)
        return -(p * logsigmoid(margin) + q * logsigmoid(-margin))
    one = {"hinge": _hinge, "ipo": _ipo, "exo_pair": _exo_pair, "discopop": _discopop}[loss]
    return outcome * one(ratio, beta, smoothing) + (1 - outcome) * one(-ratio, beta, smoothing)


def _hinge(ratio: Tensor, beta: float, _: float) -> Tensor:
    return torch.relu(1 - beta * ratio)


def _ipo(ratio: Tensor, beta: float, _: float) -> Tensor:
    return (ratio - 1 / (2 * beta)) ** 2


def _exo_pair(ratio: Tensor, beta: float, smoothing: float) -> Tensor:
    first, second = logsigmoid(beta * ratio), logsigmoid(-beta * ratio)
    wanted = torch.tensor([1 - smoothing, smoothing], dtype=ratio.dtype, device=ratio.device).log()
    return first.exp() * (first - wanted[0]) + second.exp() * (second - wanted[1])


def _discopop(ratio: Tensor, beta: float, _: float) -> Tensor:
    margin = beta * ratio
    blend = torch.sigmoid(margin / DISCOPOP_TAU)
    return -logsigmoid(margin) * (1 - blend) + torch.exp(-margin) * blend
