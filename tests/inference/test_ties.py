import pytest
import torch
from scipy.optimize import minimize

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.ties import fit_ties
from pluralign.likelihoods import Davidson, Decisions, RaoKupper


def make_design(*, tie: float, n: int = 3000) -> Design:
    """Pairs in two dimensions, drawn from Davidson's model with theta (1, -1); no ties where `tie` is 0."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(2 * n, 2, generator=g, dtype=torch.float64)
    margin = (features[:n] - features[n:]) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    mass = torch.stack([(margin / 2).exp(), (-margin / 2).exp(), torch.full_like(margin, tie)], 1)
    drawn = torch.multinomial(mass, 1, generator=g)[:, 0]
    return Design(
        features=features,
        chosen=torch.arange(n),
        rejected=torch.arange(n) + n,
        decisions=Decisions(
            index=torch.arange(n),
            outcome=torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)[drawn],
            position=torch.zeros(n, dtype=torch.float64),
        ),
        user=torch.zeros(n, dtype=torch.int64),
        weight=torch.ones(n, dtype=torch.float64),
        source=torch.arange(n),
        n_users=1,
    )


def test_davidson_finds_what_was_planted():
    fit = fit_ties(make_design(tie=1.5))
    assert fit.converged
    assert fit.likelihood.tie == pytest.approx(1.5, rel=0.1)
    torch.testing.assert_close(fit.theta, torch.tensor([1.0, -1.0], dtype=torch.float64), atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", [Davidson, RaoKupper])
def test_turns_end_where_a_joint_search_does(kind):
    design = make_design(tie=0.7, n=400)

    def loss(at):
        likelihood = kind(float(torch.tensor(at[2]).exp()))
        margin = design.margins(torch.tensor(at[:2])[None])
        return -float(likelihood.log_prob(margin, design.decisions).sum())

    joint = minimize(loss, [0.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    fit = fit_ties(design, kind=kind)
    assert fit.log_prob == pytest.approx(-joint.fun, abs=1e-6)
    torch.testing.assert_close(fit.theta, torch.tensor(joint.x[:2]), atol=1e-4, rtol=0)


def test_without_ties_there_is_nothing_to_fit():
    with pytest.raises(ConfigError, match="0 of 50 outcomes are ties"):
        fit_ties(make_design(tie=0.0, n=50))
