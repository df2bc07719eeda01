"""What was decided, as a likelihood sees it: rows of margins grouped into decisions."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Block(NamedTuple):
    """A run of whole decisions: which rows, which decisions, and the decisions themselves, numbered from 0."""

    rows: slice
    decisions: slice
    within: "Decisions"


@dataclass(frozen=True, eq=False, kw_only=True)
class Decisions:
    """Which rows of margins belong to one decision, and how it went.

    Attributes:
        index: Decision of every row, 0, 1, 2, ... without gaps and non-decreasing, (rows,).
        outcome: 1 where the first item of the row was preferred, 0.5 a tie, soft labels between, (rows,).
        position: 1 where the first item was shown first, -1 second, 0 unknown, (rows,).
    """

    index: Int[Tensor, " rows"]
    outcome: Float[Tensor, " rows"]
    position: Float[Tensor, " rows"]

    @cached_property
    def count(self) -> int:
        """Number of decisions."""
        return int(self.index[-1]) + 1 if self.index.numel() else 0

    @cached_property
    def pairwise(self) -> bool:
        """Whether every decision is one row."""
        return self.count == self.index.numel()

    @cached_property
    def sure(self) -> bool:
        """Whether the first item of every row was preferred: no ties, no soft labels."""
        return bool((self.outcome == 1).all())

    @cached_property
    def n_items(self) -> Int[Tensor, " decisions"]:
        """Number of items each decision is among."""
        return torch.bincount(self.index, minlength=self.count) + 1

    def take(self, rows: slice, decisions: slice) -> "Decisions":
        """A run of whole decisions and its rows, numbered from 0."""
        return Decisions(
            index=self.index[rows] - decisions.start, outcome=self.outcome[rows], position=self.position[rows]
        )

    def blocks(self, n_rows: int) -> list[Block]:
        """Cut into runs of whole decisions of about `n_rows` rows each (at least one decision)."""
        total = self.index.numel()
        if total <= n_rows:
            return [Block(slice(0, total), slice(0, self.count), self)] if total else []
        step = max(1, n_rows * self.count // total)
        cut = torch.arange(0, self.count + step, step, device=self.index.device).clamp(max=self.count)
        row = torch.searchsorted(self.index, cut).tolist()
        found = []
        for (start, stop), (first, last) in zip(pairwise(cut.tolist()), pairwise(row), strict=True):
            if stop > start:
                rows, decisions = slice(first, last), slice(start, stop)
                found.append(Block(rows, decisions, self.take(rows, decisions)))
        return found

    def sum(self, rows: Float[Tensor, "rows ..."]) -> Float[Tensor, "decisions ..."]:
        """Sum the rows of each decision."""
        if self.pairwise:
            return rows
        return rows.new_zeros((self.count, *rows.shape[1:])).index_add_(0, self.index, rows)


@runtime_checkable
class Likelihood(Protocol):
    """P(decision | margins), a margin being the first item's reward minus the second's.

    Every method takes margins of any number of heads at once, (rows, heads).
    """

    def log_prob(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "decisions heads"]:
        """Log-probability of what was decided, in nats."""

    def slope(self, margin: Float[Tensor, "rows heads"], decisions: Decisions) -> Float[Tensor, "rows heads"]:
        """Derivative of the decision's log-probability with respect to each of its margins."""

    def curvature(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "rows heads"], Float[Tensor, "rows heads"] | None]:
        """Weights (a, b) of the negative Hessian: sum_rows a x x' - sum_decisions (sum b x)(sum b x)'; x is the row's
        feature difference. b is None where decisions are pairs."""

    def choice_probabilities(
        self, margin: Float[Tensor, "rows heads"], decisions: Decisions
    ) -> tuple[Float[Tensor, "decisions heads"], Float[Tensor, "rows heads"]]:
        """Probability of the first item of each decision, and of the second item of each row, being preferred."""
