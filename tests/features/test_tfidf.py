import numpy as np
import pytest

from pluralign.errors import ConfigError, DataError
from pluralign.features import Item, Style, Tfidf, encode, fit_encoder, load_encoder, make_encoder, save_encoder
from pluralign.features.tfidf import count_terms, weigh_terms

from .conftest import sentences, table


def items(texts):
    return [Item("why", text) for text in texts]


def test_weights_are_scikit_learn_s():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = sentences(30)
    theirs = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(texts).toarray()
    fitted = Tfidf(style=False).fit(items(texts))
    ours = weigh_terms(count_terms(items(texts)), fitted.terms, fitted.rarity).toarray()
    # Columns are in another order; the angles between texts are the same.
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-6)


def test_all_directions_keep_all_angles():
    texts = sentences(20)
    fitted = Tfidf(topics=1000, style=False).fit(items(texts))
    weighted = weigh_terms(count_terms(items(texts)), fitted.terms, fitted.rarity).toarray()
    features = fitted.encode(items(texts))
    np.testing.assert_allclose(features @ features.T, weighted @ weighted.T, atol=1e-5)
    np.testing.assert_allclose(fitted.directions @ fitted.directions.T, np.eye(len(fitted.directions)), atol=1e-5)


def test_two_fits_are_one_and_style_stands_beside():
    texts = sentences(60)
    one, two = (Tfidf(topics=5).fit(items(texts)) for _ in range(2))
    assert one.identity == two.identity
    np.testing.assert_array_equal(one.encode(items(texts)), two.encode(items(texts)))
    assert one.dim == 5 + Style().dim == len(one.names)
    np.testing.assert_array_equal(one.encode(items(texts))[:, 5:], Style().encode(items(texts)))
    assert Tfidf(topics=5, seed=1).fit(items(texts)).identity != one.identity


def test_held_out_items_teach_nothing():
    texts = sentences(40)
    train = table(texts).take(np.arange(19))  # items 0 to 19
    poisoned = table(texts[:20] + [text + " secret secret words" for text in texts[20:]]).take(np.arange(19))
    one, two = fit_encoder(Tfidf(), train), fit_encoder(Tfidf(), poisoned)
    assert one.identity == two.identity
    np.testing.assert_array_equal(encode(train, one)[:20], encode(poisoned, two)[:20])
    everything = fit_encoder(Tfidf(), table(texts))
    assert everything.identity != one.identity


def test_a_text_s_features_do_not_depend_on_its_mates():
    texts = sentences(30)
    fitted = Tfidf(topics=6).fit(items(texts))
    alone = np.concatenate([fitted.encode(items([text])) for text in texts])
    np.testing.assert_allclose(fitted.encode(items(texts)), alone, atol=1e-6)


def test_two_topics_tell_two_vocabularies_apart():
    rng = np.random.default_rng(0)
    camps = ["apple pear plum fig quince melon", "bolt screw rivet nail washer gasket"]
    texts = [" ".join(rng.choice(camp.split(), 8)) for camp in camps for _ in range(20)]
    features = Tfidf(topics=2, style=False).fit(items(texts)).encode(items(texts))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, np.kron(np.eye(2), np.ones((20, 20))), atol=1e-3)


def test_saved_and_loaded_it_encodes_new_texts(tmp_path):
    fitted = make_encoder("tfidf", topics=7).fit(items(sentences(30)))
    save_encoder(fitted, tmp_path)
    new = items([*sentences(5, seed=1), "", "words it never saw"])
    loaded = load_encoder(tmp_path)
    np.testing.assert_array_equal(loaded.encode(new), fitted.encode(new))
    assert loaded.identity == fitted.identity
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_few_texts_that_share_nothing_still_fit():
    fitted = Tfidf().fit(items(["one two", "three four"]))
    assert np.isfinite(fitted.encode(items(["one", "five"]))).all()


def test_bad_settings_and_texts():
    with pytest.raises(ConfigError, match="topics is 0; it must be at least 1"):
        Tfidf(topics=0)
    with pytest.raises(DataError, match="none of the 2 training items has a word to learn from"):
        Tfidf().fit(items(["!", "?"]))
