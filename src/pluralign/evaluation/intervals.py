"""Confidence intervals of scores and of differences between two models on the same decisions.

Decisions of one user resemble each other, so users, not decisions, are what was sampled. The default interval is the
delete-one-user jackknife (Bell and McCaffrey 2002; the CR3 of cluster-robust regression) of the weighted mean, with
Satterthwaite's degrees of freedom: with S, W the sums of w d and w of each user, share = W / sum W, and the mean m,

    variance = sum_users ((S - m W) / sum W / (1 - share))^2,

the sum of the squared changes as each user is left out. For n users alike it is n / (n - 1) times Student's.

The degrees of freedom are those of this quadratic form under a working model that is itself estimated: a user's sum has
variance sigma^2 sum w^2 + tau^2 W^2, sigma within and tau between users. They fall when few users hold most decisions.

Measured coverage of 95 % intervals (20, 40 and 200 users, equal to very unequal numbers of decisions, gains that are
Gaussian, held by a minority, or larger for busy users; `tests/evaluation/test_intervals.py`, marked study): this
interval 93 to 97 %; the percentile bootstrap over users 88 to 95 %; the studentised bootstrap 91 to 95 %, which is why
it is offered (`method="bootstrap"`) and is not the default.

Clustering by user and source at once takes the largest of the variances by user, by source, and Cameron, Gelbach and
Miller's (2011) by user + by source - by both, with the smaller of the two degrees of freedom; it errs to the wide side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from pluralign.errors import ConfigError
from pluralign.evaluation.groups import sum_by
from pluralign.evaluation.predictions import Predictions, same_decisions
from pluralign.types import FloatArray

METRICS: dict[str, Callable[[Predictions], FloatArray]] = {
    "accuracy": lambda predictions: predictions.correct,
    "brier": lambda predictions: predictions.squared_error,
    "log_loss": lambda predictions: -predictions.log_prob,
    "log_prob": lambda predictions: predictions.log_prob,
    "probability": lambda predictions: predictions.probability,
}
FEW_USERS = 5  # fewer users than this are no sample of users
_BLOCK = 4_000_000  # resampling weights held at once


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        estimate: The mean or the difference of means, in the metric's units (nats, or a share).
        low: Lower end; NaN where there is a single cluster, and so no interval.
        high: Upper end.
        level: Confidence level.
        standard_error: Of the estimate.
        degrees: Degrees of freedom of its t distribution.
        p_value: Two-sided, of a true value of 0.
        cluster: What the interval is clustered by: "user", "source" or "both"; "source" in place of "user" where
            `few_users`.
        few_users: There are fewer than 5 users, so the interval speaks of these users on new sources, not of new users.
        n_users: Users with a decision that counts.
        n_sources: Sources with one.
        n_decisions: Decisions that count: ties do not for accuracy.
    """

    estimate: float
    low: float
    high: float
    level: float
    standard_error: float
    degrees: float
    p_value: float
    cluster: str
    few_users: bool
    n_users: int
    n_sources: int
    n_decisions: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: None where a number is missing."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


def metric_values(predictions: Predictions, metric: str) -> FloatArray:
    """The metric of every decision, (decisions,); NaN where it has none (accuracy of a tie).

    `accuracy` is in {0, 0.5, 1}; `log_prob` and `log_loss` = -log_prob in nats; `brier` the squared error;
    `probability` what was given to the outcome, the accuracy expected of one who chooses by it.
    """
    if metric not in METRICS:
        raise ConfigError(f'unknown metric "{metric}"; known: {", ".join(sorted(METRICS))}')
    return METRICS[metric](predictions)


def mean_interval(
    predictions: Predictions,
    metric: str = "accuracy",
    *,
    cluster: str = "user",
    average: str = "decisions",
    level: float = 0.95,
    method: str = "jackknife",
    n_boot: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return one model's mean score with its interval; arguments as in `paired_difference`."""
    return _interval(metric_values(predictions, metric), predictions, cluster, average, level, method, n_boot, seed)


def paired_difference(
    a: Predictions,
    b: Predictions,
    metric: str = "log_loss",
    *,
    cluster: str = "user",
    average: str = "decisions",
    level: float = 0.95,
    method: str = "jackknife",
    n_boot: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean of metric(a) - metric(b) over the same decisions, with its interval.

    For `accuracy` and `log_prob` above 0 means that `a` is better; for `log_loss` and `brier` below 0 does. Several
    splits of the same users go through `combine_seeds` first.

    Args:
        a: One model's predictions.
        b: The other's, of the same decisions in the same order.
        metric: What is compared: accuracy, log_prob, log_loss or brier (`metric_values`).
        cluster: What was sampled: "user", "source" (prompt, post), or "both" at once. With fewer than 5 users "user"
            becomes "source" where there are more sources than users, and `Interval.few_users` says so.
        average: Mean over "decisions" (weighted), or over "users", each user's own mean counting the same.
        level: Confidence level.
        method: "jackknife", or "bootstrap", the studentised bootstrap over one kind of cluster (module docstring).
        n_boot: Bootstrap resamples.
        seed: Of the bootstrap.

    Raises:
        DataError: The two do not predict the same decisions.
        ConfigError: An unknown metric, cluster, average or method, a level outside (0, 1), or a two-way bootstrap.
    """
    same_decisions(a, b)
    values = metric_values(a, metric) - metric_values(b, metric)
    return _interval(values, a, cluster, average, level, method, n_boot, seed)


def holm(p_values: np.ndarray) -> FloatArray:
    """Adjust several p-values for their number (Holm 1979): reject where the result is at most the level.

    NaN stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = p.copy()
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return adjusted


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of weight * value, weight and weight^2 of every cluster, and what the values vary by within clusters."""

    total: FloatArray
    size: FloatArray
    square: FloatArray
    within: float

    @classmethod
    def of(cls, values: FloatArray, weight: FloatArray, code: np.ndarray) -> _Sums:
        n = int(code.max()) + 1
        total, size, square = (sum_by(code, each, n) for each in (weight * values, weight, weight**2))
        freedom = (size - square / size).sum()
        scatter = (weight * (values - (total / size)[code]) ** 2).sum()
        return cls(total, size, square, float(scatter / freedom) if freedom > 1e-9 * size.sum() else 0.0)

    @property
    def mean(self) -> float:
        return float(self.total.sum() / self.size.sum())

    def jackknife(self) -> tuple[float, float]:
        """Variance of the mean and its degrees of freedom (module docstring)."""
        share = self.size / self.size.sum()
        error = self.total - self.mean * self.size
        lift = 1 / (1 - share)
        variance = (((error / self.size.sum()) * lift) ** 2).sum()

        between = (error**2).sum() - self.within * _error_variance(self.square, share).sum()
        v = self.within * self.square + max(between / _error_variance(self.size**2, share).sum(), 0.0) * self.size**2
        if not v.sum() > 0:
            v = self.square
        v = v / v.sum()
        # sum of squares of the matrix B[u, t] = lift[u] lift[t] cov(error[u], error[t]), of which only a rank-two part
        # is off the diagonal, so that no matrix is formed.
        trace = (lift**2 * _error_variance(v, share)).sum()
        pp, pv, vv = (lift**2 * share**2).sum(), (lift**2 * share * v).sum(), (lift**2 * v**2).sum()
        square = (lift**4 * (v**2 + 2 * v * (share**2 - 2 * share * v))).sum()
        square += 2 * pp * vv + 2 * pv**2 + pp**2 - 4 * pp * pv
        return float(variance), float(trace**2 / square)

    def bootstrap(self, level: float, n_boot: int, rng: np.random.Generator) -> tuple[float, float]:
        """Ends of the studentised bootstrap interval: clusters drawn anew, as weights in one matrix product."""
        n = len(self.total)
        mean, error = self.mean, self.total - self.mean * self.size
        moments = np.stack([self.size, error, self.size**2, self.size * error, error**2], axis=1)
        sums = np.empty((n_boot, 5))
        step = max(1, _BLOCK // n)
        for start in range(0, n_boot, step):
            stop = min(start + step, n_boot)
            sums[start:stop] = rng.multinomial(n, np.full(n, 1 / n), size=stop - start) @ moments
        size, shift = sums[:, 0], sums[:, 1] / sums[:, 0]
        spread = np.sqrt(np.maximum(sums[:, 4] - 2 * shift * sums[:, 3] + shift**2 * sums[:, 2], 0)) / size
        t = shift[spread > 0] / spread[spread > 0]
        if not len(t):
            return mean, mean
        low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
        standard_error = np.sqrt((error**2).sum()) / self.size.sum()
        return float(mean - high * standard_error), float(mean - low * standard_error)


def _error_variance(total_variance: FloatArray, share: FloatArray) -> FloatArray:
    """Variance of total - mean * size in every cluster, where the totals are independent with these variances."""
    return total_variance * (1 - 2 * share) + share**2 * total_variance.sum()


def _interval(
    values: FloatArray,
    predictions: Predictions,
    cluster: str,
    average: str,
    level: float,
    method: str,
    n_boot: int,
    seed: int,
) -> Interval:
    _check(cluster, average, level, method)
    counts = np.isfinite(values) & (predictions.weight > 0)
    values, weight = values[counts], predictions.weight[counts]
    user = np.unique(predictions.user[counts], return_inverse=True)[1]
    source = np.unique(predictions.source[counts], return_inverse=True)[1]
    n_users, n_sources = int(user.max(initial=-1)) + 1, int(source.max(initial=-1)) + 1
    few_users = n_users < FEW_USERS
    if few_users and cluster != "source" and n_sources > n_users:
        cluster = "source"
    if average == "users" and n_users:
        weight = weight / sum_by(user, weight, n_users)[user]

    codes = {"user": [user], "source": [source], "both": [user, source]}[cluster]
    estimate = standard_error = degrees = low = high = p_value = float("nan")
    if n_users:
        sums = [_Sums.of(values, weight, code) for code in codes]
        estimate = sums[0].mean
        if all(len(s.total) > 1 for s in sums):
            variance, degrees = _variance(sums, values, weight, user, source)
            standard_error = variance**0.5
            half = standard_error * float(stdtrit(degrees, (1 + level) / 2))
            low, high = estimate - half, estimate + half
            if method == "bootstrap":
                low, high = sums[0].bootstrap(level, n_boot, np.random.default_rng(seed))
            p_value = _p_value(estimate, standard_error, degrees)
    return Interval(
        estimate=estimate,
        low=low,
        high=high,
        level=level,
        standard_error=standard_error,
        degrees=degrees,
        p_value=p_value,
        cluster=cluster,
        few_users=few_users,
        n_users=n_users,
        n_sources=n_sources,
        n_decisions=len(values),
    )


def _variance(
    sums: list[_Sums], values: FloatArray, weight: FloatArray, user: np.ndarray, source: np.ndarray
) -> tuple[float, float]:
    each = [s.jackknife() for s in sums]
    if len(each) == 1:
        return each[0]
    cell = np.unique(user.astype(np.int64) * (int(source.max()) + 1) + source, return_inverse=True)[1]
    both = _Sums.of(values, weight, cell).jackknife()[0]
    (by_user, user_degrees), (by_source, source_degrees) = each
    return max(by_user, by_source, by_user + by_source - both), min(user_degrees, source_degrees)


def _p_value(estimate: float, standard_error: float, degrees: float) -> float:
    if standard_error == 0:
        return 1.0 if estimate == 0 else 0.0
    return float(2 * stdtr(degrees, -abs(estimate / standard_error)))


def _check(cluster: str, average: str, level: float, method: str) -> None:
    for name, value, known in (
        ("cluster", cluster, ("both", "source", "user")),
        ("average", average, ("decisions", "users")),
        ("method", method, ("bootstrap", "jackknife")),
    ):
        if value not in known:
            raise ConfigError(f'unknown {name} "{value}"; known: {", ".join(known)}')
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; it must be between 0 and 1")
    if cluster == "both" and method == "bootstrap":
        raise ConfigError('the bootstrap has one kind of cluster, not "both"', hint='use method="jackknife"')
