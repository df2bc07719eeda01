import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.comparisons.chats import encode_chat
from pluralign.errors import ConfigError, DataError
from pluralign.features import Item, encode_items, make_encoder
from pluralign.features.transformer import pad_right, pool_hidden

from .conftest import build_model, build_tokenizer, sentences

ITEMS = [Item("why", text) for text in sentences(9)]


def test_last_and_mean_by_hand():
    hidden = torch.tensor([[[1.0], [2.0], [30.0]], [[70.0], [4.0], [6.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])  # one padded on the right, one on the left
    assert pool_hidden(hidden, mask, "last").tolist() == [[2.0], [6.0]]
    assert pool_hidden(hidden, mask, "mean").tolist() == [[1.5], [5.0]]


def test_a_text_without_tokens_is_zero_even_where_attention_is_not_a_number():
    hidden = torch.full((1, 2, 3), torch.nan)
    for pooling in ("last", "mean"):
        assert pool_hidden(hidden, torch.zeros(1, 2, dtype=torch.int64), pooling).tolist() == [[0.0] * 3]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**16), pooling=st.sampled_from(["last", "mean"]), left=st.booleans())
def test_padding_changes_nothing(seed, pooling, left):
    g = torch.Generator().manual_seed(seed)
    hidden, extra = torch.randn(2, 5, 3, generator=g), torch.randn(2, 4, 3, generator=g)
    mask, none = torch.ones(2, 5, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.int64)
    padded = torch.cat([extra, hidden] if left else [hidden, extra], dim=1)
    marks = torch.cat([none, mask] if left else [mask, none], dim=1)
    torch.testing.assert_close(pool_hidden(padded, marks, pooling), pool_hidden(hidden, mask, pooling))


def test_rows_are_padded_on_the_right():
    tokens, mask = pad_right([[5, 6, 7], [8], []])
    assert tokens.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_batch_mates_change_nothing(causal_model, pooling):
    encoder = make_encoder(f"hf:{causal_model}", pooling=pooling, precision="float32")
    together = encoder.encode(ITEMS, batch_size=9)
    alone = np.concatenate([encoder.encode([item]) for item in ITEMS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.1  # and the texts differ


def test_the_tokenizer_s_padding_side_changes_nothing(tmp_path, causal_model):
    right = make_encoder(f"hf:{causal_model}", precision="float32").encode(ITEMS)
    left = make_encoder(f"hf:{build_model(tmp_path, padding_side='left')}", precision="float32").encode(ITEMS)
    np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_agrees_with_the_model_called_by_hand(causal_model, pooling):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(causal_model).eval()
    ids = AutoTokenizer.from_pretrained(causal_model)("why\n\nthe cat sat", return_tensors="pt")["input_ids"]
    hidden = model(ids, output_hidden_states=True).hidden_states[-1][0]
    wanted = hidden[-1] if pooling == "last" else hidden.mean(0)
    encoder = make_encoder(f"hf:{causal_model}", pooling=pooling, precision="float32")
    got = encoder.encode([Item("why", "the cat sat"), ITEMS[0]])[0]
    np.testing.assert_allclose(got, wanted.numpy(force=True), atol=1e-6)


def test_a_reward_model_s_head_applied_to_its_features_is_its_reward(reward_model):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    features = make_encoder(f"hf:{reward_model}", precision="float32").encode(ITEMS)
    for item, row in zip(ITEMS, features, strict=True):
        reward = model(**tokenizer(item.text(prompt=True), return_tensors="pt")).logits[0, 0]
        torch.testing.assert_close(torch.from_numpy(row) @ model.score.weight[0], reward, atol=1e-5, rtol=1e-4)


def test_a_chat_goes_through_the_template(causal_model):
    encoder = make_encoder(f"hf:{causal_model}", precision="float32")
    prompt = encode_chat([{"role": "user", "content": "why"}])
    chat = Item(prompt, encode_chat([{"role": "assistant", "content": "the cat"}]), chat=True)
    assert encoder.tokenizer.decode(encoder.tokens([chat])[0]) == "[user] why </s> [assistant] the cat </s>"
    as_text = make_encoder(f"hf:{causal_model}", precision="float32", chat_template=True)
    np.testing.assert_array_equal(as_text.encode([Item("why", "the cat")]), encoder.encode([chat]))
    plain = make_encoder(f"hf:{causal_model}", precision="float32", chat_template=False)
    np.testing.assert_array_equal(plain.encode([chat]), encoder.encode([Item("why", "the cat")]))


def test_a_long_text_keeps_its_end_and_its_first_token(causal_model, caplog):
    encoder = make_encoder(f"hf:{causal_model}", max_length=4)
    ids = encoder.tokens([Item("", "cat dog sat ran on")])[0]
    assert encoder.tokenizer.decode(encoder.cut(ids)) == "<s> sat ran on"
    encode_items([Item("", "cat dog sat ran on"), Item("", "cat")], encoder)
    assert "1 of 2 texts were longer than max_length = 4 tokens and were cut" in caplog.text


def test_bfloat16_is_near_float32(causal_model):
    wide = make_encoder(f"hf:{causal_model}", precision="float32").encode(ITEMS)
    narrow = make_encoder(f"hf:{causal_model}", precision="bfloat16").encode(ITEMS)
    cosine = (wide * narrow).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(narrow, axis=1)
    assert cosine.min() > 0.99
    assert not np.array_equal(wide, narrow)


def test_identity_follows_the_weights_and_not_the_path(tmp_path, causal_model):
    same = make_encoder(f"hf:{build_model(tmp_path / 'causal')}").identity
    other = make_encoder(f"hf:{build_model(tmp_path / 'other' / 'causal', seed=1)}").identity
    assert same == make_encoder(f"hf:{causal_model}").identity
    assert other["sha256"] != same["sha256"]


def test_missing_weights_are_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = build_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 of the network's weights, the first is norm\.weight"):
        make_encoder(f"hf:{folder}").encode(ITEMS)


def test_a_chat_needs_a_template(tmp_path):
    folder = build_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    build_tokenizer(folder, padding_side="right", template=None)
    chat = Item("", encode_chat([{"role": "assistant", "content": "the cat"}]), chat=True)
    with pytest.raises(ConfigError, match="has no chat template"):
        make_encoder(f"hf:{folder}").encode([chat])


def test_a_template_that_refuses_names_the_text(tmp_path):
    folder = build_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    build_tokenizer(folder, padding_side="right", template="{{ raise_exception('no system role') }}")
    chat = Item("", encode_chat([{"role": "assistant", "content": "the cat"}]), chat=True)
    with pytest.raises(DataError, match=r"refuses .*the cat.*no system role"):
        make_encoder(f"hf:{folder}").encode([chat])


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"pooling": "first"}, "pooling is 'first'; accepted: last, mean"),
        ({"precision": "int8"}, "precision is 'int8'; accepted: auto, float32, bfloat16, float16"),
        ({"max_length": 1}, "max_length is 1; it must be at least 2"),
        ({"max_length": 65}, "max_length is 65, but .* reads at most 64 tokens"),
        ({"revision": "main"}, 'revision is "main", but .* is a local folder'),
    ],
)
def test_settings_are_checked(causal_model, given_settings, message):
    with pytest.raises(ConfigError, match=message):
        make_encoder(f"hf:{causal_model}", **given_settings).encode(ITEMS)


def test_a_folder_or_a_model_that_is_not_there():
    with pytest.raises(ConfigError, match=r'there is no folder "\./nowhere"'):
        make_encoder("hf:./nowhere").encode(ITEMS)
    with pytest.raises(ConfigError, match='cannot get the model "nobody/nothing"') as caught:
        make_encoder("hf:nobody/nothing").encode(ITEMS)
    assert "local folder" in caught.value.hint
