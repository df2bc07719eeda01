"""What is believed of the margins of candidate pairs: all that a query needs to know of a user's posterior.

A row is a pair of responses put to one user, and its margin is uncertain because the user is. Two forms serve every
rung: `Gaussian`, margins that are linear in a Gaussian vector (`basis`, `individual`), and `Particles`, finitely many
users it could be, each with a weight (`cluster`: exactly; `reliability`: nodes of a quadrature; `latent`: draws of z).

Rows may be of different users, each with a posterior of its own; what relates one row to another (`after`) is meant for
rows of one user. Everything is in float64, and entropies are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

N_NODES = 32
_MAX_HISTORIES = 256
_BLOCK_FLOATS = 2**18  # numbers that are worked on together: a few MiB, which stay in cache


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Gaussian:
    """Margins mean + x . w with w ~ N(0, C), each row with its user's C.

    One margin is one normal variable, so an expectation over it is an integral in one dimension, by Gauss-Hermite
    quadrature: there is no Monte Carlo noise.

    Attributes:
        mean: Mean margin, (rows,).
        coordinate: L' x with C = L L', so that a margin's variance is its squared length, (rows, rank).
        factor: L of every user whole, (users, rank, rank), or its diagonal, (users, rank).
        user: Which of them, (rows,).
        explained: What answers to come will explain, one column for each row asked, (rows, asked): a covariance is the
            product of coordinates less the product of these.
    """

    mean: Float[Tensor, " rows"]
    coordinate: Float[Tensor, "rows rank"]
    factor: Float[Tensor, "users rank ..."]
    user: Int[Tensor, " rows"]
    explained: Float[Tensor, "rows asked"]

    @classmethod
    def of(
        cls,
        mean: Float[Tensor, " rows"],
        x: Float[Tensor, "rows rank"],
        covariance: Float[Tensor, "users rank ..."],
        user: Int[Tensor, " rows"],
    ) -> Gaussian:
        """From the vectors x and the users' covariances, whole or diagonal."""
        whole, one = covariance.ndim == 3, only(user)
        factor = _root(covariance) if whole else covariance.clamp(min=0).sqrt()
        if whole:
            coordinate = _each(x, factor, user) if one is None else x @ factor[one]
        else:
            coordinate = x * factor[user if one is None else one]
        return cls(
            mean=mean.double(),
            coordinate=coordinate,
            factor=factor,
            user=user,
            explained=x.new_zeros((len(x), 0), dtype=torch.float64),
        )

    def at_mean(self) -> Float[Tensor, " rows"]:
        """Probability that the first is preferred by the user whom the posterior mean describes."""
        return torch.sigmoid(self.mean)

    def predictive(self) -> Float[Tensor, " rows"]:
        """Probability that the first is preferred, over the whole posterior."""
        return self._quadrature[0]

    def variance(self) -> Float[Tensor, " rows"]:
        """Variance of the margin."""
        return self._variance

    def fisher(self) -> Float[Tensor, " rows"]:
        """Expected Fisher information of the answer about the margin: E p (1 - p) where nobody lapses."""
        return self._quadrature[1]

    def information_gain(self) -> Float[Tensor, " rows"]:
        """Mutual information of the answer and the user, in nats: H[E p] - E H[p]."""
        first, _, noise = self._quadrature
        return (_entropy(first) - noise).clamp(min=0)

    def after(self, row: int) -> Gaussian:
        """Margins keep their means; the precision grows by the row's expected Fisher information, a rank-one update."""
        information = self.fisher()[row]
        along = self.covariance(row) * (information / (1 + information * self.variance()[row])).sqrt()
        return replace(self, explained=torch.cat([self.explained, along[:, None]], dim=1))

    def covariance(self, row: int) -> Float[Tensor, " rows"]:
        """Covariance of every row's margin with one row's, all being one user's."""
        whole = (self.coordinate @ self.coordinate[row]).double()
        return whole - self.explained @ self.explained[row]

    @cached_property
    def _variance(self) -> Float[Tensor, " rows"]:
        whole = self.coordinate.square().sum(1).double()
        return (whole - self.explained.square().sum(1)).clamp(min=0)

    @cached_property
    def _quadrature(self) -> tuple[Tensor, Tensor, Tensor]:
        """E p, E p (1 - p) and E H[p] of every row."""
        node, weight = (torch.from_numpy(each).to(self.mean) for each in _hermite())
        found = []
        rows = (each.split(_BLOCK_FLOATS // N_NODES) for each in (self.mean, self._variance.sqrt()))
        for mean, sd in zip(*rows, strict=True):
            margin = torch.addcmul(mean[:, None], sd[:, None], node)
            below = torch.exp(-margin.abs())
            lesser = below / (1 + below)  # the probability of the less likely answer
            noise = torch.addcmul(torch.log1p(below), lesser, margin.abs())
            first = torch.where(margin > 0, 1 - lesser, lesser)
            found.append(torch.stack([first @ weight, (lesser * (1 - lesser)) @ weight, noise @ weight]))
        whole = torch.cat(found, dim=1) if found else self.mean.new_zeros((3, 0))
        return whole[0], whole[1], whole[2]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Particles:
    """Finitely many users it could be; sums over them are exact for clusters.

    Attributes:
        margin: Margin under each of them, (rows, particles).
        weight: Their probabilities, row by row, (rows, particles).
        lapse: Probability of an answer at random.
        history: Probability under each particle of every way in which the rows asked may be answered,
            (histories, particles).
    """

    margin: Float[Tensor, "rows particles"]
    weight: Float[Tensor, "rows particles"]
    lapse: float
    history: Float[Tensor, "histories particles"]

    @classmethod
    def of(
        cls, margin: Float[Tensor, "rows particles"], weight: Float[Tensor, "rows particles"], *, lapse: float = 0.0
    ) -> Particles:
        """Of users of whom nothing more has been asked."""
        weight = weight.double()
        return cls(
            margin=margin.double(),
            weight=weight / weight.sum(1, keepdim=True),
            lapse=lapse,
            history=weight.new_ones((1, weight.shape[1])),
        )

    def at_mean(self) -> Float[Tensor, " rows"]:
        """As of `Gaussian`."""
        return self.answer((self.margin * self.weight).sum(1))

    def predictive(self) -> Float[Tensor, " rows"]:
        """As of `Gaussian`."""
        return (self.first * self.weight).sum(1)

    def variance(self) -> Float[Tensor, " rows"]:
        """Where rows have been asked, the variance that their answers will leave, on average."""
        away = self.margin - (self.margin * self.weight).sum(1, keepdim=True)
        total, mean = self._under_histories(away)
        return ((away**2 * self.weight).sum(1) - (total * mean**2).sum(1)).clamp(min=0)

    def fisher(self) -> Float[Tensor, " rows"]:
        """As of `Gaussian`; an answer at random tells nothing."""
        awake = torch.sigmoid(self.margin)
        slope = (1 - self.lapse) * awake * (1 - awake)
        spread = (self.first * (1 - self.first)).clamp(min=torch.finfo(torch.float64).tiny)
        return (slope**2 / spread * self.weight).sum(1)

    def information_gain(self) -> Float[Tensor, " rows"]:
        """As of `Gaussian`; where rows have been asked, given their answers."""
        # Given the particle, answers are independent: what was answered before changes H[E p] alone.
        total, first = self._under_histories(self.first)
        return ((total * _entropy(first)).sum(1) - (_entropy(self.first) * self.weight).sum(1)).clamp(min=0)

    def after(self, row: int) -> Particles:
        """Every way of answering so far, and this row either way: exact up to 8 rows, then the likeliest 256 ways."""
        first = self.first[row]
        history = torch.cat([self.history * first, self.history * (1 - first)])
        if len(history) > _MAX_HISTORIES:
            kept = (history @ self.weight[row]).argsort(descending=True, stable=True)[:_MAX_HISTORIES]
            history = history[kept]
        return replace(self, history=history)

    def answer(self, margin: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Probability of preferring the first at a margin."""
        return (1 - self.lapse) * torch.sigmoid(margin) + self.lapse / 2

    @cached_property
    def first(self) -> Float[Tensor, "rows particles"]:
        """Probability that the first is preferred, under each particle."""
        return self.answer(self.margin)

    def _under_histories(
        self, value: Tensor
    ) -> tuple[Float[Tensor, "rows histories"], Float[Tensor, "rows histories"]]:
        """Probability of every history, and the mean of a value of each particle given it."""
        total = self.weight @ self.history.T
        mean = ((self.weight * value) @ self.history.T) / total.clamp(min=torch.finfo(torch.float64).tiny)
        # Histories that were dropped leave less than 1.
        return total / total.sum(1, keepdim=True), mean


Belief: TypeAlias = Gaussian | Particles


def _entropy(p: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Entropy of a yes or no of probability p, in nats."""
    return torch.special.entr(p) + torch.special.entr(1 - p)


def only(user: Int[Tensor, " rows"]) -> int | None:
    """The user of all rows, where it is one: rows that share a vector are one product."""
    return int(user[0]) if len(user) and bool((user == user[0]).all()) else None


def _each(
    x: Float[Tensor, "rows rank"], factor: Float[Tensor, "users rank rank"], user: Int[Tensor, " rows"]
) -> Float[Tensor, "rows rank"]:
    """x @ L of each row's user, in blocks."""
    step = max(1, 16 * _BLOCK_FLOATS // max(1, x.shape[1] ** 2))
    parts = [(rows[:, None] @ factor[who])[:, 0] for rows, who in zip(x.split(step), user.split(step), strict=True)]
    return torch.cat(parts) if parts else x


def _root(covariance: Float[Tensor, "users rank rank"]) -> Float[Tensor, "users rank rank"]:
    """L with L L' = C, where C may be singular."""
    value, axis = torch.linalg.eigh(covariance.double())
    root: Tensor = axis * value.clamp(min=0).sqrt()[:, None]
    return root.to(covariance)


def _hermite() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights whose weighted sum is an expectation under N(0, 1)."""
    node, weight = np.polynomial.hermite_e.hermegauss(N_NODES)
    return node, weight / weight.sum()
