"""Controls: what a personal model must beat before its gain is called personal.

Each returns an index array. `UserModel.predict(design, user=others[design.user])` scores everybody with somebody else's
model; memberships shuffled among users are refitted and scored as the real ones were.
"""

import numpy as np

from pluralign.errors import ConfigError
from pluralign.types import IntArray


def other_users(known: np.ndarray, n_users: int, *, seed: int) -> IntArray:
    """Draw for every user somebody else, whose model is to predict for it.

    Known users are joined in one random ring, so that each is drawn once and the neighbour is any other with the same
    chance; the users that are not known get any known user.

    Args:
        known: Users with training rows, (known,); others have no model of their own to lend. Repeats are ignored.
        n_users: Number of users.
        seed: Of the draw.

    Returns:
        A known user for every user, never itself, (n_users,).

    Raises:
        ConfigError: Fewer than two users are known.
    """
    known = np.unique(known)
    if len(known) < 2:
        raise ConfigError(f"{len(known)} user(s) have training rows; another user's model needs at least 2")
    rng = np.random.default_rng(seed)
    other = rng.choice(known, size=n_users).astype(np.int32)
    ring = rng.permutation(known)
    other[ring] = np.roll(ring, 1)
    return other


def shuffle_membership(membership: np.ndarray, *, seed: int, known: np.ndarray | None = None) -> np.ndarray:
    """Deal cluster memberships out to users at random, which keeps the clusters' sizes.

    Args:
        membership: Cluster of every user, (users,), or probabilities, (users, clusters).
        seed: Of the shuffle.
        known: Users among whom memberships are dealt, (known,), the others keeping theirs; None means all.
    """
    known = np.arange(len(membership)) if known is None else np.unique(known)
    shuffled = membership.copy()
    shuffled[known] = membership[np.random.default_rng(seed).permutation(known)]
    return shuffled


def permute_within(values: np.ndarray, group: np.ndarray, *, seed: int) -> np.ndarray:
    """Permute values among the entries of each group.

    Users permuted within sources break every tie between a user and its choices and keep what each source was answered:
    the null of one taste. Outcomes permuted within users break choices from features.

    Args:
        values: What is permuted, (n,).
        group: Group of every entry, (n,).
        seed: Of the permutation.
    """
    rng = np.random.default_rng(seed)
    place = np.argsort(group, kind="stable")
    origin = np.lexsort((rng.random(len(group)), group))
    permuted = np.empty_like(values)
    permuted[place] = values[origin]
    return permuted
