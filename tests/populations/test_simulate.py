from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.comparisons import from_attributes
from pluralign.errors import ConfigError
from pluralign.evaluation import score
from pluralign.features import Design
from pluralign.inference.heads import fit_heads
from pluralign.populations import KINDS, TEXT_TASTES, Tastes, demo, draw_tastes, relabel, simulate
from pluralign.populations.tastes import exact_sizes


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_is_as_right_as_the_ceiling_says_and_calibrated(kind):
    population = simulate(kind=kind, n_users=200, comparisons_per_user=100, features="numeric", dim=5, seed=1)
    scores = score(population.oracle())
    assert scores.accuracy == pytest.approx(population.ceiling, abs=0.012)  # 3.5 standard errors of 20,000 decisions
    assert scores.calibration.error < 0.03
    assert scores.calibration.slope == pytest.approx(1, abs=0.1)


def test_the_oracle_of_choices_among_four():
    population = simulate(n_users=150, comparisons_per_user=80, n_choices=4, noise=0.3, n_prompts=50, seed=2)
    table = population.comparisons
    assert (len(table), table.n_decisions) == (36_000, 12_000)
    shown = np.concatenate([table.chosen[table.first_row][:, None], table.rejected.reshape(-1, 3)], axis=1)
    assert (np.diff(np.sort(shown, axis=1), axis=1) > 0).all()
    scores = score(population.oracle())
    assert scores.accuracy == pytest.approx(population.ceiling, abs=0.016)
    assert scores.calibration.error < 0.04


def test_noise_replaces_that_share_of_the_choices():
    # With an overwhelming signal every clean choice is the favourite, so the others are the noise.
    population = simulate(signal=1e4, noise=0.25, features="numeric", n_users=100, comparisons_per_user=100)
    assert (population.chosen < population.best_other).mean() == pytest.approx(0.25, abs=0.015)
    assert population.ceiling == pytest.approx(0.75, abs=0.002)


def test_shares_are_exact():
    cluster = simulate(
        n_users=40, n_clusters=2, shares=(0.65, 0.35), comparisons_per_user=2, n_prompts=9
    ).tastes.cluster
    assert np.bincount(cluster).tolist() == [26, 14]
    assert exact_sizes((0.5, 0.3, 0.2), 7).tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4: the half is rounded up


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(6, 500))
def test_sizes_add_up_and_miss_by_less_than_one(shares, n):
    shares = [share / sum(shares) for share in shares]
    sizes = exact_sizes(shares, n)
    assert sizes.sum() == n
    assert np.abs(sizes - np.array(shares) * n).max() < 1 + 1e-6


def test_users_of_a_null_share_one_taste():
    theta = simulate(kind="null", n_users=30, comparisons_per_user=2, n_prompts=9).tastes.theta
    assert (theta == theta[0]).all()


def test_reliability_only_scales_the_taste():
    tastes = simulate(kind="reliability", n_users=400, comparisons_per_user=1, features="numeric").tastes
    np.testing.assert_allclose(tastes.theta, tastes.reliability[:, None] * tastes.heads[0])
    assert np.log(tastes.reliability).std() == pytest.approx(0.7, abs=0.08)


def test_margins_have_the_signal_asked_for():
    features = np.random.default_rng(0).normal(size=(2000, 6)) * [1, 2, 3, 4, 5, 6]
    for kind in KINDS:
        tastes = draw_tastes(features, 300, kind=kind, signal=1.5, reliability_sd=0.0, spread=2.0, seed=1)
        margins = tastes.theta @ (features[::2] - features[1::2]).T
        assert margins.std() == pytest.approx(1.5, rel=0.1)


def test_spread_is_the_users_own_part_over_the_common_part():
    features = np.random.default_rng(0).normal(size=(2000, 10))
    for kind in ("basis", "individual"):
        theta = draw_tastes(features, 2000, kind=kind, spread=0.5, rank=3, seed=0).theta
        common = theta.mean(0)
        assert np.linalg.norm(theta - common, axis=1).std() > 0
        own = np.sqrt(((theta - common) ** 2).sum(1).mean())
        assert own / np.linalg.norm(common) == pytest.approx(0.5, rel=0.1)


def test_a_basis_has_its_rank():
    theta = simulate(kind="basis", rank=3, n_users=50, comparisons_per_user=1, features="numeric", dim=9).tastes.theta
    assert np.linalg.matrix_rank(theta - theta.mean(0)) == 3


def test_a_taste_is_recovered_from_what_stands_in_the_texts():
    population = simulate(kind="null", n_users=50, comparisons_per_user=200, noise=0.0, seed=4)
    design = Design.of(population.comparisons, torch.as_tensor(population.features))
    theta = fit_heads(design, ridge=torch.tensor([0.1], dtype=torch.float64)).theta[0].numpy()
    # 10,000 choices: each coefficient of size about 1 is known to about 0.03.
    np.testing.assert_allclose(theta, population.tastes.heads[0], atol=0.15)
    assert correlation(theta, population.tastes.heads[0]) > 0.99


def test_one_taste_for_all_leaves_the_demonstration_something_to_gain():
    population = demo()
    design = Design.of(population.comparisons, torch.as_tensor(population.features))
    pooled = fit_heads(design, ridge=torch.tensor([1.0], dtype=torch.float64)).theta
    accuracy = float((design.margins(pooled) > 0).double().mean())
    assert population.ceiling - accuracy > 0.06
    assert np.bincount(population.tastes.cluster).tolist() == [60, 36, 24]
    assert len(population.comparisons) == 7200


def test_clusters_of_texts_have_the_tastes_they_are_named_for():
    population = simulate(comparisons_per_user=1, n_prompts=20)
    for theta, taste in zip(population.tastes.heads, TEXT_TASTES.values(), strict=False):
        named = [taste.get(name, 0.0) for name in population.feature_names]
        assert correlation(theta, np.array(named)) == pytest.approx(1)


def test_the_same_prompts_are_shown_to_everybody():
    population = simulate(n_users=7, comparisons_per_user=20, same_prompts=True, n_choices=3, n_prompts=25)
    table = population.comparisons
    shown = np.sort(np.concatenate([table.chosen[table.first_row][:, None], table.rejected.reshape(-1, 2)], 1), axis=1)
    assert (shown.reshape(7, 20, 3) == shown.reshape(7, 20, 3)[0]).all()
    assert len(np.unique(table.source)) == 20


def test_items_belong_to_the_prompt_of_their_source():
    table = simulate(n_users=5, comparisons_per_user=30, n_prompts=12).comparisons
    assert (table.items.prompt[table.chosen] == table.source).all()
    assert (table.items.prompt[table.rejected] == table.source).all()
    assert table.source_ids == tuple(table.items.prompts.to_pylist())


def test_users_may_have_different_numbers_of_comparisons():
    for same_prompts in (False, True):
        table = simulate(n_users=3, comparisons_per_user=(1, 5, 2), same_prompts=same_prompts, n_prompts=3).comparisons
        assert np.bincount(table.user).tolist() == [1, 5, 2]


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_the_seed_decides_everything(seed):
    one, other = (simulate(n_users=5, comparisons_per_user=5, n_prompts=4, seed=seed) for _ in range(2))
    assert one.comparisons.items.response.equals(other.comparisons.items.response)
    assert (one.comparisons.chosen == other.comparisons.chosen).all()
    assert (one.tastes.theta == other.tastes.theta).all()


def test_lemma_of_the_pooled_minority():
    # P-RLHF (2402.05133), Lemma 3.3: a pooled vote share p lies P(majority) |p_maj - p_min| from the minority's and
    # P(minority) |p_maj - p_min| from the majority's. Of 20 users 13 choose item 0 with 0.9 and 7 with 0.2:
    # p = 0.655, which is 0.455 from the minority and 0.245 from the majority.
    logit = np.log(np.array([0.9, 0.2]) / (1 - np.array([0.9, 0.2])))
    cluster = np.repeat([0, 1], [13, 7]).astype(np.int32)
    tastes = Tastes(
        kind="clusters", heads=logit[:, None], loading=np.eye(2)[cluster], cluster=cluster, reliability=np.ones(20)
    )
    n = 2000
    table = from_attributes(
        attributes=np.array([[1.0], [0.0]]),
        attribute_names=["x"],
        chosen=np.zeros(20 * n, dtype=int),
        rejected=np.ones(20 * n, dtype=int),
        user=[f"{u}" for u in np.repeat(np.arange(20), n)],
    )
    population = relabel(table, table.items.attributes, tastes, seed=0)
    first = np.where(population.comparisons.chosen == 0, population.chosen, 1 - population.chosen)
    assert first.mean() == pytest.approx(0.655)
    assert np.abs(first.mean() - first[-1]) == pytest.approx(0.455)
    assert np.abs(first.mean() - first[0]) == pytest.approx(0.245)
    won = population.comparisons.chosen == 0
    assert won.mean() == pytest.approx(0.655, abs=0.01)
    # What the pooled optimum of a fit is: the logit of the vote share.
    design = Design.of(population.comparisons, torch.as_tensor(population.features))
    theta = fit_heads(design, ridge=torch.zeros(1, dtype=torch.float64), tolerance=1e-9).theta
    assert torch.sigmoid(theta).item() == pytest.approx(won.mean(), abs=1e-6)


def test_new_labels_keep_who_was_shown_what():
    old = simulate(n_users=20, comparisons_per_user=30, n_choices=3, n_prompts=12, seed=0)
    table = replace(old.comparisons, weight=np.full(len(old.comparisons), 2.0))
    new = relabel(table, old.features, old.tastes, noise=0.5, seed=7)

    def shown(t):
        return np.sort(np.concatenate([t.chosen[t.first_row][:, None], t.rejected.reshape(-1, 2)], axis=1), axis=1)

    assert (shown(new.comparisons) == shown(table)).all()
    assert (new.comparisons.chosen != table.chosen).mean() > 0.2
    assert (new.comparisons.user == table.user).all()
    assert (new.comparisons.chosen[::2] == new.comparisons.chosen[1::2]).all()
    assert (new.oracle().weight == 2).all()


def test_new_labels_take_positions_along_and_drop_ties():
    old = simulate(n_users=20, comparisons_per_user=30, n_prompts=12, seed=0)
    table = replace(old.comparisons, position=np.ones(600, dtype=np.int32), outcome=np.full(600, 0.5))
    new = relabel(table, old.features, old.tastes, seed=7).comparisons
    swapped = new.chosen != table.chosen
    assert 0 < swapped.sum() < 600
    assert (new.position == np.where(swapped, -1, 1)).all()
    assert new.outcome is None


def test_many_features_are_kept_in_single_precision():
    population = simulate(kind="individual", n_users=1000, comparisons_per_user=100, features="numeric", dim=128)
    assert population.features.dtype == np.float32
    assert score(population.oracle()).accuracy == pytest.approx(population.ceiling, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tribes"}, 'unknown kind "tribes"; known: null, reliability, clusters, basis, individual'),
        ({"features": "images"}, 'unknown features "images"; known: numeric, text'),
        ({"noise": 0.5}, "noise is 0.5; it must be at least 0 and below 0.5"),
        ({"n_choices": 9}, "n_choices is 9; it must be 2 to n_responses (8)"),
        ({"n_clusters": 0}, "n_clusters is 0; it must be 1 to n_users (120)"),
        ({"shares": (0.5, 0.6, 0.2)}, "shares are [0.5, 0.6, 0.2]; 3 clusters need as many, above 0, that sum to 1"),
        ({"kind": "basis", "rank": 9}, "rank is 9; it must be 1 to the number of features (8)"),
        ({"comparisons_per_user": 0}, "comparisons_per_user is 0; it must be at least 1"),
        ({"n_users": 0}, "n_users is 0; it must be at least 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError) as caught:
        simulate(**{"features": "numeric"} | settings)
    assert str(caught.value) == message


def test_tastes_of_other_users_or_features_do_not_fit():
    old = simulate(n_users=3, comparisons_per_user=2, n_prompts=2)
    with pytest.raises(ConfigError, match=r"features have shape \(16, 7\); the items and the tastes ask for \(16, 8\)"):
        relabel(old.comparisons, old.features[:, :7], old.tastes, seed=0)
    with pytest.raises(ConfigError, match="tastes are of 4 users; the comparisons have 3"):
        relabel(old.comparisons, old.features, draw_tastes(old.features, 4, seed=0), seed=0)
