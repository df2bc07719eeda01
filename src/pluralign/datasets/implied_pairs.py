"""The comparisons that a person's ratings imply, counted and drawn without listing them all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pluralign.datasets.local_files import one_of
from pluralign.errors import ConfigError
from pluralign.types import FloatArray

Index = np.ndarray  # int64: a million people's pairs outnumber int32


@dataclass(frozen=True, eq=False)
class ImpliedPairs:
    """All pairs of one person's ratings that differ enough, numbered person by person.

    With the ratings sorted by person and value, the partners of a rating are a run that begins where its person does:
    a pair's number then tells both its ratings by one search, and no list of pairs is ever made.

    Attributes:
        order: Rows of the ratings, sorted by person and value, (ratings,).
        first: Where the person of each sorted rating begins, (ratings,).
        lower: How many ratings of the same person are lower by the gap, (ratings,).
        level: Where the ratings that equal a sorted rating begin, (ratings,).
        end: Pairs up to and with each sorted rating, (ratings,).
        start: Number of the first pair of every person, (persons + 1,).
    """

    order: Index
    first: Index
    lower: Index
    level: Index
    end: Index
    start: Index

    @classmethod
    def of(
        cls, user: np.ndarray, rating: FloatArray, n_users: int, min_gap: float = 0.0, ties: str = "drop"
    ) -> ImpliedPairs:
        """Count the pairs.

        Args:
            user: Who rated, an index in [0, n_users), (ratings,).
            rating: The rating, (ratings,).
            n_users: Number of users.
            min_gap: Smallest difference that counts as a preference, at least 0; equal ratings never do.
            ties: "drop", or "keep" pairs of equal ratings.

        Raises:
            ConfigError: The gap is negative, or `ties` is neither.
        """
        one_of("ties", ties, ("drop", "keep"))
        if not min_gap >= 0:
            raise ConfigError(f"min_gap is {min_gap}; it must be at least 0")
        order = np.lexsort((rating, user))
        values, value = np.unique(rating[order], return_inverse=True)
        # Ratings such as 2.62 and 1.62 differ by a little less than 1 in binary.
        reach = np.minimum(np.searchsorted(values, values - min_gap + 1e-9, side="right"), np.arange(len(values)))
        key = user[order].astype(np.int64) * (len(values) + 1)
        first = np.searchsorted(key, key)
        lower = np.searchsorted(key + value, key + reach[value]) - first
        level = np.searchsorted(key + value, key + value)
        partners = lower + (np.arange(len(order)) - level if ties == "keep" else 0)
        end = np.cumsum(partners)
        start = np.concatenate([[0], end])[np.searchsorted(user[order], np.arange(n_users + 1))]
        return cls(order=order, first=first, lower=lower, level=level, end=end, start=start)

    @property
    def count(self) -> Index:
        """Number of pairs of every user, (users,)."""
        return np.diff(self.start)

    def decode(self, pair: Index) -> tuple[Index, Index, np.ndarray]:
        """Return the rows of the higher and of the lower rating of numbered pairs, and whether the two are equal."""
        high = np.searchsorted(self.end, pair, side="right")
        rank = pair - np.concatenate([[0], self.end])[high]
        tied = rank >= self.lower[high]
        low = np.where(tied, self.level[high] + rank - self.lower[high], self.first[high] + rank)
        return self.order[high], self.order[low], tied

    def draw(self, per_user: int | None, rng: np.random.Generator) -> Index:
        """Draw up to `per_user` pairs of every user without replacement (None: all), in random order within a user.

        Raises:
            ConfigError: `per_user` is less than 1.
        """
        count = self.count
        if per_user is not None and per_user < 1:
            raise ConfigError(f"pairs_per_user is {per_user}; it must be at least 1")
        wanted = count if per_user is None else np.minimum(count, per_user)
        # Who is asked for half of the pairs or more: list them all and strike some out.
        listed = np.where(2 * wanted >= count, count, 0)
        drawn = np.arange(listed.sum()) + np.repeat(self.start[:-1] - np.cumsum(listed) + listed, listed)
        if (wanted < listed).any():
            drawn = drawn[np.lexsort((rng.random(len(drawn)), self._owner(drawn)))]
            place = np.arange(len(drawn)) - np.repeat(np.cumsum(listed) - listed, listed)
            drawn = drawn[place < np.repeat(wanted, listed)]
        need = np.where(listed, 0, wanted)
        # The others draw with replacement and top up until all are distinct: as good as drawing one by one without.
        while need.any():
            who = np.repeat(np.arange(len(count)), need)
            fresh = self.start[who] + (rng.random(len(who)) * count[who]).astype(np.int64)
            drawn = np.unique(np.concatenate([drawn, fresh]))
            need = wanted - np.bincount(self._owner(drawn), minlength=len(count))
        return drawn[np.lexsort((rng.random(len(drawn)), self._owner(drawn)))]

    def _owner(self, pair: Index) -> Index:
        return np.searchsorted(self.start, pair, side="right") - 1
