"""DPL's example in one dimension: Borda's count by hand, what Bradley-Terry ranks by, where the spread jumps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.inference.dpl import fit_dpl
from pluralign.inference.pooled import fit_pooled
from pluralign.populations import borda_limit, flip_labels, simulate, simulate_hidden_context


def test_bordas_count_falls_where_the_mean_goes_on_rising():
    assert borda_limit(np.array([0.8 - 1e-9, 0.8])) == pytest.approx([0.9, 0.475])
    example = simulate_hidden_context(50, None)
    assert example.borda == pytest.approx(borda_limit(example.x))  # exactly so on this grid
    # x = .89 beats the lower 40 of 50 if it is 1.78, half the others' zeros always, and .8 to .88 if they are high too.
    at = int(np.flatnonzero(np.isclose(example.x, 0.89))[0])
    assert example.preferred[at, 0] == 0.5
    assert example.preferred[at, 45] == pytest.approx(0.25 * (0 + 1 + 0 + 0.5))
    assert example.preferred + example.preferred.T == pytest.approx(np.ones((50, 50)))


def test_draws_follow_the_truth():
    example = simulate_hidden_context(5, 40_000, seed=1)
    table = example.comparisons
    won = np.zeros((5, 5))
    np.add.at(won, (table.chosen, table.rejected), 1)
    share = won / np.maximum(won + won.T, 1)
    off = ~np.eye(5, dtype=bool)
    assert share[off] == pytest.approx(example.preferred[off], abs=0.03)  # 4,000 draws of each pair: 4 x .008


def test_a_base_reward_ranks_by_borda():
    example = simulate_hidden_context(50, None)
    theta = fit_pooled(Design.of(example.comparisons, torch.as_tensor(example.features)), ridge=1e-3)[0].theta
    assert (np.argsort(theta.numpy()) == np.argsort(example.borda)).all()
    assert theta[40] < theta[20]  # although its mean utility is twice as high


@pytest.mark.parametrize("family", ["mean-variance", "mean-variance-surrogate", "categorical"])
def test_the_spread_jumps_at_the_break(family):
    example = simulate_hidden_context(50, None)
    settings = {} if family == "categorical" else {"ridge_spread": 0.1}
    design = Design.of(example.comparisons, torch.as_tensor(example.features))
    model, report = fit_dpl(design, family, ridge=0.1, **settings)
    sd = model.reward(torch.eye(50, dtype=torch.float64), torch.zeros(50, dtype=torch.int64))[1].numpy()
    assert sd[40:].min() > 3 * sd[:40].max()
    assert report.explained < 0.9
    base = fit_pooled(design, ridge=1e-3)[0].predict(design)
    assert (
        model.predict(design).log_prob.mean() > base.log_prob.mean() + 0.1
    )  # nats: what one number per item cannot say


@pytest.mark.parametrize("family", ["mean-variance", "categorical"])
def test_r_squared_is_near_one_without_hidden_context(family):
    """The same alternatives, utility x for all: the item says it all."""
    x, rng = np.linspace(0, 1, 20), np.random.default_rng(0)
    mixture = simulate_hidden_context(20, 4000, seed=2)
    first, second = rng.integers(0, 20, (2, 4000))
    won = x[first] > x[second]
    plain = replace(
        mixture.comparisons,
        chosen=np.where(won, first, second).astype(np.int32),
        rejected=np.where(won, second, first).astype(np.int32),
    )
    settings = {} if family == "categorical" else {"ridge_spread": 1.0}
    explained = [
        fit_dpl(Design.of(table, torch.eye(20, dtype=torch.float64)), family, ridge=1.0, entropy=0.0, **settings)[
            1
        ].explained
        for table in (plain, mixture.comparisons)
    ]
    assert explained[0] > 0.9
    assert explained[1] < explained[0] - 0.1


def test_flips_are_nested_and_stay_where_they_may():
    table = simulate(n_users=10, comparisons_per_user=100, features="numeric", seed=0).comparisons
    turned = {share: flip_labels(table, share, seed=3).chosen != table.chosen for share in (0.0, 0.1, 0.25, 0.5, 1.0)}
    assert not turned[0].any()
    assert turned[1].all()
    assert turned[0.25].mean() == pytest.approx(0.25, abs=0.05)
    assert not (turned[0.1] & ~turned[0.25]).any()
    assert not (turned[0.25] & ~turned[0.5]).any()
    context = np.arange(50)
    assert np.flatnonzero(flip_labels(table, 1.0, seed=3, rows=context).chosen != table.chosen).tolist() == list(
        context
    )
    again = flip_labels(flip_labels(table, 0.5, seed=3), 0.5, seed=3)
    assert (again.chosen == table.chosen).all()


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match="n_items is 1 and n_comparisons 5"):
        simulate_hidden_context(1, 5)
    with pytest.raises(ConfigError, match=r"share is 1\.5; it is a probability"):
        flip_labels(simulate_hidden_context(5, 5).comparisons, 1.5, seed=0)
    table = simulate(n_users=3, comparisons_per_user=5, n_choices=3, features="numeric").comparisons
    with pytest.raises(DataError, match="choices among more than two"):
        flip_labels(table, 0.5, seed=0)
