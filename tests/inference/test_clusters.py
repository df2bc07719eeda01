from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from pluralign.datasets import choice_panels, paired_comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.inference.clusters import LEAST_RIDGE, fit_clusters, place
from pluralign.inference.heads import fit_heads

FOLDERS = {"swiss": "swiss_route_choice", "german_parties": "paired_comparisons"}


def real(data_dir, name):
    loader = getattr(choice_panels, name, None) or getattr(paired_comparisons, name)
    table = loader(data_dir / FOLDERS.get(name, name))
    return Design.of(table, torch.as_tensor(table.items.attributes))


def partition(fit):
    return fit.model.membership.argmax(1).numpy()


# Log-likelihoods and shares as in the SOURCE.md of each set: swiss published (Apollo, 50 starts), the others found by
# an independent EM with 20 starts.
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "n_clusters", "log_likelihood", "shares"),
    [
        ("swiss", 2, -1552.53363, (0.695, 0.305)),
        ("swiss", 4, -1449.52432, (0.300, 0.294, 0.230, 0.176)),
        ("train_nl", 2, -1547.037, None),
        ("german_parties", 2, -1410.945, (0.582, 0.418)),
    ],
)
def test_latent_classes_are_those_published(data_dir, name, n_clusters, log_likelihood, shares):
    fit = fit_clusters(real(data_dir, name), n_clusters, n_starts=20 if name == "swiss" else 6)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=0.01)
    if shares is not None:
        assert fit.model.shares.tolist() == pytest.approx(shares, abs=0.0015)
    if name == "swiss":
        assert fit.bic == pytest.approx({2: 3178.49, 4: 3054.06}[n_clusters], abs=0.02)


@pytest.mark.data
@pytest.mark.study
@pytest.mark.parametrize(
    ("name", "n_clusters", "log_likelihood"),
    [
        ("swiss", 3, -1490.21578),
        ("train_nl", 3, -1465.807),
        ("train_nl", 4, -1405.539),
        ("electricity", 2, -4526.829),
        ("electricity", 3, -4298.028),
        ("swissmetro", 2, -4318.84),
        ("swissmetro", 3, -3979.00),
    ],
)
def test_larger_latent_classes_are_those_found_elsewhere(data_dir, name, n_clusters, log_likelihood):
    fit = fit_clusters(real(data_dir, name), n_clusters)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=0.01)


@pytest.mark.parametrize("soft", [True, False])
def test_one_cluster_is_the_pooled_maximum(clustered, soft):
    design, _ = clustered()
    fit = fit_clusters(design, 1, soft=soft)
    pooled = fit_heads(design, ridge=torch.tensor([LEAST_RIDGE], dtype=torch.float64))
    torch.testing.assert_close(fit.model.theta, pooled.theta, atol=1e-6, rtol=0)
    assert fit.log_likelihood == pytest.approx(float(pooled.log_prob), abs=1e-6)
    assert fit.starts == ()


def test_as_many_hard_clusters_as_users_are_the_users_own_maxima(clustered):
    design, _ = clustered(n_users=4, each=60, flips=0.3, n_clusters=4)
    fit = fit_clusters(design, 4, soft=False, tolerance=1e-10)
    own = fit_heads(
        design,
        ridge=torch.full((4,), LEAST_RIDGE, dtype=torch.float64),
        group_weight=torch.eye(4, dtype=torch.float64),
    )
    assert sorted(partition(fit)) == [0, 1, 2, 3]
    torch.testing.assert_close(fit.model.theta[partition(fit)], own.theta, atol=1e-3, rtol=0)
    assert fit.log_likelihood == pytest.approx(float(own.log_prob.sum()), abs=1e-4)


def test_equation_3_as_printed_makes_all_heads_the_pooled_one(clustered):
    design, _ = clustered()
    fit = fit_clusters(design, 3, soft=False, literal_eq3=True)
    pooled = fit_clusters(design, 1).model.theta
    torch.testing.assert_close(fit.model.theta, pooled.expand(3, -1), atol=1e-6, rtol=0)
    assert fit.model.membership.tolist() == [[1.0, 0.0, 0.0]] * design.n_users


@pytest.mark.parametrize("soft", [True, False])
@given(seed=st.integers(0, 1000), n_clusters=st.integers(2, 4))
@settings(max_examples=4, deadline=None)
def test_the_objective_never_decreases(clustered, soft, seed, n_clusters):
    design, _ = clustered(seed=seed, flips=0.3, n_users=10, each=10)
    history = np.array(fit_clusters(design, n_clusters, soft=soft, n_starts=3, ridge=0.1, seed=seed).history)
    assert (np.diff(history) >= -1e-9 * np.abs(history[1:])).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=3, deadline=None)
def test_renaming_users_renames_their_memberships(clustered, seed):
    design, _ = clustered(n_users=20, each=60)
    order = torch.as_tensor(np.random.default_rng(seed).permutation(20))
    fit = fit_clusters(design, 2, n_starts=6)
    renamed = fit_clusters(replace(design, user=order[design.user]), 2, n_starts=6)
    torch.testing.assert_close(renamed.model.membership[order], fit.model.membership, atol=1e-4, rtol=0)


@pytest.mark.parametrize("soft", [True, False])
def test_planted_clusters_are_found(clustered, soft):
    design, truth = clustered(n_users=40, each=200, dim=8, flips=0.25)
    # 1 of 40 users misplaced would be 0.90.
    assert adjusted_rand_score(truth, partition(fit_clusters(design, 2, soft=soft))) >= 0.95


def test_planted_clusters_are_found_in_many_dimensions_by_the_screen(clustered):
    design, truth = clustered(n_users=60, each=100, dim=150, n_clusters=3, flips=0.1, dtype=torch.float32)
    pooled = fit_heads(design, ridge=torch.tensor([100.0])).theta[0]
    fit = fit_clusters(design, 3, ridge=100.0, center=pooled, n_starts=12)
    assert adjusted_rand_score(truth, partition(fit)) >= 0.95
    assert sum(start.finalist for start in fit.starts) <= 2
    assert (np.diff(fit.history) >= 0).all()


@pytest.mark.parametrize("soft", [True, False])
def test_no_head_leaves_the_ball(clustered, soft):
    design, _ = clustered(flips=0.0)  # separable: without the ball the heads would grow for ever
    fit = fit_clusters(design, 2, soft=soft, max_norm=1.5, n_starts=3)
    norm = fit.model.theta.norm(dim=1)
    assert (norm <= 1.5).all()
    assert (norm > 1.49).all()


def test_the_ball_holds_the_constrained_maximum(clustered):
    # In one dimension the best point of a ball is its end; in two, no point of the circle is better.
    design, _ = clustered(dim=2, flips=0.05)
    inside = fit_clusters(design, 1, max_norm=1.0)
    angle = torch.linspace(0, 2 * torch.pi, 3601, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    best = torch.nn.functional.logsigmoid(design.margins(circle)).sum(0).max()
    assert inside.log_likelihood == pytest.approx(float(best), abs=1e-3)


def test_a_large_ball_is_no_bound(clustered):
    design, _ = clustered(flips=0.2)
    free, bounded = (fit_clusters(design, 2, soft=False, max_norm=bound, seed=1) for bound in (None, 1e3))
    torch.testing.assert_close(free.model.theta, bounded.model.theta, atol=1e-3, rtol=0)


def test_separable_users_stay_finite(clustered):
    design, _ = clustered(flips=0.0)
    fit = fit_clusters(design, 3, soft=False, n_starts=4)
    assert torch.isfinite(fit.model.theta).all()
    assert np.isfinite(fit.log_likelihood)


@pytest.mark.parametrize("soft", [True, False])
def test_users_without_a_row_belong_to_clusters_by_their_shares(clustered, soft):
    design, _ = clustered()
    fit = fit_clusters(replace(design, n_users=design.n_users + 2), 2, soft=soft, n_starts=4)
    torch.testing.assert_close(fit.model.membership[-2:], fit.model.shares.expand(2, -1))
    assert fit.log_likelihood == pytest.approx(fit_clusters(design, 2, soft=soft, n_starts=4).log_likelihood, abs=1e-6)


@pytest.mark.parametrize("soft", [True, False])
def test_new_users_are_placed_by_their_own_decisions(clustered, soft):
    design, truth = clustered(n_users=40, each=60)
    seen = design.take(design.user < 20)
    model = fit_clusters(seen, 2, soft=soft, n_starts=4).model
    placed = place(model, design.take(design.user >= 20))
    # 1 of 20 misplaced is 0.7996.
    assert adjusted_rand_score(truth[20:], placed[20:].argmax(1).numpy()) > 0.79
    torch.testing.assert_close(placed[:20], model.shares.expand(20, -1))
    torch.testing.assert_close(place(model, seen)[:20], model.membership[:20], atol=1e-5, rtol=0)


def test_bad_settings_say_what_is_accepted(clustered):
    design, _ = clustered()
    with pytest.raises(ConfigError, match="n_clusters is 13, but only 12 users have comparisons"):
        fit_clusters(design, 13)
    with pytest.raises(ConfigError, match="n_clusters is 0; it must be at least 1"):
        fit_clusters(design, 0)
    with pytest.raises(ConfigError, match=r"max_norm is 0\.0; it must be above 0"):
        fit_clusters(design, 2, max_norm=0.0)
    with pytest.raises(ConfigError, match=r"ridge is -1\.0; it must be 0 or above"):
        fit_clusters(design, 2, ridge=-1.0)
    with pytest.raises(ConfigError, match="literal_eq3 is for hard clusters"):
        fit_clusters(design, 2, literal_eq3=True)
    with pytest.raises(DataError, match="no comparison"):
        fit_clusters(design.take(torch.zeros(design.n_decisions, dtype=torch.bool)), 2)
