"""Latent users (VPL, arXiv 2408.10075): an amortised posterior of a few numbers per user, on frozen features.

A fit goes in four steps. A share of the sources is held out. The directions in which users may differ are found: those
of a `basis` of rank `latent_dim`, where a guided decoder begins, and the users' strongest score directions beside them
(`score_directions`). Everything after works in these coordinates, whatever the number of features: each item is
embedded once for the whole fit. How many of the basis' directions are worth having, and at what size, is decided by the
held-out sources before any training (a learned prior is fitted to the users at each size, by EM); the nets are trained
with early stopping on the same sources, whose users are training users. Test rows are never seen. Then all rows are
fitted again for as many optimizer steps, and every user is placed by all of their comparisons.

Where the held-out sources do not show that z predicts better than the pooled model does, beyond one standard error, the
pooled model is returned in the same shape (`fall_back`): no personalisation is a candidate here as on every rung.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pluralign.evaluation import paired_difference
from pluralign.features import Design
from pluralign.inference.basis import fit_basis, score_directions
from pluralign.inference.gaussian_blocks import one_thread
from pluralign.inference.heads import fit_heads
from pluralign.inference.latent_diagnosis import LatentDiagnosis, diagnose_latent
from pluralign.inference.latent_elbo import (
    LatentSettings,
    Look,
    best_look,
    hold_out,
    initial,
    mean_log_prob,
    train,
    without_z,
)
from pluralign.inference.latent_encoder import place_latent
from pluralign.inference.latent_kinds import begin_at_kinds
from pluralign.inference.latent_prior import fit_prior, message_of, with_strays
from pluralign.likelihoods import Logit
from pluralign.users.heads import Pooled
from pluralign.users.latent import N_REFERENCES, Gaussians, Latent, require_pairs

_SCALES = (0.25, 0.5, 0.71, 1.0, 1.41)  # of the linear part at the start, as the basis has it
_START_USERS = 1500  # where a guided fit begins is found with so many users, at random if there are more


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentFit:
    """A fitted `Latent`.

    Attributes:
        model: The users.
        diagnosis: Whether it collapsed.
        looks: What the held-out sources said as training went on.
        steps: Optimizer steps that were found best and taken.
        scale: Of each dimension of the linear part at the start, as held-out sources liked it best, (latent_dim,).
        fell_back: Whether the model returned ignores z, because it did not predict better than the pooled one.
        log_likelihood: Of all rows, every user's z integrated over its posterior, in nats.
    """

    model: Latent
    diagnosis: LatentDiagnosis
    looks: tuple[Look, ...]
    steps: int
    scale: tuple[float, ...]
    fell_back: bool
    log_likelihood: float


@one_thread()
def fit_latent(
    design: Design,
    settings: LatentSettings | None = None,
    *,
    ridge: float = 1.0,
    ridge_basis: float | None = None,
    start: Float[Tensor, " dim"] | None = None,
) -> LatentFit:
    """Fit latent users.

    Args:
        design: Rows and features, (items, dim).
        settings: Defaults where None.
        ridge: Precision of the Gaussian prior of the pooled reward, which is where the decoder begins.
        ridge_basis: Precision of that of the basis; None takes `ridge`.
        start: The pooled reward of all rows, (dim,), where it is known; None fits it.

    Raises:
        ConfigError: All rows have one source, or the pairwise form meets choices among more than two.
    """
    settings = settings or LatentSettings()
    require_pairs(design, settings.form)
    out = hold_out(design, settings.held_out, settings.seed)
    part, held = design.take(~out), design.take(out)
    ridges = ridge, ridge if ridge_basis is None else ridge_basis
    shared = _pooled(part, ridge)
    fresh = _begin(part, settings, ridges, shared)
    pooled = Pooled(theta=shared, n_users=design.n_users).predict(held)
    scale = (1.0,) * settings.latent_dim
    if settings.guided:
        tried = [
            (by,) * rank + (0.0,) * (settings.latent_dim - rank)
            for rank in range(1, min(settings.latent_dim, design.dim) + 1)
            for by in _SCALES
        ]
        some = _some_users(held, settings.seed)
        context, seen = part.take(some[part.user]), held.take(some[held.user])

        def told(by: tuple[float, ...]) -> float:
            begun = _scaled(fresh, by, context, settings)
            return mean_log_prob(place_latent(begun, context).predict(seen, draws=16))

        scale = max(tried, key=told)
    trained, looks = train(_scaled(fresh, scale, part, settings), part, settings, held=held)
    placed = place_latent(trained, part)
    steps = looks[best_look(looks)].step
    users = design.user.unique()

    def diagnosed(whole: Latent) -> LatentDiagnosis:
        return diagnose_latent(
            placed,
            held,
            pooled=pooled,
            everybody=whole,
            users=users,
            variational=settings.variational,
            seed=settings.seed,
        )

    gain = paired_difference(placed.predict(held), pooled, "log_prob")
    fell_back = settings.fall_back and not gain.estimate > gain.standard_error
    if fell_back or settings.refit:
        start = _pooled(design, ridge) if start is None else start.to(design.features.dtype)
        model = _settled(design, settings, ridges, start, scale, None if fell_back else steps)
    else:
        model = place_latent(trained, design)
    if fell_back:
        placed = place_latent(without_z(fresh, shared), part)
    own = model.predict(design)
    return LatentFit(
        model=model,
        diagnosis=diagnosed(model),
        looks=looks,
        steps=0 if fell_back else steps,
        scale=scale,
        fell_back=fell_back,
        log_likelihood=float((own.log_prob * own.weight).sum()),
    )


@one_thread()
def refit_latent(
    design: Design,
    found: LatentFit,
    settings: LatentSettings,
    *,
    ridge: float = 1.0,
    ridge_basis: float | None = None,
) -> Latent:
    """Fit other rows as `found` was in the end: so many steps from such a start, or no z, without held-out sources."""
    ridges = ridge, ridge if ridge_basis is None else ridge_basis
    steps = None if found.fell_back else found.steps
    return _settled(design, settings, ridges, _pooled(design, ridge), found.scale, steps)


def _settled(
    design: Design,
    settings: LatentSettings,
    ridges: tuple[float, float],
    theta: Float[Tensor, " dim"],
    scale: tuple[float, ...],
    steps: int | None,
) -> Latent:
    """Train for a known number of steps, None meaning without z, and place every user."""
    fresh = _begin(design, settings, ridges, theta)
    if steps is None:
        return place_latent(without_z(fresh, theta), design)
    return place_latent(train(_scaled(fresh, scale, design, settings), design, settings, steps=steps)[0], design)


def _scaled(model: Latent, by: tuple[float, ...], design: Design, settings: LatentSettings) -> Latent:
    """Users that differ so much more along each dimension of the linear part; a learned prior begins at theirs.

    A mixture has strays beside them, as its last component.
    """
    taste = model.decoder["taste"]
    model = replace(model, decoder={**model.decoder, "taste": taste * taste.new_tensor(by)})
    if not settings.guided or settings.prior == "normal":
        return model
    posterior = place_latent(model, design).posterior
    message = message_of(model.prior, Gaussians(*(part[design.user.unique()] for part in posterior)))
    prior = fit_prior(message, len(model.prior_log_weight), seed=settings.seed)
    if settings.prior == "mixture":
        prior = with_strays(prior)
    return replace(
        model,
        prior_log_weight=prior.log_weight[0],
        prior_mean=prior.mean[0],
        prior_log_variance=prior.log_variance[0],
    )


def _some_users(design: Design, seed: int) -> Bool[Tensor, " users"]:
    """At most `_START_USERS` of the design's users, marked."""
    users = design.user.unique()
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed)).to(users.device)
    marked = torch.zeros(design.n_users, dtype=torch.bool, device=users.device)
    marked[users[order[:_START_USERS]]] = True
    return marked


def _pooled(design: Design, ridge: float) -> Float[Tensor, " dim"]:
    return fit_heads(design, ridge=design.features.new_tensor([ridge])).theta[0]


def _begin(
    design: Design, settings: LatentSettings, ridges: tuple[float, float], theta: Float[Tensor, " dim"]
) -> Latent:
    """Untrained weights: around a basis and its average user if guided, else around the pooled reward."""
    width = min(settings.width, design.dim)
    directions = score_directions(design, theta, width, Logit())
    if settings.guided:
        rank = min(settings.latent_dim, width)
        few = design.take(_some_users(design, settings.seed)[design.user])
        found = fit_basis(
            few, rank, ridge=ridges[0], ridge_basis=ridges[1], start=theta, max_evaluations=60, tolerance=1e-5
        ).model
        theta = found.theta
        span, size, _ = torch.linalg.svd(found.basis, full_matrices=False)
        span = span[:, size > 1e-6 * size[0].clamp(min=1e-12)]
        beside = torch.linalg.svd(directions - span @ (span.T @ directions), full_matrices=False)[0]
        directions = torch.cat([found.basis, beside[:, : width - rank]], dim=1)
    g = torch.Generator().manual_seed(settings.seed)
    some = torch.randint(design.n_rows, (min(design.n_rows, 2**14),), generator=g).to(design.chosen.device)
    deviation = (design.differences(some) @ directions).std(0)
    reference = design.features[design.chosen[some[:N_REFERENCES]]]
    fresh = initial(settings, theta, directions, deviation, reference)
    return begin_at_kinds(fresh, design, settings.kinds, seed=settings.seed) if settings.kinds else fresh
