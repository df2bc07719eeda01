"""What EM asks of the data: every user's log-likelihood under some heads, and heads refitted to weighted users.

Two answers to the same two questions. `ExactPanel` asks the likelihood. `QuadraticPanel` keeps, for each user, the
second order expansion of the log-likelihood at the pooled reward,

    l_u(theta) = l_u(theta_0) + g_u . (theta - theta_0) - (theta - theta_0)' H_u (theta - theta_0) / 2,

after which an EM step no longer sees the rows: hundreds of restarts cost what one exact fit does. It is a screen that
says where to start, never a result. In high dimension the screen runs in the few directions in which users differ
most (`leading_directions`): the leading singular directions of the users' scores g_u in the metric of the pooled
information, together with theta_0 itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Likelihood

BLOCK_ROWS = 1 << 15  # of few features, formed at once
BLOCK_FLOATS = 1 << 20  # of feature differences formed at once: 4 MiB of float32


@runtime_checkable
class Panel(Protocol):
    """The users' likelihoods, and the M-step."""

    def user_log_prob(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "users heads"]:
        """Weighted log-likelihood of every user's decisions under every head, in nats, float64."""

    def refit(
        self, membership: Float[Tensor, "users heads"], start: Float[Tensor, "heads dim"] | None
    ) -> Float[Tensor, "heads dim"]:
        """Heads that maximise (from `start`: raise) their members' penalised log-likelihood."""

    def penalty(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, " heads"]:
        """What the prior takes off the log-likelihood for each head, in nats, float64."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class ExactPanel:
    """The likelihood itself.

    Attributes:
        design: Rows and features.
        likelihood: P(decision | margins).
        ridge: Precision of the Gaussian prior on every head.
        center: Its mean, (dim,).
        max_norm: Bound B on the norm of every head, or None.
        tolerance: Of `fit_heads`, on the gradient of the mean objective.
        max_passes: Of `fit_heads`. A few raise the likelihood, which is all that EM needs of an M-step; a convergent
            M-step is 200.
    """

    design: Design
    likelihood: Likelihood
    ridge: float
    center: Float[Tensor, " dim"]
    max_norm: float | None
    tolerance: float
    max_passes: int

    def user_log_prob(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "users heads"]:
        log_prob = self.likelihood.log_prob(self.design.margins(theta), self.design.decisions)
        log_prob = log_prob * self.design.weight[:, None]
        return log_prob.new_zeros((self.design.n_users, len(theta))).index_add_(0, self.design.user, log_prob).double()

    def refit(
        self, membership: Float[Tensor, "users heads"], start: Float[Tensor, "heads dim"] | None
    ) -> Float[Tensor, "heads dim"]:
        if self.max_norm is None:
            return self._fit(membership, self.ridge, self.center, start)
        return self._fit_in_ball(membership, self.max_norm, start)

    def penalty(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, " heads"]:
        return self.ridge / 2 * (theta - self.center).double().square().sum(1)

    def _fit(
        self,
        membership: Float[Tensor, "users heads"],
        ridge: float | Float[Tensor, " heads"],
        center: Float[Tensor, " dim"] | Float[Tensor, "heads dim"],
        start: Float[Tensor, "heads dim"] | None,
    ) -> Float[Tensor, "heads dim"]:
        x, heads = self.design.features, membership.shape[1]
        return fit_heads(
            self.design,
            ridge=torch.as_tensor(ridge, dtype=x.dtype, device=x.device).expand(heads).contiguous(),
            group_weight=membership.to(x.dtype),
            center=center.expand(heads, -1).contiguous(),
            start=start,
            likelihood=self.likelihood,
            tolerance=self.tolerance,
            max_passes=self.max_passes,
        ).theta

    def _fit_in_ball(
        self, membership: Float[Tensor, "users heads"], radius: float, start: Float[Tensor, "heads dim"] | None
    ) -> Float[Tensor, "heads dim"]:
        """Heads that are best among those of norm at most `radius`.

        Such a head is the unconstrained optimum, or that of the objective with mu / 2 |theta|^2 taken off, mu > 0 being
        the multiplier at which the norm is `radius`. 1 / norm is nearly linear in mu (More and Sorensen 1983), so a
        safeguarded secant finds all heads' multipliers at once; a last scaling removes what is left beyond the ball.
        """
        theta = self._fit(membership, self.ridge, self.center, start)
        norm = theta.norm(dim=1)
        outside = norm > radius
        if not outside.any():
            return theta
        members, each = membership[:, outside], theta[outside]

        def at(mu: Tensor, begin: Tensor) -> Tensor:
            total = self.ridge + mu
            return self._fit(members, total, (self.ridge / total)[:, None] * self.center, begin)

        # By concavity the norm at mu is at most |gradient at 0| / mu, so this end lies inside the ball.
        low, low_gap = torch.zeros_like(norm[outside]), 1 / norm[outside] - 1 / radius
        high = self._slope_at_zero(members).norm(dim=1) / radius + 1e-12
        each = at(high, torch.zeros_like(each))
        high_gap = 1 / each.norm(dim=1).clamp(min=1e-12) - 1 / radius
        for _ in range(30):
            share = (-low_gap / (high_gap - low_gap).clamp(min=1e-30)).clamp(0.02, 0.98)
            mu = low + share * (high - low)
            each = at(mu, each)
            gap = 1 / each.norm(dim=1).clamp(min=1e-12) - 1 / radius
            if bool((gap.abs() * radius < 1e-6).all()):
                break
            inside = gap >= 0
            low, low_gap = torch.where(inside, low, mu), torch.where(inside, low_gap, gap)
            high, high_gap = torch.where(inside, mu, high), torch.where(inside, gap, high_gap)
        # The norm comes out a rounding above the bound; the bound is a promise.
        shrink = (radius * (1 - 1e-6) / each.norm(dim=1)).clamp(max=1)
        theta = theta.clone()
        theta[outside] = each * shrink[:, None]
        return theta

    def _slope_at_zero(self, membership: Float[Tensor, "users heads"]) -> Float[Tensor, "heads dim"]:
        design = self.design
        weight = design.weight[:, None] * membership.to(design.weight.dtype)[design.user]
        margin = design.features.new_zeros((design.n_rows, membership.shape[1]))
        slope = self.likelihood.slope(margin, design.decisions) * weight[design.decisions.index]
        return design.pull(slope) + self.ridge * self.center


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class QuadraticPanel:
    """Second order expansion of every user's log-likelihood at one reward.

    Attributes:
        at: Where it is expanded, (dim,).
        value: Log-likelihood there, (users,).
        slope: Its gradient there, (users, dim).
        information: Minus its Hessian there, (users, dim, dim).
        ridge: Precision of the Gaussian prior on every head.
        center: Its mean, (dim,).
    """

    at: Float[Tensor, " dim"]
    value: Float[Tensor, " users"]
    slope: Float[Tensor, "users dim"]
    information: Float[Tensor, "users dim dim"]
    ridge: float
    center: Float[Tensor, " dim"]

    def user_log_prob(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "users heads"]:
        away = theta - self.at
        squares = (away[:, :, None] * away[:, None, :]).flatten(1)
        return (self.value[:, None] + self.slope @ away.T - self.information.flatten(1) @ squares.T / 2).double()

    def refit(
        self, membership: Float[Tensor, "users heads"], start: Float[Tensor, "heads dim"] | None
    ) -> Float[Tensor, "heads dim"]:
        member = membership.to(self.slope.dtype).T
        information = (member @ self.information.flatten(1)).view(-1, *self.information.shape[1:])
        return self.at + _solve(information, member @ self.slope + self.ridge * (self.center - self.at), self.ridge)

    def penalty(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, " heads"]:
        return self.ridge / 2 * (theta - self.center).double().square().sum(1)

    def embeddings(self) -> Float[Tensor, "users dim"]:
        """One-step estimate of every user's departure from `at`, half shrunk, in the metric of the mean information.

        The prior is worth one average user's comparisons, so that users with few do not stand out by their noise. A
        difference of one is a difference of about one nat over an average user's decisions.
        """
        mean = self.information.mean(0)
        step = _solve(self.information + mean, self.slope, self.ridge)
        jitter = 1e-6 * mean.diagonal().mean() * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        return step @ torch.linalg.cholesky(mean + jitter)


def _solve(
    information: Float[Tensor, "heads dim dim"], slope: Float[Tensor, "heads dim"], ridge: float
) -> Float[Tensor, "heads dim"]:
    """Newton steps; directions nobody gave information on are left alone by a relative jitter."""
    scale = information.diagonal(dim1=1, dim2=2).mean(1)
    added = ridge + 1e-6 * scale + 1e-12
    eye = torch.eye(information.shape[1], dtype=information.dtype, device=information.device)
    factor = torch.linalg.cholesky(information + added[:, None, None] * eye)
    return torch.cholesky_solve(slope[:, :, None], factor)[:, :, 0]


def expand(
    design: Design, at: Float[Tensor, " dim"], *, likelihood: Likelihood, ridge: float, center: Float[Tensor, " dim"]
) -> QuadraticPanel:
    """Expand every user's log-likelihood at one reward. For few features: the result holds users x dim x dim."""
    margin = design.margins(at[None])
    a, b = likelihood.curvature(margin, design.decisions)
    row_weight = design.weight[design.decisions.index]
    log_prob = likelihood.log_prob(margin, design.decisions)[:, 0] * design.weight
    row_user = design.user[design.decisions.index]
    information = _gram(design.differences, design.dim, row_user, a[:, 0] * row_weight, design.n_users)
    if b is not None:
        # Less the square of each decision's mean difference; the means are rows of their own.
        mean = design.features.new_zeros((design.n_decisions, design.dim))
        for rows in _blocks(design):
            mean.index_add_(0, design.decisions.index[rows], design.differences(rows).mul_(b[rows]))
        information = information - _gram(mean.__getitem__, design.dim, design.user, design.weight, design.n_users)
    return QuadraticPanel(
        at=at,
        value=log_prob.new_zeros(design.n_users).index_add_(0, design.user, log_prob),
        slope=user_slopes(design, at, likelihood),
        information=information,
        ridge=ridge,
        center=center,
    )


def user_slopes(design: Design, at: Float[Tensor, " dim"], likelihood: Likelihood) -> Float[Tensor, "users dim"]:
    """Gradient of every user's log-likelihood at one reward (the users' scores)."""
    slope = likelihood.slope(design.margins(at[None]), design.decisions)[:, 0]
    slope = slope * design.weight[design.decisions.index]
    user = design.user[design.decisions.index]
    total = design.features.new_zeros((design.n_users, design.dim))
    for rows in _blocks(design):
        total.index_add_(0, user[rows], design.differences(rows).mul_(slope[rows, None]))
    return total


def _blocks(design: Design) -> Sequence[Int[Tensor, " some"]]:
    """All rows, in runs whose feature differences are few enough to be worked on together."""
    rows = torch.arange(design.n_rows, device=design.features.device)
    return rows.split(max(256, BLOCK_FLOATS // max(1, design.dim)))


def leading_directions(
    design: Design, at: Float[Tensor, " dim"], width: int, *, likelihood: Likelihood, generator: torch.Generator
) -> Float[Tensor, "dim width"]:
    """Orthonormal directions, `at` first, in which the users' scores vary most for the information there is."""
    jitter = 1e-3 * design.gram.diagonal().mean() + 1e-12
    eye = torch.eye(design.dim, dtype=at.dtype, device=at.device)
    factor = torch.linalg.cholesky(design.gram.to(at.dtype) + jitter * eye)
    scores = torch.linalg.solve_triangular(factor, user_slopes(design, at, likelihood).T, upper=False)  # (dim, users)
    found = torch.randn(design.n_users, width + 8, generator=generator).to(scores)
    for _ in range(4):  # subspace iteration; the tail that it blurs holds no cluster
        found = scores.T @ torch.linalg.qr(scores @ found).Q
    whitened = torch.linalg.qr(scores @ torch.linalg.qr(found).Q).Q[:, : width - 1]
    directions = torch.linalg.solve_triangular(factor.T, whitened, upper=True)
    # An `at` of 0 has no direction: any other will do.
    first = at[:, None] if bool(at.norm() > 0) else torch.ones_like(at)[:, None]
    return torch.linalg.qr(torch.cat([first, directions / directions.norm(dim=0)], dim=1)).Q


def _gram(
    take: Callable[[Tensor], Tensor], dim: int, user: Int[Tensor, " rows"], weight: Float[Tensor, " rows"], n_users: int
) -> Float[Tensor, "users dim dim"]:
    """sum over a user's rows of weight x x', where `take` gives the x of some rows."""
    total = weight.new_zeros((n_users, dim, dim))
    for users, rows, real in _padded(user, n_users):
        x = take(rows.flatten()).view(*rows.shape, dim)
        total[users] = (x * (weight[rows] * real)[:, :, None]).transpose(1, 2) @ x
    return total


def _padded(user: Int[Tensor, " rows"], n_users: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Users of like size together: (users, rows of each padded to a common count, 1 where a row is real).

    Each user's rows are padded to at most twice their number, and a batch holds about `BLOCK_ROWS` of them, so the
    batches are few and the waste is bounded whatever the users' sizes.
    """
    order = user.argsort(stable=True)
    count = torch.bincount(user, minlength=n_users)
    begin = count.cumsum(0) - count
    batches = []
    log_size = torch.where(count > 0, count, 1).double().log2().ceil().long()
    for size in log_size[count > 0].unique().tolist():
        alike = ((log_size == size) & (count > 0)).nonzero().flatten()
        width = int(count[alike].max())
        for users in alike.split(max(1, BLOCK_ROWS // width)):
            slot = torch.arange(width, device=user.device)
            real = slot < count[users][:, None]
            rows = order[torch.where(real, begin[users][:, None] + slot, begin[users][:, None])]
            batches.append((users, rows, real))
    return batches
