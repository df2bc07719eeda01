"""Wrong labels in a context: accuracy falls with their share, and beyond one half it is worse than knowing nothing."""

from dataclasses import replace

import numpy as np
import pytest

from pluralign.control.choices import Tidy, choice_settings
from pluralign.control.maze import Maze
from pluralign.control.noise import noise_curve
from pluralign.control.preferences import draw_sets
from pluralign.control.rewards import fit_reward
from pluralign.errors import ConfigError

FEW = replace(choice_settings(), steps=200, users=64)


@pytest.fixture(scope="module")
def curve(whole_runs):
    task = Tidy(agree=2)
    sets = task.draw(600, 12, seed=0)
    fitted, shared = fit_reward("vpl", task, sets, settings=FEW), fit_reward("btl", task, sets)
    return noise_curve(
        fitted,
        task,
        task.observations,
        shared=shared,
        shares=(0.0, 0.25, 0.5, 1.0),
        sizes=(2, 8),
        n_users=300,
        asked=task.questions,
    )


def test_accuracy_falls_with_the_share_of_wrong_labels(curve):
    for size in (2, 8):
        found = [curve.score(size, share).estimate for share in (0.0, 0.25, 0.5, 1.0)]
        assert found == sorted(found, reverse=True)
    assert curve.score(8, 0.0).estimate > 0.97
    # Of the pairs, 2 in 5 are agreed upon: what everybody's reward knows, with half of the others.
    assert curve.gain(8, 0.0).estimate == pytest.approx(0.3, abs=0.04)


def test_wrong_labels_alone_are_worse_than_none(curve):
    assert curve.gain(8, 1.0).high < 0


def test_a_record_and_a_picture(curve, tmp_path):
    plain = curve.as_dict()
    assert plain["shares"] == [0.0, 0.25, 0.5, 1.0]
    assert plain["accuracy"][2][0] == curve.score(2, 0.0).as_dict()
    assert plain["shared"]["estimate"] == pytest.approx(0.7, abs=0.04)
    curve.figure().savefig(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 1000


def test_the_same_users_and_pairs_at_every_share(curve):
    first = curve.predictions[0][0]
    for each in (prediction for row in curve.predictions for prediction in row):
        np.testing.assert_array_equal(each.user, first.user)
        np.testing.assert_array_equal(each.source, first.source)


def test_there_must_be_something_to_compare_with(curve):
    alone = type(curve)(shares=curve.shares, sizes=curve.sizes, predictions=curve.predictions, shared=None)
    assert "shared" not in alone.as_dict()
    with pytest.raises(ConfigError, match="there is no shared reward to compare with"):
        alone.gain(2, 0.0)


@pytest.mark.study
@pytest.mark.timeout(900)
def test_label_noise_in_the_maze(whole_runs):
    task = Maze("two")
    rng = np.random.default_rng(0)
    place = task.centres[rng.integers(0, len(task.centres), 5000)] + rng.uniform(-0.5, 0.5, (5000, 2))
    states = np.column_stack([place, np.zeros_like(place)])
    sets = draw_sets(task, states, n_users=2000, n_pairs=16, seed=0)
    fitted, shared = fit_reward("vpl", task, sets), fit_reward("btl", task, sets)
    found = noise_curve(fitted, task, states, shared=shared)
    for size in (2, 4, 8):
        accuracy = [found.score(size, share).estimate for share in found.shares]
        assert accuracy == sorted(accuracy, reverse=True)
        assert found.gain(size, 0.25).low > 0
        assert abs(found.gain(size, 0.5).estimate) < 0.05
        assert found.gain(size, 0.75).high < 0
    for share in (0.0, 0.1, 0.25):
        assert found.score(8, share).estimate > found.score(2, share).estimate
