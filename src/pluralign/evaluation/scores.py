"""Scores of one model on held-out decisions: for everybody, over users, for the worst-served, and calibration.

Decisions count by their weight. A tie (outcome 0.5) has no right answer: accuracy leaves it out, log loss, Brier score
and calibration count it as half for each side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pluralign.errors import DataError
from pluralign.evaluation.groups import sum_by
from pluralign.evaluation.predictions import Predictions
from pluralign.types import FloatArray, IntArray

_PRIOR = 0.01  # precision of the recalibration's Gaussian prior: keeps it finite where every favourite won


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """Whether confidence is deserved: the probability of each decision's favourite against how often it was chosen.

    Attributes:
        error: Expected calibration error: mean over bins, by weight, of |share chosen - confidence|. Chance alone makes
            it positive: with n decisions in 10 bins by about 1 / sqrt(n).
        slope: Of the logistic recalibration logit P(favourite chosen) = intercept + slope logit(confidence); 1 is
            right, below 1 over-confident.
        intercept: Of it; 0 is right.
        confidence: Mean probability of the favourite in each bin of equal weight, (bins,).
        chosen: Share of favourites chosen, (bins,).
        weight: Total weight of each bin, (bins,). Equal predictions never straddle bins, so bins may be fewer.
    """

    error: float
    slope: float
    intercept: float
    confidence: FloatArray
    chosen: FloatArray
    weight: FloatArray

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in self.__dict__.items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class UserScores:
    """One entry per user with a decision, in the order of user numbers.

    Attributes:
        user: User index, (users,).
        n_decisions: Decisions, ties included, (users,).
        n_decided: Decisions without ties, (users,).
        accuracy: NaN for a user all of whose decisions are ties, (users,).
        log_loss: In nats per decision, (users,).
    """

    user: IntArray
    n_decisions: IntArray
    n_decided: IntArray
    accuracy: FloatArray
    log_loss: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """A model's scores.

    Attributes:
        accuracy: Share of decisions whose favourite was chosen; undecided predictions count half, ties not at all.
        log_loss: Mean -log P, in nats per decision.
        brier: Mean squared error of the chosen item's probability.
        accuracy_users: Mean over users of their own accuracies.
        accuracy_users_sd: Standard deviation of them over users: spread of users and of chance together.
        log_loss_users: Mean over users of their own log losses.
        worst_decile: Mean accuracy of the worst-served tenth of the users with at least `min_decisions` decided
            decisions; NaN where there are none. The worst are picked by the same decisions, so chance alone puts this
            below the mean: read it beside `worst_decile_by_chance`, and compare models on the same decisions.
        worst_decile_by_chance: What it would be were every user's accuracy the same.
        worst_decile_users: Number of users in that tenth.
        calibration: Of the favourite's probability.
        users: Per user.
        n_decisions: Number of decisions, ties included.
        n_ties: Ties among them.
        n_users: Users with a decision.
    """

    accuracy: float
    log_loss: float
    brier: float
    accuracy_users: float
    accuracy_users_sd: float
    log_loss_users: float
    worst_decile: float
    worst_decile_by_chance: float
    worst_decile_users: int
    calibration: Calibration
    users: UserScores
    n_decisions: int
    n_ties: int
    n_users: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the per-user arrays; None where a number is missing."""
        plain = {k: v for k, v in self.__dict__.items() if k not in ("calibration", "users")}
        plain = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in plain.items()}
        return plain | {"calibration": self.calibration.as_dict()}


def score(predictions: Predictions, *, min_decisions: int = 10, n_bins: int = 10, seed: int = 0) -> Scores:
    """Score a model.

    Args:
        predictions: Of held-out decisions.
        min_decisions: Decided decisions a user needs to be ranked for the worst decile.
        n_bins: Bins of equal weight for calibration.
        seed: Of the simulation behind `worst_decile_by_chance`.

    Raises:
        DataError: There are no decisions, or none with a weight above 0.
    """
    if not (predictions.weight > 0).any():
        raise DataError(f"{len(predictions)} decisions, none with a weight above 0; there is nothing to score")
    correct, weight = predictions.correct, predictions.weight
    decided = ~np.isnan(correct)
    users = score_users(predictions)
    per_user = users.accuracy[~np.isnan(users.accuracy)]
    accuracy = _mean(correct[decided], weight[decided])
    ranked = users.n_decided >= max(min_decisions, 1)
    worst, by_chance, n_worst = _worst_decile(users.accuracy[ranked], users.n_decided[ranked], accuracy, seed)
    return Scores(
        accuracy=accuracy,
        log_loss=_mean(-predictions.log_prob, weight),
        brier=_mean(predictions.squared_error, weight),
        accuracy_users=_mean(per_user, np.ones_like(per_user)),
        accuracy_users_sd=float(per_user.std(ddof=1)) if len(per_user) > 1 else float("nan"),
        log_loss_users=float(users.log_loss.mean()),
        worst_decile=worst,
        worst_decile_by_chance=by_chance,
        worst_decile_users=n_worst,
        calibration=calibrate(predictions, n_bins=n_bins),
        users=users,
        n_decisions=len(predictions),
        n_ties=int((~decided).sum()),
        n_users=len(users.user),
    )


def score_users(predictions: Predictions) -> UserScores:
    """Score every user who has a decision with a weight above 0."""
    counts = predictions.weight > 0
    user, code = np.unique(predictions.user[counts], return_inverse=True)
    correct, weight = predictions.correct[counts], predictions.weight[counts]
    decided = ~np.isnan(correct)
    n = len(user)
    total = sum_by(code, weight, n)
    judged = sum_by(code[decided], weight[decided], n)
    right = sum_by(code[decided], (weight * correct)[decided], n)
    return UserScores(
        user=user.astype(np.int32),
        n_decisions=np.bincount(code, minlength=n).astype(np.int32),
        n_decided=np.bincount(code[decided], minlength=n).astype(np.int32),
        accuracy=np.divide(right, judged, out=np.full(n, np.nan), where=judged > 0),
        log_loss=sum_by(code, -weight * predictions.log_prob[counts], n) / total,
    )


def calibrate(predictions: Predictions, *, n_bins: int = 10) -> Calibration:
    """Compare the favourite's probability with how often it was chosen (`Calibration`)."""
    counts = predictions.weight > 0
    ahead = predictions.chosen - predictions.best_other
    confidence = np.maximum(predictions.chosen, predictions.best_other)[counts]
    outcome = predictions.outcome
    hit = np.where(ahead > 0, outcome, np.where(ahead < 0, 1 - outcome, 0.5))[counts]
    weight = predictions.weight[counts]

    value, code = np.unique(confidence, return_inverse=True)
    mass = sum_by(code, weight, len(value))
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    label, place = np.unique(np.minimum((middle * n_bins).astype(int), n_bins - 1), return_inverse=True)
    total = sum_by(place, mass, len(label))
    mean_confidence = sum_by(place, mass * value, len(label)) / total
    share = sum_by(place[code], weight * hit, len(label)) / total
    intercept, slope = _recalibrate(confidence, hit, weight)
    return Calibration(
        error=_mean(np.abs(share - mean_confidence), total),
        slope=slope,
        intercept=intercept,
        confidence=mean_confidence,
        chosen=share,
        weight=total,
    )


def _recalibrate(confidence: FloatArray, hit: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Intercept and slope of a weighted logistic regression of hits on logit confidence, by damped Newton steps."""
    confidence = np.clip(confidence, 1e-12, 1 - 1e-12)
    x = np.stack([np.ones_like(confidence), np.log(confidence) - np.log1p(-confidence)], axis=1)
    right = np.array([0.0, 1.0])
    at = right
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ at, -500, 500)))
        gradient = x.T @ (weight * (p - hit)) + _PRIOR * (at - right)
        curvature = (x.T * (weight * p * (1 - p))) @ x + _PRIOR * np.eye(2)
        step, now, scale = np.linalg.solve(curvature, gradient), _objective(at, x, hit, weight), 1.0
        while _objective(at - scale * step, x, hit, weight) > now and scale > 1e-6:
            scale /= 2
        at = at - scale * step
        if np.abs(scale * step).max() < 1e-9:
            break
    return float(at[0]), float(at[1])


def _objective(at: FloatArray, x: FloatArray, hit: FloatArray, weight: FloatArray) -> float:
    """Negative log posterior of the recalibration's intercept and slope."""
    margin = x @ at
    prior = _PRIOR / 2 * ((at - np.array([0.0, 1.0])) ** 2).sum()
    return float((weight * (np.logaddexp(0, margin) - hit * margin)).sum() + prior)


def _worst_decile(accuracy: FloatArray, n: IntArray, everybody: float, seed: int) -> tuple[float, float, int]:
    if not len(accuracy):
        return float("nan"), float("nan"), 0
    count = -(-len(accuracy) // 10)
    rng = np.random.default_rng(seed)
    draws = int(np.clip(2_000_000 // len(accuracy), 5, 200))
    by_chance = np.sort(rng.binomial(n, everybody, size=(draws, len(n))) / n, axis=1)[:, :count].mean()
    return float(np.sort(accuracy)[:count].mean()), float(by_chance), count


def _mean(values: FloatArray, weight: FloatArray) -> float:
    total = weight.sum()
    return float((weight * values).sum() / total) if total > 0 else float("nan")
