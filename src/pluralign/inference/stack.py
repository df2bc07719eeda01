"""The stacked problem that both solvers of `fit_heads` work on: its margins, slopes and values, block by block.

A head is a column. Nothing of size (rows, heads) is formed except the margins, the margins of a direction and the
slopes; weights and everything in between live for a block of about 2^18 numbers, which stays in cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.features import Design
from pluralign.likelihoods import Block, Likelihood

_BLOCK = 2**18  # numbers in a (rows, heads) block: 1 MiB of float32


@dataclass(frozen=True, eq=False, kw_only=True)
class Stack:
    """Heads to be fitted on one design; the symbols are those of `inference.heads`."""

    design: Design
    likelihood: Likelihood
    ridge: Float[Tensor, " heads"]
    center: Float[Tensor, "heads dim"]
    group: Int[Tensor, " decisions"]
    group_weight: Float[Tensor, "groups heads"] | None
    scale: Float[Tensor, " rows"] | None = None
    offset: Float[Tensor, " rows"] | None = None

    @cached_property
    def blocks(self) -> list[Block]:
        return self.design.decisions.blocks(max(256, _BLOCK // max(1, self.ridge.numel())))

    @cached_property
    def total(self) -> Float[Tensor, " heads"]:
        """Sum of the weights of every head; above 0 even where a head has no row."""
        weight = self.design.weight
        if self.group_weight is None:
            total = weight.sum().expand(self.ridge.numel())
        else:
            per_group = weight.new_zeros(len(self.group_weight)).index_add_(0, self.group, weight)
            total = per_group @ self.group_weight
        return total.clamp(min=1e-12)

    @property
    def precision(self) -> Float[Tensor, " heads"]:
        """The ridge on the scale of the mean objective."""
        return self.ridge / self.total

    def take(self, heads: Tensor) -> "Stack":
        """The same problem for some of the heads."""
        group_weight = None if self.group_weight is None else self.group_weight[:, heads]
        return replace(
            self,
            design=self.design.of_heads(heads),
            ridge=self.ridge[heads],
            center=self.center[heads],
            group_weight=group_weight,
        )

    def weights(self, block: Block) -> Float[Tensor, "decisions any"]:
        """Weight of a block's decisions in every head; one column where all heads share it."""
        weight = self.design.weight[block.decisions, None]
        if self.group_weight is None:
            return weight
        return weight * self.group_weight.index_select(0, self.group[block.decisions])

    def weighted(self) -> Iterator[tuple[Block, Float[Tensor, "decisions any"], Float[Tensor, "rows any"]]]:
        """Blocks, with the weights of their decisions and of their rows."""
        for block in self.blocks:
            weight = self.weights(block)
            yield block, weight, weight if block.within.pairwise else weight[block.within.index]

    def margins(self, theta: Float[Tensor, "heads dim"]) -> Float[Tensor, "rows heads"]:
        margin = self.along(theta)
        return margin if self.offset is None else margin.add_(self.offset[:, None])

    def along(self, direction: Float[Tensor, "heads dim"]) -> Float[Tensor, "rows heads"]:
        """How margins change along a direction of theta."""
        if not direction.any():
            return direction.new_zeros((self.design.n_rows, len(direction)))
        margin = self.design.margins(direction)
        return margin if self.scale is None else margin.mul_(self.scale[:, None])

    def slopes(self, margin: Float[Tensor, "rows heads"]) -> Float[Tensor, "rows heads"]:
        """Derivative of the weighted log-likelihood in every margin."""
        slope = torch.empty_like(margin)
        for block, _, weight in self.weighted():
            torch.mul(self.likelihood.slope(margin[block.rows], block.within), weight, out=slope[block.rows])
        return slope

    def slopes_along(
        self,
        margin: Float[Tensor, "rows heads"],
        along: Float[Tensor, "rows heads"],
        step: Float[Tensor, " heads"],
        out: Float[Tensor, "rows heads"],
    ) -> Float[Tensor, " heads"]:
        """Write the slopes at margin + step along into `out`; return their sum along the direction.

        Margins are linear in theta, so a line search costs no pass over the features.
        """
        total = step.new_zeros(len(step), dtype=torch.float64)
        for block, _, weight in self.weighted():
            at = torch.addcmul(margin[block.rows], along[block.rows], step)
            slope = torch.mul(self.likelihood.slope(at, block.within), weight, out=out[block.rows])
            total += (slope * along[block.rows]).sum(0)
        return total.to(step.dtype)

    def log_prob(self, margin: Float[Tensor, "rows heads"]) -> Float[Tensor, " heads"]:
        """Weighted log-likelihood of every head, in nats, in float64."""
        total = margin.new_zeros(margin.shape[1], dtype=torch.float64)
        for block, weight, _ in self.weighted():
            total += (self.likelihood.log_prob(margin[block.rows], block.within) * weight).sum(0)
        return total

    def gradient(
        self, slope: Float[Tensor, "rows heads"], theta: Float[Tensor, "heads dim"]
    ) -> Float[Tensor, "heads dim"]:
        """Gradient of the mean objective from the rows' slopes."""
        slope = slope if self.scale is None else slope * self.scale[:, None]
        return (self.design.pull(slope) - self.ridge[:, None] * (theta - self.center)) / self.total[:, None]
