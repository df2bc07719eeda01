from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_attributes
from pluralign.features import Design
from pluralign.users import UNKNOWN, Clusters, Pooled

ITEMS = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])


@pytest.fixture
def design():
    table = from_attributes(
        attributes=ITEMS,
        attribute_names=["a", "b"],
        chosen=np.array([0, 1]),
        rejected=np.array([1, 2]),
        user=["ann", "bob"],
    )
    return Design.of(table, torch.as_tensor(ITEMS))


@pytest.fixture
def clusters():
    return Clusters(
        theta=torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64),
        shares=torch.tensor([0.75, 0.25], dtype=torch.float64),
        membership=torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64),
        soft=True,
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_pooled_gives_everybody_the_same(design):
    model = Pooled(theta=torch.tensor([2.0, 1.0], dtype=torch.float64), n_users=2)
    assert model.predict(design).chosen.tolist() == pytest.approx([sigmoid(1), sigmoid(1)])
    mean, sd = model.reward(design.features, torch.tensor([0, 1, UNKNOWN]))
    assert mean.tolist() == [2, 1, 0]
    assert sd.tolist() == [0, 0, 0]


def test_clusters_mix_probabilities_not_rewards(design, clusters):
    # Ann prefers item 0 to 1 by 1; bob's margins for item 1 over 2 are 0 and 2, one or the other with even odds.
    predicted = clusters.predict(design)
    assert predicted.chosen.tolist() == pytest.approx([sigmoid(1), (0.5 + sigmoid(2)) / 2])
    assert predicted.best_other.tolist() == pytest.approx((1 - predicted.chosen).tolist())


def test_the_unknown_user_gets_the_shares(design, clusters):
    predicted = clusters.predict(design, torch.tensor([UNKNOWN, UNKNOWN]))
    assert predicted.chosen[0] == pytest.approx(0.75 * sigmoid(1) + 0.25 * sigmoid(-2))
    assert predicted.user.tolist() == [0, 1]  # whose decisions they are, whoever's model predicts
    mean, sd = clusters.reward(design.features[:2], torch.tensor([UNKNOWN, 0]))
    assert mean.tolist() == pytest.approx([0.75, 0.0])
    assert sd.tolist() == pytest.approx([np.sqrt(0.75 * 0.25), 0.0])


def test_relabelled_clusters_are_the_same_model(design, clusters):
    other = replace(
        clusters,
        theta=clusters.theta.flip(0),
        shares=clusters.shares.flip(0),
        membership=clusters.membership.flip(1),
    )
    np.testing.assert_allclose(other.predict(design).chosen, clusters.predict(design).chosen)


def test_parameters_are_counted_as_bic_does(clusters):
    assert (clusters.n_parameters, clusters.n_clusters, clusters.dim, clusters.n_users) == (5, 2, 2, 2)
