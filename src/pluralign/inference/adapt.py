"""Place new users by a few comparisons: the posterior given a fitted model, whose shared parameters stay as they are.

Everybody who waits is placed at once, and somebody without a comparison gets the prior exactly.
"""

from dataclasses import replace
from functools import singledispatch

import torch

from pluralign.features import Design
from pluralign.inference.gaussian_evidence import posterior
from pluralign.inference.individual import FLOAT64_DIM, OffsetPanel
from pluralign.likelihoods import Logit
from pluralign.users import Basis, Clusters, Individual, Pooled, UserModel


@singledispatch
def adapt(model: UserModel, design: Design) -> UserModel:
    """Return the model of the design's users, (design.n_users), whoever the fitted model knew.

    Args:
        model: A fitted rung. Other modules register their kinds.
        design: The new users' comparisons, on the features the model was fitted on.

    Raises:
        TypeError: No way is known to place a user in a model of this class.
    """
    raise TypeError(f"cannot place a new user in a {type(model).__name__}; register one with `adapt.register`")


@adapt.register
def _(model: Pooled, design: Design) -> Pooled:
    return replace(model, n_users=design.n_users)


@adapt.register
def _(model: Clusters, design: Design) -> Clusters:
    each = design.weight[:, None] * Logit().log_prob(design.margins(model.theta), design.decisions)
    total = each.new_zeros((design.n_users, model.n_clusters)).index_add_(0, design.user, each)
    membership = (total + model.shares.log()).softmax(1)
    if not model.soft:
        known = torch.bincount(design.user, minlength=design.n_users) > 0
        hard = torch.nn.functional.one_hot(total.argmax(1), model.n_clusters).to(membership)
        membership = torch.where(known[:, None], hard, membership)
    return replace(model, membership=membership)


@adapt.register
def _(model: Basis, design: Design) -> Basis:
    found = posterior(design, model.theta, model.basis, Logit())
    return replace(model, mean=found.mean.to(model.theta), covariance=found.covariance.to(model.theta))


@adapt.register
def _(model: Individual, design: Design) -> Individual:
    if model.covariance.ndim == 3:
        basis = model.axes.T * model.scale
        found = posterior(design, model.theta, basis, Logit())
        covariance = model.scale[:, None] * found.covariance.to(model.theta) * model.scale
        return replace(model, offset=found.mean.to(basis) @ basis.T, covariance=covariance)
    if model.dim < FLOAT64_DIM:
        design = design.with_features(design.features.double())
    panel = OffsetPanel(design, Logit())
    placed = panel.model(model.theta.to(design.features), float(model.scale[0]), model.axes.to(design.features))
    return replace(model, offset=placed.offset.to(model.theta), covariance=placed.covariance.to(model.theta))
