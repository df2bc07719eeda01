import numpy as np

from pluralign.comparisons import check, from_columns, read


def table(*rows, **more):
    """Rows of chosen, rejected, user."""
    chosen, rejected, user = (list(column) for column in zip(*rows, strict=True))
    return from_columns(prompt=["p"] * len(rows), chosen=chosen, rejected=rejected, user=user, **more)


def found(comparisons):
    return {finding.name: (finding.count, finding.rows) for finding in check(comparisons)}


def test_nothing_odd_is_an_empty_list():
    assert check(table(("a", "b", "u"), ("a", "c", "u"), ("b", "c", "v"), ("a", "b", "v"))) == []


def test_a_pair_decided_both_ways_by_one_user():
    odd = table(("a", "b", "u"), ("b", "a", "v"), ("b", "a", "u"), ("a", "c", "v"))
    assert found(odd) == {"contradiction": (1, (0, 2))}
    assert check(odd)[0].message == (
        "1 pairs were decided both ways by one user; kept: they bound the accuracy that any model can reach"
    )


def test_a_soft_label_turns_the_pair_and_a_tie_contradicts_nothing():
    rows = ("a", "b", "u"), ("b", "a", "u")
    assert found(table(*rows, outcome=np.array([1.0, 0.2]))) == {}
    assert found(table(*rows, outcome=np.array([1.0, 0.5]))) == {}
    assert found(table(*rows, outcome=np.array([0.4, 0.2]))) == {"contradiction": (1, (0, 1))}


def test_repeated_rows_of_one_user():
    rows = ("a", "b", "u"), ("a", "b", "v"), ("a", "b", "u"), ("a", "c", "v")
    assert found(table(*rows)) == {"duplicate": (1, (2,))}
    assert found(table(*rows, outcome=np.array([1, 1, 0.7, 1]))) == {}


def test_a_decision_is_a_duplicate_only_as_a_whole():
    rows = ("a", "b", "u"), ("a", "c", "u"), ("a", "b", "u"), ("a", "d", "u")
    assert found(table(*rows, choice=np.array([0, 0, 1, 1]))) == {}
    assert found(table(*rows[:2], *rows[:2], choice=np.array([0, 0, 1, 1]))) == {"duplicate": (2, (2, 3))}


def test_a_user_with_a_single_decision_is_reported_whatever_its_rows():
    rows = ("a", "b", "u"), ("a", "c", "u"), ("a", "b", "v"), ("a", "c", "v")
    assert found(table(*rows, choice=np.array([0, 0, 1, 2]))) == {"single_comparison": (1, (0,))}


def test_empty_and_printed_responses():
    odd = table(("['x', 'y']", "b", "u"), ("a", "  ", "u"), ("a [1]", '[{"role": "user"}]\n', "u"))
    assert found(odd) == {"empty_response": (1, (1,)), "printed_list": (2, (0, 2))}


def test_rows_are_sampled():
    many = table(*[("a", str(i), f"user {i}") for i in range(9)])
    assert found(many) == {"single_comparison": (9, (0, 1, 2, 3, 4))}


def test_users_of_whom_nothing_is_known():
    data = {"chosen": ["a", "a", "a"], "rejected": ["b", "c", "b"], "user": ["u", "u", "v"]}
    names = found(read(data, users={"user": ["u"], "age": [3]}))
    assert names["user_without_covariates"] == (1, (2,))
