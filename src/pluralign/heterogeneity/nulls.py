"""Answers as they would be if there were nothing: drawn from a fitted model, or given by somebody else.

Both yield columns of answers to the same questions (`Answers`), some at a time, so that what follows are matrix
products over many draws at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pluralign.heterogeneity.answers import Answers

_NUMBERS, _LEAST = 2**21, 64  # numbers in a batch of columns, and columns: few enough to stay near the processor
_REACH, _N_NODES = 3.0, 61  # log s from -3 to 3: hardly told from guessing, and from certainty
_SPREADS = (0.05, 0.1, *(0.15 * 1.15**step for step in range(19)))  # the last is 1.86
_CENTERS = tuple(0.1 * step for step in range(-5, 11))


@dataclass(frozen=True, eq=False, kw_only=True)
class Scales:
    """How closely every user follows the pooled reward: log s_u has this posterior.

    Attributes:
        mean: Posterior mean, (users,).
        sd: Posterior standard deviation, (users,).
        spread: Standard deviation of log s_u over users, 0 where all are alike.
    """

    mean: Float[Tensor, " users"]
    sd: Float[Tensor, " users"]
    spread: float


def fit_scales(answers: Answers, margin: Float[Tensor, " rows"]) -> Scales:
    """Estimate log s_u ~ N(center, spread^2) at given margins by marginal likelihood on a grid, and every posterior.

    It is `inference.reliability` in small: the margins stay as they are, there is no lapse and no position bias.
    """
    node = torch.linspace(-_REACH, _REACH, _N_NODES, dtype=torch.float64, device=margin.device)
    table = torch.cat([answers.log_prob(margin[:, None] * float(each.exp())) for each in node], 1).double()
    spread, center = torch.tensor(_SPREADS, dtype=torch.float64), torch.tensor(_CENTERS, dtype=torch.float64)
    pairs = torch.cartesian_prod(spread, center).to(node.device)
    prior = torch.log_softmax(-(((node - pairs[:, 1:]) / pairs[:, :1]) ** 2) / 2, 1)
    top = table.amax(1, keepdim=True)
    value = ((table - top).exp() @ prior.exp().T).log().sum(0) + top.sum()
    # Everybody alike, at whatever scale: every decision then has one node.
    if float(value.max()) <= float(table.sum(0).max()) + 1e-6:
        zero = torch.zeros_like(margin[: answers.n_users])
        return Scales(mean=zero, sd=zero, spread=0.0)
    best = int(value.argmax())
    share = torch.softmax(table + prior[best], 1)
    mean = share @ node
    sd = (share @ node**2 - mean**2).clamp(min=0).sqrt()
    return Scales(mean=mean.to(margin.dtype), sd=sd.to(margin.dtype), spread=float(pairs[best, 0]))


def drawn(
    answers: Answers,
    margin: Float[Tensor, " rows"],
    scales: Scales | None,
    n_draws: int,
    generator: torch.Generator,
) -> Iterator[Float[Tensor, "rows columns"]]:
    """Answers drawn from the logit of the margins, each user's scale from its posterior (1 for everybody if None)."""
    for width in _widths(len(margin), n_draws):
        yield answers.draw(_scaled(answers, margin, scales, width, generator), width, generator)


def dealt(
    answers: Answers,
    margin: Float[Tensor, " rows"],
    scales: Scales,
    n_permuted: int,
    generator: torch.Generator,
) -> Iterator[Float[Tensor, "rows columns"]]:
    """Answers permuted among those who answered one question, as each would have given them.

    Between users of different reliability answers are not exchangeable, but what stands behind them is: a number u,
    uniform in [0, 1) under the null, drawn from the part of it that stands for the answer given. The receiver's answer
    is what u stands for at the receiver's own probabilities. Where all scales are equal it is the giver's answer.
    """
    index = answers.decisions.index
    for rows in permuted(answers, n_permuted, generator):
        width = rows.shape[1]
        p = answers.probability(_scaled(answers, margin, scales, width, generator)).expand(-1, width)
        given = answers.place(p, generator).gather(0, index[rows[answers.first_row]])
        yield answers.answer(p, given)


def _scaled(
    answers: Answers, margin: Float[Tensor, " rows"], scales: Scales | None, columns: int, generator: torch.Generator
) -> Float[Tensor, "rows any"]:
    """Margins times a draw of every user's scale, a column for each draw; one column where all users are alike."""
    if scales is None or scales.spread == 0:
        return margin[:, None]
    noise = torch.randn((answers.n_users, columns), generator=generator, dtype=margin.dtype, device=margin.device)
    scale = torch.exp(scales.mean[:, None] + scales.sd[:, None] * noise)
    return margin[:, None] * scale[answers.user]


def shared_decisions(answers: Answers) -> Bool[Tensor, " decisions"]:
    """Decisions whose question somebody else answered too."""
    first = answers.first_row
    user, inverse = answers.user[first], answers.set_number
    n_sets = int(inverse.max()) + 1
    low = torch.full((n_sets,), answers.n_users, device=user.device).scatter_reduce(0, inverse, user, "amin")
    high = torch.full((n_sets,), -1, device=user.device).scatter_reduce(0, inverse, user, "amax")
    return (low < high)[inverse]


def permuted(answers: Answers, n_permuted: int, generator: torch.Generator) -> Iterator[Int[Tensor, "rows columns"]]:
    """Rows whose answers every row gets: decisions on one question are dealt out anew among those who made them.

    The decisions on a question stand in a random order and are turned round by a random number of places. Such
    rotations, one for every question, are a group, so that a test by them is exact where answers to one question are
    exchangeable.
    """
    number, first = answers.set_number, answers.first_row
    size = torch.bincount(number)
    start = (size.cumsum(0) - size)[number][:, None]
    index = answers.decisions.index
    offset = torch.arange(len(index), device=index.device) - first[index]
    for width in _widths(len(index), n_permuted):
        order = torch.rand(len(number), generator=generator, device=number.device).argsort()
        order = order[number[order].argsort(stable=True)]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        turn = torch.rand((len(size), width), generator=generator, dtype=torch.float64, device=size.device)
        shift = (turn * size[:, None]).long()[number]
        giver = order[start + (place[:, None] - start + shift) % size[number][:, None]]
        yield first[giver][index] + offset[:, None]


def _widths(n_rows: int, n_columns: int) -> Iterator[int]:
    step = max(_LEAST, _NUMBERS // max(1, n_rows))
    for start in range(0, n_columns, step):
        yield min(step, n_columns - start)
