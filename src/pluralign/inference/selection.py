"""Choose among fits by cross-validation, leaning to the simple one.

Candidates come in order from simple to rich. Each is fitted on the training part of every fold and predicts what the
fold holds out, each user with the model that the training part gives it. The choice is the simplest candidate within
one standard error of the best (Breiman et al. 1984), the standard error being that of the paired difference to the
best, clustered by user: candidates share their rows, so it is the difference that is uncertain. Where two candidates
are nearly one model the error is nearly 0, so a loss below 0.001 nats per decision is none.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from pluralign.evaluation import Predictions, paired_difference
from pluralign.features import Design
from pluralign.inference.folds import Folds
from pluralign.users import UserModel

NEGLIGIBLE = 1e-3  # nats per decision


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One candidate's evidence.

    Attributes:
        name: What it is.
        log_prob: Held-out log-probability, nats per decision.
        behind: How much less that is than the best candidate's, nats per decision, at least 0.
        standard_error: Of `behind`, clustered by user; 0 for the best.
    """

    name: str
    log_prob: float
    behind: float
    standard_error: float


def cross_validate(design: Design, fit: Callable[[Design], UserModel], folds: Folds) -> Predictions:
    """Predict every held-out decision from a fit to the rest; see `cross_validate_all`."""
    return cross_validate_all(design, lambda rows: [fit(rows)], folds)[0]


def cross_validate_all(design: Design, fit: Callable[[Design], Iterable[UserModel]], folds: Folds) -> list[Predictions]:
    """Predict every held-out decision by several models whose fits share work.

    Args:
        design: Training rows of a study.
        fit: The candidates fitted to some rows, one after the other, as many for every fold.
        folds: What each fold trains on and holds out.

    Returns:
        Predictions of each candidate, the folds' decisions one after the other.
    """
    held = [fold for fold in range(len(folds)) if bool(folds.held(fold).any())]
    parts = []
    for fold in held:
        test = design.take(folds.held(fold))
        parts.append(_of_one_test(model.predict(test) for model in fit(design.take(folds.training(fold)))))
    return _of_one_test(_join(candidate) for candidate in zip(*parts, strict=True))


def _join(parts: Sequence[Predictions]) -> Predictions:
    columns = {each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Predictions)}
    return Predictions(**columns)


def _of_one_test(candidates: Iterable[Predictions]) -> list[Predictions]:
    """Candidates that predict the same decisions; what is not their prediction is kept once."""
    found: list[Predictions] = []
    for each in candidates:
        one = found[0] if found else each
        found.append(replace(each, outcome=one.outcome, user=one.user, source=one.source, weight=one.weight))
    return found


def pick_simplest(names: Sequence[str], predictions: Sequence[Predictions]) -> tuple[int, tuple[Candidate, ...]]:
    """Return the position of the simplest candidate within one standard error (or `NEGLIGIBLE`) of the best.

    Args:
        names: From simple to rich.
        predictions: Held-out predictions of the same decisions, as `cross_validate` returns them.

    Returns:
        The position, and everybody's evidence.
    """
    mean = [float(np.average(each.log_prob, weights=each.weight)) for each in predictions]
    best = int(np.argmax(mean))
    evidence = []
    for name, value, each in zip(names, mean, predictions, strict=True):
        gap = paired_difference(predictions[best], each, "log_prob") if each is not predictions[best] else None
        evidence.append(
            Candidate(
                name=name,
                log_prob=value,
                behind=gap.estimate if gap else 0.0,
                standard_error=gap.standard_error if gap else 0.0,
            )
        )
    chosen = next(i for i, each in enumerate(evidence) if each.behind <= max(each.standard_error, NEGLIGIBLE))
    return chosen, tuple(evidence)
