import json
import subprocess
import sys

import numpy as np
import pytest

from pluralign.errors import CacheError, ConfigError
from pluralign.features import Item, Style, Tfidf, default_encoder, load_encoder, make_encoder, pretrained, save_encoder

from .conftest import build_model, sentences, table


def test_importing_features_imports_no_heavy_library():
    heavy = "('transformers', 'sklearn', 'sentence_transformers', 'datasets', 'pandas')"
    code = f"import sys, pluralign.features; sys.exit(str([m for m in {heavy} if m in sys.modules] or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def test_defaults():
    assert default_encoder(table(["a", "b"])) == Tfidf()
    assert make_encoder("style") == Style()
    assert make_encoder("tfidf", topics=3) == Tfidf(topics=3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "tfdif",
            r'unknown encoder "tfdif"; known: array:\.\.\., attributes, hf:\.\.\., st:\.\.\., style, tfidf$',
        ),
        ("bert:x", 'unknown encoder "bert:x"; known: '),
        ("tfidf:x", 'unknown encoder "tfidf:x"; known: '),
        ("hf", 'encoder "hf" names no source'),
        ("st:", 'encoder "st:" names no source'),
    ],
)
def test_names_that_are_not_known(spec, message):
    with pytest.raises(ConfigError, match=message):
        make_encoder(spec)


def test_settings_that_are_not_known():
    with pytest.raises(ConfigError, match='encoder "tfidf" has no setting "topic"; it has: topics, style, seed'):
        make_encoder("tfidf", topic=3)
    with pytest.raises(ConfigError, match='encoder "style" has no setting "x"; it has: none'):
        make_encoder("style", x=1)


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    message = 'encoder "st:owner/name" needs the package sentence-transformers, which is not installed'
    with pytest.raises(ConfigError, match=message) as caught:
        make_encoder("st:owner/name")
    assert caught.value.hint == "pip install 'pluralign[embed]'"


def test_a_saved_transformer_is_the_same_one(tmp_path, causal_model):
    encoder = make_encoder(f"hf:{causal_model}", pooling="mean", max_length=8)
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    assert (loaded.pooling, loaded.max_length) == ("mean", 8)
    items = [Item("", text) for text in sentences(3)]
    np.testing.assert_array_equal(loaded.encode(items), encoder.encode(items))


def test_a_saved_encoder_knows_when_its_model_has_changed(tmp_path):
    folder = build_model(tmp_path / "model")
    save_encoder(make_encoder(f"hf:{folder}"), tmp_path / "saved")
    build_model(folder, seed=1)
    with pytest.raises(CacheError, match=r"is not what it was when .* was written"):
        load_encoder(tmp_path / "saved")


def test_plain_encoders_and_bad_notes(tmp_path):
    save_encoder(make_encoder("style"), tmp_path)
    assert load_encoder(tmp_path) == Style()
    (tmp_path / "encoder.json").write_text(json.dumps({"spec": "style"}))
    with pytest.raises(CacheError, match="holds no encoder"):
        load_encoder(tmp_path)
    with pytest.raises(CacheError, match="holds no encoder"):
        load_encoder(tmp_path / "nowhere")


def test_a_large_file_is_known_by_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(pretrained, "SAMPLE_BYTES", 10)
    path = tmp_path / "model.safetensors"
    content = bytearray(np.random.default_rng(0).bytes(100_000))
    names = set()
    for place in (None, 0, 99_999):  # the first and the last byte are among the samples
        if place is not None:
            content[place] ^= 1
        path.write_bytes(content)
        names.add(pretrained.identify(str(tmp_path), None)["sha256"])
    assert len(names) == 3
