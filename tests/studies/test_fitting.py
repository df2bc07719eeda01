"""One fit to all rows: what is given is taken, and what cannot be done is said."""

import numpy as np
import pytest

from pluralign.errors import ConfigError, DataError
from pluralign.studies.fitting import FitSettings, fit


def test_a_given_ridge_is_the_ridge_of_the_clusters_too(population):
    for soft in (False, True):
        found = fit(population(), users="cluster", clusters=2, soft=soft, ridge=5.0, starts=2)
        assert found.rung.settings["ridge"] == 5.0


def test_more_clusters_than_users_are_cut_aloud(population, caplog):
    found = fit(population(n_users=4), users="cluster", clusters=9, ridge=1.0, starts=2)
    assert found.rung.settings["n_clusters"] == 4
    assert caplog.messages == ["clusters is 9, and the rows are of 4 users: 4 are fitted"]


def test_a_rank_above_the_number_of_features(population):
    fit(population(dim=2), users="basis", rank=2, ridge=1.0)
    with pytest.raises(ConfigError, match=r"rank of `basis` is 3, and there are 2 features; it must be at most 2"):
        fit(population(dim=2), users="basis", rank=3, ridge=1.0)


@pytest.mark.parametrize("ridge", [float("nan"), float("inf"), -1.0])
def test_a_ridge_that_no_fit_can_have(ridge):
    with pytest.raises(ConfigError, match=rf"ridge is {ridge}; it must be at least 0"):
        FitSettings(ridge=ridge)


def test_one_source_is_too_few(population):
    table = population()
    alone = table.take(np.flatnonzero(table.source == table.source[0]))
    with pytest.raises(DataError, match="too few sources: the rows come from 1"):
        fit(alone, ridge=1.0)
