"""Latent users on Pets, against the oracle and the user-blind ceilings."""

import numpy as np
import pytest
import torch

from pluralign.evaluation import mean_interval
from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.latent import LatentFit, fit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.inference.pooled import fit_pooled
from pluralign.populations import Pets, flip_labels, simulate_pets

RIDGE = 0.06  # what cross-validation takes here
KNOWN, NEW = 100, 200  # 4,000 training rows, as many as the paper has


class Cast:
    """Pets by their animals: latent users fitted to some, others placed by a few divergent pairs."""

    def __init__(self, seed: int, *, upsampled: bool = False) -> None:
        pets: Pets = simulate_pets(n_users=KNOWN + NEW, train_per_user=40, test_per_user=20, seed=seed)
        self.pets = pets.upsampled() if upsampled else pets
        table = self.pets.comparisons
        train = table.take(self.pets.rows("train"))
        self.train = train.take(np.flatnonzero(train.user < KNOWN))
        self.features = torch.as_tensor(self.pets.features).float()
        self.pooled = fit_pooled(self.design(self.train), ridge=RIDGE)[0]
        self.found: LatentFit = fit_latent(
            self.design(self.train), LatentSettings(latent_dim=2, seed=seed), ridge=RIDGE, start=self.pooled.theta
        )
        self.test, self.divergent, self.asked, self.agreed = (
            self.new(self.pets.rows("test")),
            self.new(self.pets.rows("test", divergent=True)),
            self.new(self.pets.rows("train", divergent=True)),
            self.new(self.pets.rows("train", divergent=False)),
        )

    def design(self, table) -> Design:
        return Design.of(table, self.features)

    def new(self, rows):
        table = self.pets.comparisons.take(rows)
        return table.take(np.flatnonzero(table.user >= KNOWN))

    def accuracy(self, context=None):
        """On divergent test rows, placed by a context; None asks the pooled model."""
        model = self.pooled if context is None else adapt(self.found.model, self.design(context))
        return mean_interval(model.predict(self.design(self.divergent)))

    def oracle(self) -> float:
        """The pooled model of each kind's training rows."""
        test = self.design(self.divergent)
        kind = self.pets.kind[self.divergent.user]
        right = np.empty(len(kind))
        for k in (0, 1):
            own = self.train.take(np.flatnonzero(self.pets.kind[self.train.user] == k))
            right[kind == k] = fit_pooled(self.design(own), ridge=RIDGE)[0].predict(test).correct[kind == k]
        return float(right.mean())


def first(table, m: int):
    """The first m rows of every user."""
    place = np.arange(len(table)) - np.searchsorted(table.user, table.user)
    assert (np.diff(table.user) >= 0).all()
    return table.take(np.flatnonzero(place < m))


@pytest.mark.study
@pytest.mark.parametrize("seed", range(3))
def test_pets_two_informative_pairs_are_as_good_as_knowing_the_kind(whole_runs, seed):
    cast = Cast(seed)
    best = cast.oracle()
    assert best > 0.99
    for m in (2, 4):
        assert cast.accuracy(first(cast.asked, m)).low >= 0.98 * best
    assert cast.accuracy(first(cast.asked, 0)).estimate == pytest.approx(0.5, abs=0.05)


@pytest.mark.study
@pytest.mark.parametrize("seed", range(3))
def test_pets_flipped_contexts(whole_runs, seed):
    cast = Cast(seed)
    blind = cast.accuracy()
    asked = first(cast.asked, 4)
    quarter, half, all_of_it = (cast.accuracy(flip_labels(asked, share, seed=seed)) for share in (0.25, 0.5, 1.0))
    assert quarter.low > blind.high
    assert half.low < blind.high
    assert blind.low < half.high
    assert all_of_it.high < blind.low


@pytest.mark.study
@pytest.mark.parametrize(("upsampled", "ceiling"), [(False, 0.75), (True, 7 / 12)])
def test_pets_the_pooled_model_is_at_its_ceiling_and_latent_users_pass_it(whole_runs, upsampled, ceiling):
    cast = Cast(0, upsampled=upsampled)
    assert cast.pets.ceiling() == pytest.approx(ceiling)
    test = cast.design(cast.test)
    blind, known = (
        mean_interval(model.predict(test))
        for model in (cast.pooled, adapt(cast.found.model, cast.design(first(cast.asked, 2))))
    )
    assert blind.estimate == pytest.approx(ceiling, abs=0.03)
    assert known.low > 0.98
