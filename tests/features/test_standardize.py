import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pluralign.errors import CacheError, DataError
from pluralign.features import Standardizer, standardize, to_tensor, used_items

from .conftest import sentences, table


def test_by_hand():
    features = np.array([[1.0, 5.0, 7.0], [3.0, 5.0, 9.0], [100.0, 6.0, 8.0]])
    fitted = Standardizer.fit(features, np.array([0, 1]))  # item 2 is held out
    assert fitted.columns.tolist() == [0, 2]  # column 1 is constant over the training items
    assert fitted.mean.tolist() == [2.0, 8.0]
    assert fitted.scale.tolist() == [1.0, 1.0]
    assert fitted.transform(features).tolist() == [[-1.0, -1.0], [1.0, 1.0], [98.0, 0.0]]
    assert fitted.names(["a", "b", "c"]) == ("a", "c")


@settings(deadline=None, max_examples=25)
@given(
    arrays(np.float64, (12, 3), elements=st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3 or x == 0)),
    st.floats(0.1, 1e3),
)
def test_units_do_not_matter(features, unit):
    features[:2] += [[0.0], [1.0]]
    features[0] = features[1] + 1  # so that every column varies
    one, two = Standardizer.fit(features), Standardizer.fit(features * unit + 3)
    np.testing.assert_allclose(one.transform(features), two.transform(features * unit + 3), atol=1e-6)
    np.testing.assert_allclose(one.transform(features).mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(one.transform(features).std(0, correction=0), 1, atol=1e-9)


def test_blocks_are_one_matrix(monkeypatch):
    features = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float16)
    whole = Standardizer.fit(features, np.arange(50) % 3 != 0)
    monkeypatch.setattr(standardize, "BLOCK_ROWS", 7)
    parts = Standardizer.fit(features, np.arange(50) % 3 != 0)
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.scale, whole.scale)
    torch.testing.assert_close(parts.transform(features), whole.transform(features))


def test_constant_columns_are_found_at_any_size():
    features = np.tile([0.1, 1e9, 1e-9, 0.0], (1000, 1))
    features[:, 2] += np.linspace(0, 1e-12, 1000)
    assert Standardizer.fit(features).columns.tolist() == [2]


def test_narrow_features_are_float64_and_wide_ones_float32():
    rng = np.random.default_rng(0)
    narrow, wide = rng.normal(size=(5, 99)).astype(np.float16), rng.normal(size=(5, 100))
    assert to_tensor(narrow).dtype == Standardizer.fit(narrow).transform(narrow).dtype == torch.float64
    assert to_tensor(wide).dtype == Standardizer.fit(wide).transform(wide).dtype == torch.float32
    assert to_tensor(wide, dtype=torch.float64).dtype == torch.float64
    np.testing.assert_array_equal(to_tensor(narrow), narrow)


def test_training_items_are_those_that_training_rows_compare():
    comparisons = table(sentences(6))
    assert used_items(comparisons.take(np.array([1, 3]))).tolist() == [1, 2, 3, 4]
    assert used_items(comparisons.take(np.array([], dtype=int))).tolist() == []


def test_saved_and_loaded(tmp_path):
    features = np.random.default_rng(0).normal(size=(9, 3))
    features[:, 1] = 2
    fitted = Standardizer.fit(features)
    fitted.save(tmp_path / "s.safetensors")
    loaded = Standardizer.load(tmp_path / "s.safetensors")
    assert loaded.raw_dim == 3
    torch.testing.assert_close(loaded.transform(features), fitted.transform(features), atol=0, rtol=0)
    (tmp_path / "s.safetensors").write_bytes(b"x")
    for name in ("s.safetensors", "nowhere"):
        with pytest.raises(CacheError, match="holds no standardizer"):
            Standardizer.load(tmp_path / name)


def test_nothing_to_standardize_by():
    with pytest.raises(DataError, match="there is no training item"):
        Standardizer.fit(np.ones((3, 2)), np.array([], dtype=int))
    with pytest.raises(DataError, match="none of the 2 features varies over the 3 training items"):
        Standardizer.fit(np.ones((3, 2)))
    fitted = Standardizer.fit(np.eye(3))
    with pytest.raises(DataError, match="features have 2 columns; the standardizer knows 3"):
        fitted.transform(np.ones((3, 2)))
