"""Individual users: planted shrinkage, none where nobody differs, and the same answer by every route."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pluralign.datasets import choice_panels
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference import gaussian_blocks
from pluralign.inference.adapt import adapt
from pluralign.inference.heads import fit_heads
from pluralign.inference.individual import fit_individual, principal_axes
from pluralign.inference.offset_panel import OffsetPanel
from pluralign.likelihoods import Logit
from pluralign.users import UNKNOWN, Individual, Pooled


def eye(dim: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.eye(dim, dtype=dtype)


def test_a_planted_diagonal_prior_is_found(population):
    scale = torch.tensor([1.0, 0.5, 0.0, 1.5], dtype=torch.float64)
    theta = torch.tensor([0.6, -0.4, 0.8, 0.0], dtype=torch.float64)
    design, _ = population(theta=theta, basis=scale.diag(), n_users=500, n_decisions=30)
    fit = fit_individual(design, ridge=0.0, covariance="diagonal")
    assert fit.converged
    # Laplace shrinks a little at 30 decisions a user; a standard error here is about 0.06.
    found = (fit.model.axes.T * fit.model.scale**2 @ fit.model.axes).diagonal().sqrt()
    torch.testing.assert_close(found, scale, atol=0.2, rtol=0)
    torch.testing.assert_close(fit.model.theta, theta, atol=0.2, rtol=0)
    assert fit.evidence > fit.pooled_evidence + 500


def test_a_planted_covariance_is_found_among_four_alternatives(population):
    root = torch.tensor([[1.2, 0.0, 0.0], [0.9, 0.4, 0.0], [0.0, 0.0, 0.1]], dtype=torch.float64)
    theta = torch.tensor([0.5, 0.0, -0.7], dtype=torch.float64)
    design, _ = population(theta=theta, basis=root, n_users=400, n_decisions=20, alternatives=4)
    fit = fit_individual(design, ridge=0.0, covariance="full")
    found = fit.model.axes.T * fit.model.scale**2 @ fit.model.axes
    torch.testing.assert_close(found, root @ root.T, atol=0.3, rtol=0)
    torch.testing.assert_close(fit.model.theta, theta, atol=0.2, rtol=0)


@pytest.mark.parametrize("dim", [4, 40])
def test_nobody_differs_and_tau_is_almost_nothing(population, dim):
    theta = torch.linspace(-0.5, 0.5, dim, dtype=torch.float64)
    design, _ = population(theta=theta, basis=0 * eye(dim)[:, :1], n_users=150, n_decisions=20)
    fit = fit_individual(design, ridge=1.0, covariance="isotropic")
    margin_sd = float(fit.model.scale.max()) * (2 * dim) ** 0.5
    assert margin_sd < 0.4, "a taste this weak moves a probability by 0.1 at most"
    assert fit.evidence >= fit.pooled_evidence - 1e-6


@pytest.mark.parametrize("alternatives", [2, 3])
def test_a_planted_tau_is_found_in_high_dimension(population, alternatives):
    # With fewer decisions than features Laplace sees too little: 30 decisions here would give tau near 0.12.
    dim, tau = 40, 0.25
    theta = torch.linspace(-0.4, 0.4, dim, dtype=torch.float64)
    design, w = population(
        theta=theta, basis=tau * eye(dim), n_users=30, n_decisions=120, alternatives=alternatives, uneven=True
    )
    fit = fit_individual(design, ridge=0.1)
    assert float(fit.model.scale[0]) == pytest.approx(tau, rel=0.25)
    correlation = torch.corrcoef(torch.stack([fit.model.offset.flatten(), (tau * w).flatten()]))[0, 1]
    assert correlation > 0.4
    assert fit.model.covariance.shape == (30, dim)
    assert (fit.model.covariance < tau**2 * 1.6).all()


def test_high_and_low_dimensions_meet(population, monkeypatch):
    # The same isotropic problem by the grid over duals and primals and by the gradient of the evidence.
    monkeypatch.setattr(gaussian_blocks, "SMALL_BLOCK", 0)  # so few users are one block otherwise, all of it primal
    dim = 6
    design, _ = population(
        theta=torch.ones(dim, dtype=torch.float64) / 2, basis=0.8 * eye(dim), n_users=80, n_decisions=8, uneven=True
    )
    theta = fit_heads(design, ridge=torch.ones(1, dtype=torch.float64)).theta[0]
    panel = OffsetPanel(design, Logit())
    assert len({panel._primal(block) for block in panel.blocks}) == 2, "users on both sides of rows = features"
    settled, converged = panel.settle(theta, 0.7, 1.0, 100)
    low = fit_individual(design, ridge=1.0, tau=0.7)
    assert converged
    # theta differs by the evidence's log-determinant, which the joint mode leaves out.
    torch.testing.assert_close(settled, low.model.theta, atol=0.2, rtol=0)
    high = panel.model(low.model.theta, 0.7, principal_axes(design, theta, Logit()))
    torch.testing.assert_close(high.offset, low.model.offset, atol=1e-4, rtol=0)
    whole = low.model.axes.T @ low.model.covariance @ low.model.axes
    torch.testing.assert_close(
        high.covariance, (high.axes @ whole @ high.axes.T).diagonal(dim1=1, dim2=2), atol=1e-5, rtol=0
    )
    assert panel.solve(low.model.theta, 0.7)[0] == pytest.approx(low.evidence, abs=1e-4)


def test_in_the_span_of_few_items_nothing_changes(population, monkeypatch):
    dim = 40
    design, _ = population(
        theta=torch.ones(dim, dtype=torch.float64) / 4, basis=0.5 * eye(dim), n_users=30, n_decisions=9
    )
    design = replace(design, chosen=design.chosen % 12, rejected=12 + design.rejected % 12)
    theta = torch.linspace(-0.3, 0.3, dim, dtype=torch.float64)
    axes = principal_axes(design, theta, Logit())
    narrow = OffsetPanel(design, Logit())
    assert narrow.narrow.dim == 24
    monkeypatch.setattr(OffsetPanel, "span", None)
    whole = OffsetPanel(design, Logit())
    one, two = narrow.model(theta, 0.6, axes), whole.model(theta, 0.6, axes)
    torch.testing.assert_close(one.offset, two.offset, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.covariance, two.covariance, atol=1e-6, rtol=0)


def test_steps_with_a_kept_factor_reach_the_same_mode(population):
    dim = 40
    design, _ = population(
        theta=torch.ones(dim, dtype=torch.float64) / 4, basis=0.5 * eye(dim), n_users=30, n_decisions=9
    )
    theta = torch.linspace(-0.3, 0.3, dim, dtype=torch.float64)
    panel = OffsetPanel(design, Logit())
    panel.solve(theta, 0.6)
    kept, fresh = panel.solve(1.5 * theta, 0.6, exact=False), OffsetPanel(design, Logit()).solve(1.5 * theta, 0.6)
    assert kept[1] == pytest.approx(fresh[1], abs=1e-8)
    torch.testing.assert_close(kept[2], fresh[2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dim", [5, 40])
def test_adapting_the_same_rows_gives_the_fitted_users_back(population, dim):
    design, _ = population(
        theta=torch.ones(dim, dtype=torch.float64) / 4, basis=0.5 * eye(dim), n_users=40, n_decisions=10
    )
    fit = fit_individual(design, tau=0.5) if dim > 32 else fit_individual(design)
    again = adapt(fit.model, design)
    assert isinstance(again, Individual)
    torch.testing.assert_close(again.offset, fit.model.offset, atol=1e-4, rtol=0)
    torch.testing.assert_close(again.covariance, fit.model.covariance, atol=1e-4, rtol=0)
    nobody = adapt(fit.model, design.take(torch.zeros(design.n_decisions, dtype=torch.bool)))
    mean, sd = nobody.reward(design.features[:6], torch.arange(6))
    prior_mean, prior_sd = fit.model.reward(design.features[:6], torch.full((6,), UNKNOWN))
    torch.testing.assert_close(mean, prior_mean)
    torch.testing.assert_close(sd, prior_sd)


def test_what_cannot_be_asked_is_said(population):
    design, _ = population(theta=torch.zeros(40), basis=torch.zeros(40, 1), n_users=3, n_decisions=3)
    with pytest.raises(ConfigError, match=r'covariance "full" was asked of 40 features and tau = None'):
        fit_individual(design, covariance="full")
    with pytest.raises(ConfigError, match=r"tau is -1.0; it must be at least 0"):
        fit_individual(design, tau=-1.0)


# Held-out last quarter of everybody's choices: the accuracy and log loss of the per-person MAP beside the data
# (SOURCE.md), which the hierarchical fit must reach.
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "accuracy", "log_loss"),
    [
        ("electricity", "electricity", 0.633, 0.886),
        ("swissmetro", "swissmetro", 0.795, 0.597),
        ("train_nl", "train_nl", 0.676, 0.602),
        ("swiss", "swiss_route_choice", 0.808, 0.452),
    ],
)
def test_real_panels_are_predicted_at_least_as_well_as_by_the_simple_baseline(
    data_dir: Path, name: str, folder: str, accuracy: float, log_loss: float
):
    table = getattr(choice_panels, name)(data_dir / folder)
    design = Design.of(table, torch.from_numpy(table.items.attributes))
    user = design.user.numpy()
    order, size = np.argsort(user, kind="stable"), np.bincount(user)
    place = np.empty_like(user)
    place[order] = np.arange(len(user)) - np.repeat(np.cumsum(size) - size, size)
    test = torch.from_numpy(place >= size[user] - size[user] // 4)
    train, held_out = design.take(~test), design.take(test)
    pooled = fit_heads(train, ridge=torch.full((1,), 1e-3, dtype=torch.float64)).theta[0]
    alone = Pooled(theta=pooled, n_users=design.n_users).predict(held_out)
    predicted = fit_individual(train, ridge=1e-3, start=pooled).model.predict(held_out)
    assert np.nanmean(predicted.correct) >= accuracy
    assert -predicted.log_prob.mean() <= log_loss
    assert -alone.log_prob.mean() > log_loss + 0.02, "and the pooled model must not"
