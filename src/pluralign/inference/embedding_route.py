"""The route of arXiv 2601.20760's experiments: user embeddings, their clusters, then one reward per cluster.

The paper learns embeddings of width 8 or 16 with the reward, looks at their cosines and t-SNE, groups users by eye
into two, and trains a reward model on each group. Here the embeddings are given, as by the ladder: the
coefficients w_u of the basis model (theta + V w_u) . phi, learned with the reward; or, where none are given, principal
directions of the users' one-step estimates. The grouping is an algorithm's. The paper states neither how an
embedding enters its reward nor how it groups. Extreme cosines are no evidence of groups: random vectors of width 8
reach 0.8.
"""

from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.clusters import LEAST_RIDGE, screen_users
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Likelihood, Logit
from pluralign.types import FloatArray
from pluralign.users import Clusters

Grouping = Literal["k-means", "agglomerative", "spectral"]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingRouteFit:
    """Clusters found by way of embeddings.

    Attributes:
        model: A head per cluster, fitted to its members alone; clusters are numbered by falling share.
        embeddings: One row per user, (users, width); zeros for a user without rows.
        cosine: Of every two users with rows, in their order, (users with rows, users with rows).
        least_cosine: Smallest cosine of two users.
        greatest_cosine: Largest cosine of two different users.
    """

    model: Clusters
    embeddings: Float[Tensor, "users width"]
    cosine: FloatArray
    least_cosine: float
    greatest_cosine: float


def fit_embedding_route(
    design: Design,
    n_clusters: int,
    *,
    embeddings: Float[Tensor, "users width"] | None = None,
    width: int = 8,
    grouping: Grouping = "k-means",
    ridge: float = 0.0,
    center: Float[Tensor, " dim"] | None = None,
    seed: int = 0,
    likelihood: Likelihood | None = None,
) -> EmbeddingRouteFit:
    """Group users by the direction of their embeddings and fit a head to each group.

    Args:
        design: Training rows and features.
        n_clusters: K; 2 in the paper.
        embeddings: Users' embeddings learned with a reward (a basis model's); None takes the leading `width` principal
            directions of the users' one-step estimates around the pooled reward.
        width: Width of such embeddings, 8 or 16 in the paper; fewer where there are fewer dimensions.
        grouping: Algorithm. k-means sees embeddings of length one, the others the cosines.
        ridge: Precision of the Gaussian prior of every head around `center`; never below `LEAST_RIDGE`.
        center: Its mean; None means 0.
        seed: Of the grouping.
        likelihood: Logit by default.

    Raises:
        ConfigError: An unknown grouping, or more clusters than users with rows.
    """
    likelihood = likelihood or Logit()
    present = torch.bincount(design.user, minlength=design.n_users) > 0
    n_present = int(present.sum())
    if grouping not in get_args(Grouping):
        raise ConfigError(f'unknown grouping "{grouping}"; known: {", ".join(get_args(Grouping))}')
    if not 2 <= n_clusters <= n_present:
        raise ConfigError(f"n_clusters is {n_clusters}; it must be from 2 to {n_present}, the users with rows")
    center = torch.zeros_like(design.features[0]) if center is None else center.to(design.features)
    if embeddings is None:
        found = screen_users(design, ridge=ridge, center=center, likelihood=likelihood, seed=seed).embeddings
        embeddings = found @ torch.linalg.svd(found[present], full_matrices=False).Vh[:width].T
    embeddings = torch.where(present[:, None], embeddings, 0)
    unit = torch.nn.functional.normalize(embeddings[present].double(), dim=1).numpy(force=True)
    cosine = np.clip(unit @ unit.T, -1, 1)
    label = torch.as_tensor(_group(unit, cosine, n_clusters, grouping, seed), dtype=torch.int64).to(present.device)
    size = torch.bincount(label, minlength=n_clusters)
    order = size.argsort(descending=True, stable=True)
    label, size = order.argsort()[label], size[order]
    dtype = design.features.dtype
    shares = (size / n_present).to(dtype)
    membership = shares.expand(design.n_users, -1).clone()
    membership[present] = torch.nn.functional.one_hot(label, n_clusters).to(dtype)
    theta = fit_heads(
        design,
        ridge=torch.full_like(shares, max(ridge, LEAST_RIDGE)),
        group_weight=membership,
        center=center.expand(n_clusters, -1),
        likelihood=likelihood,
    ).theta
    apart = cosine[~np.eye(n_present, dtype=np.bool_)]
    return EmbeddingRouteFit(
        model=Clusters(theta=theta, shares=shares, membership=membership, soft=False),
        embeddings=embeddings,
        cosine=cosine,
        least_cosine=float(apart.min()),
        greatest_cosine=float(apart.max()),
    )


def _group(unit: FloatArray, cosine: FloatArray, n_clusters: int, grouping: Grouping, seed: int) -> np.ndarray:
    if grouping == "k-means":
        return np.asarray(KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(unit))
    if grouping == "agglomerative":
        model = AgglomerativeClustering(n_clusters, metric="precomputed", linkage="average")
        return np.asarray(model.fit_predict(1 - cosine))
    # Spectral clustering wants similarities from 0 up; (1 + cosine) / 2 keeps their order.
    spectral = SpectralClustering(n_clusters, affinity="precomputed", random_state=seed)
    return np.asarray(spectral.fit_predict((1 + cosine) / 2))
