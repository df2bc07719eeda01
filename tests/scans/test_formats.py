"""Signs of format that tell chosen from rejected: published leaks, planted again."""

import numpy as np
import pytest

from pluralign.comparisons import from_columns
from pluralign.scans.formats import STORED, WRITTEN, OneSided, find_leaks, format_columns
from pluralign.scans.texts import Texts
from pluralign.scans.wins import Wins


def leaks(table):
    return find_leaks(Texts.of_responses(table), Wins.of(table))


@pytest.fixture(scope="module")
def changed(rows, columns_of):
    """Random comparisons with a share of one column's texts changed, and which rows those are."""

    def change_texts(column, change, share=1.0, n_rows=600, seed=0):
        columns = columns_of(rows(n_rows, seed=seed))
        marked = np.random.default_rng(seed).random(n_rows) < share
        columns[column] = [change(t) if m else t for t, m in zip(columns[column], marked, strict=True)]
        return from_columns(**columns), marked

    return change_texts


def test_a_rejected_reply_printed_as_a_list_is_an_error_with_its_rows(changed):
    # The published case: the rejected replies reached a chat template as lists, the chosen ones as text.
    table, marked = changed("rejected", lambda text: str([text]), share=0.2)
    (found,) = leaks(table)
    assert (found.name, found.severity, found.count) == ("format_leak", "error", int(marked.sum()))
    assert list(found.rows) == np.flatnonzero(marked)[:20].tolist()
    assert "A printed list tells chosen from rejected by format alone" in found.message
    assert "rejected in 100% of them" in found.message


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a printed list", lambda text: str([text])),
        ("a printed list", lambda text: f'["{text}"]'),
        ("a JSON object", lambda text: f'{{"content": "{text}"}}'),
        ("a printed bytes literal", lambda text: str(text.encode())),
        ("quotation marks around the whole", lambda text: f'"{text}"'),
        ("white space at the beginning", lambda text: " " + text),
        ("white space at the end", lambda text: text + "\n"),
        ("an escaped line break", lambda text: text.replace(" ", "\\n", 1)),
        ("an HTML entity", lambda text: text + " &amp;"),
        ("a special token", lambda text: text + "<|im_end|>"),
        ("a speaker's label", lambda text: "Assistant: " + text),
        ("a label of its place", lambda text: "Response A: " + text),
        ("Windows line ends", lambda text: text.replace(" ", "\r\n", 1)),
        ("characters that were lost", lambda text: text + " naÃ¯ve \ufffd"),
        ("invisible characters", lambda text: "\u200b" + text),
    ],
)
def test_every_stored_sign_is_seen(changed, name, change):
    table, _ = changed("chosen", change, n_rows=120)
    found = [each for each in leaks(table) if each.severity == "error"]
    assert any(each.message.startswith(name[0].upper() + name[1:]) for each in found)


def test_what_is_on_both_sides_alike_is_no_leak(columns_of, rows):
    columns = columns_of(rows(600))
    columns["chosen"] = [str([text]) for text in columns["chosen"]]
    columns["rejected"] = [str([text]) for text in columns["rejected"]]
    assert leaks(from_columns(**columns)) == []


def test_a_cut_and_an_unknown_mark_are_found_without_being_on_any_list(changed, columns_of, rows):
    # Truncation: chosen responses end in a full stop, rejected ones in mid-word.
    cut, _ = changed("rejected", lambda text: text[:-3], n_rows=400)
    assert {each.name for each in leaks(cut)} & {"format_sign", "format_edge", "format_leak"}
    rng = np.random.default_rng(0)
    columns = columns_of(rows(400))
    columns["chosen"] = [t[:-1] + " ~~" if rng.random() < 0.5 else t for t in columns["chosen"]]
    bare = [each for each in leaks(from_columns(**columns)) if each.name == "format_leak"]
    assert len(bare) == 1
    assert "end with" in bare[0].message
    assert "~~'" in bare[0].message
    columns = columns_of(rows(400))
    columns["rejected"] = ["I cannot help with that. " + t for t in columns["rejected"]]
    edges = [each for each in leaks(from_columns(**columns)) if each.name == "format_edge"]
    assert edges
    assert edges[0].severity == "warning"
    assert "rejected in 100%" in edges[0].message


def test_one_popular_text_that_ends_in_a_blank_is_no_leak(sentences):
    rng = np.random.default_rng(0)
    texts = sentences(40, rng)
    table = from_columns(
        prompt=["p"] * 600,
        chosen=[texts[0] + " "] * 600,
        rejected=[texts[i] for i in rng.integers(1, 40, 600)],
        user=["u"] * 600,
    )
    assert leaks(table) == []


def test_texts_are_counted_not_rows():
    # Codes 0, 0, 1, 1, 2; text 0 beats 2 twice and loses to 3 once; text 1 loses to 4; 2 and 3 are one code.
    code = np.array([0, 0, 1, 1, 2])
    sides = OneSided.of(code, np.array([0, 0, 3, 4, 2]), np.array([2, 2, 0, 1, 3]), 3)
    assert sides.won.tolist() == [1, 1, 1]
    assert sides.n.tolist() == [2, 2, 1]
    assert sides.rows_won.tolist() == [2, 1, 1]
    assert sides.n_rows.tolist() == [4, 3, 1]


def test_columns_are_one_per_sign_and_per_count(rows):
    table = rows(5)
    texts = Texts.of_responses(table)
    columns = format_columns(texts)
    assert columns.shape == (len(texts), len(STORED) + len(WRITTEN) + 6)
    names = [*STORED, *WRITTEN]
    assert columns[:, names.index("a sentence's end")].all()
    assert not columns[:, names.index("a printed list")].any()
