import numpy as np
import pytest

from pluralign.comparisons.chats import encode_chat
from pluralign.comparisons.table import from_attributes, from_columns
from pluralign.errors import ConfigError, DataError
from pluralign.language_models.tokens import prompt_ids, response_ids, tokenize
from pluralign.users import UNKNOWN

from ..tiny_models import make_tokenizer


def pairs(prompt="p", chosen="yes", rejected="no", user="u", **more):
    return from_columns(prompt=[prompt], chosen=[chosen], rejected=[rejected], user=[user], **more)


def chat(role: str, content: str) -> str:
    return encode_chat([{"role": role, "content": content}])


class Merging:
    """A tokenizer whose tokens are pairs of letters: a prompt of odd length merges with its response."""

    bos_token_id, eos_token_id, eos_token, chat_template = None, 0, "$", None

    def __call__(self, texts, add_special_tokens=True, verbose=True):
        if isinstance(texts, str):
            return {"input_ids": self([texts])["input_ids"][0]}
        return {"input_ids": [[hash_of(each[i : i + 2]) for i in range(0, len(each), 2)] for each in texts]}


def hash_of(letters: str) -> int:
    return int.from_bytes(letters.encode())


def test_a_text_is_its_tokens_and_its_response_ends(tokenizer):
    tokens = tokenize(pairs("ab", " c", "d"), tokenizer)
    one = tokens.sequence(int(tokens.chosen[0]), user=3)
    assert tokenizer.decode(one.prompt) == "ab"
    assert tokenizer.decode(one.response) == " c<|eos|>"
    assert one.user == 3


@pytest.mark.parametrize(
    ("prompts", "chosen", "lengths"),
    [(["a", "abcdef"], ["b", "bcd"], [1, 6]), (["a", "abc"], ["b", "bcdefghi"], [1 + 1 + 2, 8 + 1 + 2])],
)
def test_rows_are_as_long_as_what_differs_more(tokenizer, prompts, chosen, lengths):
    table = from_columns(prompt=prompts, chosen=chosen, rejected=["z", "z"], user=["u", "v"])
    assert tokenize(table, tokenizer).lengths().tolist() == lengths  # responses end with a token


def test_an_end_that_is_written_out_is_not_doubled(tokenizer):
    tokens = tokenize(pairs(chosen="x<|eos|>"), tokenizer)
    assert tokens.responses[int(tokens.chosen[0])] == tuple(tokenizer("x<|eos|>")["input_ids"])


def test_single_texts_are_tokenised_alike(tokenizer):
    tokens = tokenize(pairs("ab", " c", "d"), tokenizer)
    assert tuple(prompt_ids(tokenizer, "ab")) == tokens.prompts[0]
    assert tuple(response_ids(tokenizer, "ab", " c")) == tokens.responses[int(tokens.chosen[0])]


def test_a_chat_goes_through_the_template(tokenizer):
    table = pairs(chat("user", "hi"), chat("assistant", "yes"), chat("assistant", "no"), format="chat")
    tokens = tokenize(table, tokenizer)
    assert tokenizer.decode(tokens.prompts[0]) == "<user>hi<assistant>"
    assert tokenizer.decode(tokens.responses[int(tokens.rejected[0])]) == "no<|eos|>"
    messages = [{"role": "user", "content": "hi"}]
    assert tuple(prompt_ids(tokenizer, messages)) == tokens.prompts[0]
    assert tuple(response_ids(tokenizer, messages, "no")) == tokens.responses[int(tokens.rejected[0])]


def test_trl_tokenises_alike(tokenizer):
    trl = pytest.importorskip("trl.data_utils")
    prompt, whole = ([{"role": "user", "content": "hi"}], [{"role": "assistant", "content": "yes"}])
    rendered = trl.apply_chat_template({"prompt": prompt, "chosen": whole, "rejected": whole}, tokenizer)
    assert tokenizer.decode(prompt_ids(tokenizer, prompt)) == rendered["prompt"]
    assert tokenizer.decode(response_ids(tokenizer, prompt, whole)) == rendered["chosen"]


def test_a_template_that_ends_the_prompt_with_more_keeps_it():
    # The generation prompt has an empty thought that a finished turn lacks.
    template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>[]{% endif %}"
    )
    tokenizer = make_tokenizer(template=template)
    ids = response_ids(tokenizer, [{"role": "user", "content": "hi"}], "yes")
    assert tokenizer.decode(prompt_ids(tokenizer, [{"role": "user", "content": "hi"}])) == "<user>hi<assistant>[]"
    assert tokenizer.decode(ids) == "yes"


def test_a_token_astride_the_boundary_leaves_the_prompt_whole():
    tokenizer = Merging()
    assert prompt_ids(tokenizer, "abc") == [hash_of("ab"), hash_of("c")]
    assert response_ids(tokenizer, "abc", "xy") == [hash_of("xy"), hash_of("$")]  # together: ab cx y$
    assert response_ids(tokenizer, "abcd", "xy") == [hash_of("xy"), hash_of("$")]


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt(tokenizer):
    class Ending:
        bos_token_id, eos_token_id, eos_token, chat_template = 1, 2, "<|eos|>", None

        def __call__(self, texts, add_special_tokens=True, verbose=True):
            lists = tokenizer([texts] if isinstance(texts, str) else texts, add_special_tokens=False)["input_ids"]
            lists = [[1, *ids, 2] if add_special_tokens else ids for ids in lists]
            return {"input_ids": lists[0] if isinstance(texts, str) else lists}

    assert prompt_ids(Ending(), "ab") == [1, *tokenizer("ab")["input_ids"]]
    assert response_ids(Ending(), "ab", "c") == [*tokenizer("c")["input_ids"], 2]


def test_a_prompt_without_tokens_begins_somewhere(tokenizer):
    tokens = tokenize(pairs(prompt=""), tokenizer)
    assert tokens.prompts[0] == (tokenizer.bos_token_id,)
    assert tokenizer.decode(tokens.responses[int(tokens.chosen[0])]) == "yes<|eos|>"


def test_what_is_too_long_is_cut_and_counted(tokenizer):
    tokens = tokenize(pairs("abcdef", "ghijk", "l"), tokenizer, max_prompt=4, max_response=3)
    assert tokenizer.decode(tokens.prompts[0]) == "cdef"
    assert tokenizer.decode(tokens.responses[int(tokens.chosen[0])]) == "ghi"
    assert tokens.cut == "1 prompt lost its beginning and 1 response lost its end"
    assert not tokenize(pairs(), tokenizer).cut


def test_a_cut_prompt_keeps_its_first_token_where_that_marks_the_beginning(tokenizer):
    tokens = tokenize(pairs("<|bos|>abcdef"), tokenizer, max_prompt=3)
    assert tokenizer.decode(tokens.prompts[0]) == "<|bos|>ef"


def test_items_of_other_rows_are_not_tokenised(tokenizer):
    table = from_columns(prompt=["p", "q"], chosen=["a", "c"], rejected=["b", "d"], user=["u", "v"])
    tokens = tokenize(table.take(np.array([1])), tokenizer)
    assert tokens.responses.length.sum() == 4  # c and d, each with its end
    assert tokenizer.decode(tokens.sequence(int(tokens.chosen[0]), 0).prompt) == "q"


def test_users_are_renumbered_by_name(tokenizer):
    table = from_columns(prompt=["p"] * 3, chosen=["a", "c", "e"], rejected=["b", "d", "f"], user=["u", "v", "w"])
    tokens = tokenize(table, tokenizer).for_users(["w", "u"])
    assert tokens.user.tolist() == [1, UNKNOWN, 0]
    assert tokens.for_users(["u"]).user.tolist() == [0, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pairs(chosen="  "), "row 0: the chosen response is empty"),
        (
            pairs(chat("user", "hi"), chat("assistant", "yes"), chat("assistant", ""), format="chat"),
            "row 0: the rejected response is empty",
        ),
        (
            from_attributes(
                attributes=np.eye(2),
                attribute_names=["a", "b"],
                chosen=np.array([0]),
                rejected=np.array([1]),
                user=["u"],
            ),
            "vectors of numbers",
        ),
    ],
)
def test_what_no_language_model_can_read(tokenizer, table, message):
    with pytest.raises(DataError, match=message):
        tokenize(table, tokenizer)


def test_tokenizers_that_do_not_do(tokenizer):
    table = pairs(chat("user", "hi"), chat("assistant", "yes"), chat("assistant", "no"), format="chat")
    with pytest.raises(ConfigError, match="no chat template"):
        tokenize(table, make_tokenizer(template=None))
    with pytest.raises(ConfigError, match="max_prompt is 0"):
        tokenize(pairs(), tokenizer, max_prompt=0)
    endless = make_tokenizer()
    endless.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        tokenize(pairs(), endless)
