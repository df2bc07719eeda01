"""Where latent users of a few kinds begin: a latent-class logit, its classes the components of the prior.

Users of K kinds whose rewards are linear in the features are points of a linear decoder with K - 1 dimensions, and
their exact posterior is the mixture prior times exp(b . z), where b adds up over a user's comparisons. Training finds
neither from a random start where kinds are many and alike. Both are written down here:

- Heads h_k and shares s_k maximise the mixture likelihood sum_u log sum_k s_k prod_j P(y_j | h_k), by Adam on random
  users, from small random heads and more of them than are kept: the surplus dies out, and what would have been a local
  optimum with two kinds under one head is then rare.
  (An EM of two heads under one kind never parts them again: of the maze's ten goals,
  1,000 users with 64 comparisons, `fit_clusters` with four starts finds seven and puts 71 % of the users with their
  like, this all ten and 93 %, one run each in about the same time.)
- The decoder's directions are those in which the heads that are kept differ, on such a scale that the components have
  variance 1 along each; a component of the prior sits at each head.
- The encoder computes, of every comparison and head, what the answer costs, max(0, log 2 - margin), which is near
  -log P where that matters; pooling averages it over the user's comparisons; and its head solves for the message
  that gives every component the weight exp(-cost). That is exact arithmetic of its first weights, not an approximation
  that they were trained to; training goes on from there.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.heads import fit_heads
from pluralign.inference.latent_encoder import Panel
from pluralign.likelihoods import Logit
from pluralign.users.latent import SLOPE, Latent

_STEPS = 400
_STEP_ROWS = 40_000  # of whole users
_RATE = 0.1
_SPREAD_ROWS = 2**14  # by which features are scaled
_RIDGE = 1e-5  # per decision: keeps heads of answers without noise finite
_LAST_RIDGE = 1e-2  # of each head when it is fitted to the end
_SURE = 0.9
_TOSS = math.log(2)  # what an answer costs that is a toss
_VARIANCE = 1e-5  # of a component, where users' z have variance 1
_PRECISION = 0.1  # that each comparison adds to a component's


def begin_at_kinds(model: Latent, design: Design, kinds: int, *, seed: int = 0) -> Latent:
    """An untrained linear model that begins at a latent-class logit.

    Args:
        model: Untrained, of the linear form, unguided, pooling by the mean, with a mixture prior.
        design: Rows to fit the classes to.
        kinds: Classes to begin with; as many as the prior has components are kept, those with the largest shares.
        seed: Of the classes' random start, and of the users in a step.

    Raises:
        ConfigError: The prior has more components than there are kinds, the latent too few dimensions to hold them, or
            the nets are too narrow for their costs.
    """
    components, latent, hidden = len(model.prior_log_weight), model.latent_dim, model.encoder["pair"].shape[1]
    if not components <= min(kinds, latent + 1, hidden // 2):
        raise ConfigError(
            f"the prior has {components} components, of {kinds} kinds, in {latent} dimensions, with nets of width "
            f"{hidden}; it may have at most kinds, latent_dim + 1 and hidden / 2"
        )
    head, log_share = fit_kinds(design, kinds, components, seed=seed)
    away = torch.linalg.lstsq(model.coordinates.double(), (head - model.theta).double().T, driver="gelsd").solution
    head = away.T.to(model.theta)  # in the model's coordinates, beside its reward for everybody
    middle = head.mean(0)
    away = head - middle
    span = torch.linalg.svd(away, full_matrices=False)[2]
    found = min(latent, components - 1)
    size = (away @ span[:found].T).std(0, unbiased=False).clamp(min=1e-3)
    taste, mean = torch.zeros_like(model.decoder["taste"]), torch.zeros_like(model.prior_mean)
    taste[:, :found], mean[:, :found] = span[:found].T * size, away @ span[:found].T / size
    return replace(
        model,
        decoder={**model.decoder, "shift": middle, "taste": taste},
        encoder=_costs(model.encoder, head, mean),
        prior_log_weight=log_share,
        prior_mean=mean,
        prior_log_variance=torch.full_like(mean, math.log(_VARIANCE)),
    )


def fit_kinds(
    design: Design, kinds: int, kept: int, *, seed: int = 0
) -> tuple[Float[Tensor, "kept dim"], Float[Tensor, " kept"]]:
    """Heads of a latent-class logit, and log-shares.

    Args:
        design: Rows.
        kinds: Classes to begin with.
        kept: Classes with the largest shares, with which it goes on after half of its steps.
        seed: Of the start, and of the users in a step.
    """
    generator, panel = torch.Generator().manual_seed(seed), Panel(design)
    spread = design.differences(torch.arange(min(design.n_rows, _SPREAD_ROWS), device=design.user.device)).std(0)
    scale = torch.where(spread > 0, 1 / spread.clamp(min=1e-12), 0.0)
    head = torch.randn(kinds, design.dim, generator=generator, dtype=torch.float64).to(scale) * 0.1
    log_share = head.new_zeros(kinds)
    items = design.features * scale
    n_users = min(len(panel.users), max(1, _STEP_ROWS * len(panel.users) // design.n_rows))
    for first in (0, _STEPS // 2):
        if first:
            top = log_share.argsort(descending=True)[:kept]
            head, log_share = head[top], log_share[top]
        learned = [head.requires_grad_(), log_share.requires_grad_()]
        optimizer = torch.optim.Adam(learned, lr=_RATE)
        for step in range(first, first + _STEPS // 2):
            optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
            order = torch.randperm(len(panel.users), generator=generator)[:n_users]
            own = panel.of(panel.users[order.to(panel.users.device)])
            margin = (items[own.chosen] - items[own.rejected]) @ head.T
            log_prob = Logit().log_prob(margin, own.decisions) * own.weight[:, None]
            total = head.new_zeros(n_users, len(head)).index_add(0, own.owner, log_prob) + log_share.log_softmax(0)
            loss = -total.logsumexp(1).sum() / own.weight.sum() + _RIDGE * (head**2).sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        head, log_share = head.detach(), log_share.detach()
    log_share = log_share.log_softmax(0)
    return _settle(design, head * scale, log_share), log_share


def _settle(
    design: Design, head: Float[Tensor, "kept dim"], log_share: Float[Tensor, " kept"]
) -> Float[Tensor, "kept dim"]:
    """Fit every head to the end, to the users who are surely of its kind."""
    log_prob = Logit().log_prob(design.margins(head), design.decisions) * design.weight[:, None]
    total = head.new_zeros(design.n_users, len(head)).index_add(0, design.user, log_prob) + log_share
    sure, kind = total.softmax(1).max(1)
    kind = torch.where(sure > _SURE, kind, -1)[design.user]
    head = head.clone()
    for k in kind[kind >= 0].unique().tolist():
        own = design.take(kind == k)
        head[k] = fit_heads(own, ridge=head.new_tensor([_LAST_RIDGE]), start=head[k : k + 1]).theta[0]
    return head


def _costs(
    encoder: dict[str, Tensor], head: Float[Tensor, "components width"], mean: Float[Tensor, "components latent"]
) -> dict[str, Tensor]:
    """First weights of an encoder whose message weighs every component by what its user's answers cost under it.

    With two units for each head, leaky(margin - log 2) and leaky(log 2 - margin), the cost is their sum with weights
    SLOPE / (1 - SLOPE^2) and 1 / (1 - SLOPE^2). It is never negative, so that the layers after it pass it on. The
    message b solves b . z_k - a |z_k|^2 / 2 = -cost_k + constant, where precision a is `_PRECISION` per comparison, as
    all of it is; b is written as a times a centre. Units that are not needed keep their weights, but are not heard.
    """
    n = len(head)
    made = {name: each.clone() for name, each in encoder.items()}
    whole = torch.cat([head, torch.ones_like(head[:, :1])], dim=1).T
    made["pair"][:, : 2 * n] = torch.cat([whole, -whole], dim=1)
    made["pair_bias"][: 2 * n] = torch.cat([head.new_full((n,), -_TOSS), head.new_full((n,), _TOSS)])
    eye = torch.eye(n).to(head)
    for name, value in (
        ("second", torch.cat([SLOPE * eye, eye]) / (1 - SLOPE**2)),
        ("pooled", eye),
    ):
        made[name][:, :n] = 0
        made[name][: len(value), :n] = value
    latent = mean.shape[1]
    centred = mean - mean.mean(0)
    solve = torch.linalg.pinv(centred)  # of costs about their mean
    about = eye - 1 / n
    made["head"] = torch.zeros_like(made["head"])
    made["head"][:n, :latent] = -(solve @ about).T / _PRECISION
    made["head_bias"] = torch.zeros_like(made["head_bias"])
    made["head_bias"][:latent] = solve @ about @ (mean**2).sum(1) / 2
    made["head_bias"][latent : 2 * latent] = math.log(math.expm1(_PRECISION))
    return made
