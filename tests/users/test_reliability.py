import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralign.features import Design
from pluralign.likelihoods import Decisions
from pluralign.users import UNKNOWN, Pooled
from pluralign.users.reliability import Reliability


def make_design(seed: int, *, alternatives: int = 2) -> Design:
    g = torch.Generator().manual_seed(seed)
    n = 24
    rows = n * (alternatives - 1)
    item = torch.stack([torch.randperm(10, generator=g)[:alternatives] for _ in range(n)])
    return Design(
        features=torch.randn(10, 3, generator=g, dtype=torch.float64),
        chosen=item[:, :1].expand(n, alternatives - 1).reshape(-1),
        rejected=item[:, 1:].reshape(-1),
        decisions=Decisions(
            index=torch.arange(n).repeat_interleave(alternatives - 1),
            outcome=torch.ones(rows, dtype=torch.float64),
            position=torch.zeros(rows, dtype=torch.float64),
        ),
        user=torch.arange(n) % 4,
        weight=torch.ones(n, dtype=torch.float64),
        source=torch.arange(n),
        n_users=4,
    )


def make_model(seed: int, *, sd: float = 0.4, lapse: float = 0.1) -> Reliability:
    g = torch.Generator().manual_seed(seed)
    return Reliability(
        theta=torch.randn(3, generator=g, dtype=torch.float64),
        log_scale=2 * torch.randn(4, generator=g, dtype=torch.float64),
        log_scale_sd=torch.full((4,), sd, dtype=torch.float64),
        spread=1.0,
        lapse=lapse,
        position_bias=0.0,
    )


@given(st.integers(0, 2**31), st.integers(2, 4))
def test_no_user_prefers_another_item_than_the_pooled_reward_does(seed, alternatives):
    design, model = make_design(seed, alternatives=alternatives), make_model(seed)
    pooled = Pooled(theta=model.theta, n_users=4).predict(design)
    for user in (None, design.user.roll(1), torch.full_like(design.user, UNKNOWN)):
        np.testing.assert_array_equal(model.predict(design, user).correct, pooled.correct)


def test_a_known_reliability_scales_the_margin_by_hand():
    design = make_design(0)
    model = make_model(0, sd=0.0, lapse=0.2)
    margin = (design.features[design.chosen] - design.features[design.rejected]) @ model.theta
    expected = 0.8 * torch.sigmoid(model.log_scale.exp()[design.user] * margin) + 0.1
    np.testing.assert_allclose(model.predict(design).chosen, expected.numpy(), atol=1e-12)


def test_an_unknown_user_is_nearer_to_even_odds_than_the_median_user():
    design, model = make_design(1), make_model(1, lapse=0.0)
    unknown = model.predict(design, torch.full_like(design.user, UNKNOWN)).chosen
    median = Pooled(theta=model.theta, n_users=4).predict(design).chosen
    sure = np.abs(median - 0.5) > 0.3  # nearer to even odds the curve of the sigmoid is too slight
    assert (np.abs(unknown - 0.5) < np.abs(median - 0.5))[sure].all()


def test_reward_has_the_moments_of_a_log_normal():
    model = make_model(2, sd=0.5)
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    user = torch.tensor([0, 1, 2, 3, UNKNOWN, UNKNOWN])
    mean, sd = model.reward(features, user)
    draws = torch.randn(400_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for i, u in enumerate(user.tolist()):
        location, spread = (0.0, 1.0) if u == UNKNOWN else (float(model.log_scale[u]), 0.5)
        sample = torch.exp(location + spread * draws) * (features[i] @ model.theta)
        torch.testing.assert_close(mean[i], sample.mean(), rtol=0.02, atol=0)
        torch.testing.assert_close(sd[i], sample.std(), rtol=0.04, atol=0)


def test_position_bias_favours_what_was_shown_first():
    design = make_design(3)
    model = Reliability(
        theta=torch.zeros(3, dtype=torch.float64),
        log_scale=torch.zeros(4, dtype=torch.float64),
        log_scale_sd=torch.zeros(4, dtype=torch.float64),
        spread=0.0,
        lapse=0.0,
        position_bias=1.0,
    )
    design.decisions.position[:] = 1
    np.testing.assert_allclose(model.predict(design).chosen, 1 / (1 + np.exp(-1)))
