"""The exact posterior, by hand and against counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.control.bayes import kinds_posterior
from pluralign.control.choices import Rearrange, Tidy, choice_settings
from pluralign.control.preferences import answer
from pluralign.control.rewards import fit_reward
from pluralign.errors import ConfigError, DataError
from pluralign.populations.noise import flip_labels


def asked(task, first, second, kind):
    """One user, asked about these options."""
    return answer(task, task.observations, np.array([first]), np.array([second]), np.array([kind]))


def test_a_question_on_which_kinds_agree_tells_nothing_and_one_on_which_they_differ_all():
    task = Tidy(agree=3)
    fork, pan = (0, 1), (6, 7)
    nothing = kinds_posterior(task, asked(task, [fork[0]], [fork[1]], 1), shares=np.array([0.8, 0.2]))
    assert nothing.probability.tolist() == [pytest.approx([0.8, 0.2])]
    everything = kinds_posterior(task, asked(task, [pan[0]], [pan[1]], 1), shares=np.array([0.8, 0.2]))
    assert everything.probability.tolist() == [[0, 1]]


def test_noise_weighs_answers_as_bayes_does():
    # Two answers for and one against: odds (1 - p)^2 p : p^2 (1 - p) = 3 at p = 1/4.
    task = Tidy(agree=3)
    sets = asked(task, [6, 6, 9], [7, 7, 8], 0)
    table = flip_labels(sets.comparisons, 1.0, rows=np.array([2]), seed=0)
    found = kinds_posterior(task, type(sets)(comparisons=table, features=sets.features, kind=sets.kind), noise=0.25)
    assert found.probability.tolist() == [pytest.approx([0.75, 0.25])]


def test_answers_that_nobody_gives_are_an_error():
    task = Tidy(agree=3)
    sets = asked(task, [0, 6], [1, 7], 0)
    table = flip_labels(sets.comparisons, 1.0, rows=np.array([0]), seed=0)
    with pytest.raises(DataError, match="the answers of 1 users, the first user 0, are given by no kind"):
        kinds_posterior(task, type(sets)(comparisons=table, features=sets.features, kind=sets.kind))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_it_is_the_share_of_kinds_that_say_the_same(seed, n):
    task = Rearrange(n_users=20, seed=seed % 1000)
    sets = task.draw(30, n, seed=seed)
    found = kinds_posterior(task, sets).probability
    table = sets.comparisons
    place = table.items.attributes.argmax(1)
    for user in range(30):
        rows = table.user == user
        said = task.value[:, place[table.chosen[rows]]] > task.value[:, place[table.rejected[rows]]]
        possible = said.all(axis=1)
        np.testing.assert_allclose(found[user], possible / possible.sum())
        assert found[user, sets.kind[user]] > 0


def test_it_is_calibrated_and_its_choice_is_right_as_often_as_it_says():
    task = Rearrange(n_users=40, seed=3)
    sets, other = task.draw(3000, 4, seed=1), task.draw(3000, 4, seed=2)
    other = answer(task, task.observations, *_pairs(task, other, 4), sets.kind)
    posterior = kinds_posterior(task, sets)
    predictions = posterior.predict(other)
    # Of the answers given a probability near p, a share p turns out so; the first item's side is no information.
    confidence = np.maximum(predictions.chosen, predictions.best_other)
    assert np.nanmean(predictions.correct) == pytest.approx(confidence.mean(), abs=0.01)
    right = posterior.right()
    assert task.choose(right, sets.kind).mean() == pytest.approx(right.max(0).mean(), abs=0.015)
    # The choice by expected reward cannot do better.
    assert task.choose(posterior.reward(task.observations), sets.kind).mean() <= right.max(0).mean() + 0.015


def _pairs(task, sets, n):
    place = sets.comparisons.items.attributes.argmax(1)
    return place[sets.comparisons.chosen].reshape(-1, n), place[sets.comparisons.rejected].reshape(-1, n)


@pytest.mark.parametrize(("agree", "informative"), [(3, 0.4), (2, 0.6)])
def test_success_at_tidy_is_the_binomial_one(agree, informative):
    # Without an informative answer the disputed objects are a coin toss.
    task = Tidy(agree=agree)
    for n in (1, 2, 4):
        sets = task.draw(4000, n, seed=n)
        success = task.choose(kinds_posterior(task, sets).right(), sets.kind).mean()
        blind = (1 - informative) ** n
        assert success == pytest.approx(1 - blind * (5 - agree) / 10, abs=0.01)


def test_settings_are_checked():
    task = Tidy()
    sets = task.draw(2, 1, seed=0)
    with pytest.raises(ConfigError, match="noise is 1"):
        kinds_posterior(task, sets, noise=1.5)
    with pytest.raises(ConfigError, match="shares must be 2 probabilities"):
        kinds_posterior(task, sets, shares=np.array([0.5, 0.2, 0.3]))


def fitted_success(task, fitted, sets):
    """Success of the greedy choice by each user's reward."""
    reward = fitted.reward(task.features(task.observations), fitted.place(sets))
    return task.choose(reward, sets.kind)


@pytest.mark.study
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("n_users", "n_pairs", "sizes", "apart", "seed"),
    [*((5, 12, (4, 8), 0.06, seed) for seed in range(3)), (100, 24, (8, 16), 0.10, 0)],  # the last takes ten minutes
)
def test_latent_users_of_rearrange_come_near_the_exact_posterior(n_users, n_pairs, sizes, apart, seed, whole_runs):
    task = Rearrange(n_users=n_users, seed=seed)
    made = choice_settings(n_kinds=n_users, seed=seed)
    n_sets = 1000 if n_users == 5 else 5000
    fitted = fit_reward("vpl", task, task.draw(n_sets, n_pairs, seed=seed), settings=made)
    for n in sizes:
        sets = task.draw(2000, n, seed=100 + n)
        best = task.choose(kinds_posterior(task, sets).right(), sets.kind).mean()
        assert best - apart < fitted_success(task, fitted, sets).mean() < best + 0.02


@pytest.mark.study
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("agree", [3, 2])
def test_latent_users_of_tidy_come_near_the_exact_posterior(agree, seed, whole_runs):
    task = Tidy(agree=agree)
    sets = task.draw(1000, 12, seed=seed)
    fitted = fit_reward("vpl", task, sets, settings=choice_settings(seed=seed))
    shared = fit_reward("btl", task, sets)
    found = []
    for n in (1, 2, 4, 8):
        asked = task.draw(2000, n, seed=100 + n)
        best = task.choose(kinds_posterior(task, asked).right(), asked.kind).mean()
        found.append(fitted_success(task, fitted, asked).mean())
        assert found[-1] == pytest.approx(best, abs=0.03)
        assert fitted_success(task, shared, asked).mean() == pytest.approx((agree + (5 - agree) / 2) / 5, abs=0.03)
    assert found == sorted(found)


@pytest.mark.study
def test_a_minority_gets_its_own_and_one_kind_alone_pays_nothing(whole_runs):
    task = Tidy(agree=3)
    for share, latent_at_least, shared_is in ((0.8, (0.97, 0.97), (1.0, 0.6)), (1.0, (0.99,), (1.0,))):
        shares = task.shares(share)
        sets = task.draw(1000, 12, shares=shares, seed=0)
        asked = task.draw(2000, 8, shares=shares, seed=1)
        # Where there is one kind alone a latent user falls back to the pooled reward, which is exact there.
        fitted = fit_reward("vpl", task, sets, settings=choice_settings())
        shared = fit_reward("btl", task, sets)
        for kind, (low, same) in enumerate(zip(latent_at_least, shared_is, strict=True)):
            own = asked.kind == kind
            assert fitted_success(task, fitted, asked)[own].mean() > low
            assert fitted_success(task, shared, asked)[own].mean() == pytest.approx(same, abs=0.03)
