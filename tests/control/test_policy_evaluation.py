import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from scipy.special import stdtrit

from pluralign.control.evaluation import (
    Featured,
    Run,
    success_difference,
    success_interval,
    success_rates,
    swap_users,
    with_features,
)
from pluralign.control.tasks import Offline, Rollouts
from pluralign.errors import ConfigError, DataError

KINDS = ("left", "right")


class Ends:
    """Three moves of at most 1 from a start near 0: one kind of user wants to be below -2, the other above 2."""

    name = "ends"
    users = KINDS

    def features(self, observation: ndarray) -> ndarray:
        return observation

    def rewards(self, observation: ndarray) -> ndarray:
        return np.stack([observation[:, 0] < -2, observation[:, 0] > 2]).astype(float)

    def goals(self) -> ndarray:
        return np.array([[-1.0], [1.0]])

    def offline(self, steps: int, *, seed: int) -> Offline:
        raise NotImplementedError

    def rollout(self, act, user: ndarray, *, seed: int) -> Rollouts:
        path = [np.random.default_rng(seed).uniform(-0.5, 0.5, (len(user), 1))]
        for _ in range(3):
            path.append(path[-1] + act(path[-1]))
        found = self.rewards(path[-1])[user, np.arange(len(user))]
        return Rollouts(success=found > 0, path=np.stack(path, axis=1))


class Follow:
    """Goes where z points."""

    def act(self, observation: ndarray, z: ndarray) -> ndarray:
        return np.sign(z)


def run(success: list[int], kind: list[int] | None = None, first: int = 0) -> Run:
    path = np.zeros((len(success), 1, 1))
    rollouts = Rollouts(success=np.array(success, dtype=bool), path=path)
    return Run.of(rollouts, np.array(kind or [0] * len(success)), first=first)


def test_one_training_by_hand():
    # 6 of 10 users: variance of the mean with each user left out in turn, 0.24 / 10 * (10 / 9)^2 ... by hand 6 * 0.4^2
    # + 4 * 0.6^2 = 2.4 over 10^2, times (10 / 9)^2; 9 degrees of freedom.
    found = success_interval([run([1] * 6 + [0] * 4)], KINDS).overall
    error = (2.4 / 100 * (10 / 9) ** 2) ** 0.5
    assert found.estimate == pytest.approx(0.6)
    assert found.standard_error == pytest.approx(error)
    assert found.high - found.low == pytest.approx(2 * stdtrit(9, 0.975) * error, rel=1e-3)
    assert found.cluster == "user"


def test_trainings_that_differ_widen_the_interval():
    # Two trainings bring every user there, a third nobody: with 50 users each the users say little, the trainings all.
    steady = [run([1] * 33 + [0] * 17), run([1] * 33 + [0] * 17), run([1] * 34 + [0] * 16)]
    shaky = [run([1] * 50), run([1] * 50), run([0] * 50)]
    narrow, wide = (success_interval(runs, KINDS).overall for runs in (steady, shaky))
    assert narrow.estimate == pytest.approx(wide.estimate, abs=0.01)
    assert wide.low < 0 < 1 < wide.high
    assert wide.standard_error == pytest.approx((2 / 3 * 1 / 3 / 3) ** 0.5 * 3 / 2)  # of three numbers 1, 1, 0
    assert narrow.standard_error < wide.standard_error / 4
    assert success_interval(shaky, KINDS).seeds == (1.0, 1.0, 0.0)


def test_kinds_are_told_apart_and_absent_ones_left_out():
    found = success_interval([run([1, 1, 0, 0, 0, 1], [0, 0, 0, 2, 2, 2])], ("a", "b", "c"))
    assert {name: round(each.estimate, 3) for name, each in found.kinds.items()} == {"a": 0.667, "c": 0.333}
    assert found.as_dict()["kinds"]["a"]["n_users"] == 3


@given(st.lists(st.booleans(), min_size=5, max_size=30), st.integers(0, 99))
def test_a_difference_is_that_of_the_rates_and_nothing_from_itself(success, seed):
    other = np.random.default_rng(seed).random(len(success)) < 0.5
    a, b = [run([int(x) for x in success])], [run(other.astype(int).tolist())]
    assert success_difference(a, b).estimate == pytest.approx(np.mean(success) - other.mean())
    itself = success_difference(a, a)
    assert (itself.estimate, itself.standard_error) == (0, 0)


def test_the_same_users_make_a_difference_surer():
    # 45 and 50 of 100 users, the 45 among the 50: as pairs 5 differ, apart they would be within noise of each other.
    a, b = [run([1] * 50 + [0] * 50)], [run([1] * 45 + [0] * 55)]
    paired = success_difference(a, b)
    alone = success_interval(a, KINDS).overall
    assert paired.low > 0
    assert paired.standard_error < alone.standard_error / 2


def test_what_cannot_be_compared_is_said():
    with pytest.raises(DataError, match="one method has 1 runs and the other 2"):
        success_difference([run([1])], [run([1]), run([0])])
    with pytest.raises(DataError, match="decision 0: user is 0 for one model and 5 for the other"):
        success_difference([run([1, 0])], [run([1, 0], first=5)])
    with pytest.raises(DataError):
        success_interval([], KINDS)
    with pytest.raises(DataError, match="3 latents for 2 users"):
        success_rates(Ends(), Follow(), np.zeros((3, 1)), np.array([0, 1]), seed=0)


def test_exchanged_latents_exchange_the_behaviour():
    kind = np.arange(12) % 2
    swap = swap_users(Ends(), Follow(), Ends().goals()[kind], kind, np.zeros(1), seed=0)
    assert swap.as_dict() == {"own": 1.0, "lent": 0.0, "followed": 1.0, "unknown": 0.0}
    assert (kind[swap.lender] != kind).all()
    starts = [each.path[:, 0] for each in (swap.own, swap.lent, swap.followed, swap.unknown)]
    assert all(np.array_equal(starts[0], each) for each in starts)


def test_a_policy_that_sees_features_acts_on_observations():
    class See:
        def act(self, observation: ndarray, z: ndarray) -> ndarray:
            assert observation.shape[1] == 2
            return np.sign(observation[:, 1:] + 10 * z)  # the feature, a position of at most 3, does not outweigh z

    task, kind = Ends(), np.arange(6) % 2
    done = success_rates(task, Featured(policy=See(), task=task), task.goals()[kind], kind, seed=0)
    assert done.success.all()
    data = Offline(
        observation=np.arange(3.0)[:, None], action=np.zeros((3, 1)), after=np.ones((3, 1)), episode=np.zeros(3, int)
    )
    wide = with_features(task, data)
    assert wide.observation.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert wide.after.tolist() == [[1, 1]] * 3


def test_one_kind_of_user_has_nobody_to_exchange_with():
    with pytest.raises(ConfigError, match="all users are of one kind"):
        swap_users(Ends(), Follow(), np.zeros((3, 1)), np.zeros(3, dtype=int), np.zeros(1), seed=0)
