"""A planted basis is found, its rank is chosen, and nothing is found where there is nothing."""

from dataclasses import replace

import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.inference.adapt import adapt
from pluralign.inference.basis import fit_basis, score_directions
from pluralign.inference.folds import folds_by_source
from pluralign.inference.gaussian_choice import choose_rank, choose_tau
from pluralign.inference.gaussian_evidence import posterior
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Logit
from pluralign.users import Basis

DIM = 10
THETA = torch.linspace(-0.5, 0.5, DIM, dtype=torch.float64)
PLANTED = torch.zeros(DIM, 2, dtype=torch.float64)
PLANTED[:3, 0] = torch.tensor([1.2, -0.8, 0.6])
PLANTED[5:8, 1] = torch.tensor([0.7, 0.7, -0.5])


def share_of_planted(found: torch.Tensor, planted: torch.Tensor) -> float:
    """Smallest cosine of a principal angle between two column spaces: 1 where they are the same."""
    return float(torch.linalg.svdvals(torch.linalg.qr(found).Q.T @ torch.linalg.qr(planted).Q).min())


@pytest.mark.parametrize("alternatives", [2, 4])
def test_planted_directions_are_found(population, alternatives):
    design, w = population(theta=THETA, basis=PLANTED, n_users=300, n_decisions=25, alternatives=alternatives)
    fit = fit_basis(design, 2, ridge=0.1)
    assert fit.converged
    assert share_of_planted(fit.model.basis, PLANTED) > 0.95
    # V V' is the prior covariance; rotations of V leave it alone.
    torch.testing.assert_close(fit.model.basis @ fit.model.basis.T, PLANTED @ PLANTED.T, atol=0.45, rtol=0)
    torch.testing.assert_close(fit.model.theta, THETA, atol=0.25, rtol=0)
    taste, truth = fit.model.mean @ fit.model.basis.T, w @ PLANTED.T
    assert torch.corrcoef(torch.stack([taste.flatten(), truth.flatten()]))[0, 1] > 0.8
    # Sorted, and each direction earns its place.
    assert fit.strength[0] > fit.strength[1] > 0.5
    theta, basis = fit.model.theta, fit.model.basis
    up_to = [float(posterior(design, theta, basis[:, :rank], Logit()).evidence.sum()) for rank in range(3)]
    assert up_to[0] < up_to[1] < up_to[2]
    assert up_to[2] == pytest.approx(fit.evidence, abs=1e-3)
    assert fit.evidence > fit.pooled_evidence + 100


def test_the_scores_alone_point_at_the_basis(population):
    design, _ = population(theta=THETA, basis=PLANTED, n_users=300, n_decisions=25)
    theta = fit_heads(design, ridge=torch.ones(1, dtype=torch.float64)).theta[0]
    assert share_of_planted(score_directions(design, theta, 2, Logit()), PLANTED) > 0.85


def test_a_surplus_direction_shrinks(population):
    design, _ = population(theta=THETA, basis=PLANTED[:, :1], n_users=200, n_decisions=25)
    fit = fit_basis(design, 2, ridge=0.1)
    assert fit.strength[0] > 1.5
    assert fit.strength[1] < 0.5


def test_rank_zero_is_the_pooled_model(population):
    design, _ = population(theta=THETA, basis=PLANTED, n_users=20, n_decisions=10)
    fit = fit_basis(design, 0)
    torch.testing.assert_close(
        fit.model.theta, fit_heads(design, ridge=torch.ones(1, dtype=torch.float64)).theta[0], atol=1e-6, rtol=0
    )
    assert fit.evidence == fit.pooled_evidence
    assert fit.model.mean.shape == (20, 0)


def test_the_planted_rank_is_chosen_and_no_rank_where_nobody_differs(population):
    design, _ = population(theta=THETA, basis=PLANTED, n_users=80, n_decisions=15)
    choice = choose_rank(design, (0, 1, 2), ridge=0.5, folds=folds_by_source(design, 2, seed=0))
    assert choice.chosen == 2
    assert choice.log_prob[2] > choice.log_prob[1] > choice.log_prob[0]
    alike, _ = population(theta=THETA, basis=0 * PLANTED, n_users=80, n_decisions=15)
    assert choose_rank(alike, (0, 1), ridge=0.5, folds=folds_by_source(alike, 2, seed=0)).chosen == 0


def test_tau_is_chosen_by_prediction(population):
    design, _ = population(theta=THETA, basis=torch.eye(DIM, dtype=torch.float64) / 2, n_users=80, n_decisions=25)
    choice = choose_tau(design, (0.0, 0.1, 0.4, 3.0))
    assert choice.best == choice.chosen == 0.4
    alike, _ = population(theta=THETA, basis=0 * PLANTED, n_users=80, n_decisions=25)
    assert choose_tau(alike, (0.0, 0.1, 0.4, 3.0)).chosen == 0.0


def test_adapting_the_same_rows_gives_the_fitted_users_back(population):
    design, _ = population(theta=THETA.float(), basis=PLANTED.float(), n_users=50, n_decisions=12)
    fit = fit_basis(design, 2)
    again = adapt(fit.model, design)
    assert isinstance(again, Basis)
    torch.testing.assert_close(again.mean, fit.model.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.covariance, fit.model.covariance, atol=1e-5, rtol=0)
    nobody = adapt(fit.model, design.take(torch.zeros(design.n_decisions, dtype=torch.bool)))
    assert torch.equal(nobody.mean, torch.zeros(50, 2))
    torch.testing.assert_close(nobody.covariance, torch.eye(2).expand(50, 2, 2))


def test_a_row_that_outweighs_the_others_can_be_fitted(population):
    # In float32 the rounding of the one row's curvature is above the lift of its diagonal.
    design, _ = population(theta=torch.ones(150) / 10, basis=torch.zeros(150, 1), n_users=5, n_decisions=3)
    design = replace(design, weight=torch.tensor([1e6] + [1e-3] * 14))
    assert torch.isfinite(fit_basis(design, 1, ridge=1e-3).model.theta).all()


def test_what_cannot_be_asked_is_said(population):
    design, _ = population(theta=THETA, basis=PLANTED, n_users=3, n_decisions=3)
    with pytest.raises(ConfigError, match=r"rank is 11; it must be from 0 to the number of features, 10"):
        fit_basis(design, 11)
    with pytest.raises(ConfigError, match=r"ranks are \(1, 2\); they must ascend from 0"):
        choose_rank(design, (1, 2))
    with pytest.raises(ConfigError, match=r"taus are \(0.0, 2.0, 1.0\); they must ascend from 0"):
        choose_tau(design, (0.0, 2.0, 1.0))
