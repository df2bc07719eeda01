"""Plan on a learned reward over the maze's cells, without a policy: the quick tier of the maze.

What a reward asks for, apart from how well an offline learner follows it. From every cell the plan makes the moves that
are best for ever under the reward of the cells moved to, at the maze's discount; it is exact (policy iteration from
staying put, one linear system per user and round) and rests, in the end, in some cell. Two numbers are given, and they
differ: whether the plan *rests* in the user's goal, which is the success that is reported, and whether it *passes* it
on the way, which is all that an episode of the maze asks for, as that ends there. A reward may lead past a goal by
chance, and does so for the plan's exact moves more than for a policy's. The cell of the goal itself is no start.

With the true reward the plan rests in the goal from everywhere. Of two users with far goals, the *mean of their true
rewards* has both goals as its peaks, being convex along the way between them, and its plan goes to the nearer. A reward
fitted to both users' comparisons is not that mean: it follows the share of comparisons that a cell wins, by which the
cells between, everybody's second choice, beat both goals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from pluralign.control.maze import DISCOUNT, Maze
from pluralign.control.rewards import Reward, Scaling, scale
from pluralign.errors import ConfigError

_BLOCK = 2**22  # numbers of linear systems solved at once
_TIE = 1e-9  # of the reward's range: what a move must gain to be made


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """Where plans lead, for every user and from every cell.

    Attributes:
        goal: Cell that each user wants, (users,).
        route: Cell of every plan after 0, 1, ... moves, ending at rest, (users, cells, moves + 1).
        distance: Moves between any two cells, (cells, cells).
    """

    goal: Int[ndarray, " users"]
    route: Int[ndarray, "users cells moves"]
    distance: Int[ndarray, "cells cells"]

    @property
    def rest(self) -> Int[ndarray, "users cells"]:
        """Cell in which each plan comes to rest."""
        return self.route[:, :, -1]

    @property
    def success(self) -> Float[ndarray, " users"]:
        """Share of the starts, other than the goal, from which each user's plan rests in the goal."""
        return self._share(self.rest == self.goal[:, None])

    @property
    def near(self) -> Float[ndarray, " users"]:
        """The same for a rest in the goal or a cell beside it."""
        return self._share(self.apart <= 1)

    @property
    def passes(self) -> Float[ndarray, " users"]:
        """Share of the starts from which each user's plan is in the goal at some time."""
        return self._share((self.route == self.goal[:, None, None]).any(axis=2))

    @property
    def apart(self) -> Int[ndarray, "users cells"]:
        """Moves from where each plan rests to the goal."""
        return self.distance[self.rest, self.goal[:, None]]

    def _share(self, hit: Bool[ndarray, "users cells"]) -> Float[ndarray, " users"]:
        """Mean over the starts that are not the goal."""
        start = np.arange(hit.shape[1]) != self.goal[:, None]
        return np.asarray((hit & start).sum(axis=1) / start.sum(axis=1))


def plan_for(
    maze: Maze,
    fitted: Reward,
    z: Float[ndarray, "users latent"],
    kind: Int[ndarray, " users"],
    *,
    scaling: Scaling = "none",
) -> Plan:
    """Plan on a fitted reward for users with these latents, each of whom wants the goal of their kind.

    Args:
        maze: With the users' goals.
        fitted: The reward.
        z: Latent of every user, (users, latent).
        kind: Kind of every user, (users,).
        scaling: Of the reward, by the rewards of all cells under the same z.

    Raises:
        ConfigError: As `plan` and `scale`.
    """
    reward = cell_rewards(maze, fitted, z)
    return plan(maze, scale(reward.T, reward.T, scaling).T.astype(np.float64), kind)


def cell_rewards(maze: Maze, fitted: Reward, z: Float[ndarray, "users latent"]) -> Float[ndarray, "users cells"]:
    """A fitted reward in the middle of every cell, at rest, (users, cells)."""
    middles = np.column_stack([maze.centres, np.zeros((len(maze.centres), 2))])
    return np.asarray(fitted.reward(fitted.sees(middles), z).T, dtype=np.float64)


def plan(maze: Maze, reward: Float[ndarray, "users cells"], kind: Int[ndarray, " users"]) -> Plan:
    """The best moves for ever from every cell under each user's reward, and where they lead.

    Args:
        maze: With the users' goals.
        reward: Of every cell, earned on moving to it or staying in it, for every user, (users, cells).
        kind: Kind of every user, (users,).

    Raises:
        ConfigError: Rewards or kinds of other shapes, not finite, or of kinds that the maze does not have.
    """
    n_cells = len(maze.cells)
    kind = np.asarray(kind)
    if reward.shape != (len(kind), n_cells) or not np.isfinite(reward).all():
        raise ConfigError(
            f"rewards must be finite and of shape {(len(kind), n_cells)}, users by cells; they have {reward.shape}"
        )
    if kind.size and not (kind.min() >= 0 and kind.max() < len(maze.users)):
        raise ConfigError(f"kind has values {kind.min()} to {kind.max()}; kinds are 0 to {len(maze.users) - 1}")
    per_block = max(1, _BLOCK // n_cells**2)
    after = np.empty(reward.shape, dtype=int)
    for first in range(0, len(kind), per_block):
        here = slice(first, first + per_block)
        after[here] = _best_moves(maze.moves, reward[here])
    route = [np.broadcast_to(np.arange(n_cells), after.shape)]
    for _ in range(n_cells - 1):
        route.append(np.take_along_axis(after, route[-1], axis=1))
    return Plan(goal=maze.goal[kind], route=np.stack(route, axis=2), distance=maze.distance)


def _best_moves(
    moves: Int[ndarray, "cells moves"], reward: Float[ndarray, "users cells"]
) -> Int[ndarray, "users cells"]:
    """Cell after the best move from every cell, by policy iteration; a move must gain something to be made."""
    n_users, n_cells = reward.shape
    after = np.broadcast_to(np.arange(n_cells), reward.shape).copy()
    least = _TIE * np.ptp(reward, axis=1)[:, None]
    user, cell = np.ogrid[:n_users, :n_cells]
    while True:
        system = np.broadcast_to(np.eye(n_cells), (n_users, n_cells, n_cells)).copy()
        system[user, cell, after] -= DISCOUNT
        earned = np.take_along_axis(reward, after, axis=1)
        gain = reward + DISCOUNT * np.linalg.solve(system, earned[:, :, None])[:, :, 0]  # of being moved to a cell
        offered = gain[:, moves]
        best = offered.argmax(axis=2)
        better = np.take_along_axis(offered, best[:, :, None], axis=2)[:, :, 0] > gain[user, after] + least
        if not better.any():
            return after
        after = np.where(better, moves[cell, best], after)
