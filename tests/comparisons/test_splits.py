from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.comparisons import (
    fold_by_source,
    from_columns,
    group_rows,
    split_by_item,
    split_by_source,
    split_given,
    split_last,
    split_users,
    study_split,
)
from pluralign.errors import ConfigError, DataError


def population(seed, n_decisions=60, n_sources=12, n_users=7, n_responses=15):
    """Decisions of one to three rows, sources of very unequal size."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 4, n_decisions)
    decision = np.repeat(np.arange(n_decisions), size)
    source = (n_sources * rng.random(n_decisions) ** 2).astype(int)
    user = rng.integers(0, n_users, n_decisions)
    chosen = rng.integers(0, n_responses, n_decisions)[decision]
    rejected = (chosen + rng.integers(1, n_responses, len(decision))) % n_responses
    return from_columns(
        prompt=[""] * len(decision),
        chosen=[f"r{i}" for i in chosen],
        rejected=[f"r{i}" for i in rejected],
        user=[f"u{i}" for i in user[decision]],
        source=[f"s{i}" for i in source[decision]],
        choice=decision,
    )


def sets(column, *rows):
    return [set(column[some].tolist()) for some in rows]


SEED = st.integers(0, 2**32 - 1)
LAWS = settings(deadline=None, max_examples=30)


@LAWS
@given(SEED, st.floats(0.05, 0.95), st.sampled_from(["source", "response"]))
def test_no_source_straddles_and_no_decision_is_torn(seed, share, together):
    table = population(seed, n_responses=4000)
    try:
        split = split_by_source(table, share, seed=seed, together=together)
    except DataError as error:
        assert (together, str(error)[-11:]) == ("response", "there are 1")  # noqa: PT017
        return
    train, test = sets(table.source, split.train, split.test)
    assert train
    assert test
    assert not train & test
    assert sorted([*split.train, *split.test]) == list(range(len(table)))
    table.take(split.train), table.take(split.test)  # raises where a decision is torn
    if together == "response":
        responses = [
            set(table.chosen[rows].tolist()) | set(table.rejected[rows].tolist()) for rows in (split.train, split.test)
        ]
        assert not responses[0] & responses[1]


@LAWS
@given(SEED)
def test_the_share_is_met_up_to_the_smallest_source_left_over(seed):
    table = population(seed)
    split = split_by_source(table, 0.3, seed=seed)
    size = np.bincount(table.source, minlength=len(table.source_ids))
    kept = set(table.source[split.train].tolist())
    missing = 0.3 * len(table) - len(split.test)
    smallest = min(size[list(kept)])
    assert 0 <= missing < smallest or len(sets(table.source, split.test)[0]) == 1


@LAWS
@given(SEED, st.integers(2, 5))
def test_folds_are_whole_sources_of_about_equal_size(seed, n_folds):
    table = population(seed)
    fold = fold_by_source(table, n_folds, seed=seed)
    rows = [np.flatnonzero(fold == i) for i in range(n_folds)]
    found = sets(table.source, *rows)
    assert sum(map(len, found)) == len(set().union(*found)) == len(set(table.source.tolist()))
    assert set(fold.tolist()) == set(range(n_folds))
    # The fold that is fullest was the emptiest when its last and smallest source came.
    largest = max(rows, key=len)
    last = np.bincount(table.source[largest])
    assert len(largest) - last[last > 0].min() <= min(map(len, rows))


@LAWS
@given(SEED)
def test_unseen_users_are_in_no_training_row_and_test_sources_neither(seed):
    table = population(seed)
    split = study_split(table, seed=seed, test=0.3, unseen=0.3)
    parts = split.train, split.test, split.unseen_adapt, split.unseen_test
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(table)))
    users = sets(table.user, *parts)
    assert not (users[0] | users[1]) & (users[2] | users[3])
    assert users[2] | users[3] == set(split.unseen_users.tolist())
    assert len(split.unseen_users) == round(0.3 * len(set(table.user.tolist())))
    sources = sets(table.source, *parts)
    assert not (sources[0] | sources[2]) & (sources[1] | sources[3])
    for rows in parts:
        table.take(rows)


@LAWS
@given(SEED)
def test_the_seed_decides(seed):
    table = population(3, n_decisions=300, n_sources=40, n_users=40)
    for split in (split_by_source, split_users, partial(split_by_item, test=0.5), study_split):
        one, two = split(table, seed=seed), split(table, seed=seed)
        assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))
    np.testing.assert_array_equal(fold_by_source(table, seed=seed), fold_by_source(table, seed=seed))


def test_another_seed_is_another_split():
    table = population(3, n_decisions=300, n_sources=40, n_users=40)
    for split in (split_by_source, split_users, partial(split_by_item, test=0.5), study_split):
        assert len({split(table, seed=seed).test.tobytes() for seed in range(10)}) >= 8
    assert len({fold_by_source(table, seed=seed).tobytes() for seed in range(10)}) >= 8


def test_a_large_source_stays_in_training():
    table = from_columns(prompt=["big"] * 8 + ["a", "b"], chosen=["x"] * 10, rejected=["y"] * 10, user=["u"] * 10)
    for seed in range(5):
        split = split_by_source(table, 0.2, seed=seed)
        assert table.source[split.test].tolist() == [1, 2]


def test_sources_that_share_a_response_hang_together_by_way_of_others():
    table = from_columns(
        prompt=["p", "q", "r", "s"],
        chosen=["a", "b", "c", "x"],
        rejected=["b", "c", "d", "y"],
        user=["u"] * 4,
    )
    group = group_rows(table, "response")
    assert group[0] == group[1] == group[2] != group[3]
    assert len(set(group_rows(table).tolist())) == 4


@LAWS
@given(SEED, st.floats(0.4, 0.6))
def test_test_responses_are_never_seen_in_training(seed, share):
    table = population(seed, n_decisions=300)
    split = split_by_item(table, share, seed=seed)
    responses = [
        set(table.chosen[rows].tolist()) | set(table.rejected[rows].tolist()) for rows in (split.train, split.test)
    ]
    assert all(responses)
    assert not responses[0] & responses[1]
    assert len(split.train) + len(split.test) + split.n_dropped == len(table)
    table.take(split.train), table.take(split.test)


def test_rows_that_straddle_are_dropped_and_counted():
    # Two responses of four are held out; of the six pairs one is within either side, four straddle.
    pairs = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    table = from_columns(
        prompt=[f"p{i}" for i in range(6)],  # one text under several prompts is still one response
        chosen=[a for a, _ in pairs],
        rejected=[b for _, b in pairs],
        user=["u"] * 6,
    )
    split = split_by_item(table, 0.5, seed=0)
    assert (len(split.train), len(split.test), split.n_dropped) == (1, 1, 4)


def test_the_last_decisions_of_each_user():
    table = from_columns(
        prompt=[""] * 10,
        chosen=["a"] * 10,
        rejected=list("bcbbcbcbbb"),
        user=["u", "u", "v", "u", "v", "v", "u", "v", "u", "w"],
        choice=np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
    )
    split = split_last(table, 0.25)  # u and v have four decisions each, the last are rows 8 and 7; w has one
    assert split.test.tolist() == [7, 8]
    assert split_last(table, 0.5).test.tolist() == [5, 6, 7, 8]
    with pytest.raises(
        DataError, match=r"a share of 0\.1 is less than one decision of every user; they have at most 4"
    ):
        split_last(table, 0.1)


@LAWS
@given(SEED, st.floats(0.2, 0.8))
def test_the_last_share_comes_after_all_that_is_trained_on(seed, share):
    table = population(seed)
    split = split_last(table, share)
    table.take(split.train), table.take(split.test)
    for user in set(table.user.tolist()):
        train, test = (rows[table.user[rows] == user] for rows in (split.train, split.test))
        n_train, n_test = (len(set(table.decision[rows].tolist())) for rows in (train, test))
        assert n_test == int(share * (n_train + n_test) + 1e-9)
        assert n_test == 0 or train.max() < test.min()


def given_split(*names):
    n = len(names)
    return from_columns(
        prompt=["p", "q", "r", "p"][:n], chosen=["a"] * n, rejected=["b"] * n, user=["u"] * n, split=np.array(names)
    )


def test_the_split_that_the_data_came_with():
    split = split_given(given_split("train", "valid", "other"), test=["valid"])
    assert (split.train.tolist(), split.test.tolist(), split.n_dropped) == ([0], [1], 1)
    straddling = given_split("train", "test", "test", "test")
    with pytest.raises(DataError, match="1 sources are in training and in test rows, such as 'p'"):
        split_given(straddling)
    assert split_given(straddling, straddling="keep").test.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="no row has split dev; there are: other, train, valid"):
        split_given(given_split("train", "valid", "other"), test=["dev"])
    with pytest.raises(ConfigError, match='split "train" is named for training and for testing'):
        split_given(straddling, test=["train"])


def test_what_cannot_be_split_is_said():
    table = from_columns(prompt=["p", "p"], chosen=["a", "a"], rejected=["b", "c"], user=["u", "u"])
    for split in (split_by_source, study_split):
        with pytest.raises(DataError, match="the split needs at least 2 sources, there are 1") as caught:
            split(table, seed=0)
        assert caught.value.hint.startswith("name a finer source column")
    with pytest.raises(DataError, match="the split needs at least 5 sources, there are 1"):
        fold_by_source(table, seed=0)
    with pytest.raises(DataError, match="unseen users need at least 2 users with rows, there is 1"):
        split_users(table, seed=0)
    with pytest.raises(
        DataError, match=r"of 3 responses 1 were held out, which leaves . rows to train on and 0 to test"
    ):
        split_by_item(table, seed=0)
    with pytest.raises(DataError, match="the data have no split column"):
        split_given(table)
    torn = from_columns(
        prompt=["p", "p"],
        chosen=["a", "a"],
        rejected=["b", "c"],
        user=["u", "u"],
        source=["s", "t"],
        choice=np.array([0, 0]),
    )
    with pytest.raises(DataError, match="row 2 has another source than the first row of its decision"):
        split_by_source(torn, seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_shares_are_checked(share):
    table = population(0)
    for split in (split_by_source, split_users, split_by_item):
        with pytest.raises(ConfigError, match=f"is {share}; it must be between 0 and 1, both excluded"):
            split(table, share, seed=0)
    with pytest.raises(ConfigError, match=f"share is {share}"):
        split_last(table, share)
    with pytest.raises(ConfigError, match="n_folds is 1; it must be at least 2"):
        fold_by_source(table, 1, seed=0)
    with pytest.raises(ConfigError, match='together is "user"; known: source, response'):
        group_rows(table, "user")
