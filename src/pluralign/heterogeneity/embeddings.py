"""Users as points: what each wants beyond the common reward, in coordinates where length is margin.

A `Basis` or an `Individual` gives user u the reward (theta + o_u) . phi, and o_u is the deviation. It is written as
o_u = A e_u with A' M A = I, M being the second moment of the feature differences of the data's decisions
(`Design.gram`). Then |e_u| is the size of the deviation's margins over the pairs that the data compare, up to one
factor, and the cosine of e_u and e_v is the correlation of the two users' deviation margins when such a pair is drawn
at random and turned round at random: it does not change when features are scaled, rotated or repeated, which the cosine
of coefficients does. The columns of A are the prior's principal directions in this metric, the strongest first.

A user's embedding can be had again from other rows without a fit: `OneStep` makes one Newton step from the common
reward towards the posterior mode, e_u = (P^-1 + H_u)^-1 g_u, with P the prior covariance, g_u the slopes of the user's
decisions and H_u their curvature at the common reward. Only g and H are sums over decisions, so that a thousand users
cost one sparse product and one batched solve, whoever the decisions are dealt to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.likelihoods import Logit
from pluralign.users import Basis, Individual

Metric = Literal["margin", "coefficient"]
WHOLE_WIDTH = 8  # up to here a user's curvature is kept whole, above it its diagonal
MAX_WIDTH = 32  # strongest directions that one-step embeddings have


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding:
    """Where users stand, those with rows alone.

    Attributes:
        user: Their numbers, ascending, (present,).
        vector: Their coordinates, float64 (present, width); zeros for a user who deviates in nothing.
        metric: "margin" (module docstring) or "coefficient", the rung's own numbers.
    """

    user: Int[np.ndarray, " present"]
    vector: Float[np.ndarray, "present width"]
    metric: Metric

    @property
    def width(self) -> int:
        return self.vector.shape[1]

    @property
    def unit(self) -> Float[np.ndarray, "present width"]:
        """Every user's direction: length one, or zeros."""
        return unit_rows(self.vector)


def unit_rows(vector: Float[np.ndarray, "*users width"]) -> Float[np.ndarray, "*users width"]:
    """Rows brought to length one; rows of zeros stay, and so do rows of NaN."""
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.divide(vector, length, out=np.zeros_like(vector), where=length != 0)


def embed_users(model: Basis | Individual, design: Design, metric: Metric = "margin") -> Embedding | None:
    """Return the users' embeddings as a fitted rung has them: their posterior means.

    Args:
        model: A rung whose users differ by a Gaussian vector.
        design: The rows it was fitted to: who has any, and which pairs the margins are of.
        metric: "margin", so that cosines are correlations of margins (module docstring), or "coefficient": w_u of a
            basis, o_u of an individual, whose plain cosine is the one of arXiv 2601.20760.

    Returns:
        The embeddings, or None where nobody deviates: a basis of rank 0, offsets of no variance.

    Raises:
        ConfigError: An unknown metric.
    """
    if metric not in ("margin", "coefficient"):
        raise ConfigError(f'unknown metric "{metric}"; known: margin, coefficient')
    frame = Frame.of(model, design)
    if frame is None:
        return None
    user = present_users(design)
    if metric == "margin":
        return Embedding(user=user, vector=frame.coordinates[user], metric=metric)
    own = model.mean if isinstance(model, Basis) else model.offset
    return Embedding(user=user, vector=own.double().numpy(force=True)[user], metric=metric)


def present_users(design: Design) -> Int[np.ndarray, " present"]:
    """Numbers of the users with a row, ascending."""
    return torch.unique(design.user).numpy(force=True)


def stratified(cluster: Int[np.ndarray, " users"], n: int, rng: np.random.Generator) -> Int[np.ndarray, " drawn"]:
    """Draw about n users, from each cluster by its share and at least one, in ascending order; all where there are
    no more than n."""
    if len(cluster) <= n:
        return np.arange(len(cluster))
    _, code, size = np.unique(cluster, return_inverse=True, return_counts=True)
    room = np.maximum(1, np.floor(size * (n / len(cluster))).astype(np.int64))
    members = [rng.permutation(np.flatnonzero(code == k))[: room[k]] for k in range(len(size))]
    return np.sort(np.concatenate(members))


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """The coordinates of deviations: o_u = A e_u with e_u ~ N(0, diag(scale^2)) before anything is seen of u.

    Attributes:
        axes: A, strongest direction first, float64 (dim, width).
        scale: Prior standard deviations, falling, (width,).
        coordinates: e_u of every user of the model, posterior means, (users, width).
    """

    axes: Float[Tensor, "dim width"]
    scale: Float[np.ndarray, " width"]
    coordinates: Float[np.ndarray, "users width"]

    @classmethod
    def of(cls, model: Basis | Individual, design: Design) -> Frame | None:
        """The frame of a fitted rung; None where its prior has no variance that the data's pairs could show."""
        if isinstance(model, Basis):
            basis, own = model.basis.double(), model.mean.double()
        else:
            varies = model.scale > 0
            axes, scale = model.axes[varies].double(), model.scale[varies].double()
            basis, own = axes.T * scale, (model.offset.double() @ axes.T) / scale
        if not basis.shape[1]:
            return None
        gram = design.with_features(design.features @ basis.to(design.features.dtype)).gram.double()
        variance, turn = torch.linalg.eigh(gram)
        variance, turn = variance.flip(0), turn.flip(1)
        seen = variance > 1e-9 * variance[0]
        if not float(variance[0]) > 0:
            return None
        scale, turn = variance[seen].sqrt(), turn[:, seen]
        return cls(
            axes=basis @ turn / scale,
            scale=scale.numpy(force=True),
            coordinates=(own @ turn * scale).numpy(force=True),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class OneStep:
    """Everything about the decisions that one-step embeddings need, whoever made them.

    Attributes:
        scale: Prior standard deviations of the coordinates, (width,).
        slope: Gradient of each decision's log-probability in the coordinates, at the common reward, (decisions, width).
        curvature: Its negative Hessian, (decisions, width, width), or the diagonal, (decisions, width).
        expected: The part of `slope` that does not depend on what was chosen, (decisions, width).
        step: What `slope` loses where a row's second item is the one preferred, (rows, width).
        probability: Of each row's second item, (rows,).
        decision: Decision of every row, (rows,).
        first: First row of every decision, (decisions,).
        outcome: Outcome of every decision, (decisions,).
        weight: Weight of every decision, (decisions,).
    """

    scale: Float[np.ndarray, " width"]
    slope: Float[np.ndarray, "decisions width"]
    curvature: Float[np.ndarray, "decisions ..."]
    expected: Float[np.ndarray, "decisions width"]
    step: Float[np.ndarray, "rows width"]
    probability: Float[np.ndarray, " rows"]
    decision: Int[np.ndarray, " rows"]
    first: Int[np.ndarray, " decisions"]
    outcome: Float[np.ndarray, " decisions"]
    weight: Float[np.ndarray, " decisions"]

    @classmethod
    def of(cls, design: Design, theta: Float[Tensor, " dim"], frame: Frame) -> OneStep:
        """Read the slopes and curvatures of a design's decisions at a common reward, in the frame's coordinates."""
        dtype = design.features.dtype
        width = min(len(frame.scale), MAX_WIDTH)
        score = design.features @ torch.cat([theta[:, None].to(dtype), frame.axes[:, :width].to(dtype)], dim=1)
        decisions, likelihood = design.decisions, Logit()
        rows = score.index_select(0, design.chosen) - score.index_select(0, design.rejected)
        margin, z = rows[:, :1], rows[:, 1:]
        a, b = likelihood.curvature(margin, decisions)
        other = likelihood.choice_probabilities(margin, decisions)[1]
        weight = design.weight[:, None]
        first = torch.searchsorted(decisions.index, torch.arange(decisions.count, device=decisions.index.device))

        def bent(left: Tensor, right: Tensor) -> Tensor:
            total = decisions.sum(a * left * right)
            return total if b is None else total - decisions.sum(b * left) * decisions.sum(b * right)

        if width <= WHOLE_WIDTH:
            pairs = torch.triu_indices(width, width, device=z.device)
            packed = weight * bent(z[:, pairs[0]], z[:, pairs[1]])
            place = torch.zeros(width, width, dtype=torch.int64, device=z.device)
            place[pairs[0], pairs[1]] = place[pairs[1], pairs[0]] = torch.arange(pairs.shape[1], device=z.device)
            curvature = packed[:, place]
        else:
            curvature = weight * bent(z, z)
        return cls(
            scale=frame.scale[:width],
            slope=(weight * decisions.sum(likelihood.slope(margin, decisions) * z)).numpy(force=True),
            curvature=curvature.numpy(force=True),
            expected=(weight * decisions.sum(other * z)).numpy(force=True),
            step=(design.weight[decisions.index][:, None] * z).numpy(force=True),
            probability=other[:, 0].double().numpy(force=True),
            decision=decisions.index.numpy(force=True),
            first=first.numpy(force=True),
            outcome=decisions.outcome[first].double().numpy(force=True),
            weight=design.weight.double().numpy(force=True),
        )

    def embed(
        self,
        user: Int[np.ndarray, " decisions"],
        n_users: int,
        slope: Float[np.ndarray, "decisions width"] | None = None,
    ) -> Float[np.ndarray, "users width"]:
        """Embeddings of users to whom the decisions are dealt.

        The common reward is first moved by one step too, so that what all users share is nobody's deviation.

        Args:
            user: Whose each decision is; -1 for nobody's, (decisions,).
            n_users: Number of users.
            slope: In place of the observed slopes, (decisions, width).
        """
        dealt = np.flatnonzero(user >= 0)
        sums = csr_array(
            (np.ones(len(dealt), dtype=self.slope.dtype), (user[dealt], dealt)), shape=(n_users, len(user))
        )
        total = (sums @ (self.slope if slope is None else slope)).astype(np.float64)
        width = len(self.scale)
        flat = self.curvature.reshape(len(self.curvature), -1)
        bend = (sums @ flat).astype(np.float64).reshape(n_users, *self.curvature.shape[1:])
        precision = 1 / self.scale**2
        everybody = bend.sum(0)
        lift = 1e-9 * max(float(np.max(everybody, initial=0.0)), 1e-300)
        if bend.ndim == 2:
            total -= bend * (total.sum(0) / (everybody + lift))
            return total / (bend + precision)
        total -= bend @ np.linalg.solve(everybody + lift * np.eye(width), total.sum(0))
        return np.linalg.solve(bend + np.diag(precision), total[..., None])[..., 0]

    def resample(self, rng: np.random.Generator) -> Float[np.ndarray, "decisions width"]:
        """Slopes of new choices drawn from the common reward.

        A soft label keeps how far it is from a tie and draws its direction; a tie stays one.
        """
        n = len(self.first)
        drawn = rng.random(n)
        # Rows of a decision share one uniform number: the second item preferred is the row in whose stretch it falls.
        high = np.cumsum(self.probability)
        low = high - self.probability
        start = low[self.first][self.decision]
        point = drawn[self.decision]
        taken = (point >= low - start) & (point < high - start)
        pairwise = len(self.decision) == n
        sure = 2 * np.abs(self.outcome - 0.5) if pairwise else np.ones(n)
        slope = self.expected.copy()
        if pairwise:
            # The gradient (y - p) z of an outcome y = (1 +- sure) / 2, p being the first item's probability.
            outcome = 0.5 + 0.5 * sure * np.where(taken, -1.0, 1.0)
            return ((outcome - 1 + self.probability)[:, None] * self.step).astype(slope.dtype)
        row = np.flatnonzero(taken)
        slope[self.decision[row]] -= self.step[row]
        return slope
