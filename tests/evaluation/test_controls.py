import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.errors import ConfigError
from pluralign.evaluation import other_users, permute_within, shuffle_membership


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_nobody_gets_itself_and_every_known_user_is_lent_once(seed, n_known):
    known = np.random.default_rng(seed).permutation(20)[:n_known]
    other = other_users(known, 20, seed=seed)
    assert (other != np.arange(20)).all()
    assert sorted(other[known]) == sorted(known)
    assert set(other) <= set(known.tolist())


def test_every_other_user_is_equally_likely():
    drawn = np.array([other_users(np.arange(4), 4, seed=seed)[0] for seed in range(3000)])
    assert np.bincount(drawn, minlength=4)[0] == 0
    np.testing.assert_allclose(np.bincount(drawn)[1:] / 3000, 1 / 3, atol=0.04)


def test_one_known_user_has_nobody_else():
    with pytest.raises(ConfigError, match=r"1 user\(s\) have training rows; another user's model needs at least 2"):
        other_users(np.array([3, 3]), 5, seed=0)


def test_shuffling_keeps_sizes_and_leaves_others_alone():
    membership = np.repeat([0, 1, 2], [70, 20, 10])
    shuffled = shuffle_membership(membership, seed=0)
    assert np.bincount(shuffled).tolist() == [70, 20, 10]
    assert (shuffled != membership).sum() > 10
    known = np.arange(50, 100)
    assert (shuffle_membership(membership, seed=0, known=known)[:50] == membership[:50]).all()


def test_shuffling_probabilities_moves_whole_rows():
    membership = np.random.default_rng(0).dirichlet(np.ones(3), 8)
    shuffled = shuffle_membership(membership, seed=1)
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, membership))


@given(st.integers(0, 2**32 - 1))
def test_permuting_within_groups_keeps_each_group(seed):
    rng = np.random.default_rng(seed)
    values, group = np.arange(40), rng.integers(0, 6, 40)
    permuted = permute_within(values, group, seed=seed)
    for g in range(6):
        assert sorted(permuted[group == g]) == values[group == g].tolist()
    assert (permuted == permute_within(values, group, seed=seed)).all()


def test_permuting_within_groups_is_uniform():
    first = np.array([permute_within(np.arange(6), np.array([0, 1, 0, 1, 0, 1]), seed=s)[1] for s in range(3000)])
    np.testing.assert_allclose(np.bincount(first, minlength=6) / 3000, [0, 1 / 3, 0, 1 / 3, 0, 1 / 3], atol=0.04)
