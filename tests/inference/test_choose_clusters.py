import math
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pluralign.errors import ConfigError, DataError
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.inference.folds import folds_by_source


@pytest.mark.parametrize("soft", [True, False])
def test_two_planted_clusters_are_chosen(clustered, soft):
    design, truth = clustered(n_users=40, each=200, dim=6, flips=0.25)
    choice = choose_clusters(
        design, (1, 2, 3), soft=soft, ridge=1.0, folds=folds_by_source(design, 3, seed=0), n_starts=8, fold_starts=3
    )
    assert choice.n_clusters == choice.best_bic == 2
    # 1 of 40 users misplaced would be 0.90.
    assert adjusted_rand_score(truth, choice.fit.model.membership.argmax(1).numpy()) >= 0.95
    one, two, _ = choice.candidates
    assert math.isnan(one.half_agreement)
    assert two.half_agreement == two.restart_agreement == 1
    assert one.behind > 5 * one.standard_error > 0
    assert two.log_prob == max(row.log_prob for row in choice.candidates)


def test_users_of_one_taste_get_one_cluster(clustered):
    design, _ = clustered(n_users=20, each=40, n_clusters=1, flips=0.25)
    choice = choose_clusters(
        design, (1, 2), ridge=1.0, folds=folds_by_source(design, 3, seed=0), n_starts=3, fold_starts=2, stability=False
    )
    assert choice.n_clusters == 1
    assert choice.fit.model.n_clusters == 1


def test_no_choice_is_possible_from_nothing(clustered):
    design, _ = clustered()
    with pytest.raises(ConfigError, match=r"candidates are \[0, 1\]; each is from 1"):
        choose_clusters(design, (0, 1))
    with pytest.raises(ConfigError, match="n_folds is 1"):
        choose_clusters(design, (1, 2), folds=folds_by_source(design, 1, seed=0))
    with pytest.raises(DataError, match="no comparison"):
        choose_clusters(design.take(torch.zeros(design.n_decisions, dtype=torch.bool)), (1, 2))


def test_candidates_beyond_the_users_are_left_out(clustered):
    design, _ = clustered(n_users=2, each=40)
    choice = choose_clusters(
        replace(design, n_users=5),
        (1, 2, 3),
        ridge=1.0,
        folds=folds_by_source(design, 2, seed=0),
        n_starts=2,
        fold_starts=2,
        stability=False,
    )
    assert [row.n_clusters for row in choice.candidates] == [1, 2]
