from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.comparisons import conversions, from_best_of, from_rankings, from_ratings, from_votes
from pluralign.errors import ConfigError, DataError


def spelled(table):
    """Rows as user, chosen, rejected."""
    texts = table.items.response.to_pylist()
    return [
        (table.user_ids[user], texts[chosen], texts[rejected])
        for user, chosen, rejected in zip(table.user, table.chosen, table.rejected, strict=True)
    ]


def test_ratings_become_pairs_of_different_ratings():
    table = from_ratings(user=list("vuuuv"), item=list("abcda"), rating=[1, 1, 3, 3, 5])
    assert spelled(table) == [("u", "c", "b"), ("u", "d", "b")]
    assert spelled(from_ratings(user=list("uuu"), item=list("abc"), rating=[1, 2, 4], min_gap=2.0)) == [
        ("u", "c", "a"),
        ("u", "c", "b"),
    ]


def test_ratings_are_compared_under_one_prompt_and_one_source():
    table = from_ratings(user=list("uuuu"), item=list("abcd"), rating=[1, 2, 3, 4], prompt=list("ppqq"))
    assert spelled(table) == [("u", "b", "a"), ("u", "d", "c")]
    assert table.source_ids == ("p", "q")
    table = from_ratings(user=list("uuuu"), item=list("abcd"), rating=[1, 2, 3, 4], source=list("stst"))
    assert spelled(table) == [("u", "c", "a"), ("u", "d", "b")]
    assert table.source_ids == ("s", "t")


RATINGS = st.lists(st.tuples(st.sampled_from("uvwx"), st.integers(0, 5), st.integers(0, 4)), max_size=30)


@settings(deadline=None)
@given(RATINGS, st.sampled_from([0.0, 1.0, 2.5]), st.integers(1, 8))
def test_pairs_of_ratings_are_those_of_a_plain_loop_in_blocks_of_any_size(ratings, gap, block):
    expected = []
    for user in dict.fromkeys(user for user, _, _ in ratings):
        own = [(item, score) for name, item, score in ratings if name == user]
        for (a, x), (b, y) in combinations(own, 2):
            if a != b and x != y and abs(x - y) >= gap:
                expected.append((user, f"item {a}", f"item {b}") if x > y else (user, f"item {b}", f"item {a}"))
    user, item, score = (list(column) for column in zip(*ratings, strict=True)) if ratings else ([], [], [])
    arguments = {"user": user, "item": item, "rating": score, "attributes": np.eye(6), "min_gap": gap}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversions, "BLOCK_PAIRS", block)
        if not expected:
            with pytest.raises(DataError, match="no comparison is left"):
                from_ratings(**arguments)
            return
        table = from_ratings(**arguments)
        some = from_ratings(**arguments, max_pairs=3, seed=5)
    assert spelled(table) == expected
    counts = np.bincount(table.user, minlength=table.n_users)
    assert np.bincount(some.user, minlength=table.n_users).tolist() == np.minimum(counts, 3).tolist()
    rest = iter(expected)
    assert all(row in rest for row in spelled(some))  # in the same order


def test_drawn_pairs_depend_on_the_seed_alone():
    ratings = {"user": ["u"] * 30, "item": [f"i{i}" for i in range(30)], "rating": np.arange(30), "max_pairs": 10}
    assert spelled(from_ratings(**ratings, seed=1)) == spelled(from_ratings(**ratings, seed=1))
    assert spelled(from_ratings(**ratings, seed=1)) != spelled(from_ratings(**ratings, seed=2))


def test_every_pair_is_as_likely_to_be_drawn():
    # 2,000 users draw 2 of the 10 pairs of 5 items: each pair about 400 times, with a standard deviation of 18.
    n = 2000
    user = np.repeat([f"u{i}" for i in range(n)], 5)
    table = from_ratings(
        user=user.tolist(),
        item=np.tile(np.arange(5), n),
        rating=np.tile(np.arange(5), n),
        attributes=np.eye(5),
        max_pairs=2,
        seed=0,
    )
    count = np.bincount(table.chosen * 5 + table.rejected, minlength=25)
    assert np.abs(count[count > 0] - 400).max() < 90
    assert np.count_nonzero(count) == 10


def test_items_given_by_number_keep_their_numbers():
    texts = ["zero", "one", "two"]
    table = from_ratings(user=["u", "u"], item=[2, 0], rating=[1.0, 2.0], responses=texts)
    assert table.items.response.to_pylist() == texts
    assert (table.chosen.tolist(), table.rejected.tolist()) == ([0], [2])
    table = from_ratings(
        user=["u", "u"], item=[2, 0], rating=[1.0, 2.0], attributes=np.eye(3), attribute_names="abc", responses=texts
    )
    assert table.format == "numeric"
    assert table.items.attribute_names == ("a", "b", "c")
    assert (table.chosen.tolist(), table.rejected.tolist()) == ([0], [2])


def test_one_text_under_two_numbers_is_one_item():
    table = from_ratings(user=["u"] * 3, item=[0, 1, 2], rating=[1, 2, 3], responses=["x", "y", "x"])
    assert spelled(table) == [("u", "y", "x"), ("u", "x", "y")]
    assert table.items.response.to_pylist() == ["x", "y"]


def test_a_ranking_is_a_chain_of_choices():
    table = from_rankings(user=["u", "v"], ranking=[["a", "b", "c"], ["c", "a"]])
    assert spelled(table) == [("u", "a", "b"), ("u", "a", "c"), ("u", "b", "c"), ("v", "c", "a")]
    assert table.decision.tolist() == [0, 0, 1, 2]
    assert table.source.tolist() == [0, 0, 0, 1]
    assert (np.diff(table.choice) >= 0).all()


def test_a_ranking_as_pairs_has_the_same_rows_and_no_choices():
    ranking = {"user": ["u", "v"], "ranking": [["a", "b", "c"], ["c", "a"]], "prompt": ["p", "q"]}
    pairs = from_rankings(**ranking, form="pairs")
    assert spelled(pairs) == spelled(from_rankings(**ranking))
    assert pairs.choice is None
    assert pairs.source_ids == ("p", "q")


def test_best_of_k_is_one_decision_of_k_minus_1_rows():
    table = from_best_of(user=["u", "v"], options=[["a", "b", "c"], ["c", "a"]], best=[1, 0])
    assert spelled(table) == [("u", "b", "a"), ("u", "b", "c"), ("v", "c", "a")]
    assert table.decision.tolist() == [0, 0, 1]
    assert table.source_ids == ("choice 1", "choice 2")
    numeric = from_best_of(user=["u", "v"], options=[[0, 1, 2], [2, 0]], best=[1, 0], attributes=np.eye(3))
    assert numeric.chosen.tolist() == [1, 1, 2]
    assert numeric.rejected.tolist() == [0, 2, 0]


def test_votes_of_several_judges():
    table = from_votes(
        user=["ann", "bob", "cy"],
        first=["a"] * 3,
        second=["b"] * 3,
        vote=[1, -1, 0],
        prompt=["p"] * 3,
        first_shown_first=True,
    )
    assert spelled(table) == [("ann", "a", "b"), ("bob", "b", "a"), ("cy", "a", "b")]
    assert table.outcome.tolist() == [1, 1, 0.5]
    assert table.position.tolist() == [1, -1, 1]
    assert table.source.tolist() == [0, 0, 0]
    plain = from_votes(user=["ann"], first=[0], second=[1], vote=[-1], responses=["a", "b"])
    assert plain.outcome is None
    assert plain.position is None
    assert spelled(plain) == [("ann", "b", "a")]


@pytest.mark.parametrize(
    ("convert", "arguments", "message"),
    [
        (
            from_ratings,
            {"user": ["u"], "item": ["a"], "rating": [np.nan]},
            r"rating has 1 values that are not accepted: nan \(row 1\); accepted: finite numbers",
        ),
        (from_ratings, {"user": ["u"], "item": ["a"], "rating": [1, 2]}, "user has 1 values where there are 2"),
        (
            from_ratings,
            {"user": ["u"], "item": [3], "rating": [1], "responses": ["a"]},
            "item 3 is out of range; there are 1, numbered from 0",
        ),
        (from_ratings, {"user": ["u"], "item": [3], "rating": [1]}, "item 3 is not a text"),
        (
            from_ratings,
            {"user": ["u"], "item": ["a"], "rating": [1], "responses": ["a"]},
            'items are <U1, such as "a"; accepted are whole numbers',
        ),
        (
            from_ratings,
            {"user": ["u"], "item": [0], "rating": [1], "attributes": np.array([[np.inf]])},
            "item 0 has x0 inf; it must be finite",
        ),
        (
            from_ratings,
            {"user": ["u"], "item": [0], "rating": [1], "attributes": np.eye(2), "attribute_names": ["a"]},
            "1 attribute names for 2 attributes",
        ),
        (
            from_ratings,
            {"user": ["u"] * 2, "item": ["a", "b"], "rating": np.array(["good", "2"])},
            "rating holds something else than",
        ),
        (
            from_ratings,
            {"user": pa.array(["u", None]), "item": ["a", "b"], "rating": [1, 2]},
            "row 2: a text is missing",
        ),
        (
            from_votes,
            {"user": ["u"], "first": ["a"], "second": ["b"], "vote": [1], "source": pa.array([None], pa.string())},
            "row 1: a text is missing",
        ),
        (
            from_ratings,
            {"user": np.array([1.5, 2.0]), "item": ["a", "b"], "rating": [1, 2]},
            r"1\.5 is no name; accepted are texts",
        ),
        (
            from_best_of,
            {"user": ["u"], "options": [["a", "b"]], "best": [0.5]},
            r"best has 1 values .*: 0\.5 \(row 1\)",
        ),
        (from_best_of, {"user": ["u"], "options": [["a", "b"]], "best": [np.nan]}, r"best has 1 values .*: nan"),
        (
            from_rankings,
            {"user": ["u"], "ranking": ["xyz"]},
            'ranking 1 is one text, "xyz"; it must be a list of items',
        ),
        (from_rankings, {"user": [], "ranking": []}, "there is no ranking"),
        (from_rankings, {"user": ["u"], "ranking": [["a"]]}, "ranking 1 has 1 items; it must have at least 2"),
        (from_rankings, {"user": ["u", "v"], "ranking": [["a", "b"], ["c", "d", "c"]]}, 'ranking 2 has "c" twice'),
        (
            from_best_of,
            {"user": ["u"], "options": [["a", "b"]], "best": [2]},
            "choice 1: best is 2, its options are numbered 0 to 1",
        ),
        (from_best_of, {"user": ["u"], "options": [["a", "b", "a"]], "best": [1]}, 'choice 1 has "a" twice'),
        (
            from_votes,
            {"user": ["u"], "first": ["a"], "second": ["b"], "vote": [2]},
            r"vote has 1 values that are not accepted: 2.0 \(row 1\); accepted: 1 \(first\), -1 \(second\) and 0",
        ),
        (
            from_votes,
            {"user": ["u"], "first": ["a"], "second": ["a"], "vote": [1]},
            r'row 1: chosen and rejected are the same response \("a"\), and so in 1 rows',
        ),
    ],
)
def test_what_cannot_be_converted(convert, arguments, message):
    with pytest.raises(DataError, match=message):
        convert(**arguments)


def test_settings_are_checked():
    ratings = {"user": ["u"] * 2, "item": ["a", "b"], "rating": [1, 2]}
    with pytest.raises(ConfigError, match=r"min_gap is -1\.0; it must be 0 or more"):
        from_ratings(**ratings, min_gap=-1.0)
    with pytest.raises(ConfigError, match="max_pairs is 0; it must be 1 or more, or None for all pairs"):
        from_ratings(**ratings, max_pairs=0)
    with pytest.raises(ConfigError, match='form is "triples"; known: choices, pairs'):
        from_rankings(user=["u"], ranking=[["a", "b"]], form="triples")


def test_names_may_be_whole_numbers():
    table = from_ratings(user=np.array([7, 7, 12, 12]), item=["a", "b"] * 2, rating=[1, 2, 2, 1], source=[3] * 4)
    assert (table.user_ids, table.source_ids) == (("7", "12"), ("3",))
