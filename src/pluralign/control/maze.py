"""A maze in which each kind of user wants another place: VPL's Maze-Navigation (arXiv 2408.10075).

The maze, the ball and its physics are those of `PointMaze_Large-v3` of gymnasium-robotics, D4RL's large maze on today's
MuJoCo: a ball pushed by two forces through a map of 9 by 12 cells, 0.01 s a step, no axis faster than 5 cells a second
as a step begins. What differs here: an action is held for `action_repeat` steps, which shortens an episode of 800 steps
to 80 decisions and its policy's training by as much; all episodes are stepped at once; and the floor is left out, whose
contact a ball that only slides cannot feel. A test holds 200 steps against walls to 1e-6 of the environment's.

A user's true reward is the value of the ball's cell, by Q-iteration over the cells with reward 1 at the goal and
discount 0.99, scaled to [0, 1]. From a cell d moves away that value is, up to scale and shift and after any number of
sweeps past the farthest cell, discount ** d: the rewards are written so. An episode succeeds, and ends, as soon as the
ball is within 0.5 of the goal in any of its steps.

The paper names D4RL's `medium-v2` data, its released code the large maze, whose goals these are; in that code a tie
counts as a preference for the second state, and here as a tie (`preferences.py`). Users' goals are given as (row,
column) of the map, counted from 0 at the top left; positions are the environment's own, with (0, 0) in the middle.

What a reward sees does not keep it from the truth. Fitted to 10,000 pairs of random states of the data, labelled by one
of the ten goals, a linear reward on the bumps orders .999 of as many others rightly at width 0.5 (1.000 at 0.25 and
0.35, .998 at 0.7, .996 at 1, .99 at 1.5), and one on the raw position .78 to .95.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, final
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse.csgraph import shortest_path

from pluralign.control.tasks import Actor, Offline, Rollouts
from pluralign.errors import ConfigError

FEATURES = ("bumps", "position")

MAP = (
    "############",
    "#....#.....#",
    "#.##.#.#.#.#",
    "#......#...#",
    "#.####.###.#",
    "#..#.#.....#",
    "##.#.#.#.###",
    "#..#...#...#",
    "############",
)
GOALS: dict[str, tuple[tuple[int, int], ...]] = {
    "two": ((7, 1), (7, 10)),
    "ten": ((7, 1), (7, 10), (1, 1), (1, 10), (3, 8), (5, 4), (1, 4), (5, 10), (4, 1), (5, 7)),
    "unseen": ((3, 10), (7, 4), (1, 6), (3, 1), (7, 8)),
}
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # (rows, columns) of stay, up, down, left, right
DISCOUNT = 0.99
REACH = 0.5  # how near the goal counts as there
START_NOISE = 0.25  # the environment's own: starts lie so far from a cell's middle, at most, on either axis
MAX_SPEED = 5.0  # the environment's own, cells a second on either axis as a step begins
_HALF = np.array([len(MAP[0]) / 2, len(MAP) / 2])

# The scripted controller: where it wants to go it wants this speed, per cell of distance and at most; the force that
# reaches it by the next decision of 0.1 s, for the ball's 4.19 kg, a force of 100 and almost no damping, is
# (wanted - speed) / 2.39. Once its goal
# is this near, it leaves for a new one with this chance in every decision.
_GAIN, _CRUISE, _PUSH, _ARRIVED, _LEAVE = 4.0, 3.0, 2.39, 0.25, 0.2


@final
class Maze:
    """The maze with one kind of user for every goal; a `Steered` task. Observations are (x, y, speed in x, in y)."""

    name = "maze"

    def __init__(
        self,
        goals: str | Sequence[tuple[int, int]] = "two",
        *,
        action_repeat: int = 10,
        steps: int = 800,
        features: str = "bumps",
        width: float = 0.5,
        noise: float = 0.3,
        threads: int = 1,
    ) -> None:
        """
        Args:
            goals: A list of the paper's, "two", "ten", or the five "unseen" ones that its code keeps in reserve; or
                cells as (row, column).
            action_repeat: Steps for which an action is held.
            steps: Steps of an episode, a multiple of `action_repeat`.
            features: What rewards see: "bumps" of the position, one around every free cell and together 1, or the
                "position" alone.
            width: Standard deviation of a bump, in cells.
            noise: Standard deviation of the normal noise on the scripted controller's actions.
            threads: Threads that step the physics; the results are the same for any number.

        Raises:
            ConfigError: No goal, an unknown list, a goal in a wall or named twice, or a number out of range.
        """
        if isinstance(goals, str):
            if goals not in GOALS:
                raise ConfigError(f'goals is "{goals}"; known: {", ".join(GOALS)}, or cells as (row, column)')
            goals = GOALS[goals]
        if features not in FEATURES:
            raise ConfigError(f'features is "{features}"; known: {", ".join(FEATURES)}')
        if action_repeat < 1 or steps < action_repeat or steps % action_repeat or threads < 1:
            raise ConfigError(
                f"action_repeat is {action_repeat}, steps {steps} and threads {threads}; each must be at least 1, "
                "and steps a multiple of action_repeat"
            )
        if not width > 0 or not noise >= 0:
            raise ConfigError(f"width is {width} and noise {noise}; width must be above 0 and noise at least 0")
        self.cells = np.array([(i, j) for i, row in enumerate(MAP) for j, mark in enumerate(row) if mark == "."])
        """Row and column of every free cell, (cells, 2)."""
        self.centres = np.stack([self.cells[:, 1] + 0.5 - _HALF[0], _HALF[1] - self.cells[:, 0] - 0.5], axis=1)
        """Position of every free cell's middle, (cells, 2)."""
        number = {(int(i), int(j)): cell for cell, (i, j) in enumerate(self.cells)}
        cells = [(int(i), int(j)) for i, j in goals]
        wrong = [goal for goal in cells if goal not in number]
        if not cells or wrong or len(set(cells)) < len(cells) or len(cells) == len(number):
            raise ConfigError(
                f"the goals are {cells}, and {wrong} lie in walls or outside the map of {len(MAP)} rows and "
                f"{len(MAP[0])} columns; name free cells as (row, column), none twice and not all"
            )
        self.goal = np.array([number[goal] for goal in cells])
        """Cell of every goal, (users,)."""
        self.users = tuple(f"to the cell in row {i}, column {j}" for i, j in self.cells[self.goal])
        self.moves = np.array(
            [[number.get((i + di, j + dj), cell) for di, dj in MOVES] for cell, (i, j) in enumerate(self.cells)]
        )
        """Cell after each of `MOVES`, the same where there is a wall, (cells, moves)."""
        self.distance = _distances(self.moves)
        """Moves of the shortest path between any two cells, (cells, cells)."""
        value = DISCOUNT ** self.distance[self.goal]
        low, high = value.min(axis=1, keepdims=True), value.max(axis=1, keepdims=True)
        self.cell_rewards: Float[ndarray, "users cells"] = (value - low) / (high - low)
        """True reward of every cell for every kind of user, (users, cells)."""
        self.action_repeat = action_repeat
        self.steps = steps
        self.width = width
        self.noise = noise
        self.threads = threads
        self._features = features
        self._nearest = _nearest(self.centres)
        self._physics: _Physics | None = None

    def __repr__(self) -> str:
        return f"Maze({[(int(i), int(j)) for i, j in self.cells[self.goal]]})"

    def cell(self, observation: Float[ndarray, "n observation"]) -> Int[ndarray, " n"]:
        """Free cell of every position, (n,); in a wall, the free cell nearest to the middle of the map's cell there."""
        column = np.clip(np.floor(observation[:, 0] + _HALF[0]).astype(int), 0, len(MAP[0]) - 1)
        row = np.clip(np.floor(_HALF[1] - observation[:, 1]).astype(int), 0, len(MAP) - 1)
        return np.asarray(self._nearest[row, column])

    def features(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n dim"]:
        """What a reward sees of an observation, never its speed: (n, cells) bumps, or (n, 2) the position."""
        position = np.asarray(observation[:, :2], dtype=np.float64)
        if self._features == "position":
            return position
        apart = ((position[:, None, :] - self.centres) ** 2).sum(axis=2)
        nearest = apart.min(axis=1, keepdims=True)  # far from every middle all bumps underflow, their shares need not
        bumps = np.exp((nearest - apart) / (2 * self.width**2))
        return np.asarray(bumps / bumps.sum(axis=1, keepdims=True))

    def rewards(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "users n"]:
        """True reward of every observation's cell, (users, n): 1 at the goal, 0 in the farthest cell."""
        return self.cell_rewards[:, self.cell(observation)]

    def goals(self) -> Float[ndarray, "users goal"]:
        """Position of every user's goal, over half the map's width and height, (users, 2)."""
        return np.asarray(self.centres[self.goal] / _HALF)

    def offline(self, steps: int, *, seed: int) -> Offline:
        """Drive from random places to random goals, one after the other, by the scripted controller.

        The controller heads for the next cell of the shortest path, and stays at a goal for five decisions on average;
        `noise` is added to its actions.

        Args:
            steps: Decisions, at least; episodes are whole, so there may be up to one episode more.
            seed: Of starts, goals and noise.

        Raises:
            ConfigError: No step, or the physics are not installed.
        """
        if steps < 1:
            raise ConfigError(f"steps is {steps}; there must be at least 1")
        length = self.steps // self.action_repeat
        n = -(-steps // length)
        rng = np.random.default_rng(seed)
        physics = self.physics
        state = self._starts(rng.integers(0, len(self.cells), n), rng)
        goal = rng.integers(0, len(self.cells), n)
        observation, action, after = np.empty((n, length, 4)), np.empty((n, length, 2)), np.empty((n, length, 4))
        for t in range(length):
            there = np.linalg.norm(state[:, :2] - self.centres[goal], axis=1) <= _ARRIVED
            leaves = there & (rng.random(n) < _LEAVE)
            goal[leaves] = rng.integers(0, len(self.cells), int(leaves.sum()))
            push = self.head_for(state, goal) + self.noise * rng.standard_normal((n, 2))
            action[:, t] = np.clip(push, -1, 1)
            observation[:, t] = state
            state = physics.decide(state, action[:, t], self.action_repeat)[:, -1]
            after[:, t] = state
        return Offline(
            observation=observation.reshape(-1, 4),
            action=action.reshape(-1, 2),
            after=after.reshape(-1, 4),
            episode=np.repeat(np.arange(n), length),
        )

    def rollout(self, act: Actor, user: Int[ndarray, " episodes"], *, seed: int) -> Rollouts:
        """One episode for every entry of `user`, at rest in a random cell that is no user's goal.

        The starts are the same for the same seed whatever the kinds, so that users can be exchanged.

        Args:
            act: Called once a decision with the observations of all episodes, those that have ended too.
            user: Kind of user of every episode, (episodes,).
            seed: Of the starts.

        Raises:
            ConfigError: A kind of user that the maze does not have, actions of another shape or not finite, or the
                physics are not installed.
        """
        user = np.asarray(user)
        if user.size and not (user.min() >= 0 and user.max() < len(self.users)):
            raise ConfigError(f"user has values {user.min()} to {user.max()}; kinds are 0 to {len(self.users) - 1}")
        n, length = len(user), self.steps // self.action_repeat
        rng = np.random.default_rng(seed)
        goal = self.goal[user]
        state = self._starts(rng.choice(np.setdiff1d(np.arange(len(self.cells)), self.goal), n), rng)
        path = np.empty((n, length + 1, 4))
        path[:, 0] = state
        success = np.zeros(n, dtype=bool)
        physics = self.physics
        for t in range(length):
            action = np.asarray(act(state), dtype=np.float64)
            if action.shape != (n, 2) or not np.isfinite(action).all():
                raise ConfigError(f"actions must be finite numbers of shape {(n, 2)}; they have shape {action.shape}")
            going = np.flatnonzero(~success)
            if going.size:
                steps = physics.decide(state[going], action[going], self.action_repeat)
                near = np.linalg.norm(steps[:, :, :2] - self.centres[goal[going], None], axis=2) <= REACH
                success[going] = near.any(axis=1)
                last = np.where(near.any(axis=1), near.argmax(axis=1), self.action_repeat - 1)
                state[going] = steps[np.arange(len(going)), last]
            path[:, t + 1] = state
        return Rollouts(success=success, path=path)

    def head_for(
        self, observation: Float[ndarray, "n observation"], goal: Int[ndarray, " n"]
    ) -> Float[ndarray, "n action"]:
        """The scripted controller without its noise: the force towards the next cell on the way to a goal.

        Args:
            observation: Of the ball, (n, observation).
            goal: Cell to go to, an index of `cells`, (n,).
        """
        here = self.cell(observation)
        next_cell = np.take_along_axis(
            self.moves[here], self.distance[self.moves[here], goal[:, None]].argmin(axis=1)[:, None], axis=1
        )[:, 0]
        wanted = np.clip(_GAIN * (self.centres[next_cell] - observation[:, :2]), -_CRUISE, _CRUISE)
        return np.asarray(np.clip((wanted - observation[:, 2:4]) / _PUSH, -1, 1))

    @property
    def physics(self) -> _Physics:
        """The simulated ball, made at first use.

        Raises:
            ConfigError: gymnasium-robotics or MuJoCo is not installed.
        """
        if self._physics is None:
            self._physics = _Physics(self.centres, self.threads)
        return self._physics

    def _starts(self, cell: Int[ndarray, " n"], rng: np.random.Generator) -> Float[ndarray, "n observation"]:
        """At rest near the middle of the cells."""
        state = np.zeros((len(cell), 4))
        state[:, :2] = self.centres[cell] + rng.uniform(-START_NOISE, START_NOISE, (len(cell), 2))
        return state


class _Physics:
    """The environment's ball and walls in MuJoCo, stepped for all episodes at once."""

    def __init__(self, centres: Float[ndarray, "cells 2"], threads: int) -> None:
        mujoco, rollout, ball = _load()
        tree = ElementTree.parse(ball)
        world = tree.getroot().find("worldbody")
        floor = None if world is None else world.find("geom[@name='ground']")
        if world is None or floor is None:
            raise ConfigError(f"the ball of this gymnasium-robotics has no floor to leave out ({ball.name})")
        world.remove(floor)
        for i, row in enumerate(MAP):
            for j, mark in enumerate(row):
                if mark == "#":
                    place = {"pos": f"{j + 0.5 - _HALF[0]} {_HALF[1] - i - 0.5} 0.2", "size": "0.5 0.5 0.2"}
                    ElementTree.SubElement(world, "geom", {"type": "box", "contype": "1", "conaffinity": "1"} | place)
        self._model = mujoco.MjModel.from_xml_string(ElementTree.tostring(tree.getroot(), encoding="unicode"))
        # The environment starts its contact solver from the step before, here every step starts it anew.
        self._model.opt.tolerance = 0.0
        self._data = [mujoco.MjData(self._model) for _ in range(threads)]
        self._rollout = rollout.Rollout(nthread=threads if threads > 1 else 0)

    def decide(
        self, state: Float[ndarray, "n observation"], action: Float[ndarray, "n action"], repeat: int
    ) -> Float[ndarray, "n repeat observation"]:
        """Hold an action for some steps; the states after each, (n, repeat, observation)."""
        force = np.clip(action, -1, 1)[:, None, :]
        now = np.column_stack([np.zeros(len(state)), state])  # MuJoCo keeps the time in front
        steps = np.empty((len(state), repeat, 4))
        for t in range(repeat):
            now[:, 3:] = np.clip(now[:, 3:], -MAX_SPEED, MAX_SPEED)
            after, _ = self._rollout.rollout(self._model, self._data, now, force)
            now = after[:, 0].copy()
            steps[:, t] = now[:, 1:]
        return steps


def _load() -> tuple[ModuleType, ModuleType, Path]:
    """MuJoCo, its batched stepping, and the file of the environment's ball. Gymnasium itself is not imported."""
    found: Any = importlib.util.find_spec("gymnasium_robotics")
    try:
        mujoco, rollout = importlib.import_module("mujoco"), importlib.import_module("mujoco.rollout")
    except ImportError:
        found = None
    if found is None:
        raise ConfigError(
            "the maze moves in MuJoCo by the model of gymnasium-robotics, and one of them is not installed",
            hint="pip install 'pluralign[control]'",
        )
    ball = Path(found.submodule_search_locations[0]) / "envs" / "assets" / "point" / "point.xml"
    if not ball.is_file():
        raise ConfigError(f"this gymnasium-robotics has no {ball.name}; the maze is made for 1.4.2 or later")
    return mujoco, rollout, ball


def _distances(moves: Int[ndarray, "cells moves"]) -> Int[ndarray, "cells cells"]:
    """Shortest paths between all cells."""
    joined = np.zeros((len(moves), len(moves)), dtype=bool)
    joined[np.arange(len(moves))[:, None], moves] = True
    np.fill_diagonal(joined, False)
    return np.asarray(shortest_path(joined, directed=False, unweighted=True)).astype(int)


def _nearest(centres: Float[ndarray, "cells 2"]) -> Int[ndarray, "rows columns"]:
    """Free cell nearest to the middle of every cell of the map."""
    row, column = np.mgrid[: len(MAP), : len(MAP[0])]
    middle = np.stack([column + 0.5 - _HALF[0], _HALF[1] - row - 0.5], axis=-1)
    return np.asarray(((middle[:, :, None] - centres) ** 2).sum(axis=-1).argmin(axis=-1))
