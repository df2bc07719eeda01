"""DPL's fits: nested cases, planted spreads, the same rows as the ladder."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_attributes
from pluralign.errors import ConfigError
from pluralign.evaluation import paired_difference
from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.dpl import SPREADS, fit_dpl
from pluralign.inference.heads import fit_heads
from pluralign.inference.pooled import fit_pooled
from pluralign.likelihoods import Thurstone
from pluralign.populations import simulate
from pluralign.users import UNKNOWN, Distribution, UserModel, store


def population(**settings: object) -> Design:
    simulated = simulate(features="numeric", dim=4, noise=0.0, **settings)
    return Design.of(simulated.comparisons, torch.as_tensor(simulated.features))


def planted(n: int = 6000, seed: int = 0, spread: float = 1.2) -> tuple[Design, torch.Tensor, torch.Tensor]:
    """Items of four features; the mean follows the first, the log of the standard deviation the second."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, 4))
    mean, sd = 1.5 * x[:, 0], 0.7 * np.exp(spread * x[:, 1])
    first = rng.integers(0, 400, n)
    second = (first + rng.integers(1, 400, n)) % 400
    won = mean[first] + sd[first] * rng.standard_normal(n) > mean[second] + sd[second] * rng.standard_normal(n)
    table = from_attributes(
        attributes=x,
        attribute_names=("a", "b", "c", "d"),
        chosen=np.where(won, first, second),
        rejected=np.where(won, second, first),
        user=[f"user {i % 30}" for i in range(n)],
    )
    return Design.of(table, torch.as_tensor(x)), torch.as_tensor(mean), torch.as_tensor(sd)


def halves(design: Design) -> tuple[Design, Design]:
    even = torch.arange(design.n_decisions) % 2 == 0
    return design.take(even), design.take(~even)


def test_an_equal_spread_is_thurstones_case_five():
    design = population(n_users=20, comparisons_per_user=30, kind="null", seed=1)
    model, report = fit_dpl(design, ridge=2.0, ridge_spread=math.inf)
    probit = fit_heads(design, ridge=torch.tensor([2.0]).double(), likelihood=Thurstone())
    torch.testing.assert_close(model.weight[0], probit.theta[0].to(model.weight.dtype), atol=2e-4, rtol=1e-3)
    assert report.log_prob == pytest.approx(float(probit.log_prob[0]), rel=1e-6)
    assert report.converged
    mean, sd = model.reward(design.features, torch.full((len(design.features),), UNKNOWN))
    torch.testing.assert_close(mean, design.features @ model.weight[0])
    torch.testing.assert_close(sd, torch.full_like(sd, math.sqrt(0.5)))


def test_the_surrogate_with_an_equal_spread_is_bradley_terry_in_other_units():
    design = population(n_users=20, comparisons_per_user=30, kind="null", seed=1)
    model, _ = fit_dpl(design, "mean-variance-surrogate", ridge=2.0 * 2 * math.pi, ridge_spread=math.inf)
    pooled, _ = fit_pooled(design, ridge=2.0)
    torch.testing.assert_close(math.sqrt(2 * math.pi) * model.weight[0], pooled.theta, atol=1e-3, rtol=1e-3)


def test_a_planted_spread_is_found_and_pays_on_held_out_rows():
    design, mean, sd = planted()
    train, test = halves(design)
    model, report = fit_dpl(train)
    found_mean, found_sd = model.reward(design.features, torch.zeros(len(mean), dtype=torch.int64))
    assert float(torch.corrcoef(torch.stack([found_mean, mean]))[0, 1]) > 0.97
    assert float(torch.corrcoef(torch.stack([found_sd.log(), sd.log()]))[0, 1]) > 0.9
    assert model.weight[1, 1] > 3 * model.weight[1, [0, 2, 3]].abs().max()
    assert report.ridge_spread < math.inf  # and the same spread for all was among the candidates
    assert set(report.choice) == {report.ridge * each for each in SPREADS}
    gain = paired_difference(model.predict(test), fit_pooled(train)[0].predict(test), "log_prob")
    assert gain.low > 0


def test_no_spread_is_chosen_where_there_is_none():
    design, _, _ = planted(2000, spread=0.0)
    train, test = halves(design)
    model, report = fit_dpl(train)
    gain = paired_difference(model.predict(test), fit_pooled(train)[0].predict(test), "log_prob")
    assert abs(gain.estimate) < 0.005
    assert report.ridge_spread >= 8 * report.ridge


def test_a_hidden_layer_sees_what_a_line_does_not():
    design, _, _ = planted(3000)
    bent = design.features.abs()
    labels = (bent[design.chosen, 2] > bent[design.rejected, 2]).double()
    design = replace(design, decisions=replace(design.decisions, outcome=labels))
    train, test = halves(design)
    scores = [
        fit_dpl(train, ridge=0.01, ridge_spread=math.inf, hidden=hidden, seed=1)[0].predict(test).correct.mean()
        for hidden in (0, 16)
    ]
    assert scores[0] < 0.65
    assert scores[1] > 0.9


def test_the_entropy_term_spreads_the_mass_over_atoms():
    design = population(n_users=20, comparisons_per_user=30, kind="null", seed=2)
    used = []
    for entropy in (0.0, 1.0):
        model, _ = fit_dpl(design, "categorical", ridge=0.1, n_atoms=6, entropy=entropy)
        mean = model.outputs(design.features).softmax(-1).mean(0)
        used.append(float(torch.special.entr(mean).sum()))
    assert used[1] > used[0] + 0.05
    assert used[1] > 0.95 * math.log(6)


@pytest.mark.parametrize("family", ["mean-variance", "mean-variance-surrogate", "categorical"])
def test_every_family_predicts_about_as_well_as_the_pooled_model_where_users_are_alike(family):
    train, test = halves(population(n_users=30, comparisons_per_user=60, kind="null", seed=3))
    model, report = fit_dpl(train, family)
    pooled = fit_pooled(train)[0].predict(test)
    found = model.predict(test)
    assert isinstance(model, UserModel)
    assert (found.user == pooled.user).all()
    assert abs(paired_difference(found, pooled, "log_prob").estimate) < 0.02
    assert 0 < report.explained < 1
    blind = model.predict(test, torch.full_like(test.user, UNKNOWN))
    assert (blind.chosen == found.chosen).all()  # nobody is known apart


@pytest.mark.parametrize(("family", "hidden"), [("mean-variance", 0), ("categorical", 5)])
def test_saving_and_loading(tmp_path, family, hidden):
    design = population(n_users=5, comparisons_per_user=20, kind="null", seed=4)
    model, _ = fit_dpl(design, family, ridge=1.0, ridge_spread=None if hidden else 1.0, hidden=hidden)
    store.save(model, tmp_path)
    again = store.load(tmp_path)
    assert isinstance(again, Distribution)
    assert (again.predict(design).chosen == model.predict(design).chosen).all()
    torch.testing.assert_close(again.quantile(design.features, 0.01), model.quantile(design.features, 0.01))
    assert (again.dim, again.n_parameters) == (4, model.n_parameters)


def test_parameters_are_counted_up_to_what_changes_nothing():
    design = population(n_users=5, comparisons_per_user=20, kind="null", seed=4)
    assert fit_dpl(design, ridge=1.0, ridge_spread=1.0)[0].n_parameters == 2 * 4
    assert fit_dpl(design, "categorical", ridge=1.0, n_atoms=10)[0].n_parameters == 9 * 5
    assert fit_dpl(design, ridge=1.0, ridge_spread=1.0, hidden=3)[0].n_parameters == 3 * 5 + 2 * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "normal"}, 'unknown family "normal"; known: mean-variance, mean-variance-surrogate, categorical'),
        ({"ridge": -1.0}, r"ridge is -1\.0; it must be at least 0"),
        ({"family": "categorical", "ridge_spread": 1.0}, "the categorical family has no ridge_spread"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        fit_dpl(population(n_users=5, comparisons_per_user=20, kind="null"), **settings)


def test_choices_among_more_are_refused():
    with pytest.raises(ConfigError, match="among more than two items"):
        fit_dpl(population(n_users=5, comparisons_per_user=20, kind="null", n_choices=3), ridge=1.0)


def test_nobody_can_be_placed_in_a_distribution_and_it_says_what_to_do():
    design = population(n_users=4, comparisons_per_user=10, kind="null", seed=1)
    model, _ = fit_dpl(design)
    with pytest.raises(ConfigError, match="there is nobody to place: a distribution of reward is the same") as caught:
        adapt(model, design)
    assert "fit cluster, basis, individual or latent" in str(caught.value.hint)


def test_a_user_model_that_adapt_does_not_know_is_named():
    class Other:
        kind, n_users, dim, n_parameters = "other", 1, 4, 0

        def predict(self, design, user=None):
            raise NotImplementedError

        def reward(self, features, user):
            raise NotImplementedError

    design = population(n_users=4, comparisons_per_user=10, kind="null", seed=1)
    with pytest.raises(ConfigError, match='nobody can be placed in a model of kind "other"') as caught:
        adapt(Other(), design)
    assert "adapt.register" in str(caught.value.hint)
