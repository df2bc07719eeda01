import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralign.comparisons import from_attributes
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.folds import default_folds, folds_by_item, folds_by_source


def make_design(seed: int, n: int = 90, n_items: int = 12, n_sources: int = 15) -> Design:
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, n_items, n)
    table = from_attributes(
        attributes=rng.normal(size=(n_items, 2)),
        attribute_names=["a", "b"],
        chosen=chosen,
        rejected=(chosen + rng.integers(1, n_items, n)) % n_items,
        user=[f"u{i % 7}" for i in range(n)],
        source=[f"s{i}" for i in rng.integers(0, n_sources, n)],
    )
    return Design.of(table, torch.tensor(table.items.attributes))


def items_of(design: Design, rows: torch.Tensor) -> set[int]:
    return set(design.chosen[rows].tolist()) | set(design.rejected[rows].tolist())


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_no_source_is_both_trained_on_and_held_out(n_folds, seed):
    design = make_design(seed)
    folds = folds_by_source(design, n_folds, seed)
    for fold in range(n_folds):
        training, held = folds.training(fold), folds.held(fold)
        assert not set(design.source[training].tolist()) & set(design.source[held].tolist())
        assert bool((training ^ held).all())  # each decision is on one side
        assert held.any()


@given(st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_no_item_is_both_trained_on_and_held_out(n_folds, seed):
    design = make_design(seed)
    folds = folds_by_item(design, n_folds, seed)
    for fold in range(n_folds):
        assert not items_of(design, folds.training(fold)) & items_of(design, folds.held(fold))


def test_a_decision_that_straddles_two_of_three_item_folds_trains_in_the_third_alone():
    design = make_design(0)
    folds = folds_by_item(design, 3, seed=0)
    straddling = folds.held_in == -1
    in_how_many = torch.stack([folds.training(fold) for fold in range(3)]).sum(0)
    assert straddling.any()
    assert in_how_many[straddling].tolist() == [1] * int(straddling.sum())
    assert in_how_many[~straddling].tolist() == [2] * int((~straddling).sum())


def test_too_many_folds_are_an_error():
    design = make_design(0, n_sources=3)
    with pytest.raises(ConfigError, match="n_folds is 5 and the rows come from 3 sources"):
        folds_by_source(design, 5, seed=0)
    with pytest.raises(ConfigError, match="n_folds is 7 and 12 items were compared"):
        folds_by_item(design, 7, seed=0)


def test_by_default_there_are_no_more_folds_than_sources():
    few, many = make_design(0, n_sources=3), make_design(0, n_sources=40)
    assert (len(default_folds(few)), len(default_folds(many))) == (3, 5)
    assert not torch.equal(default_folds(many, seed=1).held_in, default_folds(many).held_in)
