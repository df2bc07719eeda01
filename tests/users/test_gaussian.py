"""Gaussian users: what they predict, and what an unknown user is."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from pluralign.comparisons import from_attributes
from pluralign.features import Design
from pluralign.users import UNKNOWN, Basis, Individual, Pooled
from pluralign.users.gaussian import _blocks


def design_of(items: np.ndarray, features: torch.Tensor, user: list[int]) -> Design:
    """Decisions whose first item was chosen, (decisions, alternatives); -1 marks an alternative that is missing."""
    rows = [(d, row[0], other) for d, row in enumerate(items) for other in row[1:] if other >= 0]
    decision, chosen, rejected = (np.array(column) for column in zip(*rows, strict=True))
    table = from_attributes(
        attributes=features.numpy(),
        attribute_names=[f"x{i}" for i in range(features.shape[1])],
        chosen=chosen,
        rejected=rejected,
        user=[f"u{user[d]}" for d in decision],
        choice=decision if items.shape[1] > 2 else None,
    )
    return Design.of(table, features)


def basis(users: int = 2, *, rank: int = 2, dim: int = 3, seed: int = 0) -> Basis:
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(users, rank, rank, generator=g, dtype=torch.float64) / 2
    return Basis(
        theta=torch.randn(dim, generator=g, dtype=torch.float64),
        basis=torch.randn(dim, rank, generator=g, dtype=torch.float64),
        mean=torch.randn(users, rank, generator=g, dtype=torch.float64),
        covariance=root @ root.mT,
    )


def individual_of(model: Basis) -> Individual:
    """The same users, written as an `Individual` with whole covariances."""
    variance, axes = torch.linalg.eigh(model.basis @ model.basis.T)
    turn = axes.T @ model.basis
    return Individual(
        theta=model.theta,
        axes=axes.T.contiguous(),
        scale=variance.clamp(min=0).sqrt(),
        offset=model.mean @ model.basis.T,
        covariance=turn @ model.covariance @ turn.T,
        structure="full",
    )


ITEMS = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0], [0.5, 0.5, 0.0], [2.0, -1.0, 1.0]], dtype=torch.float64)


def test_probability_of_a_pair_is_the_integral_over_the_posterior():
    model, design = basis(), design_of(np.array([[0, 1], [3, 2]]), ITEMS, [0, 1])
    got = model.predict(design).chosen
    for row, (first, second, user) in enumerate([(0, 1, 0), (3, 2, 1)]):
        x = ITEMS[first] - ITEMS[second]
        z = x @ model.basis
        mean, sd = float(x @ model.theta + z @ model.mean[user]), math.sqrt(z @ model.covariance[user] @ z)

        def integrand(e: float, mean: float = mean, sd: float = sd) -> float:
            return math.exp(-e * e / 2) / math.sqrt(2 * math.pi) / (1 + math.exp(-mean - sd * e))

        assert got[row] == pytest.approx(quad(integrand, -9, 9)[0], abs=1e-6)


def test_probability_among_four_is_the_average_over_the_posterior():
    model = basis()
    design = design_of(np.array([[0, 1, 2, 3], [3, 2, 1, 0]]), ITEMS, [0, 1])
    g = torch.Generator().manual_seed(1)
    for row, order in enumerate([[0, 1, 2, 3], [3, 2, 1, 0]]):
        draws = torch.distributions.MultivariateNormal(model.mean[row], model.covariance[row])
        w = draws.mean + torch.randn(400_000, 2, generator=g, dtype=torch.float64) @ draws.scale_tril.T
        p = (ITEMS[order] @ (model.theta[:, None] + model.basis @ w.T)).softmax(0).mean(1)
        predicted = model.predict(design)
        assert predicted.chosen[row] == pytest.approx(float(p[0]), abs=4e-3)  # 256 Sobol draws
        assert predicted.best_other[row] == pytest.approx(float(p[1:].max()), abs=4e-3)


def test_a_basis_and_an_individual_of_the_same_posterior_agree():
    model = basis(rank=3)
    twin = individual_of(model)
    for items in (np.array([[0, 1], [3, 2], [1, 2]]), np.array([[0, 1, 2], [3, 2, -1], [1, 2, 3]])):
        design = design_of(items, ITEMS, [0, 1, 0])
        for user in (None, torch.tensor([UNKNOWN, 1, UNKNOWN])):
            np.testing.assert_allclose(
                model.predict(design, user).chosen,
                twin.predict(design, user).chosen,
                atol=2e-3 * (items.shape[1] > 2) + 1e-9,
            )
    who = torch.tensor([0, 1, UNKNOWN, 1])
    for one, other in zip(model.reward(ITEMS, who), twin.reward(ITEMS, who), strict=True):
        torch.testing.assert_close(one, other)


def test_an_unknown_user_is_the_prior():
    model = basis()
    mean, sd = model.reward(ITEMS, torch.full((4,), UNKNOWN))
    torch.testing.assert_close(mean, ITEMS @ model.theta)
    torch.testing.assert_close(sd, (ITEMS @ model.basis).norm(dim=1))


def test_users_who_do_not_differ_are_the_pooled_model():
    theta = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
    zero = Individual(
        theta=theta,
        axes=torch.eye(3, dtype=torch.float64),
        scale=torch.zeros(3, dtype=torch.float64),
        offset=torch.zeros(2, 3, dtype=torch.float64),
        covariance=torch.zeros(2, 3, dtype=torch.float64),
    )
    empty = Basis(
        theta=theta,
        basis=theta.new_zeros((3, 0)),
        mean=theta.new_zeros((2, 0)),
        covariance=theta.new_zeros((2, 0, 0)),
    )
    for items in (np.array([[0, 1], [3, 2]]), np.array([[0, 1, 2], [3, 2, 1]])):
        design = design_of(items, ITEMS, [0, 1])
        pooled = Pooled(theta=theta, n_users=2).predict(design).chosen
        np.testing.assert_allclose(zero.predict(design).chosen, pooled, atol=1e-5)
        np.testing.assert_allclose(empty.predict(design).chosen, pooled, atol=1e-5)
    assert (zero.n_parameters, empty.n_parameters) == (4, 3)


def test_blocks_cut_between_decisions_and_leave_none_out():
    design = design_of(np.array([[0, 1, 2, 3], [1, 2, -1, -1], [3, 2, 1, -1], [0, 3, -1, -1]]), ITEMS, [0, 1, 0, 1])
    for n_rows in (1, 2, 3, 100):
        pieces = list(_blocks(design, n_rows))
        assert [i for some, _, _ in pieces for i in range(some.start, some.stop)] == [0, 1, 2, 3]
        assert [i for _, rows, _ in pieces for i in range(rows.start, rows.stop)] == list(range(7))
        for some, rows, decisions in pieces:
            torch.testing.assert_close(decisions.index + some.start, design.decisions.index[rows])
