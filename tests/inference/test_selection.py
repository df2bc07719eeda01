"""Choosing among fits by what they predict of held-out decisions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.inference.folds import Folds, folds_by_source
from pluralign.inference.selection import cross_validate, cross_validate_all, pick_simplest
from pluralign.populations import simulate
from pluralign.users.model import predictions_from


def predictions(log_prob: list[float], weight: list[float] | None = None) -> Predictions:
    """One decision of each of several users, who are therefore the clusters of every standard error."""
    chosen = np.exp(np.array(log_prob, dtype=np.float64))
    n = len(chosen)
    return Predictions(
        chosen=chosen,
        best_other=1 - chosen,
        outcome=np.ones(n),
        user=np.arange(n, dtype=np.int32),
        source=np.arange(n, dtype=np.int32),
        weight=np.ones(n) if weight is None else np.array(weight),
    )


BEST = [-0.5, -0.5, -0.5, -0.5, -0.5, -0.5]


def test_the_simplest_within_one_standard_error_is_chosen():
    # Users lose 0.1 and 0.3 in turn against the best, 0.2 on average. The jackknife's variance of the mean of six users
    # is 6/5 of Student's, 0.012 / 6: a standard error of 0.049, so 0.2 is far behind.
    poor = [-0.6, -0.8, -0.6, -0.8, -0.6, -0.8]
    # Here they lose 0.4 and gain 0.3 in turn: 0.05 on average, with a standard error of sqrt(6/5 0.147 / 6) = 0.171.
    near = [-0.9, -0.2, -0.9, -0.2, -0.9, -0.2]
    chosen, evidence = pick_simplest(["poor", "near", "best"], [predictions(each) for each in (poor, near, BEST)])
    assert chosen == 1
    assert [each.name for each in evidence] == ["poor", "near", "best"]
    assert [each.behind for each in evidence] == pytest.approx([0.2, 0.05, 0.0])
    assert [each.log_prob for each in evidence] == pytest.approx([-0.7, -0.55, -0.5])
    assert evidence[0].standard_error == pytest.approx(np.sqrt(0.012 / 5), rel=1e-6)
    assert evidence[1].standard_error == pytest.approx(np.sqrt(0.147 / 5), rel=1e-6)
    assert evidence[2].standard_error == 0


def test_what_trails_by_a_hair_but_surely_is_not_chosen():
    # Every user loses the same, so the standard error is 0 and any gap is more than it.
    worse = [each - 0.001 for each in BEST]
    assert pick_simplest(["worse", "best"], [predictions(worse), predictions(BEST)])[0] == 1


def test_of_identical_candidates_the_first_is_chosen():
    same = [predictions(BEST), predictions(BEST), predictions(BEST)]
    chosen, evidence = pick_simplest(["a", "b", "c"], same)
    assert chosen == 0
    assert [each.behind for each in evidence] == [0, 0, 0]


def test_one_object_twice_is_a_tie():
    one = predictions(BEST)
    assert pick_simplest(["a", "b"], [one, one])[0] == 0


def test_a_single_decision_has_no_standard_error_and_the_best_is_chosen():
    assert pick_simplest(["a", "b"], [predictions([-0.9]), predictions([-0.3])])[0] == 1


def test_weights_say_which_is_best():
    even, odd = [-0.1, -0.9], [-0.9, -0.1]
    weight = [1.0, 9.0]
    _, evidence = pick_simplest(["even", "odd"], [predictions(even, weight), predictions(odd, weight)])
    assert [each.log_prob for each in evidence] == pytest.approx([-0.82, -0.18])
    assert evidence[0].behind == pytest.approx(0.64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Recording:
    """Predicts each decision with its number in the whole table, and keeps what was asked of it."""

    kind: ClassVar[str] = "recording"
    trained: Design
    asked: list[Design]

    def predict(self, design: Design, user: torch.Tensor | None = None) -> Predictions:
        self.asked.append(design)
        half = torch.full((design.n_decisions,), 0.5, dtype=torch.float64)
        return predictions_from(design, half, torch.full((design.n_rows,), 0.5, dtype=torch.float64))


@pytest.fixture(scope="module")
def design() -> Design:
    population = simulate(
        features="numeric", dim=2, n_users=6, comparisons_per_user=20, n_prompts=15, n_choices=3, kind="null", seed=3
    )
    return Design.of(population.comparisons, torch.from_numpy(population.features))


def record(design: Design, folds: Folds) -> tuple[list[Recording], Predictions]:
    fits = []

    def fit(rows: Design) -> Recording:
        fits.append(Recording(trained=rows, asked=[]))
        return fits[-1]

    return fits, cross_validate(design, fit, folds)


def test_every_decision_is_predicted_once_by_a_fit_that_never_saw_its_source(design):
    folds = folds_by_source(design, 4, seed=0)
    fits, found = record(design, folds)
    assert len(fits) == 4
    asked = [test for fit in fits for test in fit.asked]
    assert len(asked) == 4
    for fit, test in zip(fits, asked, strict=True):
        assert not np.isin(test.source.numpy(), fit.trained.source.numpy()).any()
        assert fit.trained.n_decisions + test.n_decisions == design.n_decisions
    order = torch.cat([torch.nonzero(folds.held(fold))[:, 0] for fold in range(4)])
    assert order.sort().values.tolist() == list(range(design.n_decisions))
    assert found.user.tolist() == design.user[order].tolist()
    assert found.source.tolist() == design.source[order].tolist()


def test_candidates_share_all_but_their_probabilities(design):
    @dataclass(frozen=True, eq=False, kw_only=True)
    class Constant:
        kind: ClassVar[str] = "constant"
        chosen: float

        def predict(self, design: Design, user: torch.Tensor | None = None) -> Predictions:
            chosen = torch.full((design.n_decisions,), self.chosen, dtype=torch.float64)
            return predictions_from(design, chosen, torch.zeros(design.n_rows, dtype=torch.float64))

    folds = folds_by_source(design, 4, seed=0)
    first, second = cross_validate_all(design, lambda _: [Constant(chosen=0.2), Constant(chosen=0.7)], folds)
    assert first.chosen.tolist() == [0.2] * design.n_decisions
    assert second.chosen.tolist() == [0.7] * design.n_decisions
    for column in ("outcome", "user", "source", "weight"):
        assert getattr(first, column) is getattr(second, column)


def test_a_fold_that_holds_nothing_out_fits_nothing(design):
    held = torch.zeros(design.n_decisions, dtype=torch.int64)
    folds = Folds(group=torch.zeros_like(held), trains=torch.tensor([[0.0, 1.0]], dtype=torch.float64), held_in=held)
    fits, found = record(design, folds)
    assert len(fits) == 1
    assert len(found) == design.n_decisions
