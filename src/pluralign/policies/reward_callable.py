"""A personal reward as TRL's trainers call one, so that any GRPO or RLOO run can optimise it.

TRL hands a reward function prompts, completions and every other column of its dataset as lists of one length. The
user is such a column:

    trainer = GRPOTrainer(model, reward_funcs=reward_function(reward), train_dataset=rows_with_prompt_and_user, ...)

Nothing of TRL is imported or overridden here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pluralign.errors import DataError
from pluralign.policies.policy import Prompt
from pluralign.policies.scoring import RememberedReward, Reward, score_texts, spell

RewardFunction: TypeAlias = Callable[..., list[float]]


def reward_function(
    reward: Reward,
    *,
    column: str = "user",
    user: str | None = None,
    name: str = "personal_reward",
    remember: int = 1_000_000,
) -> RewardFunction:
    """Make a reward function for TRL.

    Args:
        reward: Who scores.
        column: Column of the dataset that holds the user's name. A row without one, a name that the reward does not
            know, and every row of a dataset without the column get the unknown user's reward.
        user: The user of every row, whatever the dataset says: a cluster's reward, for instance.
        name: What TRL's logs call it (rewards/NAME/mean).
        remember: Most rewards kept, so that no completion is scored twice for one user; 0 keeps none.

    Returns:
        f(prompts, completions, **columns) -> rewards. Prompts and completions are texts or lists of messages.
    """
    scorer = RememberedReward(reward, capacity=remember) if remember else reward

    def call(*, prompts: Sequence[Prompt], completions: Sequence[Prompt], **columns: Any) -> list[float]:
        given = columns.get(column)
        if user is not None:
            users: list[str | None] = [user] * len(prompts)
        elif given is None:
            users = [None] * len(prompts)
        else:
            users = [None if each is None else str(each) for each in given]
        if not len(prompts) == len(completions) == len(users):
            raise DataError(f"{len(prompts)} prompts, {len(completions)} completions and {len(users)} users were given")
        pairs = [spell(*each) for each in zip(prompts, completions, strict=True)]
        return score_texts(scorer, [p for p, _ in pairs], [c for _, c in pairs], users).tolist()

    call.__name__ = call.__qualname__ = name
    return call
