"""A latent user goes on from where the model has them: against sums over a grid, and against the low-rank rung."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.inference.adapt import adapt
from pluralign.queries.placing import update
from pluralign.queries.reweighing import reweighed
from pluralign.users import Basis, Latent
from pluralign.users.latent import Gaussians, decode, embed


def build(form: str = "scalar", components: int = 1, latent: int = 2, seed: int = 0) -> Latent:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    width, hidden = 3, 4
    decoder = {"shift": draw(width), "taste": draw(width, latent)}
    if form != "linear":
        decoder |= {"item": draw(width, hidden), "latent": draw(latent, hidden), "bias": draw(hidden)}
        decoder |= {"hidden": draw(hidden, hidden), "hidden_bias": draw(hidden), "last": draw(hidden)}
    if form == "pairwise":
        decoder["other"] = draw(width, hidden)
    return Latent(
        theta=draw(3),
        coordinates=draw(3, width),
        decoder=decoder,
        encoder={},
        prior_log_weight=torch.zeros(components).double().log_softmax(0),
        prior_mean=torch.zeros(components, latent).double(),
        prior_log_variance=torch.zeros(components, latent).double(),
        log_weight=draw(2, components).log_softmax(1),
        mean=draw(2, components, latent),
        log_variance=draw(2, components, latent) - 1,
        reference=torch.zeros(1, width + 1).double(),
        form=form,  # type: ignore[arg-type]
    )


def of(model: Latent, user: int) -> Gaussians:
    return Gaussians(*(each[user : user + 1] for each in model.posterior))


@pytest.mark.parametrize("form", ["linear", "scalar", "pairwise"])
@pytest.mark.parametrize("components", [1, 2])
def test_moments_are_those_of_a_sum_over_a_grid(form, components, random_pairs):
    model, design = build(form, components), random_pairs(5)
    design = design.with_features(design.features / 2)
    prior = of(model, 1)
    line = torch.linspace(-9, 9, 401, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    targets = embed(model.decoder, model.form, model.items(design.features), design.chosen, design.rejected)
    margin = decode(model.decoder, model.form, targets, z[None], torch.zeros(5, dtype=torch.int64))
    explained = torch.nn.functional.logsigmoid(margin).sum(0)
    found = reweighed(model, prior, design)
    mass = []
    for k in range(components):
        own = torch.distributions.Normal(prior.mean[0, k], (prior.log_variance[0, k] / 2).exp())
        log_joint = own.log_prob(z).sum(1) + explained
        mass.append(prior.log_weight[0, k] + log_joint.logsumexp(0))
        weight = log_joint.softmax(0)[:, None]
        mean = (weight * z).sum(0)
        variance = (weight * (z - mean) ** 2).sum(0)
        torch.testing.assert_close(found.mean[0, k], mean, atol=0.02, rtol=0)
        torch.testing.assert_close(found.log_variance[0, k].exp(), variance, atol=0.01, rtol=0.05)
    torch.testing.assert_close(found.log_weight[0], torch.stack(mass).log_softmax(0), atol=0.03, rtol=0)


def test_in_one_linear_dimension_it_is_the_low_rank_rung(random_pairs):
    # One dimension has no correlations, which is all that the two posteriors differ in but for Laplace's method.
    model, design = build("linear", latent=1), random_pairs(6)
    theta, basis = model.linear_part
    low_rank = Basis(
        theta=theta, basis=basis, mean=model.mean[:, 0], covariance=model.log_variance[:, 0, :, None].exp()
    )
    found, exact = update(model, 0, design), update(low_rank, 0, design)
    sd = exact.covariance[0, 0].sqrt()
    assert abs(found.mean[0, 0] - exact.mean[0]) < 0.2 * sd
    assert float(found.log_variance[0, 0].exp().sqrt()) == pytest.approx(float(sd), rel=0.2)
    test = random_pairs(40, seed=5)
    before = replace(test, user=torch.zeros(40, dtype=torch.int64))
    now, then = found.predict(test).chosen, model.predict(before).chosen
    assert abs(now - exact.predict(test).chosen).max() < 0.05 < abs(now - then).max()


def test_answers_far_from_the_posterior_are_followed(random_pairs):
    # Sixty answers of somebody five deviations away: without letting them in little by little one draw would have all.
    model = build("linear", seed=3)
    prior = Gaussians(torch.zeros(1, 1).double(), torch.zeros(1, 1, 2).double(), torch.zeros(1, 1, 2).double())
    theta, basis = model.linear_part
    there = torch.tensor([4.0, -3.0]).double()
    design = random_pairs(60, seed=1)
    margin = design.differences(torch.arange(60)) @ (theta + basis @ there)
    turned = margin < 0
    design = replace(
        design,
        chosen=torch.where(turned, design.rejected, design.chosen),
        rejected=torch.where(turned, design.chosen, design.rejected),
    )
    found = reweighed(model, prior, design).mean[0, 0]
    exact = adapt(
        Basis(theta=theta, basis=basis, mean=torch.zeros(1, 2).double(), covariance=torch.eye(2).double()[None]), design
    ).mean[0]
    assert np.linalg.norm(found - exact) < 0.15 * np.linalg.norm(exact)


def test_two_instalments_are_as_good_as_one(random_pairs):
    model, design, test = build("scalar"), random_pairs(8, seed=1), random_pairs(40, seed=2)
    design, test = (each.with_features(each.features / 2) for each in (design, test))
    half = torch.arange(8) < 4
    at_once = update(model, 0, design).predict(test).chosen
    apart = update(update(model, 0, design.take(half)), 0, design.take(~half)).predict(test).chosen
    before = update(model, 0, design.take(torch.zeros(8, dtype=torch.bool))).predict(test).chosen
    assert before == pytest.approx(model.predict(replace(test, user=torch.zeros(40, dtype=torch.int64))).chosen)
    assert abs(apart - at_once).max() < 0.25 * abs(before - at_once).max()


def test_a_pairwise_decoder_takes_pairs_only(random_pairs):
    design = random_pairs(4)
    choice = replace(design, decisions=replace(design.decisions, index=torch.tensor([0, 0, 1, 2])))
    with pytest.raises(ConfigError, match="some decisions are among more than two items"):
        reweighed(build("pairwise"), of(build("pairwise"), 0), choice)
