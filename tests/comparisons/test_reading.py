"""Reading; a golden message for each kind of bad input."""

import gzip
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv
from pyarrow import parquet as pq

from pluralign.comparisons import Columns, read
from pluralign.comparisons.files import ENDINGS, load_file, load_lines
from pluralign.errors import ConfigError, DataError

ROW = {"prompt": "p", "chosen": "good", "rejected": "bad", "user": "ann"}
HEADER = "prompt,chosen,rejected,user\n"


OUTCOME = "a number from 0 (rejected preferred) by 0.5 (a tie) to 1 (chosen preferred)"
POSITION = "1 (chosen was shown first), -1 (second), 0 or nothing (not known)"
NOT = "is not what its ending says: "


def chat(*turns):
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def put(path, *rows):
    """Write lines: objects as JSON, texts as they are."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def refused(data, **settings):
    """The message and the hint that `read` gives."""
    with pytest.raises(DataError) as caught:
        read(data, **settings)
    return str(caught.value), caught.value.hint


ROWS = [
    {"prompt": "p, q", "chosen": 'say "x"\n2', "rejected": "NA", "user": "1", "outcome": 0.5, "weight": 2.0},
    {"prompt": "2020-01-01", "chosen": "null", "rejected": "é", "user": "02", "outcome": 1.0, "weight": 0.0},
]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "csv", "csv.gz", "tsv", "parquet"])
def test_every_kind_of_file_says_the_same(tmp_path, ending):
    path, table = tmp_path / f"prefs.{ending}", pa.Table.from_pylist(ROWS)
    if ending == "parquet":
        pq.write_table(table, path)
    elif ending == "json":
        path.write_text(json.dumps(ROWS))
    elif ending.startswith("jsonl"):
        put(path, *ROWS)
    else:
        options = arrow_csv.WriteOptions(delimiter="\t" if ending == "tsv" else ",")
        arrow_csv.write_csv(table, path, options)
    if ending.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = read(path)
    assert found.name == "prefs"
    assert found.items.prompts.to_pylist() == ["p, q", "2020-01-01"]
    assert found.items.response.to_pylist() == ['say "x"\n2', "null", "NA", "é"]
    assert found.user_ids == ("1", "02")
    assert found.outcome.tolist() == [0.5, 1.0]
    assert found.weight.tolist() == [2.0, 0.0]
    assert found.format == "text"


LINE = st.fixed_dictionaries(
    {"chosen": st.text(min_size=1, max_size=4), "rejected": st.just("—"), "user": st.sampled_from(["ann", "bob", "7"])},
    optional={"prompt": st.text(max_size=3), "more": st.integers()},
)


@settings(deadline=None, max_examples=50)
@given(st.lists(LINE, min_size=1, max_size=6))
def test_arrow_and_the_line_reader_agree(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    put(path, *lines)
    wanted = ["prompt", "chosen", "rejected", "user"]
    fast, slow = load_file(path, wanted, []), load_lines(path, wanted)
    assert set(fast.columns) == set(slow.columns)
    for name, column in fast.columns.items():
        assert column.to_pylist() == slow.columns[name]


def test_columns_under_other_names_and_users_as_numbers(tmp_path):
    path = put(tmp_path / "a.jsonl", {"q": "p", "win": "x", "lose": "y", "worker": 3, "chosen": "not this"})
    found = read(path, columns={"prompt": "q", "chosen": "win", "rejected": "lose", "user": "worker"})
    assert found.user_ids == ("3",)
    assert found.items.response.to_pylist() == ["x", "y"]


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int16(), pa.uint64()])
def test_users_are_whole_numbers_of_any_width(kind):
    top = 2**64 - 1 if kind == pa.uint64() else 7
    users = pa.array([top, 0], kind)
    assert read(pa.table({"chosen": ["a", "b"], "rejected": ["c", "c"], "user": users})).user_ids == (str(top), "0")


def test_user_names_of_two_types_are_one_column(tmp_path):
    path = put(tmp_path / "a.jsonl", ROW, {**ROW, "user": 3})
    assert read(path).user_ids == ("ann", "3")


def test_optional_columns_are_found_wherever_they_first_appear(tmp_path):
    rows = [{**ROW, "outcome": 1}] * 150 + [{**ROW, "outcome": 0.25, "position": -1}]
    path = put(tmp_path / "a.jsonl", *rows)
    found = read(path)
    assert found.outcome[-1] == 0.25
    assert found.position.tolist() == [0] * 150 + [-1]


def test_split_source_position_and_times_come_along():
    found = read(
        {
            **{name: [value] * 3 for name, value in ROW.items()},
            "source": ["s", "s", "t"],
            "split": ["train", None, "test"],
            "position": [1, -1, None],
            "created_at": [3, 1, 2],
        }
    )
    assert found.source.tolist() == [0, 0, 1]
    assert found.split.tolist() == ["train", "", "test"]
    assert found.position.tolist() == [1, -1, 0]
    assert found.created_at.tolist() == [3, 1, 2]


def test_rows_of_a_scattered_choice_are_brought_together():
    found = read(
        {
            "chosen": ["a", "x", "a"],
            "rejected": ["b", "y", "c"],
            "user": ["u", "v", "u"],
            "choice": ["first", "second", "first"],
            "weight": [1.0, 2.0, 1.0],
        }
    )
    assert [found.items.response[i].as_py() for i in found.rejected] == ["b", "c", "y"]
    assert found.decision.tolist() == [0, 0, 1]
    assert found.weight.tolist() == [1.0, 1.0, 2.0]


def test_the_prompt_of_chats_is_what_both_share():
    found = read(
        {
            "chosen": [chat("hi", "a"), chat("hi", "x", "and?", "b")],
            "rejected": [chat("hi", "b"), chat("hi", "x", "and?", "c")],
            "user": ["u", "u"],
        }
    )
    assert found.format == "chat"
    assert [json.loads(text) for text in found.items.prompts.to_pylist()] == [chat("hi"), chat("hi", "x", "and?")]
    assert json.loads(found.items.response[0].as_py()) == [{"role": "assistant", "content": "a"}]


def test_chats_in_parquet_and_in_jsonl_are_the_same(tmp_path):
    rows = [{"prompt": chat("hi"), "chosen": chat("hi", "a")[1:], "rejected": chat("hi", "b")[1:], "user": "u"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    put(tmp_path / "a.jsonl", *rows)
    one, two = read(tmp_path / "a.parquet"), read(tmp_path / "a.jsonl")
    assert one.items.response.to_pylist() == two.items.response.to_pylist()
    assert one.items.prompts.to_pylist() == two.items.prompts.to_pylist()


def test_the_prompt_of_texts_ends_with_a_marker():
    found = read(
        {
            "chosen": ["\n\nHuman: hi\n\nAssistant: I do", "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c"],
            "rejected": ["\n\nHuman: hi\n\nAssistant: I don't", "\n\nHuman: a\n\nAssistant: b\n\nAssistant: d"],
            "user": ["u", "u"],
        },
        prompt_end="\n\nAssistant:",
    )
    assert found.items.prompts.to_pylist() == [
        "\n\nHuman: hi\n\nAssistant:",
        "\n\nHuman: a\n\nAssistant: b\n\nAssistant:",
    ]
    assert found.items.response.to_pylist() == [" I do", " c", " I don't", " d"]


def test_a_folder_is_read_file_by_file_and_errors_name_the_file(tmp_path):
    put(tmp_path / "b.jsonl", {**ROW, "user": "bob"})
    (tmp_path / "a.csv").write_text(HEADER + "p,x,y,ann\n")
    (tmp_path / "notes.txt").write_text("mine")
    assert read(tmp_path).user_ids == ("ann", "bob")
    put(tmp_path / "c.jsonl", "", {**ROW, "rejected": "good"})
    message, _ = refused(tmp_path)
    assert message == 'c.jsonl, line 2: chosen and rejected are the same response ("good")'
    put(tmp_path / "c.jsonl", {**ROW, "outcome": 1})
    assert refused(tmp_path) == (
        "c.jsonl has outcome, a.csv has not",
        'give both the column, or leave it out with Columns(outcome="")',
    )


def test_parquet_with_missing_texts_names_them(tmp_path):
    rows = [ROW, {**ROW, "chosen": None}, {**ROW, "chosen": "good", "rejected": "good"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert refused(tmp_path / "a.parquet")[0] == "a.parquet, row 2: chosen is missing"
    pq.write_table(pa.Table.from_pylist(rows[::2]), tmp_path / "a.parquet")
    assert len(read(tmp_path / "a.parquet", identical="drop")) == 1


def test_data_sets_and_saved_data_sets(tmp_path):
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_list([ROW, {**ROW, "user": "bob"}])
    assert read(part.select([1])).user_ids == ("bob",)
    both = datasets.DatasetDict(train=part, test=part)
    assert read(both).split.tolist() == ["train", "train", "test", "test"]
    both.save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved").split.tolist() == ["train", "train", "test", "test"]


def test_the_hub_is_asked_only_where_it_is_named(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list([ROW])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert refused("org/name") == (
        'there is no file or folder "org/name"',
        'if it is a data set on the Hugging Face hub, write "hf:org/name"',
    )
    assert asked == []
    assert read("hf:org/name:train", revision="v1").name == "org/name:train"
    assert asked == [(("org/name", None), {"split": "train", "revision": "v1"})]
    with pytest.raises(ConfigError, match='"hf:name" names no data set'):
        read("hf:name")
    with pytest.raises(ConfigError, match="config and revision are for data on the hub"):
        read({name: [value] for name, value in ROW.items()}, revision="v1")


def test_covariates_stand_in_the_order_of_the_users(tmp_path):
    data = {**{name: [value] * 3 for name, value in ROW.items()}, "user": ["bob", "ann", "cy"]}
    (tmp_path / "users.csv").write_text("user,age\nann,31\ndan,9\nbob,40\n")
    assert read(data, users=tmp_path / "users.csv").users.to_pylist() == [
        {"user": "bob", "age": 40},
        {"user": "ann", "age": 31},
        {"user": "cy", "age": None},
    ]
    message, _ = refused(data, users={"user": ["ann", "ann"], "age": [1, 2]})
    assert message == 'the users\' table, row 2: user "ann" has a row already'
    message, hint = refused(data, users={"user": ["Ann"], "age": [1]})
    assert message == 'the users\' table has none of the 3 users who compared, such as "bob"; it has "Ann"'
    assert hint == "the users' names must be spelled alike in both"
    message, _ = refused(data, users={"user_id": ["ann"], "age": [1]})
    assert message == "the users' table has no column user; it has: user_id, age"


@pytest.mark.parametrize(("identical", "n_rows", "outcome"), [("drop", 1, None), ("tie", 2, [0.5, 1.0])])
def test_identical_responses_are_dropped_or_tied_when_asked(identical, n_rows, outcome):
    data = {"chosen": ["x", "x"], "rejected": ["x", "y"], "user": ["u", "v"]}
    found = read(data, identical=identical)
    assert len(found) == n_rows
    assert (found.outcome if outcome is None else found.outcome.tolist()) == outcome


# Golden messages. Rows count from 1; a data row is one below a header, a line may be blank.


def test_a_missing_column_is_named_with_its_nearest():
    assert refused({"prompt": ["p"], "chosen": ["x"], "rejected": ["y"], "user_id": ["u"]}) == (
        "the data has no column user; it has: prompt, chosen, rejected, user_id",
        'name it with --column user=user_id, in Python columns={"user": "user_id"}',
    )
    assert refused({"chosen": ["x"], "rejected": ["y"], "zzz": ["u"]}) == (
        "the data has no column user; it has: chosen, rejected, zzz",
        'name it with --column user=NAME, in Python columns={"user": ...}',
    )


def test_a_column_that_was_named_must_exist():
    message, hint = refused({name: [value] for name, value in ROW.items()}, columns=Columns(created_at="when"))
    assert message == "the data has no column when; it has: prompt, chosen, rejected, user"
    assert hint == 'name it with --column created_at=NAME, in Python columns={"created_at": ...}'


def test_an_empty_column():
    assert refused({**{name: [value] * 2 for name, value in ROW.items()}, "rejected": [None, None]}) == (
        "the data: column rejected is empty",
        "fill it, or name another column for it",
    )
    assert refused({**{name: [value] * 2 for name, value in ROW.items()}, "chosen": pa.array(["", ""])})[0] == (
        "the data: column chosen is empty"
    )


def test_an_empty_prompt_column_is_no_prompt():
    data = {**{name: [value] * 2 for name, value in ROW.items()}, "prompt": ["", ""]}
    assert read(data).items.prompts.to_pylist() == [""]


def test_responses_that_are_no_texts_are_named_each(tmp_path):
    path = put(tmp_path / "a.jsonl", ROW, {**ROW, "chosen": ["x", "y"]}, {**ROW, "chosen": None}, {**ROW, "chosen": 7})
    message, hint = refused(path)
    assert message.splitlines() == [
        'a.jsonl, line 2: chosen is ["x", "y"] (a list), not a text',
        "a.jsonl, line 3: chosen is missing",
        "a.jsonl, line 4: chosen is 7 (int), not a text",
    ]
    assert hint == "accepted are texts and chats (lists of messages); drop or mend these rows"


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("chosen", "caf\ud83d", "chosen has '\\ud83d' at character 4"),
        ("user", "\ude00", "user has '\\ude00' at character 1"),
    ],
)
def test_half_a_character_is_named(tmp_path, column, value, said):
    path = put(tmp_path / "a.jsonl", ROW, {**ROW, column: value})
    message, hint = refused(path)
    assert message == f"a.jsonl, line 2: {said}, half of a character that was cut in two"
    assert "drop the row" in hint


def test_half_a_character_in_a_chat_is_named(tmp_path):
    chats = {"prompt": chat("Hello"), "chosen": chat("Hi"), "rejected": chat("\ud83d"), "user": "ann"}
    message = refused(put(tmp_path / "a.jsonl", chats))[0]
    assert message.startswith("a.jsonl, line 1: rejected: message 1: content has '\\ud83d' at character 1, half of")


def test_a_column_of_numbers_is_no_column_of_texts(tmp_path):
    pq.write_table(
        pa.table({**{name: [value] * 7 for name, value in ROW.items()}, "chosen": range(7)}), tmp_path / "a.parquet"
    )
    lines = refused(tmp_path / "a.parquet")[0].splitlines()
    assert lines[0] == "a.parquet, row 1: chosen is 0 (int), not a text"
    assert lines[5:] == ["and 2 more such rows (7 in all)"]


def test_missing_users(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + "p,x,y,ann\np,x,y,\np,x,y,  \n")
    assert refused(tmp_path / "a.csv") == (
        "a.csv, data row 2: user is empty\na.csv, data row 3: user is empty",
        "accepted are texts and whole numbers; fill it, or drop these rows",
    )
    data = {**{name: [value] * 2 for name, value in ROW.items()}, "user": [1.0, float("nan")]}
    assert refused(data)[0] == "row 2: user is missing"
    data["user"] = ["ann", ["bob"]]
    assert refused(data)[0] == 'row 2: user is ["bob"] (a list), not a name'


def test_identical_responses(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "p,x,y,ann\n" * 1840 + "p,r-77,r-77,ann\n")
    assert refused(path) == (
        'a.csv, data row 1841: chosen and rejected are the same response ("r-77")',
        'drop the row or record a tie: identical="drop" or identical="tie"',
    )
    assert refused({"chosen": ["x"], "rejected": ["x"], "user": ["u"]}, identical="drop")[0] == (
        "the data: in all 1 rows chosen and rejected are the same response"
    )


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("outcome", [1, float("nan")], f"row 2: outcome is NaN; accepted is {OUTCOME}"),
        ("outcome", [1.5, 0], f"row 1: outcome is 1.5; accepted is {OUTCOME}"),
        ("outcome", ["left", 0], f'row 1: outcome is "left"; accepted is {OUTCOME}'),
        ("weight", [1, -2], "row 2: weight is -2; accepted is a finite number from 0 up"),
        ("weight", [1, float("inf")], "row 2: weight is Infinity; accepted is a finite number from 0 up"),
        ("position", ["left", 0], f'row 1: position is "left"; accepted is {POSITION}'),
        ("position", [1, 2], f"row 2: position is 2; accepted is {POSITION}"),
    ],
)
def test_numbers_out_of_range(column, values, message):
    assert refused({**{name: [value] * 2 for name, value in ROW.items()}, column: values})[0] == message


def test_weights_under_which_rows_vanish(tmp_path):
    assert refused({**{name: [value] * 2 for name, value in ROW.items()}, "weight": [0, 0]}) == (
        "the weights of all rows are 0, so that nothing counts",
        "leave the column of weights out",
    )
    file = put(tmp_path / "rows.jsonl", *({**ROW, "weight": weight} for weight in (1, 1e300, 2)))
    assert refused(file)[0] == (
        "rows.jsonl, line 2: weight is 1e+300, beside which those of the other 2 rows vanish: their sum is 3"
    )
    # Great differences in weight are the user's to make, and so is a single row that counts.
    file = put(tmp_path / "rows.jsonl", *({**ROW, "weight": weight} for weight in (1, 1e9, 0)))
    assert read(file).weight.tolist() == [1, 1e9, 0]
    file = put(tmp_path / "rows.jsonl", *({**ROW, "weight": weight} for weight in (0, 1e300)))
    assert read(file).weight.tolist() == [0, 1e300]


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch):
    import datasets

    def load_dataset(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message, hint = refused("hf:org/name")
    assert message == "org/name cannot be fetched from the Hugging Face hub: no route"
    assert "name their folder" in hint


def test_texts_among_chats():
    both = [chat("hi", "a"), chat("hi", "b"), "a text"]
    assert refused({"chosen": both, "rejected": [chat("hi", "c")] * 3, "user": ["u"] * 3}) == (
        'row 3: chosen is a text, "a text", where other rows hold chats',
        "a file holds texts or chats (lists of messages), not both: write all rows in one way",
    )
    assert refused({"prompt": ["hi"], "chosen": [chat("hi", "a")], "rejected": [chat("hi", "c")], "user": ["u"]}) == (
        "the data mixes chats and texts: prompt holds texts, chosen holds chats, rejected holds chats",
        'write all of them in one way; if the chats begin with the prompt, leave it out: Columns(prompt="")',
    )
    bad = [{"role": "user", "content": 3}]
    assert refused({"chosen": [bad], "rejected": [chat("hi", "c")], "user": ["u"]})[0] == (
        "row 1: chosen: message 1 has content 3, which is not a text"
    )


def test_a_line_that_is_not_json(tmp_path):
    path = put(tmp_path / "a.jsonl", ROW, "", '{"chosen": "x', "[1]")
    message, hint = refused(path)
    assert message.splitlines() == [
        'a.jsonl, line 3: not JSON (Invalid control character at at character 14): "{\\"chosen\\": \\"x"',
        "a.jsonl, line 4: [1] is JSON, but no object",
    ]
    assert hint == 'each line is one JSON object, such as {"prompt": ..., "chosen": ..., "rejected": ..., "user": ...}'


def test_a_csv_row_with_a_field_too_many(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + 'p,"x\n1",y,ann\np,x,y,ann\np,x,y,z,ann\n')
    assert refused(tmp_path / "a.csv") == (
        "a.csv, data row 3: 5 fields, where the header has 4",
        'a field that holds "," or a line break must stand in double quotes',
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv is empty (0 bytes)"),
        ("a.jsonl", b" \n\n", "a.jsonl is empty (blanks only)"),
        ("a.csv", HEADER.encode(), "a.csv has no rows"),
        ("a.json", b"[]", "a.json has no rows"),
        (
            "a.csv.gz",
            HEADER.encode(),
            f"a.csv.gz {NOT}\".gz\" is gzip, the file is something else (it begins with b'prom')",
        ),
        (
            "a.csv",
            gzip.compress(b"x", mtime=0),
            f"a.csv {NOT}\".csv\" is plain text, the file is gzip (it begins with b'\\x1f\\x8b\\x08\\x00')",
        ),
        (
            "a.parquet",
            b"chosen,",
            f"a.parquet {NOT}\".parquet\" is parquet, the file is something else (it begins with b'chos')",
        ),
        (
            "a.jsonl",
            b"PAR1....",
            f"a.jsonl {NOT}\".jsonl\" is plain text, the file is parquet (it begins with b'PAR1')",
        ),
        ("a.csv", b'{"chosen": "x"}', f'a.csv {NOT}it begins with "{{" as JSON does, not with a header'),
        (
            "a.jsonl",
            HEADER.encode(),
            f'a.jsonl {NOT}it begins with "prompt,chosen,rejected,user", not with a JSON object',
        ),
        ("a.csv", b"chosen;rejected;user\nx;y;u\n", 'a.csv has one column, "chosen;rejected;user"'),
        ("a.csv", b"chosen,chosen,user\nx,y,u\n", "a.csv has two columns chosen"),
        ("a.csv", HEADER.encode() + b"p,caf\xe9,y,ann\n", "a.csv, line 2: b'\\xe9' is not UTF-8"),
        (
            "a.txt",
            b"x",
            f'a.txt: the ending ".txt" is not known; known: {", ".join(ENDINGS)} (and these with .gz)',
        ),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name)[0] == message


def test_cut_off_files_are_refused(tmp_path):
    put(tmp_path / "a.jsonl", *[{**ROW, "chosen": str(i)} for i in range(2000)])
    packed = gzip.compress((tmp_path / "a.jsonl").read_bytes())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert refused(tmp_path / "a.jsonl.gz")[0].startswith("a.jsonl.gz cannot be read: ")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    assert refused(tmp_path / "a.parquet")[0].startswith("a.parquet cannot be read as parquet: ")


def test_nothing_to_read(tmp_path):
    assert refused(tmp_path / "none.csv")[0] == f'there is no file or folder "{tmp_path / "none.csv"}"'
    assert refused(tmp_path)[0] == f"{tmp_path} has no file to read; it has: nothing"
    assert refused(3)[0].startswith("int cannot be read; accepted are a path,")
    assert refused({"chosen": ["x"], "rejected": ["y"], "user": []})[0] == (
        "columns of unequal length: {'chosen': 1, 'rejected': 1, 'user': 0}"
    )


def test_an_outcome_in_a_table_of_choices_must_be_sure():
    data = {"chosen": ["a", "a", "b"], "rejected": ["b", "c", "c"], "user": ["u"] * 3, "choice": [1, 1, 2]}
    assert len(read(data | {"outcome": [1.0, 1.0, 1.0]})) == 3
    message, hint = refused(data | {"outcome": [1.0, 1.0, 0.0]})[:2]
    assert message == "row 3: its outcome is 0, and the table has choices among several"
    assert "turn rows with outcome 0 round" in hint


def test_a_choice_whose_rows_disagree():
    data = {"chosen": ["a", "b"], "rejected": ["c", "c"], "user": ["u", "u"], "choice": [1, 1]}
    assert refused(data)[0] == (
        'row 2: its chosen response is "b", that of the same choice\'s first row (row 1) is "a"'
    )
    data.update(chosen=["a", "a"], rejected=["b", "c"], user=["u", "v"])
    assert refused(data)[0] == 'row 2: its user is "v", that of the same choice\'s first row (row 1) is "u"'
    data.update(user=["u", "u"], weight=[1, 2])
    assert refused(data)[0] == "row 2: its weight is 2.0, that of the same choice's first row (row 1) is 1.0"


def test_settings_are_checked():
    data = {name: [value] for name, value in ROW.items()}
    with pytest.raises(ConfigError, match='identical is "keep"; known: error, drop, tie'):
        read(data, identical="keep")
    with pytest.raises(ConfigError, match='unknown role "users" of a column; known: prompt, chosen'):
        read(data, columns={"users": "user"})
    with pytest.raises(ConfigError, match='prompt_end is ""'):
        read(data, columns={"prompt": ""}, prompt_end="")
    with pytest.raises(ConfigError, match="leaves out a column that must be there"):
        read(data, columns={"user": ""})


def test_the_end_of_a_prompt_is_for_texts_without_prompts():
    with pytest.raises(ConfigError, match="but there is a column prompt"):
        read({name: [value] for name, value in ROW.items()}, prompt_end=" ")
    chats = {"chosen": [chat("hi", "a")], "rejected": [chat("hi", "b")], "user": ["u"]}
    with pytest.raises(ConfigError, match="but these are chats"):
        read(chats, prompt_end=" ")


def test_an_optional_column_without_a_value_is_no_column():
    data = {name: [value] for name, value in ROW.items()} | {"source": [None], "outcome": pa.array([None])}
    assert read(data).outcome is None
    assert read(data).source_ids == ("p",)
    assert refused(data, columns={"source": "source"})[0] == "row 1: source is missing"


def test_a_text_that_shares_no_marker_is_named():
    data = {"chosen": ["a b", "xx"], "rejected": ["a c", "yy"], "user": ["u", "u"]}
    assert refused(data, prompt_end=" ")[0] == 'row 2: chosen and rejected share no " ": "xx", "yy"'


@pytest.mark.data
def test_real_pairs_with_two_that_are_identical(data_dir):
    path = data_dir / "hh_hidden_context_test" / "both_test.jsonl.gz"
    settings = {"columns": {"user": "objective", "prompt": ""}, "prompt_end": "\n\nAssistant:"}
    assert len(refused(path, **settings)[0].splitlines()) == 2  # SOURCE.md: 4,043 rows, two with identical texts
    found = read(path, identical="drop", **settings)
    assert len(found) == 4041
    assert found.n_users == 2
    assert all(prompt.endswith("\n\nAssistant:") for prompt in found.items.prompts.to_pylist())
