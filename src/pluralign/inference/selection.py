"""Choose among fits by cross-validation, leaning to the simple one.

Candidates come in order from simple to rich. Each is fitted on the training part of every fold and predicts what the fold
holds out, each user with the model that the training part gives it. The choice is the simplest candidate within one
standard error of the best (Breiman et al. 1984), the standard error being that of the paired difference to the best,
clustered by user: candidates share their rows, so it is the difference that is uncertain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pluralign.evaluation import Predictions, paired_difference
from pluralign.features import Design
from pluralign.inference.folds import Folds
from pluralign.users import UserModel


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
    """Predict every held-out decision from a fit to the rest, folds joined in order.

    Args:
        design: Training rows of a study.
        fit: A rung with its settings.
        folds: What each fold trains on and holds out.
    """
    held = [
        fit(design.take(folds.training(fold))).predict(design.take(folds.held(fold)))
        for fold in range(len(folds))
        if bool(folds.held(fold).any())
    ]
    return Predictions(
        **{
            name: np.concatenate([getattr(part, name) for part in held])
            for name in ("chosen", "best_other", "outcome", "user", "source", "weight")
        }
    )


def pick_simplest(names: Sequence[str], predictions: Sequence[Predictions]) -> tuple[int, tuple[Candidate, ...]]:
    """Return the position of the simplest candidate within one standard error of the best, and everybody's evidence.

    Args:
        names: From simple to rich.
        predictions: Held-out predictions of the same decisions, as `cross_validate` returns them.
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
    chosen = next(i for i, each in enumerate(evidence) if each.behind <= each.standard_error)
    return chosen, tuple(evidence)
