from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign import datasets
from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.heterogeneity.components import Components, components
from pluralign.heterogeneity.moments import UserMoments, Whitened
from pluralign.heterogeneity.repeats import Repeats
from pluralign.inference.pooled import fit_pooled
from pluralign.likelihoods import Logit
from pluralign.populations import Population, relabel, simulate

PARTS = ("disagreement", "self_disagreement", "taste", "reliability", "chance")


def design_of(population: Population) -> Design:
    return Design.of(population.comparisons, torch.as_tensor(np.asarray(population.features, dtype=np.float64)))


def repeated(n_users: int, n_tasks: int, n_times: int, seed: int, **population) -> Population:
    """Everybody decides the same pairs several times."""
    n = n_tasks * n_times
    drawn = simulate(
        n_users=n_users,
        comparisons_per_user=n,
        same_prompts=True,
        n_prompts=n,
        n_responses=2,
        features="numeric",
        seed=seed,
        **population,
    )
    table, row = drawn.comparisons, np.arange(n_users * n)
    row = row // n * n + row % n_tasks
    table = replace(table, chosen=table.chosen[row], rejected=table.rejected[row], source=table.source[row])
    return relabel(table, drawn.features, drawn.tastes, noise=drawn.noise, seed=seed)


def truth(population: Population) -> dict[str, float]:
    """The parts, from the true rewards of its users on its own tasks, each with every reliability there is."""
    tastes, table = population.tastes, population.comparisons
    pick = np.random.default_rng(0).permutation(len(table))[:1000]
    x = (population.features[table.chosen] - population.features[table.rejected])[pick]
    margin = x @ (tastes.theta / tastes.reliability[:, None]).T
    scale = np.quantile(tastes.reliability, (np.arange(9) + 0.5) / 9)
    noise = population.noise
    p = np.stack([noise + (1 - 2 * noise) / (1 + np.exp(-s * margin)) for s in scale], axis=1)  # tasks, scales, users
    mean = p.mean((1, 2))
    disagreement, chance = 2 * (mean * (1 - mean)).mean(), 2 * (p * (1 - p)).mean()
    reliability = 2 * p.mean(2).var(axis=1).mean() / disagreement
    return {
        "disagreement": disagreement,
        "self_disagreement": chance,
        "taste": 1 - chance / disagreement - reliability,
        "reliability": reliability,
        "chance": chance / disagreement,
    }


def sums_to_one(found: Components) -> bool:
    return abs(found.taste.estimate + found.reliability.estimate + found.chance.estimate - 1) < 1e-9


@pytest.mark.parametrize("n_choices", [2, 3])
def test_moments_are_those_of_a_double_loop(n_choices):
    population = simulate(
        n_users=4, comparisons_per_user=[3, 1, 5, 4], n_choices=n_choices, features="numeric", dim=2, seed=1
    )
    design, theta = design_of(population), torch.tensor([0.4, -0.3], dtype=torch.float64)
    found = UserMoments.of(Whitened(design=design, theta=theta))

    rows, index = design.differences(torch.arange(design.n_rows)).numpy(), design.decisions.index.numpy()
    p = Logit().choice_probabilities(design.margins(theta[None]), design.decisions)[1][:, 0].numpy()
    score, information = [], []
    for decision in range(design.n_decisions):
        x, q = rows[index == decision], p[index == decision]
        score.append(q @ x)
        information.append((x.T * q) @ x - np.outer(q @ x, q @ x))
    user, at = design.user.numpy(), theta.numpy()
    products = np.zeros((4, 3))
    for i, j in np.ndindex(len(user), len(user)):
        if i != j and user[i] == user[j]:
            one, two = information[i], information[j]
            products[user[i]] += [np.trace(one @ two), at @ one @ two @ at, (at @ one @ at) * (at @ two @ at)]
    order = np.argsort(np.bincount(user), kind="stable")
    np.testing.assert_allclose(found.score, np.array([np.array(score)[user == u].sum(0) for u in order]), atol=1e-12)
    np.testing.assert_allclose(found.products, products[order], atol=1e-12)


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_other_coordinates_of_the_features_change_nothing(seed):
    population = simulate(n_users=8, comparisons_per_user=25, features="numeric", dim=3, seed=seed % 1000)
    design, rng = design_of(population), np.random.default_rng(seed)
    turn = torch.as_tensor(np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 2, 3))
    theta = fit_pooled(design, ridge=0.0)[0].theta
    one = UserMoments.of(Whitened.of(design, theta)).solve()
    other = design.with_features(design.features @ turn)
    two = UserMoments.of(Whitened.of(other, torch.linalg.solve(turn, theta))).solve()
    np.testing.assert_allclose(one[0], two[0], atol=1e-7)
    np.testing.assert_allclose(one[1], two[1], atol=1e-7)


def test_leaving_a_user_out_is_doing_without():
    sizes = [60, 29, 44, 80, 31, 35]
    population = simulate(
        n_users=6, comparisons_per_user=sizes, kind="individual", reliability_sd=1.0, features="numeric", dim=3, seed=2
    )
    design = design_of(population)
    whitened = Whitened.of(design, fit_pooled(design, ridge=0.0)[0].theta)
    found, without = UserMoments.of(whitened).solve()
    compared = 0
    for place, user in enumerate(np.argsort(sizes, kind="stable")):
        again = UserMoments.of(replace(whitened, design=whitened.design.take(design.user != user))).solve()[0]
        if ((again > 0) == (found > 0)).all():  # else one is estimated alone, and then is not
            np.testing.assert_allclose(without[place], again, atol=1e-9)
            compared += 1
    assert compared >= 3


def test_repeats_by_hand():
    # Pair 0: user 0 answers 1, 1, 0 and user 1 answers 1, 0. The two differ in 2/3 1/2 + 1/3 1/2 = 1/2; user 0 differs
    # from himself in 4 of 6 and user 1 always: 5/6. Pair 1 has user 0 alone, who says nothing of others.
    drawn = simulate(n_users=2, comparisons_per_user=[5, 2], kind="null", features="numeric", n_prompts=5, seed=0)
    low = np.array([0, 0, 0, 2, 2, 0, 0], dtype=np.int32)
    high = low + 1
    first = np.array([True, True, False, True, True, True, False])
    table = replace(
        drawn.comparisons, chosen=np.where(first, low, high), rejected=np.where(first, high, low), source=low // 2
    )
    found = Repeats.of(table)
    assert (found.n_repeated, found.n_repeaters) == (2, 2)
    assert found.sums == pytest.approx([5, 5 / 2, 5 * 5 / 6])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("null", {}), ("reliability", {}), ("individual", {"spread": 0.7}), ("clusters", {"n_clusters": 2})],
)
def test_repeats_recover_what_was_planted(kind, settings):
    population = repeated(40, 40, 4, seed=3, kind=kind, **settings)
    found, true = components(population.comparisons), truth(population)
    assert found.source == "repeats"
    assert sums_to_one(found)
    for name in ("disagreement", "self_disagreement"):
        assert getattr(found, name).low < true[name] < getattr(found, name).high
    assert found.taste.estimate == pytest.approx(true["taste"], abs=0.05)
    assert found.reliability.estimate == pytest.approx(true["reliability"], abs=0.03)
    assert (found.taste.low == 0) == (kind in ("null", "reliability"))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("null", {}), ("reliability", {}), ("clusters", {}), ("individual", {"n_choices": 3, "n_users": 40, "dim": 3})],
)
def test_a_model_recovers_what_was_planted(kind, settings, whole_runs):
    asked = {"n_users": 80, "comparisons_per_user": 40, "dim": 6} | settings
    population = simulate(kind=kind, features="numeric", seed=5, **asked)
    found = components(population.comparisons, design_of(population), ridge=0.0)
    assert found.source == "model"
    assert sums_to_one(found)
    assert (found.taste.low == 0) == (kind in ("null", "reliability"))
    if "n_choices" not in settings:
        true = truth(population)
        assert found.disagreement.estimate == pytest.approx(true["disagreement"], abs=0.02)
        assert found.taste.estimate == pytest.approx(true["taste"], abs=0.05)
        assert found.reliability.estimate == pytest.approx(true["reliability"], abs=0.03)


def test_copied_answers_are_found_out(whole_runs):
    # Every answer twice, and no taste: copies agree more than any taste of so many features makes answers agree.
    population = simulate(
        n_users=150, comparisons_per_user=10, kind="null", features="numeric", dim=60, signal=1.0, n_prompts=900, seed=0
    )
    table = population.comparisons.take(np.repeat(np.arange(1500), 2))
    design = Design.of(table, torch.as_tensor(population.features))
    with pytest.raises(DataError, match="hang together more closely than independent answers can"):
        components(table, design, ridge=0.0, source="model")


@pytest.mark.study
@pytest.mark.parametrize("dim", [4, 12])
@pytest.mark.parametrize("kind", ["null", "reliability", "individual", "basis", "clusters"])
def test_a_models_intervals_cover_taste(kind, dim, whole_runs):
    hits, error = [], []
    for seed in range(40):
        population = simulate(n_users=100, comparisons_per_user=40, kind=kind, features="numeric", dim=dim, seed=seed)
        found, true = components(population.comparisons, design_of(population), ridge=0.0), truth(population)
        hits.append(found.taste.low - 1e-9 <= true["taste"] <= found.taste.high)
        error.append(found.taste.estimate - true["taste"])
    assert abs(np.mean(error)) < 0.015
    assert np.mean(hits) > 0.85  # 0.95 less three standard errors of forty populations


@pytest.mark.data
def test_taste_is_a_small_share_in_sound_quality(data_dir):
    found = components(datasets.load("sound_quality", data_dir / "paired_comparisons"))
    assert found.source == "repeats"
    # (35.5 - 31.4) / 35.5 is what chance leaves to taste and reliability together.
    assert found.taste.estimate + found.reliability.estimate == pytest.approx((0.355 - 0.314) / 0.355, abs=0.005)
    assert 0.03 < found.taste.low < found.taste.estimate < found.taste.high < 0.15


def test_messages():
    population = simulate(n_users=6, comparisons_per_user=20, features="numeric", seed=0)
    table, design = population.comparisons, design_of(population)
    with pytest.raises(DataError, match='source="model" needs a design'):
        components(table)
    with pytest.raises(DataError, match="no pair of items was decided twice by a user and also by somebody else"):
        components(table, design, source="repeats")
    with pytest.raises(DataError, match="disagreement takes two users at least"):
        components(table.take(table.user == 0), design)
    with pytest.raises(ConfigError, match=r"level is 2.0; it must be between 0 and 1"):
        components(table, design, level=2.0)
