import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.comparisons import from_attributes, from_columns, load, read, save, to_table, to_trl, write_jsonl
from pluralign.errors import CacheError, ConfigError, DataError

CHAT = [{"role": "user", "content": "hi"}]
ANSWERS = [[{"role": "assistant", "content": text}] for text in "abc"]


def rich():
    """A table that uses every column."""
    return from_columns(
        prompt=["p", "p", "q", ""],
        chosen=["a", "a", "b é\n", "x"],
        rejected=["b é\n", "c", "", "y"],
        user=["u", "u", "v", "w"],
        source=["s", "s", "t", "t"],
        outcome=np.array([1, 0.25, 0.5, 1]),
        weight=np.array([1, 2, 0, 0.1]),
        choice=np.array([3, 3, 5, 9]),
        position=np.array([1, -1, 0, 1]),
        split=np.array(["train", "train", "", "test"]),
        created_at=np.array(["2020-01-01", "?", "", "x"], dtype=object),
        users=pa.table({"user": ["u", "v", "w"], "age": [3, None, 4]}),
        name="mine",
    )


def numeric():
    return from_attributes(
        attributes=np.array([[0.1, np.pi], [1e-300, -0.0], [3, 4]]),
        attribute_names=("price", "price"),
        chosen=np.array([0, 0, 1]),
        rejected=np.array([1, 2, 2]),
        user=["u", "u", "v"],
        choice=np.array([0, 0, 1]),
    )


def assert_same(one, two):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name == "items":
            assert_same(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b)
        elif isinstance(a, pa.Array | pa.Table):
            assert a.equals(b), field.name
        else:
            assert a == b, field.name


@pytest.mark.parametrize(
    "make", [rich, numeric, lambda: rich().take(np.array([3])), lambda: rich().take(np.array([], dtype=int))]
)
def test_a_saved_table_comes_back_exactly(tmp_path, make):
    save(make(), tmp_path / "table")
    assert_same(make(), load(tmp_path / "table"))


TEXT = st.text(max_size=3)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, st.floats(0, 1)), max_size=6))
def test_any_texts_come_back_exactly(tmp_path_factory, rows):
    prompt, chosen, rejected, user, outcome = zip(*rows, strict=True) if rows else ((),) * 5
    table = from_columns(
        prompt=list(prompt), chosen=list(chosen), rejected=list(rejected), user=list(user), outcome=np.array(outcome)
    )
    folder = tmp_path_factory.mktemp("saved")
    save(table, folder)
    assert_same(table, load(folder))


def test_saving_again_replaces_the_table_and_leaves_nothing_behind(tmp_path):
    save(rich(), tmp_path)
    save(numeric(), tmp_path)
    assert_same(numeric(), load(tmp_path))
    named = json.loads((tmp_path / "comparisons.json").read_text())["files"].values()
    assert {file.name for file in tmp_path.iterdir()} == {"comparisons.json", *named}


def test_a_writer_killed_before_the_end_leaves_the_old_table(tmp_path, monkeypatch):
    save(rich(), tmp_path)
    replace = __import__("os").replace

    def killed(source, target):
        if str(target).endswith("comparisons.json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(numeric(), tmp_path)
    assert_same(rich(), load(tmp_path))
    monkeypatch.undo()
    save(numeric(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1 + len(json.loads((tmp_path / "comparisons.json").read_text())["files"])


def test_damage_is_found(tmp_path):
    with pytest.raises(CacheError, match=r"holds no saved comparisons: it has no comparisons\.json"):
        load(tmp_path)
    save(rich(), tmp_path)
    rows = next(tmp_path.glob("rows-*.parquet"))
    good = rows.read_bytes()
    rows.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    with pytest.raises(CacheError, match="is damaged: its bytes are not those that were saved"):
        load(tmp_path)
    rows.unlink()
    with pytest.raises(CacheError, match="is missing"):
        load(tmp_path)
    (tmp_path / "comparisons.json").write_text('{"version": 99}')
    with pytest.raises(CacheError, match="was saved in version 99; this version reads 1"):
        load(tmp_path)
    (tmp_path / "comparisons.json").write_text("{")
    with pytest.raises(CacheError, match="is damaged"):
        load(tmp_path)


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no saved comparisons"):
        save(rich(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_trl_gets_the_preferred_response_first():
    table = to_table(rich(), ties="keep").to_pydict()
    assert table["chosen"] == ["a", "c", "b é\n", "x"]
    assert table["rejected"] == ["b é\n", "a", "", "y"]
    assert table["outcome"] == [1, 0.75, 0.5, 1]
    assert table["position"] == [1, 1, 0, 1]
    assert table["prompt"] == ["p", "p", "q", ""]
    assert table["user"] == ["u", "u", "v", "w"]
    assert table["split"] == ["train", "train", "", "test"]


def test_ties_are_no_preferences():
    with pytest.raises(DataError, match="1 rows are ties, which TRL would take for preferences"):
        to_table(rich())
    assert to_table(rich(), ties="drop").column("user").to_pylist() == ["u", "u", "w"]
    sure = from_columns(
        prompt=["p"] * 2, chosen=["a", "b"], rejected=["b", "a"], user=["u"] * 2, outcome=np.array([1, 0.5])
    )
    assert "outcome" not in to_table(sure, ties="drop").column_names
    with pytest.raises(ConfigError, match='ties is "coin"; known: error, drop, keep'):
        to_table(rich(), ties="coin")


def test_numbers_are_no_text():
    with pytest.raises(DataError, match="numeric items have no text to export"):
        to_trl(numeric())


def test_chats_go_to_trl_and_back():
    data = {"prompt": [CHAT] * 2, "chosen": ANSWERS[:2], "rejected": ANSWERS[1:], "user": ["u", "v"]}
    table = read(data)
    dataset = to_trl(table)
    assert [row["prompt"] for row in dataset] == data["prompt"]
    assert [row["chosen"] for row in dataset] == data["chosen"]
    assert [row["rejected"] for row in dataset] == data["rejected"]
    assert_same(dataclasses.replace(table, source_ids=()), dataclasses.replace(read(dataset), source_ids=()))


def test_messages_that_say_more_keep_it():
    named = [{"role": "user", "content": "hi", "name": "ann"}]
    data = {"prompt": [named], "chosen": ANSWERS[:1], "rejected": ANSWERS[1:2], "user": ["u"]}
    assert to_table(read(data)).column("prompt").to_pylist() == [named]


def test_jsonl_comes_back(tmp_path):
    table = dataclasses.replace(rich(), users=None, outcome=np.array([1, 0.75, 0.5, 1]), name="rich")
    table = dataclasses.replace(table, choice=None)
    write_jsonl(table, tmp_path / "rich.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["rich.jsonl"]
    assert_same(table, read(tmp_path / "rich.jsonl"))
