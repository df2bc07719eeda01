"""Scores of pairs, and the choice of one or of several."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit

from pluralign.errors import ConfigError, DataError
from pluralign.queries import METHODS, Gaussian, Particles, propose
from pluralign.queries.scores import d_optimal, uncertainty, uncertainty_predictive, vpl_released


def gaussian(mean, x, covariance) -> Gaussian:
    x = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    return Gaussian.of(
        torch.as_tensor(np.asarray(mean), dtype=torch.float64),
        x,
        torch.as_tensor(np.asarray(covariance), dtype=torch.float64)[None],
        torch.zeros(len(x), dtype=torch.int64),
    )


@given(st.integers(0, 2**32 - 1))
def test_d_optimal_is_the_gain_in_log_det(seed):
    rng = np.random.default_rng(seed)
    x, root = rng.normal(size=(4, 3)), rng.normal(size=(3, 3)) + np.eye(3)
    belief = gaussian(rng.normal(size=4), x, root @ root.T)
    precision = np.linalg.inv(root @ root.T)
    for _ in range(3):
        a = belief.fisher().numpy()
        expected = [
            np.linalg.slogdet(precision + a[i] * np.outer(x[i], x[i]))[1] - np.linalg.slogdet(precision)[1]
            for i in range(4)
        ]
        assert d_optimal(belief).numpy() == pytest.approx(expected, rel=1e-6, abs=1e-9)
        precision, belief = precision + a[1] * np.outer(x[1], x[1]), belief.after(1)


def test_the_two_uncertainties_differ_where_the_posterior_is_wide():
    # A margin of mean 2 that may be anything, and one of mean 1.9 that is sure.
    belief = gaussian([2.0, 1.9], [[30.0], [0.0]], [[1.0]])
    assert uncertainty(belief).argmax() == 1
    assert uncertainty_predictive(belief).argmax() == 0


def test_the_released_formula_by_hand():
    mean, x, covariance = np.array([0.4]), np.array([1.0, -0.5]), np.array([[1.0, 0.2], [0.2, 0.5]])
    v = x @ covariance @ x
    after = []
    for answer in (1, 0):
        mode = brentq(lambda m, y=answer: m - mean[0] - v * (y - expit(m)), -20, 20)
        a = expit(mode) * expit(-mode)
        after.append(np.diag(np.linalg.inv(np.linalg.inv(covariance) + a * np.outer(x, x))))
    total, logs = np.sum(after, axis=1), np.sum(np.log(2 * np.pi * np.array(after)), axis=1)
    expected = np.log(2 * np.pi * total.mean()) - logs.mean()
    assert vpl_released(gaussian(mean, [x], covariance)).item() == pytest.approx(expected)
    whole = torch.zeros(1, dtype=torch.int64)
    diagonal = Gaussian.of(
        torch.from_numpy(mean), torch.from_numpy(x)[None], torch.tensor([[1.0, 0.5]]).double(), whole
    )
    full = gaussian(mean, [x], np.diag([1.0, 0.5]))
    assert vpl_released(diagonal).item() == pytest.approx(vpl_released(full).item())


def test_in_one_dimension_the_released_formula_prefers_a_pair_that_tells_nothing():
    # Of a wide margin around 0 both answers leave the same variance: 0, as for a pair that cannot tell anything.
    belief = gaussian([0.0, 6.0], [[2.0], [2.0]], [[1.0]])
    assert belief.information_gain().argmax() == 0
    assert vpl_released(belief).argmax() == 1


def test_the_released_formula_needs_a_gaussian():
    with pytest.raises(ConfigError, match="vpl_released needs a Gaussian posterior"):
        vpl_released(Particles.of(torch.zeros(1, 2), torch.ones(1, 2)))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("random", "vpl_released")])
def test_ties_go_to_the_lowest_row(method):
    belief = Particles.of(torch.tensor([[3.0, 3.0], [1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]), torch.full((4, 2), 0.5))
    assert propose(belief, method=method).rows.tolist() == [1]


@pytest.mark.parametrize("method", ["information_gain", "d_optimal"])
def test_a_batch_does_not_ask_for_a_copy(method):
    # Rows 0 and 1 are copies of the best pair; row 2 asks about another direction, and a little less of it.
    copies = gaussian([0.0, 0.0, 0.0], [[2.0, 0.0], [2.0, 0.0], [0.0, 1.8]], np.eye(2))
    assert propose(copies, 2, method=method).rows.tolist() == [0, 2]
    # Clusters: row 1 asks again which of the first two it is, row 2 whether it is the third.
    margin = torch.tensor([[4.0, -4.0, 4.0], [4.0, -4.0, 4.0], [3.0, 3.0, -3.0]])
    clusters = Particles.of(margin, torch.full((3, 3), 1 / 3))
    assert sorted(propose(clusters, 2, method=method).rows.tolist()) == [0, 2]


def test_the_scores_of_a_batch_add_up_to_the_information_in_all_its_answers():
    rng = np.random.default_rng(0)
    margin, weight = rng.normal(size=(5, 3)) * 2, rng.dirichlet(np.ones(3))
    found = propose(Particles.of(torch.from_numpy(margin), torch.from_numpy(weight).expand(5, 3)), 3)
    p = expit(margin[found.rows])
    answers = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1)
    joint = np.prod(np.where(answers[:, :, None] == 1, p[:, None], 1 - p[:, None]), axis=0)  # (answers, clusters)
    together = joint @ weight
    gain = (weight * joint * np.log(joint / together[:, None])).sum()
    assert found.scores.sum() == pytest.approx(gain)


def test_no_pair_is_asked_twice_and_a_short_pool_gives_what_it_has():
    belief = gaussian(np.zeros(4), [[3.0], [-3.0], [2.0], [1.0]], [[1.0]])
    found = propose(belief, 9, pair=np.array([0, 0, 1, 2]))
    assert sorted(found.rows.tolist()) == [0, 2, 3]
    assert propose(belief, allowed=np.array([False, False, True, True])).rows.tolist() == [2]


def test_random_is_seeded_and_even():
    belief = gaussian(np.zeros(5), np.ones((5, 1)), [[1.0]])
    first = [propose(belief, 1, method="random", seed=seed).rows[0] for seed in range(300)]
    assert np.bincount(first, minlength=5).min() > 35  # of 60 expected; 5 in a million fall below
    assert (
        propose(belief, 3, method="random", seed=7).rows.tolist()
        == propose(belief, 3, method="random", seed=7).rows.tolist()
    )


def test_messages():
    belief = gaussian([0.0], [[1.0]], [[1.0]])
    with pytest.raises(ConfigError, match='unknown method "bald"; known: information_gain, d_optimal'):
        propose(belief, method="bald")
    with pytest.raises(ConfigError, match="n is 0; it must be at least 1"):
        propose(belief, 0)
    with pytest.raises(DataError, match="there is no pair left to ask"):
        propose(belief, allowed=np.array([False]))
    with pytest.raises(DataError, match="the pool is empty"):
        propose(gaussian(np.zeros(0), np.zeros((0, 1)), [[1.0]]))
