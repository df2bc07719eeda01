import numpy as np
import pytest
import torch

from pluralign.features import Design
from pluralign.inference.pooled import fit_pooled
from pluralign.inference.reliability import (
    _maximise,
    _Numbers,
    _slopes,
    _spline,
    _tabulate,
    fit_reliability,
    place_reliability,
)
from pluralign.likelihoods import Decisions


def make_population(
    *,
    n_users: int,
    each: int,
    spread: float,
    lapse: float = 0.0,
    bias: float = 0.0,
    alternatives: int = 2,
    seed: int = 0,
) -> tuple[Design, torch.Tensor, torch.Tensor]:
    """Users of one taste in 4 dimensions: the design, the taste and every user's log reliability."""
    g = torch.Generator().manual_seed(seed)
    n = n_users * each
    features = torch.randn(n * alternatives, 4, generator=g, dtype=torch.float64)
    theta = torch.tensor([1.5, -1.0, 0.5, 0.0], dtype=torch.float64)
    log_scale = spread * torch.randn(n_users, generator=g, dtype=torch.float64)
    log_scale = log_scale - log_scale.mean()
    user = torch.arange(n) % n_users
    item = torch.arange(n * alternatives).reshape(n, alternatives)
    reward = (features @ theta)[item] * log_scale.exp()[user][:, None]
    shown_first = torch.where(torch.rand(n, generator=g) < 0.5, 1.0, -1.0).double()  # is column 0 shown first?
    if alternatives == 2:
        reward[:, 0] += bias * shown_first
    noise = -(-torch.rand(n, alternatives, generator=g, dtype=torch.float64).log()).log()
    best = (reward + noise).argmax(1)
    careless = torch.rand(n, generator=g) < lapse
    best = torch.where(careless, torch.randint(0, alternatives, (n,), generator=g), best)
    others = item[torch.ones_like(item, dtype=torch.bool).scatter_(1, best[:, None], False)]
    rows = n * (alternatives - 1)
    position = torch.where(best == 0, shown_first, -shown_first) if alternatives == 2 else torch.zeros(rows).double()
    design = Design(
        features=features,
        chosen=item.gather(1, best[:, None]).expand(n, alternatives - 1).reshape(-1),
        rejected=others,
        decisions=Decisions(
            index=torch.arange(n).repeat_interleave(alternatives - 1),
            outcome=torch.ones(rows, dtype=torch.float64),
            position=position if bias else torch.zeros(rows, dtype=torch.float64),
        ),
        user=user,
        weight=torch.ones(n, dtype=torch.float64),
        source=torch.arange(n),
        n_users=n_users,
    )
    return design, theta, log_scale


@pytest.mark.parametrize("alternatives", [2, 4])
def test_reliabilities_planted_are_found(alternatives):
    design, theta, log_scale = make_population(n_users=30, each=60, spread=0.8, alternatives=alternatives)
    model, report = fit_reliability(design, ridge=0.0)
    assert report.converged
    assert np.corrcoef(model.log_scale.numpy(), log_scale.numpy())[0, 1] > 0.9
    assert 0.55 < model.spread < 1.05
    assert torch.nn.functional.cosine_similarity(model.theta, theta, dim=0) > 0.995
    assert report.log_prob > fit_pooled(design, ridge=0.0)[1].log_prob + 50


def test_users_who_are_alike_have_no_spread_and_the_pooled_reward():
    design, _, _ = make_population(n_users=30, each=60, spread=0.0)
    model, _ = fit_reliability(design, ridge=0.0)
    pooled, _ = fit_pooled(design, ridge=0.0)
    assert model.spread < 0.12
    assert model.lapse < 0.02
    torch.testing.assert_close(model.theta, pooled.theta, rtol=0.1, atol=0.02)


def test_lapses_and_position_bias_planted_are_found():
    design, _, _ = make_population(n_users=30, each=100, spread=0.3, lapse=0.15, bias=0.7)
    model, _ = fit_reliability(design, ridge=0.0)
    assert model.lapse == pytest.approx(0.15, abs=0.04)
    assert model.position_bias == pytest.approx(0.7, abs=0.15)
    assert model.n_parameters == 4 + 3


@pytest.mark.parametrize("alternatives", [2, 3])
def test_the_slopes_of_the_table_are_its_finite_differences(alternatives):
    design, theta, _ = make_population(n_users=5, each=12, spread=0.5, lapse=0.1, bias=0.5, alternatives=alternatives)
    if alternatives == 2:
        design.decisions.outcome[::3] = 0.3
    margin = design.margins(theta[None])[:, 0]
    node = torch.linspace(-1, 1, 5, dtype=torch.float64)
    share = torch.rand(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    at = np.array([0.2, 0.4, -3.0, 0.0])
    exact = _slopes(design, margin, node, at, share)
    for i in range(3):
        step = np.zeros(4)
        step[i] = 1e-6
        ends = [float((share * _tabulate(design, margin, node, at + sign * step)).sum()) for sign in (1, -1)]
        assert exact[i] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_the_integral_over_reliability_is_what_brute_force_gives():
    design, theta, _ = make_population(n_users=20, each=30, spread=0.7)
    margin = design.margins(theta[None])[:, 0]
    found, value, mean, sd = _maximise(design, margin, _Numbers(), False)
    a = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    scaled = margin[:, None] * torch.exp(a + found.log_factor)
    log_prob = torch.log((1 - found.lapse) * torch.sigmoid(scaled) + found.lapse / 2)
    by_user = torch.zeros(20, 4001, dtype=torch.float64).index_add_(0, design.user, log_prob)
    joint = by_user + torch.log_softmax(-(a**2) / 2 / found.spread**2, 0)
    assert value == pytest.approx(float(joint.logsumexp(1).sum()), abs=2e-3)
    share = joint.softmax(1)
    torch.testing.assert_close(mean, share @ a, atol=2e-3, rtol=0)
    torch.testing.assert_close(sd, (share @ a**2 - (share @ a) ** 2).sqrt(), atol=2e-3, rtol=0)


def test_the_spline_reproduces_a_cubic():
    coarse, fine = np.linspace(-3, 3, 25), np.linspace(-3, 3, 241)
    np.testing.assert_allclose(_spline() @ (coarse**3 - coarse), fine**3 - fine, atol=1e-10)


def test_placing_the_users_it_was_fitted_to_changes_little_and_nobody_has_the_prior():
    # Fitted, a user's margins come from thetas that did not see them; placed, from the final one.
    design, _, _ = make_population(n_users=40, each=60, spread=0.8, seed=3)
    model, _ = fit_reliability(design, ridge=1.0)
    placed = place_reliability(model, design)
    torch.testing.assert_close(placed.log_scale, model.log_scale, atol=0.1, rtol=0)
    nobody = place_reliability(model, design.take(torch.zeros(design.n_decisions, dtype=torch.bool)))
    assert nobody.log_scale.tolist() == [0.0] * 40
    assert nobody.log_scale_sd.tolist() == pytest.approx([model.spread] * 40)
