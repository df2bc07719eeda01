"""Query-efficiency curves of a study: unseen users asked question by question, on the study's own held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pluralign.errors import DataError
from pluralign.evaluation import Predictions, combine_seeds
from pluralign.features import Design
from pluralign.queries.curves import QueryCurve, feasible_questions, query_curve
from pluralign.studies.kept import SeedResult
from pluralign.studies.ladder import Rung
from pluralign.studies.settings import StudySettings


def check_askable(design: Design, settings: StudySettings) -> None:
    """Check that a curve that was asked for can be drawn, before anything is fitted.

    Raises:
        DataError: Some decisions are among more than two items.
    """
    if settings.query_rungs and not design.decisions.pairwise:
        raise DataError(
            "query_rungs asks for curves of pairs, and some decisions are among more than two items",
            hint="leave query_rungs out, or explode the choices into pairs",
        )


def ask_unseen(
    rungs: Mapping[str, Rung], design: Design, n_pool: int, settings: StudySettings, seed: int
) -> dict[str, Predictions]:
    """Ask unseen users from their own decisions by every method, and predict theirs on test sources.

    Args:
        rungs: Fitted to other users.
        design: Decisions of unseen users: those that may be asked, then those to test on.
        n_pool: How many are of the first kind.
        settings: Which rungs, and the number of questions at most.
        seed: Of asking at random.

    Returns:
        "basis/random/3": predictions of `basis` after three questions at random; empty where nobody can be asked.
    """
    pool = torch.arange(design.n_decisions, device=design.user.device) < n_pool
    n = feasible_questions(design, pool, ~pool, settings.questions) if settings.query_rungs else 0
    if not n:
        return {}
    found: dict[str, Predictions] = {}
    for name in settings.query_rungs:
        curve = query_curve(rungs[name].model, design, pool, ~pool, n_questions=n, seed=seed)
        found |= {
            f"{name}/{method}/{i}": each for method, row in curve.predictions.items() for i, each in enumerate(row)
        }
    return found


def query_curves(seeds: Sequence[SeedResult], settings: StudySettings) -> dict[str, QueryCurve]:
    """The curve of every rung over all splits, as far as all of them go; a user may be asked in several."""
    asked = [seed.asked for seed in seeds if seed.asked]
    shared = set.intersection(*map(set, asked)) if asked else set()
    found = {}
    for rung in settings.query_rungs:
        keys = [key.split("/") for key in shared if key.startswith(f"{rung}/")]
        if not keys:
            continue
        steps = range(max(int(n) for _, _, n in keys) + 1)
        predictions = {
            method: tuple(combine_seeds([each[f"{rung}/{method}/{n}"] for each in asked]) for n in steps)
            for method in sorted({method for _, method, _ in keys})
        }
        found[rung] = QueryCurve(
            predictions=predictions,
            users=np.unique(np.concatenate([each[f"{rung}/random/0"].user for each in asked])).astype(np.int32),
            left_out=np.empty(0, dtype=np.int32),
            level=settings.level,
        )
    return found
