"""Axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pluralign.reports.blocks import Axis
from pluralign.reports.reading import MINUS, Number, short


def numbers(
    values: Iterable[Number], label: str, *, factor: Number = 1.0, include: Sequence[Number] = (), n_ticks: int = 6
) -> Axis:
    """An axis that holds all finite values, with a margin and ticks at round numbers.

    Args:
        values: What must fit; those that are not finite are left out.
        label: Of the axis.
        factor: What tick names are multiplied by: 100 writes shares as percentages.
        include: Values that must fit as well, 0 for differences.
        n_ticks: About how many ticks.
    """
    finite = [value for value in (*values, *include) if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5 / factor, high + 0.5 / factor
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin
    step = _round_step((high - low) * factor / n_ticks)
    first = math.ceil(low * factor / step - 1e-9)
    last = math.floor(high * factor / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = [k * step for k in range(first, last + 1)]
    return Axis(
        label=label,
        low=low,
        high=high,
        ticks=tuple(tick / factor for tick in ticks),
        names=tuple(f"{tick:.{digits}f}".replace("-", MINUS) if tick else "0" for tick in ticks),
    )


def places(values: Sequence[str], label: str) -> Axis:
    """A number axis whose ticks are the given names at 0, 1, 2 ..., for counts that grow unevenly (0, 1, 2, 4, 8)."""
    n = len(values)
    return Axis(label=label, low=-0.35, high=n - 0.65, ticks=tuple(map(float, range(n))), names=tuple(values))


def categories(names: Sequence[str], label: str = "") -> Axis:
    """Rows from the top, one for each name."""
    n = len(names)
    shown = tuple(short(name, 48) for name in names)
    return Axis(label=label, low=-0.5, high=n - 0.5, ticks=tuple(map(float, range(n))), names=shown, categories=True)


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= step * (1 - 1e-9))
