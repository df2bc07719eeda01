from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.gaussian_evidence import _factor
from pluralign.inference.heads import fit_heads
from pluralign.inference.lbfgs import Preconditioner
from pluralign.likelihoods import Decisions, Logit


def make_design(
    n_decisions: int,
    dim: int,
    n_items: int,
    *,
    seed: int = 0,
    alternatives: int = 2,
    dtype: torch.dtype = torch.float64,
) -> Design:
    """Choices of the first of `alternatives` random items, planted by a random theta."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(n_items, dim, generator=g, dtype=dtype) * torch.arange(1, dim + 1, dtype=dtype) ** -0.5
    item = torch.stack([torch.randperm(n_items, generator=g)[:alternatives] for _ in range(n_decisions)])
    reward = features @ torch.randn(dim, generator=g, dtype=dtype)
    noise = -(-torch.rand(item.shape, generator=g, dtype=dtype).log()).log()
    best = (reward[item] + noise).argmax(1, keepdim=True)
    others = item[torch.ones_like(item, dtype=torch.bool).scatter_(1, best, False)].reshape(n_decisions, -1)
    rows = n_decisions * (alternatives - 1)
    return Design(
        features=features,
        chosen=item.gather(1, best).expand_as(others).reshape(-1),
        rejected=others.reshape(-1),
        decisions=Decisions(
            index=torch.arange(n_decisions).repeat_interleave(alternatives - 1),
            outcome=torch.ones(rows, dtype=dtype),
            position=torch.zeros(rows, dtype=dtype),
        ),
        user=torch.randint(0, 20, (n_decisions,), generator=g),
        weight=torch.rand(n_decisions, generator=g, dtype=dtype) + 0.5,
        source=torch.arange(n_decisions),
        n_users=20,
    )


def wins_design(wins: list[tuple[int, int]], n_items: int) -> Design:
    """Items without features: their indicators."""
    n = len(wins)
    chosen, rejected = torch.tensor(wins).T
    return Design(
        features=torch.eye(n_items, dtype=torch.float64),
        chosen=chosen,
        rejected=rejected,
        decisions=Decisions(
            index=torch.arange(n),
            outcome=torch.ones(n, dtype=torch.float64),
            position=torch.zeros(n, dtype=torch.float64),
        ),
        user=torch.zeros(n, dtype=torch.int64),
        weight=torch.ones(n, dtype=torch.float64),
        source=torch.arange(n),
        n_users=1,
    )


def gradient(design: Design, theta: torch.Tensor, ridge: torch.Tensor, group_weight: torch.Tensor) -> torch.Tensor:
    """Gradient of the summed objective by autograd, with nothing shared with the solver but `Design.differences`."""
    theta = theta.clone().requires_grad_(True)
    margin = design.differences(torch.arange(design.n_rows)) @ theta.T
    weight = design.weight[:, None] * group_weight[design.user]
    value = (weight * Logit().log_prob(margin, design.decisions)).sum() - (ridge * theta.square().sum(1)).sum() / 2
    return torch.autograd.grad(value, theta)[0]


def test_worths_are_what_choix_says():
    fit = fit_heads(wins_design([(0, 1), (0, 1), (1, 2), (2, 0)], 3), ridge=torch.zeros(1, dtype=torch.float64))
    worth = fit.theta[0] - fit.theta[0].mean()
    expected = torch.tensor([0.41961762, -0.41961762, 0.0], dtype=torch.float64)  # choix 0.4.1, ilsr_pairwise
    torch.testing.assert_close(worth, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("dim", [5, 120])
def test_one_head_is_the_optimum_of_sklearn(dim):
    design = make_design(800, dim, 300)
    x = design.differences(torch.arange(800)).numpy()
    peer = LogisticRegression(C=1 / 3.0, fit_intercept=False, tol=1e-10, max_iter=5000, solver="newton-cholesky")
    sign = np.where(np.arange(800) % 2, 1, -1)
    peer.fit(x * sign[:, None], sign, sample_weight=design.weight.numpy())
    fit = fit_heads(design, ridge=torch.tensor([3.0], dtype=torch.float64), tolerance=1e-8)
    assert fit.converged.all()
    np.testing.assert_allclose(fit.theta[0].numpy(), peer.coef_[0], atol=3e-6)


@pytest.mark.parametrize("dim", [7, 110])
@pytest.mark.parametrize("alternatives", [2, 4])
def test_the_gradient_is_zero_at_every_head(dim, alternatives):
    design = make_design(600, dim, 200, alternatives=alternatives)
    ridge = torch.tensor([0.5, 5.0, 50.0], dtype=torch.float64)
    group_weight = torch.rand(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fit = fit_heads(design, ridge=ridge, group_weight=group_weight, tolerance=1e-7)
    assert fit.converged.all()
    assert gradient(design, fit.theta, ridge, group_weight).abs().max() < 600 * 1e-7


def test_newton_and_lbfgs_agree(monkeypatch):
    design = make_design(500, 9, 100, alternatives=3)
    ridge = torch.tensor([0.0, 2.0], dtype=torch.float64)
    newton = fit_heads(design, ridge=ridge)
    monkeypatch.setattr("pluralign.inference.heads._EXACT_WORK", 0)
    lbfgs = fit_heads(design, ridge=ridge)
    assert lbfgs.passes > newton.passes
    torch.testing.assert_close(lbfgs.theta, newton.theta, atol=1e-7, rtol=0)
    torch.testing.assert_close(lbfgs.log_prob, newton.log_prob, atol=1e-7, rtol=0)


@pytest.mark.parametrize("dim", [6, 128])
def test_stacked_heads_are_as_many_separate_fits(dim):
    design = make_design(700, dim, 200)
    g = torch.Generator().manual_seed(2)
    ridge = torch.tensor([1.0, 30.0, 1e4, 1.0, 1.0, 0.3, 2.0, 9.0, 1.0, 1.0], dtype=torch.float64)
    group_weight = torch.rand(20, 10, generator=g, dtype=torch.float64)
    center = torch.randn(10, dim, generator=g, dtype=torch.float64)
    together = fit_heads(design, ridge=ridge, group_weight=group_weight, center=center, tolerance=1e-9)
    for k in range(10):
        alone = fit_heads(
            design, ridge=ridge[[k]], group_weight=group_weight[:, [k]], center=center[[k]], tolerance=1e-9
        )
        torch.testing.assert_close(together.theta[k], alone.theta[0], atol=1e-6, rtol=0)


def test_blocks_of_heads_and_rows_change_nothing(monkeypatch):
    design = make_design(500, 101, 60, alternatives=3)
    ridge = torch.linspace(1, 5, 20, dtype=torch.float64)
    whole = fit_heads(design, ridge=ridge, tolerance=1e-9)
    monkeypatch.setattr("pluralign.inference.heads._ROOM", 1)
    monkeypatch.setattr("pluralign.inference.stack._BLOCK", 1)
    torch.testing.assert_close(fit_heads(design, ridge=ridge, tolerance=1e-9).theta, whole.theta, atol=1e-6, rtol=0)


def test_folds_as_heads_are_fits_of_the_subsets():
    design = make_design(300, 110, 1000, dtype=torch.float32)  # many more items than a subset uses
    fold = torch.arange(300) % 3
    ridge = torch.full((3,), 2.0)
    stacked = fit_heads(design, ridge=ridge, group=fold, group_weight=1 - torch.eye(3), tolerance=1e-6)
    for k in range(3):
        alone = fit_heads(design.take(fold != k), ridge=ridge[:1], tolerance=1e-6)
        torch.testing.assert_close(stacked.theta[k], alone.theta[0], atol=2e-4, rtol=0)


def test_a_head_without_rows_stays_at_its_center():
    for dim in (5, 130):
        design = make_design(50, dim, 40)
        group_weight = torch.zeros(20, 2, dtype=torch.float64)
        group_weight[:, 0] = 1
        center = torch.ones(2, dim, dtype=torch.float64)
        fit = fit_heads(design, ridge=torch.ones(2, dtype=torch.float64), group_weight=group_weight, center=center)
        torch.testing.assert_close(fit.theta[1], center[1])
        assert fit.converged.all()


def test_wide_features_in_float32_converge():
    design = make_design(2000, 150, 500, dtype=torch.float32)
    fit = fit_heads(design.with_features(design.features * 100), ridge=torch.tensor([1e4]))
    assert fit.converged.all()
    assert fit.theta.dtype == torch.float32


def test_a_row_that_outweighs_the_others_leaves_the_gram_matrix_a_precondition():
    # In float32 the rounding of the one row's part of the Gram matrix is above what a small precision adds.
    design = make_design(8, 150, 16, dtype=torch.float32)
    design = replace(design, weight=torch.tensor([1e6] + [1e-3] * 7))
    assert torch.isfinite(fit_heads(design, ridge=torch.tensor([1e-3])).theta).all()


def test_a_negative_ridge_is_named():
    with pytest.raises(ConfigError, match="ridge is -1; a prior precision is at least 0"):
        fit_heads(make_design(10, 3, 10), ridge=torch.tensor([2.0, -1.0], dtype=torch.float64))


def test_what_is_no_number_is_not_taken_for_rounding():
    gram = torch.full((3, 3), torch.nan, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError):
        Preconditioner(gram).inverse(0)
    with pytest.raises(torch.linalg.LinAlgError):
        _factor(gram, torch.tensor(1e-6, dtype=torch.float64))
