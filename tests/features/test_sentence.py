import csv

import numpy as np
import pytest

from pluralign.errors import ConfigError
from pluralign.features import Item, encode_items, load_encoder, make_encoder, save_encoder

from .conftest import sentences

pytest.importorskip("sentence_transformers")
ITEMS = [Item("a prompt", text) for text in ("A dog barks.", "The hound is barking loudly.", "Taxes rose in May.")]


def test_meanings_are_near(small_model):
    features = make_encoder(f"st:{small_model}", precision="float32").encode(ITEMS)
    assert features.shape == (3, 384)
    near, far = features[0] @ features[1], features[0] @ features[2]
    assert near > 0.5 > 0.2 > far


def test_agrees_with_sentence_transformers_and_reads_the_response_alone(small_model):
    from sentence_transformers import SentenceTransformer

    texts = [item.response for item in ITEMS]
    theirs = SentenceTransformer(str(small_model), device="cpu").encode(texts)
    ours = make_encoder(f"st:{small_model}", precision="float32").encode(ITEMS, device="cpu")
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    both = make_encoder(f"st:{small_model}", precision="float32", with_prompt=True).encode(ITEMS, device="cpu")
    assert np.abs(both - ours).max() > 0.01


def test_batch_mates_change_nothing(small_model):
    encoder = make_encoder(f"st:{small_model}", precision="float32")
    items = [Item("", text) for text in sentences(6)]
    alone = np.concatenate([encoder.encode([item]) for item in items])
    np.testing.assert_allclose(encoder.encode(items, batch_size=6), alone, atol=1e-6)


@pytest.mark.data
def test_bfloat16_gives_equal_vectors_on_real_text(small_model, data_dir):
    with (data_dir / "jester5k" / "jokes.csv").open(newline="") as file:
        items = [Item("", row["text"]) for row in csv.DictReader(file)][:4]
    wide = make_encoder(f"st:{small_model}", precision="float32", max_length=64).encode(items)
    narrow = make_encoder(f"st:{small_model}", precision="bfloat16", max_length=64).encode(items)
    cosine = (wide * narrow).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(narrow, axis=1)
    assert cosine.min() > 0.99
    assert cosine.mean() > 0.998


def test_float16_storage_keeps_the_vectors(small_model, tmp_path):
    encoder = make_encoder(f"st:{small_model}", precision="float32")
    stored = encode_items(ITEMS, encoder, cache_dir=tmp_path)
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored, encoder.encode(ITEMS), atol=2e-4)


def test_a_hit_loads_no_network(small_model, tmp_path, monkeypatch):
    first = encode_items(ITEMS, make_encoder(f"st:{small_model}"), cache_dir=tmp_path)
    fresh = make_encoder(f"st:{small_model}")
    again = encode_items(ITEMS, fresh, cache_dir=tmp_path)
    np.testing.assert_array_equal(first, again)
    assert fresh._loaded == {}


def test_cut_texts_are_counted_and_reported(small_model, caplog):
    encoder = make_encoder(f"st:{small_model}", max_length=8)
    items = [Item("", "one two three"), Item("", "one two three four five six seven eight nine")]
    features = encode_items(items, encoder)
    assert "1 of 2 texts were longer than max_length = 8 tokens and were cut" in caplog.text
    # Eight tokens hold six words between the first and the last special token.
    cut = encode_items([Item("", "one two three four five six")], encoder)
    np.testing.assert_allclose(features[1], cut[0], atol=1e-3)


def test_settings_are_checked(small_model):
    with pytest.raises(ConfigError, match=r"max_length is 4096, but .* reads at most 512 tokens"):
        make_encoder(f"st:{small_model}", max_length=4096).encode(ITEMS)
    with pytest.raises(ConfigError, match=r'there is no folder "\./nowhere"'):
        make_encoder("st:./nowhere")


def test_saved_and_loaded(small_model, tmp_path):
    encoder = make_encoder(f"st:{small_model}", max_length=64)
    save_encoder(encoder, tmp_path)
    assert load_encoder(tmp_path).identity == encoder.identity
