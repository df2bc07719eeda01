"""Fits of latent users to planted populations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.evaluation import paired_difference
from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.gaussian_evidence import posterior
from pluralign.inference.heads import fit_heads
from pluralign.inference.latent import fit_latent, refit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.likelihoods import Decisions, Logit
from pluralign.users import Basis, Pooled

pytestmark = pytest.mark.usefixtures("whole_runs")
FEW = LatentSettings(latent_dim=2, steps=50, draws=2)


def camps(n_users: int, each: int, seed: int, *, apart: float = 2.0) -> Design:
    """Two opposite camps along the first two features, one mind along the third."""
    rng = np.random.default_rng(seed)
    items = np.random.default_rng(0).normal(size=(300, 4))
    user = np.repeat(np.arange(n_users), each)
    theta = np.array([[apart, -apart, 1.0, 0.0], [-apart, apart, 1.0, 0.0]])[user % 2]
    first = rng.integers(300, size=len(user))
    second = (first + rng.integers(1, 300, size=len(user))) % 300
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-((items[first] - items[second]) * theta).sum(1)))
    n = len(user)
    return Design(
        features=torch.from_numpy(items),
        chosen=torch.from_numpy(np.where(wins, first, second)),
        rejected=torch.from_numpy(np.where(wins, second, first)),
        decisions=Decisions(index=torch.arange(n), outcome=torch.ones(n).double(), position=torch.zeros(n).double()),
        user=torch.from_numpy(user),
        weight=torch.ones(n).double(),
        source=torch.arange(n) // 2,
        n_users=n_users,
    )


def accuracy(model, test: Design) -> float:
    return float(np.mean(model.predict(test).correct))


def pooled_of(design: Design) -> Pooled:
    return Pooled(theta=fit_heads(design, ridge=torch.tensor([1.0]).double()).theta[0], n_users=design.n_users)


@pytest.fixture(scope="module")
def two_camps(whole_runs):
    design = camps(50, 20, 1)
    return design, fit_latent(design, FEW), fit_latent(design, replace(FEW, prior="mixture", components=2))


@pytest.fixture(scope="module")
def strangers():
    """Unseen users' context of 8 comparisons, and what they chose elsewhere."""
    return camps(200, 8, 2), camps(200, 20, 3)


def flipped(design: Design, share: float, seed: int = 0) -> Design:
    lie = torch.rand(design.n_rows, generator=torch.Generator().manual_seed(seed)) < share
    return replace(
        design,
        chosen=torch.where(lie, design.rejected, design.chosen),
        rejected=torch.where(lie, design.chosen, design.rejected),
    )


@pytest.mark.parametrize("which", [1, 2], ids=["normal", "mixture"])
def test_strangers_are_placed_by_a_few_comparisons_unless_half_of_them_are_flipped(two_camps, strangers, which):
    design, found = two_camps[0], two_camps[which]
    context, test = strangers
    blind = accuracy(pooled_of(design), test)
    by_flips = {share: accuracy(adapt(found.model, flipped(context, share)), test) for share in (0.0, 0.25, 0.5, 1.0)}
    assert by_flips[0.0] > blind + 0.15
    assert by_flips[0.25] > blind + 0.03
    assert by_flips[0.5] == pytest.approx(blind, abs=0.03)
    assert by_flips[1.0] < blind - 0.1
    # nothing said: the prior, which is nobody's model
    nothing = adapt(found.model, context.take(torch.zeros(context.n_decisions, dtype=torch.bool)))
    assert accuracy(nothing, test) == pytest.approx(blind, abs=0.02)


def test_a_population_that_differs_is_not_called_collapsed(two_camps):
    seen = two_camps[1].diagnosis
    assert not seen.collapsed
    assert seen.words.startswith("not collapsed (")
    # the camps differ in one direction only
    assert seen.active_units >= 1
    assert seen.log_prob["own"] > seen.log_prob["prior"] + 0.1 > seen.log_prob["shuffled"]
    assert seen.accuracy["own, mean of z"] == pytest.approx(seen.accuracy["own"], abs=0.02)
    assert seen.kl_total == pytest.approx(sum(seen.kl))


def test_where_users_differ_in_every_dimension_all_units_are_active(population):
    g = torch.Generator().manual_seed(3)
    theta, basis = torch.randn(6, generator=g), torch.linalg.qr(torch.randn(6, 3, generator=g)).Q
    design, w = population(theta=theta, basis=1.5 * basis, n_users=120, n_decisions=40)
    found = fit_latent(design, replace(FEW, latent_dim=3))
    assert found.diagnosis.active_units == 3
    assert not found.diagnosis.collapsed
    # z is the planted w up to a linear map, as far as 40 comparisons tell
    center = found.model.posterior.center.double()
    left = w - center @ torch.linalg.lstsq(center, w).solution
    assert 1 - float(left.square().sum() / w.square().sum()) > 0.7


def test_the_linear_form_agrees_with_the_exact_posterior(population):
    g = torch.Generator().manual_seed(4)
    theta, basis = torch.randn(6, generator=g) / 2, torch.randn(6, 2, generator=g) / 2
    whole, _ = population(theta=theta, basis=basis, n_users=150, n_decisions=40)
    out = torch.arange(whole.n_decisions) % 4 == 0
    design, test = whole.take(~out), whole.take(out)
    model = fit_latent(design, replace(FEW, form="linear")).model
    theta, basis = model.linear_part
    exact = posterior(design, theta, basis, Logit())
    same = Basis(theta=theta, basis=basis, mean=exact.mean.to(theta), covariance=exact.covariance.to(theta))
    amortised, truth = model.posterior.center, exact.mean.to(theta)
    assert float(torch.corrcoef(torch.stack([amortised.flatten(), truth.flatten()]))[0, 1]) > 0.97
    gap = paired_difference(same.predict(test), model.predict(test), "log_prob")
    assert abs(gap.estimate) < 0.02
    assert accuracy(model, test) == pytest.approx(accuracy(same, test), abs=0.02)


def test_people_of_one_mind_get_the_pooled_model_and_are_told(population):
    theta = torch.randn(6, generator=torch.Generator().manual_seed(5))
    design, _ = population(theta=theta, basis=torch.zeros(6, 1), n_users=60, n_decisions=30)
    found = fit_latent(design, FEW)
    assert found.fell_back
    assert found.diagnosis.collapsed
    assert found.diagnosis.words.startswith("collapsed: every user stays at the prior")
    pooled = Pooled(theta=found.model.theta, n_users=60).predict(design)
    np.testing.assert_allclose(found.model.predict(design).chosen, pooled.chosen, atol=1e-6)
    again = refit_latent(design, found, FEW)
    np.testing.assert_allclose(again.predict(design).chosen, pooled.chosen, atol=1e-6)


@pytest.mark.parametrize(
    ("cure", "collapsed"), [({}, True), ({"warmup": 200, "steps": 200}, False)], ids=["as published", "annealed"]
)
def test_a_decoder_that_can_do_without_z_is_caught(population, cure, collapsed):
    g = torch.Generator().manual_seed(6)
    theta, basis = torch.randn(6, generator=g) / 2, torch.randn(6, 2, generator=g)
    design, _ = population(theta=theta, basis=basis, n_users=100, n_decisions=30)
    # The paper's nets without guidance, a KL of full weight from the first step, and a form that may ignore z.
    plain = LatentSettings(
        latent_dim=2, guided=False, inputs="pairs", bound="elbo", kl_weight=1.0, warmup=0, steps=75, fall_back=False,
        refit=False,
    )  # fmt: skip
    seen = fit_latent(design, replace(plain, **cure)).diagnosis
    assert seen.collapsed == collapsed
    assert seen.words.startswith("collapsed: every user stays" if collapsed else "not collapsed")


def test_without_weight_it_is_said_not_to_be_variational(population):
    theta, basis = torch.ones(3), torch.eye(3)[:, :1]
    design, _ = population(theta=theta, basis=basis, n_users=12, n_decisions=12)
    found = fit_latent(design, replace(FEW, kl_weight=0.0, steps=2, every=1))
    assert "not variational: the KL had no weight" in found.diagnosis.words


@pytest.mark.parametrize("form", ["scalar", "linear"])
def test_choices_among_three_are_learnt(population, form):
    g = torch.Generator().manual_seed(8)
    theta, basis = torch.randn(4, generator=g), 2 * torch.randn(4, 1, generator=g)
    whole, _ = population(theta=theta, basis=basis, n_users=60, n_decisions=24, alternatives=3)
    out = torch.arange(whole.n_decisions) % 4 == 0
    design, test = whole.take(~out), whole.take(out)
    found = fit_latent(design, replace(FEW, form=form, latent_dim=1))
    blind = Pooled(theta=fit_heads(design, ridge=torch.tensor([1.0])).theta[0], n_users=60)
    assert accuracy(found.model, test) > accuracy(blind, test) + 0.05
    with pytest.raises(ConfigError, match='form is "pairwise"'):
        fit_latent(design, replace(FEW, form="pairwise"))


def test_the_same_seed_gives_the_same_fit_and_renaming_users_renames_it(two_camps):
    design, found, _ = two_camps
    again = fit_latent(design, FEW)
    assert torch.equal(found.model.mean, again.model.mean)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    renamed = adapt(found.model, replace(design, user=order[design.user]))
    torch.testing.assert_close(renamed.mean[order], found.model.mean)
