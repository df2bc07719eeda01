"""Personal rewards under one roof: linear on frozen features, a language model, anything that scores for users."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol, final, runtime_checkable

import numpy as np

from pluralign.comparisons.chats import encode_chat
from pluralign.errors import ConfigError, DataError
from pluralign.policies.policy import Prompt, read_prompt
from pluralign.types import FloatArray


@runtime_checkable
class Reward(Protocol):
    """Scores responses for users: `LinearReward`, `TransformerReward`."""

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], users: Sequence[str | None]
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Reward of each response for the user beside it, (n,), perhaps with its standard deviation, (n,).

        Chats are spelled as canonical JSON; a name that is not known, or None, is the unknown user.
        """


def score_texts(
    reward: Reward, prompts: Sequence[Prompt], responses: Sequence[Prompt], users: Sequence[str | None]
) -> FloatArray:
    """Mean reward of each response for the user beside it, (n,); what occurs more than once is scored once.

    Args:
        reward: Who scores.
        prompts: Texts or chats, one per response.
        responses: Texts or lists of messages; a text that answers a chat is the assistant's.
        users: One per response.

    Raises:
        ConfigError: What should score cannot.
        DataError: Lengths differ, or a reward is not a number.
    """
    check_reward(reward)
    if not len(prompts) == len(responses) == len(users):
        raise DataError(f"{len(prompts)} prompts, {len(responses)} responses and {len(users)} users were given")
    number: dict[tuple[str, str, str | None], int] = {}
    row = [
        number.setdefault((*spell(prompt, response), user), len(number))
        for prompt, response, user in zip(prompts, responses, users, strict=True)
    ]
    if not row:
        return np.empty(0)
    asked, said, whose = zip(*number, strict=True)
    scored: Any = reward.score(asked, said, whose)
    mean = np.asarray(scored[0] if isinstance(scored, tuple) else scored, dtype=np.float64)
    if mean.shape != (len(number),):
        raise DataError(f"{len(number)} texts have rewards of shape {mean.shape}; there must be one each")
    bad = np.flatnonzero(~np.isfinite(mean))
    if len(bad):
        raise DataError(f"the reward of {said[bad[0]]!r} for {whose[bad[0]]} is {mean[bad[0]]}")
    return mean[row]


def check_reward(reward: object) -> None:
    """Refuse what cannot score.

    Raises:
        ConfigError: It has no `score`, as a policy has none.
    """
    if not isinstance(reward, Reward):
        raise ConfigError(
            f"a {type(reward).__name__} scores nothing: it has no score(prompts, responses, users)",
            hint="give a reward: a model of `train-reward`, `fit` or a study",
        )


def spell(prompt: Prompt, response: Prompt) -> tuple[str, str]:
    """A prompt and a response as one text each; chats as canonical JSON."""
    asked = read_prompt(prompt)
    if isinstance(asked, str):
        return asked, response if isinstance(response, str) else encode_chat(response)
    answer = read_prompt(response)
    if isinstance(answer, str):
        answer = [{"role": "assistant", "content": answer}]
    return encode_chat(asked), encode_chat(answer)


@final
class RememberedReward:
    """A reward that scores what it has scored before from memory.

    Attributes:
        reward: Who scores.
        capacity: Most rewards kept; the one that was asked for longest ago goes first.
        hits: Rewards that came from memory.
        misses: Rewards that were computed.
    """

    def __init__(self, reward: Reward, *, capacity: int = 1_000_000) -> None:
        if capacity < 1:
            raise ConfigError(f"capacity is {capacity}; it must be at least 1")
        self.reward, self.capacity = reward, capacity
        self.hits = self.misses = 0
        self._kept: OrderedDict[bytes, float] = OrderedDict()

    def score(self, prompts: Sequence[str], responses: Sequence[str], users: Sequence[str | None]) -> FloatArray:
        """Mean rewards, (n,)."""
        keys = [_key(*each) for each in zip(prompts, responses, users, strict=True)]
        new = {key: i for i, key in enumerate(keys) if key not in self._kept}
        rows = list(new.values())
        values = score_texts(
            self.reward, [prompts[i] for i in rows], [responses[i] for i in rows], [users[i] for i in rows]
        )
        fresh = dict(zip(new, values.tolist(), strict=True))
        result = np.array([fresh[key] if key in fresh else self._kept[key] for key in keys])
        self.hits += len(keys) - len(fresh)
        self.misses += len(fresh)
        for key in keys:
            if key in fresh:
                self._kept[key] = fresh[key]
            self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return result


def _key(prompt: str, response: str, user: str | None) -> bytes:
    digest = blake2b(digest_size=16)
    for text in (prompt, response, "" if user is None else f"user {user}"):
        part = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(part)} ".encode() + part)
    return digest.digest()
