"""The design of a linear fit: a feature matrix over items, and the rows that compare them.

A reward is theta . phi(item), so the margin of a row is s[chosen] - s[rejected] with s = X theta: every item is scored
once per head and the difference of features is never stored. The gradient goes the same way back: residuals of the rows
are added up by item and multiplied by X once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pluralign.comparisons import Comparisons
from pluralign.likelihoods import Decisions


@dataclass(frozen=True, eq=False, kw_only=True)
class Design:
    """Item features and the rows that compare them, as tensors on one device.

    Attributes:
        features: One row per item, (items, dim).
        chosen: Item index of the first item of every row, (rows,).
        rejected: Item index of the second, (rows,).
        decisions: How rows group into decisions, and their outcomes.
        user: User of every decision, (decisions,).
        weight: Weight of every decision, (decisions,).
        source: Source of every decision, (decisions,).
        n_users: Number of users, whether or not they appear.
    """

    features: Float[Tensor, "items dim"]
    chosen: Int[Tensor, " rows"]
    rejected: Int[Tensor, " rows"]
    decisions: Decisions
    user: Int[Tensor, " decisions"]
    weight: Float[Tensor, " decisions"]
    source: Int[Tensor, " decisions"]
    n_users: int

    @classmethod
    def of(cls, comparisons: Comparisons, features: Float[Tensor, "items dim"]) -> Design:
        """Join a table and the feature matrix of its items (the same for every subset of the rows)."""
        dtype, device = features.dtype, features.device
        first = comparisons.first_row

        def index(column: np.ndarray) -> Tensor:
            return torch.as_tensor(column, dtype=torch.int64, device=device)

        def values(column: np.ndarray | None, default: float, rows: np.ndarray | slice) -> Tensor:
            if column is None:
                return torch.full((len(comparisons.chosen[rows]),), default, dtype=dtype, device=device)
            return torch.as_tensor(column[rows], dtype=dtype, device=device)

        return cls(
            features=features,
            chosen=index(comparisons.chosen),
            rejected=index(comparisons.rejected),
            decisions=Decisions(
                index=index(comparisons.decision),
                outcome=values(comparisons.outcome, 1.0, slice(None)),
                position=values(comparisons.position, 0.0, slice(None)),
            ),
            user=index(comparisons.user[first]),
            weight=values(comparisons.weight, 1.0, first),
            source=index(comparisons.source[first]),
            n_users=comparisons.n_users,
        )

    @property
    def dim(self) -> int:
        return self.features.shape[1]

    @property
    def n_rows(self) -> int:
        return self.chosen.numel()

    @property
    def n_decisions(self) -> int:
        return self.decisions.count

    def margins(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "rows heads"]:
        """Margin of every row under every head."""
        score = self.features @ theta.T
        return score[self.chosen] - score[self.rejected]

    def pull(self, slope: Float[Tensor, "rows heads"]) -> Float[Tensor, "heads dim"]:
        """Gradient of the heads from the slopes of the rows: sum_rows slope (phi(chosen) - phi(rejected))."""
        per_item = slope.new_zeros((self.features.shape[0], slope.shape[1]))
        per_item.index_add_(0, self.chosen, slope).index_add_(0, self.rejected, slope, alpha=-1)
        return per_item.T @ self.features  # this orientation, not X' P: ten times faster at few heads

    def differences(self, rows: Int[Tensor, " some"]) -> Float[Tensor, "some dim"]:
        """Feature differences of some rows; form them in blocks."""
        return self.features[self.chosen[rows]] - self.features[self.rejected[rows]]

    def with_features(self, features: Float[Tensor, "items width"]) -> Design:
        """The same rows on other features of the same items (a projection, say)."""
        return replace(self, features=features)

    def take(self, keep: Bool[Tensor, " decisions"]) -> Design:
        """The decisions marked in a mask; items and users keep their numbers."""
        rows = keep[self.decisions.index]
        number = keep.cumsum(0) - 1
        return replace(
            self,
            chosen=self.chosen[rows],
            rejected=self.rejected[rows],
            decisions=Decisions(
                index=number[self.decisions.index[rows]],
                outcome=self.decisions.outcome[rows],
                position=self.decisions.position[rows],
            ),
            user=self.user[keep],
            weight=self.weight[keep],
            source=self.source[keep],
        )
