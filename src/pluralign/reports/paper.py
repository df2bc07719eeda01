"""Charts by matplotlib, as PNG and SVG for papers. What they show is what the page shows; `svg` draws the page's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pluralign.files import replacing
from pluralign.reports.blocks import Chart, Cloud, Dots, Heatmap, Line, Rule, Spans, Stretch
from pluralign.reports.reading import short
from pluralign.reports.svg import COLOURS, PITCH, SHAPES, STOPS, YAW, unit_cube

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by readers who are colour-blind; yellow last, for it is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#B8A800")
_MARKERS = "os^Dv"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pluralign",
    "figure.dpi": 100,
}


def draw_figures(folder: Path, figures: Iterable[Chart | Cloud | Heatmap]) -> list[Path]:
    """Write every figure as `NAME.png` (200 dots per inch) and `NAME.svg`, and return the paths."""
    import matplotlib as mpl

    written = []
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Labels may hold letters that the font has not; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        for each in figures:
            figure = _figure(each)
            options: dict[str, Any]
            for ending, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
                path = folder / f"{each.name}.{ending}"
                with replacing(path) as temporary:
                    figure.savefig(temporary, format=ending, **options)
                figure.set_layout_engine("none")  # laid out once; the second file is drawn as the first
                written.append(path)
    return written


def _figure(shown: Chart | Cloud | Heatmap) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no global list of figures, no window

    match shown:
        case Heatmap():
            figure = Figure(figsize=(6.5 if shown.null is not None else 3.6, 3.2), layout="constrained")
            _heatmap(figure, shown)
        case Cloud():
            figure = Figure(figsize=(4.2, 4.2))
            _cloud(figure, shown)
        case Chart():
            labels = _legend_of(shown)
            height = 0.8 + 0.27 * len(shown.y.names) if shown.y.categories else 5.2 if shown.square else 2.8
            height += 0.2 * math.ceil(len(labels) / _columns(labels))
            figure = Figure(figsize=(6.5 if not shown.square else 5.2, height), layout="constrained")
            _chart(figure.add_subplot(), shown)
    return figure


def _chart(axes: Axes, chart: Chart) -> None:
    for mark in chart.marks:
        match mark:
            case Spans():
                colour = PALETTE[mark.colour % COLOURS]
                for at, low, high in zip(mark.at, mark.low, mark.high, strict=True):
                    if math.isfinite(low) and math.isfinite(high):
                        axes.plot([low, high], [at, at], color=colour, lw=1.2, solid_capstyle="butt")
                axes.plot(mark.value, mark.at, ls="", label=_label(mark.label), **_marker(mark.colour, mark.hollow))
            case Line():
                look: dict[str, Any] = _marker(mark.colour) if mark.marked else {}
                look |= {"color": PALETTE[mark.colour % COLOURS], "lw": 1.2, "ls": "--" if mark.dashed else "-"}
                axes.plot(mark.x, mark.y, label=_label(mark.label), **look)
                if mark.low is not None and mark.high is not None:
                    axes.vlines(mark.x, mark.low, mark.high, color=PALETTE[mark.colour % COLOURS], lw=1)
            case Stretch():
                axes.barh(
                    mark.at, mark.stop - mark.start, left=mark.start, height=0.6, label=_label(mark.label),
                    color=PALETTE[mark.colour % COLOURS], edgecolor="white", linewidth=0.6,
                )  # fmt: skip
            case Dots():
                size = 16 if len(mark.xy) < 400 else 8 if len(mark.xy) < 1500 else 4
                for k in np.unique(mark.group):
                    here = mark.xy[mark.group == k]
                    label = _label(mark.labels[int(k)]) if int(k) < len(mark.labels) else None
                    axes.scatter(
                        here[:, 0], here[:, 1], s=size, linewidths=0, label=label, rasterized=len(mark.xy) > 2000,
                        color=PALETTE[int(k) % COLOURS], marker=_MARKERS[int(k) % SHAPES],
                    )  # fmt: skip
            case Rule():
                line = axes.axvline if mark.upright else axes.axhline
                line(mark.at, color="#777777", lw=0.8, ls=":" if mark.dashed else "-", label=_label(mark.label))
    axes.set_xlim(chart.x.low, chart.x.high)
    axes.set_ylim(*((chart.y.high, chart.y.low) if chart.y.categories else (chart.y.low, chart.y.high)))
    axes.set_xticks(chart.x.ticks, [_plain(name) for name in chart.x.names])
    axes.set_yticks(chart.y.ticks, [_plain(short(name, 40)) for name in chart.y.names])
    axes.set_xlabel(_plain(chart.x.label))
    axes.set_ylabel(_plain(chart.y.label))
    if chart.square:
        axes.set_aspect("equal")
    if labels := _legend_of(chart):
        axes.figure.legend(loc="outside upper center", ncols=_columns(labels), fontsize=8)


def _legend_of(chart: Chart) -> list[str]:
    found: list[str] = []
    for mark in chart.marks:
        found += mark.labels if isinstance(mark, Dots) else [mark.label] if mark.label else []
    return found


def _columns(labels: Sequence[str]) -> int:
    """How many columns of a legend stand side by side."""
    return max(1, min(4, 90 // (max(map(len, labels), default=0) + 8)))


def _heatmap(figure: Figure, shown: Heatmap) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("cosine", [tuple(v / 255 for v in stop) for stop in STOPS])
    panels = [("users", shown.values)] + ([("under the null", shown.null)] if shown.null is not None else [])
    image = None
    for k, (title, values) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), k + 1)
        image = axes.imshow(values, cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        if k == 0:
            for edge in np.flatnonzero(np.diff(shown.group)) + 0.5:
                axes.axhline(edge, color="black", lw=0.5)
                axes.axvline(edge, color="black", lw=0.5)
    if image is not None:
        figure.colorbar(image, ax=figure.axes, label="cosine", shrink=0.85)


def _cloud(figure: Figure, shown: Cloud) -> None:
    axes: Any = figure.add_subplot(projection="3d")
    at = unit_cube(shown.xyz)
    for k in np.unique(shown.group):
        here = at[shown.group == k]
        # The upright axis of the page is y; matplotlib's is z.
        axes.scatter(
            here[:, 0], -here[:, 2], here[:, 1], s=10 if len(at) < 400 else 3, linewidths=0, depthshade=True,
            color=PALETTE[int(k) % COLOURS], marker=_MARKERS[int(k) % SHAPES], label=_label(shown.labels[int(k)]),
        )  # fmt: skip
    axes.view_init(elev=math.degrees(PITCH), azim=-90 - math.degrees(YAW))
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_ticklabels([])
    figure.legend(loc="upper center", ncols=2, fontsize=8)


def _marker(colour: int, hollow: bool = False) -> dict[str, Any]:
    drawn = PALETTE[colour % COLOURS]
    return {
        "marker": _MARKERS[colour % SHAPES],
        "ms": 4.5,
        "mfc": "white" if hollow else drawn,
        "mec": drawn,
        "mew": 1,
    }


def _plain(text: str) -> str:
    """Text in which matplotlib finds no mathematics."""
    return text.replace("$", r"\$")


def _label(text: str | None) -> str | None:
    """The same for a legend, which leaves out what begins with an underscore."""
    return None if text is None else _plain(f" {text}" if text.startswith("_") else text)
