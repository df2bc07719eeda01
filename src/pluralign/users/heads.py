"""Rungs whose users share finitely many linear heads: `Pooled` is one, `Clusters` is K with probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.likelihoods import Logit
from pluralign.users.model import predictions_from


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Pooled:
    """One reward for everybody, theta . phi."""

    kind: ClassVar[str] = "pooled"
    theta: Float[Tensor, " dim"]
    n_users: int

    @property
    def dim(self) -> int:
        return self.theta.numel()

    @property
    def n_parameters(self) -> int:
        return self.dim

    def predict(self, design: Design, user: Int[Tensor, " decisions"] | None = None) -> Predictions:
        chosen, other = Logit().choice_probabilities(design.margins(self.theta[None]), design.decisions)
        return predictions_from(design, chosen[:, 0], other[:, 0])

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        mean = features @ self.theta
        return mean, torch.zeros_like(mean)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Clusters:
    """K rewards, and for each user the probability of each (one-hot where the assignment is hard).

    Attributes:
        theta: One head per cluster, (clusters, dim).
        shares: Prior probability of each cluster, which an unknown user gets, (clusters,).
        membership: Probability of each cluster for every user, (users, clusters).
        soft: Whether membership is a posterior (latent class) or an assignment.
    """

    kind: ClassVar[str] = "cluster"
    theta: Float[Tensor, "clusters dim"]
    shares: Float[Tensor, " clusters"]
    membership: Float[Tensor, "users clusters"]
    soft: bool

    @property
    def n_users(self) -> int:
        return self.membership.shape[0]

    @property
    def dim(self) -> int:
        return self.theta.shape[1]

    @property
    def n_clusters(self) -> int:
        return self.theta.shape[0]

    @property
    def n_parameters(self) -> int:
        return self.theta.numel() + self.n_clusters - 1

    def _of(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n clusters"]:
        # UNKNOWN is -1, which indexes the row appended last.
        return torch.cat([self.membership, self.shares[None]])[user]

    def predict(self, design: Design, user: Int[Tensor, " decisions"] | None = None) -> Predictions:
        member = self._of(design.user if user is None else user)
        chosen, other = Logit().choice_probabilities(design.margins(self.theta), design.decisions)
        return predictions_from(design, (chosen * member).sum(1), (other * member[design.decisions.index]).sum(1))

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        member, each = self._of(user), features @ self.theta.T
        mean = (member * each).sum(1)
        return mean, (member * (each - mean[:, None]) ** 2).sum(1).sqrt()
