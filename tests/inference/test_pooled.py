import gzip
import io

import numpy as np
import pytest
import torch

from pluralign.comparisons.table import from_attributes
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.folds import folds_by_source
from pluralign.inference.heads import fit_heads
from pluralign.inference.pooled import choose_ridge, default_ridges, fit_pooled
from pluralign.likelihoods import Decisions, Logit


def make_design(n: int, dim: int, *, scale: float, n_sources: int, seed: int = 0) -> Design:
    """Pairs of fresh items, whose margins have the given scale."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * n, dim, generator=g, dtype=torch.float64)
    direction = torch.randn(dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    theta = scale * direction / (2 * dim) ** 0.5
    first, second = torch.arange(n), torch.arange(n) + n
    wins = torch.rand(n, generator=g, dtype=torch.float64) < torch.sigmoid((features[first] - features[second]) @ theta)
    return Design(
        features=features,
        chosen=torch.where(wins, first, second),
        rejected=torch.where(wins, second, first),
        decisions=Decisions(
            index=torch.arange(n), outcome=torch.ones(n, dtype=torch.float64), position=torch.zeros(n).double()
        ),
        user=torch.arange(n) % 7,
        weight=torch.ones(n, dtype=torch.float64),
        source=torch.randint(0, n_sources, (n,), generator=g),
        n_users=7,
    )


def test_a_single_source_cannot_be_divided():
    design = make_design(30, 2, scale=1.0, n_sources=1)
    with pytest.raises(ConfigError, match="n_folds is 1 and the rows come from 1 sources") as error:
        fit_pooled(design)
    assert "source" in error.value.hint


def test_the_path_is_what_separate_fits_and_scores_give():
    design = make_design(200, 4, scale=2.0, n_sources=50)
    ridges = torch.tensor([0.0, 10.0], dtype=torch.float64)
    folds = folds_by_source(design, 3, seed=5)
    path = choose_ridge(design, ridges=ridges, folds=folds)
    total = torch.zeros(2, dtype=torch.float64)
    for k in range(3):
        for i in range(2):
            theta = fit_heads(design.take(folds.training(k)), ridge=ridges[[i]]).theta
            held = design.take(folds.held(k))
            total[i] -= Logit().log_prob(held.margins(theta), held.decisions).sum()
    torch.testing.assert_close(path.log_loss, total / 200, atol=1e-8, rtol=0)


def test_noise_asks_for_a_strong_ridge_and_signal_for_a_weak_one():
    silent, noise = fit_pooled(make_design(400, 120, scale=0.0, n_sources=400))
    telling, signal = fit_pooled(make_design(4000, 120, scale=4.0, n_sources=4000))
    assert noise.ridge >= 50 * signal.ridge
    assert silent.theta.norm() < 0.1
    assert signal.converged
    # The truth itself is right on 0.86 of these decisions.
    assert telling.predict(make_design(1000, 120, scale=4.0, n_sources=10, seed=1)).correct.mean() > 0.82


def test_no_prior_is_a_candidate_only_with_decisions_to_spare():
    assert 0 in default_ridges(make_design(100, 5, scale=1.0, n_sources=9))
    assert 0 not in default_ridges(make_design(99, 5, scale=1.0, n_sources=9))


@pytest.mark.data
def test_swiss_route_choice_has_the_published_likelihood(data_dir):
    with gzip.open(data_dir / "swiss_route_choice" / "swiss_route_choice.csv.gz", "rt") as file:
        table = np.genfromtxt(io.StringIO(file.read()), delimiter=",", names=True)
    n = len(table)
    sides = [np.stack([table[f"{name}{side}"] for name in ("tt", "tc", "hw", "ch")], axis=1) for side in (1, 2)]
    first = table["choice"] == 1
    comparisons = from_attributes(
        attributes=np.concatenate(sides),
        attribute_names=["tt", "tc", "hw", "ch"],
        chosen=np.arange(n) + n * ~first,
        rejected=np.arange(n) + n * first,
        user=[str(int(user)) for user in table["ID"]],
    )
    design = Design.of(comparisons, torch.as_tensor(comparisons.items.attributes))
    pooled, report = fit_pooled(design, ridge=0.0)
    assert report.log_prob == pytest.approx(-1665.68849688, abs=1e-6)  # Apollo 0.3.8
    expected = torch.tensor([-0.0597705763, -0.1318152925, -0.03745, -1.15207], dtype=torch.float64)
    torch.testing.assert_close(pooled.theta, expected, atol=5e-6, rtol=0)
