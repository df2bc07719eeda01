import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from pluralign.inference.subspace import fit_subspace

RIDGE = 0.3


def make_problem(rows=80, dim=30, far=0.0):
    g = np.random.default_rng(0)
    features = g.normal(size=(rows, dim)) * np.arange(1, dim + 1) ** -0.5
    return features, far * g.normal(size=rows), g.random(rows) + 0.5, g.integers(0, 2, rows).astype(float)


def fit(features, base, weight, outcome, **options):
    def derivatives(margin):
        p = expit(margin)
        return weight * (outcome - p), weight * p * (1 - p)

    given = {"precondition": lambda g: g, "tolerance": 1e-10, "max_passes": 300} | options
    return fit_subspace(features, base, derivatives, total=float(weight.sum()), ridge=RIDGE, **given)


def best(features, base, weight, outcome):
    def loss(o):
        margin = base + features @ o
        value = (weight * (np.logaddexp(0, margin) - outcome * margin)).sum() + RIDGE / 2 * o @ o
        return value, features.T @ (weight * (expit(margin) - outcome)) + RIDGE * o

    start = np.zeros(features.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}).x


@pytest.mark.parametrize("dim", [3, 30, 60])
@pytest.mark.parametrize("far", [0.0, 30.0])
def test_the_optimum_is_scipys_also_from_margins_that_are_sure_and_wrong(dim, far):
    problem = make_problem(dim=dim, far=far)
    np.testing.assert_allclose(fit(*problem), best(*problem), atol=1e-6)


def test_forgotten_directions_do_not_spoil_the_optimum(monkeypatch):
    monkeypatch.setattr("pluralign.inference.subspace._SPAN", 2)
    problem = make_problem()
    np.testing.assert_allclose(fit(*problem), best(*problem), atol=1e-6)


def test_in_one_dimension_a_pass_is_enough():
    features, base, weight, outcome = make_problem(dim=1)
    once = fit(features, base, weight, outcome, max_passes=1)
    np.testing.assert_allclose(once, best(features, base, weight, outcome), atol=2e-3)


def counted(precondition):
    calls = []

    def each(gradient):
        calls.append(1)
        return precondition(gradient)

    return each, calls


def test_a_good_preconditioner_saves_most_passes():
    features, base, weight, outcome = make_problem()
    hessian = features.T @ (features * weight[:, None]) / 4 + RIDGE * np.eye(30)
    plain, plain_passes = counted(lambda gradient: gradient)
    newton, newton_passes = counted(lambda gradient: np.linalg.solve(hessian, gradient * weight.sum()))
    for each in (plain, newton):
        fit(features, base, weight, outcome, precondition=each)
    assert len(newton_passes) < len(plain_passes) / 2


def test_float32_stops_at_its_rounding_and_not_at_the_tolerance():
    each, passes = counted(lambda gradient: gradient)
    problem = [part.astype(np.float32) for part in make_problem()]
    found = fit(*problem, tolerance=0.0, precondition=each)
    assert len(passes) < 100
    np.testing.assert_allclose(found, best(*make_problem()), atol=2e-3)
