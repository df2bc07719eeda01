from dataclasses import replace

import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.disjoint import fit_disjoint
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Decisions, Logit, Thurstone


def make_design(dim: int, *, alternatives: int) -> Design:
    """Users with 0, 3, 15 and 42 decisions, shuffled."""
    g = torch.Generator().manual_seed(0)
    user = torch.arange(1, 4).repeat_interleave(torch.tensor([3, 15, 42]))[torch.randperm(60, generator=g)]
    item = torch.stack([torch.randperm(50, generator=g)[:alternatives] for _ in range(60)])
    rows = 60 * (alternatives - 1)
    return Design(
        features=torch.randn(50, dim, generator=g, dtype=torch.float64),
        chosen=item[:, :1].expand(60, alternatives - 1).reshape(-1),
        rejected=item[:, 1:].reshape(-1),
        decisions=Decisions(
            index=torch.arange(60).repeat_interleave(alternatives - 1),
            outcome=torch.ones(rows, dtype=torch.float64),
            position=torch.zeros(rows, dtype=torch.float64),
        ),
        user=user,
        weight=torch.rand(60, generator=g, dtype=torch.float64) + 0.5,
        source=torch.arange(60),
        n_users=4,
    )


@pytest.mark.parametrize("dim", [4, 120])
@pytest.mark.parametrize("alternatives", [2, 3])
@pytest.mark.parametrize("dual_rows", [0, 20, 400])
def test_every_user_has_the_head_of_a_fit_to_their_decisions(monkeypatch, dim, alternatives, dual_rows):
    monkeypatch.setattr("pluralign.inference.disjoint._DUAL_ROWS", dual_rows)
    monkeypatch.setattr("pluralign.inference.disjoint._DUAL_CHOICE_ROWS", dual_rows)
    design = make_design(dim, alternatives=alternatives)
    center = torch.randn(dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theta = fit_disjoint(design, ridge=2.0, center=center, tolerance=1e-9)
    stacked = fit_heads(
        design,
        ridge=torch.full((4,), 2.0, dtype=torch.float64),
        group_weight=torch.eye(4, dtype=torch.float64),
        center=center.expand(4, -1),
        tolerance=1e-9,
    )
    torch.testing.assert_close(theta, stacked.theta, atol=1e-6, rtol=0)
    torch.testing.assert_close(theta[0], center)


@pytest.mark.parametrize("likelihood", [Logit(), Thurstone()])
@pytest.mark.parametrize("large", [0, 2**30])
def test_soft_labels_of_any_likelihood_are_fitted_pass_by_pass_as_in_the_dual(monkeypatch, likelihood, large):
    design = make_design(12, alternatives=2)
    outcome = torch.rand(60, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    design = replace(design, decisions=replace(design.decisions, outcome=outcome))
    dual = fit_disjoint(design, ridge=0.5, likelihood=likelihood)
    monkeypatch.setattr("pluralign.inference.disjoint._DUAL_ROWS", 0)
    monkeypatch.setattr("pluralign.inference.disjoint._LARGE", large)
    passes = fit_disjoint(design, ridge=0.5, likelihood=likelihood, tolerance=1e-10)
    torch.testing.assert_close(passes, dual, atol=1e-6, rtol=0)


def test_a_ridge_of_zero_is_refused():
    with pytest.raises(ConfigError, match="ridge is 0; with one head per user it must be above 0"):
        fit_disjoint(make_design(3, alternatives=2), ridge=0.0)
