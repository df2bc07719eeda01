"""Latent users (VPL, arXiv 2408.10075): an amortised posterior of a few numbers per user, on frozen features.

A fit goes in four steps. A share of the sources is held out. The directions in which users may differ are those of
their score vectors at the pooled reward (`score_directions`), and everything after works in these coordinates, whatever
the number of features: each item is embedded once for the whole fit. The nets are trained with early stopping on the
held-out sources, whose users are training users; test rows are never seen. Then all rows are fitted again for as many
optimizer steps, and every user is placed by all of their comparisons.

Where the held-out sources do not show that z predicts better than the pooled model does, beyond one standard error, the
pooled model is returned in the same shape (`fall_back`): no personalisation is a candidate here as on every rung.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.basis import score_directions
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
    scaled,
    train,
    without_z,
)
from pluralign.inference.latent_encoder import place_latent
from pluralign.likelihoods import Logit
from pluralign.users.heads import Pooled
from pluralign.users.latent import N_REFERENCES, Latent, require_pairs

_SCALES = (0.25, 0.5, 1.0, 2.0)  # of the linear part at the start, as the scores suggest it


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentFit:
    """A fitted `Latent`.

    Attributes:
        model: The users.
        diagnosis: Whether it collapsed.
        looks: What the held-out sources said as training went on.
        steps: Optimizer steps that were found best and taken.
        fell_back: Whether the model returned ignores z, because it did not predict better than the pooled one.
        log_likelihood: Of all rows, every user's z integrated over its posterior, in nats.
    """

    model: Latent
    diagnosis: LatentDiagnosis
    looks: tuple[Look, ...]
    steps: int
    fell_back: bool
    log_likelihood: float


@one_thread()
def fit_latent(
    design: Design,
    settings: LatentSettings | None = None,
    *,
    ridge: float = 1.0,
    start: Float[Tensor, " dim"] | None = None,
) -> LatentFit:
    """Fit latent users.

    Args:
        design: Rows and features, (items, dim).
        settings: Defaults where None.
        ridge: Precision of the Gaussian prior of the pooled reward, which is where the decoder begins.
        start: The pooled reward of all rows, (dim,), where it is known; None fits it.

    Raises:
        ConfigError: All rows have one source, or the pairwise form meets choices among more than two.
    """
    settings = settings or LatentSettings()
    require_pairs(design, settings.form)
    out = hold_out(design, settings.held_out, settings.seed)
    part, held = design.take(~out), design.take(out)
    fresh = _begin(part, settings, ridge, None)
    pooled = Pooled(theta=fresh.theta, n_users=design.n_users).predict(held)
    scale = 1.0
    if settings.guided:
        scale = max(
            _SCALES, key=lambda by: mean_log_prob(place_latent(scaled(fresh, by), part).predict(held, draws=16))
        )
    trained, looks = train(scaled(fresh, scale), part, settings, held=held)
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

    gain = diagnosed(placed).own_over_pooled
    fell_back = settings.fall_back and not gain.estimate > gain.standard_error
    if fell_back or settings.refit:
        trained = _begin(design, settings, ridge, start)
    if fell_back:
        trained = without_z(trained)
    elif settings.refit:
        trained = train(scaled(trained, scale), design, settings, steps=steps)[0]
    model = place_latent(trained, design)
    if fell_back:
        placed = place_latent(without_z(fresh), part)
    own = model.predict(design)
    return LatentFit(
        model=model,
        diagnosis=diagnosed(model),
        looks=looks,
        steps=0 if fell_back else steps,
        fell_back=fell_back,
        log_likelihood=float((own.log_prob * own.weight).sum()),
    )


def _begin(design: Design, settings: LatentSettings, ridge: float, theta: Tensor | None) -> Latent:
    """Untrained weights around the pooled reward of the rows."""
    if theta is None:
        theta = fit_heads(design, ridge=design.features.new_tensor([ridge])).theta[0]
    theta = theta.to(design.features.dtype)
    directions = score_directions(design, theta, min(settings.width, design.dim), Logit())
    g = torch.Generator().manual_seed(settings.seed)
    some = torch.randint(design.n_rows, (min(design.n_rows, 2**14),), generator=g).to(design.chosen.device)
    deviation = (design.differences(some) @ directions).std(0)
    reference = design.features[design.chosen[some[:N_REFERENCES]]]
    return initial(settings, theta, directions, deviation, reference)
