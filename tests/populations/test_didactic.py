"""VPL's example in one dimension: what each kind of model makes of four modes."""

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError, DataError
from pluralign.inference.clusters import fit_clusters
from pluralign.inference.dpl import fit_dpl
from pluralign.inference.pooled import fit_pooled
from pluralign.populations import Didactic, draw_didactic, match_modes, simulate_didactic

SEEDS = range(3)


def centred(reward: np.ndarray) -> np.ndarray:
    return reward - reward.mean(-1, keepdims=True)


def blind_limit(example: Didactic) -> np.ndarray:
    """What one reward for everybody learns from endless comparisons."""
    design = example.endless
    return (design.features @ fit_pooled(design, ridge=1e-6)[0].theta).numpy()


def oracle(example: Didactic) -> np.ndarray:
    """Rewards of every user's mode, fitted to that mode's users."""
    fits = [fit_pooled(example.of_mode(k))[0].theta for k in range(len(example.rewards))]
    rewards = (example.design.features @ torch.stack(fits).T).T.numpy()
    return rewards[example.population.tastes.cluster]


def test_the_truth_is_what_it_says():
    example = simulate_didactic(n_users=10, comparisons_per_user=5, height=3.0, shares=(0.4, 0.3, 0.2, 0.1))
    assert example.rewards.max(axis=1) == pytest.approx([3.0] * 4)
    assert example.x[example.rewards.argmax(axis=1)] == pytest.approx([0.3, 0.4, 0.6, 0.7])
    assert np.bincount(example.population.tastes.cluster).tolist() == [4, 3, 2, 1]
    own = example.rewards[example.population.tastes.cluster]
    assert example.mean_reward == pytest.approx(own.mean(0))
    assert example.mean_spread == pytest.approx(own.std(0))
    assert example.population.tastes.theta @ example.population.features.T == pytest.approx(own)


def test_the_recovery_error_by_hand():
    example = simulate_didactic(n_users=8, comparisons_per_user=5)
    mode = example.population.tastes.cluster
    assert example.recovery_error(example.rewards[mode] + 7) == pytest.approx(np.zeros(8))
    assert example.recovery_error(np.zeros(101)) == pytest.approx(np.ones(8))
    assert example.recovery_error(3 * example.rewards[mode]) == pytest.approx(np.full(8, 2.0))  # the scale counts
    head, error = match_modes(example, example.rewards[[2, 0, 3, 1]])
    assert head.tolist() == [1, 3, 0, 2]
    assert error == pytest.approx(np.zeros(4), abs=1e-12)


def test_one_reward_for_everybody_is_within_noise_of_what_the_population_says():
    examples = [simulate_didactic(seed=seed) for seed in range(8)]
    limit = centred(blind_limit(examples[0]))
    fitted = []
    for example in examples:
        theta = fit_pooled(example.design, ridge=0.01)[0].theta
        fitted.append(centred((example.design.features @ theta).numpy()))
    error = np.std(fitted, axis=0, ddof=1) / np.sqrt(len(fitted))
    away = np.abs(np.mean(fitted, axis=0) - limit) / error
    assert np.median(away) < 1.5  # t of 7 degrees: 0.71
    assert away.max() < 5.5  # t of 7 degrees exceeds it once in a thousand, 101 dependent places
    # It is the mean's shape, and not its size: the logit of a mean is flatter than the mean of logits.
    mean = centred(examples[0].mean_reward)
    assert np.corrcoef(limit, mean)[0, 1] > 0.98
    assert 0.5 < limit.std() / mean.std() < 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_users_modes_are_recovered_by_a_model_of_users_alone(seed):
    example = simulate_didactic(comparisons_per_user=60, seed=seed)
    design = example.design
    best = example.recovery_error(oracle(example)).mean()
    blind = example.recovery_error((design.features @ fit_pooled(design)[0].theta).numpy()).mean()
    clusters = fit_clusters(design, 4, soft=True, ridge=0.1, n_starts=10, seed=seed).model
    found = example.recovery_error(example.user_rewards(clusters)).mean()
    assert blind > 0.5
    assert found < best + 0.15
    assert found < blind / 2


def test_dpls_spread_follows_the_users_where_the_modes_lie_close_and_not_where_they_are_scattered():
    follows = []
    for modes in ((0.3, 0.4, 0.6, 0.7), (0.15, 0.4, 0.6, 0.85)):
        example = simulate_didactic(modes=modes)
        model, _ = fit_dpl(example.endless, ridge=0.05, ridge_spread=0.05)
        mean, sd = model.reward(example.design.features, torch.zeros(101, dtype=torch.int64))
        assert np.corrcoef(mean, example.mean_reward)[0, 1] > 0.9
        follows.append(float(np.corrcoef(sd, example.mean_spread)[0, 1]))
    assert follows[0] > 0.95
    assert follows[1] < 0.2


def test_the_figure_has_a_panel_for_each_model(tmp_path):
    example = simulate_didactic(n_users=8, comparisons_per_user=20)
    design = example.design
    blind = fit_pooled(design, ridge=1.0)[0]
    spread = fit_dpl(design, ridge=1.0, ridge_spread=1.0)[0]
    figure = draw_didactic(example, blind=blind, distribution=spread, personal=blind)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["true modes", "one reward for everybody", "a distribution of reward", "every user's own"]
    assert [len(axes.lines) for axes in figure.axes] == [4, 2, 1, 8]
    shown = figure.axes[1].lines[1].get_ydata()
    assert shown == pytest.approx(centred((design.features @ blind.theta).numpy()))
    figure.savefig(tmp_path / "didactic.png")
    assert len(draw_didactic(example, blind=blind).axes) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: simulate_didactic(modes=(0.33, 0.5)), r"modes are \[0\.33, 0\.5\]; they must be different multiples"),
        (lambda: simulate_didactic(n_users=3), "there must be a user for each of 4 modes"),
        (lambda: simulate_didactic(shares=(0.5, 0.5)), r"shares are \[0\.5, 0\.5\]; 4 modes need as many"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
    example = simulate_didactic(n_users=4, comparisons_per_user=1)
    with pytest.raises(DataError, match="2 heads cannot be the 4 modes"):
        match_modes(example, np.zeros((2, 101)))
