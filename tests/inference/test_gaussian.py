"""The machinery under `basis` and `individual`: modes, evidence and its gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from pluralign.inference.gaussian_blocks import solve_dual, solve_primal, user_blocks
from pluralign.inference.gaussian_evidence import _Evidence, curvature_sample, posterior
from pluralign.likelihoods import Logit

THETA = torch.tensor([0.5, -0.3, 0.2, 0.0, 0.1], dtype=torch.float64)
BASIS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, -1.0], [0.3, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("alternatives", [2, 4])
def test_the_root_of_the_curvature_squares_to_minus_the_second_derivative(population, alternatives):
    design, _ = population(theta=THETA, basis=BASIS, n_users=3, n_decisions=4, alternatives=alternatives)
    design = replace(design, weight=torch.linspace(0.5, 2, design.n_decisions, dtype=torch.float64))
    (block,) = user_blocks(design, lambda width: 1)
    margin = torch.linspace(-1, 2, design.n_rows, dtype=torch.float64)
    exact = torch.autograd.functional.hessian(lambda m: block.log_prob(m, Logit()).sum(), margin)
    curvature = block.curvature(margin, Logit())
    eye = torch.eye(design.n_rows, dtype=torch.float64)
    torch.testing.assert_close(curvature.times(eye), -exact)
    torch.testing.assert_close(curvature.unhalf(eye), curvature.half(eye).T)
    slope = torch.autograd.functional.jacobian(lambda m: block.log_prob(m, Logit()).sum(), margin)
    torch.testing.assert_close(block.slope(margin, Logit()), slope)


@pytest.mark.parametrize("alternatives", [2, 3])
def test_dual_and_primal_are_one_posterior(population, alternatives):
    design, _ = population(theta=THETA, basis=BASIS, n_users=12, n_decisions=6, alternatives=alternatives, uneven=True)
    tau = 0.7
    seen = 0
    for block in user_blocks(design, lambda width: 40, block_floats=160):
        rows = design.differences(block.rows)
        base = rows @ THETA
        padded = block.pad(rows)
        dual = solve_dual(block, padded @ padded.mT, base, tau, base.new_zeros(block.count, block.width), Logit())
        primal = solve_primal(block, rows, base, base.new_full((5,), tau**-2), base.new_zeros(block.count, 5), Logit())
        torch.testing.assert_close(tau**2 * (padded.mT @ dual.alpha[..., None])[..., 0], primal.mode, atol=1e-6, rtol=0)
        torch.testing.assert_close(dual.evidence, primal.evidence)
        seen += block.count
    assert seen == 12


def test_the_evidence_of_one_dimension_is_close_to_the_integral(population):
    # Laplace is exact as the rows grow; at these 30 its error is a few thousandths of a nat.
    one = torch.ones(1, dtype=torch.float64)
    design, _ = population(theta=0.4 * one, basis=0.8 * one[:, None], n_users=3, n_decisions=30)
    found = posterior(design, 0.4 * one, 0.8 * one[:, None], Logit())
    for user in range(3):
        x = design.differences(torch.arange(design.n_rows)[design.user == user])[:, 0]

        def density(w: float, x: torch.Tensor = x) -> float:
            return float(torch.nn.functional.logsigmoid(x * (0.4 + 0.8 * w)).sum()) - w * w / 2 - np.log(2 * np.pi) / 2

        top = density(float(found.mean[user]))
        exact = top + np.log(quad(lambda w, top=top, density=density: np.exp(density(w) - top), -8, 8)[0])
        assert float(found.evidence[user]) == pytest.approx(exact, abs=0.02)
        h = 1e-4
        for sign in (-1, 1):
            assert density(float(found.mean[user]) + sign * h) < top
        second = (density(float(found.mean[user]) + 1e-3) - 2 * top + density(float(found.mean[user]) - 1e-3)) / 1e-6
        assert float(found.covariance[user]) == pytest.approx(-1 / second, rel=1e-4)


@pytest.mark.parametrize("alternatives", [2, 4])
def test_the_gradient_of_the_evidence_is_exact(population, alternatives):
    design, _ = population(theta=THETA, basis=BASIS, n_users=10, n_decisions=5, alternatives=alternatives, uneven=True)
    design = replace(design, weight=torch.linspace(0.5, 2, design.n_decisions, dtype=torch.float64))
    _, of_theta, of_basis = _Evidence(design, 2, Logit()).value_and_gradient(THETA, BASIS)
    h = 1e-4

    def value(theta: torch.Tensor, basis: torch.Tensor) -> float:
        return float(posterior(design, theta, basis, Logit()).evidence.sum())

    for i in range(5):
        e = torch.zeros(5, dtype=torch.float64).index_fill(0, torch.tensor(i), h)
        assert float(of_theta[i]) == pytest.approx(
            (value(THETA + e, BASIS) - value(THETA - e, BASIS)) / 2 / h, abs=1e-4
        )
        for k in range(2):
            f = torch.zeros_like(BASIS)
            f[i, k] = h
            slope = (value(THETA, BASIS + f) - value(THETA, BASIS - f)) / 2 / h
            assert float(of_basis[i, k]) == pytest.approx(slope, abs=1e-4)


def test_users_without_rows_are_the_prior_and_renaming_users_renames_posteriors(population):
    design, _ = population(theta=THETA, basis=BASIS, n_users=8, n_decisions=7, uneven=True)
    wider = replace(design, n_users=10)
    found = posterior(wider, THETA, BASIS, Logit())
    assert torch.equal(found.mean[8:], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(found.covariance[8:], torch.eye(2, dtype=torch.float64).expand(2, 2, 2))
    order = torch.tensor([9, 3, 5, 0, 1, 8, 2, 7, 4, 6])
    renamed = posterior(replace(wider, user=order[wider.user]), THETA, BASIS, Logit())
    torch.testing.assert_close(renamed.mean[order], found.mean)
    torch.testing.assert_close(renamed.covariance[order], found.covariance)
    torch.testing.assert_close(renamed.evidence[order], found.evidence)


def test_blocks_hold_every_row_once_and_waste_little(population):
    design, _ = population(theta=THETA, basis=BASIS, n_users=60, n_decisions=9, alternatives=3, uneven=True)
    blocks = user_blocks(design, lambda width: width, block_floats=100)
    assert torch.equal(torch.cat([b.rows for b in blocks]).sort().values, torch.arange(design.n_rows))
    assert torch.equal(torch.cat([b.user for b in blocks]).sort().values, torch.arange(60))
    for block in blocks:
        assert block.count == 1 or block.count * block.width <= 100
        assert block.rows.numel() >= block.count * block.width / 1.5
        assert torch.equal(block.flat(block.pad(block.rows.double())), block.rows.double())
        assert torch.equal(design.user[design.decisions.index[block.rows]], block.user[block.owner])


def test_a_sample_of_all_decisions_is_the_information(population):
    design, _ = population(theta=THETA, basis=BASIS, n_users=20, n_decisions=10, alternatives=3)
    exact = torch.autograd.functional.hessian(
        lambda t: -(design.weight * Logit().log_prob(design.margins(t[None]), design.decisions)[:, 0]).sum(), THETA
    )
    torch.testing.assert_close(curvature_sample(design, THETA, Logit()), exact)
