"""The least value over a confidence set of a linear reward."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from pluralign.errors import ConfigError, DataError
from pluralign.policies.best_of_n import choose_best
from pluralign.policies.pessimism import PessimisticReward, pessimistic_value, radius_of
from pluralign.populations import simulate
from pluralign.studies.fitting import fit

PROMPT = "How do I boil an egg?"
TEXTS = ["Seven minutes.", "First, fill a pot with water!\n\n- then wait\n- then eat", "Perhaps you could wait.", "No."]


def draw(seed: int, dim: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gaps, a reward and the information of a fit."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(30, dim, generator=g, dtype=torch.float64)
    gap = torch.randn(6, dim, generator=g, dtype=torch.float64)
    return gap, torch.randn(dim, generator=g, dtype=torch.float64), x.T @ x / 4


@pytest.fixture(scope="module")
def comparisons():
    return simulate(n_users=8, comparisons_per_user=30, n_prompts=20, n_clusters=2, seed=1).comparisons


@pytest.fixture(scope="module")
def clusters(comparisons):
    return fit(comparisons, users="cluster", clusters=2, soft=False, ridge=1.0, starts=2).reward


def test_a_case_by_hand():
    # Information diag(4, 1): standard deviations 1/2 and 1. The gap (1, 2) has spread sqrt(1/4 + 4).
    value = pessimistic_value(
        torch.tensor([[1.0, 2.0]]), torch.tensor([3.0, 1.0]), torch.diag(torch.tensor([4.0, 1.0])), radius=2.0
    )
    assert value.item() == pytest.approx(5 - 2 * np.sqrt(4.25))


@given(st.integers(0, 1000), st.floats(0.1, 5))
def test_no_reward_in_the_set_gives_less_and_one_gives_it(seed, radius):
    gap, theta, information = draw(seed)
    value = pessimistic_value(gap[:1], theta, information, radius)
    found = minimize(
        lambda t: float(gap[0].numpy() @ t),
        theta.numpy(),
        constraints={
            "type": "ineq",
            "fun": lambda t: radius**2 - (t - theta.numpy()) @ information.numpy() @ (t - theta.numpy()),
        },
    )
    assert value.item() == pytest.approx(found.fun, abs=1e-4)


@given(st.integers(0, 1000))
def test_value_falls_with_the_radius_and_is_the_rewards_own_at_zero(seed):
    gap, theta, information = draw(seed)
    values = [pessimistic_value(gap, theta, information, radius) for radius in (0.0, 0.5, 1.0, 3.0)]
    torch.testing.assert_close(values[0], gap @ theta)
    assert all((later < before).all() for before, later in pairwise(values))


def test_a_chi_square_radius_covers_as_it_says():
    assert radius_of(0.95, 1) == pytest.approx(1.959964, abs=1e-6)
    information = draw(0)[2]
    g = torch.Generator().manual_seed(0)
    error = torch.linalg.solve_triangular(
        torch.linalg.cholesky(information).T, torch.randn(4, 20000, generator=g, dtype=torch.float64), upper=True
    )
    inside = (error * (information @ error)).sum(0).sqrt() <= radius_of(0.8, 4)
    assert inside.double().mean().item() == pytest.approx(0.8, abs=0.01)


def test_information_is_the_curvature_of_the_members_choices(comparisons, clusters):
    made = PessimisticReward.of(clusters, comparisons, radius=1.0, ridge=1.0)
    design = clusters.design(comparisons).double
    for k in (0, 1):
        mine = clusters.users.membership[design.user, k] > 0.5
        x = design.differences(torch.arange(design.n_rows))[mine]
        p = torch.sigmoid(x @ clusters.users.theta[k].double())
        expected = (x * (p * (1 - p))[:, None]).T @ x + torch.eye(design.dim, dtype=torch.float64)
        torch.testing.assert_close(made.information[k], expected)


def test_at_radius_zero_the_choice_is_the_rewards_own(comparisons, clusters):
    made = PessimisticReward.of(clusters, comparisons, radius=0.0, ridge=1.0)
    for user in ("user 0", "user 5", None):
        greedy = clusters.score([PROMPT] * 4, TEXTS, [user] * 4)[0]
        found = choose_best([PROMPT], [user], [TEXTS], made)
        if user is not None:  # an unknown user's own reward mixes the clusters
            assert found.best[0] == greedy.argmax()
            np.testing.assert_allclose(found.rewards[0], greedy - greedy.mean(), atol=1e-5)


def test_a_constant_in_the_reward_changes_nothing(comparisons, clusters):
    # The constant feature's weight is the reward's constant: gaps are zero there, whatever its weight.
    made = PessimisticReward.of(clusters, comparisons, radius=1.5, ridge=1.0)
    features = made._features([PROMPT] * 4, TEXTS)
    gap = features - features.mean(0)
    plain = pessimistic_value(gap, clusters.users.theta[0].double(), made.information[0], 1.5)
    wide = torch.cat([gap, torch.zeros(4, 1, dtype=torch.float64)], dim=1)
    information = torch.block_diag(made.information[0], torch.ones(1, 1, dtype=torch.float64))
    for constant in (-7.0, 100.0):
        theta = torch.cat([clusters.users.theta[0].double(), torch.tensor([constant], dtype=torch.float64)])
        torch.testing.assert_close(pessimistic_value(wide, theta, information, 1.5), plain)


def test_what_nothing_is_known_of_is_avoided(comparisons, clusters):
    made = PessimisticReward.of(clusters, comparisons, radius=1e4, ridge=1.0)
    features = made._features([PROMPT] * 4, TEXTS)
    gap = features - features.mean(0)
    k = int(clusters.users.membership[clusters.user_ids.index("user 0")].argmax())
    spread = (gap * torch.linalg.solve(made.information[k], gap.T).T).sum(1).sqrt()
    assert made.score([PROMPT] * 4, TEXTS, ["user 0"] * 4).argmax() == spread.argmin()


def test_a_baseline_response_has_value_zero(comparisons, clusters):
    made = PessimisticReward.of(clusters, comparisons, radius=2.0, ridge=1.0, baseline={PROMPT: TEXTS[2]})
    value = made.score([PROMPT] * 4, TEXTS, ["user 1"] * 4)
    assert value[2] == pytest.approx(0, abs=1e-9)
    with pytest.raises(DataError, match="no baseline"):
        made.score(["Why?"], ["No."], [None])


def test_a_pooled_reward_has_one_set(comparisons):
    reward = fit(comparisons, users="pooled", ridge=1.0).reward
    made = PessimisticReward.of(reward, comparisons, radius=1.0, ridge=1.0)
    assert made.information.shape[0] == 1
    assert np.array_equal(made.score([PROMPT] * 4, TEXTS, ["user 0"] * 4), made.score([PROMPT] * 4, TEXTS, [None] * 4))


def test_what_cannot_be():
    gap, theta, information = draw(0)
    with pytest.raises(ConfigError, match=r"radius is -1\.0"):
        pessimistic_value(gap, theta, information, -1.0)
    with pytest.raises(ConfigError, match="singular"):
        pessimistic_value(gap, theta, torch.zeros(4, 4, dtype=torch.float64), 1.0)
    with pytest.raises(ConfigError, match=r"probability is 1\.0"):
        radius_of(1.0, 3)


def test_other_kinds_of_users_are_refused(comparisons):
    reward = fit(comparisons, users="individual", ridge=1.0).reward
    with pytest.raises(ConfigError, match="pooled or cluster"):
        PessimisticReward.of(reward, comparisons, radius=1.0, ridge=1.0)
