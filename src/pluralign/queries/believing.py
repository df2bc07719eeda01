"""A fitted rung's posterior, as a query wants it: `believe`.

Another rung needs no change here: give its model a method `margin_draws` (`Draws`), or register a function.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.queries.beliefs import N_NODES, Belief, Gaussian, Particles, only
from pluralign.users import Basis, Clusters, Individual, Latent, Pooled, Reliability, UserModel
from pluralign.users.latent import decode, embed

N_DRAWS = 64


@runtime_checkable
class Draws(Protocol):
    """A posterior of which there are draws."""

    def margin_draws(
        self, design: Design, user: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows draws"], Float[Tensor, "rows draws"]]:
        """Margins of every row under draws of its user, the same draws for all rows of a user, and their weights."""


@singledispatch
def believe(model: UserModel, design: Design, user: Int[Tensor, " rows"]) -> Belief:
    """What a model believes of the margins of pairs.

    Args:
        model: A fitted rung. Kinds of your own: a method `margin_draws` (`Draws`), or `believe.register`.
        design: The pairs; outcomes are not looked at.
        user: Whose, `UNKNOWN` for nobody's, (rows,).

    Raises:
        ConfigError: The model has no posterior.
    """
    if isinstance(model, Draws):
        margin, weight = model.margin_draws(design, user)
        return Particles.of(margin, weight)
    raise ConfigError(
        f"there is nothing to ask: a {getattr(model, 'kind', type(model).__name__)} model has no posterior of a user",
        hint="fit a rung that tells users apart: cluster, basis, individual, reliability or latent",
    )


@believe.register
def _(model: Pooled, design: Design, user: Int[Tensor, " rows"]) -> Belief:
    raise ConfigError(
        "there is nothing to ask: a pooled model is the same for everybody, whatever they answer",
        hint="fit a rung that tells users apart: cluster, basis, individual, reliability or latent",
    )


@believe.register
def _(model: Clusters, design: Design, user: Int[Tensor, " rows"]) -> Belief:
    # UNKNOWN is -1, which indexes the row appended last.
    weight = torch.cat([model.membership, model.shares[None]])[user]
    return Particles.of(design.margins(model.theta), weight)


@believe.register
def _(model: Reliability, design: Design, user: Int[Tensor, " rows"]) -> Belief:
    # A pair is put in either order, so the bias to what is shown first is left out.
    mean = torch.cat([model.log_scale, model.log_scale.new_zeros(1)])[user].double()
    sd = torch.cat([model.log_scale_sd, model.log_scale_sd.new_full((1,), model.spread)])[user].double()
    node, weight = (torch.from_numpy(each).to(mean) for each in np.polynomial.hermite_e.hermegauss(N_NODES))
    scale = torch.exp(mean[:, None] + sd[:, None] * node)
    return Particles.of(design.margins(model.theta[None]) * scale, weight.expand_as(scale), lapse=model.lapse)


@believe.register
def _(model: Basis, design: Design, user: Int[Tensor, " rows"]) -> Belief:
    prior = torch.eye(model.rank).to(model.mean)
    mean = torch.cat([model.mean, model.mean.new_zeros((1, model.rank))])
    both = design.margins(torch.cat([model.theta[:, None], model.basis], dim=1).T)
    x = both[:, 1:]
    return Gaussian.of(
        both[:, 0] + _own(x, mean, user), x, torch.cat([model.covariance, prior[None]]), _place(user, model)
    )


@believe.register
def _(model: Individual, design: Design, user: Int[Tensor, " rows"]) -> Belief:
    variance = model.scale**2
    prior = variance if model.covariance.ndim == 2 else variance.diag()
    offset = torch.cat([model.offset, model.offset.new_zeros((1, model.dim))])
    x = _differences(design) if _straight(model.axes) else design.margins(model.axes)
    # In coordinates along the axes; the common part too.
    mean = _own(x, (model.theta + offset) @ model.axes.T, user)
    return Gaussian.of(mean, x, torch.cat([model.covariance, prior[None]]), _place(user, model))


@believe.register
def _(model: Latent, design: Design, user: Int[Tensor, " rows"]) -> Belief:
    z, log_weight = model.draw(N_DRAWS)
    targets = embed(model.decoder, model.form, model.items(design.features), design.chosen, design.rejected)
    hidden = model.decoder.get("hidden")
    step = max(1, 2**22 // (z.shape[1] * (1 if hidden is None else 5 * hidden.shape[0])))
    blocks = [slice(at, at + step) for at in range(0, len(user), step)]
    margin = [decode(model.decoder, model.form, targets.take(rows), z, user[rows]) for rows in blocks]
    whole = torch.cat(margin) if margin else z.new_zeros((0, z.shape[1]))
    return Particles.of(whole, log_weight[user].exp())


def _own(
    x: Float[Tensor, "rows rank"], vector: Float[Tensor, "users rank"], user: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """x times the vector of each row's user."""
    one = only(user)
    return (x * vector[user]).sum(1) if one is None else x @ vector[one]


def _differences(design: Design) -> Float[Tensor, "rows dim"]:
    return design.differences(torch.arange(design.n_rows, device=design.features.device))


def _straight(axes: Float[Tensor, "dim dim"]) -> bool:
    """Whether features are along the axes as they are, so that there is nothing to turn."""
    return torch.equal(axes, torch.eye(len(axes)).to(axes))


def _place(user: Int[Tensor, " rows"], model: UserModel) -> Int[Tensor, " rows"]:
    """`UNKNOWN` as the place of the prior, which stands last."""
    return torch.where(user < 0, model.n_users, user)
