import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pluralign.comparisons import from_attributes
from pluralign.errors import ConfigError, DataError
from pluralign.features import default_encoder, encode, make_encoder, save_features

from .conftest import sentences, table


def cars():
    attributes = np.array([[1.0, 20.5], [0.0, 13.25], [1.0, 8.0]])
    return from_attributes(
        attributes=attributes,
        attribute_names=["fast", "price"],
        chosen=np.array([0, 1]),
        rejected=np.array([1, 2]),
        user=["ann", "bob"],
    )


def test_attributes_are_the_features_of_numeric_items():
    comparisons = cars()
    features = encode(comparisons, default_encoder(comparisons))
    assert features.dtype == np.float64
    np.testing.assert_array_equal(features, comparisons.items.attributes)


def test_texts_have_no_attributes():
    with pytest.raises(DataError, match="the items have no numeric attributes") as caught:
        encode(table(sentences(3)), make_encoder("attributes"))
    assert "tfidf" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_arrays_of_any_float_are_read(tmp_path, dtype):
    values = torch.tensor([[1.5, -2.0], [0.25, 3.0], [7.0, 0.0]], dtype=dtype)
    save_file({"embeddings": values}, tmp_path / "a.safetensors")  # the one tensor, whatever its name
    got = encode(table(["a", "b", "c"]), make_encoder(f"array:{tmp_path / 'a.safetensors'}"))
    np.testing.assert_array_equal(got, values.double().numpy())
    if dtype != torch.bfloat16:
        np.save(tmp_path / "a.npy", values.numpy())
        np.testing.assert_array_equal(encode(table(["a", "b", "c"]), make_encoder(f"array:{tmp_path / 'a.npy'}")), got)


def test_rows_keyed_by_text_are_found_in_any_table(tmp_path):
    texts = sentences(10)
    features = np.arange(30.0, dtype=np.float32).reshape(10, 3)
    save_features(tmp_path / "a.safetensors", table(texts), features)
    encoder = make_encoder(f"array:{tmp_path / 'a.safetensors'}")
    assert encoder.dim == 3
    np.testing.assert_array_equal(encode(table(texts[::-1][:4]), encoder), features[::-1][:4])
    with pytest.raises(DataError, match="has no features for 1 of 3 items; the first is 'new'"):
        encode(table([*texts[:2], "new"]), encoder)


def test_a_wrong_number_of_rows(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((99, 2)))
    with pytest.raises(DataError, match=r"a\.npy has 99 rows, but there are 3 items") as caught:
        encode(table(["a", "b", "c"]), make_encoder(f"array:{tmp_path / 'a.npy'}"))
    assert "one row per item" in caught.value.hint


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"holds float64 \(3,\); accepted: floats \(items, dim\)"),
        (np.zeros((3, 2), int), r"holds int64 \(3, 2\)"),
        (np.array([[1.0], [np.nan], [0.0]]), "the features of item 1 hold a NaN or an infinity"),
        (np.array([{}, {}], dtype=object), "is no plain array"),
    ],
)
def test_arrays_that_are_not_features(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message):
        encode(table(["a", "b", "c"]), make_encoder(f"array:{tmp_path / 'a.npy'}"))


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.npy"):
        make_encoder("array:nowhere.npy")
    with pytest.raises(ConfigError, match=r"a\.pt ends in '\.pt'; accepted: \.npy, \.safetensors"):
        make_encoder("array:a.pt")
    save_file({"x": torch.zeros(1, 1), "y": torch.zeros(1, 1)}, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match='has no tensor "features"; it has: x, y'):
        encode(table(["a", "b"]), make_encoder(f"array:{tmp_path / 'a.safetensors'}"))
    with pytest.raises(ConfigError, match=r"features keyed by text are a \.safetensors file"):
        save_features(tmp_path / "a.npy", table(["a", "b"]), np.zeros((2, 1)))
    with pytest.raises(DataError, match=r"features are float64 \(3, 1\); accepted: floats \(2, dim\)"):
        save_features(tmp_path / "b.safetensors", table(["a", "b"]), np.zeros((3, 1)))
