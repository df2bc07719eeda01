"""One-step tasks: orderings and shelves by hand, and what a choice by a reward earns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.control.choices import Rearrange, Tidy
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError
from pluralign.inference.pooled import fit_pooled


@pytest.mark.parametrize("task", [Rearrange(), Tidy()])
def test_both_are_tasks_with_rewards_from_0_to_1(task):
    assert isinstance(task, Task)
    reward = task.rewards(task.observations)
    assert reward.shape == (len(task.users), len(task.observations)) == task.goals().shape
    assert reward.min() == 0
    assert reward.max() == 1


def test_an_ordering_is_the_reward_from_first_to_last():
    task = Rearrange(n_users=3, seed=4)
    for row, reward, words in zip(task.order, task.value, task.users, strict=True):
        assert np.argsort(-reward).tolist() == row.tolist()
        assert reward[row].tolist() == [1, 0.75, 0.5, 0.25, 0]
        assert words.count(">") == 4
    assert len(set(Rearrange(n_users=120).users)) == 120


def test_who_sorts_by_material_puts_a_pan_with_the_forks():
    task = Tidy(agree=3)
    assert task.objects == ("metal fork", "plastic spatula", "metal spoon", "metal pan", "plastic cup")
    assert task.shelf.tolist() == [[0, 1, 0, 0, 1], [0, 1, 0, 1, 0]]
    assert task.value[1].reshape(5, 2).tolist() == [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]]


@given(st.integers(0, 5))
def test_users_of_tidy_agree_on_so_many_objects(agree):
    shelf = Tidy(agree=agree).shelf
    assert (shelf[0] == shelf[1]).sum() == agree


def test_a_choice_earns_what_is_right_and_ties_are_shared():
    task = Rearrange(n_users=2)
    first = task.order[0, 0]
    sure, undecided = np.eye(5)[first], np.zeros(5)
    kind = np.array([0, 0])
    assert task.choose(np.stack([sure, undecided], axis=1), kind).tolist() == pytest.approx([1.0, 0.2])
    tidy = Tidy(agree=3)
    assert tidy.choose(tidy.value[:1].T, np.array([1])).tolist() == pytest.approx([0.6])
    assert tidy.choose(np.zeros((10, 1)), np.array([0])).tolist() == pytest.approx([0.5])


@given(st.integers(0, 2**32 - 1))
def test_shifting_and_scaling_a_reward_changes_no_choice(seed):
    rng = np.random.default_rng(seed)
    task = Rearrange(n_users=4)
    reward, kind = rng.normal(size=(5, 30)), rng.integers(0, 4, 30)
    moved = 3 * reward + rng.normal(size=30)
    np.testing.assert_array_equal(task.choose(moved, kind), task.choose(reward, kind))


def test_questions_are_about_the_same_object_on_two_shelves():
    sets = Tidy().draw(50, 6, seed=0)
    place = sets.comparisons.items.attributes.argmax(1)
    chosen, rejected = place[sets.comparisons.chosen], place[sets.comparisons.rejected]
    assert (chosen // 2 == rejected // 2).all()
    assert (chosen != rejected).all()
    assert sets.comparisons.outcome.min() == 1  # nobody is undecided about a shelf


def test_one_reward_for_all_does_what_the_majority_wants():
    task = Rearrange(n_users=5, seed=1)
    sets = task.draw(400, 10, shares=task.shares(0.8), seed=2)
    theta = fit_pooled(sets.design)[0].theta.numpy()
    reward = np.repeat((task.features(task.observations) @ theta)[:, None], 5, axis=1)
    success = task.choose(reward, np.arange(5))
    elsewhere = task.order[:, 0] != task.order[0, 0]
    assert success[0] == 1
    assert elsewhere.sum() >= 3
    assert (success[elsewhere] == 0).all()


def test_shares_add_up_and_are_checked():
    assert Rearrange(n_users=5).shares(0.8).tolist() == pytest.approx([0.8, 0.05, 0.05, 0.05, 0.05])
    assert Tidy().shares(1.0).tolist() == [1, 0]
    with pytest.raises(ConfigError, match="majority is 1"):
        Tidy().shares(1.2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Rearrange(n_users=121), "n_users is 121; 5 places have 120 orderings"),
        (lambda: Rearrange(n_places=6), "n_places is 6; there are 2 to 5"),
        (lambda: Tidy(agree=6), "agree is 6; there are 0 to 5"),
    ],
)
def test_what_there_is_not_is_said(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize("task", [Rearrange(), Tidy()])
def test_a_drawing_has_everything_in_it(task, tmp_path):
    figure = task.figure(task.value[0], title="what the first wants")
    words = {text.get_text() for text in figure.axes[0].texts}
    assert words >= set(task.objects if isinstance(task, Tidy) else ("desk", "sofa"))
    figure.savefig(tmp_path / "drawing.png")
    assert (tmp_path / "drawing.png").stat().st_size > 1000
