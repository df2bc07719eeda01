"""VPL's example in one dimension as a control task: users who want x near one of four places.

As released (arXiv 2408.10075), e^r is a normal density, so that a user's reward falls with the square of the distance
to their place. The paper prints neither places nor widths; those here are spread over [0, 10] so that the average
reward has its peak near the middle, where nobody wants to be. Nothing moves: there is no policy to learn, and what is
compared is whose reward was recovered. `pluralign.populations.didactic` is another version, of bumps and noisy answers.

The width of the densities scales rewards alone, and labels without noise do not show it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pluralign.errors import ConfigError

MODES = (1.0, 4.0, 6.0, 9.0)
LENGTH = 10.0
_N_BUMPS = 21


class Didactic:
    """The example; a `Task`. An observation is one number, x."""

    name = "didactic"

    def __init__(self, modes: Sequence[float] = MODES) -> None:
        """
        Args:
            modes: Where users want x to be, one kind of user for each.

        Raises:
            ConfigError: No mode, or one outside the line.
        """
        if not len(modes) or min(modes) < 0 or max(modes) > LENGTH:
            raise ConfigError(f"modes are {list(modes)}; there must be one, and all from 0 to {LENGTH:g}")
        self.modes = np.asarray(modes, dtype=np.float64)
        self.users = tuple(f"x near {mode:g}" for mode in modes)

    def places(self, n: int) -> Float[ndarray, "n 1"]:
        """Observations at equal distances over the whole line."""
        return np.linspace(0, LENGTH, n)[:, None]

    def features(self, observation: Float[ndarray, "n 1"]) -> Float[ndarray, "n dim"]:
        """Bumps along the line, together 1."""
        centre = np.linspace(0, LENGTH, _N_BUMPS)
        bump = np.exp(-((observation - centre) ** 2) / (2 * (centre[1] - centre[0]) ** 2))
        return np.asarray(bump / bump.sum(1, keepdims=True))

    def rewards(self, observation: Float[ndarray, "n 1"]) -> Float[ndarray, "users n"]:
        """1 at the user's place, and 0 as far from it as one can be on this line."""
        return np.asarray(1 - ((observation[:, 0] - self.modes[:, None]) / LENGTH) ** 2)

    def goals(self) -> Float[ndarray, "users 1"]:
        """The places, scaled to [-1, 1]."""
        return 2 * self.modes[:, None] / LENGTH - 1

    def majority(self, first: Float[ndarray, "pairs 1"], second: Float[ndarray, "pairs 1"]) -> Float[ndarray, " pairs"]:
        """Share of the kinds of user who agree with most of them about each pair, ties counting half.

        Its mean is the accuracy that no single answer for everybody exceeds.
        """
        ahead = (np.sign(self.rewards(first) - self.rewards(second)).mean(0) + 1) / 2
        return np.maximum(ahead, 1 - ahead)
