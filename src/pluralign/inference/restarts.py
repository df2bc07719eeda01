"""Where the restarts of EM begin: partitions of the users.

The first is k-means on the users' embeddings. It nearly always gives the same partition, so the others are k-means in
half as many directions drawn at random, each user with the nearest of K users drawn at random, and pure chance, by
turns: each finds optima that another misses (of the two-class model of Swiss route choice, 10, 6 and none of 30).
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from pluralign.types import FloatArray, IntArray

KINDS = ("projected k-means", "seed users", "projected k-means", "random")


def start_kind(index: int) -> str:
    """The kind of restart number `index`."""
    return KINDS[(index - 1) % len(KINDS)] if index else "k-means"


def starting_memberships(
    embeddings: Float[Tensor, "users width"],
    present: Tensor,
    n_clusters: int,
    n_starts: int,
    rng: np.random.Generator,
) -> Float[Tensor, "users starts clusters"]:
    """One-hot memberships to start from.

    Args:
        embeddings: What is known of every user, in a metric in which nearness means alike.
        present: Users with comparisons, (users,); the others start in the first cluster and have no say.
        n_clusters: K.
        n_starts: Number of restarts; number i is of kind `start_kind(i)`.
        rng: Source of randomness.
    """
    points = embeddings[present].double().numpy(force=True)
    label = torch.zeros((len(embeddings), n_starts), dtype=torch.int64, device=embeddings.device)
    for i in range(n_starts):
        found = _partition(points, n_clusters, start_kind(i), rng)
        label[present, i] = torch.as_tensor(found, dtype=torch.int64, device=embeddings.device)
    return torch.nn.functional.one_hot(label, n_clusters).double()


def _partition(points: FloatArray, n_clusters: int, kind: str, rng: np.random.Generator) -> IntArray:
    if n_clusters == 1:
        return np.zeros(len(points), dtype=np.int32)
    if kind == "random":
        # Every cluster gets its share, so that none starts empty.
        return rng.permutation(np.arange(len(points), dtype=np.int32) % n_clusters)
    if kind == "seed users":
        seeds = points[rng.choice(len(points), n_clusters, replace=False)]
        distance = (seeds**2).sum(1) - 2 * points @ seeds.T
        return distance.argmin(1).astype(np.int32)
    if kind == "projected k-means":
        width = points.shape[1]
        points = points @ rng.standard_normal((width, max(1, width // 2)))
    with warnings.catch_warnings():
        # Fewer distinct embeddings than clusters: the empty clusters are filled by EM.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n_clusters, n_init=1, max_iter=50, random_state=int(rng.integers(2**31)))
        return np.asarray(model.fit_predict(points), dtype=np.int32)


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Adjusted Rand index of two partitions of users (Hubert and Arabie 1985): 1 the same, 0 what chance gives.

    Labels are from 0, one for each user in both. A fit compares all its restarts, and scikit-learn's checks would cost
    more than the fit itself.
    """
    table = np.zeros((first.max(initial=0) + 1, second.max(initial=0) + 1))
    np.add.at(table, (first, second), 1)
    together, in_first, in_second, everybody = (
        float((count * (count - 1)).sum() / 2) for count in (table, table.sum(1), table.sum(0), table.sum())
    )
    expected, most = in_first * in_second / max(everybody, 1), (in_first + in_second) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
