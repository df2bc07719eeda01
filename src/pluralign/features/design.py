"""The design of a linear fit: a feature matrix over items, and the rows that compare them.

A reward is theta . phi(item), so the margin of a row is s[chosen] - s[rejected] with s = X theta: every item is scored
once per head and the difference of features is not formed. The gradient goes the same way back: residuals of the rows
are added up by item and multiplied by X once. Only where the rows are far fewer than the items they touch (every pair
about two fresh texts, say) is it cheaper to form the differences once, and `compact` does.
"""

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from pluralign.comparisons import Comparisons
from pluralign.likelihoods import Decisions

_FEW_DIM = 64  # below it two plain gathers are quicker
_PIECE = 2**19  # numbers gathered at a time into memory that was given: 2 MiB of float32


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
    def of(cls, comparisons: Comparisons, features: Float[Tensor, "items dim"]) -> "Design":
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

    @property
    def n_counted_users(self) -> int:
        """Users with a decision of positive weight: there are no more clusters than these."""
        return len(self.user[self.weight > 0].unique())

    def margins(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "rows heads"]:
        """Margin of every row under every head."""
        score = self.features @ theta.T
        # index_select, not score[...]: three times faster on rows of more than a few numbers.
        return score.index_select(0, self.chosen).sub_(score.index_select(0, self.rejected))

    def pull(self, slope: Float[Tensor, "rows heads"]) -> Float[Tensor, "heads dim"]:
        """Gradient of the heads from the slopes of the rows: sum_rows slope (phi(chosen) - phi(rejected))."""
        per_item = self._rows_of_item @ slope  # ten times faster than index_add_ at few heads
        return per_item.T @ self.features  # this orientation, not X' P: ten times faster at few heads

    def differences(
        self, rows: Int[Tensor, " some"], out: Float[Tensor, "some dim"] | None = None
    ) -> Float[Tensor, "some dim"]:
        """Feature differences of some rows; form them in blocks.

        A caller that forms block after block gives its memory as `out`: clearing new pages takes as long as the work.
        """
        if out is not None:
            size = max(1, _PIECE // max(1, self.dim))
            for into, some in zip(out.split(size), rows.split(size), strict=True):
                into.copy_(self.differences(some))
            return out
        if self.dim < _FEW_DIM or self.features.dtype not in (torch.float32, torch.float64):
            chosen, rejected = self.chosen[rows], self.rejected[rows]
            return self.features.index_select(0, chosen).sub_(self.features.index_select(0, rejected))
        # One read of either item and one write: two to eight times faster than subtracting two gathered matrices.
        pair = self._pairs.index_select(0, rows)
        sign = self.features.new_tensor([1.0, -1.0]).expand(len(pair), 2)
        return embedding_bag(pair, self.features, mode="sum", per_sample_weights=sign.contiguous())

    def of_heads(self, heads: Int[Tensor, " some"]) -> "Design":
        """What some of the heads see: everything, as all do."""
        del heads
        return self

    def with_features(self, features: Float[Tensor, "items width"]) -> "Design":
        """The same rows on other features of the same items (a projection, say)."""
        return replace(self, features=features)

    def take(self, keep: Bool[Tensor, " decisions"]) -> "Design":
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

    @property
    def double(self) -> "Design":
        """The same design in float64, for exact fits in few dimensions."""
        return self._widened or self

    @cached_property
    def _widened(self) -> "Design | None":
        """None where the design is as wide already: one that held itself would not go with its last user."""
        if self.features.dtype == torch.float64:
            return None
        decisions = replace(
            self.decisions, outcome=self.decisions.outcome.double(), position=self.decisions.position.double()
        )
        return replace(self, features=self.features.double(), weight=self.weight.double(), decisions=decisions)

    @property
    def compact(self) -> "Design":
        """The same rows on no more items than they need: itself, the items in use, or one item per row.

        It costs about two passes, made once, and at most the memory of `features` over 1.5.
        """
        return self._compacted or self

    @cached_property
    def _compacted(self) -> "Design | None":
        """None where the design itself will do."""
        used = torch.zeros(len(self.features), dtype=torch.bool, device=self.features.device)
        used[self.chosen] = True
        used[self.rejected] = True
        n_used = int(used.sum())
        if len(self.features) <= 1.5 * min(n_used, self.n_rows):
            return None
        if n_used <= 1.5 * self.n_rows:
            place = used.cumsum(0) - 1
            return replace(self, features=self.features[used], chosen=place[self.chosen], rejected=place[self.rejected])
        rows = torch.arange(self.n_rows, device=self.features.device)
        features = self.features.new_empty((self.n_rows, self.dim))
        for block in rows.split(1024):
            features[block[0] : block[-1] + 1] = self.differences(block)
        return Differences.of_rows(features, self.decisions, self.user, self.weight, self.source, self.n_users)

    @cached_property
    def gram(self) -> Float[Tensor, "dim dim"]:
        """`sampled_gram` of 4 dim + 4,096 rows, which every fit on the design shares as its preconditioner."""
        return self.sampled_gram(4 * self.dim + 4096)

    def sampled_gram(self, wanted: int) -> Float[Tensor, "dim dim"]:
        """Mean curvature of a decision at margins of zero, from a fixed sample of about so many rows.

        For pairs that is the mean of x x' / 4 over feature differences x; for a choice among k the covariance of the k
        items, each with probability 1 / k.
        """
        index, device = self.decisions.index, self.features.device
        rows = torch.arange(self.n_rows, device=device)
        if self.n_rows > wanted:
            drawn = torch.randperm(self.n_decisions, generator=torch.Generator().manual_seed(0))
            kept = torch.zeros(self.n_decisions, dtype=torch.bool, device=device)
            kept[drawn[: 1 + wanted * self.n_decisions // self.n_rows].to(device)] = True
            rows = rows[kept[index]]
        if not len(rows):
            return self.features.new_zeros((self.dim, self.dim))
        x, weight, index = self.differences(rows), self.weight[index[rows]], index[rows]
        if self.decisions.pairwise:
            return _squared(x.mul_((weight / 4 / weight.sum().clamp(min=1e-12)).sqrt()[:, None]))
        _, index, size = torch.unique_consecutive(index, return_inverse=True, return_counts=True)
        share = 1 / (size + 1).to(x.dtype)
        first = weight.new_zeros(len(size)).index_copy_(0, index, weight)
        mean = x.new_zeros((len(size), self.dim)).index_add_(0, index, x) * share[:, None]
        scale = first / first.sum().clamp(min=1e-12)
        return (x * (share * scale)[index][:, None]).T @ x - (mean * scale[:, None]).T @ mean

    @cached_property
    def _pairs(self) -> Int[Tensor, "rows 2"]:
        """Both items of every row side by side: found with one read, however far apart the rows asked for."""
        return torch.stack([self.chosen, self.rejected], dim=1)

    @cached_property
    def _rows_of_item(self) -> Tensor:
        """+1 where an item is a row's first and -1 where its second, sparse, (items, rows)."""
        item = torch.cat([self.chosen, self.rejected])
        order = torch.argsort(item, stable=True)
        count = torch.bincount(item, minlength=len(self.features))
        sign = torch.ones(2 * self.n_rows, dtype=self.features.dtype, device=item.device)
        sign[self.n_rows :] = -1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # "in beta state", once in every process
            return torch.sparse_csr_tensor(
                torch.cat([count.new_zeros(1), count.cumsum(0)]),
                order % max(self.n_rows, 1),
                sign[order],
                size=(len(self.features), self.n_rows),
                check_invariants=False,
            )


class Differences(Design):
    """A design whose features are those of its rows, chosen minus rejected, formed once; it has no items to score."""

    @classmethod
    def of_rows(
        cls,
        features: Float[Tensor, "rows dim"],
        decisions: Decisions,
        user: Int[Tensor, " decisions"],
        weight: Float[Tensor, " decisions"],
        source: Int[Tensor, " decisions"],
        n_users: int,
    ) -> "Differences":
        """Build from feature differences, one for each row."""
        rows = torch.arange(len(features), device=features.device)
        return cls(
            features=features,
            chosen=rows,
            rejected=rows,
            decisions=decisions,
            user=user,
            weight=weight,
            source=source,
            n_users=n_users,
        )

    def margins(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "rows heads"]:
        return self.features @ theta.T

    def pull(self, slope: Float[Tensor, "rows heads"]) -> Float[Tensor, "heads dim"]:
        return slope.T @ self.features

    def differences(
        self, rows: Int[Tensor, " some"], out: Float[Tensor, "some dim"] | None = None
    ) -> Float[Tensor, "some dim"]:
        if out is not None:
            return torch.index_select(self.features, 0, rows, out=out)
        return self.features.index_select(0, rows)

    def take(self, keep: Bool[Tensor, " decisions"]) -> "Differences":
        part = super().take(keep)
        features = self.features[keep[self.decisions.index]]
        return self.of_rows(features, part.decisions, part.user, part.weight, part.source, part.n_users)


def _squared(x: Float[Tensor, "rows dim"]) -> Float[Tensor, "dim dim"]:
    """x' x, in panels, of which those below the diagonal are copied."""
    dim = x.shape[1]
    total = x.new_empty((dim, dim))
    width = max(128, -(-dim // 4))
    for start in range(0, dim, width):
        stop = min(start + width, dim)
        total[:stop, start:stop] = x[:, :stop].T @ x[:, start:stop]
        total[start:stop, :start] = total[:start, start:stop].T
    return total
