"""Plans on rewards over the maze's cells: the true ones, their mean, and what fitted ones lead to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.control.maze import DISCOUNT, Maze
from pluralign.control.planning import cell_rewards, plan, plan_for
from pluralign.control.preferences import draw_sets
from pluralign.control.rewards import Oracle, control_settings, fit_reward
from pluralign.errors import ConfigError


@pytest.fixture(scope="module")
def maze() -> Maze:
    return Maze("two")


@pytest.mark.parametrize("goals", ["two", "ten", "unseen"])
def test_the_true_reward_leads_every_user_to_the_goal_from_everywhere(goals):
    maze = Maze(goals)
    found = plan(maze, maze.cell_rewards, np.arange(len(maze.users)))
    assert (found.success == 1).all()
    assert (found.rest == maze.goal[:, None]).all()
    # By shortest paths: after as many moves as the distance it is there, and not before.
    for user, goal in enumerate(maze.goal):
        away = maze.distance[goal]
        there = found.route[user] == goal
        assert np.array_equal(there.argmax(axis=1), away)
        assert (there.sum(axis=1) == 46 - away).all()


def test_what_two_opposite_users_agree_on_leads_to_neither_goal(maze):
    """Shares of comparisons won, which is what one reward for everybody learns, peak between the goals."""
    reward = maze.cell_rewards
    won = (reward[:, :, None] > reward[:, None]).mean(axis=2) + (reward[:, :, None] == reward[:, None]).mean(axis=2) / 2
    found = plan(maze, np.tile(won.mean(axis=0), (2, 1)), np.arange(2))
    assert found.success.tolist() == [0, 0]
    assert found.near.tolist() == [0, 0]
    assert len(np.unique(found.rest)) == 1  # one place for everybody, from everywhere
    middle = found.rest[0, 0]
    assert maze.distance[middle, maze.goal].tolist() == [13, 6]  # row 5, column 6: the crossing of the ways


def test_the_mean_of_the_true_rewards_leads_to_the_nearer_goal(maze):
    # Not to the middle: the mean of two rewards that fall geometrically is convex along the way between their goals.
    found = plan(maze, np.tile(maze.cell_rewards.mean(axis=0), (2, 1)), np.arange(2))
    assert np.isin(found.rest, maze.goal).all()
    assert found.success.sum() == pytest.approx(1, abs=0.03)
    first, second = maze.distance[maze.goal]
    sure = np.abs(first - second) > 2
    assert np.array_equal(found.rest[0][sure], np.where(first < second, *maze.goal)[sure])


def test_a_goal_that_is_passed_is_not_one_that_is_reached():
    maze = Maze([(3, 6), (7, 10)])  # the way from the west to the second goal leads through the first
    reward = np.tile(maze.cell_rewards[1], (2, 1))
    found = plan(maze, reward, np.arange(2))
    assert found.success.tolist() == [0, 1]
    west = np.flatnonzero((maze.cells == (3, 1)).all(axis=1))[0]
    assert maze.goal[0] in found.route[0, west]
    assert 0.3 < found.passes[0] < 1
    assert found.passes[1] == 1
    assert (found.apart[0] == maze.distance[maze.goal[0], maze.goal[1]]).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_plans_are_those_of_value_iteration_and_ignore_scale_and_shift(seed):
    rng = np.random.default_rng(seed)
    maze = Maze("two")
    reward = rng.normal(size=(3, 46))
    found = plan(maze, reward, np.array([0, 1, 0]))
    value = np.zeros((3, 46))
    for _ in range(3000):
        value = (reward + DISCOUNT * value)[:, maze.moves].max(axis=2)
    best = (reward + DISCOUNT * value)[:, maze.moves].argmax(axis=2)
    assert np.array_equal(found.route[:, :, 1], maze.moves[np.arange(46), best])
    again = plan(maze, 7 * reward + rng.normal(size=(3, 1)), np.array([0, 1, 0]))
    assert np.array_equal(found.route, again.route)
    assert np.array_equal(found.rest, np.take_along_axis(found.route[:, :, 1], found.rest, axis=1))  # at rest


def test_nothing_to_gain_is_staying_put(maze):
    found = plan(maze, np.full((1, 46), 3.0), np.array([0]))
    assert np.array_equal(found.rest[0], np.arange(46))
    assert found.success.tolist() == [0]


def test_users_are_planned_for_by_their_latents(maze):
    kind = np.array([0, 1, 1])
    z = maze.goals()[[0, 1, 0]]  # the third is taken for the other kind
    np.testing.assert_array_equal(cell_rewards(maze, Oracle(task=maze), z), maze.cell_rewards[[0, 1, 0]])
    for scaling in ("none", "spo", "max-norm"):
        assert plan_for(maze, Oracle(task=maze), z, kind, scaling=scaling).success.tolist() == [1, 1, 0]


@pytest.mark.study
def test_plans_for_ten_goals_rest_where_users_want():
    # Begun at random, nets and linear rewards alike rest in the goal for less than half of such users.
    maze = Maze("ten")
    states = maze.offline(50_000, seed=0).after
    kinds = {"form": "linear", "latent_dim": 9, "prior": "mixture", "components": 10, "kinds": 24}
    how = replace(control_settings(), **kinds, kl_weight=0.02, steps=0)
    fitted = fit_reward("vpl", maze, draw_sets(maze, states, n_users=5000, n_pairs=64, seed=1), settings=how)
    new = draw_sets(maze, states, n_users=400, n_pairs=64, kind=np.arange(400) % 10, seed=2)
    found = plan_for(maze, fitted, fitted.place(new), new.kind, scaling="spo")
    assert fitted.latent_dim == 9
    assert found.success.mean() > 0.7
    assert found.near.mean() > 0.85


def test_wrong_shapes_and_kinds_are_named(maze):
    with pytest.raises(ConfigError, match=r"shape \(1, 46\), users by cells; they have \(1, 45\)"):
        plan(maze, np.zeros((1, 45)), np.array([0]))
    with pytest.raises(ConfigError, match="finite"):
        plan(maze, np.full((1, 46), np.nan), np.array([0]))
    with pytest.raises(ConfigError, match="values 0 to 2; kinds are 0 to 1"):
        plan(maze, np.zeros((2, 46)), np.array([0, 2]))
