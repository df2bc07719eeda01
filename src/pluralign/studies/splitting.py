"""Which decisions a study trains on, tests on, and keeps for users it has never seen."""

from __future__ import annotations

import numpy as np
import torch

from pluralign.comparisons import Comparisons, StudySplit, split_by_item, split_last, study_split
from pluralign.comparisons.splits import pick_users
from pluralign.errors import DataError
from pluralign.features import Design
from pluralign.inference.folds import Folds, folds_by_item, folds_by_source
from pluralign.studies.settings import StudySettings

LEAST_USERS = 10  # with fewer users than this, none are kept apart: a handful of new users says nothing


def split_study(comparisons: Comparisons, settings: StudySettings, seed: int) -> StudySplit:
    """Split rows as the settings ask, by source, by item or by time, and by user.

    Raises:
        DataError: A side would be empty, or nothing was preferred.
    """
    check_preferred(comparisons)
    unseen = settings.unseen if len(np.unique(comparisons.user)) >= LEAST_USERS else 0.0
    if settings.split == "source":
        return study_split(comparisons, seed=seed, test=settings.test, unseen=unseen)
    if settings.split == "item":
        split = split_by_item(comparisons, settings.test, seed=seed)
    else:
        split = split_last(comparisons, settings.test)
    users = pick_users(comparisons, unseen, np.random.default_rng(seed)) if unseen else np.empty(0, dtype=np.int32)
    new = np.isin(comparisons.user, users)
    both = StudySplit(
        train=split.train[~new[split.train]],
        test=split.test[~new[split.test]],
        unseen_adapt=split.train[new[split.train]],
        unseen_test=split.test[new[split.test]],
        unseen_users=users,
    )
    if not len(both.train) or not len(both.test):
        raise DataError(
            f"the seen users have {len(both.train)} rows to train on and {len(both.test)} to test on",
            hint="choose smaller shares or another seed",
        )
    return both


def check_preferred(comparisons: Comparisons) -> None:
    """Refuse a table of nothing but ties.

    Raises:
        DataError: Every outcome is 0.5.
    """
    if comparisons.outcome is not None and (comparisons.outcome == 0.5).all():
        raise DataError(
            f"all {len(comparisons)} rows are ties (outcome 0.5): nothing was preferred to anything",
            hint="outcome is 1 where chosen was preferred; name another column with --column outcome=NAME",
        )


def make_folds(design: Design, settings: StudySettings, seed: int) -> Folds:
    """Folds of the training rows that hold out what the study's test holds out.

    Raises:
        DataError: Too few sources or items to divide.
    """
    if settings.split == "item":
        n_items = len(torch.cat([design.chosen, design.rejected]).unique())
        if n_items < 4:
            raise DataError(f"the training rows compare {n_items} items; two folds of items need at least 4")
        return folds_by_item(design, min(settings.folds, max(n_items // 4, 2)), seed)
    n_sources = len(design.source.unique())
    if n_sources < 2:
        raise DataError(
            "the training rows come from one source; to choose anything among them takes at least two",
            hint="name a finer source column",
        )
    return folds_by_source(design, min(settings.folds, n_sources), seed)
