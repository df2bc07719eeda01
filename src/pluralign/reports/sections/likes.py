"""What each cluster likes: the comparisons that set it apart, with their texts; columns and words that differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from pluralign.reports import axes
from pluralign.reports.blocks import (
    Block,
    Chart,
    Duel,
    Duels,
    Grid,
    Rule,
    Section,
    Spans,
    Subheading,
    Text,
    left_out,
    note,
)
from pluralign.reports.reading import LONGEST, clean, count, entries, fixed, number, part, percent, short, signed

MOST_WORDS = 8
NUMBERS = ("margin", "margin_others", "observed", "n_observed", "observed_others", "n_observed_others")


def likes(results: dict[str, Any]) -> Section:
    """One part per cluster."""
    blocks: list[Block] = []
    for row in entries(results.get("likes")):
        blocks += _cluster(row)
    blocks += _apart(entries(part(results, "heterogeneity").get("users_apart")))
    return Section(
        anchor="likes",
        title="What each cluster likes",
        lead="The decisions on which a cluster parts from the others, in the words that users saw.",
        blocks=tuple(blocks) or (left_out(results, "likes", "there are no clusters, or nothing sets them apart"),),
    )


def _apart(rows: Sequence[dict[str, Any]]) -> Iterator[Block]:
    """Single users whose weights stand apart from everybody's."""
    if not rows:
        return
    yield Subheading(text="Users who stand apart")
    yield Grid(
        name="users-apart",
        caption="Users whose choices follow what the others' do not, or run against it.",
        header=("User", "Decisions", "How"),
        numeric=(False, True, False),
        rows=[
            (short(row.get("user"), 60), count(number(row.get("n_decisions"))), clean(row.get("detail"), 300))
            for row in rows
        ],
        records=[
            {
                "user": clean(row.get("user")),
                "decisions": number(row.get("n_decisions")),
                "detail": clean(row.get("detail")),
            }
            for row in rows
        ],
    )


def _cluster(row: dict[str, Any]) -> Iterator[Block]:
    k = clean(row.get("cluster"))
    yield Subheading(text=f"Cluster {k}: {count(number(row.get('users')))} users, {percent(number(row.get('share')))}")
    columns = [each for each in entries(row.get("columns")) if number(each.get("difference")) is not None]
    if columns:
        yield _columns(k, columns)
    words = entries(row.get("words"))
    if words:
        yield _words(k, words)
    duels = entries(row.get("comparisons"))
    if duels:
        yield _duels(k, duels)
    if row.get("note"):
        yield note(row["note"])
    if not (columns or words or duels):
        yield Text(text="Nothing sets this cluster apart.", kind="missing")


def _columns(k: str, rows: Sequence[dict[str, Any]]) -> Chart:
    names = [clean(row.get("name")) for row in rows]
    value = [float(row["difference"]) for row in rows]
    low, high = ([_or_nan(row.get(end)) for row in rows] for end in ("low", "high"))
    return Chart(
        name=f"likes-{_part_of_a_file(k)}-columns",
        caption="What this cluster's reward weighs more (right) or less (left) than the other users' reward does, per "
        "standard deviation, with intervals.",
        alt=f"Differences of weight, cluster {k} minus the others: "
        + "; ".join(f"{short(n)} {signed(v, 2)}" for n, v in zip(names, value, strict=True))
        + ".",
        x=axes.numbers([*value, *low, *high], "weight of this cluster minus the others'", include=(0,)),
        y=axes.categories(names),
        marks=(
            Rule(at=0, dashed=False),
            Spans(
                at=range(len(rows)),
                value=value,
                low=low,
                high=high,
                tips=[
                    f"{short(name)}: this cluster {fixed(number(row.get('weight')), 2)}, the others "
                    f"{fixed(number(row.get('weight_others')), 2)}, difference {signed(v, 2)} "
                    f"[{signed(number(row.get('low')), 2)}, {signed(number(row.get('high')), 2)}]"
                    for name, row, v in zip(names, rows, value, strict=True)
                ],
                colour=0,
            ),
        ),
        records=[
            {"cluster": k, "name": name}
            | {key: number(row.get(key)) for key in ("weight", "weight_others", "difference", "low", "high")}
            for name, row in zip(names, rows, strict=True)
        ],
    )


def _words(k: str, rows: Sequence[dict[str, Any]]) -> Grid:
    rows = sorted(rows, key=lambda row: -(number(row.get("z")) or 0.0))
    ends = rows if len(rows) <= 2 * MOST_WORDS else rows[:MOST_WORDS] + rows[-MOST_WORDS:]
    return Grid(
        name=f"likes-{_part_of_a_file(k)}-words",
        caption="Words commoner in what this cluster prefers (above 0) or turns down (below 0) than among the others. "
        "z: the log of the ratio of odds over its standard error; beyond ±3 it is rarely chance.",
        header=("Word", "Log of the ratio of odds", "z"),
        numeric=(False, True, True),
        rows=[
            (short(row.get("word"), 60), signed(number(row.get("log_odds")), 2), signed(number(row.get("z")), 1))
            for row in ends
        ],
        records=[
            {"cluster": k, "word": clean(row.get("word"))} | {key: number(row.get(key)) for key in ("log_odds", "z")}
            for row in rows
        ],
    )


def _duels(k: str, rows: Sequence[dict[str, Any]]) -> Duels:
    return Duels(
        name=f"likes-{_part_of_a_file(k)}-comparisons",
        title=f"Comparisons on which cluster {k} differs most from the others",
        duels=tuple(
            Duel(
                prompt=clean(row.get("prompt"), LONGEST),
                preferred=clean(row.get("preferred"), LONGEST),
                other=clean(row.get("other"), LONGEST),
                facts=tuple(_facts(row)),
            )
            for row in rows
        ),
        records=[
            {"cluster": k}
            | {key: clean(row.get(key)) for key in ("prompt", "preferred", "other")}
            | {key: number(row.get(key)) for key in NUMBERS}
            for row in rows
        ],
    )


def _facts(row: dict[str, Any]) -> Iterator[str]:
    own, others = number(row.get("margin")), number(row.get("margin_others"))
    if own is not None:
        yield f"this cluster prefers it with probability {fixed(_chance(own), 2)}"
    if others is not None:
        yield f"the others with {fixed(_chance(others), 2)}"
    if (observed := number(row.get("observed"))) is not None:
        asked = number(row.get("n_observed"))
        yield f"members chose it {percent(observed)} of the time" + (
            "" if asked is None else f" ({count(asked)} decisions)"
        )
    if (observed := number(row.get("observed_others"))) is not None:
        asked = number(row.get("n_observed_others"))
        yield f"others {percent(observed)}" + ("" if asked is None else f" ({count(asked)})")


def _chance(margin: float) -> float:
    """Probability of a choice from its margin under the logit."""
    return 0.5 * (1 + math.tanh(margin / 2))


def _or_nan(value: object) -> float:
    found = number(value)
    return math.nan if found is None else found


def _part_of_a_file(name: str) -> str:
    """A name that any file system takes."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:40] or "cluster"
