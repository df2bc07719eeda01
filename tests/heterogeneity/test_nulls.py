from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.features import Design
from pluralign.heterogeneity.answers import Answers
from pluralign.heterogeneity.nulls import Scales, dealt, drawn, fit_scales, permuted, shared_decisions
from pluralign.populations import simulate


def shared(kind: str = "null", **settings) -> tuple[Answers, torch.Tensor, np.ndarray]:
    """Users who answer the same questions, with the true margins at reliability 1."""
    settings = {"n_users": 30, "comparisons_per_user": 20, "dim": 3, "noise": 0.0} | settings
    found = simulate(kind=kind, features="numeric", same_prompts=True, seed=0, **settings)
    answers = Answers.of(Design.of(found.comparisons, torch.from_numpy(found.features)))
    return answers, answers.x @ torch.from_numpy(found.tastes.heads[0]), found.tastes.reliability


@pytest.mark.parametrize("n_choices", [2, 3])
def test_answers_move_among_those_who_answered_the_same_question(n_choices):
    answers, *_ = shared(n_choices=n_choices)
    rows = next(permuted(answers, 20, torch.Generator().manual_seed(0)))
    same = answers.choice_set[answers.decisions.index]
    assert torch.equal(same[rows], same[:, None].expand_as(rows))
    assert torch.equal(rows.sort(0).values, torch.arange(len(same))[:, None].expand_as(rows))
    assert torch.equal(answers.x[rows[:, 3]], answers.x)
    assert not torch.equal(rows[:, 0], rows[:, 1])


def test_a_question_of_one_user_is_not_shared():
    answers, *_ = shared(n_users=2, comparisons_per_user=[3, 5])
    assert int(shared_decisions(answers).sum()) == 6


def test_equally_reliable_users_get_the_givers_answer():
    answers, margin, _ = shared()
    zero = torch.zeros(answers.n_users, dtype=margin.dtype)
    scales = Scales(mean=zero, sd=zero, spread=0.0)
    other = next(dealt(answers, margin, scales, 20, torch.Generator().manual_seed(0)))
    number = answers.choice_set
    for question in number.unique():
        here = number == question
        assert torch.equal(other[here].sum(0), answers.other[here].sum().expand(20))


def test_an_unreliable_receiver_answers_unreliably():
    answers, margin, _ = shared(n_users=200)
    half = torch.arange(answers.n_users) % 2 == 0
    scales = Scales(mean=torch.where(half, -3.0, 0.5).double(), sd=torch.zeros(answers.n_users).double(), spread=1.0)
    wrong = next(drawn(answers, margin, scales, 1, torch.Generator().manual_seed(0)))
    other = next(dealt(replace(answers, other=wrong[:, 0]), margin, scales, 100, torch.Generator().manual_seed(1)))
    expected = answers.probability((margin * scales.mean.exp()[answers.user])[:, None])[:, 0]
    sides = torch.where(margin > 0, 1.0, -1.0)
    for users in (half, ~half):
        mine = users[answers.user] & (answers.weight > 0)
        found, true = (sides * other.mean(1))[mine].mean(), (sides * expected)[mine].mean()
        assert float(found) == pytest.approx(float(true), abs=0.02)


def test_spread_of_reliability_is_recovered_and_none_is_none():
    answers, margin, reliability = shared("reliability", n_users=200, comparisons_per_user=60, reliability_sd=0.7)
    found = fit_scales(answers, margin)
    assert found.spread == pytest.approx(0.7, abs=0.12)
    # Users of equal size keep their order.
    assert np.corrcoef(np.log(reliability), found.mean)[0, 1] > 0.85
    answers, margin, _ = shared(n_users=200, comparisons_per_user=60)
    assert fit_scales(answers, margin).spread <= 0.15
