"""Which facts about users go with their clusters and their tastes.

Every covariate meets the clusters and each of the leading directions of taste. Its p-value is by permutation: users'
covariate values are dealt out anew, and the statistic is counted again, so that neither small cells nor odd
distributions matter. All p-values are adjusted together for their number (Holm), and each effect stands beside its mean
under permutation, because V and eta squared are above 0 by chance alone.

| covariate | against clusters | against a direction of taste |
|---|---|---|
| category | Cramér's V | eta squared |
| number | eta squared of the ranks (Kruskal and Wallis) | rank correlation (Spearman), two-sided |

Users, not decisions, are what is counted. Who a user was compared with, how many decisions they made and how well their
cluster is known play no part, so that a covariate can also go with the precision of an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from pluralign.errors import ConfigError
from pluralign.evaluation import holm

Kind = Literal["category", "number"]
CODES = 10  # a numeric column of so many values or fewer is read as a category
LEAST = 5  # users that a category has, or it is pooled with the others of its size
MOST_LEVELS = 12
OTHER = "(other)"
_BLOCK = 2_000_000  # permuted entries held at once


@dataclass(frozen=True, kw_only=True)
class CovariateTest:
    """One covariate against one thing that was learnt of users.

    Attributes:
        covariate: Its name.
        kind: "category" or "number".
        against: "cluster" or "taste direction 1", ...
        statistic: The effect (module docstring), 0 for none to 1 for all; a rank correlation has a sign.
        name_of_statistic: "Cramér's V", "eta squared", "eta squared of ranks" or "rank correlation".
        expected: Mean of the statistic when users are permuted; of a correlation, of its size.
        p_value: By permutation.
        p_adjusted: After Holm, over all tests of one call.
        n_users: Users with a value and a cluster or taste.
        detail: What is most different, in words.
    """

    covariate: str
    kind: Kind
    against: str
    statistic: float
    name_of_statistic: str
    expected: float
    p_value: float
    p_adjusted: float
    n_users: int
    detail: str


def compare_covariates(
    users: pa.Table,
    cluster: Int[np.ndarray, " users"] | None = None,
    taste: Float[np.ndarray, "users directions"] | None = None,
    *,
    kinds: Mapping[str, Kind] | None = None,
    n_directions: int = 3,
    n_permutations: int = 1999,
    seed: int = 0,
) -> tuple[CovariateTest, ...]:
    """Test every column of a table of users against clusters and tastes.

    Nulls, NaNs and blank texts are missing, and a user with a missing value is left out of that column's tests.
    Categories of fewer than 5 users, and all after the 11 largest where there are more than 12, are pooled; a column
    that has one value left (an id, say) is not tested.

    Args:
        users: One row per user (`Comparisons.users`).
        cluster: Cluster of every user from 0, -1 where it has none, (users,).
        taste: Coordinates of every user along directions of taste, strongest first, NaN where unknown.
        kinds: Which columns are what, where the guess (a text or a number of at most 10 values is a category) is wrong.
        n_directions: Leading columns of `taste` that are tested.
        n_permutations: Permutations of each test.
        seed: Of the permutations.

    Returns:
        All tests, smallest p-value first.

    Raises:
        ConfigError: Another number of users, fewer than 1 permutation, a kind for a column that does not exist, or a
            column of texts called a number.
    """
    for name, given in (("clusters", cluster), ("tastes", taste)):
        if given is not None and len(given) != users.num_rows:
            raise ConfigError(f"{name} are of {len(given)} users; the table has {users.num_rows}")
    if n_permutations < 1:
        raise ConfigError(f"n_permutations is {n_permutations}; it must be at least 1")
    kinds = dict(kinds or {})
    missing = sorted(set(kinds) - set(users.column_names))
    if missing:
        raise ConfigError(f'no covariate "{missing[0]}"; known: {", ".join(users.column_names)}')
    rng = np.random.default_rng(seed)
    found = []
    for name in users.column_names:
        column = _read(name, users.column(name), kinds.get(name))
        if cluster is not None and len(np.unique(cluster[cluster >= 0])) > 1:
            found.append(_against_cluster(column, np.asarray(cluster), n_permutations, rng))
        if taste is not None:
            leading = enumerate(taste.T[:n_directions], start=1)
            found += [_against_taste(column, along, k, n_permutations, rng) for k, along in leading]
    tests = [test for test in found if test is not None]
    adjusted = holm(np.array([test.p_value for test in tests]))
    tests = [replace(test, p_adjusted=float(p)) for test, p in zip(tests, adjusted, strict=True)]
    return tuple(sorted(tests, key=lambda test: (test.p_value, -abs(test.statistic))))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Column:
    """A covariate's values: numbers, or names of categories; which are known."""

    name: str
    kind: Kind
    values: np.ndarray
    known: np.ndarray

    def coded(self, keep: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Category of the users kept, (kept,), and the categories' names, small ones pooled."""
        names, code, size = np.unique(self.values[keep], return_inverse=True, return_counts=True)
        order = np.argsort(-size, kind="stable")
        large = order[size[order] >= LEAST]
        if len(order) > MOST_LEVELS:
            large = large[: MOST_LEVELS - 1]
        new = np.full(len(names), len(large))
        new[large] = np.arange(len(large))
        levels = [str(names[i]) for i in large]
        return new[code], [*levels, OTHER] if len(large) < len(names) else levels


def _read(name: str, values: pa.ChunkedArray, kind: Kind | None) -> _Column:
    number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
    if kind == "number" and not number:
        raise ConfigError(f'covariate "{name}" is {values.type}, which is no number', hint="leave it a category")
    if number:
        numbers = np.array([np.nan if x is None else float(x) for x in values.to_pylist()], dtype=np.float64)
        known = np.isfinite(numbers)
        if kind is None:
            kind = "category" if len(np.unique(numbers[known])) <= CODES else "number"
        if kind == "number":
            return _Column(name=name, kind="number", values=numbers, known=known)
        return _Column(name=name, kind="category", values=np.array([f"{x:g}" for x in numbers]), known=known)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    texts = [None if x is None else str(x).strip() for x in values.to_pylist()]
    known = np.array([bool(text) for text in texts], dtype=np.bool_)
    return _Column(name=name, kind="category", values=np.array([text or "" for text in texts]), known=known)


def _permuted(
    values: np.ndarray, n: int, rng: np.random.Generator, statistic: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, " draws"]:
    """A statistic of n permutations of values (users,), which it takes side by side, (draws, users)."""
    step = max(1, _BLOCK // max(1, len(values)))
    tiles = (np.tile(values, (min(step, n - start), 1)) for start in range(0, n, step))
    return np.concatenate([statistic(rng.permuted(tile, axis=1)) for tile in tiles])


def _p_value(observed: float, draws: Float[np.ndarray, " draws"]) -> float:
    return float((1 + (draws >= observed * (1 - 1e-9) - 1e-12).sum()) / (1 + len(draws)))


def _against_cluster(column: _Column, cluster: np.ndarray, n: int, rng: np.random.Generator) -> CovariateTest | None:
    keep = np.flatnonzero(column.known & (cluster >= 0))
    labels, own = np.unique(cluster[keep], return_inverse=True)
    if len(labels) < 2:
        return None
    if column.kind == "category":
        code, levels = column.coded(keep)
        if len(levels) < 2:
            return None

        def statistic(dealt: np.ndarray) -> np.ndarray:
            return _cramers_v(dealt, own, len(levels), len(labels))

        observed, draws = float(statistic(code[None])[0]), _permuted(code, n, rng, statistic)
        name, detail = "Cramér's V", _category_by_cluster(column.name, code, levels, own, labels)
    else:
        values = column.values[keep]
        if len(np.unique(values)) < 2:
            return None
        ranks = _ranks(values)

        def statistic(dealt: np.ndarray) -> np.ndarray:
            return _eta_squared(dealt, own, len(labels))

        observed, draws = float(statistic(ranks[None])[0]), _permuted(ranks, n, rng, statistic)
        name, detail = "eta squared of ranks", _number_by_cluster(column.name, values, own, labels)
    return _test(column, "cluster", name, observed, draws, len(keep), detail)


def _against_taste(
    column: _Column, taste: np.ndarray, number: int, n: int, rng: np.random.Generator
) -> CovariateTest | None:
    keep = np.flatnonzero(column.known & np.isfinite(taste))
    own = taste[keep]
    if len(np.unique(own)) < 2:
        return None
    if column.kind == "category":
        code, levels = column.coded(keep)
        if len(levels) < 2:
            return None

        def statistic(dealt: np.ndarray) -> np.ndarray:
            return _eta_squared(dealt, code, len(levels))

        observed, draws = float(statistic(own[None])[0]), _permuted(own, n, rng, statistic)
        name, detail = "eta squared", _category_by_taste(column.name, code, levels, own, number)
        return _test(column, f"taste direction {number}", name, observed, draws, len(keep), detail)
    if len(np.unique(column.values[keep])) < 2:
        return None
    ranks, own_ranks = (_ranks(x) - (len(x) + 1) / 2 for x in (column.values[keep], own))
    size = np.sqrt((ranks**2).sum() * (own_ranks**2).sum())
    observed = float(ranks @ own_ranks / size)
    draws = _permuted(ranks, n, rng, lambda dealt: np.abs(dealt @ own_ranks) / size)
    side = "up" if observed > 0 else "down"
    detail = f"the higher {column.name}, the further {side} direction {number} (rank correlation {observed:.2f})"
    return _test(
        column, f"taste direction {number}", "rank correlation", observed, draws, len(keep), detail, abs(observed)
    )


def _test(
    column: _Column,
    against: str,
    name: str,
    statistic: float,
    draws: np.ndarray,
    n_users: int,
    detail: str,
    size: float | None = None,
) -> CovariateTest:
    return CovariateTest(
        covariate=column.name,
        kind=column.kind,
        against=against,
        statistic=statistic,
        name_of_statistic=name,
        expected=float(draws.mean()),
        p_value=_p_value(statistic if size is None else size, draws),
        p_adjusted=float("nan"),
        n_users=n_users,
        detail=detail,
    )


def _cramers_v(dealt: np.ndarray, own: np.ndarray, n_levels: int, n_clusters: int) -> np.ndarray:
    """Cramér's V of categories (draws, users) and clusters (users,)."""
    n_draws, n = dealt.shape
    cell = (np.arange(n_draws)[:, None] * n_levels + dealt) * n_clusters + own
    table = np.bincount(cell.ravel(), minlength=n_draws * n_levels * n_clusters).reshape(n_draws, n_levels, n_clusters)
    expected = table.sum(2, keepdims=True) * table.sum(1, keepdims=True) / n
    chi = ((table - expected) ** 2 / expected).sum((1, 2))
    return np.asarray(np.sqrt(chi / (n * (min(n_levels, n_clusters) - 1))))


def _eta_squared(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Share of the variance of values (draws, users) that lies between groups (users,)."""
    member = np.eye(n_groups)[group]
    size = member.sum(0)
    centered = values - values.mean(1, keepdims=True)
    between = ((centered @ member) ** 2 / size).sum(1)
    return np.asarray(between / (centered**2).sum(1))


def _ranks(values: np.ndarray) -> Float[np.ndarray, " users"]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, code, size = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(size) - (size - 1) / 2)[code]


def _share(part: np.ndarray) -> str:
    return f"{100 * part.mean():.0f} %"


def _category_by_cluster(
    name: str, code: np.ndarray, levels: Sequence[str], own: np.ndarray, labels: np.ndarray
) -> str:
    """The category and the cluster that are furthest from chance, by their standardised residual."""
    table = np.zeros((len(levels), len(labels)))
    np.add.at(table, (code, own), 1)
    rows, columns, n = table.sum(1, keepdims=True), table.sum(0, keepdims=True), len(code)
    spread = rows * columns * (1 - rows / n) * (1 - columns / n) / n
    residual = (table - rows * columns / n) / np.sqrt(np.maximum(spread, 1e-12))
    named = [i for i, level in enumerate(levels) if level != OTHER]
    i, k = np.unravel_index(residual[named].argmax(), (len(named), len(labels)))
    inside, there = code == named[i], own == k
    return (
        f"users with {name} {levels[named[i]]}: {_share(there[inside])} in cluster {labels[k] + 1}, "
        f"others {_share(there[~inside])}"
    )


def _number_by_cluster(name: str, values: np.ndarray, own: np.ndarray, labels: np.ndarray) -> str:
    """Users above the median against the others, in the cluster where that makes the largest difference."""
    cut = float(np.median(values))
    over = values > cut
    if not over.any():  # the median is the largest value
        cut = float(values[values < cut].max())
        over = values > cut
    differences = [(own[over] == k).mean() - (own[~over] == k).mean() for k in range(len(labels))]
    k = int(np.argmax(np.abs(differences)))
    there = own == k
    return (
        f"users with {name} over {cut:g}: {_share(there[over])} in cluster {labels[k] + 1}, "
        f"others {_share(there[~over])}"
    )


def _category_by_taste(name: str, code: np.ndarray, levels: Sequence[str], own: np.ndarray, number: int) -> str:
    """The category whose mean is furthest from the others' in standard errors."""
    spread, best, words = own.std(), -1.0, ""
    for i, level in enumerate(levels):
        inside = code == i
        apart = own[inside].mean() - own[~inside].mean()
        strength = abs(apart) * np.sqrt(inside.sum() * (~inside).sum() / len(own))
        if strength > best and (level != OTHER or len(levels) == 2):
            side = "up" if apart > 0 else "down"
            best = strength
            words = (
                f"users with {name} {level} are {abs(apart) / spread:.1f} standard deviations further {side} "
                f"direction {number} than others"
            )
    return words
