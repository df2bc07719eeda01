import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.comparisons import from_attributes, from_columns
from pluralign.errors import DataError

TEXT = st.text(alphabet="ab é\n", max_size=3)
ROW = st.tuples(TEXT, TEXT, TEXT, st.sampled_from("uvw"))


def test_a_text_under_two_prompts_is_two_items():
    table = from_columns(prompt=["p", "q"], chosen=["x", "x"], rejected=["y", "y"], user=["u", "u"])
    assert table.items.response.to_pylist() == ["x", "x", "y", "y"]
    assert table.items.prompt.tolist() == [0, 1, 0, 1]
    assert table.chosen.tolist() == [0, 1]
    assert table.rejected.tolist() == [2, 3]


@settings(deadline=None)
@given(st.lists(ROW, max_size=20))
def test_columns_come_back_and_no_item_is_stored_twice(rows):
    prompt, chosen, rejected, user = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 4
    table = from_columns(prompt=prompt, chosen=chosen, rejected=rejected, user=user)
    texts, prompts = table.items.response.to_pylist(), table.items.prompts.to_pylist()
    assert [texts[i] for i in table.chosen] == chosen
    assert [texts[i] for i in table.rejected] == rejected
    assert [prompts[table.items.prompt[i]] for i in table.chosen] == prompt
    assert [prompts[table.items.prompt[i]] for i in table.rejected] == prompt
    assert [table.user_ids[i] for i in table.user] == user
    pairs = [(int(p), text) for p, text in zip(table.items.prompt, texts, strict=True)]
    assert len(set(pairs)) == len(pairs)
    assert len(set(prompts)) == len(prompts)
    assert sorted(set(table.chosen.tolist()) | set(table.rejected.tolist())) == list(range(len(table.items)))


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12), st.integers(1, 5))
def test_cutting_the_columns_into_chunks_changes_nothing(rows, width):
    columns = dict(zip(("prompt", "chosen", "rejected", "user"), map(list, zip(*rows, strict=True)), strict=True))
    cut = {
        name: pa.chunked_array([pa.array(values[i : i + width]) for i in range(0, len(values), width)])
        for name, values in columns.items()
    }
    whole, chunked = from_columns(**columns), from_columns(**cut)
    assert whole.items.response.equals(chunked.items.response)
    assert whole.source_ids == chunked.source_ids
    for name in ("chosen", "rejected", "user", "source"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(chunked, name))


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20), st.data())
def test_take_keeps_every_number(rows, data):
    prompt, chosen, rejected, user = (list(column) for column in zip(*rows, strict=True))
    table = from_columns(
        prompt=prompt, chosen=chosen, rejected=rejected, user=user, outcome=np.linspace(0, 1, len(rows))
    )
    some = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), unique=True)), dtype=np.int64)
    part = table.take(some)
    assert part.items is table.items
    assert part.user_ids is table.user_ids
    for name in ("chosen", "rejected", "user", "source", "outcome"):
        np.testing.assert_array_equal(getattr(part, name), getattr(table, name)[some])
    mask = np.isin(np.arange(len(rows)), some)
    np.testing.assert_array_equal(table.take(mask).chosen, table.take(np.sort(some)).chosen)


def test_texts_of_a_dictionary_that_no_row_has_are_left_out():
    user = pa.chunked_array([pa.array(["nobody", "ann", "bob"]).dictionary_encode().take(pa.array([2, 1, 2]))])
    table = from_columns(prompt=["p"] * 3, chosen=["x"] * 3, rejected=["y"] * 3, user=user)
    assert table.user_ids == ("bob", "ann")
    assert table.user.tolist() == [0, 1, 0]


def test_source_is_the_prompt_or_else_the_pair_in_either_order():
    table = from_columns(
        prompt=["", "", "p", "", "p"],
        chosen=["a", "b", "a", "c", "c"],
        rejected=["b", "a", "b", "a", "b"],
        user=["u"] * 5,
    )
    assert table.source[0] == table.source[1]
    assert table.source[2] == table.source[4]
    assert len(set(table.source.tolist())) == 3
    assert table.source_ids[table.source[2]] == "p"


def test_rows_of_a_choice_without_prompt_share_their_source():
    table = from_columns(
        prompt=[""] * 3, chosen=["a", "a", "a"], rejected=["b", "c", "b"], user=["u"] * 3, choice=np.array([4, 4, 7])
    )
    assert table.source[0] == table.source[1] != table.source[2]
    assert table.decision.tolist() == [0, 0, 1]
    assert table.first_row.tolist() == [0, 2]


def test_a_torn_decision_is_refused():
    table = from_columns(
        prompt=["p"] * 3, chosen=["a", "a", "a"], rejected=["b", "c", "b"], user=["u"] * 3, choice=np.array([4, 4, 7])
    )
    with pytest.raises(DataError, match="decision 0 would be torn: 1 of its 2 rows were taken"):
        table.take(np.array([0, 2]))
    assert len(table.take_decisions(np.array([True, False]))) == 2


def test_numeric_items_keep_the_callers_numbers():
    table = from_attributes(
        attributes=np.eye(3),
        attribute_names=("a", "b", "c"),
        chosen=np.array([2, 2]),
        rejected=np.array([0, 1]),
        user=["u", "u"],
        choice=np.array([0, 0]),
    )
    assert table.format == "numeric"
    assert table.chosen.tolist() == [2, 2]
    assert table.source.tolist() == [0, 0]
    assert repr(table) == "<Comparisons comparisons: 2 rows, 1 decisions, 1 users, 3 numeric items, 1 sources>"
