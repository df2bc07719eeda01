"""Users of two models in one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.basis import fit_basis
from pluralign.inference.clusters import fit_clusters
from pluralign.inference.individual import fit_individual
from pluralign.inference.pooled import fit_pooled
from pluralign.inference.reliability import fit_reliability
from pluralign.populations import simulate
from pluralign.users import UNKNOWN, Latent, UserModel
from pluralign.users.joining import OF_USERS, join_users
from pluralign.users.store import KINDS

FITS = {
    "pooled": lambda design: fit_pooled(design, ridge=1.0)[0],
    "reliability": lambda design: fit_reliability(design, ridge=1.0)[0],
    "cluster": lambda design: fit_clusters(design, 2, soft=True, ridge=1.0, n_starts=2).model,
    "basis": lambda design: fit_basis(design, 1, ridge=1.0).model,
    "individual": lambda design: fit_individual(design, ridge=1.0, covariance="full").model,
    "individual, isotropic": lambda design: fit_individual(design, ridge=1.0, tau=1.0, covariance="isotropic").model,
}


@pytest.fixture(scope="module")
def design() -> Design:
    population = simulate(features="numeric", dim=3, n_users=8, comparisons_per_user=12, n_prompts=30, n_clusters=2)
    return Design.of(population.comparisons, torch.from_numpy(population.comparisons.items.attributes))


def test_every_kind_is_known():
    assert OF_USERS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", FITS)
def test_the_users_of_both_are_predicted_as_before(design, kind):
    known: UserModel = FITS[kind](design)
    # Newcomers who answer as the old ones do the other way round.
    newcomers = replace(design, chosen=design.rejected, rejected=design.chosen)
    placed = adapt(known, newcomers)
    joined = join_users(known, placed)
    assert joined.n_users == 16
    assert np.array_equal(joined.predict(design).chosen, known.predict(design).chosen)
    again = joined.predict(newcomers, newcomers.user + known.n_users)
    assert np.array_equal(again.chosen, placed.predict(newcomers).chosen)
    nobody = torch.full_like(design.user, UNKNOWN)
    assert np.array_equal(joined.predict(design, nobody).chosen, known.predict(design, nobody).chosen)


def test_points_of_a_latent_model_stand_one_after_the_other():
    model = Latent(
        theta=torch.ones(3),
        coordinates=torch.ones(3, 2),
        decoder={},
        encoder={},
        prior_log_weight=torch.zeros(1),
        prior_mean=torch.zeros(1, 2),
        prior_log_variance=torch.zeros(1, 2),
        log_weight=torch.zeros(2, 1),
        mean=torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]),
        log_variance=torch.zeros(2, 1, 2),
        reference=torch.ones(0, 3),
    )
    placed = replace(
        model, log_weight=torch.zeros(1, 1), mean=torch.tensor([[[5.0, 6.0]]]), log_variance=torch.ones(1, 1, 2)
    )
    joined = join_users(model, placed)
    assert joined.mean[:, 0].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert joined.log_variance[:, 0].tolist() == [[0, 0], [0, 0], [1, 1]]
    assert joined.log_weight.shape == (3, 1)
    assert joined.prior_mean is model.prior_mean


def test_models_of_two_kinds_are_not_joined(design):
    pooled, clusters = FITS["pooled"](design), FITS["cluster"](design)
    with pytest.raises(ConfigError, match="users of a model of kind cluster cannot be joined to one of kind pooled"):
        join_users(pooled, clusters)
