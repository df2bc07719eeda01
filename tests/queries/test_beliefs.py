"""Beliefs about margins: information in an answer, and what earlier answers leave of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, xlogy
from scipy.stats import norm

from pluralign.errors import ConfigError
from pluralign.queries import Gaussian, Particles, believe
from pluralign.queries.scores import vpl_released
from pluralign.users import UNKNOWN, Basis, Latent, Pooled

LN2 = np.log(2)


def entropy(p):
    return -(xlogy(p, p) + xlogy(1 - p, 1 - p))


def gaussian(mean, x, covariance) -> Gaussian:
    x = torch.as_tensor(x, dtype=torch.float64)
    return Gaussian.of(
        torch.as_tensor(mean, dtype=torch.float64),
        x,
        torch.as_tensor(covariance, dtype=torch.float64)[None],
        torch.zeros(len(x), dtype=torch.int64),
    )


def test_information_gain_of_two_clusters_by_hand():
    # Clusters 3 : 1. Row 0: they answer 0.8 and 0.2. Row 1: both 0.8. Row 2: 0.5 and 0.5, a coin for everybody.
    p = torch.tensor([[0.8, 0.2], [0.8, 0.8], [0.5, 0.5]], dtype=torch.float64)
    belief = Particles.of(torch.logit(p), torch.tensor([[3.0, 1.0]]).expand(3, 2))
    # H(0.65) - H(0.8): 0.647447 - 0.500402 nats.
    assert belief.information_gain().tolist() == pytest.approx([0.1470446, 0, 0], abs=1e-6)
    assert belief.predictive().tolist() == pytest.approx([0.65, 0.8, 0.5])
    # A posterior mean of the margin is not one of the probability: (3 x 1.386 - 1.386) / 4 = 0.693, P = 2 / 3.
    assert belief.at_mean().tolist() == pytest.approx([2 / 3, 0.8, 0.5])
    assert belief.variance().tolist() == pytest.approx([(2 * np.log(4)) ** 2 * 3 / 16, 0, 0], abs=1e-12)


def test_an_answer_that_settles_everything_is_worth_the_entropy_of_the_clusters():
    belief = Particles.of(torch.tensor([[40.0, -40.0]]), torch.tensor([[0.25, 0.75]]))
    assert belief.information_gain().item() == pytest.approx(entropy(0.25))


@pytest.mark.parametrize("mean", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("sd", [0.05, 1.0, 3.0])
def test_quadrature_equals_a_fine_integral(mean, sd):
    def expect(f):
        return quad(lambda m: f(expit(m)) * norm.pdf(m, mean, sd), mean - 12 * sd, mean + 12 * sd, limit=500)[0]

    belief = gaussian([mean], [[1.0]], [[sd**2]])
    first = expect(lambda p: p)
    assert belief.predictive().item() == pytest.approx(first, abs=2e-5)
    assert belief.fisher().item() == pytest.approx(expect(lambda p: p * (1 - p)), abs=1e-4)
    assert belief.information_gain().item() == pytest.approx(entropy(first) - expect(entropy), abs=2e-4)


def test_a_wide_gaussian_and_a_sure_one():
    belief = gaussian([0.0, 0.0, 4.0], [[100.0], [0.0], [0.0]], [[1.0]])
    gain = belief.information_gain()
    assert 0.98 * LN2 < gain[0] <= LN2  # nearly a yes or no about the user
    assert gain[1:].tolist() == pytest.approx([0, 0], abs=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_gains_are_from_0_to_the_entropy_of_a_coin_and_do_not_depend_on_the_order_of_a_pair(seed):
    rng = np.random.default_rng(seed)
    x, mean = rng.normal(size=(6, 2)) * 2, rng.normal(size=6) * 3
    root = rng.normal(size=(2, 2))
    margin, weight = torch.from_numpy(rng.normal(size=(6, 4)) * 3), torch.from_numpy(rng.dirichlet(np.ones(4)))
    weight = weight.expand(6, 4)
    for one, turned in (
        (gaussian(mean, x, root @ root.T), gaussian(-mean, -x, root @ root.T)),
        (Particles.of(margin, weight, lapse=0.1), Particles.of(-margin, weight, lapse=0.1)),
    ):
        for row in (2, 0, 2):
            gain = one.information_gain()
            assert ((gain >= 0) & (gain <= LN2 + 1e-12)).all()
            torch.testing.assert_close(gain, turned.information_gain(), atol=1e-12, rtol=1e-9)
            torch.testing.assert_close(one.predictive(), 1 - turned.predictive())
            torch.testing.assert_close(one.variance(), turned.variance(), atol=1e-12, rtol=1e-9)
            one, turned = one.after(row), turned.after(row)


def test_after_an_answer_a_gaussian_has_the_precision_of_both():
    rng = np.random.default_rng(1)
    x, root = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))
    covariance, belief = root @ root.T, gaussian(rng.normal(size=5), x, root @ root.T)
    a = belief.fisher()[2].item()
    once = belief.after(2)
    b = once.fisher()[4].item()
    expected = np.linalg.inv(np.linalg.inv(covariance) + a * np.outer(x[2], x[2]) + b * np.outer(x[4], x[4]))
    twice = once.after(4)
    assert twice.variance().numpy() == pytest.approx(np.einsum("ni,ij,nj->n", x, expected, x))
    assert twice.covariance(1).numpy() == pytest.approx(x @ expected @ x[1])


def test_after_answers_particles_are_weighed_by_all_ways_of_answering():
    rng = np.random.default_rng(2)
    margin, weight = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3))
    belief = Particles.of(torch.from_numpy(margin), torch.from_numpy(weight).expand(4, 3)).after(0).after(1)
    p = expit(margin)
    gain, left = np.zeros(4), np.zeros(4)
    for first in (p[0], 1 - p[0]):
        for second in (p[1], 1 - p[1]):
            total = (weight * first * second).sum()
            posterior = weight * first * second / total
            gain += total * (entropy(p @ posterior) - entropy(p) @ posterior)
            left += total * (margin**2 @ posterior - (margin @ posterior) ** 2)
    assert belief.information_gain().numpy() == pytest.approx(gain)
    assert belief.variance().numpy() == pytest.approx(left)


def test_more_ways_of_answering_than_are_kept_still_make_sense():
    rng = np.random.default_rng(3)
    belief = Particles.of(torch.from_numpy(rng.normal(size=(12, 5))), torch.full((12, 5), 0.2))
    before = belief.information_gain()
    for row in range(11):
        belief = belief.after(row)
    assert len(belief.history) == 256
    left = belief.information_gain()[11]
    assert 0 < left < before[11]


def test_a_lapse_makes_an_answer_tell_less():
    margin, weight = torch.tensor([[2.0, -2.0]]), torch.tensor([[0.5, 0.5]])
    sure, lapsing = Particles.of(margin, weight), Particles.of(margin, weight, lapse=0.2)
    assert lapsing.predictive().item() == pytest.approx(0.5)
    p = 0.8 * expit(2.0) + 0.1
    assert lapsing.information_gain().item() == pytest.approx(LN2 - entropy(p))
    assert lapsing.fisher().item() == pytest.approx((0.8 * expit(2.0) * expit(-2.0)) ** 2 / (p * (1 - p)))
    assert lapsing.information_gain() < sure.information_gain()


def test_every_rung_believes_what_it_predicts(model, random_pairs):
    design = random_pairs(30)
    for user in (0, 1, UNKNOWN):
        who = torch.full((30,), user)
        believed = believe(model, design, who).predictive().numpy()
        predicted = model.predict(design, who).chosen
        if model.kind == "reliability":  # which leaves its position bias to whoever shows the pair
            predicted = replace(model, position_bias=0.0).predict(design, who).chosen
        assert believed == pytest.approx(predicted, abs=1e-4)


def test_every_rung_believes_of_rewards_what_it_says_of_them(model, random_pairs):
    # An item against one whose features are 0 has the item's own reward as margin.
    design = random_pairs(40)
    zero = torch.cat([design.features, torch.zeros(1, 3).double()])
    against = replace(design, features=zero, chosen=torch.arange(40), rejected=torch.full((40,), 40))
    for user in (0, UNKNOWN):
        who = torch.full((40,), user)
        mean, sd = model.reward(design.features, who)
        belief = believe(model, against, who)
        assert belief.variance().sqrt().numpy() == pytest.approx(sd.numpy(), abs=1e-3, rel=1e-3)
        lapse = model.lapse if model.kind == "reliability" else 0.0
        found = torch.logit((belief.at_mean() - lapse / 2) / (1 - lapse))
        assert found.numpy() == pytest.approx(mean.numpy(), abs=1e-3)


def test_rows_of_several_users_are_each_their_own(model, random_pairs):
    design, who = random_pairs(9), torch.tensor([0, 1, -1] * 3)
    together = believe(model, design, who).information_gain()
    for user in (0, 1, UNKNOWN):
        alone = believe(model, design, torch.full((9,), user)).information_gain()
        torch.testing.assert_close(together[who == user], alone[who == user])


def test_latent_users_with_a_linear_decoder_are_those_of_a_basis(random_pairs):
    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    g = torch.Generator().manual_seed(0)
    theta, coordinates, shift, taste, mean, log_variance = (
        draw(*shape) for shape in ((3,), (3, 2), (2,), (2, 2), (1, 1, 2), (1, 1, 2))
    )
    none, one = torch.zeros(1, 1, 2).double(), torch.zeros(1).double()
    latent = Latent(
        theta=theta,
        coordinates=coordinates,
        decoder={"shift": shift, "taste": taste},
        encoder={},
        prior_log_weight=one,
        prior_mean=none[0],
        prior_log_variance=none[0],
        log_weight=one[None],
        mean=mean,
        log_variance=log_variance,
        reference=torch.zeros(1, 3).double(),
        form="linear",
    )
    basis = Basis(
        theta=theta + coordinates @ shift,
        basis=coordinates @ taste,
        mean=mean[0],
        covariance=log_variance[0].exp().diag_embed(),
    )
    design, who = random_pairs(50), torch.tensor([0, UNKNOWN] * 25)
    one, other = believe(latent, design, who), believe(basis, design, who)
    # 64 quasi-random draws of z against the exact integral.
    torch.testing.assert_close(one.information_gain(), other.information_gain(), atol=0.05, rtol=0)
    torch.testing.assert_close(one.predictive(), other.predictive(), atol=0.03, rtol=0)


def test_a_pooled_model_has_nothing_to_ask(random_pairs):
    model = Pooled(theta=torch.ones(3).double(), n_users=2)
    with pytest.raises(ConfigError, match="there is nothing to ask: a pooled model is the same for everybody"):
        believe(model, random_pairs(2), torch.zeros(2, dtype=torch.int64))


def test_draws_are_enough_for_a_rung_of_ones_own(random_pairs):
    class Nothing:
        kind, n_users, dim, n_parameters = "nothing", 1, 3, 0

        def predict(self, design, user=None):
            raise NotImplementedError

        def reward(self, features, user):
            raise NotImplementedError

    class Coin(Nothing):
        kind = "coin"

        def margin_draws(self, design, user):
            return torch.tensor([[1.0, -1.0]]).expand(design.n_rows, 2), torch.full((design.n_rows, 2), 0.5)

    design, who = random_pairs(3), torch.zeros(3, dtype=torch.int64)
    assert believe(Coin(), design, who).information_gain()[0].item() == pytest.approx(LN2 - entropy(expit(1.0)))
    with pytest.raises(ConfigError, match="a nothing model has no posterior of a user"):
        believe(Nothing(), design, who)


def test_turning_the_latent_space_changes_what_the_released_formula_asks_and_not_the_information_gain(random_pairs):
    g = torch.Generator().manual_seed(4)
    theta = torch.randn(3, generator=g, dtype=torch.float64)
    basis = torch.eye(3, dtype=torch.float64) * torch.tensor([1.6, 0.3, 0.3])
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
    design, who = random_pairs(200), torch.full((200,), UNKNOWN)
    nobody = {"mean": torch.zeros(0, 3).double(), "covariance": torch.zeros(0, 3, 3).double()}
    straight, turned = (
        believe(Basis(theta=theta, basis=each, **nobody), design, who) for each in (basis, basis @ turn)
    )
    torch.testing.assert_close(straight.information_gain(), turned.information_gain())
    order = [vpl_released(each).argsort(descending=True)[:10].tolist() for each in (straight, turned)]
    assert len(set(order[0]) & set(order[1])) < 8
