"""Users on a plane and in a space: t-SNE of their embeddings by cosine.

t-SNE (van der Maaten and Hinton 2008) keeps neighbours together and nothing else: distances between groups, their sizes
and their densities mean little, and points drawn from one Gaussian fall into clumps as well. A clump is a group only if
the clusters, which are chosen by held-out choices, and the split halves say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pluralign.errors import ConfigError
from pluralign.heterogeneity.embeddings import Embedding, stratified

FEW_USERS = 5  # fewer are laid out by principal components
MAX_ITERATIONS = 500  # half of scikit-learn's: what still moves afterwards is not seen
_PLACES = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Projection:
    """Where users are drawn.

    Attributes:
        user: Names of the users drawn.
        cluster: Their clusters, numbered from 1 as in `results.json`; 0 for a user without one.
        two: Places on a plane, (drawn, 2).
        three: Places in a space, (drawn, 3).
        perplexity: Of t-SNE, always below the number of users; None for principal components.
        method: "t-SNE" or "PCA".
        n_users: Users with rows, drawn or not.
        note: How many are drawn, and how to read it.
    """

    user: tuple[str, ...]
    cluster: tuple[int, ...]
    two: Float[np.ndarray, "drawn 2"]
    three: Float[np.ndarray, "drawn 3"]
    perplexity: float | None
    method: str
    n_users: int
    note: str


def project(
    embedding: Embedding,
    cluster: Int[np.ndarray, " users"] | None = None,
    *,
    user_ids: Sequence[str],
    perplexity: float | None = None,
    max_users: int = 500,
    seed: int = 0,
) -> Projection:
    """Lay users out in two and in three dimensions.

    Users of whom nothing is known (an embedding of zeros) have no direction and are left out.

    Args:
        embedding: Of the users (`embed_users`).
        cluster: Cluster of every user from 0, -1 where it has none, (users,); None means no clusters.
        user_ids: Names of all users, (users,).
        perplexity: Of t-SNE; None takes 30, or a third of the other users where that is less.
        max_users: Users drawn at most, from each cluster by its share.
        seed: Of the draw and of t-SNE.

    Raises:
        ConfigError: A perplexity that is not between 0 and the number of users drawn, `max_users` below 2, or clusters
            of another number of users.
    """
    if max_users < 2:
        raise ConfigError(f"max_users is {max_users}; it must be at least 2")
    if cluster is not None and len(cluster) != len(user_ids):
        raise ConfigError(f"clusters are of {len(cluster)} users; there are {len(user_ids)}")
    cluster = np.full(len(user_ids), -1) if cluster is None else np.asarray(cluster)
    known = np.flatnonzero((embedding.vector != 0).any(axis=1))
    kept = known[stratified(cluster[embedding.user[known]], max_users, np.random.default_rng(seed))]
    user, n = embedding.user[kept], len(kept)
    if perplexity is not None and not 0 < perplexity < n:
        raise ConfigError(f"perplexity is {perplexity:g}; it must be above 0 and below the {n} users drawn")
    left_out = len(embedding.user) - len(known)
    parts = [f"{n} of {len(embedding.user)} users are drawn." if n < len(known) else f"{n} users are drawn."]
    if left_out:
        parts.append(f"{left_out} without a direction are left out.")
    by_tsne = n >= FEW_USERS and embedding.width > 1
    if by_tsne:
        perplexity = min(30.0, (n - 1) / 3) if perplexity is None else perplexity
        unit = embedding.unit[kept]
        two, three = (_tsne(unit, dims, perplexity, seed) for dims in (2, 3))
        parts.append("t-SNE draws clumps of random points as well: whether there are groups, the clusters' gains say.")
    else:
        perplexity = None
        two, three = (_principal(embedding.vector[kept], dims) for dims in (2, 3))
        why = "there is one direction of taste" if embedding.width < 2 else f"{n} users are too few for t-SNE"
        parts.append(f"Principal components, because {why}.")
    return Projection(
        user=tuple(user_ids[u] for u in user),
        cluster=tuple(int(k) + 1 for k in cluster[user]),
        two=two.round(_PLACES),
        three=three.round(_PLACES),
        perplexity=perplexity,
        method="t-SNE" if by_tsne else "PCA",
        n_users=len(embedding.user),
        note=" ".join(parts),
    )


def _tsne(unit: Float[np.ndarray, "users width"], dims: int, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    # A start from the principal components keeps what is far apart far apart; they may be fewer than dimensions.
    start = _principal(unit, dims)
    start += 1e-3 * np.random.default_rng(seed).normal(size=start.shape)
    start *= 1e-4 / start[:, 0].std()
    # Of few users scikit-learn's rate, at least 50, makes a cloud: two camps of 21 users in three dimensions end at a
    # divergence of 2.2, and at 0.03 with a rate like this.
    rate = max(len(unit) / 48, min(50.0, max(len(unit) / 12, 2.0)))
    model = TSNE(
        dims,
        perplexity=perplexity,
        metric="cosine",
        init=start.astype(np.float32),
        learning_rate=rate,
        max_iter=MAX_ITERATIONS,
        random_state=seed,
    )
    return np.asarray(model.fit_transform(unit), dtype=np.float64)


def _principal(vector: Float[np.ndarray, "users width"], dims: int) -> Float[np.ndarray, "users {dims}"]:
    """Leading principal components, zeros where there are fewer."""
    out = np.zeros((len(vector), dims))
    if len(vector):
        left, size, _ = np.linalg.svd(vector - vector.mean(0), full_matrices=False)
        n = min(dims, len(size))
        out[:, :n] = left[:, :n] * size[:n]
    return out
