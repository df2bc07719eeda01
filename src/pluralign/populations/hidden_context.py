"""DPL's one-dimensional example of hidden context (arXiv 2312.08358), and what Borda's count makes of it.

Alternatives are numbers x from [0, 1]. Below 0.8 everybody's utility of x is x. From 0.8 on it is 2x or 0 with
probability 1/2 each, depending on what the data do not show, drawn anew for either alternative of a comparison; the
mean is still x. Bradley-Terry fitted to all comparisons ranks by Borda's count, the probability of beating any other
alternative: x + 0.1 below 0.8 and 0.275 + 0.25 x above, which falls from 0.9 to 0.475 where the mean goes on rising.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pluralign.comparisons import Comparisons, from_attributes
from pluralign.errors import ConfigError
from pluralign.types import FloatArray

BREAK = 0.8


@dataclass(frozen=True, eq=False, kw_only=True)
class HiddenContext:
    """The example and its truth.

    Attributes:
        comparisons: One user, "everybody", who is many people.
        features: One indicator per alternative, (items, items): a reward of its own for each.
        x: The alternatives, midpoints of equal cells of [0, 1], (items,).
        preferred: Probability that the row's alternative is preferred to the column's, 1/2 on the diagonal,
            (items, items).
    """

    comparisons: Comparisons
    features: FloatArray
    x: FloatArray
    preferred: FloatArray

    @property
    def borda(self) -> FloatArray:
        """Probability of being preferred to an alternative drawn at random, itself included, (items,)."""
        return self.preferred.mean(axis=1)


def borda_limit(x: np.ndarray) -> FloatArray:
    """Borda's count of x among all numbers in [0, 1], (n,)."""
    return np.where(x < BREAK, x + 0.1, 0.275 + 0.25 * x)


def simulate_hidden_context(n_items: int = 50, n_comparisons: int | None = 20_000, *, seed: int = 0) -> HiddenContext:
    """Make the example.

    Args:
        n_items: Alternatives; a multiple of 5 puts the break between two of them.
        n_comparisons: Pairs drawn at random, each with a context of its own; equal utilities are decided by a coin.
            None means every pair once with its true probability as a soft label: all the data there could be.
        seed: Of the draw.

    Raises:
        ConfigError: Fewer than two alternatives, or no comparisons.
    """
    if n_items < 2 or (n_comparisons is not None and n_comparisons < 1):
        raise ConfigError(f"n_items is {n_items} and n_comparisons {n_comparisons}; at least 2 and 1 are needed")
    x = (np.arange(n_items) + 0.5) / n_items
    # Either utility is one of two with probability 1/2: the same one below the break.
    high, low = np.where(x < BREAK, x, 2 * x), np.where(x < BREAK, x, 0.0)
    each = np.stack([high, low])
    preferred = ((np.sign(each[:, None, :, None] - each[None, :, None, :]) + 1) / 2).mean(axis=(0, 1))
    outcome: FloatArray | None = None
    if n_comparisons is None:
        first, second = np.triu_indices(n_items, 1)
        outcome = preferred[first, second]
    else:
        rng = np.random.default_rng(seed)
        first = rng.integers(0, n_items, n_comparisons)
        second = (first + rng.integers(1, n_items, n_comparisons)) % n_items
        context = rng.integers(0, 2, (2, n_comparisons))
        ahead = each[context[0], first] - each[context[1], second]
        won = np.where(ahead == 0, rng.random(n_comparisons) < 0.5, ahead > 0)
        first, second = np.where(won, first, second), np.where(won, second, first)
    return HiddenContext(
        comparisons=from_attributes(
            attributes=x[:, None],
            attribute_names=("x",),
            chosen=first,
            rejected=second,
            user=["everybody"] * len(first),
            outcome=outcome,
            labels=[f"x = {each:.3g}" for each in x],
            name="hidden context in one dimension",
        ),
        features=np.eye(n_items),
        x=x,
        preferred=preferred,
    )
