"""Write for users who are in clusters: each by the adapter of its cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pluralign.errors import ConfigError, DataError
from pluralign.policies.generation import Response, generate
from pluralign.policies.policy import Cluster, Policy, Prompt, Reader
from pluralign.training.cluster_policies import ClusterPolicies


@final
@dataclass(frozen=True, eq=False)
class ClusterWriter:
    """Clusters' policies in the place of one `Policy`.

    Attributes:
        policies: The policies, and who is in which cluster.
    """

    policies: ClusterPolicies

    @property
    def user_ids(self) -> tuple[str, ...]:
        """Names of the users who have a cluster."""
        return self.policies.user_ids

    def clusters_of(self, users: Sequence[Reader]) -> list[int | None]:
        """Whose policy serves each user; None is everybody's, for None and for a name without a cluster.

        Raises:
            ConfigError: There is no such cluster.
        """
        cluster: dict[Reader, int] = dict(zip(self.user_ids, self.policies.cluster.tolist(), strict=True))
        for each in users:
            if isinstance(each, Cluster):
                if not 0 <= each.number < self.policies.n_clusters:
                    raise ConfigError(f"there is no cluster {each.number}; there are {self.policies.n_clusters}")
                cluster[each] = each.number
        return [cluster.get(each) for each in users]

    def generate(
        self, prompts: Sequence[Prompt], users: Sequence[Reader], *, seed: int = 0, **settings: Any
    ) -> list[list[Response]]:
        """Write for users, one policy after the other; `generate` of `pluralign.policies.generation` otherwise.

        Each policy draws its samples from a seed of its own, which `seed` and its number make.
        """
        if len(prompts) != len(users):
            raise DataError(f"{len(prompts)} prompts and {len(users)} users were given")
        served = self.clusters_of(users)
        written: list[list[Response]] = [[] for _ in users]
        for number, cluster in enumerate((*range(self.policies.n_clusters), None)):
            rows = [i for i, each in enumerate(served) if each == cluster]
            if not rows:
                continue
            own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            with self.policies.use(cluster) as model:
                policy = Policy(model, self.policies.tokenizer)
                asked = [prompts[i] for i in rows]
                found = generate(policy, asked, [None] * len(rows), seed=own_seed, **settings)
            for i, responses in zip(rows, found, strict=True):
                written[i] = responses
        return written
