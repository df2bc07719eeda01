import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluralign.comparisons import decode_chat, encode_chat
from pluralign.errors import DataError

MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()})


@given(st.lists(MESSAGE, max_size=4))
def test_chats_come_back(chat):
    assert decode_chat(encode_chat(chat)) == chat


def test_one_chat_has_one_spelling():
    plain = encode_chat([{"role": "user", "content": "é"}])
    assert plain == '[{"content":"é","role":"user"}]'
    assert encode_chat([{"content": "é", "name": None, "role": "user"}]) == plain


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("hello", "'hello' is not a list of messages"),
        (["hello"], "message 1 is 'hello', which has no role and content"),
        ([{"role": "user", "content": ["a"]}], r"message 1 has content \['a'\], which is not a text"),
        ([{"content": "a"}], "message 1 has role None, which is not a text"),
    ],
)
def test_what_is_no_chat_is_refused(chat, message):
    with pytest.raises(DataError, match=message):
        encode_chat(chat)
