import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralign.errors import NoComparisonsError
from pluralign.inference.hard_em import assign_users, classify, fill_empty


def test_one_strong_choice_outweighs_two_weak_ones():
    # The strong choice comes first, so that keeping only a user's last row gives another answer.
    log_prob = torch.tensor([[-3.0, -0.1], [-0.1, -0.2], [-0.1, -0.2], [-0.1, -0.5]])
    assert assign_users(log_prob, torch.tensor([0, 0, 0, 1]), n_users=2).tolist() == [1, 0]


def test_ties_go_to_the_lowest_index():
    assert assign_users(torch.full((3, 4), -0.5), torch.tensor([0, 1, 1]), n_users=2).tolist() == [0, 0]


@given(st.integers(0, 2**32 - 1))
def test_renaming_clusters_renames_the_assignment(seed):
    g, user = torch.Generator().manual_seed(seed), torch.arange(30) % 6
    log_prob, order = -torch.rand(30, 4, generator=g), torch.randperm(4, generator=g)
    assert torch.equal(order[assign_users(log_prob[:, order], user, 6)], assign_users(log_prob, user, 6))


def test_users_without_comparisons_are_named():
    with pytest.raises(NoComparisonsError, match=r"users \[1, 3\] have no comparisons"):
        assign_users(torch.zeros(2, 2), torch.tensor([0, 2]), n_users=4)


def test_classification_likelihood_takes_each_users_best():
    log_prob = torch.tensor([[[-1.0, -2.0]], [[-5.0, -3.0]]])
    value, membership = classify(log_prob)
    assert value.tolist() == [-4.0]
    assert membership[:, 0].tolist() == [[1, 0], [0, 1]]


def test_an_empty_cluster_takes_the_worst_served_user():
    # User 2 loses most per comparison; user 3 more in all, over ten times as many. User 4 is absent.
    log_prob = torch.tensor([-1.0, -2.0, -9.0, -10.0, 0.0])[:, None, None].expand(5, 1, 2).contiguous()
    membership = torch.tensor([[1.0, 0.0]]).repeat(5, 1)[:, None]
    filled = fill_empty(membership, log_prob, torch.tensor([1.0, 1.0, 1.0, 10.0, 0.0]))
    assert filled[:, 0, 1].tolist() == [0, 0, 1, 0, 0]
    assert filled.sum(2).unique().tolist() == [1]


def test_filling_never_empties_another_cluster():
    log_prob = torch.tensor([[[-9.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]], [[-2.0, 0.0, 0.0]]])
    membership = torch.tensor([[[1.0, 0, 0]], [[0, 1.0, 0]], [[0, 1.0, 0]]])
    filled = fill_empty(membership, log_prob, torch.ones(3))
    assert filled[:, 0].sum(0).tolist() == [1, 1, 1]
