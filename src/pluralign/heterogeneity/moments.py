"""What pairs of decisions by one user have in common, beyond what pairs by different users have.

At the pooled reward theta let s_i be the score of decision i (the gradient of its log-probability) and I_i its
information, in coordinates in which the mean information is the identity. To first order in the spread of users'
rewards theta_u = scale_u (theta + o_u), two different decisions i, j of one user have

    E s_i s_j' = I_i (taste I + reliability theta theta') I_j,

taste the variance of o_u in each of the r coordinates, reliability that of scale_u. Whatever shape the covariance of
o_u has, its trace, and so how much it moves margins on average, is that of taste I: mean information I weighs all
directions alike. Products over two decisions of one user are free of the chance in either. From each sum over such
pairs the same sum over pairs of decisions by different users is taken, in proportion: what all users share, a reward
that no theta fits or a theta not yet learned, is in both. This is the numerator of the score test of a variance
component (le Cessie and van Houwelingen 1995; Lin 1997) made an estimate; nothing is shrunk, since nobody's own
reward is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.gaussian_blocks import UserBlock, user_blocks
from pluralign.inference.gaussian_evidence import curvature_sample
from pluralign.likelihoods import Logit
from pluralign.types import FloatArray

_DECISIONS_PER_DIRECTION = 10  # below it the information of a direction is hardly known


@dataclass(frozen=True, eq=False, kw_only=True)
class Whitened:
    """A design in coordinates of unit mean information at the pooled reward.

    Attributes:
        design: The rows, on whitened features (items, r).
        theta: The pooled reward there, (r,).
    """

    design: Design
    theta: Float[Tensor, " r"]

    @classmethod
    def of(cls, design: Design, theta: Float[Tensor, " dim"]) -> Whitened:
        """Whiten; directions without information, and those beyond a tenth of the decisions, are dropped."""
        theta = theta.to(design.features)
        weight = design.weight.double().sum()
        size, axis = torch.linalg.eigh(curvature_sample(design, theta, Logit(), design.n_decisions) / weight)
        most = max(design.n_decisions // _DECISIONS_PER_DIRECTION, 1)
        kept = (size > 1e-6 * size[-1]) & (torch.arange(len(size), device=size.device) >= len(size) - most)
        size, axis = size[kept], axis[:, kept]
        basis = (axis / size.sqrt()).to(theta)
        inverse = (axis * size.sqrt()).to(theta)
        return cls(design=design.with_features(design.features @ basis), theta=inverse.T @ theta)

    @property
    def rank(self) -> int:
        return len(self.theta)


@dataclass(frozen=True, eq=False, kw_only=True)
class UserMoments:
    """Sums over the decisions of every user who has one.

    Attributes:
        rank: Number of whitened directions, r.
        strength: theta' theta, the variance of pooled margins in whitened coordinates.
        score: Sum of s_i, (users, r).
        along: Sum of theta' s_i, (users,).
        own: Sums of |s_i|^2 and of (theta' s_i)^2, (users, 2).
        weight: Sums of the weight and of its square, (users, 2).
        products: Sums over pairs of different decisions, in either order, of tr I_i I_j, theta' I_i I_j theta and
            (theta' I_i theta)(theta' I_j theta), (users, 3).
    """

    rank: int
    strength: float
    score: FloatArray
    along: FloatArray
    own: FloatArray
    weight: FloatArray
    products: FloatArray

    @classmethod
    def of(cls, whitened: Whitened) -> UserMoments:
        """Sum over users, in blocks of users of similar size."""
        design, theta = whitened.design, whitened.theta
        blocks = user_blocks(design, lambda width: width * (whitened.rank + min(width, whitened.rank)))
        parts = [_of_block(block, design, theta) for block in blocks]
        score, along, own, weight, products = (
            torch.cat(column).double().numpy(force=True) for column in zip(*parts, strict=True)
        )
        return cls(
            rank=whitened.rank,
            strength=float(theta @ theta),
            score=score,
            along=along,
            own=own,
            weight=weight,
            products=products,
        )

    def solve(self) -> tuple[FloatArray, FloatArray]:
        """Return (taste, reliability) of all users, and without each of them, (users, 2).

        Either may be below 0; the other is then what it is where the first is 0.
        """
        score, own, weight = self.score, self.own, self.weight
        square = np.stack([(score**2).sum(1), self.along**2], axis=1)
        total = np.stack([np.array([(score.sum(0) ** 2).sum(), self.along.sum() ** 2])])
        without = total + square
        without[:, 0] -= 2 * score @ score.sum(0)
        without[:, 1] -= 2 * self.along * self.along.sum()

        def remain(each: FloatArray) -> FloatArray:
            return np.concatenate([each.sum(0)[None], each.sum(0) - each])

        squares, sums = remain(square), np.concatenate([total, without])
        mass, mass_square = remain(weight).T
        user_square = remain(weight[:, :1] ** 2)[:, 0]
        within, between = user_square - mass_square, mass**2 - user_square
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(between > 0, within / between, 0.0)
        seen = squares - remain(own) - ratio[:, None] * (sums - squares)
        a, b, c = remain(self.products).T
        matrix = np.stack([np.stack([a, b], -1), np.stack([b, c], -1)], -2)
        found: FloatArray = (np.linalg.pinv(matrix, rcond=1e-9, hermitian=True) @ seen[:, :, None])[:, :, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            alone = seen / np.stack([a, c], axis=1)
        negative = found[0] < 0  # a variance that is none leaves what there is to the other
        found = np.where(negative[::-1], alone, found)
        return found[0], found[1:]


def _of_block(block: UserBlock, design: Design, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    likelihood, decisions = Logit(), block.decisions
    x = design.differences(block.rows)
    margin = x @ theta
    slope = block.slope(margin, likelihood)
    half = block.curvature(margin, likelihood).half(x)  # rows whose products are the information

    def by_user(per_decision: Tensor) -> Tensor:
        return per_decision.new_zeros((block.count, *per_decision.shape[1:])).index_add_(
            0, block.decision_owner, per_decision
        )

    score = decisions.sum(slope[:, None] * x)
    along = decisions.sum(slope * margin)
    padded = block.pad(half)
    gram = padded @ padded.mT if block.width < len(theta) else padded.mT @ padded
    turned = decisions.sum((half @ theta)[:, None] * half)  # I_i theta
    bent = decisions.sum((half @ theta) ** 2)  # theta' I_i theta
    user_turned, user_bent = by_user(turned), by_user(bent)
    products = torch.stack(
        [
            gram.square().sum((1, 2)) - by_user(_squared(half, block)),
            user_turned.square().sum(1) - by_user(turned.square().sum(1)),
            user_bent**2 - by_user(bent**2),
        ],
        dim=1,
    )
    return (
        by_user(score),
        by_user(along),
        torch.stack([by_user(score.square().sum(1)), by_user(along**2)], dim=1),
        torch.stack([by_user(block.weight), by_user(block.weight**2)], dim=1),
        products,
    )


def _squared(half: Tensor, block: UserBlock) -> Tensor:
    """tr I_i I_i of every decision, (decisions,)."""
    decisions = block.decisions
    if decisions.pairwise:
        return half.square().sum(1) ** 2
    size = torch.bincount(decisions.index, minlength=decisions.count)
    width = int(size.max())
    place = torch.arange(len(half), device=half.device) - (size.cumsum(0) - size)[decisions.index]
    slot = decisions.index * width + place
    side = half.new_zeros((decisions.count * width, half.shape[1])).index_copy(0, slot, half)
    side = side.view(decisions.count, width, -1)
    return (side @ side.mT).square().sum((1, 2))
