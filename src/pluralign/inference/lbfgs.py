"""L-BFGS on stacked heads in lock-step, for many dimensions.

Every head has its own curvature pairs (Nocedal and Wright 2006, Algorithm 7.4), its own step length and its own end;
what they share is the pass over the features and the preconditioner, the inverse of `Design.gram` plus the head's
ridge. Without it about 25 passes are needed, with it 4 to 9. Step lengths come from the directional derivative alone:
the objective is concave, so a step at which that has all but vanished is a good one, and because margins are linear in
theta, looking for it touches rows, not features.
"""

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.stack import Stack

_HISTORY = 10
_FLAT = 0.2  # a step is long enough when the directional derivative has fallen to this share of its start
_TRIALS = 8
_TOP = 20  # largest power of two of the precision, and minus the smallest
_WELL_POSED = -6  # powers of two of the precision from which float32 inverts the Gram matrix well enough


class Preconditioner:
    """(gram + precision of the head)^-1, one inverse for each power of two of the precision, made when first wanted."""

    def __init__(self, gram: Float[Tensor, "dim dim"]) -> None:
        self._gram = gram.double()
        self._dtype = gram.dtype
        self._scale = float(self._gram.diagonal().mean()) or 1.0
        self._inverse: dict[int, Float[Tensor, "dim dim"]] = {}

    def levels(self, precision: Float[Tensor, " heads"]) -> list[int]:
        """Power of two, relative to the Gram matrix, nearest to the precision of every head."""
        relative = (precision.double() / self._scale).clamp(2.0**-_TOP, 2.0**_TOP)
        return [int(level) for level in relative.log2().round().tolist()]

    def apply(self, gradient: Float[Tensor, "heads dim"], levels: list[int]) -> Float[Tensor, "heads dim"]:
        if len(set(levels)) == 1:
            return gradient @ self.inverse(levels[0])
        out = torch.empty_like(gradient)
        for level in set(levels):
            heads = [k for k, at in enumerate(levels) if at == level]
            out[heads] = gradient[heads] @ self.inverse(level)
        return out

    def inverse(self, level: int) -> Float[Tensor, "dim dim"]:
        """Of the Gram matrix plus a precision of that level."""
        if level not in self._inverse:
            lifted = self._gram.clone()
            lifted.diagonal().add_(self._scale * 2.0**level)
            if self._dtype != torch.float64 and level >= _WELL_POSED:
                lifted = lifted.float()
            factor, failed = torch.linalg.cholesky_ex(lifted, check_errors=level == _TOP)
            if bool(failed):  # rounding of the Gram matrix is more than is added: lift it further
                self._inverse[level] = self.inverse(level + 1)
            else:
                self._inverse[level] = torch.cholesky_inverse(factor).to(self._dtype)
        return self._inverse[level]


_SHARED: WeakKeyDictionary[Design, Preconditioner] = WeakKeyDictionary()


def preconditioner_of(design: Design) -> Preconditioner:
    """The preconditioner that all fits on a design share, kept as long as the design is."""
    if design not in _SHARED:
        _SHARED[design] = Preconditioner(design.gram)
    return _SHARED[design]


def rough_preconditioner_of(design: Design) -> Preconditioner:
    """The design's preconditioner if it has been made, else one of half the rows: for fits of few passes each."""
    return _SHARED.get(design) or Preconditioner(design.sampled_gram(2 * design.dim + 2048))


def fit_lbfgs(
    stack: Stack,
    theta: Float[Tensor, "heads dim"],
    *,
    tolerance: float,
    max_passes: int,
    preconditioner: Preconditioner | None = None,
) -> tuple[Float[Tensor, "heads dim"], Float[Tensor, " heads"], int, Tensor]:
    """Maximise from `theta`; stop where the gradient of the mean objective is small, or rounding is reached.

    `preconditioner` None means the design's own.

    Returns:
        Heads (heads, dim), their log-likelihoods (heads,), passes over the features, and which converged, (heads,).
    """
    theta = theta.clone()
    log_prob = theta.new_zeros(len(theta), dtype=torch.float64)
    converged = torch.zeros(len(theta), dtype=torch.bool, device=theta.device)
    rounding = torch.finfo(theta.dtype).eps / 100  # nats a decision that the dtype cannot tell apart
    active = torch.arange(len(theta), device=theta.device)
    part, at = stack, theta.clone()
    shared = preconditioner_of(stack.design) if preconditioner is None else preconditioner

    def preconditioned(by_head: Tensor) -> Tensor:
        return shared.apply(by_head, levels)

    levels = shared.levels(part.precision)
    margin = part.margins(at)
    slope = part.slopes(margin)
    gradient = part.gradient(slope, at)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    passes = 1
    while True:
        direction = _direction(gradient, history, preconditioned)
        rise = (direction * gradient).sum(1)
        done = (gradient.abs().amax(1) <= tolerance) | (rise / 2 <= rounding)
        converged[active] = done
        if done.all() or passes >= max_passes:
            break
        if done.sum() * 2 >= len(done):  # dropping columns copies, so wait until it halves the work
            theta[active], log_prob[active] = at, part.log_prob(margin)
            keep = (~done).nonzero()[:, 0]
            active, part, at, margin, slope = active[keep], part.take(keep), at[keep], margin[:, keep], slope[:, keep]
            gradient, direction, rise = gradient[keep], direction[keep], rise[keep]
            history = [(s[keep], y[keep], inverse[keep]) for s, y, inverse in history]
            levels = shared.levels(part.precision)
            done = done[keep]
        direction[done] = 0
        along = part.along(direction)
        step = _step(part, at, margin, along, direction, rise.masked_fill(done, 0), slope)
        moved = step[:, None] * direction
        at = at + moved
        margin.addcmul_(along, step)
        del along
        new_gradient = part.gradient(slope, at)
        passes += 1
        fallen = gradient - new_gradient
        curvature = (moved * fallen).sum(1)
        sound = curvature > 1e-10 * fallen.norm(dim=1) * moved.norm(dim=1)
        history.append((moved, fallen, torch.where(sound, 1 / curvature, 0)))
        history = history[-_HISTORY:]
        gradient = new_gradient
    theta[active], log_prob[active] = at, part.log_prob(margin)
    return theta, log_prob, passes, converged


def _direction(
    gradient: Float[Tensor, "heads dim"],
    history: list[tuple[Tensor, Tensor, Tensor]],
    precondition: Callable[[Tensor], Tensor],
) -> Float[Tensor, "heads dim"]:
    """The two-loop recursion; a pair whose inverse curvature is 0 is skipped by its head alone."""
    q, weights = gradient.clone(), []
    for s, y, inverse in reversed(history):
        weights.append(inverse * (s * q).sum(1))
        q -= weights[-1][:, None] * y
    q = precondition(q)
    if history:
        s, y, inverse = history[-1]
        scale = (s * y).sum(1) / (y * precondition(y)).sum(1)
        q *= torch.where((inverse > 0) & scale.isfinite(), scale, 1.0)[:, None]
    for (s, y, inverse), weight in zip(history, reversed(weights), strict=True):
        q += (weight - inverse * (y * q).sum(1))[:, None] * s
    return q


def _step(
    stack: Stack,
    theta: Float[Tensor, "heads dim"],
    margin: Float[Tensor, "rows heads"],
    along: Float[Tensor, "rows heads"],
    direction: Float[Tensor, "heads dim"],
    rise: Float[Tensor, " heads"],
    slope: Float[Tensor, "rows heads"],
) -> Float[Tensor, " heads"]:
    """Step length of every head by the secant rule on its directional derivative, bracketed; fills `slope` there.

    `rise` is the derivative at 0; a head whose `rise` is 0 stands still.
    """
    precision = stack.precision
    pulled, curved = precision * ((theta - stack.center) * direction).sum(1), precision * direction.square().sum(1)
    step, low, high = torch.ones_like(rise), torch.zeros_like(rise), torch.full_like(rise, math.inf)
    at_low, at_high = rise, torch.zeros_like(rise)
    for trial in range(_TRIALS):
        now = stack.slopes_along(margin, along, step, slope) / stack.total - pulled - step * curved
        if trial == _TRIALS - 1 or bool((now.abs() <= _FLAT * rise).all()):
            break
        open_ = now.abs() > _FLAT * rise
        up, down = open_ & (now > 0), open_ & (now <= 0)
        low, at_low = torch.where(up, step, low), torch.where(up, now, at_low)
        high, at_high = torch.where(down, step, high), torch.where(down, now, at_high)
        bracketed = high.isfinite()
        inside = low + (high - low) * (at_low / (at_low - at_high)).clamp(0.05, 0.95)
        # Not bracketed: extend the secant through 0, at most fourfold.
        ahead = torch.minimum(step * rise / (rise - now).clamp(min=1e-30), 4 * step)
        step = torch.where(open_, torch.where(bracketed, inside, torch.maximum(ahead, 1.5 * step)), step)
    return step
