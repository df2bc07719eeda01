import numpy as np
import pytest
import torch

from pluralign.comparisons import from_attributes
from pluralign.features import Design
from pluralign.heterogeneity.answers import Answers
from pluralign.likelihoods import Logit


def table(rows, *, users, choice=None, outcome=None, source=None, weight=None):
    """Decisions among five items with two features; a row is (chosen, rejected)."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [1.0, -1.0]])
    comparisons = from_attributes(
        attributes=x,
        attribute_names=["a", "b"],
        chosen=np.array([r[0] for r in rows]),
        rejected=np.array([r[1] for r in rows]),
        user=users,
        source=source,
        choice=None if choice is None else np.array(choice),
        outcome=None if outcome is None else np.array(outcome),
        weight=None if weight is None else np.array(weight),
    )
    return Design.of(comparisons, torch.from_numpy(x))


def test_the_item_of_the_lowest_number_comes_first_and_the_answer_is_a_column():
    answers = Answers.of(table([(3, 1), (0, 2), (4, 1)], users=["a", "a", "b"]))
    filled = answers.weight > 0
    assert answers.user[filled].tolist() == [0, 1, 1]  # b, who has fewer rows, comes first
    assert answers.x[filled].tolist() == [[0.0, 1.0], [-2.0, -1.0], [0.0, -2.0]]
    assert answers.other[filled].tolist() == [1.0, 1.0, 0.0]


def test_a_choice_among_three_is_turned_to_its_lowest_item():
    # 4 was chosen over 2 and 1: beside the reference 1 stand 2, which was not chosen, and 4, which was.
    answers = Answers.of(table([(4, 2), (4, 1), (0, 3)], users=["a", "a", "b"], choice=[0, 0, 1]))
    assert answers.other.tolist() == [0.0, 0.0, 1.0]
    assert answers.x.tolist() == [[-3.0, -1.0], [1.0, -2.0], [0.0, 1.0]]
    assert answers.decisions.index.tolist() == [0, 1, 1]


def test_the_same_items_of_one_source_are_one_question():
    rows, users = [(3, 1), (1, 3), (3, 1), (3, 2)], ["a", "b", "a", "b"]
    answers = Answers.of(table(rows, users=users, source=["s", "s", "t", "s"]))
    same = answers.choice_set
    order = answers.user.argsort(stable=True)
    a, b = same[order][:2].tolist(), same[order][2:].tolist()
    assert a[0] == b[0]
    assert len({*a, *b}) == 3


def test_likelihood_is_that_of_the_design():
    theta = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    design = table(
        [(4, 2), (4, 1), (0, 3), (0, 2), (1, 2), (1, 0)],
        users=["a", "a", "b", "b", "a", "a"],
        choice=[0, 0, 1, 1, 2, 2],
        weight=[2.0, 2.0, 1.0, 1.0, 1.0, 1.0],
    )
    expected = Logit().log_prob(design.margins(theta), design.decisions)[:, 0] * design.weight
    answers = Answers.of(design)
    found = answers.log_prob(answers.x @ theta.T)[:, 0]
    assert float(found.sum()) == pytest.approx(float(expected.sum()))
    assert found[0] == pytest.approx(float(expected[1]))  # b has two rows, a four


def test_ties_count_half():
    theta = torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    design = table([(3, 1), (2, 4)], users=["a", "b"], outcome=[0.5, 0.8])
    answers = Answers.of(design)
    expected = Logit().log_prob(design.margins(theta), design.decisions).sum()
    assert float(answers.log_prob(answers.x @ theta.T).sum()) == pytest.approx(float(expected))
    assert sorted(answers.other.tolist()) == pytest.approx([0.2, 0.5])


@pytest.mark.parametrize("choice", [None, [0, 0, 0, 1, 1, 2]])
def test_answers_are_drawn_with_their_probabilities(choice):
    rows = [(4, 2), (4, 1), (4, 0), (0, 3), (0, 2), (1, 2)]
    answers = Answers.of(table(rows, users=["a", "a", "a", "b", "b", "b"], choice=choice))
    margin = (answers.x @ torch.tensor([0.5, 0.3], dtype=torch.float64))[:, None]
    draws = answers.draw(margin, 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.mean(1, keepdim=True), answers.probability(margin), atol=0.015, rtol=0)
    assert float(answers.decisions.sum(draws).max()) == 1


@pytest.mark.parametrize("choice", [None, [0, 0, 0, 1, 1, 2]])
def test_numbers_that_stand_for_the_answers_give_them_back(choice):
    rows = [(4, 2), (4, 1), (4, 0), (0, 3), (0, 2), (1, 2)]
    answers = Answers.of(table(rows, users=["a", "a", "a", "b", "b", "b"], choice=choice))
    p = answers.probability((answers.x @ torch.tensor([0.5, 0.3], dtype=torch.float64))[:, None]).expand(-1, 500)
    number = answers.place(p, torch.Generator().manual_seed(0))
    assert torch.equal(answers.answer(p, number), answers.other[:, None].expand(-1, 500))
    assert number.min() >= 0
    assert number.max() < 1


def test_information_is_the_negative_hessian():
    rows = [(4, 2), (4, 1), (0, 3), (0, 2), (1, 2)]
    answers = Answers.of(table(rows, users=["a", "a", "b", "b", "b"], choice=[0, 0, 1, 1, 2], weight=[2.0, 2, 1, 1, 3]))
    theta = torch.tensor([0.5, 0.3], dtype=torch.float64)
    scale = torch.where(answers.user == 0, 1.0, 0.6).double()
    hessian = torch.autograd.functional.hessian(
        lambda at: answers.log_prob((scale * (answers.x @ at))[:, None]).sum(), theta
    )
    p = answers.probability((scale * (answers.x @ theta))[:, None])[:, 0]
    torch.testing.assert_close(answers.information(p, scale), -hessian)


def test_users_without_a_decision_are_passed_over():
    design = table([(3, 1), (0, 2), (4, 1)], users=["a", "b", "c"])
    kept = design.take(torch.tensor([True, False, True]))
    answers = Answers.of(kept)
    assert answers.n_users == 2
    assert sorted(answers.user.tolist()) == [0, 1]


def test_uneven_users_are_filled_up_and_summed_right():
    rng = np.random.default_rng(0)
    count = np.array([1, 2, 3, 9, 10, 40, 41])
    user = rng.permutation(np.repeat(np.arange(7), count))
    first = rng.integers(0, 5, len(user))
    rows = [(f, (f + s) % 5) for f, s in zip(first, rng.integers(1, 5, len(user)), strict=True)]
    design = table(rows, users=[str(u) for u in user])
    answers = Answers.of(design)
    ones = (answers.weight > 0).double()[:, None]
    assert answers.within(ones)[:, 0].tolist() == sorted(count.tolist())
    sums = answers.gather(ones)[:, :, 0]
    places = {n: u for u, n in enumerate(sorted(count.tolist()))}
    turned = torch.where((design.chosen < design.rejected)[:, None], 1.0, -1.0) * design.differences(
        torch.arange(len(rows))
    )
    for u, n in enumerate(count.tolist()):
        torch.testing.assert_close(sums[places[n]], turned[torch.from_numpy(user == u)].sum(0))
