"""Fitted rewards of a task, their scalings, and the table that a policy learns from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from pluralign.control.preferences import Sets, draw_sets
from pluralign.control.rewards import (
    METHODS,
    SCALINGS,
    Personal,
    batch_norm_denominators,
    fit_reward,
    relabel,
    scale,
    win_rate,
)
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError
from pluralign.inference.latent_elbo import LatentSettings

QUICK = LatentSettings(latent_dim=1, hidden=8, steps=50, every=25, patience=1)


class TwoEnds:
    """A line from 0 to 1, on which half of the users want to be at one end and half at the other."""

    name = "two ends"
    users = ("left", "right")

    def features(self, observation: ndarray) -> ndarray:
        return np.exp(-((observation - np.linspace(0, 1, 6)) ** 2) / 0.05)

    def rewards(self, observation: ndarray) -> ndarray:
        return np.stack([1 - observation[:, 0], observation[:, 0]])

    def goals(self) -> ndarray:
        return np.array([[-1.0], [1.0]])


@pytest.fixture(scope="module")
def line() -> ndarray:
    return np.random.default_rng(0).random((400, 1))


@pytest.fixture(scope="module")
def sets(line: ndarray) -> Sets:
    return draw_sets(TwoEnds(), line, n_users=400, n_pairs=6, seed=1)


@pytest.fixture(scope="module")
def vpl(sets: Sets) -> Personal:
    found = fit_reward("vpl", TwoEnds(), sets, settings=QUICK, seed=0)
    assert isinstance(found, Personal)
    return found


def test_the_task_is_one():
    assert isinstance(TwoEnds(), Task)


def test_vpl_finds_what_every_user_wants(vpl: Personal, line: ndarray):
    fresh = draw_sets(TwoEnds(), line, n_users=200, n_pairs=8, seed=2)
    asked = np.arange(1600) % 8 < 4
    context = Sets(comparisons=fresh.comparisons.take(asked), features=fresh.features, kind=fresh.kind)
    others = Sets(comparisons=fresh.comparisons.take(~asked), features=fresh.features, kind=fresh.kind)
    z = vpl.place(context)
    assert z.shape == (200, vpl.latent_dim)
    assert np.nanmean(vpl.predict(others, z).correct) > 0.9
    reward = vpl.reward(vpl.sees(np.array([[0.05], [0.95]])), z)
    assert ((reward[1] > reward[0]) == (fresh.kind == 1)).mean() > 0.9


@pytest.mark.parametrize("method", ["btl", "dpl-mean-variance", "dpl-categorical"])
def test_one_reward_for_everybody_cannot_tell_two_ends(method: str, sets: Sets):
    found = fit_reward(method, TwoEnds(), sets, ridge=1.0)
    assert found.name == method
    assert found.place(sets).shape == (400, 0)
    assert found.draw(9, seed=0).shape == (1, 0)
    assert found.unknown().shape == (0,)
    assert np.nanmean(found.predict(sets, found.place(sets)).correct) < 0.65
    assert found.reward(sets.features, found.draw(1, seed=0)).shape == (len(sets.features), 1)


def test_the_oracle_is_always_right(sets: Sets, line: ndarray):
    oracle = fit_reward("oracle", TwoEnds(), sets)
    z = oracle.place(sets)
    assert np.nanmean(oracle.predict(sets, z).correct) == 1
    np.testing.assert_allclose(oracle.reward(oracle.sees(line), np.array([[-0.8], [0.9]])), TwoEnds().rewards(line).T)
    assert sorted(oracle.draw(6, seed=3)[:, 0]) == [-1, -1, -1, 1, 1, 1]


def test_an_unknown_method_is_named(sets: Sets):
    with pytest.raises(ConfigError, match=r'unknown method "gp"; known: oracle, bayes, btl'):
        fit_reward("gp", TwoEnds(), sets)
    assert len(METHODS) == 6


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 3.0, 40.0]))
def test_win_rates_are_the_double_loop(seed: int, spread: float):
    rng = np.random.default_rng(seed)
    reward, other = rng.normal(0, spread, 700), rng.normal(5, spread, 90)
    direct = (1 / (1 + np.exp(-(reward[:, None] - other)))).mean(1)
    np.testing.assert_allclose(win_rate(reward, other), direct, atol=1e-4)


def test_a_win_rate_by_hand():
    np.testing.assert_allclose(win_rate(np.array([np.log(3)]), np.array([0.0, np.log(3)])), [(0.75 + 0.5) / 2])


@given(st.integers(0, 2**32 - 1))
def test_spo_does_not_know_what_is_added_for_every_z(seed: int):
    rng = np.random.default_rng(seed)
    reward, other = rng.normal(0, 4, (300, 3)), rng.normal(0, 4, (50, 3))
    shift = rng.normal(0, 20, 3)
    found = scale(reward, other, "spo", centred=False)
    np.testing.assert_allclose(scale(reward + shift, other + shift, "spo", centred=False), found, atol=1e-4)
    assert ((found > 0) & (found < 1)).all()
    np.testing.assert_allclose(scale(other, other, "spo", centred=False).mean(0), 0.5, atol=1e-6)


@pytest.mark.parametrize("how", SCALINGS)
def test_centred_rewards_have_mean_0_over_the_comparators(how: str):
    other = np.random.default_rng(0).normal(1, 4, (60, 3))
    np.testing.assert_allclose(scale(other, other, how).mean(0), 0, atol=1e-5)


def test_scalings_by_hand():
    reward, other = np.array([[4.0, -2.0], [1.0, 3.0]]), np.array([[1.0, -1.0], [3.0, -3.0]])
    np.testing.assert_allclose(scale(reward, other, "none", centred=False), reward)
    np.testing.assert_allclose(scale(reward, other, "max-norm", centred=False), reward / 4)
    np.testing.assert_allclose(scale(reward, other, "max-norm"), np.array([[2.0, 0.0], [-1.0, 5.0]]) / 5)
    # The second latent's denominator is negative: what it liked best is now worst.
    np.testing.assert_allclose(scale(reward, other, "batch-norm", centred=False), [[2.0, 1.0], [0.5, -1.5]])
    assert batch_norm_denominators(other).tolist() == [2, -2]
    rate = scale(reward, other, "spo", centred=False)
    np.testing.assert_allclose(scale(reward, other, "spo-released", centred=False), np.exp(rate), rtol=1e-6)


def test_scalings_say_what_is_wrong():
    with pytest.raises(ConfigError, match=r'unknown scaling "sqrt"; known: none, spo'):
        scale(np.zeros((2, 1)), np.zeros((2, 1)), "sqrt")
    with pytest.raises(ConfigError, match="there are no comparators"):
        scale(np.zeros((2, 1)), np.zeros((0, 1)), "spo")


def test_a_table_has_every_step_under_every_latent(vpl: Personal, line: ndarray):
    table = relabel(vpl, line, scaling="spo", draws=12, seed=4, comparators=100)
    assert table.z.shape == (12, vpl.latent_dim)
    assert table.value.shape == (400, 12)
    assert table.value.dtype == np.float32
    assert (np.abs(table.value) < 0.5).all()
    again = relabel(vpl, line, scaling="spo", draws=12, seed=4, comparators=100)
    assert np.array_equal(table.value, again.value)
    with pytest.raises(ConfigError, match="0 draws"):
        relabel(vpl, line, draws=0, seed=0)


def test_a_reward_at_a_point_is_that_of_a_user_who_is_there(vpl: Personal, sets: Sets):
    model, features = vpl.model, torch.as_tensor(sets.features[:50]).float()
    z = model.posterior.center[:3]
    at = model.reward_at(features, z)
    margin = vpl.predict(sets, z.double().numpy()[:, vpl.active].repeat(134, 0)[:400]).chosen
    assert np.isfinite(margin).all()
    sure = model.with_posterior(
        type(model.posterior)(model.log_weight[:3], z[:, None], torch.full_like(z[:, None], -99))
    )
    for user in range(3):
        mean, sd = sure.reward(features, torch.full((50,), user))
        torch.testing.assert_close(mean, at[:, user], atol=1e-4, rtol=1e-4)
        assert float(sd.max()) < 1e-3
