"""A user whom the model knows goes on from where it has them."""

from dataclasses import replace

import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.inference.adapt import adapt
from pluralign.queries.placing import place, update
from pluralign.users import UNKNOWN, Pooled


def nothing(design):
    return design.take(torch.zeros(design.n_decisions, dtype=torch.bool))


def test_without_answers_users_stay_where_they_are(model, random_pairs):
    design = random_pairs(12)
    who = torch.zeros(12, dtype=torch.int64)
    for user in (0, 1, UNKNOWN):
        placed = place(model, user, nothing(design))
        assert placed.n_users == 1
        before, after = model.predict(design, who + user), placed.predict(design, who)
        assert after.chosen == pytest.approx(before.chosen, abs=1e-5)


def test_a_stranger_is_placed_by_adapt(model, random_pairs):
    design = random_pairs(12)
    placed, adapted = place(model, UNKNOWN, design), adapt(model, design)
    assert placed.predict(design).chosen == pytest.approx(adapted.predict(design).chosen)


def test_someone_known_goes_on_as_if_all_answers_had_come_at_once(model, random_pairs):
    # Exact for clusters. The first answers leave the others an approximation, by a Gaussian or of a log-normal factor.
    if model.kind == "individual" and model.covariance.ndim == 2:
        pytest.skip("its diagonal forgets how the first answers tied the axes together")
    first, test = (random_pairs(n, seed=seed) for n, seed in ((8, 1), (30, 2)))
    first, test = (each.with_features(each.features / 2) for each in (first, test))
    half = torch.arange(8) < 4
    known, at_once = adapt(model, first.take(half)), adapt(model, first)
    expected = at_once.predict(test).chosen
    missed = abs(update(known, 0, first.take(~half)).predict(test).chosen - expected).max()
    moved = abs(known.predict(test).chosen - expected).max()
    assert missed < (1e-6 if model.kind == "cluster" else 0.25 * moved)


def test_clusters_are_placed_by_probability_even_where_the_fit_assigned(random_pairs):
    from tests.queries.conftest import models

    hard = replace(models()["cluster"], soft=False)
    placed = place(hard, UNKNOWN, random_pairs(2))
    assert 0 < placed.membership.min() < placed.membership.max() < 1


def test_pooled_stays_pooled(random_pairs):
    model = Pooled(theta=torch.ones(3).double(), n_users=7)
    assert update(model, 3, random_pairs(2)).n_users == 1


def test_a_model_that_cannot_go_on_says_so(random_pairs):
    class Other:
        kind, n_users, dim, n_parameters = "other", 1, 3, 0

        def predict(self, design, user=None):
            raise NotImplementedError

        def reward(self, features, user):
            raise NotImplementedError

    with pytest.raises(ConfigError, match="a other model cannot go on from a user it knows"):
        place(Other(), 0, random_pairs(2))
