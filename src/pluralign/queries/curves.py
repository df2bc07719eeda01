"""What a method of asking buys: accuracy on a user's other decisions against the number of questions asked.

Users whom the model has not met are asked from a pool of their own decisions, so that every answer is at hand, and are
predicted on decisions that are in nobody's pool. All methods see the same users, pools and test decisions, and a
difference between two of them is paired by user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from pluralign.comparisons.table import index_items, index_pairs
from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Interval, Predictions, mean_interval, paired_difference
from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.queries.believing import believe
from pluralign.queries.scores import SCORES, check_method
from pluralign.types import IntArray
from pluralign.users import Clusters, UserModel

METRIC = "accuracy"


@dataclass(frozen=True, eq=False, kw_only=True)
class QueryCurve:
    """Predictions of the same decisions after 0, 1, 2, ... questions, by method.

    Attributes:
        predictions: For each method, one entry after every number of questions, 0 first.
        users: Who was asked, (users,).
        left_out: Users with too small a pool, or with nothing to test, (left out,).
        level: Of the intervals.
    """

    predictions: Mapping[str, tuple[Predictions, ...]]
    users: IntArray
    left_out: IntArray
    level: float = 0.95

    @property
    def n_questions(self) -> int:
        """Questions asked of everybody."""
        return len(next(iter(self.predictions.values()))) - 1

    def score(self, method: str, n: int, metric: str = METRIC) -> Interval:
        """A method's mean score after n questions."""
        return mean_interval(self.predictions[method][n], metric, level=self.level)

    def gain(self, method: str, n: int, other: str = "random", m: int | None = None, metric: str = METRIC) -> Interval:
        """A method after n questions less another after m (None: the same number), paired by user."""
        asked, against = self.predictions[method][n], self.predictions[other][n if m is None else m]
        return paired_difference(asked, against, metric, level=self.level)

    def needed(self, method: str, other: str, m: int, metric: str = METRIC) -> int | None:
        """The fewest questions after which a method scores at least what another does after m; None: never."""
        target = self.score(other, m, metric).estimate
        found = (n for n in range(self.n_questions + 1) if self.score(method, n, metric).estimate >= target)
        return next(found, None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values: accuracy, log-probability, and the gain in accuracy over `random` if it is there."""
        steps = range(self.n_questions + 1)
        found: dict[str, Any] = {"n_users": len(self.users), "n_left_out": len(self.left_out), "methods": {}}
        for method in self.predictions:
            row = {each: [self.score(method, n, each).as_dict() for n in steps] for each in ("accuracy", "log_prob")}
            if method != "random" and "random" in self.predictions:
                row["gain_over_random"] = [self.gain(method, n).as_dict() for n in steps]
            found["methods"][method] = row
        return found


def query_curve(
    model: UserModel,
    design: Design,
    pool: Bool[Tensor, " decisions"],
    test: Bool[Tensor, " decisions"],
    *,
    methods: Sequence[str] = ("random", "uncertainty", "d_optimal", "information_gain"),
    n_questions: int = 16,
    seed: int = 0,
) -> QueryCurve:
    """Ask every user, question by question, by each method.

    Args:
        model: A fitted rung that has not met these users.
        design: Their decisions, pairs on the features that the model was fitted on.
        pool: Decisions that may be asked; their outcomes are the answers.
        test: Decisions to be predicted; none of them in the pool.
        methods: Some of `METHODS`.
        n_questions: Questions to each user. Users with fewer distinct pairs in their pool are left out.
        seed: Of `random`.

    Raises:
        ConfigError: An unknown method, or decisions that are in the pool and the test part.
        DataError: Decisions among more than two items, or no user has enough pairs.
    """
    for method in methods:
        check_method(method)
    if bool((pool & test).any()):
        raise ConfigError(
            "some decisions are in the pool and the test part", hint="keep them apart, by source if you can"
        )
    if not design.decisions.pairwise:
        raise DataError("some decisions are among more than two items", hint="explode the choices into pairs")
    if isinstance(model, Clusters):
        model = replace(model, soft=True)
    user = design.user.numpy(force=True)
    own_pair, distinct = _pairs_of_users(design, pool)
    asked, tested = pool.numpy(force=True), test.numpy(force=True)
    enough = (distinct >= n_questions) & (np.bincount(user[tested], minlength=design.n_users) > 0)
    if not enough.any():
        raise DataError(
            f"no user has {n_questions} pairs to be asked and one to be tested on; the largest pool has "
            f"{distinct.max(initial=0)}",
            hint="ask fewer questions: n_questions",
        )
    rows = np.flatnonzero(asked & enough[user])
    held_out = design.take(torch.from_numpy(tested & enough[user]).to(pool.device))
    candidates = design.take(torch.from_numpy(np.isin(np.arange(len(user)), rows)).to(pool.device))
    found = {
        method: _ask(model, design, rows, candidates, held_out, own_pair[rows], method, n_questions, seed)
        for method in methods
    }
    everyone = np.arange(design.n_users, dtype=np.int32)
    present = np.bincount(user, minlength=design.n_users) > 0
    return QueryCurve(predictions=found, users=everyone[enough], left_out=everyone[present & ~enough])


def feasible_questions(
    design: Design, pool: Bool[Tensor, " decisions"], test: Bool[Tensor, " decisions"], most: int
) -> int:
    """The most questions, up to `most`, that half of the users who can be tested can be asked; 0 where there is none.

    Args:
        design: As of `query_curve`.
        pool: As there.
        test: As there.
        most: Questions at most.
    """
    tested = np.unique(design.user[test].numpy(force=True))
    distinct = np.sort(_pairs_of_users(design, pool)[1][tested])
    return min(most, int(distinct[len(distinct) // 2])) if len(distinct) else 0


def _pairs_of_users(design: Design, pool: Bool[Tensor, " decisions"]) -> tuple[np.ndarray, np.ndarray]:
    """A number for each decision that its user's decisions on the same pair share, and distinct pairs in each pool."""
    user, asked = design.user.numpy(force=True), pool.numpy(force=True)
    pair = index_pairs(*(index.numpy(force=True).astype(np.int32) for index in (design.chosen, design.rejected)))
    own_pair = index_items(user.astype(np.int32), pair)[0]
    first = np.unique(own_pair[asked], return_index=True)[1]
    return own_pair, np.bincount(user[asked][first], minlength=design.n_users)


def _ask(
    model: UserModel,
    design: Design,
    rows: np.ndarray,
    candidates: Design,
    held_out: Design,
    pair: np.ndarray,
    method: str,
    n_questions: int,
    seed: int,
) -> tuple[Predictions, ...]:
    """Predictions after 0, 1, ..., n questions, everybody's next question being chosen at once."""
    user = candidates.user.numpy(force=True)
    left, known = np.ones(len(rows), dtype=np.bool_), np.zeros(design.n_decisions, dtype=np.bool_)
    chance = np.random.default_rng(seed).random(len(rows))
    found = []
    for n in range(n_questions + 1):
        placed = adapt(model, design.take(torch.from_numpy(known).to(design.user.device)))
        found.append(placed.predict(held_out))
        if n == n_questions:
            break
        if method == "random":
            score = chance
        else:
            score = SCORES[method](believe(placed, candidates, candidates.user)).numpy(force=True)
        open = np.flatnonzero(left)
        order = open[np.lexsort((open, -np.round(score[open], 12), user[open]))]
        best = order[np.unique(user[order], return_index=True)[1]]
        known[rows[best]] = True
        left &= ~np.isin(pair, pair[best])
    return tuple(found)
