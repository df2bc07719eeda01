"""Prior times message, and its divergence from the prior."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralign.inference.latent_prior import (
    Message,
    condition,
    divergence,
    fit_prior,
    message_of,
    with_strays,
)
from pluralign.users.latent import Gaussians


def standard(latent: int) -> Gaussians:
    zero = torch.zeros(1, 1, latent, dtype=torch.float64)
    return Gaussians(zero[..., 0], zero, zero)


def random(seed: int, components: int, latent: int = 3, users: int = 4) -> tuple[Gaussians, Message]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    prior = Gaussians(
        draw(1, components).log_softmax(1), 2 * draw(1, components, latent), draw(1, components, latent) / 2
    )
    return prior, Message(2 * draw(users, latent), draw(users, latent).exp())


def test_one_observation_by_hand():
    # N(0, 1) times exp(2 z - 3 z^2 / 2): precision 4, mean 1/2; KL = (log 4 + 1/4 + 1/4 - 1) / 2.
    prior, message = standard(1), Message(torch.tensor([[2.0]]).double(), torch.tensor([[3.0]]).double())
    found = condition(prior, message)
    assert float(found.mean) == pytest.approx(0.5)
    assert float(found.log_variance.exp()) == pytest.approx(0.25)
    assert float(divergence(prior, message)[0]) == pytest.approx((torch.log(torch.tensor(4.0)).item() - 0.5) / 2)


@given(st.integers(0, 10_000))
def test_one_component_has_the_usual_divergence_summed_over_dimensions(seed):
    prior, message = random(seed, 1)
    found = condition(prior, message)
    usual = torch.distributions.kl_divergence(
        torch.distributions.Normal(found.mean[:, 0], (found.log_variance[:, 0] / 2).exp()),
        torch.distributions.Normal(prior.mean[:, 0], (prior.log_variance[:, 0] / 2).exp()),
    )
    total, parts = divergence(prior, message)
    torch.testing.assert_close(parts, usual)
    torch.testing.assert_close(total, usual.sum(1))


@pytest.mark.parametrize("components", [1, 3])
def test_divergence_is_what_draws_say(components):
    prior, message = random(1, components)
    found, g = condition(prior, message), torch.Generator().manual_seed(0)

    def density(of: Gaussians, z: torch.Tensor) -> torch.Tensor:
        each = torch.distributions.Normal(of.mean[:, :, None], (of.log_variance[:, :, None] / 2).exp())
        return (each.log_prob(z[:, None]).sum(3) + of.log_weight[..., None]).logsumexp(1)

    n = 100_000
    which = torch.multinomial(found.log_weight.exp(), n, replacement=True, generator=g)[..., None].expand(-1, -1, 3)
    noise = torch.randn(4, n, 3, generator=g, dtype=torch.float64)
    z = found.mean.gather(1, which) + (found.log_variance / 2).exp().gather(1, which) * noise
    told = density(found, z) - density(prior, z)
    error = told.std(1) / n**0.5
    assert bool(((told.mean(1) - divergence(prior, message)[0]).abs() < 4 * error).all())


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_divergence_is_positive_and_no_message_has_none(seed, components):
    prior, message = random(seed, components)
    assert bool((divergence(prior, message)[0] > 0).all())
    silent = Message(torch.zeros(2, 3).double(), torch.zeros(2, 3).double())
    torch.testing.assert_close(divergence(prior, silent)[0], torch.zeros(2).double(), atol=1e-12, rtol=0)
    for part, own in zip(condition(prior, silent), prior, strict=True):
        torch.testing.assert_close(part, own.expand_as(part))


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_the_message_can_be_read_off_the_posterior(seed, components):
    prior, message = random(seed, components)
    back = message_of(prior, condition(prior, message))
    torch.testing.assert_close(back.linear, message.linear, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(back.precision, message.precision, atol=1e-8, rtol=1e-8)


def test_the_prior_of_users_who_are_known_for_sure_is_their_mean_and_variance():
    at = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]]).double()
    sure = torch.full_like(at, 1e9)
    found = fit_prior(Message(sure * at, sure), 1)
    assert found.log_weight.tolist() == [[0.0]]
    torch.testing.assert_close(found.mean[0, 0], torch.tensor([2.0, 2.0]).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.log_variance.exp()[0, 0], torch.tensor([8 / 3, 2.0]).double(), rtol=0, atol=1e-3)


def test_kinds_of_users_are_found_in_what_little_each_of_them_says():
    g = torch.Generator().manual_seed(0)
    centers = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]]).double()
    kind = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), 3000, replacement=True, generator=g)
    z = centers[kind] + 0.4 * torch.randn(3000, 2, generator=g, dtype=torch.float64)
    precision = torch.full_like(z, 4.0)  # each is seen with an error of 0.5 in each dimension
    message = Message(precision * (z + torch.randn(3000, 2, generator=g, dtype=torch.float64) / 2), precision)
    found = fit_prior(message, 3)
    order = found.log_weight[0].argsort(descending=True)
    torch.testing.assert_close(found.mean[0, order], centers, rtol=0, atol=0.1)
    torch.testing.assert_close(
        found.log_weight.exp()[0, order], torch.tensor([0.5, 0.3, 0.2]).double(), rtol=0, atol=0.03
    )
    torch.testing.assert_close(found.log_variance.exp(), torch.full((1, 3, 2), 0.16).double(), rtol=0, atol=0.06)


def test_users_who_say_nothing_leave_a_prior_that_is_finite():
    nothing = torch.zeros(5, 2, dtype=torch.float64)
    for components in (1, 3):
        assert all(part.isfinite().all() for part in fit_prior(Message(nothing, nothing), components))


def test_strays_are_about_the_average_user_by_hand():
    # Kinds of variance 0.5 at -2 (weight 1/4) and 2 (3/4): mean 1, variance 0.5 + 9/4 + 3/4 = 3.5.
    prior = Gaussians(
        torch.tensor([[0.25, 0.75]]).double().log(),
        torch.tensor([[[-2.0], [2.0]]]).double(),
        torch.full((1, 2, 1), 0.5).double().log(),
    )
    found = with_strays(prior, 0.2)
    torch.testing.assert_close(found.log_weight.exp(), torch.tensor([[0.2, 0.6, 0.2]]).double())
    torch.testing.assert_close(found.mean[..., 0], torch.tensor([[-2.0, 2.0, 1.0]]).double())
    torch.testing.assert_close(found.log_variance.exp()[..., 0], torch.tensor([[0.5, 0.5, 0.35]]).double())


def test_who_contradicts_himself_is_of_no_kind_and_who_does_not_is_of_his():
    kinds = Gaussians(
        torch.tensor([[0.5, 0.5]]).double().log(),
        torch.tensor([[[-1.0], [1.0]]]).double(),
        torch.full((1, 2, 1), 0.01).double().log(),
    )
    at = torch.tensor([[1.0], [-1.0], [0.05]]).double()
    message = Message(30 * at, torch.full_like(at, 30.0))
    # Without strays the third is nearly sure to be of the second kind, which is 30 * 0.05 * 2 / 1.3 nats nearer.
    alone = condition(kinds, message)
    assert alone.log_weight.exp()[2].tolist() == pytest.approx([0.0905, 0.9095], abs=1e-4)
    found = condition(with_strays(kinds), message)
    assert found.log_weight.exp().argmax(1).tolist() == [1, 0, 2]
    assert float(found.log_weight.exp()[2, 2]) > 0.99
    assert float(found.center[2].abs()) < 0.1 < float(alone.center[2])
