"""Of several candidates, the one that a user's reward likes best.

The policy is not trained: any policy writes, any personal reward chooses. Where candidates are written for nobody in
particular, all users of a prompt choose from the same ones, and a reward whose texts do not depend on the user (linear,
or a language model with a late head) reads each of them once for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Protocol, final, runtime_checkable

import numpy as np

from pluralign.errors import ConfigError, DataError
from pluralign.policies.generation import Response
from pluralign.policies.policy import Prompt, Reader
from pluralign.policies.scoring import Reward, check_reward, score_texts
from pluralign.types import FloatArray, IntArray


@runtime_checkable
class Writer(Protocol):
    """Writes for users: `Policy`, `ClusterWriter`."""

    def generate(self, prompts: Sequence[Prompt], users: Sequence[Reader], **settings: Any) -> list[list[Response]]:
        """Write `n` responses to each prompt for the user beside it."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class BestOfN:
    """Candidates, their rewards, and the best.

    Attributes:
        candidates: Texts, (prompts, n).
        rewards: Reward of each for the user of its row, (prompts, n).
        best: Which is chosen, the first of equals, (prompts,).
    """

    candidates: list[list[str]]
    rewards: FloatArray
    best: IntArray

    @property
    def n(self) -> int:
        """Number of candidates of a prompt."""
        return self.rewards.shape[1]

    @property
    def texts(self) -> list[str]:
        """What is chosen for each prompt."""
        return [row[i] for row, i in zip(self.candidates, self.best.tolist(), strict=True)]

    @property
    def gain(self) -> FloatArray:
        """How much more reward the chosen one has than a candidate at random, (prompts,)."""
        return self.rewards.max(axis=1) - self.rewards.mean(axis=1)

    @property
    def kl_bound(self) -> float:
        """log n - (n - 1) / n, in nats: the KL divergence of the best of n from the policy is at most this.

        Equal to it where no two candidates ever have one reward; Beirami et al. (arXiv 2401.01879) show that it is a
        bound otherwise.
        """
        return log(self.n) - (self.n - 1) / self.n


def choose_best(
    prompts: Sequence[Prompt], users: Sequence[str | None], candidates: Sequence[Sequence[str]], reward: Reward
) -> BestOfN:
    """Choose among given candidates.

    Args:
        prompts: Texts or chats.
        users: Whose reward chooses, one per prompt.
        candidates: As many texts for each prompt as for any other.
        reward: Who scores.

    Raises:
        DataError: Lengths differ, or there are no candidates.
    """
    if not len(prompts) == len(users) == len(candidates):
        raise DataError(f"{len(prompts)} prompts, {len(users)} users and {len(candidates)} rows of candidates")
    counts = {len(row) for row in candidates}
    if len(counts) != 1 or 0 in counts:
        raise DataError(f"prompts have {sorted(counts)} candidates; each must have as many, and at least 1")
    (n,) = counts
    values = score_texts(
        reward,
        [prompt for prompt in prompts for _ in range(n)],
        [text for row in candidates for text in row],
        [user for user in users for _ in range(n)],
    ).reshape(-1, n)
    return BestOfN(
        candidates=[list(row) for row in candidates], rewards=values, best=values.argmax(axis=1).astype(np.int32)
    )


def best_of_n(
    policy: Writer,
    reward: Reward,
    prompts: Sequence[Prompt],
    users: Sequence[str | None],
    *,
    n: int = 16,
    written_for: str = "user",
    **generation: Any,
) -> BestOfN:
    """Write n candidates for each prompt and choose the best for its user.

    Args:
        policy: Who writes.
        reward: Who scores.
        prompts: Texts or chats.
        users: For whom, one per prompt.
        n: Number of candidates.
        written_for: "user": the policy writes for the user. "nobody": for the generic user, once for each distinct
            prompt, and all of its users choose from that.
        generation: Settings of `generate`; candidates are sampled.

    Raises:
        ConfigError: `written_for` is something else, what should score cannot, or a setting of the generation is out
            of range.
        DataError: There is not one user for each prompt.
    """
    if written_for not in ("user", "nobody"):
        raise ConfigError(f'written_for is "{written_for}"; it must be user or nobody')
    if len(prompts) != len(users):
        raise DataError(f"{len(prompts)} prompts and {len(users)} users were given")
    check_reward(reward)
    settings = {"do_sample": True, **generation}
    if written_for == "user":
        rows = [[each.text for each in row] for row in policy.generate(prompts, users, n=n, **settings)]
    else:
        keys = [prompt if isinstance(prompt, str) else repr(prompt) for prompt in prompts]
        distinct = dict(zip(keys, prompts, strict=True))
        written = policy.generate(list(distinct.values()), [None] * len(distinct), n=n, **settings)
        of = dict(zip(distinct, ([each.text for each in row] for row in written), strict=True))
        rows = [of[key] for key in keys]
    return choose_best(prompts, users, rows, reward)
