"""What an answer is worth in the response one is given."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from pluralign.queries.beliefs import Gaussian, Particles
from pluralign.queries.value import Responses, value_of_asking, value_under
from pluralign.users import UNKNOWN


def test_two_clusters_and_two_responses_by_hand():
    # One question, which the clusters (2 : 1) answer with 0.9 and 0.2. Of the two responses the first cluster likes the
    # second by 1, the other dislikes it by 4: it is worth 1/3 x 2 - 4/3 = -2/3, so the first response, 0, is given.
    p = torch.tensor([0.9, 0.2]).double()
    margin = torch.stack([torch.logit(p), torch.zeros(2).double(), torch.tensor([1.0, -4.0]).double()])
    belief = Particles.of(margin, torch.tensor([[2.0, 1.0]]).expand(3, 2))
    found = value_under(belief, 1, torch.tensor([0, 0]), 1)
    # After yes (2/3 x 0.9 + 1/3 x 0.2 = 2/3) the weights are 0.9 and 0.1: 0.5 is gained. After no, nothing.
    assert found.gain.tolist() == pytest.approx([2 / 3 * 0.5])
    assert found.perfect == pytest.approx(2 / 3)
    assert found.best == pytest.approx(1 / 3)
    assert not found.stop(0.3)
    assert found.stop(0.34)


def test_a_gaussian_by_integration():
    # Rewards r = x w, w ~ N(0, C); the question's margin is m = q w. On a fine grid of w in two dimensions.
    root = np.array([[1.2, 0.0], [0.5, 0.8]])
    x, q = np.array([[0.0, 0.0], [1.0, 0.3], [-0.4, 1.0]]), np.array([0.7, -0.9])
    mean, asked = np.array([0.2, 0.0, -0.1]), 0.4
    grid = np.linspace(-7, 7, 701)
    e = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    weight = np.exp(-(e**2).sum(1) / 2)
    weight /= weight.sum()
    w = e @ root.T
    reward, yes = mean + w @ x.T, expit(asked + w @ q)
    after = sum(((weight * p) @ reward).max() for p in (yes, 1 - yes))
    belief = Gaussian.of(
        torch.tensor([asked, *mean], dtype=torch.float64),
        torch.from_numpy(np.vstack([q, x])),
        torch.from_numpy(root @ root.T)[None],
        torch.zeros(4, dtype=torch.int64),
    )
    found = value_under(belief, 1, torch.zeros(3, dtype=torch.int64), 1)
    assert found.gain[0] == pytest.approx(after - mean.max(), abs=1e-4)
    assert found.perfect == pytest.approx(weight @ reward.max(1) - mean.max(), rel=0.02)  # quasi-random draws


@given(st.integers(0, 2**32 - 1))
def test_one_answer_gains_something_and_less_than_knowing_all(seed):
    rng = np.random.default_rng(seed)
    margin, weight = rng.normal(size=(9, 4)) * 2, rng.dirichlet(np.ones(4))
    belief = Particles.of(torch.from_numpy(margin), torch.from_numpy(weight).expand(9, 4))
    found = value_under(belief, 4, torch.tensor([0, 0, 1, 1, 1]), 2)
    assert (found.gain >= 0).all()
    assert found.best <= found.perfect + 1e-12


def test_sets_are_averaged_and_compared_with_their_first(random_pairs):
    design = random_pairs(6, items=6)
    found = Responses.of(design, np.array([0, 1, 0, 1, 1, 2]), np.array([5, 0, 2, 1, 3, 3]))
    assert found.count == 3
    assert found.set.tolist() == [0, 1, 0, 1, 2]
    assert found.design.chosen.tolist() == [0, 1, 2, 3, 5]
    assert found.design.rejected.tolist() == [0, 1, 0, 1, 5]


def test_every_rung_knows_what_a_question_is_worth(model, random_pairs):
    design = random_pairs(20)
    responses = Responses.of(design, np.arange(40) % 3, np.arange(40))
    found = value_of_asking(model, UNKNOWN, design, responses)
    assert found.gain.shape == (20,)
    if model.kind == "reliability":
        # However closely somebody follows the common reward, the best response is the same.
        assert found.best == pytest.approx(0, abs=1e-12)
        assert found.perfect == pytest.approx(0, abs=1e-12)
    else:
        assert 0 < found.best < found.perfect
