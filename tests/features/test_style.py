import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pluralign.comparisons.chats import encode_chat
from pluralign.features import STYLE_NAMES, Item, Style
from pluralign.features.style import style_columns


def column(text, name):
    return style_columns(text)[STYLE_NAMES.index(name)]


def test_columns_by_hand():
    text = "# Title\n- one\n- two\n\nYou MAY ask: why? I can't, sorry!"
    counts = {
        "headings": 1,
        "bullets": 2,
        "lines": 4,
        "paragraphs": 1,
        "questions": 1,
        "exclamations": 1,
        "sentences": 2,
    }
    for name, count in counts.items():
        assert column(text, name) == np.log1p(count), name
    words = 10
    assert column(text, "words") == np.log1p(words)
    assert column(text, "uppercase") == 6 / len(text)
    rates = {"first_person": 1, "second_person": 1, "hedges": 1, "negations": 1, "apologies": 1}
    for name, count in rates.items():
        assert column(text, name) == count / words, name
    assert column("1. a\n2) b\n3 c", "numbered") == np.log1p(2)
    assert column("**a** `b` __c__ [d](https://e)", "emphasis") == np.log1p(2)
    assert column("The cat, the hat", "distinct_words") == 3 / 4


def test_there_are_fewer_than_thirty_and_each_can_move():
    assert len(STYLE_NAMES) == Style().dim < 30
    assert len(set(STYLE_NAMES)) == len(STYLE_NAMES)
    texts = [
        '# A\n\n**b** `c` [d](http://e) (f) "g", 1. ok? No! I\'m sorry, you might café.',
        "- x\n1. y",
        "words, words and more words",
    ]
    assert (Style().encode([Item("", text) for text in texts]).std(axis=0) > 0).all()


@given(st.lists(st.text(max_size=200), max_size=5))
def test_any_text_has_finite_columns_of_its_own(texts):
    together = Style().encode([Item("", text) for text in texts])
    assert together.shape == (len(texts), Style().dim)
    assert np.isfinite(together).all()
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_array_equal(Style().encode([Item("another prompt", text)])[0], row)


def test_an_empty_text_is_zero_and_a_chat_is_its_contents():
    assert style_columns("") == [0.0] * len(STYLE_NAMES)
    chat = Item("", encode_chat([{"role": "assistant", "content": "Hello, you!"}]), chat=True)
    np.testing.assert_array_equal(Style().encode([chat]), Style().encode([Item("", "Hello, you!")]))
