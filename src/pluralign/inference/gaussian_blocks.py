"""Users side by side: the rows of users of similar size, padded to one width, and Newton for all of them at once.

For user u with rows D_u (rows, dim) and a Gaussian prior, the posterior mode of the user's coefficients is found

- `solve_primal`: in the coefficients w, with margins base + Z w and prior N(0, precision^-1): a rank x rank system;
- `solve_dual`: in one number per row, o = tau^2 D' alpha, with margins base + tau^2 G alpha, G = D D': a rows x rows
  system, which is the smaller one where a user has fewer rows than features (Rasmussen and Williams 2006, Algorithm
  3.1, with their K = tau^2 G and a curvature W that need not be diagonal).

Both give the Laplace evidence log P(y, mode) - log det(...) / 2. The curvature of a decision among several is
diag(a) - b b'; its root L with L L' = W is diag(sqrt a) (I - c q q'), q = b / sqrt a, c = 1 / (1 + sqrt(1 - |q|^2)).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pluralign.features import Design
from pluralign.inference import cholesky
from pluralign.likelihoods import Decisions, Likelihood

BLOCK_FLOATS = 2**19  # a block's matrices stay in cache: ten times faster than one block of all users
SMALL_BLOCK = 2**16  # below it a block costs what its calls cost, whatever their size
MAX_NEWTON = 50
MAX_HALVINGS = 12
_KEEP = 1 / 8


class Curvature(NamedTuple):
    """Negative Hessian W = L L' of the log-likelihood of a block in its margins; a block of decisions each."""

    root: Float[Tensor, " rows"]
    tilt: Float[Tensor, " rows"] | None  # q sqrt(c); None where W is diagonal
    decisions: Decisions

    def half(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """L' M."""
        scaled = self.root[:, None] * rows
        return scaled if self.tilt is None else self._away(scaled)

    def unhalf(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """L M."""
        return self.root[:, None] * (rows if self.tilt is None else self._away(rows))

    def times(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """W M."""
        return self.unhalf(self.half(rows))

    def _away(self, rows: Tensor) -> Tensor:
        assert self.tilt is not None
        tilt = self.tilt[:, None]
        return rows - tilt * self.decisions.sum(tilt * rows)[self.decisions.index]


@dataclass(frozen=True, eq=False, kw_only=True)
class UserBlock:
    """Users of similar size.

    Attributes:
        user: Their numbers, (block,).
        rows: Their rows in the design, user by user, (rows,).
        owner: Place in the block of every row's user, (rows,).
        slot: Place of every row in the padded (block x width), (rows,).
        width: Rows of the largest user.
        decisions: Decisions of these rows.
        weight: Weight of every decision, (decisions,).
        decision_owner: Place in the block of every decision's user, (decisions,).
    """

    user: Int[Tensor, " block"]
    rows: Int[Tensor, " rows"]
    owner: Int[Tensor, " rows"]
    slot: Int[Tensor, " rows"]
    width: int
    decisions: Decisions
    weight: Float[Tensor, " decisions"]
    decision_owner: Int[Tensor, " decisions"]

    @property
    def count(self) -> int:
        return self.user.numel()

    @property
    def whole(self) -> "UserBlock":
        """The same users with a row in every slot, where decisions are pairs: absent rows are rows of weight 0.

        Rows and slots are then the same numbers, and what goes to and fro between them costs nothing.
        """
        return self if self._full or not self.decisions.pairwise else self._filled

    @cached_property
    def _filled(self) -> "UserBlock":
        slots = torch.arange(self.count * self.width, device=self.rows.device)
        owner = slots // self.width
        return UserBlock(
            user=self.user,
            rows=self.pad(self.rows).flatten(),
            owner=owner,
            slot=slots,
            width=self.width,
            decisions=Decisions(
                index=slots,
                outcome=self.pad(self.decisions.outcome).flatten(),
                position=self.pad(self.decisions.position).flatten(),
            ),
            weight=self.pad(self.weight).flatten(),
            decision_owner=owner,
        )

    @property
    def _full(self) -> bool:
        return self.slot.numel() == self.count * self.width

    def pad(self, rows: Shaped[Tensor, "rows *width"]) -> Shaped[Tensor, "block slots *width"]:
        """Rows to users side by side; absent rows are 0."""
        shape = (self.count, self.width, *rows.shape[1:])
        if self._full:
            return rows.reshape(shape)
        return rows.new_zeros((self.count * self.width, *rows.shape[1:])).index_copy(0, self.slot, rows).view(shape)

    def differences(self, design: Design) -> Float[Tensor, "block slots dim"]:
        """Feature differences of the rows, users side by side."""
        if self._full:
            return design.differences(self.rows).view(self.count, self.width, -1)
        place = self.rows.new_zeros(self.count * self.width).index_copy_(0, self.slot, self.rows)
        absent = torch.ones_like(place, dtype=torch.bool).index_fill_(0, self.slot, False)
        found = design.differences(place).index_fill_(0, absent.nonzero()[:, 0], 0)
        return found.view(self.count, self.width, -1)

    def flat(self, padded: Float[Tensor, "block slots *width"]) -> Float[Tensor, "rows *width"]:
        """The reverse of `pad`."""
        flat = padded.flatten(0, 1)
        return flat if self._full else flat[self.slot]

    def total(self, per_row: Float[Tensor, "rows *width"]) -> Float[Tensor, "block *width"]:
        """Sum rows by user."""
        return per_row.new_zeros((self.count, *per_row.shape[1:])).index_add_(0, self.owner, per_row)

    def log_prob(self, margin: Float[Tensor, " rows"], likelihood: Likelihood) -> Float[Tensor, " block"]:
        """Weighted log-likelihood of every user, in nats."""
        each = self.weight * likelihood.log_prob(margin[:, None], self.decisions)[:, 0]
        if self._full and self.decisions.pairwise:
            return each.view(self.count, self.width).sum(1)
        return each.new_zeros(self.count).index_add_(0, self.decision_owner, each)

    def slope(self, margin: Float[Tensor, " rows"], likelihood: Likelihood) -> Float[Tensor, " rows"]:
        """Derivative of `log_prob` with respect to every margin."""
        return likelihood.slope(margin[:, None], self.decisions)[:, 0] * self.weight[self.decisions.index]

    def curvature(self, margin: Float[Tensor, " rows"], likelihood: Likelihood) -> Curvature:
        """Negative second derivative of `log_prob` in the margins."""
        a, b = likelihood.curvature(margin[:, None], self.decisions)
        root_weight = self.weight[self.decisions.index].sqrt()
        root = a[:, 0].sqrt() * root_weight
        if b is None:
            return Curvature(root, None, self.decisions)
        q = b[:, 0] / a[:, 0].sqrt().clamp(min=torch.finfo(a.dtype).tiny ** 0.5)
        left = (1 - self.decisions.sum(q**2)).clamp(min=0)
        c = 1 / (1 + left.sqrt())
        return Curvature(root, q * c.sqrt()[self.decisions.index], self.decisions)


def user_blocks(
    design: Design,
    floats_per_user: Callable[[int], int],
    users: Int[Tensor, " some"] | None = None,
    block_floats: int = BLOCK_FLOATS,
) -> list[UserBlock]:
    """Sort users by size and cut them into blocks that waste at most a fifth on padding, unless they are small.

    Args:
        design: Rows; users without a row are in no block.
        floats_per_user: Memory that a user of so many rows takes in the work to be done.
        users: Only these; None means all.
        block_floats: Memory of a block, in floats.
    """

    def cost(group: Tensor) -> int:
        """Floats for each user of a group, as for its largest, the last."""
        return max(1, floats_per_user(int(size[group[-1]])))

    decisions = design.decisions
    row_user = design.user[decisions.index]
    order = torch.argsort(row_user, stable=True)  # keeps the rows of a decision together
    size = torch.bincount(row_user, minlength=design.n_users)
    start = size.cumsum(0) - size
    present = size.nonzero()[:, 0] if users is None else users[size[users] > 0]
    present = present[torch.argsort(size[present], stable=True)]
    level = (size[present].double().log() / torch.tensor(1.2).double().log()).ceil()
    groups: list[Tensor] = []
    for group in present.split(torch.unique_consecutive(level, return_counts=True)[1].tolist()):
        joined = torch.cat([groups[-1], group]) if groups else group
        small = len(joined) * cost(joined) <= min(SMALL_BLOCK, block_floats)
        groups = [*groups[:-1], joined] if small else [*groups, group]
    blocks = []
    for group in groups:
        step = max(1, block_floats // cost(group))
        blocks += [_block(design, some, size[some], start[some], order) for some in group.split(step)]
    return blocks


def _block(design: Design, user: Tensor, size: Tensor, start: Tensor, order: Tensor) -> UserBlock:
    width = int(size.max())
    owner = torch.repeat_interleave(size)
    place = torch.arange(len(owner), device=owner.device) - (size.cumsum(0) - size)[owner]
    rows = order[start[owner] + place]
    whole = design.decisions
    index = whole.index[rows]
    new = torch.ones_like(index, dtype=torch.bool)
    new[1:] = index[1:] != index[:-1]
    return UserBlock(
        user=user,
        rows=rows,
        owner=owner,
        slot=owner * width + place,
        width=width,
        decisions=Decisions(index=new.cumsum(0) - 1, outcome=whole.outcome[rows], position=whole.position[rows]),
        weight=design.weight[index[new]],
        decision_owner=owner[new],
    )


class Primal(NamedTuple):
    """Posterior modes in the coefficients."""

    mode: Float[Tensor, "block rank"]
    factor: Float[Tensor, "block rank rank"]  # Cholesky factor of the posterior precision
    margin: Float[Tensor, " rows"]
    value: Float[Tensor, " block"]  # log P(y | mode) plus the log prior density's quadratic term
    evidence: Float[Tensor, " block"]

    def covariance(self) -> Float[Tensor, "block rank rank"]:
        return torch.cholesky_inverse(self.factor)


def solve_primal(
    block: UserBlock,
    rows: Float[Tensor, "rows rank"],
    base: Float[Tensor, " rows"],
    precision: Float[Tensor, " rank"],
    start: Float[Tensor, "block rank"],
    likelihood: Likelihood,
    *,
    metric: Float[Tensor, "block rank rank"] | None = None,
    exact: bool = True,
) -> Primal:
    """Maximise, for every user, log P(y | base + rows w) - w' diag(precision) w / 2.

    `metric` is the `factor` of a problem close by, which gives the steps as long as they are good. Without `exact` the
    factor returned may be an earlier one, and the evidence, which rests on it, is only near.
    """

    def spread(w: Tensor) -> Tensor:
        return (rows * w[block.owner]).sum(1)

    def value_of(w: Tensor, margin: Tensor) -> Tensor:
        return block.log_prob(margin, likelihood) - (precision * w**2).sum(1) / 2

    def metric_of(margin: Tensor) -> Tensor:
        half = block.pad(block.curvature(margin, likelihood).half(rows))
        return torch.linalg.cholesky(half.mT @ half + precision.diag())

    def step_of(w: Tensor, margin: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
        gradient = block.total(block.slope(margin, likelihood)[:, None] * rows) - precision * w
        step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        return step, (step * gradient).sum(1)

    # Where coefficients are few a factor costs no more than a step.
    keep = 0.0 if metric is None else _KEEP
    functions = value_of, metric_of, step_of, spread
    w, margin, value, factor = _newton(start, base + spread(start), block.owner, *functions, metric, keep, exact)
    evidence = value + precision.log().sum() / 2 - factor.diagonal(dim1=1, dim2=2).log().sum(1)
    return Primal(w, factor, margin, value, evidence)


class DualMetric(NamedTuple):
    """What a Newton step in the rows needs: the curvature and the Cholesky factor of I + tau^2 L' G L."""

    curvature: Curvature
    factor: Float[Tensor, "block slots slots"]  # upper


class Dual(NamedTuple):
    """Posterior modes in one number per row: the offset is tau^2 D' alpha."""

    alpha: Float[Tensor, "block slots"]
    metric: DualMetric
    margin: Float[Tensor, " rows"]
    value: Float[Tensor, " block"]  # log P(y | mode) plus the log prior density's quadratic term
    evidence: Float[Tensor, " block"]

    @property
    def factor(self) -> Float[Tensor, "block slots slots"]:
        return self.metric.factor

    def seen_(self, block: UserBlock, rows: Float[Tensor, "block slots width"]) -> Float[Tensor, "block slots width"]:
        """A root of rows' (W^-1 + tau^2 G)^-1 rows = rows' L (I + tau^2 L' G L)^-1 L' rows, (root)' root.

        The memory of `rows` is taken.
        """
        curvature = self.metric.curvature
        if curvature.tilt is None:
            half = rows.mul_(curvature.root.view(*rows.shape[:2], 1))
        else:
            half = block.pad(curvature.half(block.flat(rows)))
        return cholesky.whiten_(self.factor, half)


def solve_dual(
    block: UserBlock,
    gram: Float[Tensor, "block slots slots"],
    base: Float[Tensor, " rows"],
    tau: float,
    start: Float[Tensor, "block slots"],
    likelihood: Likelihood,
    *,
    metric: DualMetric | None = None,
    exact: bool = True,
) -> Dual:
    """Maximise, for every user, log P(y | base + tau^2 G alpha) - tau^2 alpha' G alpha / 2.

    `metric` and `exact` as in `solve_primal`.
    """
    part, block = block, block.whole
    base = base if part is block else part.pad(base).flatten()

    def spread(alpha: Tensor) -> Tensor:
        return block.flat((alpha[:, None] @ gram)[:, 0]).mul_(tau**2)  # six times faster than gram @ alpha

    def value_of(alpha: Tensor, margin: Tensor) -> Tensor:
        return block.log_prob(margin, likelihood) - (alpha * block.pad(margin - base)).sum(1) / 2

    def metric_of(margin: Tensor) -> DualMetric:
        curvature = block.curvature(margin, likelihood)
        if curvature.tilt is None:
            root = tau * block.pad(curvature.root)
            inner = (gram * root[:, :, None]).mul_(root[:, None, :])
        else:
            once = block.pad(curvature.half(block.flat(gram)))
            inner = block.pad(curvature.half(block.flat(once.mT.contiguous()))).mul_(tau**2)
        inner.diagonal(dim1=1, dim2=2).add_(1)
        return DualMetric(curvature, cholesky.factor_(inner))

    # With r = slope - alpha the step is (I + tau^2 W G)^-1 r = r - L (I + tau^2 L' G L)^-1 L' tau^2 G r.
    def step_of(alpha: Tensor, margin: Tensor, metric: DualMetric) -> tuple[Tensor, ...]:
        left = block.pad(block.slope(margin, likelihood)) - alpha
        moved = spread(left)
        pulled = metric.curvature.half(moved[:, None])
        solved = cholesky.solve(metric.factor, block.pad(pulled)[..., 0])
        step = left - block.pad(metric.curvature.unhalf(block.flat(solved)[:, None])[:, 0])
        return step, (block.pad(moved) * step).sum(1)  # G is symmetric

    functions = value_of, metric_of, step_of, spread
    alpha, margin, value, found = _newton(start, base + spread(start), block.owner, *functions, metric, _KEEP, exact)
    margin = margin if part is block else part.flat(margin.view(alpha.shape))
    return Dual(alpha, found, margin, value, value - found.factor.diagonal(dim1=1, dim2=2).log().sum(1))


@contextmanager
def one_thread() -> Iterator[None]:
    """For thousands of small steps, at each of which waiting for a second thread costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _newton(
    start: Tensor,
    margin: Tensor,
    owner: Tensor,
    value_of: Any,
    metric_of: Any,
    step_of: Any,
    spread: Any,
    metric: Any,
    keep: float,
    exact: bool,
) -> tuple[Any, ...]:
    """Damped Newton for every user at once: a user whose value would fall takes half the step.

    Margins are linear in what is sought, so a step's margins serve all its halvings. Stops when no user stands to gain
    more than a rounding error. A metric serves further steps as long as each leaves at most the part `keep` of what
    was left to gain; with `exact`, the metric returned belongs to the point returned.
    """
    # Of the value, in nats: its rounding, and how much may be left to gain, which is no difference of values.
    rounding, tolerance = (1e-12, 1e-16) if start.dtype == torch.float64 else (1e-5, 1e-7)
    at, value, stale = start, value_of(start, margin), metric is not None
    metric = metric if stale else metric_of(margin)
    step, decrement = step_of(at, margin, metric)
    for _ in range(MAX_NEWTON):
        enough = tolerance * (1 + value.abs())
        if not (decrement > enough).any():
            break
        size = torch.ones_like(value)
        along = spread(step)
        there, there_margin = at + step, margin + along
        for halving in range(MAX_HALVINGS):
            there_value = value_of(there, there_margin)
            worse = there_value < value - rounding * (1 + value.abs())
            if halving == MAX_HALVINGS - 1 or not worse.any():
                break
            size = torch.where(worse, size / 2, size)
            there, there_margin = at + size[:, None] * step, margin + size[owner] * along
        at, margin, value, stale = there, there_margin, there_value, True
        if not keep:
            metric, stale = metric_of(margin), False
        step, left = step_of(at, margin, metric)
        if stale and (left > keep * decrement + enough).any():
            metric, stale = metric_of(margin), False
            step, left = step_of(at, margin, metric)
        decrement = left
    if stale and exact:
        metric = metric_of(margin)
    return at, margin, value, metric
