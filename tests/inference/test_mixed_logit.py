"""The panel mixed logit: against an integral, against differences, and against three published tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from pluralign.datasets import choice_panels
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.heads import fit_heads
from pluralign.inference.mixed_logit import _normal, _Simulated, fit_mixed_logit


def test_the_simulated_likelihood_is_the_integral_of_the_panel_product(population):
    one = torch.ones(1, dtype=torch.float64)
    design, _ = population(theta=one, basis=one[:, None], n_users=4, n_decisions=6, alternatives=3)
    simulated = _Simulated(design, torch.tensor([True]), _normal(1, 4, 2048, "sobol", 0))
    value, _, _ = simulated.value_and_scores(0.7 * one, 1.3 * one[:, None])
    exact = 0.0
    for user in range(4):
        some = design.take(design.user == user)
        x = some.differences(torch.arange(some.n_rows))[:, 0].numpy().reshape(-1, 2)

        def integrand(e: float, x: np.ndarray = x) -> float:
            p = 1 / (1 + np.exp(-x * (0.7 + 1.3 * e)).sum(1))
            return float(p.prod() * np.exp(-e * e / 2) / np.sqrt(2 * np.pi))

        exact += np.log(quad(integrand, -8, 8)[0])
    assert value == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("alternatives", [2, 4])
def test_scores_are_the_derivatives(population, alternatives):
    theta = torch.tensor([0.5, -0.3, 0.2], dtype=torch.float64)
    root = torch.tensor([[0.8, 0.0, 0.0], [0.0, 0.0, 0.0], [0.4, 0.0, 0.6]], dtype=torch.float64)
    design, _ = population(theta=theta, basis=root, n_users=9, n_decisions=5, alternatives=alternatives, uneven=True)
    varies = torch.tensor([True, False, True])
    simulated = _Simulated(design, varies, _normal(2, 9, 16, "halton", 0))
    _, of_mean, of_root = simulated.value_and_scores(theta, root)
    h = 1e-6
    for i in range(3):
        e = torch.zeros(3, dtype=torch.float64).index_fill(0, torch.tensor(i), h)
        up, down = (simulated.value_and_scores(theta + sign * e, root)[0] for sign in (1, -1))
        assert float(of_mean[:, i].sum()) == pytest.approx((up - down) / 2 / h, abs=1e-5)
    for i, k in ((0, 0), (2, 0), (2, 2)):
        step = torch.zeros_like(root)
        step[i, k] = h
        up, down = (simulated.value_and_scores(theta, root + sign * step)[0] for sign in (1, -1))
        assert float(of_root[:, i, k].sum()) == pytest.approx((up - down) / 2 / h, abs=1e-5)


def test_a_planted_population_is_found_within_its_standard_errors(population):
    theta = torch.tensor([0.8, -0.5], dtype=torch.float64)
    root = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    design, _ = population(theta=theta, basis=root, n_users=250, n_decisions=15)
    fit = fit_mixed_logit(design, correlated=True, n_draws=100)
    assert fit.converged
    assert fit.n_parameters == 5
    assert ((fit.mean - theta) / fit.mean_error).abs().max() < 3.5
    free = torch.ones(2, 2).tril().bool()
    assert ((fit.root - root) / fit.root_error)[free].abs().max() < 3.5
    assert fit.root_error[0, 1].isnan()
    assert 0.02 < float(fit.mean_error.max()) < 0.2


def test_no_random_coefficient_is_the_pooled_logit(population):
    theta = torch.tensor([0.8, -0.5], dtype=torch.float64)
    design, _ = population(theta=theta, basis=torch.zeros(2, 1, dtype=torch.float64), n_users=20, n_decisions=10)
    fit = fit_mixed_logit(design, random=[False, False], n_draws=2)
    pooled = fit_heads(design, ridge=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(fit.mean, pooled.theta[0], atol=1e-4, rtol=0)
    assert fit.log_prob == pytest.approx(float(pooled.log_prob[0]), abs=1e-4)


def test_what_cannot_be_asked_is_said(population):
    theta = torch.zeros(3, dtype=torch.float64)
    design, _ = population(theta=theta, basis=torch.zeros(3, 1, dtype=torch.float64), n_users=3, n_decisions=3)
    with pytest.raises(ConfigError, match="random has 2 flags and there are 3 features"):
        fit_mixed_logit(design, random=[True, False])
    with pytest.raises(ConfigError, match="n_draws is 0"):
        fit_mixed_logit(design, n_draws=0)


def panel(data_dir: Path, name: str) -> Design:
    table = getattr(choice_panels, name)(data_dir / name)
    return Design.of(table, torch.from_numpy(table.items.attributes))


# The numbers are published (each SOURCE.md). Programs differ in their draws: with R draws a user's simulated likelihood
# has a variance of order 1/R, and the sum over 200 to 750 users moves by a few nats from one set to another.
@pytest.mark.data
def test_swissmetro_with_a_normal_time(data_dir: Path):
    fit = fit_mixed_logit(panel(data_dir, "swissmetro"), random=[False, False, False, True], n_draws=200)
    assert fit.log_prob == pytest.approx(-4359.218, abs=5)  # xlogit, 1,500 draws
    assert fit.mean.tolist() == pytest.approx([0.2831, -0.5723, -1.6602, -3.2290], abs=0.08)
    assert float(fit.deviation[3]) == pytest.approx(3.6485, abs=0.1)


@pytest.mark.data
@pytest.mark.parametrize(("correlated", "log_prob", "tolerance"), [(False, -1551.4, 5), (True, -1530.1, 10)])
def test_train_nl_with_three_normals(data_dir: Path, correlated: bool, log_prob: float, tolerance: float):
    random = [False, True, True, True]
    fit = fit_mixed_logit(panel(data_dir, "train_nl"), random=random, correlated=correlated, n_draws=100)
    assert fit.log_prob == pytest.approx(log_prob, abs=tolerance)  # mlogit, 100 Halton draws


@pytest.mark.data
@pytest.mark.study
def test_electricity_with_six_normals(data_dir: Path):
    # xlogit, 600 draws; mlogit's 100 give -3952.5. Between kinds of draws 600 still differ by about 10 nats.
    fit = fit_mixed_logit(panel(data_dir, "electricity"), n_draws=600)
    assert fit.log_prob == pytest.approx(-3888.465, abs=15)
    assert fit.mean.tolist() == pytest.approx([-0.9972, -0.2197, 2.2902, 1.6943, -9.6752, -9.6962], rel=0.1)
    assert fit.deviation.tolist() == pytest.approx([0.2207, 0.4116, 1.7840, 1.2296, 2.2757, 1.4862], rel=0.2)
