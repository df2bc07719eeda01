"""Choosing with a reward that is only estimated: the least value over a confidence set, in closed form.

Park et al. (arXiv 2405.00254; cited by arXiv 2601.20760, Algorithm 1, line 3) give each user or cluster the policy
that maximises the worst value over a set of rewards, min_r (E_pi[r] - E_mu_1[r]): the baseline mu_1 is there because
preferences leave a reward's constant open. For a linear reward theta . phi and the set of all theta' with
|theta' - theta|_H <= radius, H the information of the fit, that minimum is (Zhu et al., arXiv 2301.11270)

    gap . theta - radius |gap|_{H^-1},        gap = E_pi[phi] - E_mu_1[phi].

Neither paper says what mu_1 is. Here it is the mean of the candidates themselves, what the policy that wrote them says
on average, or one given response per prompt (what a supervised policy would say). There is no KL term: the candidates
are the policy's, and the best of n of them is at most log n - (n - 1) / n nats away from it. With a radius of 0 the
choice is that of the reward itself.

H is the fit's own information (inverse covariance under the model, decisions independent), its ridge included, so that
a radius means standard deviations of the gap's reward. `radius_of` gives that which covers theta with a probability,
for many features a large one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import chi2
from torch import Tensor

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.features import Item
from pluralign.inference.newton import hessian
from pluralign.inference.stack import Stack
from pluralign.likelihoods import Logit
from pluralign.rewards import LinearReward
from pluralign.types import FloatArray
from pluralign.users import UNKNOWN, Clusters, Pooled


def pessimistic_value(
    gap: Float[Tensor, "n dim"], theta: Float[Tensor, " dim"], information: Float[Tensor, "dim dim"], radius: float
) -> Float[Tensor, " n"]:
    """Least value of each gap over the confidence set, (n,).

    Args:
        gap: Mean features of what is chosen minus those of the baseline, (n, dim).
        theta: The fitted reward.
        information: Negative Hessian of the fit, positive definite.
        radius: Of the set, in standard deviations; 0 gives gap . theta.

    Raises:
        ConfigError: The radius is negative or not a number, or the information is singular.
    """
    if not 0 <= radius < np.inf:
        raise ConfigError(f"radius is {radius}; it must be at least 0 and finite")
    factor, failed = torch.linalg.cholesky_ex(information)
    if bool(failed):
        raise ConfigError(
            "the information is singular: the data say nothing about some combination of features",
            hint="give the fit's ridge, above 0",
        )
    spread = torch.linalg.solve_triangular(factor, gap.T, upper=False).norm(dim=0)
    return gap @ theta - radius * spread


def radius_of(probability: float, dim: int) -> float:
    """Radius of the set that holds the true theta with this probability, if its estimate is normal.

    Raises:
        ConfigError: The probability is not between 0 and 1.
    """
    if not 0 < probability < 1:
        raise ConfigError(f"probability is {probability}; it must be above 0 and below 1")
    return float(chi2.ppf(probability, dim)) ** 0.5


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class PessimisticReward:
    """A linear reward that scores responses by their least value over its confidence set.

    A score is relative to the baseline of its prompt, and where that is the candidates' mean it depends on what else is
    scored for the prompt and the user in the same call: score all candidates at once, as `choose_best` does.

    Attributes:
        reward: A pooled reward or clusters. A user has the likeliest of its clusters, an unknown user the largest.
        information: Of each cluster's head, (clusters, dim, dim).
        radius: Of the confidence sets, in standard deviations.
        baseline: A response for each prompt; None means the mean of the candidates.
    """

    reward: LinearReward
    information: Float[Tensor, "clusters dim dim"]
    radius: float
    baseline: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls,
        reward: LinearReward,
        comparisons: Comparisons,
        *,
        radius: float,
        ridge: float,
        baseline: Mapping[str, str] | None = None,
    ) -> PessimisticReward:
        """Measure the information of a fitted reward.

        Args:
            reward: A pooled reward or clusters.
            comparisons: What it was fitted to, with the same users.
            radius: Of the confidence sets.
            ridge: Prior precision it was fitted with, on its standardized features.
            baseline: A response for each prompt, or None.

        Raises:
            ConfigError: The users are of another kind, or not those of the comparisons.
        """
        theta, membership = _heads(reward)
        if tuple(comparisons.user_ids) != reward.user_ids:
            raise ConfigError("the comparisons have other users than the reward; give those it was fitted to")
        design = reward.design(comparisons, progress=False).double
        stack = Stack(
            design=design,
            likelihood=Logit(),
            ridge=torch.full((len(theta),), float(ridge), dtype=torch.float64),
            center=torch.zeros_like(theta),
            group=design.user,
            group_weight=membership,
        )
        return cls(reward=reward, information=hessian(stack, stack.margins(theta)), radius=radius, baseline=baseline)

    @property
    def user_ids(self) -> tuple[str, ...]:
        return self.reward.user_ids

    def score(self, prompts: Sequence[str], responses: Sequence[str], users: Sequence[str | None]) -> FloatArray:
        """Least value of each response for the user beside it, relative to the prompt's baseline, (n,).

        Raises:
            DataError: Lengths differ, or a prompt has no baseline.
        """
        if not len(prompts) == len(responses) == len(users):
            raise DataError(f"{len(prompts)} prompts, {len(responses)} responses and {len(users)} users were given")
        if not len(prompts):
            return np.empty(0)
        features = self._features(prompts, responses)
        if self.baseline is None:
            groups: dict[tuple[str, str | None], int] = {}
            of = torch.tensor([groups.setdefault(each, len(groups)) for each in zip(prompts, users, strict=True)])
            total = features.new_zeros(len(groups), features.shape[1]).index_add_(0, of, features)
            against = (total / torch.bincount(of)[:, None])[of]
        else:
            missing = [prompt for prompt in prompts if prompt not in self.baseline]
            if missing:
                raise DataError(f"there is no baseline for the prompt {missing[0][:60]!r}")
            against = self._features(prompts, [self.baseline[prompt] for prompt in prompts])
        return self.values(features - against, self._cluster(users))

    def values(self, gap: Float[Tensor, "n dim"], cluster: Int[Tensor, " n"]) -> FloatArray:
        """Least value of each gap of standardized features under its cluster's reward, (n,)."""
        theta, _ = _heads(self.reward)
        value = gap.new_empty(len(gap))
        for k in cluster.unique().tolist():
            rows = cluster == k
            value[rows] = pessimistic_value(gap[rows], theta[k], self.information[k], self.radius)
        return value.numpy(force=True)

    def _features(self, prompts: Sequence[str], responses: Sequence[str]) -> Float[Tensor, "n dim"]:
        if not hasattr(self.reward.encoder, "encode"):
            raise DataError(f'the reward was fitted on "{self.reward.encoder.kind}" features, which texts do not have')
        items = [Item(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return self.reward.standardizer.transform(self.reward.encoder.encode(items)).double()

    def _cluster(self, users: Sequence[str | None]) -> Int[Tensor, " n"]:
        model = self.reward.users
        if isinstance(model, Pooled):
            return torch.zeros(len(users), dtype=torch.int64)
        assert isinstance(model, Clusters)
        known = {name: i for i, name in enumerate(self.reward.user_ids)}
        number = torch.tensor([UNKNOWN if user is None else known.get(user, UNKNOWN) for user in users])
        return torch.cat([model.membership, model.shares[None]])[number].argmax(1)


def _heads(reward: LinearReward) -> tuple[Float[Tensor, "clusters dim"], Float[Tensor, "users clusters"] | None]:
    """Heads in float64, and whose decisions each was fitted to."""
    model = reward.users
    if isinstance(model, Pooled):
        return model.theta.double()[None], None
    if isinstance(model, Clusters):
        return model.theta.double(), model.membership.double()
    raise ConfigError(f"users of kind {model.kind} have no confidence set here; it must be pooled or cluster")
