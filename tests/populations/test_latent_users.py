"""Latent users on Pets and on the didactic example, against the oracle and whoever does not know the user."""

import numpy as np
import pytest
import torch

from pluralign.evaluation import mean_interval
from pluralign.features import Design, encode, fit_encoder, make_encoder
from pluralign.inference.adapt import adapt
from pluralign.inference.latent import LatentFit, fit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.inference.pooled import fit_pooled
from pluralign.populations import Pets, flip_labels, simulate_didactic, simulate_pets

RIDGE = 0.06  # what cross-validation takes here
KNOWN, NEW = 100, 200  # 4,000 training rows, as many as the paper has


def few_kinds(kinds: int, latent_dim: int, seed: int) -> LatentSettings:
    """What the documentation recommends where users are of a few kinds."""
    return LatentSettings(
        latent_dim=latent_dim, width=latent_dim, form="linear", prior="mixture", components=kinds, seed=seed
    )


def at_classes(kinds: int, latent_dim: int, seed: int) -> LatentSettings:
    """What it recommends where comparisons are enough to tell the kinds: begun at a latent-class logit, and kept."""
    return LatentSettings(
        latent_dim=latent_dim,
        form="linear",
        prior="mixture",
        components=kinds,
        kinds=2 * kinds,
        guided=False,
        steps=0,
        refit=False,
        seed=seed,
    )


class Cast:
    """Pets: latent users fitted to some, others placed by a few divergent pairs.

    By their animals, or by the sentences (`words`), whose ridge is then chosen.
    """

    def __init__(self, seed: int, *, upsampled: bool = False, words: bool = False) -> None:
        pets: Pets = simulate_pets(n_users=KNOWN + NEW, train_per_user=40, test_per_user=20, seed=seed)
        self.pets = pets.upsampled() if upsampled else pets
        table = self.pets.comparisons
        train = table.take(self.pets.rows("train"))
        self.train = train.take(np.flatnonzero(train.user < KNOWN))
        self.features = torch.as_tensor(self.pets.features).float()
        if words:
            raw = torch.as_tensor(encode(table, fit_encoder(make_encoder("tfidf"), self.train)))
            self.features = raw - raw.mean(0)
        self.pooled, report = fit_pooled(self.design(self.train), ridge=None if words else RIDGE)
        self.ridge = report.ridge
        self.found: LatentFit = fit_latent(
            self.design(self.train),
            few_kinds(2, 2, seed) if words else LatentSettings(latent_dim=2, seed=seed),
            ridge=self.ridge,
            start=self.pooled.theta,
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
            right[kind == k] = fit_pooled(self.design(own), ridge=self.ridge)[0].predict(test).correct[kind == k]
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
def test_pets_in_words_two_informative_pairs_are_as_good_as_knowing_the_kind(whole_runs, seed):
    cast = Cast(seed, words=True)
    best = cast.oracle()
    assert best > 0.98
    for m in (2, 4):
        found = cast.accuracy(first(cast.asked, m))
        print(f"seed {seed}, {m} pairs: {found}, oracle {best}")
        assert found.low >= 0.98 * best
    assert cast.accuracy().estimate == pytest.approx(0.5, abs=0.05)


@pytest.mark.study
@pytest.mark.parametrize(("start", "room"), [("classes", 0.06), ("guided", 0.1)])
@pytest.mark.parametrize("seed", range(3))
def test_didactic_the_modes_are_recovered_nearly_as_by_who_knows_them(whole_runs, seed, start, room):
    example = simulate_didactic(n_users=200, comparisons_per_user=60, seed=seed)
    design = example.design
    known = torch.stack([fit_pooled(example.of_mode(k), ridge=0.1)[0].theta for k in range(4)])
    best = example.recovery_error((known @ design.features.T).numpy()[example.population.tastes.cluster]).mean()
    blind = example.recovery_error((design.features @ fit_pooled(design, ridge=0.1)[0].theta).numpy()).mean()
    settings = few_kinds(4, 3, seed) if start == "guided" else at_classes(4, 3, seed)
    found = fit_latent(design, settings, ridge=0.1)
    error = example.recovery_error(example.user_rewards(found.model))
    median = np.median(error)
    print(f"seed {seed}, {start}: oracle {best:.3f}, blind {blind:.3f}, found {error.mean():.3f}, median {median:.3f}")
    assert error.mean() < best + room
    assert blind - error.mean() > 0.9 * (blind - best)


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
