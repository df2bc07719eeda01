"""Rungs whose users differ by a Gaussian vector: `Basis` in r shared directions, `Individual` in all of them.

The reward of item phi for user u is (theta + V w_u) . phi with w_u ~ N(0, I_r) (`Basis`: P-RLHF, arXiv 2402.05133,
Example 3 with a linear head; the random-coefficients logit of McFadden and Train 2000 with a low-rank covariance), or
(theta + o_u) . phi with o_u ~ N(0, Sigma) (`Individual`: Example 2; hierarchical Bayes logit). A user is the Gaussian
posterior of w_u or o_u, and the unknown user is the prior. Probabilities are integrated over it: by Gauss-Hermite
quadrature of the one margin of a pair, by fixed scrambled Sobol draws of the k - 1 margins of a choice among k.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.likelihoods import Decisions, Logit
from pluralign.users.model import predictions_from

N_NODES = 32
N_DRAWS = 256  # a power of two, as Sobol sequences want
BLOCK_FLOATS = 2**20  # working memory of a block of rows: 4 to 8 MiB

Moments = Callable[[Int[Tensor, " rows"], Int[Tensor, " rows"]], tuple[Tensor, Tensor, Tensor]]
"""(rows of a design, whose model) -> mean margin (rows,), coordinates (rows, r), covariance whole or diagonal."""

Structure = Literal["isotropic", "diagonal", "full"]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Basis:
    """Users differ in r shared directions: reward (theta + V w_u) . phi with w_u ~ N(0, I_r).

    Attributes:
        theta: What an average user wants, (dim,).
        basis: V, one direction per column, scaled so that w_u has unit prior variance, (dim, rank).
        mean: Posterior mean (by Laplace, the mode) of every w_u, (users, rank).
        covariance: Posterior covariance of every w_u, (users, rank, rank).
    """

    kind: ClassVar[str] = "basis"
    theta: Float[Tensor, " dim"]
    basis: Float[Tensor, "dim rank"]
    mean: Float[Tensor, "users rank"]
    covariance: Float[Tensor, "users rank rank"]

    @property
    def n_users(self) -> int:
        return self.mean.shape[0]

    @property
    def dim(self) -> int:
        return self.theta.numel()

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def n_parameters(self) -> int:
        # V and V R give the same model for a rotation R, which has r (r - 1) / 2 angles.
        return self.dim * (1 + self.rank) - self.rank * (self.rank - 1) // 2

    def predict(self, design: Design, user: Int[Tensor, " decisions"] | None = None) -> Predictions:
        center, coordinate = design.features @ self.theta, design.features @ self.basis
        mean, covariance = self._with_prior()

        def moments(rows: Tensor, who: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            first, second = design.chosen[rows], design.rejected[rows]
            z = coordinate[first] - coordinate[second]
            return center[first] - center[second] + (z * mean[who]).sum(1), z, covariance[who]

        return _predict(design, user, moments, self.rank * (self.rank + 4))

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        mean, covariance = self._with_prior()
        z = features @ self.basis
        return features @ self.theta + (z * mean[user]).sum(1), _variance(z, covariance[user]).sqrt()

    def _with_prior(self) -> tuple[Tensor, Tensor]:
        # UNKNOWN is -1, which indexes the row appended last.
        prior = torch.eye(self.rank, dtype=self.mean.dtype, device=self.mean.device)
        return (
            torch.cat([self.mean, self.mean.new_zeros((1, self.rank))]),
            torch.cat([self.covariance, prior[None]]),
        )


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Individual:
    """Every user has a vector of their own, shrunk to the common one: reward (theta + o_u) . phi.

    The prior of o_u is N(0, axes' diag(scale^2) axes). In low dimension the posterior covariance of every user is kept
    whole. In high dimension only its diagonal is, along `axes` chosen as the principal axes of the feature
    differences: these marginal variances are exact (under Laplace), and what is dropped, their
    correlations, is small there because an average user's curvature is diagonal along them.

    Attributes:
        theta: What an average user wants, (dim,).
        axes: Orthonormal rows, (dim, dim).
        scale: Prior standard deviation of o_u along each axis, (dim,).
        offset: Posterior mean (by Laplace, the mode) of every o_u in feature coordinates, (users, dim).
        covariance: Posterior covariance of every o_u along the axes: whole, (users, dim, dim), or its diagonal,
            (users, dim).
        structure: Which prior was fitted: one tau for all features, one for each, or any covariance.
    """

    kind: ClassVar[str] = "individual"
    theta: Float[Tensor, " dim"]
    axes: Float[Tensor, "dim dim"]
    scale: Float[Tensor, " dim"]
    offset: Float[Tensor, "users dim"]
    covariance: Float[Tensor, "users dim ..."]
    structure: Structure = "isotropic"

    @property
    def n_users(self) -> int:
        return self.offset.shape[0]

    @property
    def dim(self) -> int:
        return self.theta.numel()

    @property
    def n_parameters(self) -> int:
        return self.dim + {"isotropic": 1, "diagonal": self.dim, "full": self.dim * (self.dim + 1) // 2}[self.structure]

    def predict(self, design: Design, user: Int[Tensor, " decisions"] | None = None) -> Predictions:
        offset, covariance = self._with_prior()

        def moments(rows: Tensor, who: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            difference = design.differences(rows)
            mean = difference @ self.theta + (difference * offset[who]).sum(1)
            return mean, difference @ self.axes.T, covariance[who]

        return _predict(design, user, moments, covariance[0].numel() + 4 * self.dim)

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        offset, covariance = self._with_prior()
        step = max(1, BLOCK_FLOATS // (covariance[0].numel() + 2 * self.dim))
        mean, variance = features @ self.theta, features.new_empty(features.shape[0])
        for at in range(0, features.shape[0], step):
            here, who = slice(at, at + step), user[at : at + step]
            mean[here] += (features[here] * offset[who]).sum(1)
            variance[here] = _variance(features[here] @ self.axes.T, covariance[who])
        return mean, variance.sqrt()

    def _with_prior(self) -> tuple[Tensor, Tensor]:
        variance = self.scale**2
        prior = variance if self.covariance.ndim == 2 else variance.diag()
        return (
            torch.cat([self.offset, self.offset.new_zeros((1, self.dim))]),
            torch.cat([self.covariance, prior[None]]),
        )


def _times(coordinate: Float[Tensor, "rows rank"], covariance: Float[Tensor, "rows rank ..."]) -> Tensor:
    """Coordinates times covariances, whole or diagonal, (rows, rank)."""
    if covariance.ndim == 2:
        return coordinate * covariance
    return (coordinate[:, None] @ covariance)[:, 0]


def _variance(
    coordinate: Float[Tensor, "rows rank"], covariance: Float[Tensor, "rows rank ..."]
) -> Float[Tensor, " rows"]:
    return (_times(coordinate, covariance) * coordinate).sum(1).clamp(min=0)


def _predict(
    design: Design, user: Int[Tensor, " decisions"] | None, moments: Moments, floats_per_row: int
) -> Predictions:
    """Integrate the probabilities of every decision over the posterior of its user, in blocks of decisions."""
    user = design.user if user is None else user
    integrate = _integrate_pairs if design.decisions.pairwise else _integrate_choices
    width = N_NODES if design.decisions.pairwise else N_DRAWS
    chosen, other = design.features.new_empty(design.n_decisions), design.features.new_empty(design.n_rows)
    for some, rows, decisions in _blocks(design, max(1, BLOCK_FLOATS // (floats_per_row + width))):
        at = torch.arange(rows.start, rows.stop, device=user.device)
        mean, coordinate, covariance = moments(at, user[some][decisions.index])
        first, second = integrate(mean.double(), coordinate, covariance, decisions)
        chosen[some], other[rows] = first.to(chosen.dtype), second.to(other.dtype)
    return predictions_from(design, chosen, other)


def _blocks(design: Design, n_rows: int) -> Iterator[tuple[slice, slice, Decisions]]:
    """Cut the design into runs of whole decisions, of about `n_rows` rows."""
    step = max(1, n_rows * design.n_decisions // max(1, design.n_rows))
    bounds = torch.arange(0, design.n_decisions + step, step, device=design.user.device).clamp(max=design.n_decisions)
    rows = torch.searchsorted(design.decisions.index, bounds).tolist()
    for i, (first, last) in enumerate(pairwise(rows)):
        if first == last:
            continue
        here, start = slice(first, last), i * step
        decisions = replace(
            design.decisions,
            index=design.decisions.index[here] - start,
            outcome=design.decisions.outcome[here],
            position=design.decisions.position[here],
        )
        yield slice(start, min(start + step, design.n_decisions)), here, decisions


def _integrate_pairs(
    mean: Float[Tensor, " rows"],
    coordinate: Float[Tensor, "rows rank"],
    covariance: Float[Tensor, "rows rank ..."],
    decisions: Decisions,
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    node, weight = (torch.from_numpy(x).to(mean) for x in _hermite())
    deviation = _variance(coordinate, covariance).to(mean.dtype).sqrt()
    margin = mean[:, None] + deviation[:, None] * node
    chosen, other = Logit().choice_probabilities(margin, decisions)
    return chosen @ weight, other @ weight


def _integrate_choices(
    mean: Float[Tensor, " rows"],
    coordinate: Float[Tensor, "rows rank"],
    covariance: Float[Tensor, "rows rank ..."],
    decisions: Decisions,
) -> tuple[Float[Tensor, " decisions"], Float[Tensor, " rows"]]:
    # Rows of a decision side by side, (decisions, width, rank), so that their margins' joint covariance is one product.
    size = torch.bincount(decisions.index, minlength=decisions.count)
    width = int(size.max())
    place = torch.arange(len(mean), device=mean.device) - (size.cumsum(0) - size)[decisions.index]
    slot = decisions.index * width + place

    def side_by_side(rows: Tensor) -> Tensor:
        padded = mean.new_zeros((decisions.count * width, rows.shape[1])).index_copy(0, slot, rows.to(mean.dtype))
        return padded.view(decisions.count, width, rows.shape[1])

    joint = side_by_side(coordinate) @ side_by_side(_times(coordinate, covariance)).mT
    size_of = joint.diagonal(dim1=1, dim2=2).sum(1)
    # Margins may be exactly dependent, where a Cholesky factor needs a little help.
    jitter = (1e-9 * size_of + 1e-12)[:, None].expand(-1, width).diag_embed()
    noise = torch.linalg.cholesky((joint + joint.mT) / 2 + jitter) @ torch.from_numpy(_sobol(width)).to(mean)
    margin = mean[:, None] + noise.reshape(-1, N_DRAWS)[slot]
    chosen, other = Logit().choice_probabilities(margin, decisions)
    return chosen.mean(1), other.mean(1)


@lru_cache
def _hermite() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights whose weighted sum is an expectation under N(0, 1)."""
    node, weight = np.polynomial.hermite_e.hermegauss(N_NODES)
    return node, weight / weight.sum()


@lru_cache
def _sobol(dim: int) -> np.ndarray:
    """Fixed quasi-random draws from N(0, I), (dim, draws)."""
    uniform = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(N_DRAWS, dtype=torch.float64)
    draws: np.ndarray = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12)).T.contiguous().numpy()
    return draws
