"""Labels turned round at random: how wrong a context may be before it misleads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError


def flip_labels(comparisons: Comparisons, share: float, *, seed: int, rows: np.ndarray | None = None) -> Comparisons:
    """Turn each decision round with this probability: 0 leaves all, 0.5 tells nothing, 1 turns all.

    With the same seed the decisions turned at a smaller share are among those turned at a larger one, so that a curve
    over shares is not also a curve over draws.

    Args:
        comparisons: Pairs.
        share: Probability, 0 to 1.
        seed: Of the draw.
        rows: Rows that may be turned (a context), as indices or a mask; None means all.

    Raises:
        ConfigError: The share is no probability.
        DataError: A decision is among more than two items.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share}; it is a probability, from 0 to 1")
    if comparisons.n_decisions < len(comparisons):
        raise DataError("labels of choices among more than two items cannot be turned round", hint="give pairs")
    may = np.ones(len(comparisons), dtype=np.bool_)
    if rows is not None:
        may[:] = False
        may[rows] = True
    turned = may & (np.random.default_rng(seed).random(len(comparisons)) < share)
    position = comparisons.position
    return replace(
        comparisons,
        chosen=np.where(turned, comparisons.rejected, comparisons.chosen),
        rejected=np.where(turned, comparisons.chosen, comparisons.rejected),
        position=None if position is None else np.where(turned, -position, position),
    )
