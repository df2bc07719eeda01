"""Cosines beside their nulls: published extremes, no rejection where nobody differs, planted tastes seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.files import plain
from pluralign.heterogeneity.embeddings import Frame, OneStep, embed_users, stratified
from pluralign.heterogeneity.similarity import isotropic_null, order_users, similarity
from pluralign.inference.adapt import adapt
from pluralign.inference.basis import fit_basis
from pluralign.inference.heads import fit_heads
from pluralign.inference.individual import fit_individual
from pluralign.populations import simulate
from pluralign.users import Basis


def fitted(kind: str, *, rank: int = 3, n_choices: int = 2, seed: int = 0, **asked):
    """A population on numbers, its design, a basis fitted to it and the pooled reward."""
    given = {"n_users": 60, "comparisons_per_user": 24, "features": "numeric", "dim": 6} | asked
    population = simulate(kind=kind, seed=seed, n_choices=n_choices, **given)
    design = Design.of(population.comparisons, torch.as_tensor(population.features))
    model = fit_basis(design, rank).model
    return population, design, model, fit_heads(design, ridge=torch.ones(1, dtype=torch.float64)).theta[0]


@pytest.mark.parametrize(
    ("n_users", "width", "largest", "smallest"),
    # 5 to 95 % of the extremes of isotropic vectors of the shapes of arXiv 2601.20760's heatmaps.
    [(21, 8, (0.72, 0.92), -0.72), (21, 16, (0.53, 0.75), -0.53), (40, 16, (0.62, 0.79), -0.62)],
)
def test_random_directions_have_the_extremes_of_the_published_heatmaps(n_users, width, largest, smallest):
    null = isotropic_null(n_users, width, n_draws=400)
    assert null.largest[0] == pytest.approx(largest[0], abs=0.02)
    assert null.largest[2] == pytest.approx(largest[1], abs=0.02)
    assert null.smallest[2] == pytest.approx(smallest, abs=0.02)
    # E[cos^2] = 1 / width for independent directions.
    assert null.mean_square[1] == pytest.approx(1 / width, rel=0.03)


def test_the_published_heatmaps_are_no_evidence_of_structure():
    # Table of extremes in arXiv 2601.20760: inside what random vectors give at 21 x 8 and 40 x 16, weaker at 21 x 16.
    eight, sixteen, forty = (isotropic_null(*shape, n_draws=400) for shape in ((21, 8), (21, 16), (40, 16)))
    assert eight.largest[0] < 0.80 < eight.largest[2]
    assert eight.smallest[0] < -0.88 < eight.smallest[2]
    assert forty.largest[0] < 0.68 < forty.largest[2]
    assert forty.smallest[0] < -0.73 < forty.smallest[2]
    assert sixteen.largest[0] > 0.45
    assert sixteen.smallest[2] < -0.38


def test_the_cosine_is_the_correlation_of_deviation_margins():
    _, design, model, _ = fitted("basis", n_users=5, comparisons_per_user=40)
    unit = embed_users(model, design).unit
    # The definition: margins of the two users' deviations over the decisions' pairs, turned either way.
    rows = design.differences(torch.arange(design.n_rows))
    margin = rows @ model.basis @ model.mean.T
    either_way = torch.cat([margin, -margin])
    expected = torch.corrcoef(either_way.T)
    np.testing.assert_allclose(unit @ unit.T, expected.numpy(), atol=1e-9)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_cosines_do_not_change_with_the_features_coordinates(seed):
    rng = np.random.default_rng(seed)
    population = simulate(n_users=6, comparisons_per_user=8, features="numeric", dim=5, seed=seed % 1000)
    design = Design.of(population.comparisons, torch.as_tensor(population.features))
    theta, basis, mean = (torch.as_tensor(rng.normal(size=size)) for size in (5, (5, 2), (6, 2)))
    whole = torch.eye(2, dtype=torch.float64).expand(6, 2, 2)
    model = Basis(theta=theta, basis=basis, mean=mean, covariance=whole)
    unit = embed_users(model, design).unit
    turn = torch.as_tensor(rng.normal(size=(5, 5)) + 3 * np.eye(5))
    there = design.with_features(design.features @ turn)
    back = torch.linalg.inv(turn)
    moved = embed_users(Basis(theta=back @ theta, basis=back @ basis, mean=mean, covariance=whole), there).unit
    np.testing.assert_allclose(unit @ unit.T, moved @ moved.T, atol=1e-6)
    # Nor with a rotation of the basis, which is the same model.
    q = torch.linalg.qr(torch.as_tensor(rng.normal(size=(2, 2)))).Q
    same = embed_users(Basis(theta=theta, basis=basis @ q, mean=mean @ q, covariance=whole), design).unit
    np.testing.assert_allclose(unit @ unit.T, same @ same.T, atol=1e-6)


def test_the_plain_cosine_is_of_the_coefficients():
    _, design, model, _ = fitted("basis", n_users=5)
    found = embed_users(model, design, "coefficient")
    np.testing.assert_array_equal(found.vector, model.mean.numpy())


@pytest.mark.parametrize("n_choices", [2, 4])
def test_one_step_comes_close_to_the_posterior(n_choices):
    _, design, model, theta = fitted("basis", n_choices=n_choices, signal=1.0)
    frame = Frame.of(model, design)
    one_step = OneStep.of(design, theta, frame).embed(design.user.numpy(), design.n_users)
    whole = frame.coordinates
    cosine = (one_step * whole).sum(1) / np.linalg.norm(one_step, axis=1) / np.linalg.norm(whole, axis=1)
    assert cosine.mean() > 0.97
    # The coordinates are the posterior means, as `adapt` finds them.
    again = adapt(model, design)
    deviation = torch.as_tensor(whole) @ frame.axes.T
    torch.testing.assert_close(deviation, again.mean @ again.basis.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_choices", [2, 3])
def test_choices_drawn_anew_have_the_slopes_of_the_model(n_choices):
    _, design, model, theta = fitted("null", n_users=3, comparisons_per_user=4, n_choices=n_choices, rank=2)
    one_step, rng = OneStep.of(design, theta, Frame.of(model, design)), np.random.default_rng(0)
    draws = np.array([one_step.resample(rng) for _ in range(4000)])
    # At the truth a score has mean 0, and its variance is the curvature (the information equality).
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.12)
    spread = np.einsum("ndw,ndv->dwv", draws, draws) / len(draws)
    np.testing.assert_allclose(spread, one_step.curvature, atol=0.15 * np.abs(one_step.curvature).max())


def test_ties_stay_ties_when_choices_are_drawn_anew():
    population, design, model, theta = fitted("null", n_users=3, comparisons_per_user=4, rank=2)
    del population
    design.decisions.outcome[::2] = 0.5
    one_step = OneStep.of(design, theta, Frame.of(model, design))
    drawn = one_step.resample(np.random.default_rng(0))
    np.testing.assert_allclose(drawn[::2], one_step.slope[::2], atol=1e-12)
    assert not np.allclose(drawn[1::2], one_step.slope[1::2])


@pytest.mark.parametrize("same_prompts", [True, False])
def test_planted_tastes_are_seen(same_prompts):
    population, design, model, theta = fitted(
        "clusters", comparisons_per_user=40, dim=8, same_prompts=same_prompts, n_prompts=20_000
    )
    found = similarity(
        model, design, user_ids=population.comparisons.user_ids, theta=theta, n_permuted=99, cluster=np.arange(60) % 2
    )
    assert found.null_kind == ("permutation" if same_prompts else "bootstrap")
    assert found.p_value == 0.01
    assert found.mean_square > found.null.mean_square[2]
    assert found.split_half.p_value < 1e-3
    assert found.split_half.mean.low > 0.1
    assert abs(found.split_half.null_mean) < 0.1
    assert found.split_half.spearman_brown > found.split_half.correlation > 0.2
    assert found.agreement > 0.9
    assert sorted(found.user) == sorted(population.comparisons.user_ids)
    assert found.cluster == (1,) * 30 + (2,) * 30
    assert found.cosine.shape == (60, 60)
    np.testing.assert_allclose(np.diag(found.cosine), 1, atol=1e-3)
    assert plain(found)["split_half"]["mean"]["n_users"] == 60


def test_halves_that_chose_their_own_directions_would_agree():
    # Directions fitted to both halves find their noise alike (0.18 here); directions of other users do not.
    estimates = []
    for seed in range(3):
        population, design, model, theta = fitted("null", n_users=40, comparisons_per_user=20, dim=8, seed=seed)
        found = similarity(model, design, user_ids=population.comparisons.user_ids, theta=theta, n_permuted=1)
        estimates.append(found.split_half.mean.estimate)
    assert np.mean(estimates) < 0.1


def test_an_individual_has_embeddings_too():
    population, design, _, theta = fitted("clusters", n_clusters=2)
    model = fit_individual(design, tau=0.5, covariance="isotropic").model
    found = similarity(
        model, design, user_ids=population.comparisons.user_ids, theta=theta, cluster=population.tastes.cluster
    )
    assert found.rung == "individual"
    assert found.width == 6
    assert found.split_half.mean.low > 0
    cluster = np.array(found.cluster)
    same = cluster[:, None] == cluster
    assert found.cosine[same & ~np.eye(60, dtype=bool)].mean() > found.cosine[~same].mean() + 0.2


def test_where_nobody_deviates_there_is_nothing_to_compare():
    population, design, _, _ = fitted("null", n_users=10, comparisons_per_user=5, rank=1)
    ids = population.comparisons.user_ids
    assert similarity(fit_basis(design, 0).model, design, user_ids=ids) is None
    assert similarity(fit_individual(design, tau=0.0).model, design, user_ids=ids) is None


def test_one_direction_says_so():
    population, design, model, _ = fitted("clusters", n_clusters=2, rank=1)
    found = similarity(model, design, user_ids=population.comparisons.user_ids, n_permuted=5)
    assert "every cosine is 1 or -1" in found.note
    assert found.mean_square == pytest.approx(1)
    assert found.p_value == 1


def test_users_without_rows_are_not_drawn_and_single_decisions_have_no_halves():
    population, design, model, _ = fitted("basis", n_users=20, comparisons_per_user=[1] * 5 + [20] * 15)
    some = design.take(design.user != 7)
    found = similarity(model, some, user_ids=population.comparisons.user_ids, n_permuted=5)
    assert found.n_users == 19
    assert "user 7" not in found.user
    halves = dict(zip(found.user, found.split_half.user, strict=True))
    assert all(np.isnan(halves[f"user {i}"]) == (i < 5) for i in range(20) if i != 7)
    assert found.split_half.n_users == 14


@given(st.integers(0, 2**32 - 1))
def test_clusters_are_drawn_by_share_and_none_is_lost(seed):
    rng = np.random.default_rng(seed)
    cluster = rng.choice([0, 1, 2], size=300, p=[0.7, 0.28, 0.02])
    drawn = stratified(cluster, 50, rng)
    assert len(np.unique(drawn)) == len(drawn) <= 50 + 3
    assert set(cluster[drawn]) == set(cluster)
    for k in np.unique(cluster):
        assert abs((cluster[drawn] == k).sum() - 50 * (cluster == k).mean()) <= 1
    assert stratified(cluster, 300, rng).tolist() == list(range(300))


def test_neighbours_are_alike_within_a_cluster():
    # Two bundles of directions in one cluster, shuffled: ordered, each is a run.
    angle = np.array([0.0, 1.5, 0.1, 1.6, 0.2, 1.7, 0.05, 1.55])
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    order = order_users(unit, np.zeros(8, dtype=np.int64), 10, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(8))
    assert len(set((angle[order[:4]] > 1).tolist())) == 1


def test_what_cannot_be_asked_is_said():
    population, design, model, _ = fitted("basis", n_users=5, comparisons_per_user=4)
    ids = population.comparisons.user_ids
    with pytest.raises(ConfigError, match="max_users is 1; it must be at least 2"):
        similarity(model, design, user_ids=ids, max_users=1)
    with pytest.raises(ConfigError, match="names \\(and clusters\\) are of 4 users; the design has 5"):
        similarity(model, design, user_ids=ids[:4])


@pytest.mark.study
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("whole_runs")
@pytest.mark.parametrize("same_prompts", [True, False])
def test_the_nulls_hold_their_level(same_prompts):
    rejected = {"basis": [], "individual": []}
    for seed in range(200):
        population, design, model, theta = fitted(
            "null", n_users=60, comparisons_per_user=20, dim=8, same_prompts=same_prompts, seed=seed
        )
        own = fit_individual(design, tau=0.5, covariance="isotropic").model
        for name, each in (("basis", model), ("individual", own)):
            found = similarity(each, design, user_ids=population.comparisons.user_ids, theta=theta, n_permuted=99)
            rejected[name].append((found.p_value <= 0.05, found.split_half.p_value <= 0.05))
    # 5 % of 200 is 10, with a standard error of 3. A fitted prior knows the rows a little, an isotropic one does not.
    for name, most in (("basis", 0.12), ("individual", 0.10)):
        cosines, halves = np.mean(rejected[name], axis=0)
        assert cosines <= most
        assert halves <= 0.09
