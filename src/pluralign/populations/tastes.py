"""True tastes: one linear reward per user, drawn with a known structure.

The kinds are the rungs of the ladder: `null` (everybody alike), `reliability` (alike but for how decided they are),
`clusters`, `basis` (a few directions, any mixture of them) and `individual`. Margins of random pairs have standard
deviation `signal` in all of them, so that populations of different kinds are equally hard to predict for somebody who
knows each user's taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pluralign.errors import ConfigError
from pluralign.types import FloatArray, IntArray

KINDS = ("null", "reliability", "clusters", "basis", "individual")
RELIABILITY_SD = 0.7


@dataclass(frozen=True, eq=False, kw_only=True)
class Tastes:
    """The truth about users: user u rewards an item by (loading[u] @ heads) . phi.

    Attributes:
        kind: One of `KINDS`.
        heads: Rewards that users share, (heads, dim); one per user where `loading` is None.
        loading: How much of each head every user has, (users, heads), its reliability included; None where everybody
            has a head of their own.
        cluster: Cluster of every user, (users,); 0 where there are none.
        reliability: Factor on every user's margins, 1 in the middle, (users,).
    """

    kind: str
    heads: FloatArray
    loading: FloatArray | None
    cluster: IntArray
    reliability: FloatArray

    @property
    def n_users(self) -> int:
        return len(self.cluster)

    @property
    def theta(self) -> FloatArray:
        """Reward of every user, (users, dim)."""
        return self.heads if self.loading is None else self.loading @ self.heads

    def rewards(self, features: np.ndarray, item: np.ndarray, user: np.ndarray) -> FloatArray:
        """Reward of each item for the user beside it, (n,)."""
        if self.loading is not None:
            return np.einsum("nh,nh->n", (features @ self.heads.T.astype(features.dtype))[item], self.loading[user])
        heads = self.heads.astype(features.dtype)
        step = max(1, 20_000_000 // features.shape[1])  # no more than so many numbers at once
        blocks = [slice(start, start + step) for start in range(0, len(item), step)]
        parts = [np.einsum("nd,nd->n", features[item[b]], heads[user[b]]) for b in blocks]
        return np.concatenate([np.empty(0), *parts])


def draw_tastes(
    features: np.ndarray,
    n_users: int,
    *,
    kind: str = "clusters",
    n_clusters: int = 3,
    shares: Sequence[float] | None = None,
    heads: np.ndarray | None = None,
    reliability_sd: float | None = None,
    signal: float = 2.0,
    spread: float = 1.0,
    rank: int = 2,
    seed: int,
) -> Tastes:
    """Draw the tastes of a population.

    Args:
        features: Of the items, (items, dim); their covariance sets the scale of the rewards.
        n_users: Number of users.
        kind: One of `KINDS`.
        n_clusters: Number of clusters, for `clusters`.
        shares: Share of the users in each cluster; None means the same. Sizes are exact, to the nearest user.
        heads: Directions of the clusters' tastes (or of the one taste), (clusters, dim); None means at random.
        reliability_sd: Standard deviation of the log of users' reliability; None means 0.7 for the kind `reliability`
            and 0 for the others.
        signal: Standard deviation of the margin of a random pair for a user of reliability 1, in logits.
        spread: For `basis` and `individual`: that of the user's own part of the margin over that of the common part.
        rank: For `basis`: number of directions.
        seed: Of the draw.

    Raises:
        ConfigError: An unknown kind, or a number outside its range.
    """
    n_heads = n_clusters if kind == "clusters" else 1
    shares = np.full(n_heads, 1 / max(n_heads, 1)).tolist() if shares is None or kind != "clusters" else list(shares)
    reliability_sd = (RELIABILITY_SD if kind == "reliability" else 0.0) if reliability_sd is None else reliability_sd
    _check(kind, n_users, n_heads, shares, reliability_sd, signal, spread, rank, features.shape[1])
    rng = np.random.default_rng(seed)
    dim = features.shape[1]

    common = rng.normal(size=(n_heads, dim)) if heads is None else np.asarray(heads, dtype=np.float64)
    if common.shape != (n_heads, dim):
        raise ConfigError(f"heads have shape {common.shape}; expected {(n_heads, dim)}")
    reliability = np.exp(reliability_sd * rng.normal(size=n_users))
    cluster = np.zeros(n_users, dtype=np.int32)
    loading: FloatArray | None = reliability[:, None]
    base, own = signal / np.hypot(1, spread), signal * spread / np.hypot(1, spread)
    match kind:
        case "null" | "reliability":
            common = _scaled(features, common, signal)
        case "clusters":
            common = _scaled(features, common, signal)
            cluster = rng.permutation(np.repeat(np.arange(n_clusters), exact_sizes(shares, n_users))).astype(np.int32)
            loading = reliability[:, None] * np.eye(n_clusters)[cluster]
        case "basis":
            directions = _scaled(features, rng.normal(size=(rank, dim)), own / np.sqrt(rank))
            common = np.concatenate([_scaled(features, common, base), directions])
            loading = reliability[:, None] * np.concatenate(
                [np.ones((n_users, 1)), rng.normal(size=(n_users, rank))], 1
            )
        case _:
            # A direction from N(0, I) has margins of variance 2 trace(covariance of the features) on average.
            each = own / np.sqrt(2 * features.var(axis=0, dtype=np.float64).sum())
            common = reliability[:, None] * (_scaled(features, common, base) + each * rng.normal(size=(n_users, dim)))
            loading = None
    return Tastes(kind=kind, heads=common, loading=loading, cluster=cluster, reliability=reliability)


def _scaled(features: np.ndarray, directions: np.ndarray, to: float) -> FloatArray:
    """Rewards along these directions whose margins of random pairs have this standard deviation."""
    sd = np.sqrt(2) * np.asarray(features @ directions.T.astype(features.dtype), dtype=np.float64).std(axis=0)
    if not (sd > 0).all():
        raise ConfigError("the features are the same for all items, so no taste tells them apart")
    return directions * (to / sd)[:, None]


def exact_sizes(shares: Sequence[float], n: int) -> IntArray:
    """Split n by shares that sum to 1: whole parts, then one each to the largest remainders."""
    exact = np.asarray(shares, dtype=np.float64) * n
    sizes = np.floor(exact + 1e-9).astype(np.int32)
    sizes[np.argsort(sizes - exact, kind="stable")[: n - sizes.sum()]] += 1
    return sizes


def _check(
    kind: str,
    n_users: int,
    n_heads: int,
    shares: Sequence[float],
    reliability_sd: float,
    signal: float,
    spread: float,
    rank: int,
    dim: int,
) -> None:
    if kind not in KINDS:
        raise ConfigError(f'unknown kind "{kind}"; known: {", ".join(KINDS)}')
    for name, value, accepted, right in (
        ("n_users", n_users, "at least 1", n_users >= 1),
        ("n_clusters", n_heads, f"1 to n_users ({n_users})", 1 <= n_heads <= n_users),
        ("reliability_sd", reliability_sd, "at least 0", reliability_sd >= 0),
        ("signal", signal, "at least 0", signal >= 0),
        ("spread", spread, "at least 0", spread >= 0),
        ("rank", rank, f"1 to the number of features ({dim})", kind != "basis" or 1 <= rank <= dim),
    ):
        if not right:
            raise ConfigError(f"{name} is {value}; it must be {accepted}")
    if len(shares) != n_heads or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"shares are {list(shares)}; {n_heads} clusters need as many, above 0, that sum to 1")
