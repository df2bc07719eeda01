"""Place new users by a few comparisons: the posterior given a fitted model, whose shared parameters stay as they are.

Everybody who waits is placed at once, and somebody without a comparison gets the prior exactly.
"""

from dataclasses import replace
from functools import singledispatch

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.clusters import place
from pluralign.inference.gaussian_blocks import one_thread
from pluralign.inference.gaussian_evidence import posterior
from pluralign.inference.individual import FLOAT64_DIM
from pluralign.inference.latent_encoder import place_latent
from pluralign.inference.offset_panel import OffsetPanel
from pluralign.inference.reliability import place_reliability
from pluralign.likelihoods import Logit
from pluralign.users import Basis, Clusters, Distribution, Individual, Latent, Pooled, Reliability, UserModel


@singledispatch
def adapt(model: UserModel, design: Design) -> UserModel:
    """Return the model of the design's users, (design.n_users), whoever the fitted model knew.

    Args:
        model: A fitted rung. Kinds of your own: `adapt.register`.
        design: The new users' comparisons, on the features the model was fitted on.

    Raises:
        ConfigError: No way is known to place a user in a model of this class.
    """
    raise ConfigError(
        f'nobody can be placed in a model of kind "{model.kind}"',
        hint="fit a rung of the ladder; for a user model of your own, register a function with `adapt.register`",
    )


@adapt.register
def _(model: Distribution, design: Design) -> Distribution:
    raise ConfigError(
        "there is nobody to place: a distribution of reward is the same for every user, whatever they answer",
        hint="predict with the model as it is; to tell users apart fit cluster, basis, individual or latent",
    )


@adapt.register
def _(model: Pooled, design: Design) -> Pooled:
    return replace(model, n_users=design.n_users)


@adapt.register
def _(model: Reliability, design: Design) -> Reliability:
    return place_reliability(model, design)


@adapt.register
def _(model: Clusters, design: Design) -> Clusters:
    return replace(model, membership=place(model, design))


@adapt.register
@one_thread()
def _(model: Basis, design: Design) -> Basis:
    found = posterior(design, model.theta, model.basis, Logit())
    return replace(model, mean=found.mean.to(model.theta), covariance=found.covariance.to(model.theta))


@adapt.register
@one_thread()
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


@adapt.register
@one_thread()
def _(model: Latent, design: Design) -> Latent:
    return place_latent(model, design)
