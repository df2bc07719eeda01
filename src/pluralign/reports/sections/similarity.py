"""Are users alike: cosines beside their null, the map of users, and what their clusters go with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pluralign.heterogeneity.similarity import order_users
from pluralign.reports import axes
from pluralign.reports.blocks import (
    Axis,
    Block,
    Chart,
    Cloud,
    Dots,
    Grid,
    Heatmap,
    Line,
    Rule,
    Section,
    Spans,
    Text,
    left_out,
    note,
)
from pluralign.reports.reading import (
    clean,
    count,
    entries,
    estimate,
    fixed,
    number,
    p_value,
    part,
    short,
    span,
)

EXTREMES = (
    ("largest", "largest cosine of two users"),
    ("smallest", "smallest cosine of two users"),
    ("mean_square", "mean squared cosine"),
)


def similarity(results: dict[str, Any]) -> Section:
    """The heatmap and its null."""
    found = part(results, "heterogeneity", "similarity")
    blocks = list(_similarity(found)) if found else []
    return Section(
        anchor="similarity",
        title="Are users alike?",
        lead="The likeness of any two users' own rewards, beside what random vectors show: they too have cosines near "
        "0.8 when there are few decisions or few dimensions.",
        blocks=tuple(blocks) or (left_out(results, "similarity", "the results hold no similarities between users"),),
    )


def _similarity(found: dict[str, Any]) -> Iterator[Block]:
    values, null = matrix(found.get("cosine")), part(found, "null")
    names = [short(each, 60) for each in found.get("user") or []]
    if values is not None and values.shape == (len(names), len(names)):
        group, labels = groups(found.get("cluster"), len(names))
        drawn, beside = _null_matrix(found, group)
        yield Heatmap(
            name="similarity",
            caption=f"Left: cosine of the rewards of {count(len(names))} users, ordered by cluster and within it by "
            f"likeness. Blue: opposite tastes; white: unrelated; orange: alike. {beside}",
            alt=f"Matrix of cosines of {len(names)} users in {len(labels)} groups, from "
            f"{fixed(float(np.nanmin(values)), 2)} to {fixed(_off_diagonal(values), 2)}.",
            values=values,
            names=names,
            group=group,
            null=drawn,
            records=[
                {"user": clean(name)} | {f"cosine_{j + 1}": float(v) for j, v in enumerate(row)}
                for name, row in zip(found.get("user") or [], values, strict=True)
            ],
        )
    kept = [(key, label, value) for key, label in EXTREMES if (value := number(found.get(key))) is not None]
    if kept:
        yield _extremes(kept, {"null": null, "isotropic": part(found, "isotropic")})
    p = number(found.get("p_value"))
    if p is not None:
        yield Text(
            text=f"Users are {'more' if p < 0.05 else 'not shown to be more'} alike and unlike than chance makes them: "
            f"p {p_value(p)} from {count(number(found.get('n_permuted')))} permutations."
        )
    yield from _split_half(part(found, "split_half"))
    if found.get("note"):
        yield note(found["note"])


def _null_matrix(found: dict[str, Any], group: np.ndarray) -> tuple[np.ndarray | None, str]:
    """A matrix to hold the users' beside, and what it is.

    The results' own draw under the null where they hold one (`null_cosine`); otherwise random directions, as many and
    as wide as the users' embeddings, in the same clusters and ordered in the same way.
    """
    width = number(found.get("width"))
    if (drawn := matrix(found.get("null_cosine"))) is not None:
        return drawn, "Right: the same after users' decisions were dealt out at random. What both show is chance."
    if width is None or not len(group):
        return None, "A pattern is real where the numbers below leave the null's range."
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(len(group), max(int(width), 1)))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    unit = unit[order_users(unit, group, len(group), rng)]
    beside = (
        f"Right: as many random vectors in {count(width)} dimensions, in groups of the same sizes and ordered in the "
        "same way. What both show is chance."
    )
    return unit @ unit.T, beside


def _extremes(kept: Sequence[tuple[str, str, float]], nulls: dict[str, dict[str, Any]]) -> Chart:
    marks: list[Rule | Spans] = [Rule(at=0)]
    records: list[dict[str, object]] = [{"quantity": key, "observed": value} for key, _, value in kept]
    ends, words = [value for _, _, value in kept], []
    for k, (name, label) in enumerate(
        (("null", "null: users dealt anew"), ("isotropic", "null: random directions")), start=1
    ):
        bounds = {i: each for i, (key, _, _) in enumerate(kept) if (each := _bounds(nulls[name].get(key)))}
        if not bounds:
            continue
        at = list(bounds)
        low, middle, high = ([bounds[i][j] for i in at] for j in range(3))
        ends += [*low, *high]
        marks.append(
            Spans(
                at=[i - 0.24 + 0.24 * k for i in at],
                value=middle,
                low=low,
                high=high,
                tips=[
                    f"{label}: {fixed(m, 3)} [{fixed(a, 3)}, {fixed(b, 3)}]"
                    for a, m, b in zip(low, middle, high, strict=True)
                ],
                colour=k,
                hollow=True,
                label=label,
            )
        )
        for i, a, m, b in zip(at, low, middle, high, strict=True):
            records[i] |= {f"{name}_q05": a, f"{name}_q50": m, f"{name}_q95": b}
            words.append(f"{kept[i][1]} {fixed(kept[i][2], 2)}, {label} {fixed(a, 2)} to {fixed(b, 2)}")
    marks.append(
        Spans(
            at=[i - 0.24 for i in range(len(kept))],
            value=[value for _, _, value in kept],
            low=[math.nan] * len(kept),
            high=[math.nan] * len(kept),
            tips=[f"{label}: {fixed(value, 3)}" for _, label, value in kept],
            colour=0,
            label="these users",
        )
    )
    return Chart(
        name="similarity-null",
        caption="Cosines of these users (filled) beside those of two nulls (hollow; whiskers: 5 to 95 % of draws). "
        "Inside a null's range an extreme cosine means nothing.",
        alt="; ".join(words) + ".",
        x=axes.numbers(ends, "cosine", include=(0,)),
        y=axes.categories([label for _, label, _ in kept]),
        marks=tuple(marks),
        records=records,
    )


def _bounds(given: object) -> list[float]:
    """Three quantiles; empty where they are not there."""
    found = [each for each in map(number, given if isinstance(given, list) else []) if each is not None]
    return found if len(found) == 3 else []


def _split_half(found: dict[str, Any]) -> Iterator[Block]:
    mean = estimate(found.get("mean"))
    each = sorted(v for v in map(number, found.get("user") or []) if v is not None)
    if mean is None:
        return
    chance, p = number(found.get("null_mean")), number(found.get("p_value"))
    reliability = number(found.get("spearman_brown"))
    beside = "" if chance is None else f", between two different users {fixed(chance, 2)}"
    shown = "" if p is None else f" (p {p_value(p)})"
    yield Text(
        text=f"Split halves: a user's reward from half the decisions and from the other half have a mean cosine of "
        f"{span(mean, 2)}{beside}{shown}. 1: each user's taste is measured without noise; near the other users': the "
        "measurements tell users apart no better than chance."
        + (
            ""
            if reliability is None
            else f" Reliability of all decisions together: {fixed(reliability, 2)} (Spearman-Brown)."
        )
    )
    if each:
        share = [(i + 0.5) / len(each) for i in range(len(each))]
        marks: list[Rule | Line] = [Rule(at=0, upright=False, dashed=False)]
        if chance is not None:
            marks.append(Rule(at=chance, upright=False, label="mean of two different users"))
        marks.append(Line(x=share, y=each, colour=0, marked=False, label="one user's two halves"))
        yield Chart(
            name="split-half",
            caption="Cosine of each user's two halves, sorted.",
            alt=f"Sorted split-half cosines of {len(each)} users, from {fixed(each[0], 2)} to {fixed(each[-1], 2)}.",
            x=axes.numbers((0, 1), "share of users, %", factor=100),
            y=axes.numbers(each, "cosine of two halves", include=(0,)),
            marks=tuple(marks),
            records=[{"rank": i + 1, "cosine": value} for i, value in enumerate(each)],
            height=200,
        )


def projection(results: dict[str, Any]) -> Section:
    """The map of users, flat and turnable."""
    found = part(results, "heterogeneity", "projection")
    names = [short(each, 60) for each in found.get("user") or []]
    two, three = matrix(found.get("two")), matrix(found.get("three"))
    group, labels = groups(found.get("cluster"), len(names))
    n, sizes = len(labels), np.bincount(group, minlength=len(labels))
    tips = [f"{name}, {labels[k]}" for name, k in zip(names, group, strict=True)]
    labels = tuple(f"{label} ({count(int(size))} users)" for label, size in zip(labels, sizes, strict=False))
    method, near = clean(found.get("method")) or "t-SNE", number(found.get("perplexity"))
    perplexity = "" if near is None else f" (perplexity {fixed(near, 0)})"
    blocks: list[Block] = []
    if two is not None and len(two) == len(names) and two.shape[1] == 2:
        blocks.append(
            Chart(
                name="projection-2d",
                caption=f"{count(len(names))} users by {method} in two dimensions{perplexity}. "
                "Users near each other have similar rewards; distances "
                "between far groups, and the axes, mean nothing. Such maps show groups in noise too: believe the "
                "tests and the stability, not the picture.",
                alt=f"Map of {len(names)} users coloured by {n} clusters.",
                x=bare(two, 0),
                y=bare(two, 1),
                marks=(Dots(xy=two, group=group, tips=tips, labels=labels),),
                records=[
                    {"user": clean(u), "cluster": name, "x": float(x), "y": float(y)}
                    for u, name, (x, y) in zip(found["user"], found["cluster"], two, strict=True)
                ],
                square=True,
            )
        )
    if three is not None and len(three) == len(names) and three.shape[1] == 3:
        blocks.append(
            Cloud(
                name="projection-3d",
                caption="The same in three dimensions. Drag, or use the arrow keys, to turn it.",
                alt=f"Turnable map of {len(names)} users in three dimensions, coloured by {n} clusters.",
                xyz=three,
                group=group,
                tips=tips,
                labels=labels,
                records=[
                    {"user": clean(u), "cluster": name, "x": float(p[0]), "y": float(p[1]), "z": float(p[2])}
                    for u, name, p in zip(found["user"], found["cluster"], three, strict=True)
                ],
            )
        )
    if found.get("note"):
        blocks.append(note(found["note"]))
    if not blocks:
        blocks.append(left_out(results, "projection", "the results hold no map of users"))
    covariates = entries(part(results, "heterogeneity").get("covariates"))
    if covariates:
        blocks.append(_covariates(covariates))
    else:
        why = "users carry no covariates, or none was tried, so that nothing can be said of who is in which cluster"
        blocks.append(left_out(results, "covariates", why))
    return Section(
        anchor="map",
        title="A map of users",
        lead="Each point is a user; colours and shapes are clusters.",
        blocks=tuple(blocks),
    )


def _covariates(rows: Sequence[dict[str, Any]]) -> Grid:
    keys = (
        "covariate",
        "kind",
        "against",
        "name_of_statistic",
        "statistic",
        "p_value",
        "p_adjusted",
        "n_users",
        "detail",
    )
    return Grid(
        name="covariates",
        caption="What is known of users (age, country, expertise ...) and whether clusters or tastes go with it. "
        "p, corrected: for the number of pairs tried; below 0.05 it is unlikely to be chance.",
        header=("Known of users", "Against", "Statistic", "", "p", "p, corrected", "Users", "Detail"),
        numeric=(False, False, False, True, True, True, True, False),
        rows=[
            (
                short(row.get("covariate"), 60),
                short(row.get("against"), 60),
                short(row.get("name_of_statistic"), 40),
                fixed(number(row.get("statistic")), 3),
                p_value(number(row.get("p_value"))),
                p_value(number(row.get("p_adjusted"))),
                count(number(row.get("n_users"))),
                short(row.get("detail"), 160) if row.get("detail") else "",
            )
            for row in rows
        ],
        records=[{key: clean(v) if isinstance(v := row.get(key), str) else number(v) for key in keys} for row in rows],
        strong=frozenset(i for i, row in enumerate(rows) if (number(row.get("p_adjusted")) or 1) < 0.05),
    )


def bare(places: np.ndarray, axis: int) -> Axis:
    """An axis without ticks, for a map whose units mean nothing; both are of one length: the map is square."""
    low, high = places.min(0), places.max(0)
    middle, half = float((low + high)[axis] / 2), 0.53 * float((high - low).max()) + 1e-9
    return Axis(label="", low=middle - half, high=middle + half, ticks=(), names=())


def matrix(given: object) -> np.ndarray | None:
    """Rows of numbers of one length; None where they are not, null standing for NaN."""
    if not isinstance(given, list) or not given or not all(isinstance(row, list) for row in given):
        return None
    if len({len(row) for row in given}) != 1:
        return None
    return np.array([[math.nan if v is None else float(v) for v in row] for row in given])


def groups(given: object, n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Group of every user from 0 and the groups' names; clusters are numbered from 1, and 0 is no cluster.

    Users without one come last. All are without one where clusters are not given.
    """
    cluster = np.zeros(n, dtype=np.int64)
    if isinstance(given, list) and len(given) == n:
        cluster = np.array([int(number(each) or 0) for each in given], dtype=np.int64).reshape(n)
    last = int(cluster.max(initial=0))
    names = tuple(f"cluster {k + 1}" for k in range(last))
    if (cluster < 1).any():
        return np.where(cluster < 1, last, cluster - 1), (*names, "no cluster" if last else "all users")
    return cluster - 1, names


def _off_diagonal(values: np.ndarray) -> float:
    n = len(values)
    return float(np.nanmax(values[~np.eye(n, dtype=bool)])) if n > 1 else 1.0
