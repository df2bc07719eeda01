import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pluralign.errors import ConfigError
from pluralign.inference.embedding_route import fit_embedding_route


@pytest.mark.parametrize("grouping", ["k-means", "agglomerative", "spectral"])
def test_planted_groups_are_found_by_way_of_embeddings(clustered, grouping):
    design, truth = clustered(n_users=40, each=100, dim=6, flips=0.1)
    fit = fit_embedding_route(design, 2, grouping=grouping, width=4)
    assert adjusted_rand_score(truth, fit.model.membership.argmax(1).numpy()) >= 0.9
    assert fit.embeddings.shape == (40, 4)


def test_given_embeddings_are_grouped_by_direction_not_by_length(clustered):
    design, _ = clustered(n_users=4)
    # Users 0 and 2 point one way, at lengths 1 and 100; users 1 and 3 the other way.
    embeddings = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [100.0, 0.0], [-100.0, 0.0]])
    fit = fit_embedding_route(design, 2, embeddings=embeddings)
    label = fit.model.membership.argmax(1).tolist()
    assert label[0] == label[2] != label[1] == label[3]
    assert fit.greatest_cosine == pytest.approx(1 / np.sqrt(1.01))
    assert fit.least_cosine == pytest.approx(-1)  # users 2 and 3


def test_bad_settings_say_what_is_accepted(clustered):
    design, _ = clustered(n_users=4)
    with pytest.raises(ConfigError, match="n_clusters is 5; it must be from 2 to 4, the users with rows"):
        fit_embedding_route(design, 5)
