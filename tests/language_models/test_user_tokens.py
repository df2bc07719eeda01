import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralign.errors import ConfigError
from pluralign.language_models.user_tokens import (
    KINDS,
    UNKNOWN,
    ClusterTokens,
    TextTokens,
    from_vocabulary,
    make_user_tokens,
    start,
)

EXTRA = {"cluster": {"n_clusters": 2}, "basis": {"rank": 2}, "text": {"width": 4}}
EVERYBODY = torch.tensor([UNKNOWN, 0, 1, 2, UNKNOWN])


def filled(kind, seed=0, **settings):
    """Users whose every parameter and buffer of numbers is random."""
    users = make_user_tokens(kind, n_users=3, n_tokens=2, dim=5, **{**EXTRA.get(kind, {}), **settings})
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in users.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=g))
    return users


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32 - 1))
def test_everybody_has_rows_wherever_they_stand_in_the_batch(kind, seed):
    users = filled(kind, seed)
    rows = users(EVERYBODY)
    assert rows.shape == (5, 2, 5)
    for i, user in enumerate(EVERYBODY):
        torch.testing.assert_close(users(user[None])[0], rows[i])


@pytest.mark.parametrize("kind", ["uniform", "individual", "basis", "text"])
def test_the_unknown_user_is_exactly_e_0(kind):
    users = filled(kind)
    assert torch.equal(users(EVERYBODY)[0], users.generic)


def test_an_individual_is_e_0_and_its_offset():
    users = filled("individual")
    assert torch.equal(users(EVERYBODY)[2], users.generic + users.offset[1])


def test_a_basis_user_is_worked_by_hand():
    users = make_user_tokens("basis", n_users=1, n_tokens=1, dim=2, rank=2)
    with torch.no_grad():
        users.generic.copy_(torch.tensor([[1.0, 1.0]]))
        users.blocks.copy_(torch.tensor([[[1.0, 0.0]], [[0.0, 10.0]]]))
        users.weight.copy_(torch.tensor([[2.0, -1.0]]))
    assert users(torch.tensor([0])).tolist() == [[[3.0, -9.0]]]


def test_a_described_user_is_worked_by_hand():
    users = make_user_tokens("text", n_users=2, n_tokens=1, dim=2, width=2)
    users.describe(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    with torch.no_grad():
        users.project.copy_(torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]]))
    assert users(torch.tensor([0, 1])).tolist() == [[[1.0, 6.0]], [[0.0, 0.0]]]


def test_a_one_hot_share_gives_the_row_of_its_cluster():
    users = filled("cluster")
    with torch.no_grad():
        users.logit.copy_(torch.tensor([[0.0, 200.0], [200.0, 0.0], [0.0, 0.0]]))
    rows = users(torch.tensor([0, 1, 2]))
    assert torch.equal(rows[0], users.blocks[1])
    assert torch.equal(rows[1], users.blocks[0])
    torch.testing.assert_close(rows[2], users.blocks.mean(0))


@given(st.integers(0, 2**32 - 1))
def test_shares_are_on_the_simplex_and_names_of_clusters_do_not_matter(seed):
    users, order = filled("cluster", seed, n_clusters=3), torch.tensor([2, 0, 1])
    shares = users.shares(EVERYBODY)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(5))
    renamed = filled("cluster", seed, n_clusters=3)
    with torch.no_grad():
        renamed.blocks.copy_(users.blocks[order])
        renamed.logit.copy_(users.logit[:, order])
        renamed.generic_logit.copy_(users.generic_logit[order])
    torch.testing.assert_close(renamed(EVERYBODY), users(EVERYBODY))


def test_hard_clusters_are_assigned_and_stand_for_themselves():
    users = filled("cluster", hard=True)
    users.assign(torch.tensor([1, 0, 1]))
    rows = users(torch.tensor([0, 1, 2, 3, 4]))
    assert torch.equal(rows, users.blocks[torch.tensor([1, 0, 1, 0, 1])])


@pytest.mark.parametrize(
    ("cluster", "message"),
    [([0, 2, 0], r"user 1 is in cluster 2; it must be 0 to 1"), ([0, 1], "2 clusters for 3 users")],
)
def test_assignments_that_cannot_be(cluster, message):
    with pytest.raises(ConfigError, match=message):
        filled("cluster", hard=True).assign(torch.tensor(cluster))


def test_soft_clusters_are_not_assigned():
    with pytest.raises(ConfigError, match="users mix the clusters"):
        filled("cluster").assign(torch.tensor([0, 0, 0]))


def test_absent_users_get_no_gradient():
    for kind, table in (("individual", "offset"), ("basis", "weight"), ("cluster", "logit")):
        users = filled(kind)
        users(torch.tensor([2, UNKNOWN])).pow(2).sum().backward()
        moved = getattr(users, table).grad.flatten(1).abs().sum(1) > 0
        assert moved.tolist() == [False, False, True]
        assert getattr(users, table) is users.tables()[0]


def test_of_clusters_the_generic_row_moves_with_the_generic_term_alone():
    users = filled("cluster")
    users(torch.tensor([0, 1])).pow(2).sum().backward()
    assert not users.generic_logit.grad.any()
    individual = filled("individual")
    individual(torch.tensor([0, 1])).pow(2).sum().backward()
    assert individual.generic.grad.any()


@pytest.mark.parametrize("kind", ["individual", "basis", "text"])
def test_everybody_starts_as_the_generic_user(kind):
    users = make_user_tokens(kind, n_users=3, n_tokens=2, dim=5, **EXTRA.get(kind, {}))
    if isinstance(users, TextTokens):
        users.describe(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)))
    words = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    start(users, from_vocabulary(words, torch.Generator().manual_seed(0)), torch.Generator())
    rows = users(EVERYBODY)
    assert all(torch.equal(each, users.generic) for each in rows)
    assert all(any(torch.equal(row, word) for word in words) for row in users.generic)


def test_a_basis_moves_its_weights_first():
    users = make_user_tokens("basis", n_users=3, n_tokens=1, dim=5, rank=2)
    words = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    start(users, from_vocabulary(words, torch.Generator().manual_seed(0)), torch.Generator())
    users(torch.tensor([0])).pow(2).sum().backward()
    assert users.weight.grad[0].any()
    assert not users.blocks.grad.any()


def test_clusters_start_apart():
    users = ClusterTokens(n_users=3, n_tokens=1, dim=5, n_clusters=2)
    words = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    start(users, from_vocabulary(words, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(0))
    assert users.logit.std() > 0.1
    assert not torch.equal(users.blocks[0], users.blocks[1])
    assert not users.generic_logit.any()


def test_settings_make_it_again():
    for kind in KINDS:
        settings = filled(kind).settings()
        again = make_user_tokens(**settings)
        again.load_state_dict(filled(kind).state_dict())
        assert torch.equal(again(EVERYBODY), filled(kind)(EVERYBODY))


@pytest.mark.parametrize("kind", ["individual", "basis", "text", "cluster"])
def test_a_model_without_users_has_the_generic_one(kind):
    users = make_user_tokens(kind, n_users=0, n_tokens=1, dim=5, **EXTRA.get(kind, {}))
    assert users(torch.tensor([UNKNOWN, UNKNOWN])).shape == (2, 1, 5)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("clusters", {}, 'unknown user model "clusters"; known: uniform, individual'),
        ("basis", {"rank": 0}, "rank is 0; it must be at least 1"),
        ("cluster", {"n_clusters": 0}, "n_clusters is 0"),
        ("individual", {"rank": 3}, "user model individual: .*rank"),
        ("uniform", {"n_tokens": -1}, "-1 tokens per user"),
    ],
)
def test_settings_that_cannot_be(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_user_tokens(kind, **{"n_users": 2, "n_tokens": 1, "dim": 4, **settings})


def test_descriptions_of_another_shape():
    with pytest.raises(ConfigError, match=r"descriptions are \(2, 4\), and the user model is for \(3, 4\)"):
        filled("text").describe(torch.zeros(2, 4))
