"""VPL's one-dimensional example as a task, and what its rewards must show."""

from __future__ import annotations

import numpy as np
import pytest

from pluralign.control.didactic import Didactic
from pluralign.control.preferences import Sets, draw_sets
from pluralign.control.rewards import Personal, fit_reward
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError


def test_rewards_by_hand():
    task = Didactic()
    assert isinstance(task, Task)
    np.testing.assert_allclose(
        task.rewards(np.array([[1.0], [6.0]])), [[1, 0.75], [0.91, 0.96], [0.75, 1], [0.36, 0.91]]
    )
    np.testing.assert_allclose(task.features(task.places(50)).sum(1), 1)
    assert task.goals()[:, 0].tolist() == pytest.approx([-0.8, -0.2, 0.2, 0.8])


def test_the_best_answer_for_everybody_is_right_two_times_in_three():
    # Three of four users agree about a pair, or two: 0.669 for these places, counted independently.
    first, second = np.random.default_rng(0).random((2, 50_000, 1)) * 10
    assert Didactic().majority(first, second).mean() == pytest.approx(0.669, abs=0.005)
    assert Didactic([2.0]).majority(first, second).mean() == 1


def test_a_mode_off_the_line_is_refused():
    with pytest.raises(ConfigError, match=r"modes are \[1.0, 11.0\]; there must be one, and all from 0 to 10"):
        Didactic([1.0, 11.0])


@pytest.mark.study
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("whole_runs")
def test_four_modes_are_recovered_from_16_comparisons_each():
    task, n = Didactic(), 16
    line = np.random.default_rng(0).random((20_000, 1)) * 10
    sets = draw_sets(task, line, n_users=5000, n_pairs=n, seed=1)
    fresh = draw_sets(task, line, n_users=500, n_pairs=2 * n, seed=2)
    asked = np.arange(1000 * n) % (2 * n) < n
    context = Sets(comparisons=fresh.comparisons.take(asked), features=fresh.features, kind=fresh.kind)
    others = Sets(comparisons=fresh.comparisons.take(~asked), features=fresh.features, kind=fresh.kind)
    accuracy = {}
    for method in ("btl", "vpl"):
        fitted = fit_reward(method, task, sets, ridge=1.0, seed=0)
        z = fitted.place(context)
        accuracy[method] = float(np.nanmean(fitted.predict(others, z).correct))
    assert abs(accuracy["btl"] - 0.669) < 0.02
    assert accuracy["vpl"] > 0.9
    assert accuracy["vpl"] > accuracy["btl"] + 0.2
    assert isinstance(fitted, Personal)
    places = task.places(201)
    middle = np.stack([z[fresh.kind == kind].mean(0) for kind in range(4)])
    reward = fitted.reward(fitted.sees(places), middle)
    assert np.abs(places[reward.argmax(0), 0] - task.modes).max() < 0.6
    assert min(np.corrcoef(reward[:, k], task.rewards(places)[k])[0, 1] for k in range(4)) > 0.9
