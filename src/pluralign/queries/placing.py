"""Where a user stands after some answers, whether or not the model has met the user before.

A stranger is placed by `adapt`, from the prior. Somebody whom the model knows begins where it has them: their own
posterior is the prior of what they answer now, and the answers that the model was fitted to are not needed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import torch

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.gaussian_blocks import one_thread
from pluralign.inference.gaussian_evidence import posterior
from pluralign.inference.reliability import place_reliability
from pluralign.likelihoods import Logit
from pluralign.queries.reweighing import reweighed
from pluralign.users import UNKNOWN, Basis, Clusters, Individual, Latent, Pooled, Reliability, UserModel
from pluralign.users.latent import Gaussians


def place(model: UserModel, user: int, answers: Design) -> UserModel:
    """The model of this one user, as number 0, who gave these answers.

    Clusters are placed by their probabilities even where the fit assigned users outright: after one answer the most
    likely cluster is seldom certain.

    Args:
        model: A fitted rung.
        user: The user's number in it, or `UNKNOWN`.
        answers: What the user answered since, as decisions of user 0; there may be none.

    Raises:
        ConfigError: The model cannot go on from a user it knows.
    """
    if isinstance(model, Clusters):
        model = replace(model, soft=True)
    answers = _on_their_items(answers)
    return adapt(model, answers) if user == UNKNOWN else update(model, user, answers)


@singledispatch
def update(model: UserModel, user: int, answers: Design) -> UserModel:
    """The model of one user that it knows, who has given more answers.

    Raises:
        ConfigError: No way is known to do so in a model of this class.
    """
    raise ConfigError(
        f"a {model.kind} model cannot go on from a user it knows",
        hint="ask under a new name, and give all of this user's comparisons as answers",
    )


@update.register
def _(model: Pooled, user: int, answers: Design) -> Pooled:
    return replace(model, n_users=1)


@update.register
def _(model: Clusters, user: int, answers: Design) -> Clusters:
    own = replace(model, shares=model.membership[user])
    return replace(model, membership=adapt(own, answers).membership)  # type: ignore[attr-defined]


@update.register
def _(model: Reliability, user: int, answers: Design) -> Reliability:
    middle, spread = model.log_scale[user], float(model.log_scale_sd[user])
    own = place_reliability(replace(model, theta=model.theta * middle.exp(), spread=spread), answers)
    return replace(model, log_scale=own.log_scale + middle, log_scale_sd=own.log_scale_sd)


@update.register
@one_thread()
def _(model: Latent, user: int, answers: Design) -> Latent:
    # The encoder reads all of a user's comparisons at once, and the first ones are not kept: the posterior they left is
    # weighed by how well the decoder explains the new answers.
    own = Gaussians(*(each[user : user + 1] for each in model.posterior))
    return model.with_posterior(reweighed(model, own, answers) if answers.n_decisions else own)


@update.register
@one_thread()
def _(model: Basis, user: int, answers: Design) -> Basis:
    mean, root = model.mean[user], _root(model.covariance[user])
    found = posterior(answers, model.theta + model.basis @ mean, model.basis @ root, Logit())
    return replace(
        model,
        mean=mean + found.mean.to(root) @ root.T,
        covariance=root @ found.covariance.to(root) @ root.T,
    )


@update.register
@one_thread()
def _(model: Individual, user: int, answers: Design) -> Individual:
    whole = model.covariance.ndim == 3
    # In coordinates along the axes.
    root = _root(model.covariance[user]) if whole else model.covariance[user].sqrt().diag()
    found = posterior(answers, model.theta + model.offset[user], model.axes.T @ root, Logit())
    covariance = root @ found.covariance.to(root) @ root.T
    return replace(
        model,
        offset=model.offset[user] + found.mean.to(root) @ root.T @ model.axes,
        covariance=covariance if whole else covariance.diagonal(dim1=1, dim2=2).contiguous(),
    )


def _on_their_items(design: Design) -> Design:
    """The same decisions on the items that they are about: a pool may have many more."""
    used, place = torch.unique(torch.cat([design.chosen, design.rejected]), return_inverse=True)
    n = design.n_rows
    return replace(design, features=design.features[used], chosen=place[:n], rejected=place[n:])


def straightened(model: UserModel) -> tuple[UserModel, torch.Tensor | None]:
    """The same users on fewer or simpler features, and the matrix that makes those: worth it for many questions.

    `basis` sees nothing of an item but its common reward and its coordinates along the basis, and `individual` users
    are turned along their axes. Other rungs stay as they are.
    """
    if isinstance(model, Basis):
        eye = torch.eye(1 + model.rank).to(model.basis)
        turn = torch.cat([model.theta[:, None], model.basis], dim=1)
        return replace(model, theta=eye[0], basis=eye[:, 1:]), turn
    if isinstance(model, Individual):
        eye = torch.eye(model.dim).to(model.axes)
        turned = replace(model, theta=model.axes @ model.theta, offset=model.offset @ model.axes.T, axes=eye)
        return turned, model.axes.T
    return model, None


def bent_back(placed: UserModel, saved: UserModel) -> UserModel:
    """Users placed on the features of `straightened`, on those of the saved model."""
    if isinstance(placed, Basis) and isinstance(saved, Basis):
        return replace(saved, mean=placed.mean, covariance=placed.covariance)
    if isinstance(placed, Individual) and isinstance(saved, Individual):
        return replace(saved, offset=placed.offset @ saved.axes, covariance=placed.covariance)
    return placed


def _root(covariance: torch.Tensor) -> torch.Tensor:
    """L with L L' = C, where C may be singular."""
    value, axis = torch.linalg.eigh(covariance.double())
    root: torch.Tensor = axis * value.clamp(min=0).sqrt()
    return root.to(covariance)
