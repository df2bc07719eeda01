"""The maze: distances by hand, rewards by Q-iteration, and the environment's own steps."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.control.maze import MAP, Maze
from pluralign.control.tasks import Steered
from pluralign.errors import ConfigError

needs_physics = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("gymnasium_robotics") is None,
    reason="the maze moves by mujoco and gymnasium-robotics, in the extra `control`",
)


@pytest.fixture(scope="module")
def maze() -> Maze:
    return Maze("two")


def number(maze: Maze, row: int, column: int) -> int:
    """Index of a free cell."""
    return int(np.flatnonzero((maze.cells == (row, column)).all(axis=1))[0])


def test_the_two_goals_are_ten_and_more_moves_from_where_a_finger_on_the_map_counts_them(maze):
    # Row 7: columns 1 and 2 are free, the way on is up column 2 to row 5, then column 1 and row 3 at last.
    near, far = number(maze, 7, 1), number(maze, 7, 10)
    assert maze.distance[near, number(maze, 7, 2)] == 1
    assert maze.distance[near, number(maze, 5, 2)] == 3
    assert maze.distance[near, number(maze, 5, 1)] == 4
    assert maze.distance[near, number(maze, 3, 1)] == 6
    assert maze.distance[near, number(maze, 3, 6)] == 11  # along row 3
    assert maze.distance[near, number(maze, 5, 8)] == 15  # down column 6 and along row 5
    assert maze.distance[near, far] == 19  # down column 8 to row 7, and along it
    assert maze.distance.max() < 46
    assert np.array_equal(maze.distance, maze.distance.T)


def test_positions_follow_the_environments_coordinates(maze):
    # x = column + 1/2 - 6, y = 4.5 - row - 1/2: row 7, column 1 is at (-4.5, -3).
    np.testing.assert_allclose(maze.centres[maze.goal], [[-4.5, -3.0], [4.5, -3.0]])
    np.testing.assert_allclose(maze.goals(), [[-0.75, -2 / 3], [0.75, -2 / 3]])
    assert len(maze.cells) == 46
    assert np.array_equal(maze.cell(np.column_stack([maze.centres, np.zeros((46, 2))])), np.arange(46))
    # In a wall, and outside the map: the free cell nearest to the map's cell there.
    beyond = np.array([[-5.9, 4.4, 0.0, 0.0], [-40.0, 40.0, 0.0, 0.0], [5.5, -3.2, 0.0, 0.0]])
    assert maze.cells[maze.cell(beyond)].tolist() == [[1, 1], [1, 1], [7, 10]]


@pytest.mark.parametrize("goals", ["two", "ten", "unseen"])
def test_rewards_are_scaled_values_of_q_iteration(goals):
    maze = Maze(goals)
    for user, goal in enumerate(maze.goal):
        value = np.zeros(46)
        for _ in range(500):  # reward 1 for each step begun at the goal, as D4RL's tabular Q-iteration
            value = (np.arange(46) == goal) + 0.99 * value[maze.moves].max(axis=1)
        scaled = (value - value.min()) / (value.max() - value.min())
        np.testing.assert_allclose(maze.cell_rewards[user], scaled, atol=1e-10)
    assert maze.cell_rewards.min() == 0
    assert maze.cell_rewards.max() == 1


@given(st.integers(0, 2**32 - 1))
def test_rewards_and_features_ignore_speed_and_keep_their_bounds(seed):
    rng = np.random.default_rng(seed)
    maze = Maze("ten")
    observation = rng.uniform([-7, -5.5, -5, -5], [7, 5.5, 5, 5], (20, 4))
    faster = observation + np.array([0, 0, *rng.normal(size=2)])
    reward, features = maze.rewards(observation), maze.features(observation)
    assert reward.shape == (10, 20)
    assert reward.min() >= 0
    assert reward.max() <= 1
    np.testing.assert_allclose(features.sum(axis=1), 1)
    assert features.shape == (20, 46)
    assert features.min() >= 0
    assert np.array_equal(maze.rewards(faster), reward)
    assert np.array_equal(maze.features(faster), features)


def test_the_bump_of_its_own_cell_is_largest_and_positions_can_be_had_raw(maze):
    middles = np.column_stack([maze.centres, np.ones((46, 2))])
    assert np.array_equal(maze.features(middles).argmax(axis=1), np.arange(46))
    assert np.array_equal(Maze(features="position").features(middles), maze.centres)
    far = maze.features(np.array([[400.0, 300.0, 0.0, 0.0]]))  # every bump underflows
    assert np.isfinite(far).all()
    assert far.sum() == pytest.approx(1)


@needs_physics
def test_steps_are_the_environments_through_air_walls_and_corners():
    pytest.importorskip("gymnasium_robotics", reason="the environment that the maze must agree with")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other environments, as they are registered
        from gymnasium_robotics.envs.maze.maps import LARGE_MAZE
        from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

        env = PointMazeEnv(maze_map=LARGE_MAZE, continuing_task=False)
    assert tuple("".join("#" if mark else "." for mark in row) for row in LARGE_MAZE) == MAP
    maze = Maze()
    rng = np.random.default_rng(0)
    n, decisions = 12, 20
    start = np.zeros((n, 4))
    start[:, :2] = maze.centres[rng.integers(0, 46, n)] + rng.uniform(-0.35, 0.35, (n, 2))
    # Pushes that last keep the ball at its greatest speed and against walls and corners.
    action = np.repeat(rng.uniform(-1.5, 1.5, (n, decisions // 5, 2)), 5, axis=1)
    ours = np.empty((n, decisions, 10, 4))
    state = start
    for t in range(decisions):
        ours[:, t] = maze.physics.decide(state, action[:, t], 10)
        state = ours[:, t, -1]
    theirs = np.empty_like(ours)
    env.reset(seed=0)
    for i in range(n):
        env.point_env.set_state(start[i, :2], start[i, 2:])
        for t in range(decisions):
            for k in range(10):
                theirs[i, t, k] = env.step(action[i, t])[0]["observation"]
    env.close()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    # The comparison is of something: the greatest speed was reached, and walls were hit from every side.
    assert np.abs(theirs[..., 2:]).max() > 5
    inside = theirs[..., :2] - np.floor(theirs[..., :2] + [0.0, 0.5]) + [0.0, 0.5]  # within the cell, 0 to 1
    assert inside.min() < 0.11
    assert inside.max() > 0.89


@needs_physics
def test_no_ball_enters_a_wall_and_the_data_cover_every_cell(maze):
    data = maze.offline(12_000, seed=0)
    assert data.observation.shape == (12_000, 4)
    assert np.abs(data.action).max() <= 1
    counts = np.bincount(data.episode)
    assert (counts == 80).all()
    joined = data.episode[1:] == data.episode[:-1]
    assert np.array_equal(data.observation[1:][joined], data.after[:-1][joined])
    row = np.floor(4.5 - data.after[:, 1]).astype(int)
    column = np.floor(data.after[:, 0] + 6).astype(int)
    assert all(MAP[i][j] == "." for i, j in zip(row, column, strict=True))
    assert np.bincount(maze.cell(data.observation), minlength=46).min() >= 10


@needs_physics
def test_the_controller_reaches_every_goal_and_standing_still_none():
    maze = Maze("ten")
    user = np.arange(150) % 10
    driven = maze.rollout(lambda seen: maze.head_for(seen, maze.goal[user]), user, seed=3)
    assert driven.success.mean() > 0.95
    # Ended episodes stay where they are: within reach of the goal, and not merely at some time.
    end = driven.path[driven.success, -1, :2]
    apart = np.linalg.norm(end - maze.centres[maze.goal[user[driven.success]]], axis=1)
    assert apart.max() <= 0.5
    assert apart.max() > 0.3
    still = maze.rollout(lambda seen: np.zeros((len(seen), 2)), user, seed=3)
    assert not still.success.any()
    assert np.array_equal(still.path[:, 0], still.path[:, -1])
    assert driven.path.shape == (150, 81, 4)
    assert not np.isin(maze.cell(still.path[:, 0]), maze.goal).any()
    other = maze.rollout(lambda seen: np.zeros((len(seen), 2)), user[::-1], seed=3)
    assert np.array_equal(other.path, still.path)  # the starts do not depend on what users want


@needs_physics
def test_seeds_repeat_and_threads_do_not_matter():
    one, two = Maze().offline(400, seed=5), Maze(threads=2).offline(400, seed=5)
    assert np.array_equal(one.after, two.after)
    assert np.array_equal(one.action, two.action)
    assert not np.array_equal(one.after, Maze().offline(400, seed=6).after)


@needs_physics
def test_an_action_is_held_for_its_repeat():
    # One decision of ten steps is ten decisions of one step with the same action.
    user = np.zeros(4, dtype=int)
    slow = Maze(action_repeat=10, steps=20).rollout(lambda seen: np.full((4, 2), 0.4), user, seed=0)
    fast = Maze(action_repeat=1, steps=20).rollout(lambda seen: np.full((4, 2), 0.4), user, seed=0)
    np.testing.assert_allclose(slow.path, fast.path[:, ::10], atol=1e-12)


def test_it_is_a_steered_task(maze):
    assert isinstance(maze, Steered)
    assert maze.users == ("to the cell in row 7, column 1", "to the cell in row 7, column 10")
    assert len(Maze("unseen").users) == 5
    assert not set(Maze("unseen").goal) & set(Maze("ten").goal)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goals": "three"}, 'goals is "three"; known: two, ten, unseen'),
        ({"goals": [(0, 0)]}, r"\[\(0, 0\)\] lie in walls or outside the map of 9 rows and 12 columns"),
        ({"goals": [(7, 1), (7, 1)]}, "none twice"),
        ({"goals": []}, "name free cells as"),
        ({"action_repeat": 7}, "steps a multiple of action_repeat"),
        ({"width": 0.0}, "width is 0.0"),
        ({"features": "pixels"}, 'features is "pixels"; known: bumps, position'),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Maze(**settings)


@needs_physics
def test_wrong_users_and_actions_are_named(maze):
    with pytest.raises(ConfigError, match="values 0 to 2; kinds are 0 to 1"):
        maze.rollout(lambda seen: np.zeros((2, 2)), np.array([0, 2]), seed=0)
    with pytest.raises(ConfigError, match=r"finite numbers of shape \(2, 2\); they have shape \(2, 3\)"):
        maze.rollout(lambda seen: np.zeros((2, 3)), np.array([0, 1]), seed=0)
    with pytest.raises(ConfigError, match="finite"):
        maze.rollout(lambda seen: np.full((2, 2), np.nan), np.array([0, 1]), seed=0)
    with pytest.raises(ConfigError, match="steps is 0"):
        maze.offline(0, seed=0)


def test_without_the_extra_its_name_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    maze = Maze()  # its rewards, features and plans need no physics
    assert maze.rewards(np.zeros((1, 4))).shape == (2, 1)
    with pytest.raises(ConfigError, match="gymnasium-robotics") as caught:
        maze.offline(10, seed=0)
    assert "pluralign[control]" in str(caught.value.hint)
