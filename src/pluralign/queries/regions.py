"""Where among its users a model puts one of them, in words and with a probability."""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from pluralign.users import Basis, Clusters, Individual, Latent, Reliability, UserModel

N_DIRECTIONS = 3


class Region(NamedTuple):
    """A part of the population, and how probable it is that the user is there."""

    name: str
    probability: float


@singledispatch
def regions(model: UserModel, user: int = 0) -> list[Region]:
    """Where a user stands: clusters, the likeliest first; or the sides of a few directions, the strongest first.

    A model of which no more is known than that it has users names none.
    """
    return []


@regions.register
def _(model: Clusters, user: int = 0) -> list[Region]:
    member = model.membership[user].double()
    order = member.argsort(descending=True, stable=True).tolist()
    return [Region(f"cluster {k + 1}", float(member[k])) for k in order]


@regions.register
def _(model: Reliability, user: int = 0) -> list[Region]:
    higher = _above(model.log_scale[user : user + 1], model.log_scale_sd[user : user + 1])[0]
    return [_side("reliability", higher)]


@regions.register
def _(model: Basis, user: int = 0) -> list[Region]:
    sd = model.covariance[user].diagonal().clamp(min=0).sqrt()
    above = _above(model.mean[user], sd)[:N_DIRECTIONS]
    return [_side(f"direction {j + 1}", p) for j, p in enumerate(above)]


@regions.register
def _(model: Individual, user: int = 0) -> list[Region]:
    # Axes have no order of their own: those along which most is known of this user.
    covariance = model.covariance[user]
    sd = (covariance if covariance.ndim == 1 else covariance.diagonal()).clamp(min=0).sqrt()
    above = _above(model.axes @ model.offset[user], sd)
    order = sorted(range(len(above)), key=lambda j: -abs(above[j] - 0.5))[:N_DIRECTIONS]
    return [_side(f"axis {j + 1}", above[j]) for j in order]


@regions.register
def _(model: Latent, user: int = 0) -> list[Region]:
    weight, mean = model.log_weight[user].exp().double(), model.mean[user].double()
    if len(weight) > 1:
        order = weight.argsort(descending=True, stable=True).tolist()
        return [Region(f"component {k + 1}", float(weight[k])) for k in order]
    above = _above(mean[0] - model.prior_mean[0], (model.log_variance[user, 0] / 2).exp())
    order = sorted(range(len(above)), key=lambda j: -abs(above[j] - 0.5))[:N_DIRECTIONS]
    return [_side(f"coordinate {j + 1}", above[j]) for j in order]


def _above(mean: Tensor, sd: Tensor) -> list[float]:
    """P(N(mean, sd^2) > 0), of each; one half where nothing varies."""
    mean, sd = mean.double(), sd.double()
    ratio = torch.where(sd > 0, mean / sd.clamp(min=1e-300), mean.sign() * torch.inf)
    found: list[float] = torch.where((sd == 0) & (mean == 0), 0.5, torch.special.ndtr(ratio)).tolist()
    return found


def _side(name: str, above: float) -> Region:
    return Region(f"{name}: above average", above) if above >= 0.5 else Region(f"{name}: below average", 1 - above)
