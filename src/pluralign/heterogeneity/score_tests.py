"""Is there any heterogeneity? Score tests of taste and of reliability against the pooled model.

With m_j the pooled margin of decision j, x_j its difference of features and e_j the residual (answer minus
probability), a user's scores are r_u = sum_j m_j e_j in the log of its reliability s_u, and S_u = sum_j x_j e_j in a
taste of its own, theta + o_u. If the o_u have covariance tau^2 W, the derivative of the log-likelihood in tau^2 at 0 is
half of sum_u S_u' W S_u minus its expectation: the score test of a variance component (le Cessie and van Houwelingen
1995; Lin 1997). Here, and with m m' in the place of W for reliability:

- **Cross-products only.** The terms of a decision with itself are left out, so that a statistic is a sum over pairs of
  different decisions of one user: its expectation is 0 whatever the variance of an answer is (ties, lapses, misfit).
- **Reliability is no taste.** The test of taste stands on s_u theta . phi, s_u estimated for every user
  (`nulls.fit_scales`), and takes from a user's residuals their regression on the user's margins, in what was seen as in
  every draw: a wrong s_u then moves the statistic in second order only. o_u is in units of the reward and not of s_u:
  were it scaled with s_u, the few most certain users would decide. A taste along the pooled reward itself is not seen
  so, with one exception, for nobody's s_u is negative. *Reversed* users prefer the opposite of the pooled reward, and a
  second statistic is the sum over users of min(z_u, 0)^2, z_u the standardised score of the pooled margin at s_u = 0.
  The test takes the larger of the two, standardised.
- **The fit is accounted for.** In every draw theta moves as a refit would, by one Newton step: a penalised one in the
  test of reliability, where margins are the statistic; in that of taste the residuals are projected off the common
  directions, so that the bias of a shrunk theta drops out.
- **Metric.** W is (information in x, own reliability regressed out)^(-1/2). It lies between the features as they are,
  where the leading directions decide, and whitened ones, where noise directions weigh as much as the others;
  docs/heterogeneity.md has its measured power. A rotation of the features or one factor for all of them changes
  nothing, the ridge following.

The bootstrap draws answers from the fitted null: the pooled model for reliability, and for taste each user's s_u from
its posterior. Where users answered the same questions (same source, same items), answers are also permuted among those
who gave them. That leaves alone what everybody's answers share because the reward is not linear in the features, which
the bootstrap takes for taste where the questions of one user are alike. For taste they are permuted so that users may
differ in reliability (`nulls.dealt`).

Reliability is how closely the pooled reward is followed, and tastes vary that too. Where taste is found, a small
p-value of reliability does not mean that anybody is careless.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.heterogeneity.answers import Answers
from pluralign.heterogeneity.nulls import Scales, dealt, drawn, fit_scales, permuted, shared_decisions
from pluralign.inference.pooled import fit_pooled

_FLOOR = 1e-3  # of the largest eigenvalue: added to all before the metric's power is taken
_NONE = 1e-5  # directions of less than this share of the largest eigenvalue are rounding
_JITTER = 1e-6  # of the mean diagonal, on information matrices that are inverted
_BLOCK = 4096
_USERS = 2**22  # numbers in a block of users' scores


@dataclass(frozen=True, kw_only=True)
class ScoreTest:
    """One test.

    Attributes:
        name: What is tested: "taste" or "reliability".
        statistic: For reliability the moment estimate of the variance of log s_u (below 0 by chance); for taste the
            larger of two standardised statistics, of own directions and of reversed users.
        expected: Mean of the statistic over the bootstrap draws.
        effect: For reliability the standard deviation of log s_u, first order in it. For taste that of users' margins
            around the pooled margin, what follows its direction apart, over that of the pooled margin itself. Both
            by the method of moments, 0 where the statistic is not above its expectation, too small where large.
        p_bootstrap: (1 + draws at or above the statistic) / (1 + draws).
        p_permutation: The same among permutations within questions; None where no two users answered the same one.
        n_draws: Bootstrap draws.
        n_permuted: Permutations, 0 where there are none.
        note: What to know when reading it.
    """

    name: str
    statistic: float
    expected: float
    effect: float
    p_bootstrap: float
    p_permutation: float | None
    n_draws: int
    n_permuted: int
    note: str


@dataclass(frozen=True, kw_only=True)
class Tests:
    """Both tests of one table."""

    taste: ScoreTest
    reliability: ScoreTest


def score_tests(
    design: Design, *, ridge: float | None = None, n_draws: int = 1000, n_permuted: int = 200, seed: int = 0
) -> Tests:
    """Test whether users differ in reliability and in taste (module docstring).

    Users without a decision are passed over; one with a single decision helps the pooled fit alone. Rows should be the
    training rows that the features were made from, or all rows: nothing is held out.

    Args:
        design: Decisions and features.
        ridge: Prior precision of the pooled reward, 0 for none; None chooses it as `fit_pooled` does.
        n_draws: Bootstrap draws of each test.
        n_permuted: Permutations of each test where users share questions; 0 for none.
        seed: Of draws and permutations.

    Raises:
        ConfigError: Fewer than two users with two decisions each, n_draws below 1, or n_permuted below 0.
    """
    _check(design, n_draws, n_permuted)
    pooled, report = fit_pooled(design, ridge=ridge)
    answers = Answers.of(design)
    margin = answers.x @ pooled.theta
    scales = fit_scales(answers, margin)
    taste = _Taste.of(answers, margin, scales)
    reliability = _Reliability.of(taste.answers, margin, report.ridge)
    share = float(shared_decisions(taste.answers).sum()) / design.n_decisions
    n_permuted = n_permuted if share > 0 else 0
    generator = torch.Generator(margin.device).manual_seed(seed)

    null = _softened(answers, taste.p, drawn(taste.answers, margin, scales, n_draws, generator))
    seen = taste.of_answers(answers.other[:, None])
    draws = torch.cat([seen, *(taste.of_answers(each) for each in null)], 1)
    own, size = _largest(draws), draws[0, 1:]
    excess = float((seen[0, 0] - size.mean()) / size.var()) if n_draws > 1 and float(size.var()) > 0 else 0.0
    null = _softened(answers, taste.p, dealt(taste.answers, margin, scales, n_permuted, generator))
    permutations = _largest(torch.cat([seen, *(taste.of_answers(each) for each in null)], 1))
    of_taste = ScoreTest(
        name="taste",
        statistic=float(own[0]),
        expected=float(own[1:].mean()),
        effect=math.sqrt(max(0.0, 2 * excess * taste.ratio)),
        p_bootstrap=_p_value(own[0], own[1:]),
        p_permutation=_p_value(permutations[0], permutations[1:]) if n_permuted else None,
        n_draws=n_draws,
        n_permuted=n_permuted,
        note=_note("taste", share, n_permuted),
    )
    seen = reliability.of_answers(answers.other[:, None])
    null = _softened(answers, reliability.p, drawn(taste.answers, margin, None, n_draws, generator))
    draws = torch.cat([reliability.of_answers(each) for each in null])
    permutations = torch.cat(
        [seen, *(reliability.of_answers(answers.other[rows]) for rows in permuted(answers, n_permuted, generator))]
    )
    of_reliability = ScoreTest(
        name="reliability",
        statistic=float(seen[0]),
        expected=float(draws.mean()),
        effect=math.sqrt(max(0.0, float(seen[0] - draws.mean()))),
        p_bootstrap=_p_value(seen[0], draws),
        p_permutation=_p_value(seen[0], permutations[1:]) if n_permuted else None,
        n_draws=n_draws,
        n_permuted=n_permuted,
        note=_note("reliability", share, n_permuted),
    )
    return Tests(taste=of_taste, reliability=of_reliability)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Reliability:
    """The statistic of reliability for any columns of answers.

    Attributes:
        answers: Questions and the answers that were given.
        margin: Pooled margins, (rows, 1).
        p: Probability of the row's other item, (rows, 1).
        factor: Cholesky factor of theta's information and ridge, (dim, dim).
        pull: Gradient of the likelihood at the fit, which the ridge holds, (dim, 1).
    """

    answers: Answers
    margin: Float[Tensor, "rows 1"]
    p: Float[Tensor, "rows 1"]
    factor: Float[Tensor, "dim dim"]
    pull: Float[Tensor, "dim 1"]

    @classmethod
    def of(cls, answers: Answers, margin: Float[Tensor, " rows"], ridge: float) -> "_Reliability":
        p = answers.probability(margin[:, None])
        return cls(
            answers=answers,
            margin=margin[:, None],
            p=p,
            factor=_factor(answers.information(p[:, 0], torch.ones_like(margin)), ridge).to(margin.dtype),
            pull=answers.x.T @ (answers.weight[:, None] * (p - answers.other[:, None])),
        )

    def of_answers(self, other: Float[Tensor, "rows columns"]) -> Float[Tensor, " columns"]:
        """Moment estimate of the variance of log s_u, theta refitted by one Newton step, for each column."""
        answers, weight = self.answers, self.answers.weight[:, None]
        score = answers.x.T @ ((self.p - other) * weight) - self.pull
        margin = answers.x @ torch.cholesky_solve(score, self.factor)
        margin += self.margin
        p = answers.probability(margin)
        curved = answers.curve(p, margin)
        each = margin * (p - other) * weight
        information = margin * curved
        by_user = answers.within(information)
        # What all users share is no difference between them: regress the residuals on the margin.
        each -= information * (each.sum(0) / by_user.sum(0).clamp(min=1e-30))
        of_user, of_decision = answers.within(each), answers.sum(each)
        total = of_user.square().sum(0) - of_decision.square().sum(0)
        scale = by_user.square().sum(0) - answers.sum(information).square().sum(0)
        return total / scale.clamp(min=1e-30)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Taste:
    """The statistics of taste for any columns of answers: of own directions, and of reversed users.

    Attributes:
        answers: Questions and answers, the features turned to the axes of the metric.
        margin: Margins of the pooled reward, (rows, 1).
        scale: Each user's s_u at its posterior median, (rows, 1).
        p: Probability of the row's other item at scale * margin, (rows, 1).
        factor: Cholesky factor of theta's information, (dim, dim).
        curved: Covariance of the answers times the margins, (rows, 1).
        metric: Weight of every axis, (dim,).
        inner: Rows of one decision, itself included, two by two, (2, pairs).
        inner_weight: Their own part of S_u' W S_u per product of residuals, (pairs, 1).
        ratio: Variance of an own margin per unit of tau^2, over that of the pooled margin.
    """

    answers: Answers
    margin: Float[Tensor, "rows 1"]
    scale: Float[Tensor, "rows 1"]
    p: Float[Tensor, "rows 1"]
    factor: Float[Tensor, "dim dim"]
    curved: Float[Tensor, "rows 1"]
    metric: Float[Tensor, " dim"]
    inner: Int[Tensor, "2 pairs"]
    inner_weight: Float[Tensor, "pairs 1"]
    ratio: float

    @classmethod
    def of(cls, answers: Answers, margin: Float[Tensor, " rows"], scales: Scales) -> "_Taste":
        s = scales.mean.exp()[answers.user]
        p = answers.probability((s * margin)[:, None])
        curved = answers.curve(p, margin[:, None])
        size = answers.within(margin[:, None] * curved).clamp(min=1e-30)
        slope = answers.gather(curved)[:, :, 0] / size
        whole = answers.information(p[:, 0], torch.ones_like(s))
        part = (slope * size).double()
        spectrum, axes = torch.linalg.eigh(whole - part.T @ slope.double())
        spectrum = spectrum.clamp(min=0)
        # Nothing is left where there is one feature, or one margin per user.
        kept = (spectrum > _NONE * spectrum.max()) & (spectrum > _NONE * whole.diagonal().mean())
        metric = torch.where(kept, spectrum + _FLOOR * spectrum.max(), 1.0).rsqrt() * kept
        metric = metric / (metric * spectrum).sum().clamp(min=1e-30)
        turn = axes.to(margin.dtype)
        answers, slope, metric = replace(answers, x=answers.x @ turn), slope @ turn, metric.to(margin.dtype)

        def left(rows: Tensor) -> Tensor:
            return answers.x[rows] - margin[rows, None] * slope[answers.user[rows]]

        inner = _within_decisions(answers)
        blocks = zip(*(rows.split(_BLOCK) for rows in inner), strict=True)
        weight = torch.cat([(left(i) * left(j)) @ metric for i, j in blocks])
        same = inner[0] == inner[1]
        own_margins = weight[same] @ answers.weight
        return cls(
            answers=answers,
            margin=margin[:, None],
            scale=s[:, None],
            p=p,
            factor=_factor(answers.information(p[:, 0], s), 0.0).to(margin.dtype),
            curved=curved,
            metric=metric,
            inner=inner,
            inner_weight=torch.where(same, weight, 2 * weight)[:, None],
            ratio=float(own_margins / (margin.square() @ answers.weight).clamp(min=1e-30)),
        )

    def of_answers(self, other: Float[Tensor, "rows columns"]) -> Float[Tensor, "2 columns"]:
        """Both statistics for each column of answers."""
        answers = self.answers
        residual = (self.p - other) * answers.weight[:, None]
        along = answers.x @ torch.cholesky_solve(answers.x.T @ (self.scale * residual), self.factor)
        residual = residual - answers.curve(self.p, self.scale * along)
        followed = answers.within(self.margin * residual) / answers.within(self.margin * self.curved).clamp(min=1e-30)
        residual -= self.curved * followed[answers.user]
        square = residual.new_zeros((len(self.metric), residual.shape[1]))
        for group in answers.groups:
            of_users = max(1, _USERS // (len(self.metric) * residual.shape[1]))
            for first in range(0, group.n_users, of_users):
                part = group.part(first, min(first + of_users, group.n_users))
                score = part.of(answers.x).mT @ part.of(residual)
                square += score.square_().sum(0)
        i, j = self.inner
        alone = (self.inner_weight * residual[i] * residual[j]).sum(0)
        margin = self.margin + along
        indifferent = answers.probability(torch.zeros_like(self.margin))
        agreed = answers.within(margin * (indifferent - other) * answers.weight[:, None])
        size = answers.within(margin * answers.curve(indifferent, margin)).clamp(min=1e-30)
        return torch.stack([self.metric @ square - alone, (agreed.clamp(max=0).square() / size).sum(0)])


def _factor(information: Float[Tensor, "dim dim"], ridge: float) -> Float[Tensor, "dim dim"]:
    ridge += _JITTER * float(information.diagonal().mean()) + 1e-30
    eye = torch.eye(len(information), dtype=information.dtype, device=information.device)
    return torch.linalg.cholesky((information + information.T) / 2 + ridge * eye)


def _within_decisions(answers: Answers) -> Int[Tensor, "2 pairs"]:
    """Pairs of rows of one decision, the first not after the second."""
    index = answers.decisions.index
    rows, found = torch.arange(len(index), device=index.device), []
    for apart in range(int(answers.decisions.n_items.max()) - 1):
        first, second = rows[: len(rows) - apart], rows[apart:]
        same = index[first] == index[second]
        found.append(torch.stack([first[same], second[same]]))
    return torch.cat(found, 1)


def _softened(
    answers: Answers, p: Float[Tensor, "rows 1"], drawn: Iterator[Float[Tensor, "rows columns"]]
) -> Iterator[Float[Tensor, "rows columns"]]:
    """Draws of 0 and 1 drawn in to the variance of the answers, which ties and soft labels make smaller."""
    tied = answers.decisions.pairwise and bool(((answers.other > 0) & (answers.other < 1)).any())
    square = (answers.weight * (answers.other - p[:, 0]).square()).sum()
    factor = min(1.0, math.sqrt(float(square / answers.curve(p, torch.ones_like(p)).sum()))) if tied else 1.0
    return (p + factor * (other - p) if tied else other for other in drawn)


def _largest(statistics: Float[Tensor, "2 columns"]) -> Float[Tensor, " columns"]:
    """The larger statistic of each column, both standardised over the columns.

    That of reversed users, next to always 0 where there are none, is standardised by 1 at least, and own directions
    settle its ties.
    """
    sd = statistics.std(1, correction=0, keepdim=True)
    least = torch.tensor([[1e-30], [1.0]], dtype=sd.dtype, device=sd.device)
    own, turned = (statistics - statistics.mean(1, keepdim=True)) / sd.maximum(least)
    return own.maximum(turned) + 1e-3 * own


def _p_value(seen: Float[Tensor, ""], null: Float[Tensor, " draws"]) -> float:
    return (1 + int((null >= seen).sum())) / (1 + len(null))


def _note(name: str, share: float, n_permuted: int) -> str:
    """What to know when reading a test."""
    if n_permuted:
        note = f"{share:.0%} of the decisions are on questions that several users answered; those were permuted."
        if name == "taste":
            note += " A small p_bootstrap beside a large p_permutation means misfit that all users share."
    elif name == "taste":
        note = (
            "No permutation, so taste cannot be told from misfit that all users share (a reward that is not linear in "
            "the features) where the questions of one user are alike."
        )
    else:
        note = "No permutation."
    if name == "reliability":
        note += " Tastes vary how closely the pooled reward is followed too: read it beside the test of taste."
    return note


def _check(design: Design, n_draws: int, n_permuted: int) -> None:
    if n_draws < 1:
        raise ConfigError(f"n_draws is {n_draws}; it must be at least 1")
    if n_permuted < 0:
        raise ConfigError(f"n_permuted is {n_permuted}; it must be at least 0")
    several = int((torch.bincount(design.user, minlength=design.n_users) > 1).sum())
    if several < 2:
        raise ConfigError(
            f"{several} of {design.n_users} users have two decisions or more; "
            "whether users differ takes at least two who do"
        )
