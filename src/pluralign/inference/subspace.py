"""One head on feature differences formed once, by Newton in the span of its preconditioned gradients.

Each pass adds a direction, the preconditioned gradient, and the head goes to the best point that the directions so far
can reach (sequential subspace optimization: Narkiss and Zibulevsky 2005). Margins are linear in the head, so that this
takes the margins of the directions and no features, which are read once forward and once back a pass. There is no line
search to tune, and about a pass less than L-BFGS with the same preconditioner takes.

It is all numpy: a call on a thousand numbers costs a third of torch's, and OpenBLAS, which numpy brings, reads half as
fast again as MKL, which torch brings, on processors that are not Intel's. Reading the features empties the cache of
all else, so that every call between two passes costs several times what it does alone; hence as few as will do.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs

_SPAN = 20  # directions kept; the oldest is forgotten
_NEWTON = 4  # steps in the span after which a new direction is worth more
_INSIDE = 0.1  # what may be left of the span's gradient
_NEARLY = 0.1  # a direction of which no more than this share is new is made orthogonal a second time
_BEYOND = -0.25  # a step is too long where the slope along it has turned to more than this share of its start

# From the margins of all rows to the first derivative of the weighted log-likelihood in each, and minus the second.
Derivatives = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def fit_subspace(
    features: Float[np.ndarray, "rows dim"],
    base: Float[np.ndarray, " rows"],
    derivatives: Derivatives,
    *,
    total: float,
    ridge: float,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
    max_passes: int,
) -> Float[np.ndarray, " dim"]:
    """Maximise log P(decisions | margins base + features o) - ridge / 2 |o|^2 over o.

    Args:
        features: Feature differences.
        base: Margins at o = 0.
        derivatives: Of the log-likelihood, every row a decision of its own.
        total: Weight of all decisions, by which a mean is meant.
        ridge: Above 0.
        precondition: About the inverse of the mean objective's negative Hessian, times a vector (dim,).
        tolerance: Stop when the largest gradient entry of the mean objective is below this, or what is left to gain is
            below rounding.
        max_passes: Most passes over the rows.
    """
    rounding = float(np.finfo(features.dtype).eps) / 100  # nats a decision that the dtype cannot tell apart
    span = _Span(features, base, derivatives, ridge)
    for _ in range(max_passes):
        gradient = span.gradient()
        if np.abs(gradient).max() <= tolerance * total:
            break
        direction = precondition(gradient)
        if np.dot(gradient, direction) / 2 <= rounding * total**2:
            break
        span.add(direction)
        span.climb(gradient)
    return span.offset


class _Span:
    """The directions so far, orthonormal, and the best point that they reach."""

    def __init__(self, features: np.ndarray, base: np.ndarray, derivatives: Derivatives, ridge: float) -> None:
        rows, dim = features.shape
        self._features, self._derivatives, self._ridge = features, derivatives, ridge
        self._eps = float(np.finfo(features.dtype).eps)
        (self._solve,) = get_lapack_funcs(("posv",), (features,))  # for few numbers, a third of the time of numpy's
        self._directions = np.empty((_SPAN, dim), features.dtype)
        self._along = np.empty((_SPAN, rows), features.dtype)  # margins of the directions
        self._used = 0
        self._margin = base
        self.offset = np.zeros(dim, features.dtype)
        self._slope, self._curvature = derivatives(base)

    def gradient(self) -> Float[np.ndarray, " dim"]:
        """Of the summed objective."""
        gradient = np.dot(self._slope, self._features)
        gradient -= self._ridge * self.offset
        return gradient

    def add(self, direction: np.ndarray) -> None:
        """Add a direction, if it is not in the span already."""
        if self._used == _SPAN:
            self._used -= 1
            for kept in (self._directions, self._along):
                kept[:-1] = kept[1:].copy()
        before, length = self._directions[: self._used], math.sqrt(np.dot(direction, direction))
        direction = direction - np.dot(np.dot(before, direction), before)
        left = math.sqrt(np.dot(direction, direction))
        if left < _NEARLY * length:  # once leaves rounding errors of the size of what was taken away
            direction -= np.dot(np.dot(before, direction), before)
            left = math.sqrt(np.dot(direction, direction))
        if left > 10 * self._eps * length:
            np.divide(direction, left, out=self._directions[self._used])
            np.dot(self._features, self._directions[self._used], out=self._along[self._used])
            self._used += 1

    def climb(self, gradient: Float[np.ndarray, " dim"]) -> None:
        """Go to the span's best point, about, from one whose gradient is known."""
        directions, along = self._directions[: self._used], self._along[: self._used]
        start, pull = np.dot(directions, self.offset), np.dot(directions, gradient)
        at = start
        enough = _INSIDE * np.abs(pull).max()
        for _ in range(_NEWTON):
            hessian = np.dot(along * self._curvature, along.T)
            hessian.flat[:: self._used + 1] += self._ridge
            step = self._solve(hessian, pull)[1]
            moved, rise = np.dot(step, along), float(np.dot(step, pull))
            size = 1.0
            while True:
                margin, there = self._margin + size * moved, at + size * step
                self._slope, curvature = self._derivatives(margin)
                pull = np.dot(along, self._slope) - self._ridge * there
                now = float(np.dot(step, pull))
                if now >= _BEYOND * rise or size < 1e-3:
                    break
                size *= max(0.1, rise / (rise - now))  # the secant's
            self._margin, self._curvature, at = margin, curvature, there
            if np.abs(pull).max() <= enough:
                break
        self.offset += np.dot(at - start, directions)
