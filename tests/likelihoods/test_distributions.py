"""Mean-variance and categorical rewards: printed values, laws, cases by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from pluralign.errors import ConfigError
from pluralign.likelihoods import (
    Categorical,
    Decisions,
    Logit,
    MeanVariance,
    RewardDistribution,
    Thurstone,
    explained_by_items,
)

FAMILIES = [MeanVariance(), MeanVariance("surrogate"), Categorical(2), Categorical(10)]
SD_1 = math.log(math.e - 1)  # softplus of it is 1


def with_sd(mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    """Outputs of items with these means and standard deviations."""
    return torch.stack([mean, torch.log(torch.expm1(sd))], -1)


def z_of(*z: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs whose standardised difference of means is z: standard deviations 0.6 and 0.8, together 1."""
    mean = torch.tensor(z, dtype=torch.float64)
    one, other = torch.full_like(mean, 0.6), torch.full_like(mean, 0.8)
    return with_sd(mean, one), with_sd(torch.zeros_like(mean), other)


def drawn(family: RewardDistribution, seed: int, n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    both = 3 * torch.randn(2, n, family.n_outputs, generator=g, dtype=torch.float64)
    return both[0], both[1]


@pytest.mark.parametrize(("link", "printed"), [("surrogate", [0.778, 0.925, 0.993]), ("probit", [0.691, 0.841, 0.977])])
def test_the_surrogate_is_not_the_probit(link, printed):
    found = MeanVariance(link).probability(*z_of(0.5, 1.0, 2.0))
    assert found.tolist() == pytest.approx(printed, abs=5e-4)


@pytest.mark.parametrize("family", FAMILIES)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_either_item_is_preferred_and_outcomes_weigh_the_two(family, seed):
    first, second = (each / 6 for each in drawn(family, seed))  # further out a logarithm of p itself is -inf
    p, q = family.probability(first, second), family.probability(second, first)
    torch.testing.assert_close(p + q, torch.ones_like(p), atol=1e-12, rtol=0)
    torch.testing.assert_close(family.probability(first, first), torch.full_like(p, 0.5))
    y = torch.linspace(0, 1, len(p), dtype=torch.float64)
    torch.testing.assert_close(family.log_prob(first, second, y), y * p.log() + (1 - y) * q.log())
    torch.testing.assert_close(family.log_prob(first, second, torch.ones_like(y)), p.log())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_the_derivative(family):
    first, second = drawn(family, 0, 5)
    y = torch.tensor([1.0, 0.0, 0.5, 0.3, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: family.log_prob(a, b, y), (first.requires_grad_(), second.requires_grad_())
    )
    sure = torch.ones_like(y)
    assert torch.autograd.gradcheck(lambda a, b: family.log_prob(a, b, sure), (first, second))


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_overflows_far_out(family):
    first, second = drawn(family, 1)
    first, second = (40 * first).requires_grad_(), (40 * second).requires_grad_()
    log_prob = family.log_prob(first, second, torch.linspace(0, 1, 12, dtype=torch.float64).round())
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert (log_prob <= 0).all()
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()


def test_equal_spreads_are_the_models_of_one_margin():
    # sd = 1 / sqrt(2) for all: z is the difference of means, Thurstone Case V, or a logistic of slope sqrt(2 pi).
    margin = torch.tensor([-1.5, 0.0, 0.4, 2.0], dtype=torch.float64)
    sd = torch.full_like(margin, math.sqrt(0.5))
    first, second = with_sd(margin, sd), with_sd(torch.zeros_like(margin), sd)
    y = torch.tensor([1.0, 1.0, 0.0, 0.3], dtype=torch.float64)
    pairs = Decisions(index=torch.arange(4), outcome=y, position=torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(
        MeanVariance().log_prob(first, second, y), Thurstone().log_prob(margin[:, None], pairs)[:, 0]
    )
    steep = math.sqrt(2 * math.pi) * margin[:, None]
    torch.testing.assert_close(
        MeanVariance("surrogate").log_prob(first, second, y), Logit().log_prob(steep, pairs)[:, 0]
    )


def test_a_common_scale_and_shift_change_nothing():
    g = torch.Generator().manual_seed(3)
    mean, sd = torch.randn(2, 6, generator=g).double(), torch.rand(2, 6, generator=g).double() + 0.1
    one = with_sd(mean, sd)
    other = with_sd(5 * mean - 2, 5 * sd)
    torch.testing.assert_close(MeanVariance().probability(*one), MeanVariance().probability(*other))


def test_normal_quantiles_are_scipys():
    outputs = with_sd(torch.tensor([0.3, -1.0]).double(), torch.tensor([0.5, 2.0]).double())
    for level in (0.01, 0.2, 0.9):
        expected = norm.ppf(level, [0.3, -1.0], [0.5, 2.0])
        assert MeanVariance().quantile(outputs, level).tolist() == pytest.approx(expected.tolist())
    assert MeanVariance().sd(torch.tensor([[0.0, SD_1]]))[0] == pytest.approx(1)


def test_three_atoms_by_hand():
    # Masses .2, .3, .5 against .5, .5, 0: .2 * .25 + .3 * (.5 + .25) + .5 * 1.
    first = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    second = torch.tensor([[0.5, 0.5, 1e-300]], dtype=torch.float64).log()
    family = Categorical(3)
    assert float(family.probability(first, second)) == pytest.approx(0.775)
    assert float(family.mean(first)) == pytest.approx(0.2 / 6 + 0.3 / 2 + 0.5 * 5 / 6)
    assert float(family.sd(first)) == pytest.approx(math.sqrt(0.2 / 36 + 0.3 / 4 + 0.5 * 25 / 36 - 0.6**2))
    # A third of the mass .2 of the first cell is at 1/9; .35 is half of the second cell's; the end of all is 1.
    for level, at in ((0.2 / 3, 1 / 9), (0.2, 1 / 3), (0.35, 0.5), (0.75, 5 / 6), (1 - 1e-12, 1.0)):
        assert float(family.quantile(first, level)) == pytest.approx(at)


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.999))
def test_a_quantile_is_where_the_mass_below_is_the_level(seed, level):
    outputs = drawn(Categorical(10), seed)[0] / 2
    found, mass = Categorical(10).quantile(outputs, level).numpy(), outputs.softmax(-1).numpy()
    below = [np.interp(x, np.linspace(0, 1, 11), [0, *row.cumsum()]) for x, row in zip(found, mass, strict=True)]
    assert below == pytest.approx([level] * len(below), abs=1e-9)


def test_logits_shift_and_uniform_items_are_even():
    first, second = drawn(Categorical(10), 5)
    family, y = Categorical(10), torch.ones(12, dtype=torch.float64)
    torch.testing.assert_close(family.log_prob(first + 7, second - 3, y), family.log_prob(first, second, y))
    torch.testing.assert_close(family.quantile(first + 7, 0.01), family.quantile(first, 0.01))
    flat = torch.zeros(1, 10)
    assert float(family.probability(flat, flat)) == pytest.approx(0.5)
    # Against a uniform item an item of one atom k has the mass below, (k + 1/2) / 10.
    sure = torch.full((10, 10), -1e4).fill_diagonal_(0.0)
    expected = [(k + 0.5) / 10 for k in range(10)]
    assert family.probability(sure, flat.expand(10, 10)).tolist() == pytest.approx(expected)
    assert family.mean(sure).tolist() == pytest.approx(expected)


def test_the_entropy_is_of_the_mean_over_the_batch():
    # Two items, each sure of its own atom: either entropy is 0, that of their mean log 2.
    outputs = torch.tensor([[0.0, -1e4, -1e4], [-1e4, 0.0, -1e4]], dtype=torch.float64)
    assert float(Categorical(3).entropy_of_mean(outputs)) == pytest.approx(math.log(2))
    thrice = outputs[[0, 0, 0, 1]]
    assert float(Categorical(3).entropy_of_mean(thrice)) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    counted = Categorical(3).entropy_of_mean(outputs, torch.tensor([3.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(counted, Categorical(3).entropy_of_mean(thrice))
    assert float(Categorical(3).entropy_of_mean(torch.zeros(4, 3))) == pytest.approx(math.log(3))


def test_r_squared_by_hand():
    # Means 0 and 2 (variance 1), standard deviations 1 and sqrt(5) (mean variance 3).
    mean, sd = torch.tensor([0.0, 2.0]), torch.tensor([1.0, math.sqrt(5)])
    assert explained_by_items(mean, sd) == pytest.approx(0.25)
    assert explained_by_items(mean, torch.zeros(2)) == 1
    assert math.isnan(explained_by_items(torch.ones(2), torch.zeros(2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MeanVariance("logit"), 'unknown link "logit"; known: probit, surrogate'),
        (lambda: Categorical(1), "n_atoms is 1; it must be at least 2"),
        (
            lambda: Categorical(3).quantile(torch.zeros(1, 3), 1.0),
            "level is 1.0; a quantile's level is between 0 and 1",
        ),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
