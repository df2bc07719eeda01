"""Latent users once fitted: probabilities, rewards, the unknown user, the file."""

from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.likelihoods import Decisions
from pluralign.users import UNKNOWN, Basis, Latent, UserModel, store
from pluralign.users.latent import require_pairs

DIM, WIDTH, LATENT, HIDDEN = 4, 3, 2, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def build(form: str = "scalar", *, components: int = 1, n_users: int = 6) -> Latent:
    decoder = {"shift": draw(WIDTH), "taste": draw(WIDTH, LATENT)}
    if form != "linear":
        decoder |= {"item": draw(WIDTH, HIDDEN), "latent": draw(LATENT, HIDDEN), "bias": draw(HIDDEN)}
        decoder |= {"hidden": draw(HIDDEN, HIDDEN), "hidden_bias": draw(HIDDEN), "last": draw(HIDDEN)}
    if form == "pairwise":
        decoder["other"] = draw(WIDTH, HIDDEN, seed=1)
    return Latent(
        theta=draw(DIM),
        coordinates=draw(DIM, WIDTH),
        decoder=decoder,
        encoder={"pair": draw(2, 2)},
        prior_log_weight=draw(components).log_softmax(0),
        prior_mean=draw(components, LATENT),
        prior_log_variance=draw(components, LATENT),
        log_weight=draw(n_users, components).log_softmax(1),
        mean=draw(n_users, components, LATENT),
        log_variance=draw(n_users, components, LATENT),
        reference=draw(3, WIDTH + 1),
        form=form,
    )


def pairs(chosen: list[int], rejected: list[int], user: list[int], features: Tensor, n_users: int = 6) -> Design:
    n = len(chosen)
    return Design(
        features=features,
        chosen=torch.tensor(chosen),
        rejected=torch.tensor(rejected),
        decisions=Decisions(
            index=torch.arange(n), outcome=torch.ones(n, dtype=torch.float64), position=torch.zeros(n).double()
        ),
        user=torch.tensor(user),
        weight=torch.ones(n, dtype=torch.float64),
        source=torch.arange(n),
        n_users=n_users,
    )


@pytest.mark.parametrize(("form", "components"), list(product(["linear", "scalar", "pairwise"], [1, 3])))
def test_a_over_b_and_b_over_a_are_all_there_is(form, components):
    model, x = build(form, components=components), draw(8, DIM)
    there = pairs([0, 2, 4, 6], [1, 3, 5, 7], [0, 1, 2, 3], x)
    back = pairs([1, 3, 5, 7], [0, 2, 4, 6], [0, 1, 2, 3], x)
    np.testing.assert_allclose(model.predict(there).chosen + model.predict(back).chosen, 1, atol=1e-12)


def test_the_linear_form_predicts_as_a_basis_with_the_same_posterior():
    model = build("linear")
    theta, basis = model.linear_part
    same = Basis(
        theta=theta, basis=basis, mean=model.mean[:, 0], covariance=model.log_variance[:, 0].exp().diag_embed()
    )
    design = pairs([0, 1, 2, 3, 4, 5], [6, 7, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], draw(8, DIM) / 2)
    # 1,024 Sobol draws against Gauss-Hermite quadrature
    np.testing.assert_allclose(model.predict(design, draws=1024).chosen, same.predict(design).chosen, atol=3e-3)


def test_the_unknown_user_is_the_prior():
    model, x = build(components=2), draw(8, DIM)
    at_prior = model.with_posterior(type(model.prior)(*(part.expand(6, *part.shape[1:]) for part in model.prior)))
    design = pairs([0, 1, 2], [3, 4, 5], [0, 1, 2], x)
    unknown = torch.full((3,), UNKNOWN)
    np.testing.assert_allclose(model.predict(design, unknown).chosen, at_prior.predict(design).chosen, atol=1e-14)
    torch.testing.assert_close(model.reward(x[:3], unknown), at_prior.reward(x[:3], torch.tensor([0, 1, 2])))


def test_the_mean_of_z_and_draws_of_a_certain_z_agree():
    model = build()
    certain = replace(model, log_variance=torch.full_like(model.log_variance, -40.0))
    design = pairs([0, 1, 2], [3, 4, 5], [0, 1, 2], draw(8, DIM))
    np.testing.assert_allclose(certain.predict(design).chosen, model.predict(design, draws=0).chosen, atol=1e-6)


def test_rewards_order_items_as_probabilities_do_where_z_is_certain():
    model = replace(build(), log_variance=torch.full((6, 1, LATENT), -40.0, dtype=torch.float64))
    x = draw(2, DIM)
    (a, b), _ = model.reward(x, torch.tensor([4, 4]))
    chosen = model.predict(pairs([0], [1], [4], x)).chosen
    np.testing.assert_allclose(chosen, torch.sigmoid(a - b).numpy(), atol=1e-6)


@pytest.mark.parametrize("form", ["linear", "scalar", "pairwise"])
def test_the_spo_reward_is_the_mean_probability_over_all_states(form):
    model, x = build(form), draw(5, DIM)
    found, spread = model.preferred(x, torch.full((5,), 2), x, draws=32)
    chosen, rejected = (list(each) for each in zip(*product(range(5), range(5)), strict=True))
    brute = model.predict(pairs(chosen, rejected, [2] * 25, x), draws=32).chosen.reshape(5, 5).mean(1)
    np.testing.assert_allclose(found.numpy(), brute, atol=1e-12)
    assert bool(((found > 0) & (found < 1)).all())
    assert bool((spread > 0).all())


def test_the_spo_reward_does_not_see_what_all_states_share():
    # One vector added to every state adds f(z) to r in the linear form; a change of units is undone by W and theta.
    model, x, user = build("linear"), draw(5, DIM), torch.full((5,), 1)
    plain = model.preferred(x, user, x)[0]
    torch.testing.assert_close(model.preferred(x + draw(DIM, seed=7), user, x + draw(DIM, seed=7))[0], plain)
    other_units = replace(build("pairwise"), theta=model.theta / 3, coordinates=model.coordinates / 3)
    torch.testing.assert_close(other_units.preferred(3 * x, user, 3 * x), build("pairwise").preferred(x, user, x))


def test_the_pairwise_form_is_scored_by_spo():
    model, x = build("pairwise"), draw(4, DIM)
    torch.testing.assert_close(model.reward(x, torch.arange(4)), model.preferred(x, torch.arange(4)))


def test_choices_among_three_have_probabilities_that_add_up():
    model, x = build(components=2), draw(3, DIM)
    total = 0.0
    for first in range(3):
        others = [item for item in range(3) if item != first]
        two = pairs([first, first], others, [1, 1], x)
        choice = replace(
            two,
            decisions=replace(two.decisions, index=torch.tensor([0, 0])),
            user=two.user[:1],
            weight=two.weight[:1],
            source=two.source[:1],
        )
        total += float(model.predict(choice).chosen[0])
        with pytest.raises(ConfigError, match='form is "pairwise" and some decisions are among more than two items'):
            require_pairs(choice, "pairwise")
    assert total == pytest.approx(1)


def test_draws_below_zero_are_an_error():
    with pytest.raises(ConfigError, match="draws is -1; it must be at least 0"):
        build().draw(-1)


def test_it_is_a_user_model_and_counts_no_encoder():
    model = build("linear")
    assert isinstance(model, UserModel)
    assert (model.n_users, model.dim, model.latent_dim) == (6, DIM, LATENT)
    assert model.n_parameters == DIM + DIM * WIDTH + WIDTH + WIDTH * LATENT + 2 * LATENT


@pytest.mark.parametrize("form", ["linear", "scalar", "pairwise"])
def test_it_comes_back_from_disk_bit_for_bit(form, tmp_path):
    model = build(form, components=2)
    store.save(model, tmp_path)
    loaded = store.load(tmp_path)
    assert isinstance(loaded, Latent)
    for field in fields(model):
        mine, theirs = getattr(model, field.name), getattr(loaded, field.name)
        if isinstance(mine, dict):
            assert list(mine) == sorted(theirs, key=list(mine).index)
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        elif isinstance(mine, Tensor):
            assert torch.equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name
