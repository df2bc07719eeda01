"""A population with planted Gaussian tastes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_attributes
from pluralign.features import Design


def simulate(
    *,
    theta: torch.Tensor,
    basis: torch.Tensor,
    n_users: int,
    n_decisions: int,
    alternatives: int = 2,
    seed: int = 0,
    uneven: bool = False,
) -> tuple[Design, torch.Tensor]:
    """Users who choose by (theta + basis w_u) . phi with logit noise; the design and w, (users, rank)."""
    rng = np.random.default_rng(seed)
    n_items, (dim, rank) = 400, basis.shape
    x = rng.normal(size=(n_items, dim))
    w = rng.normal(size=(n_users, rank))
    count = rng.integers(max(1, n_decisions // 3), 2 * n_decisions, n_users) if uneven else [n_decisions] * n_users
    user = np.repeat(np.arange(n_users), count)
    taste = theta.double().numpy() + w @ basis.double().numpy().T
    # Distinct items of a decision: a random start and a random stride that is prime to their number.
    stride = rng.choice([1, 3, 7, 9, 11, 13, 17, 19], len(user))[:, None]
    offered = (rng.integers(n_items, size=len(user))[:, None] + stride * np.arange(alternatives)) % n_items
    best = ((x[offered] * taste[user][:, None]).sum(2) + rng.gumbel(size=offered.shape)).argmax(1)
    others = offered[np.arange(alternatives) != best[:, None]]
    decision = np.repeat(np.arange(len(user)), alternatives - 1)
    table = from_attributes(
        attributes=x,
        attribute_names=[f"x{i}" for i in range(dim)],
        chosen=offered[np.arange(len(user)), best][decision],
        rejected=others,
        user=[f"u{u:05d}" for u in user[decision]],
        choice=decision if alternatives > 2 else None,
    )
    return Design.of(table, torch.from_numpy(x).to(theta.dtype)), torch.from_numpy(w)


@pytest.fixture(scope="session")
def population() -> Callable[..., tuple[Design, torch.Tensor]]:
    return simulate


def simulate_clusters(
    *,
    n_users: int = 12,
    each: int = 30,
    dim: int = 3,
    n_clusters: int = 2,
    flips: float = 0.1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Design, np.ndarray]:
    """Users in clusters of equal size, answers flipped at random; the design and every user's cluster."""
    rng = np.random.default_rng(seed)
    items = rng.standard_normal((max(50, n_users * each // 4), dim))
    theta, cluster = rng.standard_normal((n_clusters, dim)), np.arange(n_users) % n_clusters
    user = np.repeat(np.arange(n_users), each)
    first = rng.integers(0, len(items), len(user))
    second = (first + rng.integers(1, len(items), len(user))) % len(items)
    prefers = ((items[first] - items[second]) * theta[cluster[user]]).sum(1) > 0
    prefers ^= rng.random(len(user)) < flips
    table = from_attributes(
        attributes=items,
        attribute_names=[f"x{i}" for i in range(dim)],
        chosen=np.where(prefers, first, second),
        rejected=np.where(prefers, second, first),
        user=[f"u{u}" for u in user],
        source=[f"s{i % each}" for i in range(len(user))],
    )
    return Design.of(table, torch.from_numpy(items).to(dtype)), cluster


@pytest.fixture(scope="session")
def clustered() -> Callable[..., tuple[Design, np.ndarray]]:
    return simulate_clusters
