"""`Latent`: users are points z in a small space, inferred from their own comparisons by a set encoder.

Variational preference learning (VPL, arXiv 2408.10075) on frozen features. With c(phi) = phi W a few coordinates of an
item and z_u the user, the margin of a over b is

    (theta + W t + W M z) . (phi(a) - phi(b)) + net(c(a), c(b), z),

in one of three forms (`Form`): "linear" has no net, and is the `basis` rung with another posterior; "scalar" has
net = f(c(a), z) - f(c(b), z), the paper's decoder on [phi; z] beside a linear part; "pairwise" has
net = g(c(a), c(b), z) - g(c(b), c(a), z), the paper's SPO form, whose reward is the probability of being preferred to a
reference item. In all three P(a over b) + P(b over a) = 1.

A user is a mixture of Gaussians with diagonal covariance, of one component where the prior has one; the unknown user
is the prior. Probabilities are averages over fixed Sobol draws of z: the same z, at the same scale, as in training.
Not in the paper: the linear part, the coordinates, and averaging over q instead of using its mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import leaky_relu

from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.likelihoods import Logit
from pluralign.users.model import predictions_from

Form = Literal["linear", "scalar", "pairwise"]
Pooling = Literal["mean", "attention"]
Inputs = Literal["differences", "pairs"]
Weights = Mapping[str, Tensor]

FORMS: tuple[Form, ...] = ("linear", "scalar", "pairwise")
N_DRAWS = 64  # of z, shared out among the components of a mixture
N_REFERENCES = 64
SLOPE = 0.2  # of LeakyReLU, as in the paper's code
_BLOCK_FLOATS = 2**20  # such a block stays in cache: three times quicker than one of 2**22
_CACHE_FLOATS = 2**17


class Gaussians(NamedTuple):
    """A mixture of Gaussians with diagonal covariance for every user."""

    log_weight: Float[Tensor, "users components"]
    mean: Float[Tensor, "users components latent"]
    log_variance: Float[Tensor, "users components latent"]

    @property
    def center(self) -> Float[Tensor, "users latent"]:
        """Mean of the whole mixture."""
        return (self.log_weight.exp()[..., None] * self.mean).sum(1)

    def draw(self, noise: Float[Tensor, "*users draws latent"]) -> tuple[Tensor, Tensor]:
        """As many draws from each component: z, (users, components * draws, latent), and their log-weights."""
        each = self.mean[:, :, None] + (self.log_variance[:, :, None] / 2).exp() * noise
        log_weight = (self.log_weight - float(np.log(noise.shape[-2])))[..., None].expand(*each.shape[:3])
        return each.flatten(1, 2), log_weight.flatten(1, 2)


class Targets(NamedTuple):
    """Rows as a decoder sees them, every item embedded once: coordinates, and first layers where there is a net."""

    base: Float[Tensor, " rows"]
    difference: Float[Tensor, "rows width"]
    first: Float[Tensor, "rows hidden"] | None
    second: Float[Tensor, "rows hidden"] | None

    def take(self, rows: slice) -> "Targets":
        return Targets(*(None if each is None else each[rows] for each in self))  # type: ignore[arg-type]


def embed(
    decoder: Weights,
    form: Form,
    items: Float[Tensor, "items width1"],
    chosen: Int[Tensor, " rows"],
    rejected: Int[Tensor, " rows"],
) -> Targets:
    """Look items up as `decode` wants them.

    Args:
        decoder: Weights.
        form: Which decoder.
        items: Coordinates of every item and, last, its score under theta, (items, width + 1).
        chosen: First item of every row.
        rejected: Second.
    """
    if 2 * len(chosen) < len(items):  # of many items, a batch of rows needs few
        items = items.index_select(0, torch.cat([chosen, rejected]))
        chosen, rejected = torch.arange(len(items), device=items.device).view(2, -1)
    difference = items.index_select(0, chosen) - items.index_select(0, rejected)
    difference, base = difference[:, :-1], difference[:, -1]
    if form == "linear":
        return Targets(base, difference, None, None)
    if form == "scalar":
        layer = items[:, :-1] @ decoder["item"] + decoder["bias"]
        return Targets(base, difference, layer.index_select(0, chosen), layer.index_select(0, rejected))
    left, right = items[:, :-1] @ decoder["item"] + decoder["bias"], items[:, :-1] @ decoder["other"]
    return Targets(
        base,
        difference,
        left.index_select(0, chosen) + right.index_select(0, rejected),
        left.index_select(0, rejected) + right.index_select(0, chosen),
    )


def decode(
    decoder: Weights, form: Form, targets: Targets, z: Float[Tensor, "users draws latent"], who: Int[Tensor, " rows"]
) -> Float[Tensor, "rows draws"]:
    """Margin of every row under every draw of its user's z."""
    along = targets.difference @ decoder["taste"]  # first, since z has fewer numbers than an item has coordinates
    margin = targets.base + targets.difference @ decoder["shift"]
    margin = margin[:, None] + (z[who] @ along[..., None])[..., 0]
    if form == "linear":
        return margin
    assert targets.first is not None
    assert targets.second is not None
    at = (z @ decoder["latent"])[who]
    return margin + _net(decoder, targets.first[:, None] + at) - _net(decoder, targets.second[:, None] + at)


def _net(decoder: Weights, first: Float[Tensor, "rows draws hidden"]) -> Float[Tensor, "rows draws"]:
    hidden = leaky_relu(leaky_relu(first, SLOPE) @ decoder["hidden"] + decoder["hidden_bias"], SLOPE)
    return hidden @ decoder["last"]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Latent:
    """Users are points in a small space, inferred from their own comparisons (module docstring).

    Attributes:
        theta: What an average user wants, as far as the linear part has it, (dim,).
        coordinates: W, the directions of the features in which users may differ, (dim, width).
        decoder: Weights: `shift` (width,) and `taste` (width, latent), and those of the net.
        encoder: Weights of the set encoder.
        prior_log_weight: Of each component of the prior, (components,).
        prior_mean: (components, latent).
        prior_log_variance: (components, latent).
        log_weight: Posterior of every known user, (users, components).
        mean: (users, components, latent).
        log_variance: (users, components, latent).
        reference: Items (coordinates and score) that a pairwise reward compares with, (references, width + 1).
        form: Which decoder.
        pooling: How the encoder pools a user's comparisons.
        inputs: What it reads of each.
        guided: Whether it corrects a Newton step from z = 0, or has to find everything by itself.
    """

    kind: ClassVar[str] = "latent"
    theta: Float[Tensor, " dim"]
    coordinates: Float[Tensor, "dim width"]
    decoder: dict[str, Tensor]
    encoder: dict[str, Tensor]
    prior_log_weight: Float[Tensor, " components"]
    prior_mean: Float[Tensor, "components latent"]
    prior_log_variance: Float[Tensor, "components latent"]
    log_weight: Float[Tensor, "users components"]
    mean: Float[Tensor, "users components latent"]
    log_variance: Float[Tensor, "users components latent"]
    reference: Float[Tensor, "references width1"]
    form: Form = "scalar"
    pooling: Pooling = "mean"
    inputs: Inputs = "differences"
    guided: bool = True

    @property
    def n_users(self) -> int:
        return self.mean.shape[0]

    @property
    def dim(self) -> int:
        return self.theta.numel()

    @property
    def latent_dim(self) -> int:
        return self.mean.shape[2]

    @property
    def n_parameters(self) -> int:
        # The encoder computes a posterior; it is no part of the model of choices.
        prior = self.prior_log_weight.numel() - 1 + self.prior_mean.numel() + self.prior_log_variance.numel()
        return self.dim + self.coordinates.numel() + sum(weight.numel() for weight in self.decoder.values()) + prior

    @property
    def prior(self) -> Gaussians:
        """The unknown user, as a mixture of one user."""
        log_weight = self.prior_log_weight.log_softmax(0)
        return Gaussians(log_weight[None], self.prior_mean[None], self.prior_log_variance[None])

    @property
    def posterior(self) -> Gaussians:
        """Every known user."""
        return Gaussians(self.log_weight, self.mean, self.log_variance)

    @property
    def linear_part(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, "dim latent"]]:
        """theta + W t and V = W M of the linear part (theta + V z) . phi, all there is in the "linear" form."""
        return (
            self.theta + self.coordinates @ self.decoder["shift"],
            self.coordinates @ self.decoder["taste"],
        )

    def items(self, features: Float[Tensor, "items dim"]) -> Float[Tensor, "items width1"]:
        """What encoder and decoder see of the items: coordinates and, last, the score under theta."""
        return features @ torch.cat([self.coordinates, self.theta[:, None]], dim=1)

    def with_posterior(self, users: Gaussians) -> "Latent":
        """The same model of other users."""
        return replace(self, log_weight=users.log_weight, mean=users.mean, log_variance=users.log_variance)

    def predict(
        self, design: Design, user: Int[Tensor, " decisions"] | None = None, *, draws: int = N_DRAWS
    ) -> Predictions:
        """As in `UserModel.predict`; `draws` of 0 takes the mean of z alone, as the paper's evaluation does."""
        user = design.user if user is None else user
        z, log_weight = self.draw(draws)
        items, hidden = self.items(design.features), self.decoder.get("hidden")
        floats = z.shape[1] * (len(z[0, 0]) + items.shape[1] + (0 if hidden is None else 5 * hidden.shape[0]))
        targets = embed(self.decoder, self.form, items, design.chosen, design.rejected)
        chosen, other = items.new_empty(design.n_decisions), items.new_empty(design.n_rows)
        for rows, decisions, within in design.decisions.blocks(max(1, _BLOCK_FLOATS // floats)):
            who = user[decisions]
            margin = decode(self.decoder, self.form, targets.take(rows), z, who[within.index])
            first, second = Logit().choice_probabilities(margin, within)
            weight = log_weight[who].exp()
            chosen[decisions], other[rows] = (first * weight).sum(1), (second * weight[within.index]).sum(1)
        return predictions_from(design, chosen, other)

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        """As in `UserModel.reward`; in the "pairwise" form it is `preferred`, a probability."""
        if self.form == "pairwise":
            return self.preferred(features, user)
        z, log_weight = self.draw(N_DRAWS)
        items = self.items(features)
        nothing = torch.zeros_like(items[:1])
        mean, sd = items.new_empty(len(items)), items.new_empty(len(items))
        step = max(1, _BLOCK_FLOATS // (z.shape[1] * 512))
        for at in range(0, len(items), step):
            here, who = slice(at, at + step), user[at : at + step]
            both = torch.cat([items[here], nothing])
            own = torch.arange(len(who), device=who.device)
            targets = embed(self.decoder, self.form, both, own, torch.full_like(own, len(who)))
            mean[here], sd[here] = _moments(decode(self.decoder, self.form, targets, z, who), log_weight[who].exp())
        return mean, sd

    def reward_at(
        self, features: Float[Tensor, "items dim"], z: Float[Tensor, "draws latent"]
    ) -> Float[Tensor, "items draws"]:
        """Reward of every item under every z, over that of an item without features, as in `reward`.

        Raises:
            ConfigError: The pairwise form, which has no reward of its own.
        """
        if self.form == "pairwise":
            raise ConfigError(
                'form is "pairwise", which compares two items and has no reward of one',
                hint='take form "scalar" or "linear"',
            )
        items = self.items(features)
        taste = self.decoder["shift"] + z @ self.decoder["taste"].T
        found = items[:, -1:] + items[:, :-1] @ taste.T
        if self.form == "linear":
            return found
        at, layer = z @ self.decoder["latent"], items[:, :-1] @ self.decoder["item"]
        nothing = self.decoder["bias"] + at
        found -= _net(self.decoder, nothing[None])
        step = max(1, _CACHE_FLOATS // max(1, nothing.numel()))
        for some, into in zip(layer.split(step), found.split(step), strict=True):
            into += _net(self.decoder, some[:, None] + nothing)
        return found

    def preferred(
        self,
        features: Float[Tensor, "items dim"],
        user: Int[Tensor, " items"],
        reference: Float[Tensor, "references dim"] | None = None,
        *,
        draws: int = 16,
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        """The SPO reward r(y) = E_y' P(y over y' | z), in [0, 1] whatever the form: its mean and deviation over z.

        Args:
            features: What is scored.
            user: Whose reward, (items,).
            reference: Features of the items y'; None means a sample of those the model was fitted on.
            draws: Draws of z.
        """
        z, log_weight = self.draw(draws)
        against = self.reference if reference is None else self.items(reference)
        items = self.items(features)
        mean, sd = items.new_empty(len(items)), items.new_empty(len(items))
        step = max(1, _BLOCK_FLOATS // (z.shape[1] * 512 * len(against)))
        for at in range(0, len(items), step):
            here, who = slice(at, at + step), user[at : at + step]
            own = torch.arange(len(who), device=who.device).repeat_interleave(len(against))
            other = len(who) + torch.arange(len(against), device=who.device).repeat(len(who))
            targets = embed(self.decoder, self.form, torch.cat([items[here], against]), own, other)
            won = torch.sigmoid(decode(self.decoder, self.form, targets, z, who[own]))
            per_draw = won.view(len(who), len(against), -1).mean(1)
            mean[here], sd[here] = _moments(per_draw, log_weight[who].exp())
        return mean, sd

    def draw(self, draws: int) -> tuple[Tensor, Tensor]:
        """Draws of every user's z, the unknown user's last, and their log-weights.

        Returns:
            z, (users + 1, n, latent), and log-weights, (users + 1, n); n is 1, the mean, where `draws` is 0.

        Raises:
            ConfigError: Draws below 0.
        """
        if draws < 0:
            raise ConfigError(f"draws is {draws}; it must be at least 0, which means the mean of z")
        # UNKNOWN is -1, which indexes the row appended last.
        everybody = Gaussians(*(torch.cat(pair) for pair in zip(self.posterior, self.prior, strict=True)))
        if not draws:
            center = everybody.center
            return center[:, None], center.new_zeros((len(center), 1))
        each = max(1, draws // self.prior_log_weight.numel())
        return everybody.draw(torch.from_numpy(sobol(each, self.latent_dim)).to(self.mean))


def require_pairs(design: Design, form: Form) -> None:
    """Raise where the pairwise form meets choices among more than two.

    Raises:
        ConfigError: It does.
    """
    if form == "pairwise" and not design.decisions.pairwise:
        raise ConfigError(
            'form is "pairwise" and some decisions are among more than two items, whose rewards it does not have',
            hint='take form "scalar" or "linear"',
        )


def _moments(value: Float[Tensor, "rows draws"], weight: Float[Tensor, "rows draws"]) -> tuple[Tensor, Tensor]:
    mean = (value * weight).sum(1)
    return mean, ((value - mean[:, None]) ** 2 * weight).sum(1).sqrt()


@lru_cache
def sobol(draws: int, latent: int) -> np.ndarray:
    """Fixed quasi-random draws from N(0, I), (draws, latent)."""
    uniform = torch.quasirandom.SobolEngine(max(latent, 1), scramble=True, seed=0).draw(draws, dtype=torch.float64)
    normal: np.ndarray = torch.special.ndtri(uniform[:, :latent].clamp(1e-9, 1 - 1e-9)).numpy()
    return normal
