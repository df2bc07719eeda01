"""(prompt, response, user) -> reward."""

from pluralign.rewards.linear import LinearReward

__all__ = ["LinearReward"]
