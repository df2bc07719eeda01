"""Charts as SVG inside the page.

Drawn here and not by a plotting library in the browser: the page of 5,000 users stays under a megabyte instead of
carrying five of plotly, opens at once, prints as it looks, follows light and dark through CSS, needs no script to be
read, and a user's id is text and nothing else. The page's own script adds what a drawing cannot do: tips, turning.

Every chart is drawn twice, wide and narrow: a drawing scaled to a phone would have letters of half the size.
Many points of one group are one path, so that 5,000 users are a handful of elements. No style attributes: the page's
content policy forbids them.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from pluralign.reports.blocks import Axis, Chart, Cloud, Dots, Line, Mark, Points2, Rule, Spans, Stretch
from pluralign.reports.reading import Number, short

WIDE, NARROW = 740, 344  # CSS pixels
COLOURS = 8
SHAPES = 5  # with 8 colours 40 groups look different
YAW, PITCH = -0.6, 0.45  # of a cloud before anybody turns it, radians
_LETTER = 6.9  # mean width of a letter at 13 px
STOPS = ((0x0B, 0x4F, 0x8A), (0x6A, 0xAE, 0xD6), (0xF7, 0xF7, 0xF4), (0xF0, 0xA0, 0x62), (0xB3, 0x45, 0x00))


@dataclass(frozen=True)
class _Frame:
    """Where values stand on the drawing."""

    x: Axis
    y: Axis
    left: Number
    top: Number
    width: Number
    height: Number

    def across(self, value: Number) -> float:
        return self.left + self.width * (value - self.x.low) / (self.x.high - self.x.low)

    def down(self, value: Number) -> float:
        part = (value - self.y.low) / (self.y.high - self.y.low)
        return self.top + self.height * (part if self.y.categories else 1 - part)


def draw(chart: Chart, *, narrow: bool) -> Markup:
    """One drawing of a chart."""
    width = NARROW if narrow else WIDE
    frame = _frame(chart, width, narrow)
    height = frame.top + frame.height + (46 if chart.x.label else 30 if chart.x.ticks else 2)
    dots = next((mark for mark in chart.marks if isinstance(mark, Dots)), None)
    place = (frame.left, frame.top, frame.width, frame.height, chart.x.low, chart.x.high, chart.y.low, chart.y.high)
    hover = Markup(' data-dots="{}" data-frame="{}"').format(chart.name, " ".join(f"{v:g}" for v in place))
    parts = [
        Markup('<svg class="chart {}" viewBox="0 0 {} {:.0f}" width="{}" role="img" aria-label="{}"{}>').format(
            "narrow" if narrow else "wide", width, height, width, chart.alt, hover if dots else ""
        ),
        *_grid(frame, narrow),
        *(piece for mark in chart.marks for piece in _mark(mark, frame)),
        *_labels(frame, height, narrow),
        Markup("</svg>"),
    ]
    return Markup("").join(parts)


def legend(chart: Chart) -> list[tuple[Markup, str]]:
    """Samples and what they stand for."""
    found: list[tuple[Markup, str]] = []
    for mark in chart.marks:
        match mark:
            case Spans(label=str(label)):
                found.append((_sample(_glyph(mark.colour, 12, 8, 5, mark.hollow)), label))
            case Line(label=str(label)):
                dash = Markup(' stroke-dasharray="4 3"') if mark.dashed else ""
                line = Markup('<path class="s{} line" d="M0 8H24"{}/>').format(mark.colour % COLOURS, dash)
                found.append((_sample(line + (_glyph(mark.colour, 12, 8, 4) if mark.marked else Markup())), label))
            case Stretch(label=str(label)):
                block = Markup('<rect class="s{} area" x="3" y="2" width="18" height="12"/>')
                found.append((_sample(block.format(mark.colour % COLOURS)), label))
            case Rule(label=str(label)):
                found.append((_sample(_rule_path("M0 8H24", mark.dashed)), label))
            case Dots():
                found += [(_sample(_glyph(k, 12, 8, 5)), label) for k, label in enumerate(mark.labels)]
    return found


def group_legend(labels: Sequence[str]) -> list[tuple[Markup, str]]:
    """The same for a cloud."""
    return [(_sample(_glyph(k, 12, 8, 5)), label) for k, label in enumerate(labels)]


def draw_cloud(cloud: Cloud) -> Markup:
    """The cloud as it stands before it is turned; the page's script draws the same again at other angles."""
    scaled = unit_cube(cloud.xyz)
    seen = project(scaled, YAW, PITCH)
    return Markup(
        '<svg class="cloud" viewBox="-200 -200 400 400" width="480" role="img" tabindex="0" aria-label="{}" '
        'data-cloud="{}" data-yaw="{}" data-pitch="{}"><g class="dots">{}</g></svg>'
    ).format(cloud.alt, cloud.name, YAW, PITCH, Markup("").join(_dots(seen[:, :2] * 115, cloud.group)))


def unit_cube(xyz: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """Points moved and scaled, alike in all directions, so that the widest direction spans [-1, 1]."""
    if not len(xyz):
        return xyz
    low, high = xyz.min(0), xyz.max(0)
    return (xyz - (low + high) / 2) / max(float((high - low).max()) / 2, 1e-12)


def project(xyz: Float[np.ndarray, "points 3"], yaw: Number, pitch: Number) -> Float[np.ndarray, "points 3"]:
    """Across, down and towards the reader of points turned by `yaw` about the upright axis, then tilted by `pitch`."""
    x, y, z = xyz.T
    across, depth = x * math.cos(yaw) + z * math.sin(yaw), -x * math.sin(yaw) + z * math.cos(yaw)
    down, near = -(y * math.cos(pitch) - depth * math.sin(pitch)), y * math.sin(pitch) + depth * math.cos(pitch)
    return np.stack([across, down, near], axis=1)


def picture(values: Float[np.ndarray, "rows columns"]) -> str:
    """Values in [-1, 1] as a PNG, one pixel each, in a data address: blue below 0, white at 0, orange above."""
    where = (np.clip(np.nan_to_num(values), -1, 1) + 1) / 2 * (len(STOPS) - 1)
    stops = np.array(STOPS, dtype=float)
    below = np.minimum(where.astype(int), len(STOPS) - 2)
    share = (where - below)[..., None]
    rgb = np.rint(stops[below] * (1 - share) + stops[below + 1] * share).astype(np.uint8)
    rows, columns = values.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), rgb.reshape(rows, 3 * columns)], axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _frame(chart: Chart, width: int, narrow: bool) -> _Frame:
    x, y = chart.x, chart.y
    if y.categories:
        longest = max((len(name) for name in y.names), default=0) * _LETTER
        left = 10.0 if narrow else min(max(70.0, 1.1 * longest + 16), 300.0)
        row = 56 if narrow else 34
        return _Frame(x, y, left, 12, width - left - 22, row * len(y.names))
    longest = max((len(name) for name in y.names), default=0)
    left = 14 + 7.2 * longest + (0 if narrow else 20)
    top = 34 if narrow and y.label else 12
    across = width - left - 16
    if chart.square:
        side = min(width - 2.0, 480.0)
        return _Frame(x, y, 1, 1, side, side)
    return _Frame(x, y, left, top, across, chart.height * (0.85 if narrow else 1))


def _grid(frame: _Frame, narrow: bool) -> Iterator[Markup]:
    bottom, right = frame.top + frame.height, frame.left + frame.width
    if not frame.x.ticks:
        box = Markup('<rect class="box" x="{:g}" y="{:g}" width="{:g}" height="{:g}" rx="6"/>')
        yield box.format(frame.left, frame.top, frame.width, frame.height)
        return
    line = Markup('<path class="grid" d="{}"/>')
    yield line.format("".join(f"M{frame.across(t):.1f} {frame.top:.1f}V{bottom:.1f}" for t in frame.x.ticks))
    if not frame.y.categories:
        yield line.format("".join(f"M{frame.left:.1f} {frame.down(t):.1f}H{right:.1f}" for t in frame.y.ticks))
    elif narrow:
        edges = [frame.down(t - 0.5) for t in frame.y.ticks[1:]]
        yield line.format("".join(f"M{frame.left:.1f} {edge:.1f}H{right:.1f}" for edge in edges))


def _labels(frame: _Frame, height: Number, narrow: bool) -> Iterator[Markup]:
    tick = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    bottom = frame.top + frame.height
    room = 0.0
    for at, name in zip(frame.x.ticks, frame.x.names, strict=True):
        x, half = frame.across(at), len(name) * _LETTER / 2
        if x - half >= room:  # names that would touch the one before are left out
            yield tick.format(x, bottom + 18, "middle", name)
            room = x + half + 6
    if not frame.x.ticks:
        return
    yield Markup('<path class="axis" d="M{:.1f} {:.1f}H{:.1f}"/>').format(frame.left, bottom, frame.left + frame.width)
    if frame.x.label:
        yield Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
            frame.left + frame.width / 2, height - 8, short(frame.x.label, 52 if narrow else 100)
        )
    for at, name in zip(frame.y.ticks, frame.y.names, strict=True):
        y = frame.down(at)
        if frame.y.categories and narrow:
            yield tick.format(frame.left, y - 13, "start", short(name, 46))
        else:
            fits = int((frame.left - 16) / (1.07 * _LETTER))
            yield tick.format(frame.left - 9, y + 4.5, "end", short(name, max(fits, 4)))
    if not frame.y.categories and frame.y.label:
        if narrow:
            yield Markup('<text class="label" x="4" y="16">{}</text>').format(short(frame.y.label, 52))
        else:
            middle = frame.top + frame.height / 2
            yield Markup(
                '<text class="label" transform="translate(14 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>'
            ).format(middle, frame.y.label)


def _mark(mark: Mark, frame: _Frame) -> Iterator[Markup]:
    match mark:
        case Spans():
            yield from _spans(mark, frame)
        case Line():
            yield from _line(mark, frame)
        case Stretch():
            yield from _stretch(mark, frame)
        case Dots():
            at = np.array([(frame.across(x), frame.down(y)) for x, y in mark.xy]).reshape(-1, 2)
            yield from _dots(at, mark.group)
        case Rule():
            if mark.upright:
                path = f"M{frame.across(mark.at):.1f} {frame.top:.1f}v{frame.height:.1f}"
            else:
                path = f"M{frame.left:.1f} {frame.down(mark.at):.1f}h{frame.width:.1f}"
            yield _rule_path(path, mark.dashed)


def _spans(mark: Spans, frame: _Frame) -> Iterator[Markup]:
    lower = 0.2 if frame.left < 20 else 0  # under the name of the row, where it stands above
    for at, value, low, high, tip in zip(mark.at, mark.value, mark.low, mark.high, mark.tips, strict=True):
        x, y = frame.across(value), frame.down(at + lower)
        whisker = ""
        if math.isfinite(low) and math.isfinite(high):
            a, b = frame.across(low), frame.across(high)
            whisker = f"M{a:.1f} {y:.1f}H{b:.1f}M{a:.1f} {y - 4:.1f}v8M{b:.1f} {y - 4:.1f}v8"
        yield Markup('<g class="mark" data-tip="{}"><path class="s{} line" d="{}"/>{}</g>').format(
            tip, mark.colour % COLOURS, whisker, _glyph(mark.colour, x, y, 5, mark.hollow)
        )


def _line(mark: Line, frame: _Frame) -> Iterator[Markup]:
    at = [(frame.across(x), frame.down(y)) for x, y in zip(mark.x, mark.y, strict=True)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at) if at else ""
    dash = Markup(' stroke-dasharray="5 4"') if mark.dashed else ""
    yield Markup('<path class="s{} line" d="{}"{}/>').format(mark.colour % COLOURS, path, dash)
    for i, (x, y) in enumerate(at if mark.marked else []):
        whisker = ""
        if mark.low is not None and mark.high is not None and math.isfinite(mark.low[i] + mark.high[i]):
            a, b = frame.down(mark.low[i]), frame.down(mark.high[i])
            whisker = f"M{x:.1f} {a:.1f}V{b:.1f}M{x - 4:.1f} {a:.1f}h8M{x - 4:.1f} {b:.1f}h8"
        yield Markup('<g class="mark" data-tip="{}"><path class="s{} line" d="{}"/>{}</g>').format(
            mark.tips[i] if mark.tips else "", mark.colour % COLOURS, whisker, _glyph(mark.colour, x, y, 4)
        )


def _stretch(mark: Stretch, frame: _Frame) -> Iterator[Markup]:
    a, b = frame.across(mark.start), frame.across(mark.stop)
    narrow = frame.left < 20
    y, height = frame.down(mark.at + (0.2 if narrow else 0)), 24
    shown = mark.text if len(mark.text) * _LETTER + 8 < b - a else ""
    yield Markup(
        '<g class="mark" data-tip="{}"><rect class="s{} area" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}"/>'
        '<text class="inside on{}" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text></g>'
    ).format(
        mark.tip, mark.colour % COLOURS, a, y - height / 2, max(b - a, 0.5), height, mark.colour % COLOURS,
        (a + b) / 2, y + 4.5, shown,
    )  # fmt: skip


def _dots(at: Points2, group: np.ndarray) -> Iterator[Markup]:
    radius = 4.0 if len(at) < 400 else 3.0 if len(at) < 1500 else 2.2
    for k in np.unique(group):
        here, shape = at[group == k], int(k) % SHAPES
        if shape == 0:  # a point of a thick round pen
            path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in here)
            yield Markup('<path class="s{} pen" stroke-width="{:g}" d="{}"/>').format(
                int(k) % COLOURS, 2 * radius, path
            )
        else:
            path = "".join(_outline(shape, x, y, radius) for x, y in here)
            yield Markup('<path class="s{} area dot" d="{}"/>').format(int(k) % COLOURS, path)


def _outline(shape: int, x: Number, y: Number, r: Number) -> str:
    """A filled shape about a point: circle, square, triangle, diamond, triangle on its head."""
    match shape:
        case 0:
            return f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"
        case 1:
            s = 0.86 * r
            return f"M{x - s:.1f} {y - s:.1f}h{2 * s:.1f}v{2 * s:.1f}h{-2 * s:.1f}z"
        case 2:
            return f"M{x:.1f} {y - 1.15 * r:.1f}l{r:.1f} {1.9 * r:.1f}h{-2 * r:.1f}z"
        case 3:
            s = 1.2 * r
            return f"M{x:.1f} {y - s:.1f}l{s:.1f} {s:.1f}l{-s:.1f} {s:.1f}l{-s:.1f} {-s:.1f}z"
    return f"M{x:.1f} {y + 1.15 * r:.1f}l{r:.1f} {-1.9 * r:.1f}h{-2 * r:.1f}z"


def _glyph(colour: int, x: Number, y: Number, r: Number, hollow: bool = False) -> Markup:
    kind = "hollow" if hollow else "area"
    return Markup('<path class="s{} {}" d="{}"/>').format(colour % COLOURS, kind, _outline(colour % SHAPES, x, y, r))


def _rule_path(path: str, dashed: bool) -> Markup:
    return Markup('<path class="rule" d="{}"{}/>').format(path, Markup(' stroke-dasharray="3 3"') if dashed else "")


def _sample(drawn: Markup) -> Markup:
    return Markup('<svg class="sample" viewBox="0 0 24 16" width="24" height="16" aria-hidden="true">{}</svg>').format(
        drawn
    )
