"""Which pairs to ask: the best by a score, one after the other, each given that the ones before it will be answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pluralign.errors import ConfigError, DataError
from pluralign.queries.beliefs import Belief
from pluralign.queries.scores import SCORES, check_method
from pluralign.types import FloatArray, IntArray

_EQUAL = 1e-12  # scores nearer than this are a tie


@dataclass(frozen=True, eq=False, kw_only=True)
class Proposal:
    """Pairs to ask, the best first.

    Attributes:
        rows: Rows of the pool, (questions,).
        scores: What each was chosen for, given those before it, (questions,); in the method's units.
        method: The method.
    """

    rows: IntArray
    scores: FloatArray
    method: str


def propose(
    belief: Belief,
    n: int = 1,
    *,
    method: str = "information_gain",
    pair: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    seed: int = 0,
) -> Proposal:
    """Choose the next questions for one user.

    The batch is greedy: after a pair is chosen, what is believed is conditioned on the information its answer is
    expected to bring, so that a copy of it is worth little. The uncertainties look at probabilities alone, and
    `vpl_released` at single pairs; those are not conditioned.

    Args:
        belief: Of the margins of all rows of the pool, for this user.
        n: Number of questions; fewer come back where the pool has no more.
        method: One of `METHODS`.
        pair: Number of the unordered pair that each row is, so that none is asked twice, (rows,); None: its own.
        allowed: Rows that may be asked, (rows,); None means all.
        seed: Of `random`.

    Returns:
        Questions; ties go to the lowest row.

    Raises:
        ConfigError: An unknown method, or n below 1.
        DataError: There is no row that may be asked.
    """
    check_method(method)
    if n < 1:
        raise ConfigError(f"n is {n}; it must be at least 1")
    n_rows = len(belief.variance())
    pair = np.arange(n_rows) if pair is None else np.asarray(pair)
    left = np.ones(n_rows, dtype=np.bool_) if allowed is None else np.array(allowed, dtype=np.bool_)
    if not left.any():
        raise DataError(
            "there is no pair left to ask" if n_rows else "the pool is empty",
            hint="give a pool with pairs that this user has not been asked",
        )
    fixed = np.random.default_rng(seed).random(n_rows) if method == "random" else None
    rows: list[int] = []
    scores: list[float] = []
    while len(rows) < n and left.any():
        score = SCORES[method](belief).numpy(force=True) if fixed is None else fixed
        best = first_best(np.where(left, score, -np.inf))
        rows.append(best)
        scores.append(float(score[best]))
        left &= pair != pair[best]
        if len(rows) < n and method in ("information_gain", "d_optimal"):
            belief = belief.after(best)
    return Proposal(rows=np.array(rows, dtype=np.int32), scores=np.array(scores), method=method)


def first_best(score: np.ndarray) -> int:
    """The lowest row whose score is the best, up to rounding."""
    best = score.max()
    return int(np.argmax(score >= best - _EQUAL * (1 + abs(best))))
