"""What a control task is: states, data without rewards, kinds of users with a true reward each, and success.

An item of a comparison is a state (or a segment of a trajectory, by the sum of its states' features), so that
comparisons, user models, likelihoods and queries are those of the whole library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from numpy import ndarray

Actor = Callable[[Float[ndarray, "episodes observation"]], Float[ndarray, "episodes action"]]
"""Actions of all episodes at once, from their observations."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Offline:
    """Trajectories that somebody once drove, without rewards. No step is terminal: episodes end by the clock.

    Attributes:
        observation: Before every step, (steps, observation).
        action: Taken, each number in [-1, 1], (steps, action).
        after: Observation after the step, (steps, observation).
        episode: Number of the trajectory, ascending, (steps,).
    """

    observation: Float[ndarray, "steps observation"]
    action: Float[ndarray, "steps action"]
    after: Float[ndarray, "steps observation"]
    episode: Int[ndarray, " steps"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollouts:
    """What a policy did.

    Attributes:
        success: Whether the episode's user got what they want, (episodes,).
        path: Observations from the first to the last; an episode that has ended stays where it is,
            (episodes, time, observation).
    """

    success: Bool[ndarray, " episodes"]
    path: Float[ndarray, "episodes time observation"]


@runtime_checkable
class Task(Protocol):
    """States, and kinds of users who want different ones."""

    @property
    def name(self) -> str:
        """Of the task."""
        ...

    @property
    def users(self) -> tuple[str, ...]:
        """What each kind of user wants, in words."""
        ...

    def features(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n dim"]:
        """What a reward sees of an observation, (n, dim)."""
        ...

    def rewards(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "users n"]:
        """True reward of every observation for every kind of user, (users, n), each between 0 and 1."""
        ...

    def goals(self) -> Float[ndarray, "users goal"]:
        """What the oracle's policy is told instead of z: a few numbers that say what a kind of user wants."""
        ...


@runtime_checkable
class Steered(Task, Protocol):
    """A task with dynamics, in which a policy acts."""

    def offline(self, steps: int, *, seed: int) -> Offline:
        """Data by a scripted controller, at least so many steps in whole trajectories."""
        ...

    def rollout(self, act: Actor, user: Int[ndarray, " episodes"], *, seed: int) -> Rollouts:
        """Let a policy act in one episode for every entry of `user` (its kind), all at once, from random starts."""
        ...
