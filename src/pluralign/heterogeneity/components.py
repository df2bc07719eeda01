"""How much of what users disagree about is taste, how much reliability, how much chance.

Two different users are asked the same. The probability that they answer differently, the disagreement D, is the sum of

- chance: what one user asked twice would show, E 2 p (1 - p) for a pair (E 1 - sum p_i^2 for a choice among several);
- reliability: users differ in how closely they follow what they share. With a user's reward scale (theta + own),
  it is 2 Var_scale E_own[p | scale], what the probabilities vary by between scales alone;
- taste: 2 E_scale Var_own[p | scale], what they vary by between users of one scale.

The three add up to D by the law of total variance. All are means over the tasks of the table. Taste along theta itself
cannot be told from reliability: it is counted as taste as far as other directions have it on average, and what exceeds
that as reliability.

`source="model"`. Products of scores of two decisions of one user give the variances of own rewards and of scales to
first order (`moments`). Those two numbers and the pooled reward then fix a population of rewards
scale_u (c theta + own_u), scale log-normal, own Gaussian with all directions of the whitened features alike: its own
moments, and the pooled score, must be those observed (a method of simulated moments, exact in sizes of the variances,
with fixed quasi-random users). Its answers give D and its parts. Not the users' posterior means: shrunken, they
understate what users differ by, as plug-in estimates overstate it. What the features do not tell about items counts as
chance, and so does all that a user's answers have in common on no other task. Answers must be independent given the
user's reward. Pairs implied by ratings are not: one rating, with its noise, is in many of them, and the noise of
ratings counts as taste. Where a user's answers hang together more closely than any population of independent answers
can, by three standard errors, that is an error and no parts are given.

`source="repeats"`. Where users decide the same task more than once, D and chance are shares of equal answers (as in
`ceiling`), the same tasks weighing in both by the decisions on them, and the difference of the two is split between
reliability and taste by the same moments, with a task's margin the log odds of its answers and taste on each task
independent. It needs no features. Pairs only.

Intervals leave out one user at a time; the pooled reward is not fitted anew, for the moments are in contrasts that do
not feel it. Around 0 the estimates are cut off but the intervals are built on what they would be uncut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import least_squares
from scipy.special import ndtri, stdtrit
from scipy.stats import qmc
from torch import Tensor

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Interval
from pluralign.evaluation.groups import sum_by
from pluralign.evaluation.intervals import FEW_USERS
from pluralign.features import Design
from pluralign.heterogeneity.jackknife import interval, spread_of
from pluralign.heterogeneity.moments import UserMoments, Whitened
from pluralign.heterogeneity.repeats import Estimates, Repeats
from pluralign.inference.pooled import fit_pooled
from pluralign.likelihoods import Logit
from pluralign.types import FloatArray

N_DECISIONS = 1200  # tasks that the population of rewards is asked
N_OWN = 128  # tastes
N_SCALES = 9  # reliabilities
ENOUGH_REPEATS = 200
Source = Literal["auto", "repeats", "model"]


@dataclass(frozen=True, kw_only=True)
class Components:
    """The parts of disagreement.

    Attributes:
        disagreement: Probability that two different users answer the same task differently.
        self_disagreement: Probability that a user asked twice does.
        taste: Share of the disagreement that is taste.
        reliability: Share that is differing reliability.
        chance: Share that is chance; the three estimates sum to 1.
        taste_spread: Standard deviation over users of their own part of a margin, in nats of reward.
        reliability_spread: Standard deviation over users of log reliability.
        source: "repeats" or "model".
        note: What it is made of, in words.
    """

    disagreement: Interval
    self_disagreement: Interval
    taste: Interval
    reliability: Interval
    chance: Interval
    taste_spread: float
    reliability_spread: float
    source: str
    note: str


@dataclass(frozen=True)
class _Parts:
    """What a population of rewards shows on the tasks."""

    disagreement: float
    taste: float  # not a share: a part of `disagreement`
    reliability: float


@dataclass(frozen=True, eq=False)
class Rewards:
    """A population of rewards scale (c theta + own) and the tasks it is asked, in whitened coordinates."""

    tasks: Design
    margin: Float[Tensor, "rows 1"]  # of theta
    own: Float[Tensor, "rows own"]  # of own rewards of unit variance
    rows: Float[Tensor, "rows r"]
    theta: Float[Tensor, " r"]

    @classmethod
    def of(cls, whitened: Whitened, seed: int) -> Rewards:
        design, rank = whitened.design, whitened.rank
        drawn = torch.randperm(design.n_decisions, generator=torch.Generator().manual_seed(seed))[:N_DECISIONS]
        keep = torch.zeros(design.n_decisions, dtype=torch.bool, device=design.user.device)
        keep[drawn.to(keep.device)] = True
        tasks = design.take(keep).double
        rows, theta = tasks.differences(torch.arange(tasks.n_rows, device=keep.device)), whitened.theta.double()
        return cls(
            tasks=tasks,
            margin=(rows @ theta)[:, None],
            own=rows @ torch.as_tensor(_normal(rank, N_OWN, seed), device=rows.device).T,
            rows=rows,
            theta=theta,
        )

    def _others(self, factor: float, own: float, scale: Tensor) -> Tensor:
        """Probability of every row's second item for some users, (rows, users)."""
        margin = scale * (factor * self.margin + own * self.own)
        return Logit().choice_probabilities(margin, self.tasks.decisions)[1]

    def moments(self, factor: float, own: float, spread: float) -> FloatArray:
        """The pooled score along theta, and the two sums of `UserMoments.solve`, per pair of decisions, here."""
        scale = torch.as_tensor(_scales(spread, N_OWN), device=self.rows.device)
        other = self._others(factor, own, scale[torch.randperm(N_OWN, generator=torch.Generator().manual_seed(1))])
        pooled = Logit().choice_probabilities(self.margin, self.tasks.decisions)[1]
        count, mean = self.tasks.n_decisions, other.mean(1, keepdim=True)
        away = other - mean
        slope = away.T @ self.rows / count
        # Decisions paired with themselves are no pairs.
        same = self.tasks.decisions.sum((away.square().mean(1, keepdim=True) * self.rows.square()).sum(1)).sum()
        same_along = (away.square().mean(1, keepdim=True) * self.margin.square()).sum()
        return np.array(
            [
                float(((pooled - mean) * self.margin).sum() / count),
                float(slope.square().sum(1).mean() - same / count**2),
                float((slope @ self.theta).square().mean() - same_along / count**2),
            ]
        )

    def parts(self, factor: float, own: float, spread: float) -> _Parts:
        """Disagreement and its parts in the population."""
        node, mass = np.polynomial.hermite_e.hermegauss(N_SCALES)
        mass = mass / mass.sum()
        decisions, count = self.tasks.decisions, self.tasks.n_decisions
        mean_all, square_all, square_mean = self.rows.new_zeros(count + len(self.rows)), 0.0, 0.0
        for z, share in zip(node.tolist(), mass.tolist(), strict=True):
            scale = torch.tensor(float(np.exp(spread * z - spread**2 / 2)), dtype=torch.float64)
            other = self._others(factor, own, scale)
            every = torch.cat([1 - decisions.sum(other), other])  # the chosen item's, then the others'
            mean, square = every.mean(1), every.square().mean(1)
            mean_all = mean_all + share * mean
            square_all = square_all + share * float(square.sum()) / count
            square_mean = square_mean + share * float(mean.square().sum()) / count
        agree = float(mean_all.square().sum()) / count
        return _Parts(disagreement=1 - agree, taste=square_all - square_mean, reliability=max(square_mean - agree, 0.0))

    def solve(
        self, taste: float, reliability: float, rank: int, strength: float, begin: FloatArray | None = None
    ) -> FloatArray:
        """The population (log factor, own, spread) whose moments are those of first-order variances.

        A variance of 0 is none, and its moment is not asked for.
        """
        wanted = np.array([0.0, rank * taste + strength * reliability, strength * taste + strength**2 * reliability])
        size = np.array([max(strength, 1e-9), max(wanted[1], 1e-3), max(wanted[2], 1e-3 * strength)])
        free = np.array([True, taste > 0, reliability > 0])
        found = np.zeros(3)
        if not free[1:].any():
            return found

        def miss(at: FloatArray) -> FloatArray:
            full = np.zeros(3)
            full[free] = at
            missed: FloatArray = (self.moments(float(np.exp(full[0])), full[1], full[2]) - wanted) / size
            return missed[free]

        # A start at 0 would stay there, the moments being even in both.
        first = np.array([0.05, 1.1 * taste**0.5, min(reliability, 0.5) ** 0.5])
        first = first if begin is None else np.maximum(begin, [-1, 0.5 * first[1], 0.5 * first[2]])
        lowest, highest = np.array([-1.0, 0.0, 0.0]), np.array([2.5, 50.0, 2.0])
        start = np.clip(first, lowest + 1e-4, highest - 1e-4)[free]
        found[free] = least_squares(
            miss, start, bounds=(lowest[free], highest[free]), xtol=1e-4, ftol=1e-6, diff_step=1e-3, max_nfev=30
        ).x
        return found


def components(
    comparisons: Comparisons,
    design: Design | None = None,
    *,
    theta: Float[Tensor, " dim"] | None = None,
    ridge: float | None = None,
    source: Source = "auto",
    level: float = 0.95,
    seed: int = 0,
) -> Components:
    """Split the disagreement of a table's users into taste, reliability and chance.

    Args:
        comparisons: The table.
        design: The same rows on features, for `source="model"`.
        theta: The pooled reward of the design's rows; None fits it.
        ridge: Its ridge, where it is to be fitted; None chooses it.
        source: "repeats" or "model" (module docstring); "auto" takes repeats where at least 5 users decided at least
            200 (user, task) more than once, on tasks that others decided too.
        level: Confidence level.
        seed: Of the tasks and the quasi-random users behind "model".

    Raises:
        DataError: "repeats" was asked for without repeated decisions on shared pairs, "model" without a design, there
            are fewer than two users, or answers that are not independent (module docstring).
        ConfigError: An unknown source, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; it must be between 0 and 1")
    if source not in ("auto", "repeats", "model"):
        raise ConfigError(f'unknown source "{source}"; known: auto, model, repeats')
    if len(np.unique(comparisons.user)) < 2:
        raise DataError("disagreement takes two users at least")
    counts = {
        "n_users": len(np.unique(comparisons.user)),
        "n_sources": len(np.unique(comparisons.source)),
        "n_decisions": comparisons.n_decisions,
    }
    if source != "model":
        found = Repeats.of(comparisons)
        enough = found.n_repeated >= ENOUGH_REPEATS and found.n_repeaters >= FEW_USERS
        if enough or (source == "repeats" and found.n_repeated):
            return _conclude(found.parts(), "repeats", level, counts, found.note)
        if source == "repeats":
            raise DataError(
                "no pair of items was decided twice by a user and also by somebody else",
                hint='take source="model", which needs features',
            )
    if design is None:
        raise DataError('source="model" needs a design', hint="give the features of the same rows as a `Design`")
    return _conclude(_from_model(design, theta, ridge, seed), "model", level, counts, _MODEL_NOTE)


_MODEL_NOTE = (
    "from what a user's answers to different comparisons have in common; what the features do not tell about the items "
    "counts as chance"
)


def _conclude(found: Estimates, source: str, level: float, counts: dict[str, int], note: str) -> Components:
    half = found.error * float(stdtrit(found.degrees, (1 + level) / 2))
    names = ("disagreement", "self_disagreement", "taste", "reliability", "chance")
    intervals = {
        name: interval(
            float(found.value[i]),
            float(found.error[i]),
            found.degrees,
            level=level,
            within=(0.0, 1.0),
            ends=(float(found.uncut[i] - half[i]), float(found.uncut[i] + half[i])),
            few_users=counts["n_users"] < FEW_USERS,
            n_users=counts["n_users"],
            n_sources=counts["n_sources"],
            n_decisions=counts["n_decisions"],
        )
        for i, name in enumerate(names)
    }
    return Components(
        **intervals,
        taste_spread=found.taste_spread,
        reliability_spread=found.reliability_spread,
        source=source,
        note=note,
    )


def _from_model(design: Design, theta: Tensor | None, ridge: float | None, seed: int) -> Estimates:
    if theta is None:
        theta = fit_pooled(design, ridge=ridge)[0].theta
    whitened = Whitened.of(design, theta)
    found = UserMoments.of(whitened)
    rewards = Rewards.of(whitened, seed)
    z, without = found.solve()
    size = found.weight[:, 0]
    error, degrees = spread_of(z, without, size)
    change = np.nan_to_num(without - z)
    covariance = change.T @ change

    def at(variances: FloatArray, begin: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        solved = rewards.solve(float(variances[0]), float(variances[1]), found.rank, found.strength, begin)
        parts = rewards.parts(float(np.exp(solved[0])), float(solved[1]), float(solved[2]))
        d = parts.disagreement
        taste, reliability = parts.taste / d, parts.reliability / d
        return np.array([d, d * (1 - taste - reliability), taste, reliability, 1 - taste - reliability]), solved

    base = np.maximum(z, 0)
    value, solved = at(base)
    reached = rewards.moments(float(np.exp(solved[0])), float(solved[1]), float(solved[2]))[1]
    slack = found.rank * base[0] + found.strength * base[1] - reached
    if slack > 0.05 * reached and slack > 3 * found.rank * error[0]:
        raise DataError(
            "a user's answers hang together more closely than independent answers can, as where comparisons are "
            "copied, or implied by ratings and one rating is in many of them; chance cannot be told from taste",
            hint="give comparisons that were decided one by one, or decided more than once",
        )
    step = np.maximum(error, 1e-9)
    rise = np.stack([(at(base + step * axis, solved)[0] - value) / step[i] for i, axis in enumerate(np.eye(2))], axis=1)
    rise[[2, 3], [0, 1]] = np.maximum(rise[[2, 3], [0, 1]], 0)
    uncut = value.copy()
    below = z - base
    uncut[2] += rise[2, 0] * below[0]
    uncut[3] += rise[3, 1] * below[1]
    variance = np.einsum("ij,jk,ik->i", rise, covariance, rise)
    # The table's own sample of tasks and answers: twice the squared error, user by user, is D on average.
    sampled = _sampling_error(design, theta)
    variance[0] += sampled**2
    variance[1] += (sampled * value[4]) ** 2
    own_margin = float(solved[1]) * float(rewards.rows.square().sum(1).mean().sqrt())
    return Estimates(value, uncut, np.sqrt(variance), degrees, own_margin, float(solved[2]))


def _sampling_error(design: Design, theta: Tensor) -> float:
    """Standard error over users of the mean of sum_i (y_i - p_i)^2, whose mean is the disagreement."""
    other = Logit().choice_probabilities(design.margins(theta[None].to(design.features)), design.decisions)[1]
    lost = design.decisions.sum(other[:, 0])
    each = (lost**2 + design.decisions.sum(other[:, 0] ** 2)).double().numpy(force=True)
    weight, user = design.weight.double().numpy(force=True), design.user.numpy(force=True)
    total = sum_by(user, weight * each, design.n_users)
    mass = sum_by(user, weight, design.n_users)
    mean = total.sum() / mass.sum()
    without = (total.sum() - total) / (mass.sum() - mass)
    return float(spread_of(np.array([mean]), without[:, None], mass)[0][0])


def _scales(spread: float, n: int) -> FloatArray:
    """n reliabilities of mean about 1: evenly spaced quantiles of the log-normal distribution."""
    z = ndtri((np.arange(n) + 0.5) / n)
    found: FloatArray = np.exp(spread * z / z.std() - spread**2 / 2)
    return found


def _normal(dim: int, n: int, seed: int) -> FloatArray:
    """n quasi-random draws from N(0, I), (n, dim), of mean 0; where there are more draws than dimensions their
    covariance is I exactly, else their mean squared length is dim."""
    if dim <= 64:
        half = ndtri(np.clip(qmc.Sobol(dim, scramble=True, seed=seed).random(n // 2), 1e-9, 1 - 1e-9))
    else:
        half = np.random.default_rng(seed).normal(size=(n // 2, dim))
    if dim < n // 4:
        root = np.linalg.cholesky(half.T @ half / len(half))
        half = np.linalg.solve(root, half.T).T
    else:
        half = half * (dim * len(half) / (half**2).sum()) ** 0.5
    found: FloatArray = np.concatenate([half, -half])
    return found
