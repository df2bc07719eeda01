"""Power: what gain over the pooled model would be seen, and how many users and decisions it takes to see one.

The test is the study's: the mean over held-out decisions of the personal model's score minus the pooled model's,
paired, clustered by user (`evaluation.paired_difference`), seen when its interval excludes 0. With S and W the sums of
weight times difference and of weight of a user, and sq that of squared weight, the working model is that of those
intervals:

    variance of S = sigma^2 sq + tau^2 W^2,

tau the standard deviation of users' true gains, and sigma that of the difference on a decision within a user (of
accuracy: about the root of the share of decisions on which one model is right and the other wrong). Both are estimated
by moments. The mean then has variance V = sum of these / (sum W)^2, and the test statistic, under a true mean gain g,
a noncentral t distribution with noncentrality g / sqrt(V) and the test's own degrees of freedom; that its standard
error is the jackknife's, a little too large by design, is allowed for.

A gain in accuracy takes decisions on which the models differ: with differences of 0 and 100 points, a mean of g points
has a mean square of at least 100 g. Where the two models at hand differ on fewer decisions than a gain would take, as a
model does that was shrunk to the pooled one, sigma is raised to what the gain takes.

What is held fixed: the two models' skill, and with it the number of *training* comparisons of every user. More held-out
decisions make a gain easier to see; more training comparisons make the gain itself larger, which is not reckoned here.
Tau is held fixed along the curve too, though a gain that is larger everywhere would as a rule vary more. Where several
splits were joined (`combine_seeds`) a decision may be held out more than once; the variance of the mean at hand is
right all the same, and what M further decisions bring is understated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit

from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Predictions, paired_difference
from pluralign.evaluation.groups import sum_by
from pluralign.evaluation.intervals import metric_values
from pluralign.types import FloatArray

GAINS = {"accuracy": (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0), "log_prob": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)}
WANTED = {"accuracy": (0.5, 1.0, 2.0), "log_prob": (0.002, 0.005, 0.01)}
LEAST = {"accuracy": 100.0, "log_prob": 0.0}  # mean square of the differences per point of gain, at least
UNIT = {"accuracy": 100.0, "log_prob": 1.0}  # a gain of 0.01 in accuracy is a point
MOST_USERS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class PowerAt:
    """Power to see one gain.

    Attributes:
        gain: True mean gain, in points of accuracy, or nats per decision.
        power: Probability that the interval excludes 0.
    """

    gain: float
    power: float


@dataclass(frozen=True, kw_only=True)
class Needed:
    """A design that sees a gain.

    Attributes:
        gain: True mean gain, in points of accuracy, or nats per decision.
        n_users: Users it takes; None where more than ten million.
        n_decisions: Held-out decisions of each.
        power: With which it is seen.
    """

    gain: float
    n_users: int | None
    n_decisions: int
    power: float


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the held-out decisions at hand could show, and what it would take to show more.

    Attributes:
        metric: "accuracy", whose gains are in points, or "log_prob", in nats per decision.
        n_users: Users with held-out decisions that count.
        n_decisions_per_user: Mean number of them, of one split.
        standard_error: Of the mean gain, in the metric's units.
        between: Standard deviation of users' true gains, likewise; 0 where none is seen.
        within: Standard deviation of the difference on one decision of a user, likewise.
        curve: Power along true gains.
        detectable: The gain that is seen with probability `power`.
        needed: Users and held-out decisions per user that would show a gain with probability `power`.
        power: That probability.
        level: Confidence level of the interval.
        note: What is held fixed, in words.
    """

    metric: str
    n_users: int
    n_decisions_per_user: float
    standard_error: float
    between: float
    within: float
    curve: tuple[PowerAt, ...]
    detectable: float
    needed: tuple[Needed, ...]
    power: float
    level: float
    note: str


def power_of(
    personal: Predictions,
    pooled: Predictions,
    *,
    metric: str = "accuracy",
    gains: Sequence[float] | None = None,
    wanted: Sequence[float] | None = None,
    n_decisions: Sequence[int] | None = None,
    n_splits: int = 1,
    power: float = 0.8,
    level: float = 0.95,
) -> Power:
    """Return the power of the comparison of two models on the same held-out decisions.

    Where the verdict is the pooled model, give the best personal rung's predictions: how much its gain varies is what
    power depends on, not how large it came out.

    Args:
        personal: Predictions of a personal rung.
        pooled: Those of the pooled model, of the same decisions in the same order.
        metric: "accuracy" or "log_prob".
        gains: Of the curve, in points of accuracy or nats; None takes `GAINS`.
        wanted: Gains of `needed`; None takes `WANTED`.
        n_decisions: Held-out decisions per user of `needed`; None takes the mean at hand, and four times it.
        n_splits: Splits that were joined by `combine_seeds`.
        power: Probability with which a gain is to be seen.
        level: Confidence level of the interval.

    Raises:
        DataError: The two do not predict the same decisions, or fewer than two users (with fewer than five users:
            sources) have one, or the models never differ.
        ConfigError: A metric that is neither, or a power or level out of range.
    """
    if metric not in UNIT:
        raise ConfigError(f'unknown metric "{metric}"; known: {", ".join(sorted(UNIT))}')
    _check(power, level)
    found = paired_difference(personal, pooled, metric, level=level)
    values = metric_values(personal, metric) - metric_values(pooled, metric)
    counts = np.isfinite(values) & (personal.weight > 0)
    if not np.isfinite(found.standard_error):
        raise DataError(
            f"{found.n_users} users and {found.n_sources} sources have held-out decisions; "
            "power takes two users at least"
        )
    units = personal.user if found.cluster == "user" else personal.source
    design = _Design.of(values[counts] * UNIT[metric], personal.weight[counts], units[counts], LEAST[metric])
    if design.variance == 0:
        raise DataError(
            "the two models score alike on every held-out decision; there is no difference to see",
            hint="give the predictions of the best personal rung",
        )
    per_user = found.n_decisions / found.n_users / n_splits
    if n_decisions is None:
        n_decisions = (max(round(per_user), 1), max(round(4 * per_user), 4))
    by_user = found.cluster == "user"
    return Power(
        metric=metric,
        n_users=found.n_users,
        n_decisions_per_user=per_user,
        standard_error=float(np.sqrt(design.variance)),
        between=float(np.sqrt(design.between)),
        within=float(np.sqrt(design.within)),
        curve=tuple(
            PowerAt(gain=gain, power=_power(gain, *design.at(gain), found.degrees, level))
            for gain in (GAINS[metric] if gains is None else gains)
        ),
        detectable=_detectable(power, design, found.degrees, level),
        needed=tuple(
            Needed(
                gain=gain,
                n_users=needed(
                    gain,
                    many,
                    between=design.between**0.5,
                    within=design.within_at(gain) ** 0.5,
                    power=power,
                    level=level,
                ),
                n_decisions=many,
                power=power,
            )
            for gain in (WANTED[metric] if wanted is None else wanted)
            for many in n_decisions
            if by_user
        ),
        power=power,
        level=level,
        note="each user's training comparisons are held fixed: more of them would make the gain itself larger"
        if by_user
        else f"{found.n_users} users are no sample of users: the power is that of new sources for these users",
    )


def needed(
    gain: float, n_decisions: int, *, between: float, within: float, power: float = 0.8, level: float = 0.95
) -> int | None:
    """Return the number of users, with equally many held-out decisions, that see a gain with the given power.

    Args:
        gain: True mean gain, above 0, in the units of `between` and `within`.
        n_decisions: Held-out decisions of every user.
        between: Standard deviation of users' true gains.
        within: Standard deviation of the difference on one decision of a user.
        power: Probability that the interval excludes 0.
        level: Confidence level.

    Returns:
        Users, at least 2; None where more than ten million would be needed.

    Raises:
        ConfigError: A gain, a number of decisions, a power or a level out of range.
    """
    _check(power, level)
    if not gain > 0 or n_decisions < 1:
        raise ConfigError(f"gain is {gain} and n_decisions {n_decisions}; they must be above 0 and at least 1")
    each = between**2 + within**2 / n_decisions

    def enough(n_users: int) -> bool:
        return _power(gain, each / n_users, (n_users / (n_users - 1)) ** 0.5, n_users - 1.0, level) >= power

    if each == 0 or enough(2):
        return 2
    few, many = 2, 4
    while not enough(many):
        if many >= MOST_USERS:
            return None
        few, many = many, min(2 * many, MOST_USERS)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


@dataclass(frozen=True)
class _Design:
    """Variances of the working model, and of the mean under it.

    Attributes:
        between: tau^2.
        within: sigma^2.
        least: Mean square of the differences that a gain of one takes.
        of_mean: Factors of sigma^2 and of tau^2 in the variance of the mean.
        of_jackknife: The same in the mean of the jackknife's squared standard error.
    """

    between: float
    within: float
    least: float
    of_mean: tuple[float, float]
    of_jackknife: tuple[float, float]

    @property
    def variance(self) -> float:
        """Of the mean, as the data have it."""
        return self.of_mean[0] * self.within + self.of_mean[1] * self.between

    def within_at(self, gain: float) -> float:
        """sigma^2 where the true gain is this, at least what it takes."""
        return max(self.within, self.least * abs(gain) - self.between - gain**2)

    def at(self, gain: float) -> tuple[float, float]:
        """Variance of the mean at a true gain, and how much larger than its root the jackknife's standard error is."""
        within = self.within_at(gain)
        mean, jackknife = (a * within + b * self.between for a, b in (self.of_mean, self.of_jackknife))
        return mean, (jackknife / mean) ** 0.5 if mean > 0 else 1.0

    @classmethod
    def of(cls, values: FloatArray, weight: FloatArray, unit: np.ndarray, least: float) -> _Design:
        code = np.unique(unit, return_inverse=True)[1]
        n = int(code.max()) + 1
        total, size, square = (sum_by(code, each, n) for each in (weight * values, weight, weight**2))
        share = size / size.sum()
        freedom = (size - square / size).sum()
        scatter = (weight * (values - (total / size)[code]) ** 2).sum()
        within = float(scatter / freedom) if freedom > 1e-9 * size.sum() else 0.0
        error = total - total.sum() / size.sum() * size

        def expected(variance: FloatArray) -> FloatArray:  # of error^2, where totals have these variances
            return variance * (1 - 2 * share) + share**2 * variance.sum()

        excess = (error**2).sum() - within * expected(square).sum()
        between = max(float(excess / expected(size**2).sum()), 0.0)
        whole = float(size.sum()) ** 2
        return cls(
            between,
            within,
            least,
            of_mean=(float(square.sum()) / whole, float((size**2).sum()) / whole),
            of_jackknife=(
                float((expected(square) / (1 - share) ** 2).sum()) / whole,
                float((expected(size**2) / (1 - share) ** 2).sum()) / whole,
            ),
        )


def _power(gain: float, variance: float, lift: float, degrees: float, level: float) -> float:
    """P(|t| > its critical value) at a true mean gain; t is lift times smaller than its distribution's."""
    critical = float(stdtrit(degrees, (1 + level) / 2)) * lift
    shift = abs(gain) / variance**0.5
    if shift > critical + 30:
        return 1.0
    wrong_side = float(nctdtr(degrees, shift, -critical))  # NaN where it is too small to be computed
    return float(np.clip(1 - nctdtr(degrees, shift, critical) + np.nan_to_num(wrong_side), 0, 1))


def _detectable(power: float, design: _Design, degrees: float, level: float) -> float:
    """The gain at which the power is reached: the power rises with it."""

    def short(gain: float) -> float:
        return _power(gain, *design.at(gain), degrees, level) - power

    high = design.variance**0.5
    if short(0.0) >= 0:
        return 0.0
    while short(high) < 0:
        high *= 2
    return float(brentq(short, 0.0, high, xtol=1e-9 * high, rtol=1e-9))


def _check(power: float, level: float) -> None:
    for name, value in (("power", power), ("level", level)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} is {value}; it must be between 0 and 1")
