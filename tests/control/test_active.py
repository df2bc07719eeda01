"""Scores of sets of questions: cases by hand, bounds, and a planted question that tells all."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.control.active import (
    EACH,
    METHODS,
    SCORES,
    Vectors,
    active_curve,
    entropy,
    moment_matched,
    predictive,
    released,
    score_sets,
)
from pluralign.control.choices import Tidy, choice_settings
from pluralign.control.maze import Maze
from pluralign.control.planning import plan_for
from pluralign.control.preferences import draw_sets
from pluralign.control.rewards import fit_reward
from pluralign.errors import ConfigError
from pluralign.inference.latent_elbo import LatentSettings, initial

LOG_2 = math.log(2)
FEW = replace(choice_settings(), steps=200, users=64)


def untrained(seed, prior="normal", latent=3, **changes):
    """Some encoder and decoder on 4 features: the laws hold for any."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    made = LatentSettings(latent_dim=latent, hidden=6, guided=False, prior=prior, components=2, seed=seed, **changes)
    return initial(made, draw(4), draw(4, 4), draw(4).abs() + 0.1, draw(3, 4)), draw(12, 4)


def some_pairs(seed, n_sets, n_questions, n_items=12):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, n_items, (n_sets, n_questions))
    other = (first + rng.integers(1, n_items, first.shape)) % n_items
    return torch.as_tensor(np.stack([first, other], axis=2))


def one_dimension(mean, variance, weight=(0.5, 0.5)):
    """Two vectors of answers, and a z of one dimension."""
    return Vectors(
        torch.tensor([weight], dtype=torch.float64),
        torch.tensor(mean, dtype=torch.float64).view(1, 2, 1),
        torch.tensor(variance, dtype=torch.float64).view(1, 2, 1, 1),
    )


def test_scores_worked_by_hand():
    # Means at -1 and 1, variances 1 and 3: E S = 2, Cov mu = 1.
    after = one_dimension([-1, 1], [1, 3])
    assert moment_matched(after).item() == pytest.approx(math.log(3) / 2 - math.log(3) / 4)
    assert entropy(after).item() == pytest.approx(-math.log(3) / 4)
    assert released(after).item() == pytest.approx(math.log(4 * math.pi) - math.log(12 * math.pi**2) / 2)
    # The means are half of the story, and the released score does not read it.
    apart = one_dimension([-5, 5], [1, 3])
    assert moment_matched(apart) > moment_matched(after)
    assert released(apart) == released(after)
    # An answer that nobody gives counts for nothing where answers are weighed.
    assert moment_matched(one_dimension([-5, 5], [1, 3], (1.0, 0.0))).item() == pytest.approx(0)


def test_two_users_who_always_differ_tell_everything_with_one_answer():
    first = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert predictive(first, half).item() == pytest.approx(LOG_2)
    assert predictive(first.expand(1, 3, 2), half).item() == pytest.approx(LOG_2)  # not three times
    assert predictive(torch.full((1, 1, 2), 0.5, dtype=torch.float64), half).item() == pytest.approx(0)
    noisy = torch.tensor([[[0.9, 0.1]]], dtype=torch.float64)
    h = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert predictive(noisy, half).item() == pytest.approx(LOG_2 - h)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 9), st.sampled_from(["normal", "mixture"]))
def test_bounds(seed, n_questions, prior):
    model, features = untrained(seed, prior)
    found = score_sets(model, features, some_pairs(seed, 5, n_questions), ("predictive", "moment-matched"))
    assert (found["predictive"] >= 0).all()
    assert (found["predictive"] <= n_questions * LOG_2 + 1e-12).all()
    assert (found["moment-matched"] >= -1e-9).all()


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 6), st.sampled_from(["model", "uniform"]))
def test_the_order_of_the_questions_is_nothing(seed, n_questions, weights):
    model, features = untrained(seed)
    pairs = some_pairs(seed, 4, n_questions)
    turned = pairs[:, torch.randperm(n_questions, generator=torch.Generator().manual_seed(seed))].clone()
    turned[:, 0] = turned[:, 0].flip(1)  # nor which item is named first
    one = score_sets(model, features, pairs, SCORES, weights=weights)
    other = score_sets(model, features, turned, SCORES, weights=weights)
    for method in SCORES:
        torch.testing.assert_close(one[method], other[method])


@pytest.mark.parametrize("n_questions", [1, 3, 9])
def test_a_pair_of_the_same_item_tells_nothing(n_questions):
    model, features = untrained(3)
    same = torch.arange(n_questions)[None, :, None].expand(1, -1, 2)
    found = score_sets(model, features, same, ("predictive", "moment-matched"))
    assert found["predictive"].item() == pytest.approx(0, abs=1e-9)
    assert found["moment-matched"].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("weights", ["model", "uniform"])
def test_an_encoder_that_does_not_listen_has_nothing_to_ask(weights):
    model, features = untrained(5)
    deaf = replace(model, encoder={**model.encoder, "head": torch.zeros_like(model.encoder["head"])})
    found = score_sets(deaf, features, some_pairs(1, 6, 3), ("moment-matched",), weights=weights)
    torch.testing.assert_close(found["moment-matched"], torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_matching_moments_is_an_upper_bound_of_the_mixtures_information():
    # Monte Carlo: the entropy of the mixture less the mean entropy of its parts.
    g = torch.Generator().manual_seed(0)
    mean = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    variance = torch.tensor([[0.3, 1.0], [0.5, 0.4], [1.0, 0.2]], dtype=torch.float64)
    weight = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    part = torch.multinomial(weight, 20_000, replacement=True, generator=g)
    z = mean[part] + variance[part].sqrt() * torch.randn(20_000, 2, generator=g, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, variance.sqrt())
    density = normal.log_prob(z[:, None]).sum(2) + weight.log()
    own = normal.log_prob(z[:, None]).sum(2)[torch.arange(20_000), part]
    information = (own - density.logsumexp(1)).mean()
    matched = moment_matched(Vectors(weight[None], mean[None], torch.diag_embed(variance)[None])).item()
    assert 0 < information < matched
    assert matched < 3 * information


@pytest.fixture(scope="module")
def tidy(whole_runs):
    task = Tidy(agree=3)
    return task, fit_reward("vpl", task, task.draw(800, 12, seed=0), settings=FEW)


def test_one_question_about_a_disputed_object_is_worth_many_at_random(tidy):
    task, fitted = tidy
    curve = active_curve(
        fitted,
        task,
        task.observations,
        questions=(1, 2),
        methods=("random", "moment-matched", "predictive", EACH),
        n_candidates=50,
        n_users=200,
        success=lambda z, kind: task.choose(fitted.reward(task.features(task.observations), z), kind),
        asked=task.questions,
    )
    for method in ("moment-matched", "predictive", EACH):
        assert curve.success_score(method, 1).estimate > 0.97
        assert curve.success_gain(method, 1, "random", 2).low > 0
        assert curve.gain(method, 1).low > 0
    # The object asked about is one of the last two, the disputed ones.
    for method in ("moment-matched", "predictive"):
        assert (curve.chosen[method][0].argmax(2) >= 6).all()
    random = curve.success_score("random", 1).estimate
    assert random == pytest.approx(0.88, abs=0.06)
    plain = curve.as_dict()
    assert plain["questions"] == [1, 2]
    assert plain["methods"]["random"]["success"][0]["estimate"] == random
    assert "gain_over_random" in plain["methods"][EACH]


def test_success_and_its_interval_are_those_of_users(tidy):
    task, fitted = tidy
    curve = active_curve(
        fitted,
        task,
        task.observations,
        questions=(1,),
        methods=("random", "entropy"),
        n_candidates=5,
        n_users=40,
        success=lambda z, kind: kind * 0.5,
        asked=task.questions,
    )
    found = curve.success_score("entropy", 1)
    assert found.estimate == pytest.approx(0.25)
    assert found.standard_error == pytest.approx(0.25 / math.sqrt(39), rel=0.02)
    assert curve.success_gain("entropy", 1).estimate == pytest.approx(0)
    assert len(curve.figure().axes) == 2


def test_what_is_not_known_is_said():
    model, features = untrained(0)
    with pytest.raises(ConfigError, match=r"unknown score in \['bald'\] or weights \"model\"; known: moment-matched"):
        score_sets(model, features, some_pairs(0, 2, 2), ("bald",))
    with pytest.raises(ConfigError, match="there is no question in a set"):
        score_sets(model, features, some_pairs(0, 2, 2)[:, :0], ("entropy",))


@pytest.mark.study
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_in_the_maze_q_questions_chosen_are_worth_2q_at_random(seed, whole_runs):
    task = Maze("two")
    rng = np.random.default_rng(seed)
    place = task.centres[rng.integers(0, len(task.centres), 5000)] + rng.uniform(-0.5, 0.5, (5000, 2))
    states = np.column_stack([place, np.zeros_like(place)])
    fitted = fit_reward("vpl", task, draw_sets(task, states, n_users=2000, n_pairs=16, seed=seed), seed=seed)
    curve = active_curve(
        fitted,
        task,
        states,
        methods=METHODS,
        success=lambda z, kind: plan_for(task, fitted, z, kind).success,
        seed=seed,
    )
    for q in (1, 2):
        assert curve.score("moment-matched", q).estimate >= curve.score("random", 2 * q).estimate
    assert curve.success_score("moment-matched", 2).estimate >= curve.success_score("random", 4).estimate
    # The released score may hit upon a good question, but cannot tell it from one that says nothing.
    for q in (1, 2, 4):
        assert curve.score("moment-matched", q).estimate >= curve.score("released", q).estimate - 0.005
