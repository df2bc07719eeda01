"""Whether a policy does what its user wants: success over users and seeds, with intervals, and with z exchanged.

An episode is a decision, right or wrong, so intervals and paired differences are those of `pluralign.evaluation`:
clustered by user and, where there are several trainings, by training too (the larger variance of the two and of both,
with the fewer degrees of freedom), because a training that fails fails many users at once. One training has an interval
over users alone, which says nothing of another training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from pluralign.control.tasks import Offline, Rollouts, Steered
from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Interval, Predictions, combine_seeds, mean_interval, paired_difference


@runtime_checkable
class Acts(Protocol):
    """A policy: `iql.Policy`, or any other that depends on z."""

    def act(
        self, observation: Float[ndarray, "n observation"], z: Float[ndarray, "n latent_dim"]
    ) -> Float[ndarray, "n action"]: ...


def with_features(task: Steered, offline: Offline) -> Offline:
    """The same data with the task's features (what rewards see) beside every observation.

    Values that change within a small part of the state space are then within reach of a small net.
    """

    def wide(observation: ndarray) -> ndarray:
        return np.concatenate([observation, task.features(observation)], axis=1)

    return replace(offline, observation=wide(offline.observation), after=wide(offline.after))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Featured:
    """A policy trained on data `with_features`, which acts on plain observations.

    Attributes:
        policy: The policy.
        task: Whose features it sees.
    """

    policy: Acts
    task: Steered

    def act(
        self, observation: Float[ndarray, "n observation"], z: Float[ndarray, "n latent_dim"]
    ) -> Float[ndarray, "n action"]:
        return self.policy.act(np.concatenate([observation, self.task.features(observation)], axis=1), z)


def success_rates(
    task: Steered, policy: Acts, z: Float[ndarray, "users latent_dim"], kind: Int[ndarray, " episodes"], *, seed: int
) -> Rollouts:
    """Let a policy act once for every user, all at once.

    Args:
        task: Where.
        policy: What acts.
        z: Where every user is, (users, latent_dim).
        kind: What every user wants, (users,).
        seed: Of the starts: policies with the same seed are compared from the same starts.

    Raises:
        DataError: There is not one latent for every user.
    """
    if len(z) != len(kind):
        raise DataError(f"there are {len(z)} latents for {len(kind)} users; each needs one")
    return task.rollout(lambda observation: policy.act(observation, z), kind, seed=seed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """Episodes of one trained policy.

    Attributes:
        success: Whether each user got what they want, or the share of several starts from which they do, (users,).
        kind: Kind of each, (users,).
        user: Number of each; the same number in several runs is the same user, (users,).
    """

    success: Bool[ndarray, " users"] | Float[ndarray, " users"]
    kind: Int[ndarray, " users"]
    user: Int[ndarray, " users"]

    @classmethod
    def of(cls, rollouts: Rollouts, kind: Int[ndarray, " users"], *, first: int = 0) -> Run:
        """One episode for every user; `first` is the first user's number, for users who are in no other run."""
        return cls(success=rollouts.success, kind=np.asarray(kind), user=np.arange(first, first + len(kind)))

    def take(self, users: Bool[ndarray, " users"]) -> Run:
        return Run(success=self.success[users], kind=self.kind[users], user=self.user[users])


@dataclass(frozen=True, kw_only=True)
class Success:
    """Success rates of a method.

    Attributes:
        overall: Over all episodes, every training counting the same.
        kinds: The same for users of each kind, by what they want.
        seeds: Rate of every training.
    """

    overall: Interval
    kinds: dict[str, Interval]
    seeds: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "overall": self.overall.as_dict(),
            "kinds": {name: interval.as_dict() for name, interval in self.kinds.items()},
            "seeds": list(self.seeds),
        }


def success_interval(runs: Sequence[Run], kinds: Sequence[str], *, level: float = 0.95) -> Success:
    """Success of a method over its trainings.

    Args:
        runs: One per training (seed).
        kinds: What the kinds of users want, `Task.users`; a kind that no user is of is left out.
        level: Of the intervals.

    Raises:
        DataError: There is no run, or one without a user.
    """
    each = {}
    for k, name in enumerate(kinds):
        some = [run.take(run.kind == k) for run in runs]
        if all(len(run.kind) for run in some) and some:
            each[name] = _mean(some, level)
    return Success(
        overall=_mean(runs, level), kinds=each, seeds=tuple(float(run.success.mean()) for run in runs if len(run.kind))
    )


def success_difference(a: Sequence[Run], b: Sequence[Run], *, level: float = 0.95) -> Interval:
    """Success of one method minus that of another, for the same users from the same starts, training by training.

    Raises:
        DataError: The two do not have the same users in the same order.
    """
    if len(a) != len(b):
        raise DataError(f"one method has {len(a)} runs and the other {len(b)}; compare the same seeds")
    return paired_difference(_episodes(a), _episodes(b), "probability", cluster=cluster_of(len(a)), level=level)


@dataclass(frozen=True, eq=False, kw_only=True)
class Swap:
    """The same starts with latents that are not the users' own; users numbered alike in all.

    Attributes:
        own: Every user with their own z.
        lent: Every user with the z of a user of another kind: the share who still get what they want.
        followed: The same episodes judged by what the lender wants: high where z decides.
        unknown: Every user with the z of one who compared nothing.
        lender: Whose z was lent, (users,).
    """

    own: Rollouts
    lent: Rollouts
    followed: Rollouts
    unknown: Rollouts
    lender: Int[ndarray, " users"]

    def as_dict(self) -> dict[str, float]:
        """Success rates."""
        return {name: float(getattr(self, name).success.mean()) for name in ("own", "lent", "followed", "unknown")}


def swap_users(
    task: Steered,
    policy: Acts,
    z: Float[ndarray, "users latent_dim"],
    kind: Int[ndarray, " users"],
    unknown: Float[ndarray, " latent_dim"],
    *,
    seed: int,
) -> Swap:
    """Exchange the latents of users of different kinds, and take them away: behaviour should follow z.

    Args:
        task: Where.
        policy: What acts.
        z: Where every user is, (users, latent_dim).
        kind: What every user wants, (users,).
        unknown: Where a user is who compared nothing, (latent_dim,).
        seed: Of the starts and of who lends to whom.

    Raises:
        ConfigError: All users are of one kind.
    """
    kind = np.asarray(kind)
    if len(np.unique(kind)) < 2:
        raise ConfigError("all users are of one kind; there must be two kinds to exchange their latents")
    rng = np.random.default_rng(seed)
    lender = np.empty(len(kind), dtype=np.int64)
    for k in np.unique(kind):
        lender[kind == k] = rng.choice(np.flatnonzero(kind != k), (kind == k).sum())

    def roll(latent: ndarray, wanted: ndarray) -> Rollouts:
        return success_rates(task, policy, latent, wanted, seed=seed)

    nobody = np.broadcast_to(unknown, z.shape).copy()
    return Swap(
        own=roll(z, kind),
        lent=roll(z[lender], kind),
        followed=roll(z[lender], kind[lender]),
        unknown=roll(nobody, kind),
        lender=lender,
    )


def cluster_of(n_trainings: int) -> str:
    """What intervals are clustered by: users, and trainings where there are several."""
    return "both" if n_trainings > 1 else "user"


def _mean(runs: Sequence[Run], level: float) -> Interval:
    return mean_interval(_episodes(runs), "probability", cluster=cluster_of(len(runs)), level=level)


def as_predictions(
    success: Float[ndarray, " users"] | Bool[ndarray, " users"],
    user: Int[ndarray, " users"] | None = None,
    *,
    source: Int[ndarray, " users"] | None = None,
) -> Predictions:
    """Success of each user as the probability of what is right, so that intervals are those of every other score.

    Args:
        success: Of each, from 0 to 1.
        user: Their numbers; None counts from 0.
        source: What else episodes have in common, a training; None means nothing but the user.
    """
    chosen = np.asarray(success, dtype=np.float64)
    user = np.asarray(np.arange(len(chosen)) if user is None else user, dtype=np.int32)
    return Predictions(
        chosen=chosen,
        best_other=1 - chosen,
        outcome=np.ones(len(chosen)),
        user=user,
        source=user if source is None else np.asarray(source, dtype=np.int32),
        weight=np.ones(len(chosen)),
    )


def _episodes(runs: Sequence[Run]) -> Predictions:
    """All episodes; a source is a training."""
    return combine_seeds(
        [
            as_predictions(run.success, run.user, source=np.full(len(run.success), number))
            for number, run in enumerate(runs)
        ]
    )
