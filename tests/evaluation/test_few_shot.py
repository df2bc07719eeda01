import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import feasible_sizes, split_few_shot


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_contexts_are_nested_and_share_no_source_with_the_one_test_part(seed):
    rng = np.random.default_rng(seed)
    user, source = rng.integers(0, 9, 250), rng.integers(0, 25, 250)
    split = split_few_shot(user, source, sizes=(0, 1, 4, 8), min_test=3, seed=seed)
    before = np.array([], dtype=np.int32)
    for m, context in zip(split.sizes, split.context, strict=True):
        assert np.bincount(user[context], minlength=9)[split.users].tolist() == [m] * len(split.users)
        assert len(context) == m * len(split.users)
        assert set(before) <= set(context)
        before = context
    assert not set(before) & set(split.test)
    for u in split.users:
        tested = source[split.test[user[split.test] == u]]
        assert len(tested) >= 3
        if u not in split.siblings:
            assert not set(tested) & set(source[before[user[before] == u]])


def test_users_too_small_are_left_out_of_every_size():
    user = np.repeat([4, 7, 9], [10, 5, 6])
    split = split_few_shot(user, np.arange(21), sizes=[2, 0, 4], min_test=2, seed=0)
    assert split.sizes == (0, 2, 4)
    assert split.users.tolist() == [4, 9]
    assert split.left_out.tolist() == [7]
    assert np.bincount(user[split.test])[[4, 7, 9]].tolist() == [6, 0, 2]


def test_a_user_of_one_source_is_split_all_the_same_and_listed():
    user = np.repeat([0, 1], [10, 10])
    source = np.concatenate([np.zeros(10), np.arange(10)]).astype(int)
    split = split_few_shot(user, source, sizes=(0, 4), min_test=4, seed=0)
    assert split.siblings.tolist() == [0]
    assert np.bincount(user[split.test]).tolist() == [6, 6]


def test_siblings_of_the_context_are_not_tested():
    # Six sources of five: a context of 4 leaves its own source's fifth decision out, and five sources to test.
    split = split_few_shot(np.zeros(30, dtype=int), np.repeat(np.arange(6), 5), sizes=(4,), seed=0)
    assert len(split.test) == 25


def test_every_decision_is_as_likely_to_be_context():
    source = np.repeat(np.arange(5), 2)
    first = [split_few_shot(np.zeros(10, dtype=int), source, sizes=(1,), seed=s).context[0][0] for s in range(500)]
    np.testing.assert_allclose(np.bincount(first, minlength=10) / 500, 0.1, atol=0.06)


def test_the_same_seed_gives_the_same_split():
    user, source = np.arange(100) % 3, np.arange(100) // 2
    one, other = (split_few_shot(user, source, seed=5, sizes=(0, 8)) for _ in range(2))
    assert (one.test == other.test).all()
    assert (one.context[1] == other.context[1]).all()
    assert (one.test != split_few_shot(user, source, seed=6, sizes=(0, 8)).test[: len(one.test)]).any()


def test_feasible_sizes_by_hand():
    # Users of 10, 10 and 5 decisions: 5 - 4 = 1 is what all can fill, 10 - 4 = 6 what two of three can.
    user = np.repeat([0, 1, 2], [10, 10, 5])
    assert feasible_sizes(user) == (0, 1, 2, 4)
    assert feasible_sizes(user, share=1.0) == (0, 1)


def test_nobody_large_enough_is_an_error():
    with pytest.raises(DataError, match=r"no user has 32 \+ 4 decisions; the largest has 5"):
        split_few_shot(np.zeros(5, dtype=int), np.arange(5), seed=0)


def test_sizes_that_repeat_are_an_error():
    with pytest.raises(ConfigError, match=r"sizes are \[1, 1\] and min_test is 4"):
        split_few_shot(np.zeros(5, dtype=int), np.arange(5), sizes=(1, 1), seed=0)
