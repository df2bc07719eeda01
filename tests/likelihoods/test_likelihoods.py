"""Laws that every likelihood obeys, and a case of each by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import ConfigError
from pluralign.likelihoods import Davidson, Decisions, Lapsing, Likelihood, Logit, RaoKupper, Thurstone

PAIRS = [Logit(), Lapsing(0.1), Davidson(0.8), RaoKupper(0.5), Thurstone()]
CHOICES = [Logit(), Lapsing(0.1)]
CONCAVE = [Logit(), Davidson(0.8), RaoKupper(0.5), Thurstone()]
SIZES = (3, 1, 2, 5)


def pairs(*outcome: float, dtype: torch.dtype = torch.float64) -> Decisions:
    n = len(outcome)
    return Decisions(
        index=torch.arange(n), outcome=torch.tensor(outcome, dtype=dtype), position=torch.zeros(n, dtype=dtype)
    )


def choices(sizes: tuple[int, ...] = SIZES) -> Decisions:
    """Decisions of 4, 2, 3 and 6 items."""
    n = sum(sizes)
    return Decisions(
        index=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        outcome=torch.ones(n, dtype=torch.float64),
        position=torch.zeros(n, dtype=torch.float64),
    )


def derivatives(
    likelihood: Likelihood, margin: torch.Tensor, decisions: Decisions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient and negative Hessian of the summed log-probability of one head, by autograd."""

    def total(m: torch.Tensor) -> torch.Tensor:
        return likelihood.log_prob(m[:, None], decisions).sum()

    return torch.autograd.functional.jacobian(total, margin), -torch.autograd.functional.hessian(total, margin)


def dense(likelihood: Likelihood, margin: torch.Tensor, decisions: Decisions) -> torch.Tensor:
    """The negative Hessian in the margins that `curvature` stands for."""
    a, b = likelihood.curvature(margin[:, None], decisions)
    if b is None:
        return torch.diag(a[:, 0])
    same = decisions.index[:, None] == decisions.index
    return torch.diag(a[:, 0]) - same * b * b.T


@settings(max_examples=20)
@given(st.lists(st.floats(-30, 30), min_size=6, max_size=6))
@pytest.mark.parametrize("likelihood", PAIRS)
def test_slope_is_the_derivative_and_curvature_the_hessian_of_pairs(likelihood, margin):
    decisions, margin = pairs(1.0, 0.0, 0.5, 0.3, 1.0, 0.5), torch.tensor(margin, dtype=torch.float64)
    if isinstance(likelihood, Thurstone):
        margin = margin / 5  # autograd itself, through log_ndtr, overflows further out
    gradient, hessian = derivatives(likelihood, margin, decisions)
    torch.testing.assert_close(likelihood.slope(margin[:, None], decisions)[:, 0], gradient, atol=1e-8, rtol=1e-7)
    if likelihood in CONCAVE:
        torch.testing.assert_close(dense(likelihood, margin, decisions), hessian, atol=1e-7, rtol=1e-6)
    assert (dense(likelihood, margin, decisions).diagonal() >= 0).all()


@settings(max_examples=20)
@given(st.lists(st.floats(-30, 30), min_size=11, max_size=11))
@pytest.mark.parametrize("likelihood", CHOICES)
def test_slope_is_the_derivative_and_curvature_the_hessian_of_choices(likelihood, margin):
    decisions, margin = choices(), torch.tensor(margin, dtype=torch.float64)
    gradient, hessian = derivatives(likelihood, margin, decisions)
    torch.testing.assert_close(likelihood.slope(margin[:, None], decisions)[:, 0], gradient, atol=1e-9, rtol=1e-8)
    if likelihood in CONCAVE:
        torch.testing.assert_close(dense(likelihood, margin, decisions), hessian, atol=1e-9, rtol=1e-8)
    assert torch.linalg.eigvalsh(dense(likelihood, margin, decisions)).min() > -1e-9


@settings(max_examples=20)
@given(st.floats(-50, 50))
@pytest.mark.parametrize("likelihood", PAIRS)
def test_outcomes_of_a_pair_sum_to_one_and_swapping_flips_them(likelihood, margin):
    at = torch.tensor([[margin]], dtype=torch.float64)
    log_prob = {y: likelihood.log_prob(at, pairs(y)) for y in (1.0, 0.0, 0.5)}
    win, loss = log_prob[1.0].exp(), log_prob[0.0].exp()
    tie = log_prob[0.5].exp() if isinstance(likelihood, Davidson | RaoKupper) else 0.0
    torch.testing.assert_close(win + loss + tie, torch.ones_like(win), atol=1e-12, rtol=0)
    for y in (1.0, 0.0, 0.5, 0.2):
        torch.testing.assert_close(likelihood.log_prob(-at, pairs(1 - y)), likelihood.log_prob(at, pairs(y)))
    first, second = likelihood.choice_probabilities(at, pairs(1.0))
    torch.testing.assert_close(torch.cat([first, second]), torch.cat([win, loss]))


@settings(max_examples=20)
@given(st.lists(st.floats(-40, 40), min_size=4, max_size=4))
@pytest.mark.parametrize("likelihood", CHOICES)
def test_probabilities_of_a_choice_are_those_of_choosing_each_item(likelihood, reward):
    reward = torch.tensor(reward, dtype=torch.float64)
    decision = choices((3,))
    each = []
    for chosen in range(4):
        others = [i for i in range(4) if i != chosen]
        each.append(likelihood.log_prob((reward[chosen] - reward[others])[:, None], decision).exp()[0, 0])
    assert sum(each) == pytest.approx(1, abs=1e-12)
    first, other = likelihood.choice_probabilities((reward[0] - reward[1:])[:, None], decision)
    torch.testing.assert_close(torch.cat([first[:, 0], other[:, 0]]), torch.stack(each))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("likelihood", [*PAIRS, Lapsing(0.0)])
def test_nothing_overflows_far_out(likelihood, dtype):
    margin = torch.tensor([[1e4], [-1e4], [1e4], [-1e4], [1e4], [-1e4], [0.0]], dtype=dtype)
    decisions = pairs(1.0, 1.0, 0.0, 0.0, 0.5, 0.5, 1.0, dtype=dtype)
    log_prob = likelihood.log_prob(margin, decisions)
    assert log_prob.dtype == dtype
    assert log_prob.isfinite().all()
    assert (log_prob <= 0).all()
    assert likelihood.slope(margin, decisions).isfinite().all()
    assert likelihood.curvature(margin, decisions)[0].isfinite().all()


@pytest.mark.parametrize("likelihood", CHOICES)
def test_choices_do_not_overflow_far_out_nor_fail_without_rows(likelihood):
    margin = torch.tensor([1e4, -1e4, 0.0, -1e4, 1e4, 1e4, -1e4, -1e4, 0.0, 0.0, 1e4])[:, None]
    assert likelihood.log_prob(margin, choices()).isfinite().all()
    assert likelihood.slope(margin, choices()).isfinite().all()
    empty, none = pairs(), torch.zeros((0, 3), dtype=torch.float64)
    assert likelihood.log_prob(none, empty).shape == (0, 3)
    assert likelihood.slope(none, empty).shape == (0, 3)


def test_a_choice_among_two_is_a_pair():
    margin = torch.tensor([[0.7], [-1.3]], dtype=torch.float64)
    both = choices((1, 2))  # the second keeps the whole from being pairs
    padded = torch.cat([margin[:1], torch.zeros(2, 1, dtype=torch.float64)])
    torch.testing.assert_close(Logit().log_prob(padded, both)[:1], Logit().log_prob(margin[:1], pairs(1.0)))


def test_a_pair_beside_a_choice_keeps_its_outcome():
    margin = torch.tensor([0.7, -1.3, 0.4], dtype=torch.float64, requires_grad=True)
    mixed = Decisions(
        index=torch.tensor([0, 1, 1]),
        outcome=torch.tensor([0.2, 1.0, 1.0], dtype=torch.float64),
        position=torch.zeros(3, dtype=torch.float64),
    )
    log_prob = Logit().log_prob(margin[:, None], mixed)
    torch.testing.assert_close(log_prob[:1], Logit().log_prob(margin[:1, None], pairs(0.2)))
    slope = torch.autograd.grad(log_prob.sum(), margin)[0]
    torch.testing.assert_close(Logit().slope(margin[:, None], mixed)[:, 0], slope)


def test_a_ranking_exploded_is_plackett_luce():
    # Worths 4, 2, 1: P(a > b > c) = 4/7 * 2/3. The ranking is a choice among three, then one among two.
    worth = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64).log()
    margin = torch.stack([worth[0] - worth[1], worth[0] - worth[2], worth[1] - worth[2]])[:, None]
    log_prob = Logit().log_prob(margin, choices((2, 1))).sum()
    assert float(log_prob) == pytest.approx(math.log(4 / 7 * 2 / 3))


def test_ties_by_hand():
    # Worths 4 and 1, so exp(m / 2) = 2. Davidson, nu = 1: 4, 1 and 1 * 2 in 7. Rao and Kupper, theta = 2: 4 / 6, 1 / 9.
    margin = torch.full((3, 1), math.log(4), dtype=torch.float64)
    davidson = Davidson(1.0).log_prob(margin, pairs(1.0, 0.0, 0.5)).exp()
    torch.testing.assert_close(davidson[:, 0], torch.tensor([4 / 7, 1 / 7, 2 / 7], dtype=torch.float64))
    rao_kupper = RaoKupper(math.log(2)).log_prob(margin, pairs(1.0, 0.0, 0.5)).exp()
    torch.testing.assert_close(rao_kupper[:, 0], torch.tensor([4 / 6, 1 / 9, 2 / 9], dtype=torch.float64))


def test_the_likelihood_peaks_where_choix_says():
    wins = torch.tensor([[0, 1], [0, 1], [1, 2], [2, 0]])  # unequal: a symmetric set would pass at zero
    r = torch.tensor([0.41961762, -0.41961762, 0.0], dtype=torch.float64, requires_grad=True)  # choix, ilsr_pairwise
    Logit().log_prob((r[wins[:, 0]] - r[wins[:, 1]])[:, None], pairs(1.0, 1.0, 1.0, 1.0)).sum().backward()
    torch.testing.assert_close(r.grad, torch.zeros(3, dtype=torch.float64), atol=1e-7, rtol=0)


def test_half_an_answer_at_random_is_half_way_to_chance():
    margin = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    expected = 0.5 * torch.sigmoid(margin) + 0.25
    torch.testing.assert_close(Lapsing(0.5).log_prob(margin, pairs(1.0, 1.0)).exp(), expected)
    awake = (torch.sigmoid(margin) * 0.5 / expected).clone()
    slope = awake * torch.sigmoid(-margin)
    torch.testing.assert_close(Lapsing(0.5).slope(margin, pairs(1.0, 1.0)), slope)


@pytest.mark.parametrize("likelihood", [Davidson(1.0), RaoKupper(1.0), Thurstone()])
def test_models_of_pairs_refuse_choices_among_more(likelihood):
    with pytest.raises(ConfigError, match="about pairs"):
        likelihood.log_prob(torch.zeros(11, 1, dtype=torch.float64), choices())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lapsing(1.0), "lapse is 1.0; it is a probability, from 0 to below 1"),
        (lambda: Davidson(0.0), "tie is 0.0; it must be above 0"),
        (lambda: RaoKupper(-1.0), "threshold is -1.0; it must be above 0"),
    ],
)
def test_parameters_out_of_range_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 12))
def test_blocks_hold_whole_decisions_in_order(sizes, n_rows):
    decisions = choices(tuple(sizes))
    blocks = decisions.blocks(n_rows)
    assert [row for b in blocks for row in range(b.rows.start, b.rows.stop)] == list(range(sum(sizes)))
    assert [d for b in blocks for d in range(b.decisions.start, b.decisions.stop)] == list(range(len(sizes)))
    for block in blocks:
        assert block.within.count == block.decisions.stop - block.decisions.start
        torch.testing.assert_close(block.within.index + block.decisions.start, decisions.index[block.rows])
