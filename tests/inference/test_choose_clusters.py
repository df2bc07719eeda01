import math
import weakref
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pluralign.errors import ConfigError, DataError
from pluralign.inference import choose_clusters as module
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.inference.clusters import screen_users
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


def test_a_half_of_few_users_says_nothing_of_many_clusters(clustered):
    design, _ = clustered(n_users=4, each=20)
    own = replace(design, source=design.user)  # a source for each user, so that a half has two of them
    folds = folds_by_source(own, 2, seed=0)
    two, three = choose_clusters(own, (2, 3), folds=folds, ridge=1.0, n_starts=1, fold_starts=1).candidates
    assert -1 <= two.half_agreement <= 1
    assert math.isnan(three.half_agreement)


def test_one_part_of_the_rows_is_held_at_a_time_on_the_features_of_all(clustered, monkeypatch):
    # Half of the rows may bring a copy of 0.6 of the features: two such copies would be more than the features.
    design, _ = clustered(n_users=6, each=30)
    parts = []

    def screen(some, **how):
        assert not [part for part in parts if part() is not None]
        assert some.features is design.features
        if some is not design:
            parts.append(weakref.ref(some))
        return screen_users(some, **how)

    monkeypatch.setattr(module, "screen_users", screen)
    choose_clusters(design, (1, 2), folds=folds_by_source(design, 3, seed=0), ridge=1.0, n_starts=2, fold_starts=2)
    assert len(parts) == 3 + 2
