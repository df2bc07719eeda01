"""The set encoder: from a user's comparisons to a message about z, whatever their order and number.

Each comparison goes through a small net, which reads its items in the order chosen, rejected (a soft outcome y is y of
one order and 1 - y of the other); the results are pooled over the user's comparisons by mean or by attention; a second
net turns the pooled vector into the message. Pooling forgets how many comparisons there were, so the message's
precision grows with their number (the weights count): q tightens as a posterior does, and no comparison is the prior.

A *guided* encoder (the default) has a few Newton steps to begin with. With v = M' W' d a comparison's coordinates,
slope s and curvature c of its log-probability at z_0 in the linear part of the decoder, and prior N(0, I), they go from
z_0 towards (I + sum c v v')^-1 (sum s v + sum c v v' z_0), beginning at 0. Where they end, and the variance that each
dimension has there, are made into a message, and the nets learn to scale and to move it. In the linear form it is
Laplace's posterior, as of the `basis` rung, but for the correlations that a diagonal Gaussian leaves out. (A choice
among k counts here as k - 1 comparisons with one curvature each, which is a little too much.)
An unguided one, as in the paper's code but for clamps and normalisation of z, has to find all of this by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import leaky_relu, softplus

from pluralign.features import Design
from pluralign.inference.latent_prior import Message, condition
from pluralign.likelihoods import Decisions, Logit
from pluralign.users.latent import SLOPE, Gaussians, Latent

N_STEPS = 4  # of Newton's method in a guided encoder
_STRIDE = 1.0  # length of a step at most, in prior standard deviations: a whole one may overshoot
_FAR = 3.0  # the nets scale a Newton step by at most exp(3)
_BLOCK_ROWS = 2**15


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparisons:
    """Comparisons of some users, who are numbered from 0.

    Attributes:
        chosen: Item of every row.
        rejected: The other one.
        decisions: How rows group into decisions.
        weight: Of every decision.
        owner: User of every decision.
        group: Number of the (user, source) of every decision.
        n_users: Number of users, with comparisons or without.
    """

    chosen: Int[Tensor, " rows"]
    rejected: Int[Tensor, " rows"]
    decisions: Decisions
    weight: Float[Tensor, " decisions"]
    owner: Int[Tensor, " decisions"]
    group: Int[Tensor, " decisions"]
    n_users: int

    def take(self, keep: Bool[Tensor, " decisions"]) -> "Comparisons":
        """The decisions marked."""
        rows = keep[self.decisions.index]
        decisions = Decisions(
            index=(keep.cumsum(0) - 1)[self.decisions.index[rows]],
            outcome=self.decisions.outcome[rows],
            position=self.decisions.position[rows],
        )
        return replace(
            self,
            chosen=self.chosen[rows],
            rejected=self.rejected[rows],
            decisions=decisions,
            weight=self.weight[keep],
            owner=self.owner[keep],
            group=self.group[keep],
        )

    def swapped(self) -> "Comparisons":
        """What somebody of the opposite taste would have said."""
        return replace(self, decisions=replace(self.decisions, outcome=1 - self.decisions.outcome))


class Panel:
    """A design's comparisons sorted by user, so that those of any users are found without a search."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.group = torch.stack([design.user, design.source]).unique(dim=1, return_inverse=True)[1]
        user = design.user[design.decisions.index]
        self._order = torch.argsort(user, stable=True)  # keeps the rows of a decision together
        self._size = torch.bincount(user, minlength=design.n_users)
        self._start = self._size.cumsum(0) - self._size

    @property
    def users(self) -> Int[Tensor, " present"]:
        """Users with a comparison."""
        return self._size.nonzero()[:, 0]

    def of(self, users: Int[Tensor, " some"]) -> "Comparisons":
        """All comparisons of some users."""
        size = self._size[users]
        owner = torch.repeat_interleave(size)
        place = torch.arange(len(owner), device=owner.device) - (size.cumsum(0) - size)[owner]
        rows = self._order[self._start[users][owner] + place]
        whole = self.design.decisions
        index = whole.index[rows]
        first = torch.ones_like(index, dtype=torch.bool)
        first[1:] = index[1:] != index[:-1]
        decision = index[first]
        return Comparisons(
            chosen=self.design.chosen[rows],
            rejected=self.design.rejected[rows],
            decisions=Decisions(index=first.cumsum(0) - 1, outcome=whole.outcome[rows], position=whole.position[rows]),
            weight=self.design.weight[decision],
            owner=owner[first],
            group=self.group[decision],
            n_users=len(users),
        )

    def blocks(self) -> Iterator[Int[Tensor, " some"]]:
        """Users in runs of about so many rows that their work stays in cache; users without a row are in none."""
        users = self.users
        number = (self._size[users].cumsum(0) - 1) // _BLOCK_ROWS
        yield from users.split(torch.unique_consecutive(number, return_counts=True)[1].tolist())


def read(model: Latent, items: Float[Tensor, "items width1"], own: Comparisons) -> Message:
    """The message of every user's comparisons.

    Args:
        model: Encoder and decoder.
        items: `Latent.items` of the features that the comparisons index.
        own: The comparisons.
    """
    encoder, index = model.encoder, own.decisions.index
    first, second = items.index_select(0, own.chosen), items.index_select(0, own.rejected)
    row_user, per_row = own.owner[index], own.weight[index]
    # Each of k - 1 rows is a part of one decision.
    share = per_row / torch.bincount(index, minlength=len(own.weight))[index]
    hidden = _pair(model, first, second)
    if not own.decisions.sure:
        outcome = own.decisions.outcome[:, None]
        hidden = outcome * hidden + (1 - outcome) * _pair(model, second, first)
    count = _sum(share, row_user, own.n_users)
    if model.pooling == "attention":
        score = hidden @ encoder["query"]
        top = score.new_full((own.n_users,), -torch.inf).scatter_reduce(0, row_user, score.detach(), "amax")
        share = share * (score - top[row_user]).exp()
    total = _sum(share, row_user, own.n_users).clamp(min=1e-12)
    pooled = _sum(share[:, None] * hidden, row_user, own.n_users) / total[:, None]
    pooled = leaky_relu(pooled @ encoder["pooled"] + encoder["pooled_bias"], SLOPE)
    center, tight, bold = (pooled @ encoder["head"] + encoder["head_bias"]).chunk(3, dim=1)
    if not model.guided:
        precision = count[:, None] * softplus(tight)
        return Message(precision * center, precision)
    difference = first - second
    margin = difference[:, -1] + difference[:, :-1] @ model.decoder["shift"]
    along = difference[:, :-1] @ model.decoder["taste"]
    outer = along[:, :, None] * along[:, None]
    eye = torch.eye(along.shape[1], dtype=along.dtype, device=along.device)
    at = along.new_zeros((own.n_users, along.shape[1]))
    for _ in range(N_STEPS):
        now = (margin + (along * at[row_user]).sum(1))[:, None]
        slope = Logit().slope(now, own.decisions) * per_row[:, None]
        bend = Logit().curvature(now, own.decisions)[0] * per_row[:, None]
        told = _sum(bend[..., None] * outer, row_user, own.n_users)
        pull = _sum(slope * along, row_user, own.n_users) + (told @ at[..., None])[..., 0]
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(eye + told))
        step = (covariance @ pull[..., None])[..., 0] - at
        at = at + step * (_STRIDE / step.norm(dim=1, keepdim=True).clamp(min=_STRIDE))
    variance = covariance.diagonal(dim1=1, dim2=2)
    linear, precision = at / variance, (1 / variance - 1).clamp(min=0)
    return Message(
        linear * bold.clamp(-_FAR, _FAR).exp() + precision * center, precision * tight.clamp(-_FAR, _FAR).exp()
    )


def place_latent(model: Latent, design: Design) -> Latent:
    """The model of the design's users, each placed by all of their comparisons, the prior where there is none."""
    panel, items = Panel(design), model.items(design.features)
    found = Gaussians(*(part.expand(design.n_users, *part.shape[1:]).clone() for part in model.prior))
    with torch.no_grad():
        for users in panel.blocks():
            for part, some in zip(found, condition(model.prior, read(model, items, panel.of(users))), strict=True):
                part[users] = some
    return model.with_posterior(found)


def _pair(model: Latent, first: Tensor, second: Tensor) -> Tensor:
    encoder = model.encoder
    seen = first - second if model.inputs == "differences" else torch.cat([first, second], dim=1)
    hidden = leaky_relu(seen @ encoder["pair"] + encoder["pair_bias"], SLOPE)
    return leaky_relu(hidden @ encoder["second"] + encoder["second_bias"], SLOPE)


def _sum(rows: Float[Tensor, "rows *width"], user: Int[Tensor, " rows"], n_users: int) -> Float[Tensor, "users *width"]:
    return rows.new_zeros((n_users, *rows.shape[1:])).index_add(0, user, rows)
