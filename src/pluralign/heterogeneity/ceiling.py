"""The noise ceiling: the most accuracy anybody can reach, from decisions on the same items.

Where one user decides the same task (pair, choice set) more than once, the share of equal answers, the repeat
agreement, says how much of a decision is chance. Where several users decide one task, the shared agreement adds what
they disagree about. Either bounds an accuracy. Write p_1, ..., p_k for the probabilities of the answers of one user to
one task (own taste), or of the users at large (pooled). Two answers agree with probability a = E sum_i p_i^2, and the
best guess is right with probability c = E max_i p_i, which `a` does not identify but bounds:

    a <= c <= (1 + sqrt((k - 1) (k a - 1))) / k,

on the left because sum p_i^2 <= max p_i, on the right because, at a given sum of squares, max p_i is largest where the
others are equal, and that bound is concave in the sum of squares (Jensen). The left end is met where every task is
either certain or a coin toss, the right where all are equally hard. Four answers to one pair narrow it: with
m = |2p - 1|, so that c = (1 + E m) / 2, they give E m^4 beside s = E m^2, and with q = E m^4

    s^(3/2) / q^(1/2) <= E m <= 1 - (1 - s) / (1 + sqrt((s - q) / (1 - s))),

the two distributions on [0, 1] with these moments that have an atom at 0, or at 1 (Hoelder's inequality; the upper
and lower principal representations of Krein and Nudelman). It is used where at least half of the decisions are on tasks
with four answers. Both moments are U-statistics, means over distinct pairs and fours of answers, and unbiased however
few answers there are. Two more bounds close in where answers are many: an answer guessed from the majority of the
others on its task is right less often than c, and the share of the majority is on average larger than c. They are taken
for pairs, where nobody's answers count as one answer. The best of the bounds is used at either end.

The point between the bounds is a model's: p drawn from a symmetric Dirichlet distribution (Beta for pairs) with the
observed agreement. The interval is not that model's. It runs from the lower bound to the upper, either end moved out by
its own sampling error, so that it holds for any distribution.

What is assumed: answers to one task are independent given the user's taste, and tasks asked again are like the others.
A user who remembers an answer makes the ceiling too high; one who learns between, too low. Which item was shown first
is ignored, so that a position effect counts as chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.integrate import quad
from scipy.special import beta, gammainc, gammainccinv, stdtrit

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError
from pluralign.evaluation import Interval
from pluralign.evaluation.groups import sum_by
from pluralign.evaluation.intervals import FEW_USERS
from pluralign.heterogeneity.jackknife import interval, spread_of
from pluralign.heterogeneity.votes import Cells, Voices, Votes
from pluralign.types import FloatArray, IntArray

_ENOUGH_FOURS = 0.5


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What agreement leaves to be had.

    Attributes:
        n_repeated: (user, task) cells with more than one decision.
        n_shared: Tasks that more than one user decided.
        repeat_agreement: How often a user repeats an answer, each decision on a repeated task counting the same; None
            where nothing is repeated.
        shared_agreement: How often two users give the same answer, likewise; None where no task is shared.
        accuracy_ceiling_own: The most a model can get right that knows every user's own taste. `estimate` is that of
            the module docstring's model, `low` to `high` holds without it; None where nothing is repeated.
        accuracy_ceiling_pooled: The same for a model that treats all users alike; None where no task is shared.
        own_bounds: Estimates of the lower and the upper bound, without sampling error.
        pooled_bounds: The same.
        note: What there was to go by, in words.
    """

    n_repeated: int
    n_shared: int
    repeat_agreement: Interval | None
    shared_agreement: Interval | None
    accuracy_ceiling_own: Interval | None
    accuracy_ceiling_pooled: Interval | None
    own_bounds: tuple[float, float] | None
    pooled_bounds: tuple[float, float] | None
    note: str


def noise_ceiling(comparisons: Comparisons, *, level: float = 0.95) -> Ceiling | None:
    """Return the noise ceilings of a table, or None where no task has two decisions.

    Args:
        comparisons: The table. Ties and decisions of weight 0 are left out, other weights are not used (`Votes.of`).
        level: Confidence level. Intervals leave out one user at a time, with fewer than five users one source.

    Raises:
        ConfigError: A level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; it must be between 0 and 1")
    votes = Votes.of(comparisons)
    cells = Cells.of(votes)
    voters = np.bincount(cells.task, minlength=votes.n_tasks)
    n_repeated, n_shared = int((cells.n > 1).sum()), int((voters > 1).sum())
    if not n_repeated and not n_shared:
        return None
    few_users = len(np.unique(votes.user)) < FEW_USERS
    own = _own(votes, cells, few_users) if n_repeated else None
    shared = _shared(votes, cells, few_users) if n_shared else None
    own_found = None if own is None else own.conclude(level)
    shared_found = None if shared is None else shared.conclude(level)
    return Ceiling(
        n_repeated=n_repeated,
        n_shared=n_shared,
        repeat_agreement=own_found and own_found[0],
        shared_agreement=shared_found and shared_found[0],
        accuracy_ceiling_own=own_found and own_found[1],
        accuracy_ceiling_pooled=shared_found and shared_found[1],
        own_bounds=own_found and own_found[2],
        pooled_bounds=shared_found and shared_found[2],
        note=" ".join(
            [
                "no user decided the same items twice, so chance cannot be told from taste without a model;"
                if own is None
                else f"{n_repeated:,} (user, items) repeated, bounds from {own.order} answers;",
                "no items were decided by two users"
                if shared is None
                else f"{n_shared:,} sets of items shared, bounds from {shared.order} answers",
            ]
        ),
    )


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Sums over groups of answers, and what leaves with each unit (user or source).

    Columns of the sums: for every number of items k the weight and weight times agreement; then weight times m by the
    majority of the others and by the majority's share; then, of pairs with at least four answers, the weight, weight
    times E m^2 and weight times E m^4.
    """

    n_items: IntArray  # the distinct k, (kinds,)
    total: FloatArray  # (columns,)
    leaving: FloatArray  # (units, columns)
    size: FloatArray  # decisions of every unit, (units,)
    whole: bool  # every answer counts as one answer
    cluster: str
    few_users: bool
    n_users: int
    n_sources: int
    n_decisions: int

    @property
    def fourth(self) -> bool:
        return self._pairs and bool(self.total[-3] >= _ENOUGH_FOURS * self.total[0])

    @property
    def _pairs(self) -> bool:
        return self.n_items.tolist() == [2]

    @property
    def order(self) -> str:
        return "two and four" if self.fourth else "two"

    def conclude(self, level: float) -> tuple[Interval, Interval, tuple[float, float]]:
        """Agreement, ceiling, and the estimates of its bounds."""
        sums = np.concatenate([self.total[None], self.total - self.leaving])
        with np.errstate(invalid="ignore", divide="ignore"):
            lows, highs = self._bounds(sums)
            numbers = np.stack([self._agreement(sums), *lows, *highs], axis=1)
        error, degrees = spread_of(numbers[0], numbers[1:], self.size)
        step = float(stdtrit(degrees, (1 + level) / 2))
        agreement, lower, upper = np.split(numbers[0], [1, 1 + len(lows)])
        lower_error, upper_error = np.split(error[1:], [len(lows)])
        low, high = float(lower.max()), float(upper.min())
        low, high = min(low, high), max(low, high)
        least = float(np.average(1 / self.n_items, weights=self.total[: 2 * len(self.n_items) : 2]))

        def build(estimate: float, se: float, within: tuple[float, float], ends: tuple[float, float]) -> Interval:
            return interval(
                estimate,
                se,
                degrees,
                level=level,
                within=within,
                ends=ends,
                cluster=self.cluster,
                few_users=self.few_users,
                n_users=self.n_users,
                n_sources=self.n_sources,
                n_decisions=self.n_decisions,
            )

        half = step * float(error[0])
        return (
            build(float(agreement[0]), float(error[0]), (0.0, 1.0), (agreement[0] - half, agreement[0] + half)),
            build(
                float(np.clip(self._modelled(), low, high)),
                float(error[1:].max()),
                (least, 1.0),
                ((lower - step * lower_error).max(), (upper + step * upper_error).min()),
            ),
            (low, high),
        )

    def _agreement(self, sums: FloatArray) -> FloatArray:
        kinds = 2 * len(self.n_items)
        found: FloatArray = sums[:, 1:kinds:2].sum(1) / sums[:, 0:kinds:2].sum(1)
        return found

    def _bounds(self, sums: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        """Lower and upper bounds of the ceiling from every row of sums."""
        kinds = 2 * len(self.n_items)
        weight, k = sums[:, 0:kinds:2], self.n_items
        agreement = np.divide(sums[:, 1:kinds:2], weight, out=np.ones_like(weight), where=weight > 0)
        agreement = np.clip(agreement, 1 / k, 1)
        high = (1 + np.sqrt((k - 1) * (k * agreement - 1))) / k
        total = weight.sum(1)
        lows, highs = [(weight * agreement).sum(1) / total], [(weight * high).sum(1) / total]
        if self.fourth:
            least, most = bound_moments(sums[:, -2] / sums[:, -3], sums[:, -1] / sums[:, -3])
            lows.append((1 + least) / 2)
            highs.append((1 + most) / 2)
        if self._pairs and self.whole:
            lows.append((1 + sums[:, kinds] / total) / 2)
            highs.append((1 + sums[:, kinds + 1] / total) / 2)
        return lows, highs

    def _modelled(self) -> float:
        kinds = 2 * len(self.n_items)
        weight, agreed = self.total[0:kinds:2], self.total[1:kinds:2]
        each = [
            expected_top(int(k), float(a / w)) if w > 0 else 0.0
            for k, a, w in zip(self.n_items, agreed, weight, strict=True)
        ]
        return float(np.average(each, weights=weight))


def bound_moments(second: FloatArray, fourth: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least and largest E m of a variable on [0, 1] with given E m^2 and E m^4 (module docstring), elementwise.

    Moments that no variable has, as estimates may be, are first moved to the nearest E m^4 that one has.
    """
    s = np.clip(second, 0, 1)
    q = np.clip(fourth, s**2, s)
    low = np.divide(s**1.5, np.sqrt(q), out=np.zeros_like(s), where=q > 0)
    atom = np.sqrt(np.divide(s - q, 1 - s, out=np.zeros_like(s), where=s < 1))
    return low, np.maximum(1 - (1 - s) / (1 + atom), low)


def expected_top(n_items: int, agreement: float) -> float:
    """E max_i p_i of a symmetric Dirichlet distribution over k answers with E sum_i p_i^2 equal to the agreement.

    Args:
        n_items: k.
        agreement: At least 1 / k, which is a coin with k sides; below it is taken for it, and at 1 the top is 1.
    """
    k = n_items
    if agreement <= 1 / k + 1e-9:
        return 1 / k
    if agreement >= 1 - 1e-9:
        return 1.0
    concentration = (1 - agreement) / (k * agreement - 1)  # E sum p^2 = (c + 1) / (k c + 1)
    if k == 2:
        return float(0.5 + 0.5 / (concentration * beta(0.5, concentration)))

    # p = gamma variates over their sum, which is independent of p and has mean k c: E max p = E max gamma / (k c).
    most = float(gammainccinv(concentration, 1e-15))
    area = quad(lambda root: float(1 - gammainc(concentration, root**4) ** k) * 4 * root**3, 0, most**0.25, limit=200)[
        0
    ]
    return float(min(area / (k * concentration), 1.0))


def _own(votes: Votes, cells: Cells, few_users: bool) -> _Evidence:
    """Groups are (user, task) cells, and their answers the decisions."""
    agreed = sum_by(cells.cell, cells.count**2, len(cells.n)) - cells.n
    first = sum_by(cells.cell, np.where(cells.answer == 0, cells.count, 0.0), len(cells.n))
    signed = 2 * first - cells.n
    several = cells.n > 1
    n, task = cells.n[several], cells.task[several]
    rows = _columns(
        votes,
        task,
        weight=n,
        agreement=agreed[several] / (n * (n - 1)),
        n=n,
        powers=np.stack([signed[several], n, signed[several], n], axis=1),
    )
    unit = votes.source[task] if few_users else cells.user[several]
    return _collect(votes, rows, unit, n, task, cells.user[several], few_users, whole=True)


def _shared(votes: Votes, cells: Cells, few_users: bool) -> _Evidence:
    """Groups are tasks, and their answers the users', each the mean of the user's own."""
    n_tasks, voices = votes.n_tasks, Voices.of(cells, votes.n_tasks)
    signed = 2 * sum_by(cells.cell, np.where(cells.answer == 0, voices.share, 0.0), len(cells.n)) - 1
    own_powers = signed[:, None] ** np.arange(1, 5)
    powers = np.stack([sum_by(cells.task, column, n_tasks) for column in own_powers.T], axis=1)

    def rows_of(task: np.ndarray, n: FloatArray, agreed: FloatArray, powers: FloatArray) -> FloatArray:
        pairs = n * (n - 1)
        return _columns(
            votes,
            task,
            weight=np.where(n > 1, n, 0.0),
            agreement=np.divide(agreed, pairs, out=np.zeros_like(n), where=pairs > 0),
            n=n,
            powers=powers,
        )

    rows = rows_of(np.arange(n_tasks), voices.users, voices.agreed, powers)
    shared, whole = voices.users > 1, len(cells.count) == len(cells.n)
    there = shared[cells.task]
    task, user = cells.task[there], cells.user[there]
    if few_users:
        held = np.flatnonzero(shared)
        return _collect(votes, rows[held], votes.source[held], voices.users[held], task, user, few_users, whole=whole)
    without = rows_of(
        task,
        voices.users[task] - 1,
        voices.agreed[task] - 2 * voices.with_others[there],
        powers[task] - own_powers[there],
    )
    found = _collect(votes, rows[task] - without, user, np.ones(len(task)), task, user, few_users, whole=whole)
    return replace(found, total=rows.sum(0))


def _columns(
    votes: Votes, task: np.ndarray, *, weight: FloatArray, agreement: FloatArray, n: FloatArray, powers: FloatArray
) -> FloatArray:
    """The columns of `_Evidence` for groups of n answers; powers are power sums of their signs +-1, (groups, 4)."""
    kinds, kind = np.unique(votes.n_items, return_inverse=True)
    width = 2 * len(kinds)
    rows = np.zeros((len(task), width + 5))
    at = np.arange(len(task))
    rows[at, 2 * kind[task]] = weight
    rows[at, 2 * kind[task] + 1] = weight * agreement
    p1, p2, p3, p4 = powers.T
    each = np.maximum(n, 1)
    by_others = ((n + p1) * np.sign(p1 - 1) - (n - p1) * np.sign(p1 + 1)) / (2 * each)
    rows[:, width : width + 2] = weight[:, None] * np.stack([by_others, np.abs(p1) / each], axis=1)
    fours = (n > 3.5) & (votes.n_items[task] == 2)
    # Newton's identities: sums of products over distinct pairs and fours.
    second = (p1**2 - p2) / np.maximum(n * (n - 1), 1)
    fourth = p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4
    fourth = fourth / np.maximum(n * (n - 1) * (n - 2) * (n - 3), 1)
    rows[:, -3:] = np.where(fours, weight, 0.0)[:, None] * np.stack([np.ones_like(n), second, fourth], axis=1)
    return rows


def _collect(
    votes: Votes,
    rows: FloatArray,
    unit: np.ndarray,
    size: FloatArray,
    task: np.ndarray,
    user: np.ndarray,
    few_users: bool,
    *,
    whole: bool,
) -> _Evidence:
    code = np.unique(unit, return_inverse=True)[1]
    n_units = int(code.max()) + 1
    leaving = np.stack([sum_by(code, column, n_units) for column in rows.T], axis=1)
    return _Evidence(
        n_items=np.unique(votes.n_items),
        total=rows.sum(0),
        leaving=leaving,
        size=sum_by(code, size, n_units),
        whole=whole,
        cluster="source" if few_users else "user",
        few_users=few_users,
        n_users=len(np.unique(user)),
        n_sources=len(np.unique(votes.source[task])),
        n_decisions=int(size.sum()),
    )
