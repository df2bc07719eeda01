"""Who is like whom: cosines of user embeddings, beside what cosines look like where nobody differs.

A matrix of cosines always has structure to the eye: of 21 random vectors of width 8 the nearest two have a cosine of
0.72 to 0.92, and the largest that arXiv 2601.20760 reports for 21 workers is 0.80. So every statistic here stands
beside two nulls:

- `isotropic`: independent random directions, as many and as wide as the users' embeddings. It needs no data, and knows
  nothing of the directions in which noise is larger;
- `null`: users dealt anew. Where they share sources, users are permuted among the decisions of each source, which keeps
  what every source was answered; where they do not, choices are drawn anew from the common reward (parametric
  bootstrap). Embeddings are then estimated again, with the rung's shared parameters as they are.

The p-value is of the mean square cosine, one-sided. It compares one-step embeddings (`embeddings.OneStep`) with
one-step embeddings. In one dimension every cosine is 1 or -1 whatever the data, and in two it says little: cosines
leave out how far users deviate, which is what the score test and the split halves see.

Split-half reliability divides sources in two at random, embeds everybody from either half, and takes the mean cosine of
a user's two halves. Directions that were fitted to both halves find their noise alike: with 60 users who do not differ,
20 decisions each and 3 directions of 8, the halves' mean cosine is 0.18 and a test by it rejects nine times in ten.
So the users are divided in two as well, and those of one part are embedded in directions found from the other part's
score vectors (`score_directions`). What the parts find is not independent, so that the error is that of one part
alone, which errs to the wide side. Where the rung's prior has the same size in all directions (an isotropic
`Individual`), nothing was fitted and the rung's own coordinates serve everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.special import stdtr, stdtrit
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.evaluation import Interval, permute_within
from pluralign.features import Design
from pluralign.heterogeneity.embeddings import (
    Frame,
    Metric,
    OneStep,
    embed_users,
    present_users,
    stratified,
    unit_rows,
)
from pluralign.inference.basis import score_directions
from pluralign.likelihoods import Logit
from pluralign.users import Basis, Individual

MAX_COMPARED = 1000  # users among whom the largest and the smallest cosine are sought
SHARED = 0.5  # share of decisions in sources of several users, from which users are permuted within sources
N_SPLITS = 10
FEW_USERS = 5
MAX_RANK = 8  # directions found anew for split halves
N_RINGS = 20  # pairings of halves that `null_mean` is over
_PLACES = 3  # decimals of the cosines drawn


@dataclass(frozen=True, kw_only=True)
class Extremes:
    """5, 50 and 95 % quantiles of three statistics over the draws of a null."""

    largest: tuple[float, float, float]
    smallest: tuple[float, float, float]
    mean_square: tuple[float, float, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitHalf:
    """How far half of a user's decisions says what the other half says.

    Attributes:
        mean: Mean over users of the cosine of their two halves, with its interval over users.
        user: Cosine of every drawn user's halves, in the order of `Similarity.user`, mean over splits; NaN where no
            split gave both halves a decision, (drawn,).
        null_mean: Mean cosine of one user's half and another user's other half.
        p_value: Of `mean` being no larger than `null_mean`, one-sided.
        correlation: Of the two halves' coordinates over all users at once, sum e e' / sqrt(sum |e|^2 sum |e'|^2).
        spearman_brown: What that predicts for all decisions, 2 r / (1 + r), where r is above 0: the correlation with a
            second set of as many decisions. It supposes halves of one reliability.
        n_users: Users with two halves in some split.
        n_splits: Splits averaged over.
    """

    mean: Interval
    user: Float[np.ndarray, " drawn"]
    null_mean: float
    p_value: float
    correlation: float
    spearman_brown: float | None
    n_users: int
    n_splits: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Similarity:
    """Cosines of user embeddings and what they are worth.

    Attributes:
        user: Names of the users drawn, by cluster and within it so that neighbours are alike, (drawn,).
        cluster: Their clusters, numbered from 1 as in `results.json`; 0 for a user without one, (drawn,).
        cosine: Of every two of them, rounded, (drawn, drawn).
        null: Of users dealt anew.
        isotropic: Of random directions, as many and as wide.
        largest: Largest cosine of two users.
        smallest: Smallest cosine.
        mean_square: Mean square cosine of two users.
        p_value: One-sided, of `mean_square` under `null`.
        n_permuted: Draws of either null.
        null_kind: "permutation" of users within sources, or "bootstrap" of choices from the common reward.
        agreement: Mean cosine of a user's embedding in the rung and the one-step embedding that the null compares.
        split_half: Split-half reliability.
        rung: Kind of the model.
        metric: Of the cosines drawn.
        width: Coordinates compared.
        n_users: Users with rows, drawn or not.
        n_compared: Users among whom `largest` and `smallest` were sought.
        note: How to read it, in words.
    """

    user: tuple[str, ...]
    cluster: tuple[int, ...]
    cosine: Float[np.ndarray, "drawn drawn"]
    null: Extremes
    isotropic: Extremes
    largest: float
    smallest: float
    mean_square: float
    p_value: float
    n_permuted: int
    null_kind: str
    agreement: float
    split_half: SplitHalf
    rung: str
    metric: Metric
    width: int
    n_users: int
    n_compared: int
    note: str


def similarity(
    model: Basis | Individual,
    design: Design,
    *,
    user_ids: Sequence[str],
    cluster: Int[np.ndarray, " users"] | None = None,
    theta: Float[Tensor, " dim"] | None = None,
    metric: Metric = "margin",
    max_users: int = 120,
    n_permuted: int = 200,
    seed: int = 0,
) -> Similarity | None:
    """Compare users by the cosine of their embeddings.

    Args:
        model: A fitted rung whose users differ by a Gaussian vector.
        design: The rows it was fitted to.
        user_ids: Names of the users, (users,).
        cluster: Cluster of every user from 0, -1 where it has none, (users,); None means no clusters.
        theta: The common reward under the null, best the pooled fit's, (dim,); None takes the model's.
        metric: Of the cosines that are drawn (`embed_users`); the statistics and nulls are always in margins.
        max_users: Users drawn at most, from each cluster by its share; the statistics are of all.
        n_permuted: Draws of either null.
        seed: Of everything random.

    Returns:
        None where there is nothing to compare: fewer than 3 users with rows, or nobody deviates (`embed_users`).

    Raises:
        ConfigError: A number outside its range, or names or clusters of another number of users.
    """
    for name, value, least in (("max_users", max_users, 2), ("n_permuted", n_permuted, 1)):
        if value < least:
            raise ConfigError(f"{name} is {value}; it must be at least {least}")
    if len(user_ids) != design.n_users or (cluster is not None and len(cluster) != design.n_users):
        given = len(user_ids) if cluster is None else (len(user_ids), len(cluster))
        raise ConfigError(f"names (and clusters) are of {given} users; the design has {design.n_users}")
    frame, found = Frame.of(model, design), embed_users(model, design, metric)
    if frame is None or found is None or len(found.user) < 3:
        return None
    rng = np.random.default_rng(seed)
    theta = model.theta if theta is None else theta
    cluster = np.full(design.n_users, -1) if cluster is None else np.asarray(cluster)
    one_step = OneStep.of(design, theta, frame)

    place = np.full(design.n_users, -1)
    place[found.user] = np.arange(len(found.user))
    owner = place[design.user.numpy(force=True)]
    compared = np.sort(rng.permutation(len(found.user))[:MAX_COMPARED])
    observed = unit_rows(one_step.embed(owner, len(found.user)))
    statistics = _statistics(observed, compared)
    source = design.source.numpy(force=True)
    shared = _share_of_shared(source, owner)
    kind = "permutation" if shared >= SHARED else "bootstrap"
    draws = np.array(
        [_statistics(_draw(one_step, owner, source, kind, len(found.user), rng), compared) for _ in range(n_permuted)]
    )
    above = draws[:, 2] >= statistics[2] * (1 - 1e-9)

    drawn = order_users(unit_rows(found.vector), cluster[found.user], max_users, rng)
    unit = found.unit[drawn]
    halves = _split_half(model, design, theta, frame, rng)
    n_drawn = len(drawn)
    return Similarity(
        user=tuple(user_ids[found.user[i]] for i in drawn),
        cluster=tuple(int(cluster[found.user[i]]) + 1 for i in drawn),
        cosine=np.clip(unit @ unit.T, -1, 1).round(_PLACES),
        null=_quantiles(draws),
        isotropic=isotropic_null(len(compared), len(one_step.scale), n_draws=n_permuted, seed=seed),
        largest=statistics[0],
        smallest=statistics[1],
        mean_square=statistics[2],
        p_value=float((1 + above.sum()) / (1 + n_permuted)),
        n_permuted=n_permuted,
        null_kind=kind,
        agreement=float((observed * unit_rows(frame.coordinates[found.user][:, : observed.shape[1]])).sum(1).mean()),
        split_half=halves.summary(found.user[drawn], rng),
        rung=model.kind,
        metric=metric,
        width=len(one_step.scale),
        n_users=len(found.user),
        n_compared=len(compared),
        note=_note(len(found.user), n_drawn, len(one_step.scale), len(frame.scale), kind, shared),
    )


def isotropic_null(n_users: int, width: int, *, n_draws: int = 1000, seed: int = 0) -> Extremes:
    """What cosines look like for independent random directions.

    Args:
        n_users: Number of vectors, at least 2.
        width: Their dimensions.
        n_draws: Draws.
        seed: Of the draws.
    """
    rng, everybody = np.random.default_rng(seed), np.arange(n_users)
    return _quantiles(
        np.array([_statistics(unit_rows(rng.normal(size=(n_users, width))), everybody) for _ in range(n_draws)])
    )


def order_users(
    unit: Float[np.ndarray, "users width"],
    cluster: Int[np.ndarray, " users"],
    max_users: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " drawn"]:
    """Draw users from every cluster by its share, and order them by cluster and within it by likeness.

    Within a cluster the order is that of the leaves of a hierarchical clustering (average linkage of 1 - cosine).

    Args:
        unit: Directions, (users, width).
        cluster: Cluster of each, (users,).
        max_users: How many at most; every cluster keeps one user at least.
        rng: Of the draw.
    """
    drawn, order = stratified(cluster, max_users, rng), []
    for k in np.unique(cluster):
        members = drawn[cluster[drawn] == k]
        if len(members) > 2:
            some = unit[members]
            distance = np.clip(1 - some @ some.T, 0, 2)[np.triu_indices(len(members), 1)]
            members = members[leaves_list(linkage(distance, "average", optimal_ordering=True))]
        order.append(members)
    return np.concatenate(order)


def _statistics(unit: Float[np.ndarray, "users width"], compared: Int[np.ndarray, " some"]) -> tuple[float, ...]:
    """Largest and smallest cosine of the users compared, mean square cosine of all."""
    n = len(unit)
    square = float(((unit.T @ unit) ** 2).sum() - (unit**2).sum(1).astype(bool).sum())
    some = unit[compared].astype(np.float32)
    cosine = some @ some.T
    np.fill_diagonal(cosine, -np.inf)
    largest = float(cosine.max())
    np.fill_diagonal(cosine, np.inf)
    return min(largest, 1.0), max(float(cosine.min()), -1.0), square / (n * (n - 1))


def _quantiles(draws: Float[np.ndarray, "draws three"]) -> Extremes:
    largest, smallest, mean_square = np.quantile(draws, [0.05, 0.5, 0.95], axis=0).T.tolist()
    return Extremes(largest=tuple(largest), smallest=tuple(smallest), mean_square=tuple(mean_square))


def _share_of_shared(source: Int[np.ndarray, " decisions"], owner: Int[np.ndarray, " decisions"]) -> float:
    """Share of the decisions whose source was decided by two users or more."""
    code = np.unique(source, return_inverse=True)[1]
    pair = np.unique(code.astype(np.int64) * (int(owner.max()) + 1) + owner)
    users = np.bincount(pair // (int(owner.max()) + 1), minlength=int(code.max()) + 1)
    return float((users[code] > 1).mean())


def _draw(
    one_step: OneStep,
    owner: Int[np.ndarray, " decisions"],
    source: Int[np.ndarray, " decisions"],
    kind: str,
    n_users: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "users width"]:
    if kind == "permutation":
        dealt = permute_within(owner, source, seed=int(rng.integers(2**31)))
        return unit_rows(one_step.embed(dealt, n_users))
    return unit_rows(one_step.embed(owner, n_users, one_step.resample(rng)))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Halves:
    """Two embeddings of everybody for every split; NaN where a half has no decision.

    Attributes:
        first: (splits, users, width).
        second: (splits, users, width).
        part: Users are paired at random within their part alone, whose directions they share, (users,).
    """

    first: Float[np.ndarray, "splits users width"]
    second: Float[np.ndarray, "splits users width"]
    part: Int[np.ndarray, " users"]

    def summary(self, drawn: Int[np.ndarray, " drawn"], rng: np.random.Generator) -> SplitHalf:
        """Own halves against other users' halves."""
        left, right = unit_rows(self.first), unit_rows(self.second)
        own = _mean_of_splits((left * right).sum(2))
        both = ~np.isnan(self.first[:, :, 0] * self.second[:, :, 0])
        first, second = self.first[both], self.second[both]
        size = np.sqrt((first**2).sum() * (second**2).sum())
        correlation = float((first * second).sum() / size) if size > 0 else float("nan")
        known = np.flatnonzero(np.isfinite(own))
        null_mean = float(np.mean([self._paired(left, right, known, rng) for _ in range(N_RINGS)]))
        mean = _mean_over(own[known], len(np.unique(self.part[known])))
        t = (mean.estimate - null_mean) / mean.standard_error if mean.standard_error > 0 else np.nan
        return SplitHalf(
            mean=mean,
            user=own[drawn],
            null_mean=null_mean,
            p_value=float(stdtr(mean.degrees, -t)),
            correlation=correlation,
            spearman_brown=2 * correlation / (1 + correlation) if correlation > 0 else None,
            n_users=mean.n_users,
            n_splits=len(left),
        )

    def _paired(self, left: np.ndarray, right: np.ndarray, known: np.ndarray, rng: np.random.Generator) -> float:
        """What the mean is where each user's half meets somebody else's other half, one ring in every part."""
        total, count = 0.0, 0
        for part in np.unique(self.part[known]):
            ring = rng.permutation(known[self.part[known] == part])
            each = _mean_of_splits(np.einsum("suw,suw->su", left[:, ring], right[:, np.roll(ring, 1)]))
            total += float(np.nansum(each)) if len(ring) > 1 else 0.0
            count += int(np.isfinite(each).sum()) if len(ring) > 1 else 0
        return total / count if count else float("nan")


def _mean_of_splits(cosine: Float[np.ndarray, "splits users"]) -> Float[np.ndarray, " users"]:
    """Mean over the splits that gave a value; NaN where none did."""
    known = np.isfinite(cosine)
    count = known.sum(0)
    total = np.where(known, cosine, 0).sum(0)
    return np.divide(total, count, out=np.full(cosine.shape[1], np.nan), where=count > 0)


def _split_half(
    model: Basis | Individual, design: Design, theta: Tensor, frame: Frame, rng: np.random.Generator
) -> _Halves:
    present = present_users(design)
    user, source = design.user.numpy(force=True), np.unique(design.source.numpy(force=True), return_inverse=True)[1]
    part = np.zeros(design.n_users, dtype=np.int64)
    frames = [frame]
    fitted = isinstance(model, Basis) or model.structure != "isotropic"
    if fitted and len(present) > 3:
        part[rng.permutation(present)[: len(present) // 2]] = 1
        rank = min(len(frame.scale), MAX_RANK)
        frames = [_frame_of_others(design, theta, torch.as_tensor(part != k), rank) for k in range(2)]
    steps = [OneStep.of(design, theta, each) for each in frames]
    width = max(len(each.scale) for each in steps)
    first, second = np.full((2, N_SPLITS, design.n_users, width), np.nan)
    for split in range(N_SPLITS):
        half = (rng.permutation(source.max() + 1) % 2)[source]
        for k, one_step in enumerate(steps):
            for side, into in enumerate((first, second)):
                dealt = np.where(half == side, user, -1)
                there = np.unique(user[half == side])
                there = there[part[there] == k]
                into[split, there] = 0
                into[split, there, : len(one_step.scale)] = one_step.embed(dealt, design.n_users)[there]
    return _Halves(first=first, second=second, part=part)


def _frame_of_others(design: Design, theta: Tensor, keep: Tensor, rank: int) -> Frame:
    """Directions and their sizes from the score vectors of the users marked, as the fit of a basis begins."""
    some = design.take(keep.to(design.user.device)[design.user])
    basis = score_directions(some, theta.to(design.features.dtype), rank, Logit())
    nobody = basis.new_zeros((design.n_users, rank))
    prior = Basis(
        theta=theta, basis=basis, mean=nobody, covariance=torch.eye(rank).to(basis).expand(design.n_users, -1, -1)
    )
    found = Frame.of(prior, design)
    assert found is not None  # directions of no size begin a little away from 0
    return found


def _mean_over(values: Float[np.ndarray, " users"], n_parts: int) -> Interval:
    """Mean over users with Student's interval, as wide as that of one of the parts they are in."""
    n = len(values)
    estimate = float(values.mean()) if n else float("nan")
    degrees = max(n / max(n_parts, 1) - 1, 0.0)
    error = float(values.std(ddof=1) * np.sqrt(n_parts / n)) if degrees > 0 else float("nan")
    half = error * float(stdtrit(degrees, 0.975)) if degrees > 0 else float("nan")
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        level=0.95,
        standard_error=error,
        degrees=degrees,
        p_value=float(2 * stdtr(degrees, -abs(estimate) / error)) if error > 0 else float("nan"),
        cluster="user",
        few_users=n < FEW_USERS,
        n_users=n,
        n_sources=0,
        n_decisions=0,
    )


def _note(n_users: int, n_drawn: int, width: int, whole_width: int, kind: str, shared: float) -> str:
    parts = [f"{n_drawn} of {n_users} users are drawn." if n_drawn < n_users else f"All {n_users} users are drawn."]
    if width < whole_width:
        parts.append(f"Nulls and split halves compare the {width} strongest of {whole_width} directions.")
    if width == 1:
        parts.append("There is one direction of taste, so every cosine is 1 or -1, whatever the data.")
    elif width == 2:
        parts.append("With two directions of taste, cosines near 1 and -1 are common whatever the data.")
    parts.append(
        f"{shared:.0%} of the decisions are in sources of several users: users were permuted within sources."
        if kind == "permutation"
        else f"Only {shared:.0%} of the decisions are in sources of several users: choices were drawn anew."
    )
    return " ".join(parts)
