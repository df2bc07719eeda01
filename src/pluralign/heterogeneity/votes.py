"""Who answered which question how: decisions grouped by the set of items they are among.

A *task* is a set of items shown together, in whatever order: a pair, or the k items of a choice. Two decisions on one
task, by one user or by two, can agree or not, and that is all that is needed to tell taste from chance without a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.comparisons.table import index_pairs
from pluralign.evaluation.groups import sum_by
from pluralign.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Votes:
    """Decided decisions and their tasks.

    Attributes:
        user: User of every decision, (decisions,).
        task: Task of every decision, 0, 1, 2, ... without gaps, (decisions,).
        answer: Which of the task's items was chosen, by its rank among them, (decisions,).
        n_items: Number of items of every task, (tasks,).
        source: Source of every task (of the first decision on it), (tasks,).
    """

    user: IntArray
    task: IntArray
    answer: IntArray
    n_items: IntArray
    source: IntArray

    def __len__(self) -> int:
        return len(self.user)

    @property
    def n_tasks(self) -> int:
        return len(self.n_items)

    def take(self, keep: np.ndarray) -> Votes:
        """The decisions marked in a mask; tasks are numbered anew."""
        used, task = np.unique(self.task[keep], return_inverse=True)
        return Votes(
            user=self.user[keep],
            task=task.astype(np.int32),
            answer=self.answer[keep],
            n_items=self.n_items[used],
            source=self.source[used],
        )

    @classmethod
    def of(cls, comparisons: Comparisons) -> Votes:
        """Read the decisions of a table.

        Ties, decisions of weight 0 and comparisons of an item with itself are left out; a soft label above or below
        0.5 counts as the decision it leans to. Other weights are not used.
        """
        first, decision = comparisons.first_row, comparisons.decision
        size = np.bincount(decision, minlength=len(first)) + 1
        chosen, rejected = comparisons.chosen[first], comparisons.rejected[first]
        counts = np.bincount(decision, comparisons.chosen == comparisons.rejected, minlength=len(first)) == 0
        picked = chosen
        if comparisons.outcome is not None:
            outcome = comparisons.outcome[first]
            picked = np.where(outcome < 0.5, rejected, chosen)
            counts &= outcome != 0.5
        if comparisons.weight is not None:
            counts &= comparisons.weight[first] > 0
        task: np.ndarray
        answer: np.ndarray
        if len(first) == len(decision):
            task, answer = index_pairs(chosen, rejected), picked > np.minimum(chosen, rejected)
        else:
            shown = np.full((len(first), int(size.max())), -1, dtype=np.int32)
            shown[:, 0] = chosen
            shown[decision, 1 + np.arange(len(decision)) - first[decision]] = comparisons.rejected
            shown.sort(axis=1)
            task = np.unique(shown, axis=0, return_inverse=True)[1].reshape(-1)
            answer = (shown == picked[:, None]).argmax(axis=1)
        _, at, task = np.unique(task[counts], return_index=True, return_inverse=True)
        return cls(
            user=comparisons.user[first][counts],
            task=task.astype(np.int32),
            answer=answer[counts].astype(np.int32),
            n_items=size[counts][at].astype(np.int32),
            source=comparisons.source[first][counts][at],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Cells:
    """The decisions of one user on one task, counted.

    Attributes:
        user: User of every cell, (cells,).
        task: Task of every cell, (cells,).
        n: Decisions of every cell, (cells,).
        cell: Cell of every answer given, (answers,).
        answer: The answer, (answers,).
        count: How often the cell's user gave it, at least 1, (answers,).
    """

    user: IntArray
    task: IntArray
    n: FloatArray
    cell: IntArray
    answer: IntArray
    count: FloatArray

    @classmethod
    def of(cls, votes: Votes) -> Cells:
        """Count the answers of every user to every task."""
        width = max(votes.n_tasks, 1)
        key, cell = np.unique(votes.user.astype(np.int64) * width + votes.task, return_inverse=True)
        most = int(votes.answer.max(initial=0)) + 1
        given, count = np.unique(cell * most + votes.answer, return_counts=True)
        return cls(
            user=(key // width).astype(np.int32),
            task=(key % width).astype(np.int32),
            n=np.bincount(cell, minlength=len(key)).astype(np.float64),
            cell=(given // most).astype(np.int32),
            answer=(given % most).astype(np.int32),
            count=count.astype(np.float64),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Voices:
    """The users of every task, each with the shares of their own answers.

    Attributes:
        share: Share of its cell's decisions that an answer has, (answers,), in the order of `Cells.answer`.
        users: Users of every task, (tasks,).
        agreed: Sum over ordered pairs of different users of the probability that an answer of one is the other's,
            (tasks,).
        with_others: The part of that sum with a cell's user as the first of the pair, (cells,).
    """

    share: FloatArray
    users: FloatArray
    agreed: FloatArray
    with_others: FloatArray

    @classmethod
    def of(cls, cells: Cells, n_tasks: int) -> Voices:
        """Count, without a pass over pairs of users."""
        width = int(cells.answer.max(initial=0)) + 1
        share = cells.count / cells.n[cells.cell]
        key, slot = np.unique(cells.task[cells.cell].astype(np.int64) * width + cells.answer, return_inverse=True)
        everybody = sum_by(slot, share, len(key))
        with_others = sum_by(cells.cell, share * (everybody[slot] - share), len(cells.n))
        return cls(
            share=share,
            users=sum_by(cells.task, np.ones(len(cells.n)), n_tasks),
            agreed=sum_by(cells.task, with_others, n_tasks),
            with_others=with_others,
        )
