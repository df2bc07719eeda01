"""t-SNE at any number of users, and principal components where there are too few."""

import numpy as np
import pytest

from pluralign.errors import ConfigError
from pluralign.heterogeneity.embeddings import Embedding
from pluralign.heterogeneity.projection import project


def embedding(vector: np.ndarray) -> Embedding:
    return Embedding(user=np.arange(len(vector)), vector=vector, metric="margin")


def names(n: int) -> list[str]:
    return [f"user {i}" for i in range(n)]


def test_opposite_camps_come_apart():
    rng = np.random.default_rng(0)
    side = np.arange(40) % 2
    vector = rng.normal(size=(40, 6)) * 0.3 + np.where(side, 2.0, -2.0)[:, None]
    found = project(embedding(vector), side, user_ids=names(40))
    assert found.method == "t-SNE"
    assert found.perplexity == 13
    assert found.two.shape == (40, 2)
    assert found.three.shape == (40, 3)
    assert found.cluster == tuple((side + 1).tolist())
    for points in (found.two, found.three):
        centres = np.stack([points[side == k].mean(0) for k in (0, 1)])
        nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)
        assert (nearest == side).all()
    again = project(embedding(vector), side, user_ids=names(40))
    np.testing.assert_array_equal(found.two, again.two)


@pytest.mark.parametrize("n", [5, 6, 21])
def test_the_perplexity_is_below_the_number_of_users(n):
    found = project(embedding(np.random.default_rng(n).normal(size=(n, 2))), user_ids=names(n))
    assert 0 < found.perplexity < n
    assert np.isfinite(found.two).all()
    assert np.isfinite(found.three).all()


def test_few_users_and_one_direction_are_laid_out_by_principal_components():
    few = project(embedding(np.array([[3.0, 4.0], [-3.0, -4.0]])), user_ids=names(2))
    assert few.method == "PCA"
    assert few.perplexity is None
    # The one direction in which they differ; 5 is the length of (3, 4).
    np.testing.assert_allclose(np.abs(few.two), [[5, 0], [5, 0]], atol=1e-3)
    line = project(embedding(np.arange(12.0)[:, None] - 3), user_ids=names(12))
    assert line.method == "PCA"
    assert "one direction of taste" in line.note
    assert len(line.user) == 11  # the fourth has no direction
    assert project(embedding(np.zeros((3, 2))), user_ids=names(3)).two.shape == (0, 2)


def test_many_users_are_thinned_by_cluster():
    cluster = np.repeat([0, 1, -1], [60, 30, 10])
    vector = np.random.default_rng(0).normal(size=(100, 3))
    found = project(embedding(vector), cluster, user_ids=names(100), max_users=20)
    assert [found.cluster.count(k) for k in (1, 2, 0)] == [12, 6, 2]
    assert found.n_users == 100
    assert found.note.startswith("20 of 100 users are drawn.")


def test_what_cannot_be_asked_is_said():
    vector = np.random.default_rng(0).normal(size=(8, 3))
    with pytest.raises(ConfigError, match="perplexity is 8; it must be above 0 and below the 8 users drawn"):
        project(embedding(vector), user_ids=names(8), perplexity=8.0)
    with pytest.raises(ConfigError, match="max_users is 1"):
        project(embedding(vector), user_ids=names(8), max_users=1)
    with pytest.raises(ConfigError, match="clusters are of 7 users; there are 8"):
        project(embedding(vector), np.zeros(7, dtype=np.int64), user_ids=names(8))
