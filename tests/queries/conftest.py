"""Designs of random pairs, and one small model of every rung that has a posterior."""

from collections.abc import Callable

import pytest
import torch

from pluralign.features import Design
from pluralign.likelihoods import Decisions
from pluralign.users import Basis, Clusters, Individual, Reliability, UserModel


def pairs(features: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor, n_users: int = 1) -> Design:
    n = len(chosen)
    return Design(
        features=features,
        chosen=chosen,
        rejected=rejected,
        decisions=Decisions(
            index=torch.arange(n), outcome=torch.ones(n, dtype=features.dtype), position=torch.zeros(n).to(features)
        ),
        user=torch.zeros(n, dtype=torch.int64),
        weight=torch.ones(n, dtype=features.dtype),
        source=torch.arange(n),
        n_users=n_users,
    )


@pytest.fixture
def random_pairs() -> Callable[..., Design]:
    def make(n: int, dim: int = 3, seed: int = 0, items: int = 40) -> Design:
        g = torch.Generator().manual_seed(seed)
        first = torch.randint(0, items, (n,), generator=g)
        second = (first + torch.randint(1, items, (n,), generator=g)) % items
        return pairs(torch.randn(items, dim, generator=g, dtype=torch.float64), first, second)

    return make


def positive(n: int, dim: int, g: torch.Generator) -> torch.Tensor:
    """Random covariances."""
    root = torch.randn(n, dim, dim, generator=g, dtype=torch.float64) / 2
    return root @ root.mT + 0.1 * torch.eye(dim, dtype=torch.float64)


def models(dim: int = 3, n_users: int = 2, seed: int = 0) -> dict[str, UserModel]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    axes = torch.linalg.qr(draw(dim, dim))[0]
    return {
        "cluster": Clusters(
            theta=draw(3, dim),
            shares=torch.tensor([0.5, 0.3, 0.2]).double(),
            membership=draw(n_users, 3).softmax(1),
            soft=True,
        ),
        "reliability": Reliability(
            theta=draw(dim),
            log_scale=draw(n_users),
            log_scale_sd=draw(n_users).abs(),
            spread=0.7,
            lapse=0.1,
            position_bias=0.2,
        ),
        "basis": Basis(theta=draw(dim), basis=draw(dim, 2), mean=draw(n_users, 2), covariance=positive(n_users, 2, g)),
        "individual": Individual(
            theta=draw(dim),
            axes=axes,
            scale=draw(dim).abs() + 0.5,
            offset=draw(n_users, dim),
            covariance=positive(n_users, dim, g),
            structure="full",
        ),
        "individual, diagonal": Individual(
            theta=draw(dim),
            axes=axes,
            scale=torch.full((dim,), 0.8).double(),
            offset=draw(n_users, dim),
            covariance=draw(n_users, dim).abs(),
        ),
    }


RUNGS = tuple(models())


@pytest.fixture(params=RUNGS)
def model(request) -> UserModel:
    return models()[request.param]
