import weakref

import numpy as np
import pytest
import torch

from pluralign.comparisons.table import from_attributes
from pluralign.features import Design
from pluralign.features.design import Differences


def make_design(*, n_items: int, n_rows: int, among: int | None = None, sizes: int = 1) -> Design:
    """Random rows, `sizes` of them to a decision, that touch only the first `among` items."""
    rng = np.random.default_rng(0)
    n_decisions = n_rows // sizes
    item = np.stack([rng.permutation(among or n_items)[: sizes + 1] for _ in range(n_decisions)])
    comparisons = from_attributes(
        attributes=rng.normal(size=(n_items, 3)),
        attribute_names=["a", "b", "c"],
        chosen=item[:, :1].repeat(sizes, 1).ravel(),
        rejected=item[:, 1:].ravel(),
        user=[f"u{i % 4}" for i in np.arange(n_decisions).repeat(sizes)],
        choice=np.arange(n_decisions).repeat(sizes),
        weight=rng.random(n_decisions).repeat(sizes),
    )
    return Design.of(comparisons, torch.as_tensor(comparisons.items.attributes))


CASES = [
    {"n_items": 20, "n_rows": 60},  # as it is
    {"n_items": 500, "n_rows": 60, "among": 30},  # the items in use
    {"n_items": 500, "n_rows": 60},  # one item per row
    {"n_items": 500, "n_rows": 60, "sizes": 3},  # the items in use: 20 chosen and 60 others
]


@pytest.mark.parametrize("case", CASES)
def test_compact_changes_neither_margins_nor_gradients(case):
    design = make_design(**case)
    g = torch.Generator().manual_seed(0)
    theta = torch.randn(2, 3, generator=g, dtype=torch.float64)
    slope = torch.randn(design.n_rows, 2, generator=g, dtype=torch.float64)
    x = design.features[design.chosen] - design.features[design.rejected]
    keep = torch.arange(design.n_decisions) % 3 != 0
    for each in (design, design.compact):
        assert len(each.features) <= 500
        torch.testing.assert_close(each.margins(theta), x @ theta.T)
        torch.testing.assert_close(each.pull(slope), slope.T @ x)
        torch.testing.assert_close(each.gram, design.gram)
        torch.testing.assert_close(each.take(keep).margins(theta), (x @ theta.T)[keep[design.decisions.index]])
    assert len(design.compact.features) <= 1.5 * 60


def test_differences_are_formed_only_where_items_are_many():
    assert [isinstance(make_design(**case).compact, Differences) for case in CASES] == [False, False, True, False]


@pytest.mark.parametrize("case", CASES)
def test_a_design_goes_with_its_last_user_and_waits_for_no_collection_of_cycles(case):
    design = make_design(**case)
    compact, double = design.compact, design.double
    assert double is design  # it is in float64
    gone = weakref.ref(design)
    del design, compact, double
    assert gone() is None


def test_gram_of_pairs_is_a_quarter_of_the_weighted_second_moment():
    design = make_design(n_items=20, n_rows=60)
    x = design.differences(torch.arange(60))
    expected = (x * design.weight[:, None]).T @ x / design.weight.sum() / 4
    torch.testing.assert_close(design.gram, expected)


def test_the_panels_of_a_wide_gram_make_the_whole():
    g = torch.Generator().manual_seed(0)
    features = torch.randn(40, 300, generator=g, dtype=torch.float64)
    design = make_design(n_items=40, n_rows=60).with_features(features)
    x = design.differences(torch.arange(60))
    torch.testing.assert_close(design.gram, (x * design.weight[:, None] / 4 / design.weight.sum()).T @ x)


@pytest.mark.parametrize("dim", [3, 100])
@pytest.mark.parametrize("compact", [False, True])
def test_differences_fill_the_memory_given(monkeypatch, dim, compact):
    monkeypatch.setattr("pluralign.features.design._PIECE", 7 * dim)
    g = torch.Generator().manual_seed(0)
    design = make_design(n_items=500, n_rows=60).with_features(torch.randn(500, dim, generator=g))
    design = design.compact if compact else design
    rows, memory = torch.arange(50).flip(0), torch.full((50, dim), torch.nan)
    assert design.differences(rows, memory) is memory
    torch.testing.assert_close(memory, design.differences(rows))


def test_gram_of_choices_is_the_covariance_of_their_items():
    design = make_design(n_items=20, n_rows=60, sizes=3)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(20):
        items = torch.cat([design.chosen[3 * i : 3 * i + 1], design.rejected[3 * i : 3 * i + 3]])
        expected += design.weight[i] * torch.cov(design.features[items].T, correction=0)
    torch.testing.assert_close(design.gram, expected / design.weight.sum())
