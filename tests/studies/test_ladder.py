"""Rungs are compared by what their settings predicted when they were chosen."""

from dataclasses import replace

import numpy as np
import pytest

from pluralign.features import Design
from pluralign.inference.folds import default_folds
from pluralign.inference.selection import cross_validate
from pluralign.studies.features import FeatureSource
from pluralign.studies.ladder import LadderSettings, choose_rung, fit_ladder


def test_a_rung_is_judged_by_the_folds_that_chose_its_settings(population):
    table = population()
    design = Design.of(table, FeatureSource(table).of(table)[2])
    folds = default_folds(design, 0)
    settings = LadderSettings(ridge=1.0, clusters=(1, 2), ranks=(0, 1), starts=4, covariance="isotropic")
    rungs = fit_ladder(design, folds, settings)
    _, evidence = choose_rung(design, folds, rungs)
    assert {each.name for each in evidence} == set(rungs)
    for each in evidence:
        rung = rungs[each.name]
        again = cross_validate(design, rung.refit, folds)
        if rung.held_out is not None:  # the same decisions in the same order
            np.testing.assert_array_equal(rung.held_out.user, again.user)
            np.testing.assert_array_equal(rung.held_out.source, again.source)
            assert each.log_prob in [row["log_prob"] for row in rung.choice]
        # The fits behind a choice end a few digits sooner.
        assert each.log_prob == pytest.approx(np.average(again.log_prob, weights=again.weight), abs=1e-3)
    assert {name for name, rung in rungs.items() if rung.held_out is not None} >= {"cluster", "cluster-hard", "basis"}


@pytest.mark.parametrize("n_counted", [1, 2])
def test_users_whose_rows_weigh_nothing_fill_no_cluster(population, n_counted):
    table = population()
    design = Design.of(table, FeatureSource(table).of(table)[2])
    design = replace(design, weight=(design.user < n_counted).to(design.weight))
    assert design.n_counted_users == n_counted
    settings = LadderSettings(ridge=1.0, clusters=(1, 2, 3), ranks=(0, 1), starts=4)
    names = ("cluster", "cluster-hard", "cluster-embedding")
    rungs = fit_ladder(design, default_folds(design, 0), settings, names)
    assert max(rungs[name].settings["n_clusters"] for name in names) <= n_counted
    alone = fit_ladder(design, default_folds(design, 0), replace(settings, clusters=(3,)), names)
    assert {alone[name].settings["n_clusters"] for name in names} == {n_counted}
