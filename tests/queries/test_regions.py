"""Where a model says that a user stands."""

from dataclasses import replace

import pytest
import torch

from pluralign.queries.regions import regions
from pluralign.users import Pooled


def test_clusters_come_likeliest_first():
    from tests.queries.conftest import models

    model = replace(models()["cluster"], membership=torch.tensor([[0.2, 0.7, 0.1]]))
    assert [each.name for each in regions(model)] == ["cluster 2", "cluster 1", "cluster 3"]
    assert [each.probability for each in regions(model)] == pytest.approx([0.7, 0.2, 0.1])


def test_directions_have_sides():
    from tests.queries.conftest import models

    model = replace(
        models()["basis"],
        mean=torch.tensor([[1.0, -3.0]]).double(),
        covariance=torch.diag(torch.tensor([1.0, 4.0]).double())[None],
    )
    # Phi(1) = 0.8413, Phi(1.5) = 0.9332.
    assert regions(model) == [
        ("direction 1: above average", pytest.approx(0.8413, abs=1e-4)),
        ("direction 2: below average", pytest.approx(0.9332, abs=1e-4)),
    ]


def test_every_rung_names_parts_with_probabilities(model):
    found = regions(model, 1)
    assert found
    assert all(0 < each.probability <= 1 for each in found)


def test_a_model_of_one_taste_has_no_parts():
    assert regions(Pooled(theta=torch.ones(2), n_users=1)) == []
