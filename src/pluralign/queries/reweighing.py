"""A latent user who has given more answers: the posterior so far, weighed by what the decoder says of them.

Bayes' rule by importance sampling. The new answers are let in little by little (a likelihood to the power 1/64, 1/16,
1/4, 1), and after each step the draws come from a Gaussian with the moments found, so that answers which contradict
the posterior do not leave a handful of draws with all the weight. The result is the diagonal Gaussian of each component
with the moments of the exact posterior under the decoder, whatever its form; no encoder is asked.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.features import Design
from pluralign.likelihoods import Logit
from pluralign.users.latent import Gaussians, Latent, decode, embed, require_pairs, sobol

_N_DRAWS = 2048
_POWERS = (1 / 64, 1 / 16, 1 / 4, 1.0, 1.0)  # the last draws are from a proposal with the moments of the whole
_BLOCK_FLOATS = 2**22


def reweighed(model: Latent, prior: Gaussians, answers: Design) -> Gaussians:
    """The posterior of one user who has given these answers.

    Args:
        model: The decoder.
        prior: Where the user stood before, a mixture of one user.
        answers: What was answered since, as decisions of one user.

    Raises:
        ConfigError: A pairwise decoder, and a decision among more than two items.
    """
    require_pairs(answers, model.form)
    noise = torch.from_numpy(sobol(_N_DRAWS, model.latent_dim)).to(model.mean)
    before_mean, before_variance = prior.mean[0], prior.log_variance[0].exp()
    mean, variance = before_mean, before_variance
    for power in _POWERS:
        z = mean[:, None] + variance.sqrt()[:, None] * noise  # (components, draws, latent)
        explained = _log_prob(model, z.flatten(0, 1), answers).view(z.shape[:2])
        log_weight = _log_density(z, before_mean, before_variance) + power * explained - _log_density(z, mean, variance)
        weight = log_weight.softmax(1)[..., None]
        mean = (weight * z).sum(1)
        # A component that is nowhere near the answers may be left with one draw.
        variance = (weight * (z - mean[:, None]) ** 2).sum(1).clamp(min=1e-6 * before_variance)
    evidence = log_weight.logsumexp(1) - math.log(_N_DRAWS)
    return Gaussians((prior.log_weight + evidence).log_softmax(1), mean[None], variance.log()[None])


def _log_prob(model: Latent, z: Float[Tensor, "draws latent"], answers: Design) -> Float[Tensor, " draws"]:
    """Of all answers under every draw, in nats."""
    targets = embed(model.decoder, model.form, model.items(answers.features), answers.chosen, answers.rejected)
    hidden = model.decoder.get("hidden")
    total = z.new_zeros(len(z))
    step = max(1, _BLOCK_FLOATS // (len(z) * (1 if hidden is None else 5 * hidden.shape[0])))
    for rows, decisions, within in answers.decisions.blocks(step):
        nobody_else = torch.zeros_like(answers.chosen[rows])
        margin = decode(model.decoder, model.form, targets.take(rows), z[None], nobody_else)
        total += answers.weight[decisions] @ Logit().log_prob(margin, within)
    return total


def _log_density(
    z: Float[Tensor, "components draws latent"],
    mean: Float[Tensor, "components latent"],
    variance: Float[Tensor, "components latent"],
) -> Float[Tensor, "components draws"]:
    """Of a Gaussian with diagonal covariance, but for a constant."""
    away = (z - mean[:, None]) ** 2 / variance[:, None]
    return -(away.sum(2) + variance.log().sum(1)[:, None]) / 2
