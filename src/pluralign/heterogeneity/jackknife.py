"""The delete-one jackknife of any number that can be had again without one user.

As in `evaluation.intervals`: the variance is the sum of the squared changes, which for a weighted mean is CR3. The
degrees of freedom are the effective number of users less one, (sum size)^2 / sum size^2 - 1.
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtr, stdtrit

from pluralign.evaluation import Interval
from pluralign.types import FloatArray


def spread_of(estimate: FloatArray, left_out: FloatArray, size: FloatArray) -> tuple[FloatArray, float]:
    """Return standard errors and their degrees of freedom.

    Args:
        estimate: Numbers estimated from all users, (numbers,).
        left_out: The same without each user, (users, numbers); a row that is NaN (nothing left) counts as no change.
        size: How much each user brings, (users,).

    Returns:
        Standard errors, (numbers,), NaN with fewer than two users that bring something; degrees of freedom.
    """
    if (size > 0).sum() < 2:
        return np.full(len(estimate), np.nan), float("nan")
    change = np.nan_to_num(left_out - estimate)
    return np.sqrt((change**2).sum(axis=0)), max(float(size.sum() ** 2 / (size**2).sum()) - 1, 1.0)


def interval(
    estimate: float,
    standard_error: float,
    degrees: float,
    *,
    level: float,
    within: tuple[float, float] = (-np.inf, np.inf),
    ends: tuple[float, float] | None = None,
    cluster: str = "user",
    few_users: bool = False,
    n_users: int,
    n_sources: int,
    n_decisions: int,
) -> Interval:
    """Build a t interval.

    Args:
        estimate: The estimate.
        standard_error: Of it.
        degrees: Of freedom.
        level: Confidence level.
        within: Range that the ends are cut to.
        ends: The ends, where they are not estimate -+ t standard errors.
        cluster: What was left out, one at a time.
        few_users: As in `Interval`.
        n_users: As in `Interval`.
        n_sources: As in `Interval`.
        n_decisions: As in `Interval`.
    """
    half = standard_error * float(stdtrit(degrees, (1 + level) / 2))
    low, high = (estimate - half, estimate + half) if ends is None else ends
    p_value = float("nan")
    if standard_error > 0:
        p_value = float(2 * stdtr(degrees, -abs(estimate / standard_error)))
    return Interval(
        estimate=estimate,
        low=float(np.clip(low, *within)),
        high=float(np.clip(high, *within)),
        level=level,
        standard_error=standard_error,
        degrees=degrees,
        p_value=p_value,
        cluster=cluster,
        few_users=few_users,
        n_users=n_users,
        n_sources=n_sources,
        n_decisions=n_decisions,
    )
