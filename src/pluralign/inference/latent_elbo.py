"""Training latent users: the evidence lower bound, its schedule, and early stopping.

In every step some users' decisions are parted, by source, into a context and targets; the encoder reads the context,
and

    sum over targets of E_q(z | context) log P(target | z)  -  weight(step) KL(q || prior)

is maximised, summed over users. A target and its siblings are never in the context. Targets are then decisions that q
has not seen, so at weight 1 the prior shrinks twice: once in what the context predicts, once in the KL (on Gaussian
margins the mean would be shrunk by the square of the right factor). A weight below 1 corrects that, and `bound`
"predictive" replaces E log P by log E P of each target, which also keeps q as wide as it ought to be. With weight 0
this is not variational, and the report says so.

Against collapse, where q stays at the prior because the decoder has not learnt to listen: the weight rises from 0 over
`warmup` optimizer steps; `free_bits` leave each dimension that many nats free; `swap_weight` asks that a user who
answers the opposite is put on the opposite side (the idea of swap-guided preference learning, arXiv 2603.12595); an
encoder of differences need not learn that only they matter; and `guided` begins the decoder at a `basis` and the
encoder at Newton steps towards its posterior.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.inference.latent_encoder import Comparisons, Panel, place_latent, read
from pluralign.inference.latent_prior import Message, condition, divergence, message_of
from pluralign.likelihoods import Logit
from pluralign.users.latent import FORMS, N_REFERENCES, Form, Gaussians, Inputs, Latent, Pooling, decode, embed

Prior = Literal["normal", "diagonal", "mixture"]
Bound = Literal["elbo", "predictive"]
_SILENT = 1e-4  # of the largest: along a direction of a smaller deviation items do not differ, but for rounding


@dataclass(frozen=True, kw_only=True)
class LatentSettings:
    """Everything a fit of latent users depends on but the data.

    Attributes:
        latent_dim: Numbers that describe a user.
        form: Decoder ("linear", "scalar", "pairwise").
        prior: "normal" is N(0, I); "diagonal" learns mean and variances; "mixture" learns `components` of them, for
            users of a few kinds.
        components: Of the mixture.
        kinds: Classes of a latent-class logit at which an unguided linear decoder, its mixture prior and its encoder
            begin (`latent_kinds`), more than there are components; 0 begins at random.
        pooling: How the encoder pools comparisons.
        inputs: What it reads of each.
        guided: Whether the decoder begins at a `basis` and the encoder at Newton steps.
        width: Directions of the features in which users may differ; all, where there are no more features.
        hidden: Width of the nets.
        bound: What is maximised.
        draws: Of z, for each component, in a step.
        kl_weight: Of the divergence from the prior; 0 is not variational.
        warmup: Optimizer steps over which that weight rises from 0, linearly.
        free_bits: Nats of divergence for each dimension, on average over users, that cost nothing.
        swap_weight: Of swapped-pair guidance.
        learning_rate: Of Adam; it falls to a tenth along a cosine.
        decay: Weight decay.
        steps: Optimizer steps at most.
        every: Steps between two looks at the held-out sources.
        patience: Looks without improvement after which to stop.
        users: Users in a step.
        held_out: Share of the sources held out to stop early.
        fall_back: Whether to return a model without z where the held-out sources do not show that it predicts better.
        refit: Whether to fit all rows again, for the steps that were found best.
        seed: Of everything random.
    """

    latent_dim: int = 4
    form: Form = "scalar"
    prior: Prior = "normal"
    components: int = 4
    kinds: int = 0
    pooling: Pooling = "mean"
    inputs: Inputs = "differences"
    guided: bool = True
    width: int = 16
    hidden: int = 32
    bound: Bound = "predictive"
    draws: int = 4
    kl_weight: float = 0.1
    warmup: int = 50
    free_bits: float = 0.0
    swap_weight: float = 0.0
    learning_rate: float = 3e-3
    decay: float = 1e-3
    steps: int = 400
    every: int = 25
    patience: int = 4
    users: int = 64
    held_out: float = 0.15
    fall_back: bool = True
    refit: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("form", FORMS),
            ("prior", ("normal", "diagonal", "mixture")),
            ("pooling", ("mean", "attention")),
            ("inputs", ("differences", "pairs")),
            ("bound", ("elbo", "predictive")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f'unknown {name} "{getattr(self, name)}"; known: {", ".join(known)}')
        for name in ("latent_dim", "components", "width", "hidden", "draws", "every", "patience", "users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("kl_weight", "warmup", "free_bits", "swap_weight", "decay", "steps", "kinds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
        told = self.form, self.prior, self.pooling, self.inputs, self.guided
        if self.kinds and told != ("linear", "mixture", "mean", "differences", False):
            raise ConfigError(
                f"kinds is {self.kinds}, with form, prior, pooling, inputs and guided {told}; only an unguided linear "
                "form with a mixture prior that pools differences by their mean begins at kinds"
            )
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out is {self.held_out}; it must lie between 0 and 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be above 0")

    @property
    def variational(self) -> bool:
        """Whether the divergence has any weight."""
        return self.kl_weight > 0

    def weight_at(self, step: int) -> float:
        """Weight of the divergence in an optimizer step, counted from 0."""
        return self.kl_weight * min(1.0, (step + 1) / self.warmup) if self.warmup else self.kl_weight


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the held-out sources said after so many optimizer steps.

    Attributes:
        step: Optimizer steps taken.
        kl_weight: Weight of the divergence in the last of them.
        log_prob: Held-out log-probability, nats per decision, users placed by all their training decisions.
        few: The same, users placed by few of them.
        kl: Mean divergence of those users from the prior, in nats.
    """

    step: int
    kl_weight: float
    log_prob: float
    few: float
    kl: float


def initial(
    settings: LatentSettings,
    theta: Float[Tensor, " dim"],
    directions: Float[Tensor, "dim width"],
    deviation: Float[Tensor, " width"],
    reference: Float[Tensor, "references dim"],
) -> Latent:
    """Untrained weights.

    Args:
        settings: Shapes, and whether to begin at a Newton step.
        theta: Reward of an average user.
        directions: Directions in which users may differ, those first in which they differ most, scaled as V.
        deviation: Standard deviation of a pair's margin along each.
        reference: Features of items that a pairwise reward compares with.
    """
    g = torch.Generator().manual_seed(settings.seed)
    width, latent, hidden = directions.shape[1], settings.latent_dim, settings.hidden

    def layer(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        drawn = torch.randn(rows, columns, generator=g, dtype=torch.float64) * (scale * (2 / rows) ** 0.5)
        return drawn.to(theta)

    def zeros(*shape: int) -> Tensor:
        return theta.new_zeros(shape)

    taste, shift = zeros(width, latent), zeros(width)
    if settings.guided:
        known = min(width, latent)
        taste[:known, :known] = deviation[:known].diag()
    elif settings.form == "linear":
        taste = layer(width, latent, 0.1)
    decoder = {"taste": taste, "shift": shift}
    if settings.form != "linear":
        decoder |= {
            "item": layer(width, hidden, 0.7),
            "latent": layer(latent, hidden, 0.7),
            "bias": zeros(hidden),
            "hidden": layer(hidden, hidden),
            "hidden_bias": zeros(hidden),
            "last": zeros(hidden) if settings.guided else layer(hidden, 1, 0.5)[:, 0],
        }
    if settings.form == "pairwise":
        decoder["other"] = layer(width, hidden, 0.7)
    seen = (width + 1) * (1 if settings.inputs == "differences" else 2)
    head_bias = zeros(3 * latent)
    if not settings.guided:
        head_bias[latent : 2 * latent] = -2.0
    encoder = {
        "pair": layer(seen, hidden),
        "pair_bias": zeros(hidden),
        "second": layer(hidden, hidden),
        "second_bias": zeros(hidden),
        "pooled": layer(hidden, hidden),
        "pooled_bias": zeros(hidden),
        "head": zeros(hidden, 3 * latent) if settings.guided else layer(hidden, 3 * latent, 0.5),
        "head_bias": head_bias,
    }
    if settings.pooling == "attention":
        encoder["query"] = layer(hidden, 1)[:, 0]
    components = settings.components if settings.prior == "mixture" else 1
    prior_mean = zeros(components, latent)
    if components > 1:
        prior_mean += layer(components, latent, 0.5 * (components / 2) ** 0.5)
    model = Latent(
        theta=theta,
        coordinates=torch.where(deviation > _SILENT * deviation.max(), directions / deviation.clamp(min=1e-12), 0.0),
        decoder=decoder,
        encoder=encoder,
        prior_log_weight=zeros(components),
        prior_mean=prior_mean,
        prior_log_variance=zeros(components, latent),
        log_weight=zeros(0, components),
        mean=zeros(0, components, latent),
        log_variance=zeros(0, components, latent),
        reference=zeros(0, width + 1),
        form=settings.form,
        pooling=settings.pooling,
        inputs=settings.inputs,
        guided=settings.guided,
    )
    return replace(model, reference=model.items(reference[:N_REFERENCES]))


def without_z(model: Latent, theta: Float[Tensor, " dim"]) -> Latent:
    """The pooled model in the same shape: a decoder that ignores z, and users who stay at the prior."""
    silent = {"taste", "shift", "last"}
    decoder = {name: torch.zeros_like(each) if name in silent else each for name, each in model.decoder.items()}
    latent = model.latent_dim
    bias = torch.zeros_like(model.encoder["head_bias"])
    bias[latent : 2 * latent] = -1e3  # an unguided encoder's softplus is 0 there
    encoder = {**model.encoder, "head": torch.zeros_like(model.encoder["head"]), "head_bias": bias}
    return replace(model, theta=theta, decoder=decoder, encoder=encoder)


def split_contexts(own: Comparisons, generator: torch.Generator) -> tuple[Comparisons, Comparisons]:
    """Part every user's decisions, by source, into a context and targets.

    The share of the context is drawn for each user, its size uniform on a logarithmic scale from one decision to all.
    """
    device = own.weight.device
    count = torch.bincount(own.owner, minlength=own.n_users).clamp(min=1).double()
    drawn = torch.rand(own.n_users, generator=generator, dtype=torch.float64).to(device)
    share = (drawn * count.log()).exp() / count * 0.95
    _, group = own.group.unique(return_inverse=True)
    dealt = torch.rand(int(group.max()) + 1 if len(group) else 0, generator=generator, dtype=torch.float64).to(device)
    within = dealt[group] < share[own.owner]
    return own.take(within), own.take(~within)


class Explained(NamedTuple):
    """Targets under what contexts say of their users.

    Attributes:
        log_prob: The first term of the bound, E log P or log E P, (targets,).
        margin: Mean margin over the draws of z, (targets,).
        message: Of every user's context.
        posterior: Of every user.
    """

    log_prob: Float[Tensor, " targets"]
    margin: Float[Tensor, " targets"]
    message: Message
    posterior: Gaussians


def explain(
    model: Latent,
    items: Float[Tensor, "items width1"],
    context: Comparisons,
    targets: Comparisons,
    noise: Float[Tensor, "users 1 draws latent"],
    bound: Bound,
) -> Explained:
    """Read contexts and predict targets.

    Args:
        model: Encoder and decoder.
        items: What contexts and targets index (`Latent.items`).
        context: What is read of every user; without any, the posterior is the prior.
        targets: What is predicted; its owners are the users of `context`.
        noise: Draws from N(0, I), the same for every component of the prior.
        bound: "elbo" or "predictive".
    """
    message = read(model, items, context)
    found = condition(model.prior, message)
    z, log_weight = found.draw(noise)
    rows = embed(model.decoder, model.form, items, targets.chosen, targets.rejected)
    margin = decode(model.decoder, model.form, rows, z, targets.owner[targets.decisions.index])
    log_prob = Logit().log_prob(margin, targets.decisions)
    each = log_weight[targets.owner]
    explained = (log_prob + each).logsumexp(1) if bound == "predictive" else (log_prob * each.exp()).sum(1)
    return Explained(explained, (margin * each.exp()[targets.decisions.index]).sum(1), message, found)


def negative_bound(
    model: Latent,
    items: Float[Tensor, "items width1"],
    context: Comparisons,
    targets: Comparisons,
    settings: LatentSettings,
    weight: float,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Minus the bound, a mean over the targets, with its guidance."""
    shape = (context.n_users, 1, settings.draws, model.latent_dim)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(items)
    said = explain(model, items, context, targets, noise, settings.bound)
    total = targets.weight.sum().clamp(min=1e-12)
    loss = -(said.log_prob * targets.weight).sum() / total
    if weight:
        kl, parts = divergence(model.prior, said.message)
        if settings.free_bits:
            kl = parts.mean(0).clamp(min=settings.free_bits).sum() * len(kl)
        loss = loss + weight * kl.sum() / total
    if settings.swap_weight:
        other = condition(model.prior, read(model, items, context.swapped())).center
        apart = torch.nn.functional.cosine_similarity(said.posterior.center, other, dim=1)
        loss = loss + settings.swap_weight * (1 + apart).mean()
    return loss


def train(
    model: Latent,
    design: Design,
    settings: LatentSettings,
    *,
    held: Design | None = None,
    steps: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Latent, tuple[Look, ...]]:
    """Train, and return the weights of the best look (of the last step without `held`), and all looks.

    Args:
        model: Where to begin.
        design: Training rows.
        settings: How.
        held: Rows of held-out sources of the same users.
        steps: Optimizer steps to take; None means as many as the settings say. The schedules are those of the settings.
        on_step: Called with the number of optimizer steps taken.
    """
    model = _trainable(model)
    learned = _learned(model, settings)
    items = model.items(design.features).detach()
    panel, g = Panel(design), torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(learned, lr=settings.learning_rate, weight_decay=settings.decay)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(settings.steps, 1), eta_min=settings.learning_rate / 10
    )
    watch = None if held is None else _Watch(panel, held, settings.seed)
    looks = [] if watch is None else [watch.look(model, 0, 0.0)]
    best = _copied(model)
    queue = panel.users.new_zeros(0)
    for step in range(settings.steps if steps is None else steps):
        while len(queue) < min(settings.users, len(panel.users)):
            queue = torch.cat([queue, panel.users[torch.randperm(len(panel.users), generator=g)]])
        users, queue = queue[: settings.users], queue[settings.users :]
        context, targets = split_contexts(panel.of(users), g)
        weight = settings.weight_at(step)
        if len(targets.weight):
            optimizer.zero_grad(set_to_none=True)
            negative_bound(model, items, context, targets, settings, weight, g).backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
        falling.step()
        if on_step is not None:
            on_step(step + 1)
        if watch is not None and (step + 1) % settings.every == 0:
            looks.append(watch.look(model, step + 1, weight))
            top = best_look(looks)
            if top == len(looks) - 1:
                best = _copied(model)
            elif len(looks) - 1 - top >= settings.patience:
                break
    return (best if watch is not None else _copied(model)), tuple(looks)


def best_look(looks: list[Look] | tuple[Look, ...]) -> int:
    """Position of the look at which users were predicted best, placed by many and by few decisions alike."""
    return int(np.argmax([look.log_prob + look.few for look in looks]))


class _Watch:
    """Looks at held-out rows: contexts are training rows, the same at every look."""

    def __init__(self, panel: Panel, held: Design, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)  # its own: looking changes nothing about training
        self.held, self.users = held, panel.users
        own = panel.of(torch.arange(panel.design.n_users, device=panel.design.user.device))
        few = torch.zeros_like(own.owner, dtype=torch.bool)
        shuffled = torch.randperm(len(own.owner), generator=generator).to(own.owner.device)
        shuffled = shuffled[torch.argsort(own.owner[shuffled], stable=True)]
        size = torch.bincount(own.owner, minlength=own.n_users)
        place = torch.arange(len(shuffled), device=size.device) - (size.cumsum(0) - size)[own.owner[shuffled]]
        few[shuffled[place < 4]] = True
        # `own` is sorted by user; back to the design's decisions.
        order = torch.argsort(panel.design.user, stable=True)
        kept = torch.zeros_like(few)
        kept[order] = few
        self.all, self.few = panel.design, panel.design.take(kept)

    def look(self, model: Latent, step: int, weight: float) -> Look:
        with torch.no_grad():
            placed = place_latent(model, self.all)
            kl = divergence(placed.prior, message_of(placed.prior, placed.posterior))[0][self.users].mean()
            return Look(
                step=step,
                kl_weight=weight,
                log_prob=mean_log_prob(placed.predict(self.held, draws=16)),
                few=mean_log_prob(place_latent(model, self.few).predict(self.held, draws=16)),
                kl=float(kl),
            )


def mean_log_prob(predictions: Predictions) -> float:
    """Weighted mean log-probability, nats per decision."""
    return float(np.average(predictions.log_prob, weights=predictions.weight))


def hold_out(design: Design, share: float, seed: int) -> Bool[Tensor, " decisions"]:
    """Decisions of a random share of the sources, at least one of them.

    Raises:
        ConfigError: All decisions have one source.
    """
    source, number = design.source.unique(return_inverse=True)
    if len(source) < 2:
        raise ConfigError(
            "every row has the same source; latent users need two, a context and targets that are no siblings of it",
            hint="give the table a `source` that tells finer, or leave out the rung `latent`",
        )
    count = min(max(1, round(share * len(source))), len(source) - 1)
    out = torch.zeros(len(source), dtype=torch.bool)
    out[torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:count]] = True
    return out.to(number.device)[number]


def _trainable(model: Latent) -> Latent:
    def leaf(each: Tensor) -> Tensor:
        return each.detach().clone().requires_grad_()

    return replace(
        model,
        decoder={name: leaf(each) for name, each in model.decoder.items()},
        encoder={name: leaf(each) for name, each in model.encoder.items()},
        prior_log_weight=leaf(model.prior_log_weight),
        prior_mean=leaf(model.prior_mean),
        prior_log_variance=leaf(model.prior_log_variance),
    )


def _learned(model: Latent, settings: LatentSettings) -> list[Tensor]:
    skipped = {"taste", "shift"} if not settings.guided and settings.form != "linear" else set()
    found = [each for name, each in model.decoder.items() if name not in skipped] + list(model.encoder.values())
    if settings.prior != "normal":
        found += [model.prior_mean, model.prior_log_variance]
    return [*found, model.prior_log_weight] if settings.prior == "mixture" else found


def _copied(model: Latent) -> Latent:
    def copy(each: Tensor) -> Tensor:
        return each.detach().clone()

    return replace(
        model,
        decoder={name: copy(each) for name, each in model.decoder.items()},
        encoder={name: copy(each) for name, each in model.encoder.items()},
        prior_log_weight=copy(model.prior_log_weight),
        prior_mean=copy(model.prior_mean),
        prior_log_variance=copy(model.prior_log_variance),
    )
