"""What a section is made of. Sections say what is shown; `svg`, `paper` and the template say how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pluralign.reports.reading import LONGEST, Number, clean

Record = Mapping[str, object]
Points2 = Float[np.ndarray, "points 2"]
Points3 = Float[np.ndarray, "points 3"]
Groups = Int[np.ndarray, " points"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: What it shows, with its unit.
        low: Lower end.
        high: Upper end.
        ticks: Where ticks stand.
        names: What is written at the ticks.
        categories: Whether the ticks are rows 0, 1, 2 ... from the top, each with its name, and not numbers.
    """

    label: str
    low: Number
    high: Number
    ticks: tuple[Number, ...]
    names: tuple[str, ...]
    categories: bool = False


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Estimates with intervals, one beside each category; `hollow` marks a control.

    Attributes:
        at: Row of each.
        value, low, high: Estimate and interval ends; NaN where there is no interval.
        tips: What a reader who points at it is told.
    """

    at: Sequence[Number]
    value: Sequence[Number]
    low: Sequence[Number]
    high: Sequence[Number]
    tips: Sequence[str]
    colour: int
    hollow: bool = False
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve through points, with whiskers where `low` and `high` are given."""

    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number] | None = None
    high: Sequence[Number] | None = None
    tips: Sequence[str] = ()
    colour: int
    dashed: bool = False
    marked: bool = True
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A filled bar from `start` to `stop` in one category, with a text inside where it fits."""

    at: Number
    start: Number
    stop: Number
    colour: int
    text: str = ""
    tip: str = ""
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Many points, each of one group, drawn in the group's colour and shape. `tips` has one text per point."""

    xy: Points2
    group: Groups
    tips: Sequence[str]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A line across the whole chart at a value of the x axis (`upright`) or of the y axis."""

    at: Number
    upright: bool = True
    dashed: bool = True
    label: str | None = None


Mark = Spans | Line | Stretch | Dots | Rule


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure on two axes.

    Attributes:
        name: Of its files, `figures/NAME.svg` and `tables/NAME.csv`.
        caption: What is shown and how to read it.
        alt: The same for who cannot see it: what it shows and what stands out.
        x, y: Axes.
        marks: Drawn in this order.
        records: The numbers, one mapping per line of the CSV file.
        height: Of the plotted area in CSS pixels; categories have their own.
        square: Whether both axes have the same scale.
    """

    name: str
    caption: str
    alt: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    records: Sequence[Record]
    height: int = 260
    square: bool = False


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points in three dimensions, which a reader can turn."""

    name: str
    caption: str
    alt: str
    xyz: Points3
    group: Groups
    tips: Sequence[str]
    labels: tuple[str, ...]
    records: Sequence[Record]


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """A symmetric matrix of values in [-1, 1], beside matrices of the same kind under its null.

    Attributes:
        values: The matrix, (users, users).
        names: Of its rows, the same as of its columns.
        group: Group of every row, rows of a group standing together.
        null: The same matrix under the null, or None.
    """

    name: str
    caption: str
    alt: str
    values: Float[np.ndarray, "users users"]
    names: Sequence[str]
    group: Groups
    null: Float[np.ndarray, "drawn drawn"] | None
    records: Sequence[Record]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table: cells are texts as shown; `records` are the numbers behind them, for `tables/NAME.csv`.

    Attributes:
        numeric: For every column, whether its cells are numbers, aligned to the right.
        strong: Rows that stand out.
        quiet: Rows that are controls.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: Sequence[tuple[str, ...]]
    records: Sequence[Record]
    strong: frozenset[int] = frozenset()
    quiet: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph. `kind`: plain, explain (what a figure means), note, or missing (why a part is left out)."""

    text: str
    kind: str = "plain"


def note(given: object) -> Text:
    """A remark that came with the results, as a sentence."""
    text = clean(given, LONGEST).strip()
    text = text[:1].upper() + text[1:]
    return Text(text=f"{text}." if text[-1:].isalnum() else text, kind="note")


def left_out(results: Mapping[str, Any], part: str, otherwise: str) -> Text:
    """The line in the place of an absent part: the results' own reason (`heterogeneity.missing`), or `otherwise`."""
    reasons = (results.get("heterogeneity") or {}).get("missing") or {}
    return Text(text=f"Left out: {clean(reasons.get(part) or otherwise, LONGEST).rstrip('.')}.", kind="missing")


@dataclass(frozen=True, kw_only=True)
class Subheading:
    text: str


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline number, with its interval and, beside it, what it must be compared with."""

    label: str
    value: str
    interval: str = ""
    beside: str = ""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The verdict: `answer` in words, `mood` yes, no or unsure, the paragraph, and the tiles."""

    answer: str
    mood: str
    reason: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, kw_only=True)
class Duel:
    """A comparison with its texts: what a cluster prefers, what the others do, and by how much."""

    prompt: str
    preferred: str
    other: str
    facts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Duels:
    name: str
    title: str
    duels: tuple[Duel, ...]
    records: Sequence[Record]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the scan found: severity error, warning or note."""

    severity: str
    name: str
    message: str
    advice: str
    facts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    name: str
    findings: tuple[Finding, ...]
    records: Sequence[Record]


@dataclass(frozen=True, kw_only=True)
class Glossary:
    words: tuple[tuple[str, str], ...]


Block = Chart | Cloud | Heatmap | Grid | Text | Subheading | Headline | Duels | Findings | Glossary


@dataclass(frozen=True, kw_only=True)
class Section:
    """A numbered section: its anchor, its title, one line on what it answers, and its blocks."""

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...] = field(default=())
