import sys

import numpy as np
import pytest
import torch

from pluralign.control.preferences import draw_sets
from pluralign.control.table_top import HALF_BLOCK, HIGH, LOW, STEPS, ZONES, Table, TableTop
from pluralign.control.tasks import Steered
from pluralign.errors import ConfigError
from pluralign.inference.pooled import fit_pooled

pytest.importorskip("mujoco")

# Where the block is, what the cup holds, and what the two kinds of user think of it.
LEFT, RIGHT = ZONES


@pytest.fixture(scope="module")
def task():
    return TableTop()


@pytest.fixture(scope="module")
def offline(task):
    return task.demonstrations(120, seed=0)


def at(position, *, suction=-1.0):
    """The action that goes to one position, for one episode."""
    return np.array([[*(2 * (np.asarray(position) - LOW) / (HIGH - LOW) - 1), suction]])


def table(block, cup, *, grasped=False):
    physics = np.zeros((1, 14))
    physics[0, 1:5] = [*block, 1.0]
    return Table(physics=physics, cup=np.array([cup], dtype=float), grasped=np.array([grasped]))


def run(task, state, *actions):
    for action in actions:
        state = task.step(state, action)
    return state


def held(task):
    """A block that has been picked up at (0.5, 0) and held at a height of 0.2."""
    state = table((0.5, 0, HALF_BLOCK), (0.5, 0, 0.06))
    up = at((0.5, 0, 0.2), suction=1)
    return run(task, state, at((0.5, 0, 0.035), suction=1), up, up, up)


def test_it_is_a_task_in_which_a_policy_acts(task):
    assert isinstance(task, Steered)
    assert task.goals().tolist() == [[1.0], [-1.0]]


def test_a_block_rests_on_the_table(task):
    far = at((0.35, 0.3, 0.3), suction=1)
    state = run(task, table((0.6, -0.1, HALF_BLOCK), (0.5, 0, 0.25)), far, far, far, far)
    np.testing.assert_allclose(state.observation[0], [0.35, 0.3, 0.3, 0.6, -0.1, HALF_BLOCK, 0], atol=3e-4)


def test_the_end_effector_goes_a_fifth_of_a_metre_at_most(task):
    state = run(task, table((0.6, 0.3, HALF_BLOCK), (0.5, -0.3, 0.2)), at((0.5, 0.3, 0.2)))
    np.testing.assert_allclose(state.cup[0], [0.5, -0.1, 0.2], atol=1e-12)
    state = run(task, state, at((0.5, 0.05, 0.2)))
    np.testing.assert_allclose(state.cup[0], [0.5, 0.05, 0.2], atol=1e-12)


@pytest.mark.parametrize(
    ("cup", "suction", "grasped"),
    [
        ((0.5, 0, 0.04), 1, True),  # the top of the block
        ((0.5, 0, 0.04), -1, False),  # on it without suction
        ((0.5, 0, 0.045), 1, False),  # half a centimetre above it
        ((0.515, -0.01, 0.04), 1, True),  # not at its middle
        ((0.525, 0, 0.04), 1, False),  # beside it
    ],
)
def test_suction_holds_what_the_cup_touches_and_nothing_else(task, cup, suction, grasped):
    state = run(task, table((0.5, 0, HALF_BLOCK), (cup[0], cup[1], 0.1)), at(cup, suction=suction))
    assert state.grasped.tolist() == [grasped]
    state = run(task, state, at((0.5, 0, 0.2), suction=suction), at((0.5, 0, 0.2), suction=suction))
    assert (state.observation[0, 5] > 0.1) == grasped


def test_a_held_block_follows_the_cup(task):
    state = held(task)
    np.testing.assert_allclose(state.observation[0], [0.5, 0, 0.2, 0.5, 0, 0.2 - HALF_BLOCK, 1], atol=2e-3)
    side = at((0.6, 0.15, 0.2), suction=1)
    state = run(task, state, side, side, side)
    np.testing.assert_allclose(state.observation[0], [0.6, 0.15, 0.2, 0.6, 0.15, 0.2 - HALF_BLOCK, 1], atol=2e-3)


def test_a_released_block_falls_as_galileo_says_and_then_lies(task):
    state = held(task)
    stay = at((0.5, 0, 0.2))
    dropped = run(task, state, stay)  # a step is 0.2 s, in which a body falls 0.2 m; here 0.16 are free
    assert not dropped.grasped[0]
    rest = run(task, dropped, stay, stay)
    np.testing.assert_allclose(rest.observation[0, 3:], [0.5, 0, HALF_BLOCK, 0], atol=2e-3)
    np.testing.assert_allclose(rest.physics[0, 8:], 0, atol=1e-2)
    # Suction again, far above the block: switching it on reaches for nothing.
    again = run(task, rest, at((0.5, 0, 0.2), suction=1))
    assert not again.grasped[0]
    assert again.observation[0, 5] < 0.03


def test_true_rewards_by_hand(task):
    observation = np.array(
        [
            [0.5, 0.2, 0.12, *LEFT, 0.02, 0],  # in the left zone, released; 0.1 between cup and block
            [0.5, -0.17, 0.1, 0.5, -0.17, 0.08, 1],  # held over the right zone
            [0.5, 0.0, 0.1, 0.5, 0.0, 0.08, 1],  # held 0.2 from both
            [0.5, 0.0, 0.32, 0.5, 0.1, 0.32, 0],  # free, 0.1 from the cup
            [0.5, 0.2, 0.1, 0.5, 0.26, 0.02, 0],  # 0.06 from the left zone, and 0.1 from the cup
        ]
    )
    near, far = np.exp(-0.1) / 100, (2 + np.exp(-0.37)) / 100
    between = (2 + np.exp(-0.2)) / 100
    np.testing.assert_allclose(
        task.rewards(observation), [[1, far, between, near, near], [near, 0.05, between, near, near]]
    )


def test_success_is_a_released_block_that_lies_in_the_users_zone(task):
    observation = np.array(
        [
            [0.5, 0, 0.2, 0.5, 0.24, 0.02, 0],
            [0.5, 0, 0.2, 0.5, 0.24, 0.02, 0],  # another's zone
            [0.5, 0, 0.2, 0.5, 0.24, 0.02, 1],  # held
            [0.5, 0, 0.2, 0.5, 0.24, 0.05, 0],  # falling
            [0.5, 0, 0.2, 0.5, 0.26, 0.02, 0],  # beside it
        ]
    )
    assert task.succeeded(observation, np.array([0, 1, 0, 0, 0])).tolist() == [True, False, False, False, False]


def placed(task, offline):
    last = offline.after.reshape(-1, STEPS, 7)[:, -1]
    left = task.succeeded(last, np.zeros(len(last), dtype=int))
    return left, task.succeeded(last, np.ones(len(last), dtype=int))


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.98), (0.01, 0.95)])
def test_the_planner_brings_the_block_to_a_zone(noise, least):
    task = TableTop(noise=noise)
    left, right = placed(task, task.demonstrations(120, seed=3))
    assert np.mean(left | right) >= least
    assert 0.3 < np.mean(left) < 0.7


def test_offline_data_are_whole_episodes_of_what_was_done(task, offline):
    assert len(task.offline(60, seed=1).action) == 75
    assert np.abs(offline.action).max() <= 1
    assert offline.episode.tolist() == np.repeat(np.arange(120), STEPS).tolist()
    inside = offline.episode[1:] == offline.episode[:-1]
    np.testing.assert_array_equal(offline.after[:-1][inside], offline.observation[1:][inside])
    # The first episode again by its actions alone.
    state = Table(
        physics=np.concatenate([[0.0], offline.observation[0, 3:6], [1.0], np.zeros(9)])[None],
        cup=offline.observation[:1, :3],
        grasped=np.array([False]),
    )
    for action, after in zip(offline.action[:STEPS], offline.after[:STEPS], strict=True):
        state = task.step(state, action[None])
        np.testing.assert_array_equal(state.observation[0], after)


def test_a_seed_is_a_data_set(task):
    first, again, other = (TableTop().demonstrations(10, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(again.after, first.after)
    assert not np.array_equal(other.after, first.after)


def to_zone(zone):
    """The planner as a policy of what it sees."""

    def act(observation):
        cup, block, grasped = observation[:, :3], observation[:, 3:6], observation[:, 6] > 0.5
        there = np.linalg.norm(block[:, :2] - zone, axis=1) < 0.03
        over_block = np.linalg.norm(cup[:, :2] - block[:, :2], axis=1) < 0.01
        position = np.where(
            grasped[:, None],
            np.column_stack([np.broadcast_to(zone, (len(cup), 2)), np.where(there, 0.05, 0.12)]),
            np.column_stack([block[:, :2], np.where(over_block, 0.03, 0.12)]),
        )
        position[there & ~grasped, 2] = 0.2
        suction = np.where(there & (block[:, 2] < 0.045), -1.0, 1.0)
        return np.column_stack([2 * (position - LOW) / (HIGH - LOW) - 1, suction])

    return act


def test_a_policy_succeeds_with_the_users_whose_zone_it_serves(task):
    user = np.arange(40) % 2
    rolled = task.rollout(to_zone(LEFT), user, seed=0)
    assert rolled.path.shape == (40, STEPS + 1, 7)
    assert rolled.success[user == 0].mean() >= 0.95
    assert not rolled.success[user == 1].any()
    # An episode ends with its success.
    won = rolled.path[rolled.success]
    first = np.array([task.succeeded(path, np.zeros(STEPS + 1, dtype=int)).argmax() for path in won])
    assert (first < STEPS).any()
    for path, moment in zip(won, first, strict=True):
        np.testing.assert_array_equal(path[moment:], np.broadcast_to(path[moment], path[moment:].shape))


def test_one_by_one_is_the_same_as_all_at_once(task):
    start = task.start(6, seed=5)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (10, 6, 4))
    together = start
    for action in actions:
        together = task.step(together, action)
    for i in range(6):
        alone = start.take(np.arange(6) == i)
        for action in actions:
            alone = task.step(alone, action[i : i + 1])
        np.testing.assert_array_equal(alone.physics[0], together.physics[i])
        np.testing.assert_array_equal(alone.observation[0], together.observation[i])


def test_features_are_bumps_that_know_whether_the_block_is_held(task, offline):
    phi = task.features(offline.after)
    assert phi.shape == (120 * STEPS, 82)
    grasped = offline.after[:, 6]
    np.testing.assert_allclose(phi[:, :40].sum(1), 1 - grasped)
    np.testing.assert_allclose(phi[:, 40:80].sum(1), grasped)
    np.testing.assert_allclose(phi[grasped == 1, 80], 0)
    lost = task.features(np.array([[0.5, 0, 0.2, 40.0, 9.0, -3.0, 0]]))
    assert np.isfinite(lost).all()
    assert lost[0, 39] == pytest.approx(1)  # the corner nearest to it


def test_one_kind_of_user_is_learnt_from_features_and_both_together_are_not(task, offline):
    def accuracy(kind):
        train, test = (
            draw_sets(task, offline.after, n_users=n, n_pairs=16, kind=np.resize(kind, n), seed=n) for n in (600, 200)
        )
        theta = fit_pooled(train.design, ridge=0.1)[0].theta
        decided = test.comparisons.outcome != 0.5
        return float((test.design.margins(theta[None])[torch.as_tensor(decided)] > 0).double().mean())

    assert accuracy([0]) >= 0.97
    assert accuracy([1]) >= 0.97
    assert accuracy([0, 1]) <= 0.85


def test_without_mujoco_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(ConfigError, match="table-top needs MuJoCo") as error:
        TableTop()
    assert error.value.hint is not None
    assert "pluralign[control]" in error.value.hint


def test_settings_that_cannot_be_are_named(task):
    with pytest.raises(ConfigError, match="n is 0; there must be a demonstration"):
        task.demonstrations(0, seed=0)
    with pytest.raises(ConfigError, match=r"noise is -0\.1"):
        TableTop(noise=-0.1)
    for wrong in (np.full((2, 4), np.nan), np.zeros((2, 3))):
        with pytest.raises(ConfigError, match=r"actions must be finite numbers of shape \(2, 4\)"):
            task.step(task.start(2, seed=0), wrong)
