"""The offsets of all users under one isotropic prior o_u ~ N(0, tau^2 I), in many dimensions.

Users with fewer rows than features are solved in their rows, through Gram matrices formed once; the others in the
features (`gaussian_blocks`). Modes are kept as the next problem's start, and Cholesky factors as the metric of the next
problem at the same tau, so that a step along theta needs no new factor. Where fewer items are compared than there are
features, everything is done in the items' span: outside it nothing was seen, and an offset is its prior.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.gaussian_blocks import (
    Dual,
    Primal,
    UserBlock,
    one_thread,
    solve_dual,
    solve_primal,
    user_blocks,
)
from pluralign.likelihoods import Likelihood
from pluralign.users.gaussian import Individual

_ROOM = 2**25  # numbers that kept matrices may take however small the features: 128 MiB of float32
_BLOCK_FLOATS = 2**20  # Gram matrices and rows of the users of a block: 4 MiB of float32
_SAMPLE_ROWS = 32  # rows for each feature that a sample of users has


@dataclass(eq=False)
class OffsetPanel:
    """Users' offsets on one design.

    Attributes:
        design: Rows and features.
        likelihood: P(decision | margins).
        users: Only these, (some,); None means all.
    """

    design: Design
    likelihood: Likelihood
    users: Tensor | None = None
    blocks: list[UserBlock] = field(init=False)

    def __post_init__(self) -> None:
        dim = self.narrow.dim
        self.blocks = user_blocks(
            self.design, lambda m: m * m + m * dim + (dim**2 if m > dim else 0), self.users, _BLOCK_FLOATS
        )
        self._starts = [self.narrow.features.new_zeros((block.count, min(block.width, dim))) for block in self.blocks]
        # Matrices that would outgrow the features are formed anew each time.
        self._room = max(self.design.features.numel(), _ROOM)
        self._grams: list[Tensor | None] = [None] * len(self.blocks)
        self._whitening: tuple[float, Tensor] | None = None
        self._metrics: dict[int, tuple[float, Any]] = {}

    @cached_property
    def n_rows(self) -> int:
        return sum(block.rows.numel() for block in self.blocks)

    @property
    def _items(self) -> Design:
        return self.design.compact

    @cached_property
    def span(self) -> Float[Tensor, "dim rank"] | None:
        """Orthonormal columns that span the items compared, where those are fewer than the features."""
        used = torch.cat([self._items.chosen, self._items.rejected]).unique()
        if not 0 < len(used) < self.design.dim:
            return None
        _, size, axes = torch.linalg.svd(self._items.features[used], full_matrices=False)
        seen = size > size[0] * self.design.dim * torch.finfo(size.dtype).eps
        return axes[seen].T.contiguous() if bool(seen.any()) else None

    @cached_property
    def narrow(self) -> Design:
        """The design in the coordinates of `span`."""
        return self._items if self.span is None else self._items.with_features(self._items.features @ self.span)

    @property
    def sample(self) -> "OffsetPanel":
        """Evenly spaced users with some rows for each feature; the panel itself where that is most of them."""
        return self._sampled or self

    @cached_property
    def _sampled(self) -> "OffsetPanel | None":
        step = self.n_rows // (_SAMPLE_ROWS * self.narrow.dim)
        users = torch.cat([block.user for block in self.blocks]).sort().values
        if step < 2 or len(users) < 2 * step:
            return None
        return OffsetPanel(self.design, self.likelihood, users[::step])

    def pooled(self, theta: Float[Tensor, " dim"]) -> float:
        """Log-likelihood of the panel's users without offsets: the evidence at tau = 0."""
        base = self._items.margins(theta[None])[:, 0]
        each = [block.log_prob(base[block.rows], self.likelihood).double().sum() for block in self.blocks]
        return float(torch.stack(each).sum()) if each else 0.0

    def _primal(self, block: UserBlock) -> bool:
        return block.width > self.narrow.dim

    def _take_room(self, matrix: Tensor) -> bool:
        kept = matrix.numel() <= self._room
        self._room -= matrix.numel() if kept else 0
        return kept

    def _gram(self, i: int) -> Tensor:
        kept = self._grams[i]
        if kept is not None:
            return kept
        padded = self.blocks[i].differences(self.narrow)
        gram = padded @ padded.mT
        if self._take_room(gram):
            self._grams[i] = gram
        return gram

    def _solve(self, i: int, base: Tensor, tau: float, exact: bool = True) -> Primal | Dual:
        """Posterior modes of a block; `exact` as in `solve_primal`."""
        block, known = self.blocks[i], self._metrics.get(i)
        metric = known[1] if known is not None and known[0] == tau and not exact else None
        solved: Primal | Dual
        if self._primal(block):
            rows = self.narrow.differences(block.rows)
            precision = rows.new_full((self.narrow.dim,), tau**-2)
            solved = solve_primal(
                block, rows, base, precision, self._starts[i], self.likelihood, metric=metric, exact=exact
            )
            self._starts[i], metric = solved.mode, solved.factor
        else:
            # Between a prior that rules (alpha stays) and data that rule (tau^2 alpha stays): tau alpha stays, about.
            solved = solve_dual(
                block, self._gram(i), base, tau, self._starts[i] / tau, self.likelihood, metric=metric, exact=exact
            )
            self._starts[i], metric = solved.alpha * tau, solved.metric
        if known is not None or self._take_room(solved.factor):
            self._metrics[i] = tau, metric
        return solved

    @one_thread()
    def solve(
        self, theta: Float[Tensor, " dim"], tau: float, *, exact: bool = True
    ) -> tuple[float, float, Float[Tensor, " dim"]]:
        """Evidence, joint log density at the modes, and the latter's gradient in theta (float64).

        Without `exact`, factors found before at this tau are used for the steps, and the evidence is only near.
        """
        base = self._items.margins(theta[None])[:, 0]
        slope = torch.zeros_like(base)
        evidence = value = 0.0
        for i, block in enumerate(self.blocks):
            solved = self._solve(i, base[block.rows], tau, exact)
            evidence += float(solved.evidence.double().sum())
            value += float(solved.value.double().sum())
            slope[block.rows] = block.slope(solved.margin, self.likelihood)
        return evidence, value, self._items.pull(slope[:, None])[0].double()

    @one_thread()
    def effective(self, theta: Float[Tensor, " dim"], tau: float) -> Float[Tensor, "dim dim"]:
        """Information on theta that is left once every user's offset follows it: sum D' (W^-1 + tau^2 D D')^-1 D."""
        base, dim = self._items.margins(theta[None])[:, 0], self.narrow.dim
        total = base.new_zeros((dim, dim), dtype=torch.float64)
        for i, block in enumerate(self.blocks):
            solved = self._solve(i, base[block.rows], tau)
            if isinstance(solved, Primal):
                total += block.count * torch.eye(dim).to(total) / tau**2
                total -= solved.covariance().double().sum(0) / tau**4
                continue
            root = solved.seen_(block, block.differences(self.narrow)).flatten(0, 1)
            total += (root.T @ root).double()
        return total if self.span is None else self.span.double() @ total @ self.span.T.double()

    def settle(
        self, theta: Float[Tensor, " dim"], tau: float, ridge: float, max_evaluations: int, tolerance: float = 1e-6
    ) -> tuple[Float[Tensor, " dim"], bool]:
        """theta at the joint mode of theta and the offsets, and whether it converged.

        It stops when a step gains less than the part `tolerance` of the log density.
        """
        if self._whitening is None or not 0.7 < tau / self._whitening[0] < 1.5:
            metric = self.sample.effective(theta, tau) * (self.n_rows / self.sample.n_rows)
            eye = torch.eye(len(metric), dtype=metric.dtype, device=metric.device)
            lift = ridge + 1e-4 * metric.diagonal().mean() + 1e-12
            self._whitening = tau, torch.linalg.cholesky(metric + lift * eye)
        factor = self._whitening[1]
        start = (factor.T @ theta.double()).cpu().numpy()

        def unpack(u: np.ndarray) -> Tensor:
            right = torch.from_numpy(u).to(factor)[:, None]
            return torch.linalg.solve_triangular(factor.T, right, upper=True)[:, 0]

        def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
            at = unpack(u)
            _, value, gradient = self.solve(at.to(theta.dtype), tau, exact=False)
            pulled = torch.linalg.solve_triangular(factor, (gradient - ridge * at)[:, None], upper=False)[:, 0]
            return -value + ridge / 2 * float(at.square().sum()), -pulled.cpu().numpy()

        # L-BFGS-B's first step is one long: in units of the whitened gradient that is Newton's.
        first = objective(start)
        unit, known = float(np.linalg.norm(first[1])), [first]

        def scaled(v: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = known.pop() if known else objective(start + unit * v)
            return value, unit * gradient

        found = minimize(
            scaled,
            np.zeros_like(start),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxfun": max_evaluations,
                "maxiter": max_evaluations,
                "ftol": tolerance,
                # Whitened, half the square of the gradient is what is left to gain.
                "gtol": unit * (2 * tolerance * abs(first[0]) / len(start)) ** 0.5,
                "maxcor": 20,
            },
        )
        return unpack(start + unit * found.x).to(theta.dtype), bool(found.status == 0)

    def model(self, theta: Float[Tensor, " dim"], tau: float, axes: Float[Tensor, "dim dim"]) -> Individual:
        """Posterior of every user, its variances along the axes (orthonormal rows)."""
        return self.posterior(theta, tau, axes)[0]

    @one_thread()
    def posterior(
        self, theta: Float[Tensor, " dim"], tau: float, axes: Float[Tensor, "dim dim"]
    ) -> tuple[Individual, float]:
        """`model`, and the evidence."""
        design, evidence = self._items, 0.0
        along = axes.new_zeros((design.n_users, design.dim))  # offsets in the coordinates of the axes
        variance = torch.full_like(along, tau**2)
        across = axes if self.span is None else axes @ self.span
        unseen = (1 - across.square().sum(1)).clamp(min=0) * tau**2  # what nothing was seen of keeps its prior
        # Turning the items costs less than turning the rows where there are fewer of them.
        few = tau > 0 and 2 * len(design.features) <= self.n_rows
        turned = self.narrow.with_features(self.narrow.features @ across.T) if few else None
        base = design.margins(theta[None])[:, 0]
        for i, block in enumerate(self.blocks if tau > 0 else []):
            solved = self._solve(i, base[block.rows], tau)
            evidence += float(solved.evidence.double().sum())
            if isinstance(solved, Primal):
                along[block.user] = solved.mode @ across.T
                right = across.T.expand(block.count, -1, -1)
                half = torch.linalg.solve_triangular(solved.factor, right, upper=False)
                variance[block.user] = half.square().sum(1) + unseen
                continue
            rows = block.differences(turned) if turned else block.differences(self.narrow) @ across.T
            along[block.user] = tau**2 * (solved.alpha[:, None] @ rows)[:, 0]
            known = solved.seen_(block, rows).square_().sum(1)
            variance[block.user] = (tau**2 - tau**4 * known).clamp(min=0)
        individual = Individual(
            theta=theta,
            axes=axes,
            scale=torch.full_like(theta, tau),
            offset=along @ axes,
            covariance=variance,
            structure="isotropic",
        )
        return individual, evidence
