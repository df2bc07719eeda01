"""Simulated users of a task: each answers a set of comparisons of states by the true reward of its kind.

As in VPL's control experiments (arXiv 2408.10075) every set is a fresh user of a random kind, and labels have no noise.
There a tie gets the label 0, so that one position wins all ties; here it is a tie, 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from pluralign.comparisons import Comparisons, from_attributes
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.types import IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Sets:
    """The comparisons of many users, as many of each.

    Attributes:
        comparisons: One row per comparison; items are distinct observations, and users are in order.
        features: What a reward sees of every item, (items, dim).
        kind: Kind of every user, (users,).
    """

    comparisons: Comparisons
    features: Float[ndarray, "items dim"]
    kind: IntArray

    @property
    def n_users(self) -> int:
        return len(self.kind)

    @property
    def design(self) -> Design:
        """All comparisons on the features."""
        return Design.of(self.comparisons, torch.as_tensor(self.features))


def draw_sets(
    task: Task,
    observation: Float[ndarray, "n observation"],
    *,
    n_users: int,
    n_pairs: int,
    kind: np.ndarray | None = None,
    shares: np.ndarray | None = None,
    questions: np.ndarray | None = None,
    seed: int,
) -> Sets:
    """Draw users, and pairs of different observations for each.

    Args:
        task: Whose features and true rewards.
        observation: Observations to draw from, (n, observation): those of the offline data.
        n_users: Users, or sets, which is the same here.
        n_pairs: Comparisons of each.
        kind: Kind of every user, (users,); None draws it.
        shares: Probability of each kind when drawn; None means the same for all.
        questions: Pairs of observations that may be asked, as indices, (questions, 2); None means any two.
        seed: Of users and pairs.

    Raises:
        ConfigError: No user, no pair, fewer than two observations, or a kind that the task does not have.
    """
    if n_users < 1 or n_pairs < 1 or len(observation) < 2:
        raise ConfigError(
            f"n_users is {n_users}, n_pairs {n_pairs} and there are {len(observation)} observations; "
            "there must be a user, a pair, and two observations to compare"
        )
    rng = np.random.default_rng(seed)
    n_kinds = len(task.users)
    if kind is None:
        kind = rng.choice(n_kinds, n_users, p=shares)
    kind = np.asarray(kind, dtype=np.int32)
    if kind.shape != (n_users,) or kind.min() < 0 or kind.max() >= n_kinds:
        raise ConfigError(f"kind must hold {n_users} numbers from 0 to {n_kinds - 1}, one per user")
    n = n_users * n_pairs
    if questions is None:
        first = rng.integers(0, len(observation), n)
        second = (first + rng.integers(1, len(observation), n)) % len(observation)
    else:
        first, second = questions[rng.integers(0, len(questions), n)].T
        turned = rng.random(n) < 0.5
        first, second = np.where(turned, second, first), np.where(turned, first, second)
    shape = n_users, n_pairs
    return answer(task, observation, first.reshape(shape), second.reshape(shape), kind)


def answer(
    task: Task,
    observation: Float[ndarray, "n observation"],
    first: Int[ndarray, "users pairs"],
    second: Int[ndarray, "users pairs"],
    kind: Int[ndarray, " users"],
) -> Sets:
    """What users of known kinds say of given pairs.

    Args:
        task: Whose features and true rewards.
        observation: Observations, (n, observation).
        first: One observation of every pair, (users, pairs).
        second: The other, (users, pairs).
        kind: Kind of every user, (users,).
    """
    n_users, n_pairs = first.shape
    n = n_users * n_pairs
    used, place = np.unique(np.concatenate([first.ravel(), second.ravel()]), return_inverse=True)
    one, other = place[:n], place[n:]
    seen = observation[used]
    reward = task.rewards(seen)
    owner = np.repeat(np.arange(n_users), n_pairs)
    ahead = reward[kind[owner], one] - reward[kind[owner], other]
    swap = ahead < 0
    table = from_attributes(
        attributes=seen,
        attribute_names=[f"x{i}" for i in range(seen.shape[1])],
        chosen=np.where(swap, other, one),
        rejected=np.where(swap, one, other),
        user=[f"user {i}" for i in owner],
        outcome=np.where(ahead == 0, 0.5, 1.0),
        name=task.name,
    )
    return Sets(comparisons=table, features=task.features(seen), kind=np.asarray(kind, dtype=np.int32))
