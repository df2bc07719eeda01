"""Prior times message: the posterior of a latent user, and its divergence from the prior, in closed form.

What a set of comparisons says about z is a Gaussian factor exp(b . z - z' diag(a) z / 2), the encoder's message
(Johnson et al. 2016, arXiv 1603.06277). Times a mixture of Gaussians it is a mixture again, so that one rule serves the
priors N(0, I), a learned diagonal Gaussian and a learned mixture (the VampPrior of Tomczak and Welling 2018,
arXiv 1705.07120, with free components in the place of pseudo-inputs). No comparison is the message 0, whose posterior
is the prior exactly, and with Z the integral of prior times message

    KL(q || prior) = E_q[b . z - z' diag(a) z / 2] - log Z,

also where both are mixtures. With one component it is the usual sum over dimensions of
(log(prior variance / variance) + (variance + (mean - prior mean)^2) / prior variance - 1) / 2.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.users.latent import Gaussians

_N_ITERATIONS = 100
_LEAST_VARIANCE = 1e-2  # of a component: users of one kind are not the same user
STRAYS = 0.1  # share of users of no kind
_STRAY_VARIANCE = 0.1  # theirs, as a part of all users'


class Message(NamedTuple):
    """What each user's comparisons say about z: exp(linear . z - z' diag(precision) z / 2)."""

    linear: Float[Tensor, "users latent"]
    precision: Float[Tensor, "users latent"]


def condition(prior: Gaussians, message: Message) -> Gaussians:
    """Posterior of every user: the prior (a mixture of one user) times the user's message."""
    return _condition(prior, message)[0]


def _condition(prior: Gaussians, message: Message) -> tuple[Gaussians, Tensor]:
    """The posterior, and log Z of every component and dimension."""
    own = (-prior.log_variance).exp()
    precision = own + message.precision[:, None]
    mean = (own * prior.mean + message.linear[:, None]) / precision
    log_variance = -precision.log()
    log_z = (log_variance - prior.log_variance + precision * mean**2 - own * prior.mean**2) / 2
    log_weight = (prior.log_weight + log_z.sum(2)).log_softmax(1)
    return Gaussians(log_weight, mean, log_variance), log_z


def divergence(prior: Gaussians, message: Message) -> tuple[Float[Tensor, " users"], Float[Tensor, "users latent"]]:
    """KL(posterior || prior) of every user, in nats, and what each dimension has in it.

    The parts of a mixture do not add up to the whole: which component a user belongs to is shared by all dimensions.
    They are means over the components, and what is missing is the divergence between the components' weights.
    """
    posterior, log_z = _condition(prior, message)
    second = posterior.mean**2 + posterior.log_variance.exp()
    told = message.linear[:, None] * posterior.mean - message.precision[:, None] * second / 2
    weight = posterior.log_weight.exp()
    parts = (weight[..., None] * (told - log_z)).sum(1)
    return parts.sum(1) + (weight * (posterior.log_weight - prior.log_weight)).sum(1), parts


def message_of(prior: Gaussians, posterior: Gaussians) -> Message:
    """The message that made the prior into each user's posterior: the inverse of `condition`."""
    own, found = (-prior.log_variance[:, 0]).exp(), (-posterior.log_variance[:, 0]).exp()
    return Message(found * posterior.mean[:, 0] - own * prior.mean[:, 0], found - own)


def fit_prior(message: Message, components: int, *, n_starts: int = 8, seed: int = 0) -> Gaussians:
    """The mixture under which the messages of some users are likeliest, by EM: a mixture of one user.

    Messages are likelihoods, so that users of whom little is known say little about the prior. Of several starts, each
    at users' means drawn far from one another as in k-means++, the likeliest is kept.

    Args:
        message: Of every user, (users, latent).
        components: Of the mixture; 1 is a diagonal Gaussian.
        n_starts: Random starts; one component needs no more than one.
        seed: Of the starts.
    """
    generator = torch.Generator().manual_seed(seed)
    zeros = torch.zeros_like(message.linear[:1, None])
    middle = condition(Gaussians(zeros[..., 0], zeros, zeros), message).mean[:, 0]
    found = []
    for _ in range(n_starts if components > 1 else 1):
        prior = _spread_out(middle, components, generator)
        evidence = -math.inf
        for _ in range(_N_ITERATIONS):
            users, log_z = _condition(prior, message)
            before, evidence = evidence, float((prior.log_weight + log_z.sum(2)).logsumexp(1).sum())
            if evidence - before < 1e-6 * abs(evidence):
                break
            weight = users.log_weight.exp()
            total = weight.sum(0).clamp(min=1e-6)[:, None]
            mean = (weight[..., None] * users.mean).sum(0) / total
            second = users.log_variance.exp() + (users.mean - mean) ** 2
            variance = (weight[..., None] * second).sum(0) / total
            prior = Gaussians(
                (total[:, 0] / total.sum()).log()[None], mean[None], variance.clamp(min=_LEAST_VARIANCE).log()[None]
            )
        found.append((evidence, prior))
    return max(found, key=lambda each: each[0])[1]


def with_strays(prior: Gaussians, share: float = STRAYS) -> Gaussians:
    """The prior and, as its last component, users of no kind, who are taken for the average user.

    Without them a user whose answers contradict one another, as no kind's do, is put with some kind all the same. What
    such users say cannot be learnt from users who are of a kind, so that their share is given.

    Args:
        prior: A mixture of one user.
        share: Of the users of no kind.
    """
    weight = prior.log_weight.exp()[..., None]
    mean = (weight * prior.mean).sum(1, keepdim=True)
    variance = (weight * (prior.log_variance.exp() + (prior.mean - mean) ** 2)).sum(1, keepdim=True)
    return Gaussians(
        torch.cat([prior.log_weight + math.log(1 - share), torch.full_like(mean[..., 0], math.log(share))], dim=1),
        torch.cat([prior.mean, mean], dim=1),
        torch.cat([prior.log_variance, (_STRAY_VARIANCE * variance).log()], dim=1),
    )


def _spread_out(mean: Float[Tensor, "users latent"], components: int, generator: torch.Generator) -> Gaussians:
    """Components at users drawn with a chance in proportion to the squared distance from those already drawn."""
    at = mean[torch.randint(len(mean), (1,), generator=generator)]
    for _ in range(1, components):
        away = torch.cdist(mean, at).amin(1).square().double().cpu() + 1e-9
        at = torch.cat([at, mean[torch.multinomial(away, 1, generator=generator)]])
    variance = mean.var(0, unbiased=False).clamp(min=_LEAST_VARIANCE) / components
    log_weight = at.new_full((1, components), -math.log(components))
    return Gaussians(log_weight, at[None], variance.log().expand_as(at)[None])
