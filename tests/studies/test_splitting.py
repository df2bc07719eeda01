"""What a study trains on never touches what it is judged by."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.comparisons import Comparisons
from pluralign.errors import DataError
from pluralign.features import Design
from pluralign.populations import simulate
from pluralign.studies.settings import StudySettings
from pluralign.studies.splitting import make_folds, split_study

SIDES = ("train", "test", "unseen_adapt", "unseen_test")


@pytest.fixture(scope="module")
def comparisons() -> Comparisons:
    return simulate(features="numeric", dim=2, n_users=20, comparisons_per_user=30, n_prompts=10, seed=1).comparisons


def settings(split: str, **fields) -> StudySettings:
    return StudySettings(split=split, test=0.4, **fields)


def items_of(comparisons: Comparisons, rows: np.ndarray) -> set[int]:
    return {*comparisons.chosen[rows].tolist(), *comparisons.rejected[rows].tolist()}


@pytest.mark.parametrize("split", ["source", "item", "last"])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_row_is_on_two_sides_and_unseen_users_train_nothing(comparisons, split, seed):
    found = split_study(comparisons, settings(split), seed)
    rows = np.concatenate([getattr(found, side) for side in SIDES])
    assert len(rows) == len(np.unique(rows))
    assert len(found.unseen_users) == 4  # a fifth of 20
    for side in SIDES:
        new = np.isin(comparisons.user[getattr(found, side)], found.unseen_users)
        assert new.all() if side.startswith("unseen") else not new.any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_split_by_source_shares_no_source(comparisons, seed):
    found = split_study(comparisons, settings("source"), seed)
    train = np.concatenate([found.train, found.unseen_adapt])
    test = np.concatenate([found.test, found.unseen_test])
    assert not set(comparisons.source[train]) & set(comparisons.source[test])
    assert len(train) + len(test) == len(comparisons)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_split_by_item_shares_no_item(comparisons, seed):
    found = split_study(comparisons, settings("item"), seed)
    train = np.concatenate([found.train, found.unseen_adapt])
    test = np.concatenate([found.test, found.unseen_test])
    assert not items_of(comparisons, train) & items_of(comparisons, test)


def test_the_last_decisions_of_every_user_are_later_than_those_trained_on(comparisons):
    found = split_study(comparisons, settings("last"), 0)
    for user in range(comparisons.n_users):
        before = [row for row in (*found.train, *found.unseen_adapt) if comparisons.user[row] == user]
        after = [row for row in (*found.test, *found.unseen_test) if comparisons.user[row] == user]
        assert len(after) == 12  # 0.4 of 30
        assert max(before) < min(after)


@pytest.mark.parametrize("split", ["source", "item", "last"])
def test_another_seed_is_another_split_and_the_same_seed_the_same(comparisons, split):
    def sides(seed: int) -> list[list[int]]:
        found = split_study(comparisons, settings(split), seed)
        return [getattr(found, side).tolist() for side in SIDES]

    assert sides(0) == sides(0)
    assert sides(0) != sides(1)


def test_a_handful_of_users_keeps_nobody_apart():
    few = simulate(features="numeric", dim=2, n_users=9, comparisons_per_user=30, seed=1).comparisons
    for split in ("source", "last"):
        found = split_study(few, settings(split), 0)
        assert len(found.unseen_users) == len(found.unseen_adapt) == len(found.unseen_test) == 0


def test_unseen_0_keeps_nobody_apart(comparisons):
    assert len(split_study(comparisons, settings("source", unseen=0.0), 0).unseen_users) == 0


def test_nothing_but_ties_is_refused(comparisons):
    ties = replace(comparisons, outcome=np.full(len(comparisons), 0.5))
    with pytest.raises(DataError, match=rf"all {len(ties)} rows are ties \(outcome 0\.5\): nothing was preferred"):
        split_study(ties, settings("source"), 0)
    one = np.full(len(comparisons), 0.5)
    one[3] = 1.0
    assert len(split_study(replace(comparisons, outcome=one), settings("source"), 0).train)


def training_design(comparisons: Comparisons, asked: StudySettings) -> Design:
    train = comparisons.take(split_study(comparisons, asked, 0).train)
    return Design.of(train, torch.from_numpy(comparisons.items.attributes))


@pytest.mark.parametrize("split", ["source", "last"])
def test_folds_hold_out_whole_sources(comparisons, split):
    asked = settings(split)
    design = training_design(comparisons, asked)
    folds = make_folds(design, asked, 0)
    assert len(folds) == 4
    for fold in range(4):
        kept, held = design.take(folds.training(fold)), design.take(folds.held(fold))
        assert held.n_decisions
        assert not set(kept.source.tolist()) & set(held.source.tolist())


def test_folds_of_a_split_by_item_hold_out_whole_items(comparisons):
    asked = settings("item")
    design = training_design(comparisons, asked)
    folds = make_folds(design, asked, 0)
    assert len(folds) == 4
    for fold in range(4):
        kept, held = design.take(folds.training(fold)), design.take(folds.held(fold))
        items = [{*part.chosen.tolist(), *part.rejected.tolist()} for part in (kept, held)]
        assert held.n_decisions
        assert not items[0] & items[1]


def test_few_sources_make_fewer_folds_and_one_makes_none():
    def design(n_prompts: int) -> Design:
        population = simulate(features="numeric", dim=2, n_users=5, n_prompts=n_prompts, seed=1)
        return Design.of(population.comparisons, torch.from_numpy(population.features))

    assert len(make_folds(design(3), settings("source"), 0)) == 3
    with pytest.raises(DataError, match="come from one source") as error:
        make_folds(design(1), settings("source"), 0)
    assert error.value.hint == "name a finer source column"
