"""`TableTop`: a gripper moves a block to the zone that its user prefers, in MuJoCo.

The manipulation task of VPL (arXiv 2408.10075) without its robot: the same observation, action, true reward and
success, on a table of our own. The end effector is a mocap body that goes where it is told, at a limited speed;
suction is a weld that is switched on when the cup touches the top of the block, and draws the block under the cup.

The paper does not say how far a zone reaches upwards, nor where an episode starts. Here distance to a zone is
measured in the plane (success asks for the height by itself), the block starts outside both zones, and the end effector
somewhere above the middle.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from pluralign.control.tasks import Actor, Offline, Rollouts
from pluralign.errors import ConfigError

ZONES = np.array([[0.5, 0.2], [0.5, -0.2]])  # centres in the plane, metres
ZONE_RADIUS = 0.05
HALF_BLOCK = 0.02
LOW = np.array([0.3, -0.35, 0.035])  # where the cup may go: the top of a block on the table is at 0.04
HIGH = np.array([0.7, 0.35, 0.3])
STEPS = 25  # of an episode
PLACED_BELOW = 0.03  # height of the block's centre

_HOME = np.array([0.5, 0.0, 0.25])
_START_LOW, _START_HIGH = np.array([0.35, -0.3]), np.array([0.65, 0.3])  # of the block
_REACH = 0.2  # metres that the end effector moves in a step at most
_CUP = 0.01  # radius
_TOUCH = 0.002  # metres between cup and block that still count as contact
_SUBSTEPS, _LOOKS = 16, 4  # of physics in a step, and how often in it contact is looked for
_STAY = 3  # steps at every waypoint of the planner
_TRAVEL, _CLOSE, _PRESS = 0.12, 0.06, 0.025  # heights that the planner asks for; the last is cut off at the workspace

_BUMPS = np.stack(np.meshgrid(np.linspace(0.3, 0.7, 5), np.linspace(-0.35, 0.35, 8), indexing="ij"), -1).reshape(-1, 2)
_BUMP_WIDTH = 0.05

_MODEL = f"""
<mujoco>
  <option timestep="0.0125"><flag island="disable"/></option>
  <worldbody>
    <geom name="table" type="plane" size="1 1 0.1" friction="1 0.01 0.001"/>
    <body name="block" pos="0.5 0 {HALF_BLOCK}">
      <freejoint/>
      <geom name="block" type="box" size="{HALF_BLOCK} {HALF_BLOCK} {HALF_BLOCK}" mass="0.1" friction="1 0.01 0.001"/>
      <site name="top" pos="0 0 {HALF_BLOCK}"/>
    </body>
    <body name="cup" mocap="true" pos="{_HOME[0]} {_HOME[1]} {_HOME[2]}">
      <geom name="cup" type="sphere" size="{_CUP}" pos="0 0 {_CUP}"/>
      <site name="mouth"/>
    </body>
  </worldbody>
  <equality>
    <weld name="suction" site1="mouth" site2="top" active="false" solref="0.03 1"/>
  </equality>
</mujoco>
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """Tables at one moment, one per episode.

    Attributes:
        physics: Time, position, orientation and velocities of the block, as MuJoCo orders them, (episodes, 14).
        cup: Position of the end effector, metres, (episodes, 3).
        grasped: Whether it holds the block, (episodes,).
    """

    physics: Float[ndarray, "episodes 14"]
    cup: Float[ndarray, "episodes 3"]
    grasped: Bool[ndarray, " episodes"]

    @property
    def observation(self) -> Float[ndarray, "episodes 7"]:
        """End effector, block, and 1 where it is grasped."""
        return np.column_stack([self.cup, self.physics[:, 1:4], self.grasped])

    def take(self, mask: Bool[ndarray, " episodes"]) -> Table:
        return Table(physics=self.physics[mask], cup=self.cup[mask], grasped=self.grasped[mask])


@final
class TableTop:
    """A table, a block, and two zones between which users differ.

    An observation is end effector (x, y, z), block (x, y, z), both in metres, and whether the block is grasped. An
    action is where the end effector shall go, each coordinate scaled to [-1, 1] by the workspace, and suction, on
    above 0.

    Args:
        noise: Standard deviation of the planner's positions in `offline`, metres.

    Raises:
        ConfigError: MuJoCo is not installed, or a negative noise.
    """

    def __init__(self, *, noise: float = 0.01) -> None:
        if not noise >= 0:
            raise ConfigError(f"noise is {noise}; it must be 0 or more metres")
        try:
            self._mujoco = importlib.import_module("mujoco")
            self._physics = importlib.import_module("mujoco.rollout").Rollout(nthread=0)
        except ImportError as missing:
            raise ConfigError("table-top needs MuJoCo", hint="pip install 'pluralign[control]'") from missing
        self.name = "table-top"
        self.users = ("left zone", "right zone")
        self.noise = noise
        self._model = self._mujoco.MjModel.from_xml_string(_MODEL)

    def features(self, observation: Float[ndarray, "n 7"]) -> Float[ndarray, "n 82"]:
        """Where the block lies, where it is held, how far the free gripper is from it, and its height.

        Places are 40 bumps of the plane, 0.1 m apart, that sum to 1: once for a free block and once for a held one.
        They cover the workspace evenly and know nothing of the zones. The two lengths are in units of 0.1 m.
        """
        grasped = observation[:, 6:]
        squared = ((observation[:, None, 3:5] - _BUMPS) ** 2).sum(2)
        log_bump = -squared / (2 * _BUMP_WIDTH**2)
        bump = np.exp(log_bump - log_bump.max(1, keepdims=True))  # a block that fell off the table is at its edge
        bump /= bump.sum(1, keepdims=True)
        reach = np.linalg.norm(observation[:, :3] - observation[:, 3:6], axis=1, keepdims=True)
        free = 1 - grasped
        return np.concatenate([bump * free, bump * grasped, 10 * reach * free, 10 * observation[:, 5:6]], axis=1)

    def rewards(self, observation: Float[ndarray, "n 7"]) -> Float[ndarray, "2 n"]:
        """1 in the zone and released, 0.05 there and held, (2 + exp(-d)) / 100 held elsewhere, else exp(-g) / 100.

        d is from block to zone in the plane, g from end effector to block, in metres.
        """
        grasped = observation[:, 6] > 0.5
        away = _to_zones(observation)
        reach = np.linalg.norm(observation[:, :3] - observation[:, 3:6], axis=1)
        inside = away < ZONE_RADIUS
        held = np.where(inside, 0.05, (2 + np.exp(-away)) / 100)
        free = np.where(inside, 1.0, np.exp(-reach) / 100)
        return np.where(grasped, held, free)

    def goals(self) -> Float[ndarray, "2 1"]:
        """1 for the left zone and -1 for the right one."""
        return np.sign(ZONES[:, 1:])

    def succeeded(self, observation: Float[ndarray, "n 7"], user: Int[ndarray, " n"]) -> Bool[ndarray, " n"]:
        """Whether the block lies, released, in the user's zone."""
        inside = _to_zones(observation)[user, np.arange(len(observation))] < ZONE_RADIUS
        return inside & (observation[:, 5] < PLACED_BELOW) & (observation[:, 6] < 0.5)

    def start(self, n: int, *, seed: int) -> Table:
        """Tables with the block at rest somewhere outside both zones."""
        rng = np.random.default_rng(seed)
        place = np.empty((0, 2))
        while len(place) < n:
            more = rng.uniform(_START_LOW, _START_HIGH, (2 * n, 2))
            clear = np.linalg.norm(more[:, None] - ZONES, axis=2).min(1) > 2 * ZONE_RADIUS
            place = np.concatenate([place, more[clear]])
        physics = np.zeros((n, 14))
        physics[:, 1:3], physics[:, 3], physics[:, 4] = place[:n], HALF_BLOCK, 1.0
        cup = _HOME + rng.uniform(-0.05, 0.05, (n, 3))
        return Table(physics=physics, cup=cup, grasped=np.zeros(n, dtype=bool))

    def step(self, table: Table, action: Float[ndarray, "n action"]) -> Table:
        """Move all tables on by one step. Episodes do not see each other: what one does is the same in any company.

        Raises:
            ConfigError: Actions that are not four finite numbers for each.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (len(table.cup), 4) or not np.isfinite(action).all():
            raise ConfigError(
                f"actions must be finite numbers of shape {(len(table.cup), 4)}; they have shape {action.shape}"
            )
        target = LOW + (np.clip(action[:, :3], -1, 1) + 1) / 2 * (HIGH - LOW)
        way = target - table.cup
        length = np.linalg.norm(way, axis=1, keepdims=True)
        way *= np.minimum(1, _REACH / np.maximum(length, _REACH))
        suction = action[:, 3] > 0
        physics, grasped = table.physics, table.grasped & suction
        parts = self._mujoco.mjtState
        spec = parts.mjSTATE_EQ_ACTIVE.value | parts.mjSTATE_MOCAP_POS.value
        data = self._mujoco.MjData(self._model)
        for moments in np.linspace(0, 1, _SUBSTEPS + 1)[1:].reshape(_LOOKS, -1):
            grasped = grasped | (suction & _touches(table.cup + way * (moments[0] - 1 / _SUBSTEPS), physics))
            control = np.empty((len(physics), len(moments), 4))
            control[..., 0] = grasped[:, None]
            control[..., 1:] = table.cup[:, None] + way[:, None] * moments[:, None]
            # Every call starts the contact solver anew, so that a state and an action are all that the next depends on.
            states, _ = self._physics.rollout(self._model, data, physics, control, control_spec=spec)
            physics = states[:, -1]
        cup = table.cup + way
        grasped = grasped | (suction & _touches(cup, physics))
        return Table(physics=physics, cup=cup, grasped=grasped)

    def demonstrations(self, n: int, *, seed: int) -> Offline:
        """Episodes of the planner, each to a random zone: 7 waypoints of 3 steps, and the last until the clock ends.

        Noise is added to every position that the planner asks for, and cut off at the workspace.

        Args:
            n: Episodes, of 25 steps.
            seed: Of starts, zones and noise.

        Raises:
            ConfigError: No episode.
        """
        if n < 1:
            raise ConfigError(f"n is {n}; there must be a demonstration")
        table_seed, other_seed = np.random.SeedSequence(seed).generate_state(2)
        rng = np.random.default_rng(other_seed)
        table = self.start(n, seed=int(table_seed))
        plan = _plan(table.observation[:, 3:5], ZONES[rng.integers(0, 2, n)])
        plan[..., :3] += rng.normal(0, self.noise, plan[..., :3].shape)
        plan[..., :3] = np.clip(2 * (plan[..., :3] - LOW) / (HIGH - LOW) - 1, -1, 1)
        path = self._drive(table, lambda step, _: plan[:, step], None)
        return Offline(
            observation=path[:, :-1].reshape(-1, 7),
            action=plan.reshape(-1, 4),
            after=path[:, 1:].reshape(-1, 7),
            episode=np.repeat(np.arange(n), STEPS),
        )

    def offline(self, steps: int, *, seed: int) -> Offline:
        """As many demonstrations as give so many steps."""
        return self.demonstrations(-(-steps // STEPS), seed=seed)

    def rollout(self, act: Actor, user: Int[ndarray, " episodes"], *, seed: int) -> Rollouts:
        """Let a policy act for 25 steps, or until the block lies in the user's zone at the end of one.

        Raises:
            ConfigError: Actions that are not four finite numbers for each episode.
        """
        path = self._drive(self.start(len(user), seed=seed), lambda _, observation: act(observation), user)
        return Rollouts(success=self.succeeded(path[:, -1], user), path=path)

    def _drive(
        self,
        table: Table,
        act: Callable[[int, Float[ndarray, "episodes 7"]], Float[ndarray, "episodes 4"]],
        user: Int[ndarray, " episodes"] | None,
    ) -> Float[ndarray, "episodes time 7"]:
        """Observations of every step; with users, an episode ends with its success."""
        path = np.empty((len(table.cup), STEPS + 1, 7))
        path[:, 0] = table.observation
        running = np.ones(len(path), dtype=bool)
        for step in range(STEPS):
            path[:, step + 1] = path[:, step]
            action = act(step, path[:, step])[running]
            table = self.step(table, action)
            path[running, step + 1] = table.observation
            if user is not None:
                ended = self.succeeded(table.observation, user[running])
                table = table.take(~ended)
                running[running] = ~ended
                if not running.any():
                    path[:, step + 2 :] = path[:, step + 1, None]
                    break
        return path


def _to_zones(observation: Float[ndarray, "n 7"]) -> Float[ndarray, "2 n"]:
    """Distance in the plane from block to zones."""
    return np.linalg.norm(observation[:, 3:5] - ZONES[:, None], axis=2)


def _touches(cup: Float[ndarray, "n 3"], physics: Float[ndarray, "n 14"]) -> Bool[ndarray, " n"]:
    """Whether the cup touches the block from above: over it, and without a gap. A hard press sinks in a little."""
    away = cup - physics[:, 1:4]
    gap = away[:, 2] - HALF_BLOCK
    return (np.abs(away[:, :2]).max(1) <= HALF_BLOCK) & (gap <= _TOUCH) & (gap > -HALF_BLOCK / 2)


def _plan(block: Float[ndarray, "n 2"], zone: Float[ndarray, "n 2"]) -> Float[ndarray, "n 25 4"]:
    """Position and suction of every step: over the block, close to it, onto it, up, over the zone, down, let go."""
    legs = [
        (block, _TRAVEL, -1.0),
        (block, _CLOSE, -1.0),
        (block, _PRESS, 1.0),
        (block, _TRAVEL, 1.0),
        (zone, _TRAVEL, 1.0),
        (zone, _CLOSE, 1.0),
        (zone, _CLOSE, -1.0),  # a cup that rests on the block while noise moves it would drag the block along
    ]
    points = np.stack(
        [np.column_stack([where, np.full(len(where), z), np.full(len(where), s)]) for where, z, s in legs], axis=1
    )
    leg = np.minimum(np.arange(STEPS) // _STAY, len(legs) - 1)
    return points[:, leg]
