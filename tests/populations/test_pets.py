"""Pets: the design, the ceilings, and user-blind models at them."""

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions, score
from pluralign.features import Design, encode, fit_encoder, make_encoder
from pluralign.inference.dpl import fit_dpl
from pluralign.inference.individual import fit_individual
from pluralign.inference.pooled import fit_pooled
from pluralign.populations import ANIMALS, ORDERS, Pets, simulate_pets


def texts(table):
    return np.array(table.items.response.to_pylist())


def test_a_hundred_sentences_per_animal_twenty_of_them_for_the_test():
    population = simulate_pets()
    table = population.comparisons
    assert table.n_users == 2
    assert len(population.rows("train")) == 4000
    assert len(population.rows("test")) == 400
    seen = {}
    for split in ("train", "test"):
        at = population.rows(split)
        seen[split] = set(np.concatenate([table.chosen[at], table.rejected[at]]).tolist())
        about = np.bincount(population.animal[sorted(seen[split])], minlength=4)
        assert about.tolist() == [80 if split == "train" else 20] * 4
    assert not seen["train"] & seen["test"]
    assert len(set(texts(table))) == 400
    # A test sentence tells a fact that no training sentence tells.
    facts = {split: {text.split(maxsplit=5)[-1][-20:] for text in texts(table)[sorted(seen[split])]} for split in seen}
    assert not facts["train"] & facts["test"]
    assert all(name in text for name, text in zip(np.array(ANIMALS)[population.animal], texts(table), strict=True))


def test_users_agree_on_the_extremes_and_oppose_between_them():
    population = simulate_pets(n_users=6, train_per_user=200, test_per_user=40, seed=1)
    table, names = population.comparisons, np.array(ANIMALS)
    won, lost = names[population.animal[table.chosen]], names[population.animal[table.rejected]]
    for user, better, worse in zip(table.user, won, lost, strict=True):
        order = ORDERS[population.kind[user]]
        assert order.index(better) < order.index(worse)
    assert ((np.char.add(won, lost) == "dogcat") | (np.char.add(won, lost) == "catdog") == population.divergent).all()
    for user in range(6):
        assert population.divergent[table.user == user].sum() == 120  # half of 240, exactly
    pairs = {frozenset(pair) for pair in zip(won, lost, strict=True)}
    assert len(pairs) == 6


def test_the_ceilings_of_a_model_that_does_not_know_the_user():
    population = simulate_pets()
    assert population.ceiling() == 0.75
    assert population.upsampled().ceiling() == pytest.approx(7 / 12)  # (.5 + 5 * .5 * .5) / (.5 + 5 * .5)
    truth = population.upsampled().truth()
    assert truth["ceiling_user_blind"] == 0.75
    assert round(truth["ceiling_user_blind_upsampled"], 2) == 0.58
    assert population.rows("test", divergent=True).size == 200


def scored(population: Pets, fit) -> Predictions:
    """Fit on the training rows and predict the test rows of the same table, from the texts alone."""
    table = population.comparisons
    train, test = (table.take(population.rows(split)) for split in ("train", "test"))
    encoder = fit_encoder(make_encoder("tfidf"), train)
    features = torch.as_tensor(np.asarray(encode(table, encoder))).double()
    return fit(Design.of(train, features)).predict(Design.of(test, features))


def test_user_blind_models_meet_their_ceilings_and_users_own_models_pass_them():
    plain = simulate_pets(n_users=20, train_per_user=60, test_per_user=60, seed=3)
    own = score(scored(plain, lambda rows: fit_individual(rows, ridge=0.05, tau=1.0).model)).accuracy
    assert own > plain.ceiling() + 0.15
    for population in (plain, plain.upsampled()):
        for fit in (
            lambda rows: fit_pooled(rows, ridge=0.05)[0],
            lambda rows: fit_dpl(rows, ridge=0.05, ridge_spread=1.0)[0],
            lambda rows: fit_dpl(rows, "categorical", ridge=0.05, n_atoms=5)[0],
        ):
            # Sentences, not animals alone, have their say, and 1,200 rows their chance: two standard errors are .029.
            assert score(scored(population, fit)).accuracy == pytest.approx(population.ceiling(), abs=0.04)


def test_whoever_does_not_know_the_user_is_half_right_on_divergent_rows():
    population = simulate_pets(n_users=4, train_per_user=101, test_per_user=50, seed=5)
    features = torch.as_tensor(population.features)
    train, test = (Design.of(population.comparisons.take(population.rows(s)), features) for s in ("train", "test"))
    assert fit_pooled(train, ridge=0.1)[0].predict(test).correct.mean() == 0.75
    for family in ("mean-variance", "categorical"):
        assert fit_dpl(train, family, ridge=0.1)[0].predict(test).correct.mean() == 0.75


def test_the_same_seed_is_the_same_population():
    one, other = (simulate_pets(train_per_user=20, test_per_user=5, seed=7) for _ in range(2))
    assert (texts(one.comparisons) == texts(other.comparisons)).all()
    assert (one.comparisons.chosen == other.comparisons.chosen).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulate_pets(n_users=3), "n_users is 3; it must be even"),
        (lambda: simulate_pets(divergent=1.5), r"divergent 1\.5; rows must be at least 1"),
        (
            lambda: simulate_pets(train_per_user=4, test_per_user=4).rows("valid"),
            'unknown split "valid"; known: test, train',
        ),
        (lambda: simulate_pets(test_per_user=4).upsampled(0), "copies is 0; it must be at least 1"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
