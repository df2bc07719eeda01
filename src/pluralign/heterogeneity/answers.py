"""The answers of a design as the score tests want them: whatever was answered taken out, users side by side.

A design writes the chosen item first, so that its rows depend on the answers. Here the first item of every decision is
the one of the lowest number, its *reference*, and what was answered is a column of its own: other answers to the same
questions are then another column, and a thousand of them a matrix. Users stand in groups of about equal size, filled up
with empty rows of weight 0 to the same number of rows, so that the sums within users of all columns at once are one
batched product.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from pluralign.features import Design
from pluralign.likelihoods import Decisions, Logit

_WASTE = 1.25  # a group's largest user over its smallest
_BLOCK = 4096
_SURE = 60.0  # nats beyond which a margin is as good as certain, so that odds do not overflow


class Group(NamedTuple):
    """Users who stand side by side, each filled up to the same number of rows."""

    rows: slice
    users: slice
    width: int

    @property
    def n_users(self) -> int:
        return self.users.stop - self.users.start

    def of(self, values: Float[Tensor, "rows columns"]) -> Float[Tensor, "users width columns"]:
        """The group's part of some rows, user by user."""
        return values[self.rows].view(self.n_users, self.width, values.shape[1])

    def part(self, start: int, stop: int) -> "Group":
        """Some of its users, counted within the group."""
        row, user = self.rows.start, self.users.start
        return Group(
            slice(row + start * self.width, row + stop * self.width), slice(user + start, user + stop), self.width
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """Questions and answers, sorted by user.

    Attributes:
        x: Features of the reference minus those of the row's other item, (rows, dim); empty rows are 0.
        decisions: How rows group into decisions; an empty row is one of its own.
        other: Share of the answer that went to the row's other item, 1 or 0 but for ties and soft labels, (rows,).
        weight: Weight of the row's decision, 0 for empty rows, (rows,).
        user: Number of the row's user among those with a decision, in this order, (rows,).
        choice_set: Number of every decision's source and set of items, an empty row's its own, (decisions,).
        groups: Users side by side.
        n_users: Number of users with a decision.
    """

    x: Float[Tensor, "rows dim"]
    decisions: Decisions
    other: Float[Tensor, " rows"]
    weight: Float[Tensor, " rows"]
    user: Int[Tensor, " rows"]
    choice_set: Int[Tensor, " decisions"]
    groups: tuple[Group, ...]
    n_users: int

    @classmethod
    def of(cls, design: Design) -> "Answers":
        """Sort a design by user and take its answers out."""
        reference, item, other = _turn(design)
        index = design.decisions.index
        # Users by number of rows, their decisions together, the items of a decision in order.
        size = torch.bincount(design.user[index], minlength=design.n_users)
        seen = int((size > 0).sum())
        place = torch.empty_like(size)
        by_size = size.argsort(stable=True)
        place[by_size] = torch.arange(len(size), device=size.device) - (len(size) - seen)
        order = item.argsort(stable=True)
        order = order[index[order].argsort(stable=True)]
        user = place[design.user]
        order = order[user[index[order]].argsort(stable=True)]
        size = size[by_size][-seen:] if seen else size[:0]
        slot, groups, n_padded = _lay_out(size)
        slot = slot.to(order.device)

        def padded(values: Tensor, empty: float) -> Tensor:
            return values.new_full((n_padded,), empty).index_copy_(0, slot, values[order])

        weight = padded(design.weight[index], 0.0)
        decision = padded(index, -1.0)
        first = torch.ones_like(decision, dtype=torch.bool)
        first[1:] = (decision[1:] != decision[:-1]) | (decision[1:] < 0)
        number = first.cumsum(0) - 1
        turned = Design(
            features=design.features,
            chosen=reference[index],
            rejected=item,
            decisions=design.decisions,
            user=design.user,
            weight=design.weight,
            source=design.source,
            n_users=design.n_users,
        )
        x = design.features.new_zeros((n_padded, design.dim))
        for rows, where in zip(order.split(_BLOCK), slot.split(_BLOCK), strict=True):
            x[where] = turned.differences(rows)
        of_user = torch.zeros_like(decision)
        for group in groups:
            users = torch.arange(group.users.start, group.users.stop, device=order.device)
            of_user[group.rows] = users.repeat_interleave(group.width)
        same = _choice_sets(design, reference, item)[decision[first].clamp(min=0)]
        empty = decision[first] < 0
        same = torch.where(empty, design.n_decisions + torch.arange(len(same), device=same.device), same)
        return cls(
            x=x,
            decisions=Decisions(index=number, outcome=torch.ones_like(weight), position=torch.zeros_like(weight)),
            other=padded(other, 0.0),
            weight=weight,
            user=of_user,
            choice_set=same,
            groups=groups,
            n_users=seen,
        )

    @cached_property
    def first_row(self) -> Int[Tensor, " decisions"]:
        """First row of every decision."""
        number = torch.arange(self.decisions.count, device=self.user.device)
        return torch.searchsorted(self.decisions.index, number)

    @cached_property
    def set_number(self) -> Int[Tensor, " decisions"]:
        """`choice_set` without gaps."""
        return self.choice_set.unique(return_inverse=True)[1]

    def within(self, values: Float[Tensor, "rows columns"]) -> Float[Tensor, "users columns"]:
        """Sum rows by user."""
        return torch.cat([group.of(values).sum(1) for group in self.groups])

    def sum(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "decisions columns"]:
        """Sum the rows of each decision."""
        return rows if self.decisions.pairwise else self._rows_of_decision @ rows

    def probability(self, margin: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Probability of every row's other item."""
        if self.decisions.pairwise:
            return torch.sigmoid(-margin)
        odds = margin.clamp(-_SURE, _SURE).neg_().exp_()
        return odds / (1 + self.sum(odds))[self.decisions.index]

    @cached_property
    def _rows_of_decision(self) -> Tensor:
        """1 where a row is of a decision, sparse, (decisions, rows): a product with it is ten times faster than adding
        up by index."""
        rows = torch.arange(len(self.weight) + 1, device=self.weight.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # "in beta state", once in every process
            return torch.sparse_csr_tensor(
                torch.cat([self.first_row, rows[-1:]]),
                rows[:-1],
                torch.ones_like(self.weight),
                size=(self.decisions.count, len(self.weight)),
                check_invariants=False,
            )

    def log_prob(self, margin: Float[Tensor, "rows columns"]) -> Float[Tensor, "users columns"]:
        """Weighted log-likelihood of every user's answers."""
        other, weight = self.other[:, None], self.weight[:, None]
        if self.decisions.pairwise:
            return self.within(weight * (logsigmoid(margin) - other * margin))
        first, second = Logit().choice_probabilities(margin, self.decisions)
        # The share of the reference is counted once, at the decision's first row.
        index = self.decisions.index
        lead = torch.zeros_like(self.weight).index_fill_(0, self.first_row, 1.0)
        rest = (lead * (1 - self.decisions.sum(self.other)[index]))[:, None]
        tiny = torch.finfo(margin.dtype).tiny
        return self.within(weight * (other * second.clamp(min=tiny).log() + rest * first[index].clamp(min=tiny).log()))

    def curve(
        self, p: Float[Tensor, "rows #columns"], values: Float[Tensor, "rows #columns"]
    ) -> Float[Tensor, "rows columns"]:
        """Covariance of a decision's answers, weighted, times values of its rows."""
        weight = self.weight[:, None]
        if self.decisions.pairwise:
            return weight * p * (1 - p) * values
        return weight * p * (values - self.sum(p * values)[self.decisions.index])

    def information(self, p: Float[Tensor, " rows"], scale: Float[Tensor, " rows"]) -> Float[Tensor, "dim dim"]:
        """Fisher information of theta in margins scale * x . theta, in float64."""
        total = self.x.new_zeros((self.x.shape[1], self.x.shape[1]), dtype=torch.float64)
        for rows, _, within in self.decisions.blocks(_BLOCK):
            x = self.x[rows] * scale[rows, None]
            each = p[rows, None]
            mean = each * x if within.pairwise else within.sum(each * x)[within.index]
            total += x.T @ (self.weight[rows, None] * each * (x - mean))
        return total

    def gather(self, values: Float[Tensor, "rows columns"]) -> Float[Tensor, "users dim columns"]:
        """Sum x times values by user: a matrix product for each group."""
        return torch.cat([group.of(self.x).mT @ group.of(values) for group in self.groups])

    def draw(
        self, margin: Float[Tensor, "rows any"], columns: int, generator: torch.Generator
    ) -> Float[Tensor, "rows {columns}"]:
        """Draw answers from the logit of the margins, one set of them or one for each column: 1 where a row's other
        item is chosen, else 0."""
        p = self.probability(margin)
        uniform = torch.rand((self.decisions.count, columns), generator=generator, dtype=p.dtype, device=p.device)
        return self.answer(p, uniform)

    def answer(
        self, p: Float[Tensor, "rows any"], uniform: Float[Tensor, "decisions columns"]
    ) -> Float[Tensor, "rows columns"]:
        """Answers that numbers in [0, 1) stand for: the other items' shares in order, then the reference's."""
        if self.decisions.pairwise:
            return (uniform < p).to(p.dtype)
        upper, uniform = self._upper(p), uniform[self.decisions.index]
        return ((uniform < upper) & (uniform >= upper - p)).to(p.dtype)

    def place(self, p: Float[Tensor, "rows columns"], generator: torch.Generator) -> Float[Tensor, "decisions columns"]:
        """Numbers in [0, 1) that stand for the answers given, uniform where the probabilities are true."""
        uniform = torch.rand((self.decisions.count, p.shape[1]), generator=generator, dtype=p.dtype, device=p.device)
        if self.decisions.pairwise:
            # A tie falls to either side by chance.
            side = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device) < self.other[:, None]
            return torch.where(side, uniform * p, p + uniform * (1 - p))
        upper, other = self._upper(p), self.other[:, None]
        low, width = self.sum(other * (upper - p)), self.sum(other * p)
        reference, total = 1 - self.sum(other), self.sum(p)
        return low + reference * total + uniform * (width + reference * (1 - total))

    def _upper(self, p: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Sum of the probabilities of a decision's rows up to this one."""
        index, upper = self.decisions.index, p.clone()
        for apart in range(1, int(self.decisions.n_items.max()) - 1):
            same = (index[apart:] == index[:-apart]).to(p.dtype)[:, None]
            upper[apart:] += p[:-apart] * same
        return upper


def _turn(design: Design) -> tuple[Int[Tensor, " decisions"], Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The reference of every decision, the other item of every row, and its share of the answer."""
    index, count = design.decisions.index, design.n_decisions
    rows = torch.arange(design.n_rows, device=index.device)
    first = torch.full((count,), design.n_rows, device=index.device).scatter_reduce(0, index, rows, "amin")
    chosen = design.chosen[first]
    reference = chosen.scatter_reduce(0, index, design.rejected, "amin")
    found = torch.where(design.rejected == reference[index], rows, design.n_rows)
    where = torch.full((count,), design.n_rows, device=index.device).scatter_reduce(0, index, found, "amin")
    turned = (reference != chosen)[index] & (where[index] == rows)
    item = torch.where(turned, design.chosen, design.rejected)
    outcome = design.decisions.outcome
    if design.decisions.pairwise:
        return reference, item, torch.where(turned, outcome, 1 - outcome)
    return reference, item, turned.to(outcome)


def _choice_sets(
    design: Design, reference: Int[Tensor, " decisions"], item: Int[Tensor, " rows"]
) -> Int[Tensor, " decisions"]:
    """Number decisions by source and set of items: equal numbers, the same question."""
    # A sum of random 62-bit numbers, one for each item and source, is a set's name; two sets share it once in 10^18.
    draw = torch.Generator().manual_seed(0)

    def names(n: int) -> Tensor:
        return torch.randint(2**62, (n,), generator=draw).to(reference.device)

    of_item, of_source = names(len(design.features)), names(int(design.source.max()) + 1)
    name = of_item[reference].index_add_(0, design.decisions.index, of_item[item]) + of_source[design.source]
    return name.unique(return_inverse=True)[1]


def _lay_out(size: Int[Tensor, " users"]) -> tuple[Int[Tensor, " rows"], tuple[Group, ...], int]:
    """Place users, who come by size, in groups: the place of every row, the groups, and the number of places."""
    sizes = size.tolist()
    cut = [0]
    for user, n in enumerate(sizes):
        if n > _WASTE * sizes[cut[-1]]:
            cut.append(user)
    groups, place, row = [], [], 0
    for start, stop in pairwise([*cut, len(sizes)]):
        width = sizes[stop - 1]
        count = stop - start
        groups.append(Group(slice(row, row + count * width), slice(start, stop), width))
        spot = row + torch.arange(count * width).view(count, width)
        place.append(spot[torch.arange(width) < size[start:stop, None].cpu()])
        row += count * width
    return torch.cat(place) if place else size, tuple(groups), row
