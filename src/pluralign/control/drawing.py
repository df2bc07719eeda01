"""Pictures of control tasks: rewards over the maze, what policies did there, and success of several methods.

Figures are matplotlib's and leave it to the caller where they go: `save` writes one, whole or not at all. Moving
pictures are drawn over one still background by Pillow, which matplotlib brings, in a fraction of its time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from pluralign.control.maze import MAP, Maze
from pluralign.control.tasks import Rollouts
from pluralign.errors import ConfigError
from pluralign.evaluation import Interval
from pluralign.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#B8A800")  # told apart by all
_WALL = "#4a4a4a"
_HEIGHT, _WIDTH = len(MAP) / 2, len(MAP[0]) / 2
_EXTENT = (-_WIDTH, _WIDTH, -_HEIGHT, _HEIGHT)
_PANEL = 2.6  # inches
_DPI = 110
_FINER = 2  # times the size at which frames are drawn, for smooth edges


def reward_maps(
    maze: Maze,
    rewards: Mapping[str, Float[ndarray, "users cells"]],
    *,
    kinds: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Rewards over the maze: a row for every user, a column for every method.

    Every map has its own scale, from its lowest cell to its highest, as rewards fitted to comparisons have no other. A
    star is the user's goal, a ring the cell of the highest reward.

    Args:
        maze: With the goals.
        rewards: By method, in the order of the columns, (users, cells); of one user, if it is the same for all.
        kinds: Kind of every user; None means one user of each kind, in order.
        names: What to call the users; None means what each wants.

    Raises:
        ConfigError: No method, or rewards of another shape, or other numbers of kinds and names.
    """
    from matplotlib.figure import Figure

    kinds = list(range(len(maze.users))) if kinds is None else list(kinds)
    names = [maze.users[kind] for kind in kinds] if names is None else list(names)
    wrong = [
        name
        for name, each in rewards.items()
        if each.shape not in {(len(kinds), len(maze.cells)), (1, len(maze.cells))}
    ]
    if not rewards or wrong or len(names) != len(kinds):
        raise ConfigError(
            f"there are {len(kinds)} users, {len(names)} names and {len(rewards)} methods, of which {wrong} have "
            f"rewards of another shape; each needs (users, cells) = {(len(kinds), len(maze.cells))}, or one user"
        )
    figure = Figure(figsize=(_PANEL * len(rewards) + 0.3, _PANEL * 0.8 * len(kinds) + 0.2), layout="constrained")
    panels = figure.subplots(len(kinds), len(rewards), squeeze=False)
    for column, (method, reward) in enumerate(rewards.items()):
        for row, kind in enumerate(kinds):
            axes, shown = panels[row, column], reward[row % len(reward)]
            grid = np.full((len(MAP), len(MAP[0])), np.nan)
            grid[maze.cells[:, 0], maze.cells[:, 1]] = shown
            axes.imshow(grid, extent=_EXTENT, cmap="viridis", interpolation="nearest")
            _walls(axes)
            _goal(axes, maze, kind, "white")
            axes.plot(*maze.centres[shown.argmax()], "o", ms=11, mfc="none", mec=COLOURS[1], mew=1.8)
            if row == 0:
                axes.set_title(method, fontsize=9)
            if column == 0:
                axes.set_ylabel(names[row], fontsize=8)
    return figure


def paths(
    maze: Maze,
    rollouts: Mapping[str, Rollouts],
    kinds: Mapping[str, Int[ndarray, " episodes"]] | Int[ndarray, " episodes"],
    *,
    most: int = 40,
) -> Figure:
    """Episodes over the map, a panel for every set of them: a user's own comparisons beside the same ones swapped, say.

    A path has the colour of what its user wants, a star of that colour is the goal, a dot where the path ends. The
    share of *all* episodes that succeeded is in the panel's title.

    Args:
        maze: With the goals.
        rollouts: By title, in the order of the panels.
        kinds: Kind of every episode's user: of all panels, or by title, (episodes,).
        most: Paths to draw in a panel, the first ones.

    Raises:
        ConfigError: No panel, or kinds for another number of episodes.
    """
    from matplotlib.figure import Figure

    kind_of = _kinds(rollouts, kinds)
    figure = Figure(figsize=(1.6 * _PANEL * len(rollouts), 1.3 * _PANEL), layout="constrained")
    for axes, (title, done) in zip(figure.subplots(1, len(rollouts), squeeze=False)[0], rollouts.items(), strict=True):
        _ground(axes, maze, kind_of[title], title, done)
        for path, kind in zip(done.path[:most], kind_of[title][:most], strict=True):
            axes.plot(path[:, 0], path[:, 1], lw=0.8, alpha=0.6, color=COLOURS[kind % len(COLOURS)])
            axes.plot(*path[-1, :2], "o", ms=3.5, color=COLOURS[kind % len(COLOURS)], mec="white", mew=0.4)
    return figure


def animate(
    path: Path,
    maze: Maze,
    rollouts: Mapping[str, Rollouts],
    kinds: Mapping[str, Int[ndarray, " episodes"]] | Int[ndarray, " episodes"],
    *,
    most: int = 20,
    frame_s: float = 0.06,
    trail: int = 12,
) -> None:
    """Write episodes as a moving picture (GIF), the panels of `paths` side by side.

    A frame is a decision. Balls have the colour of what their user wants and draw a tail of their last decisions; the
    last frame, half a second longer, shows where everybody ended.

    Args:
        path: To write, ending in .gif.
        maze: With the goals.
        rollouts: By title, in the order of the panels.
        kinds: Kind of every episode's user: of all panels, or by title, (episodes,).
        most: Episodes to show in a panel, the first ones.
        frame_s: Seconds that a frame is shown.
        trail: Decisions in a ball's tail.

    Raises:
        ConfigError: No panel, kinds for another number of episodes, or a path that does not end in .gif.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image, ImageDraw

    if path.suffix.lower() != ".gif":
        raise ConfigError(f'the picture\'s name is "{path.name}"; a moving one must end in .gif')
    kind_of = _kinds(rollouts, kinds)
    figure = Figure(figsize=(1.4 * _PANEL * len(rollouts), 1.15 * _PANEL), layout="constrained", dpi=_DPI * _FINER)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(rollouts), squeeze=False)[0]
    for axes, (title, done) in zip(panels, rollouts.items(), strict=True):
        _ground(axes, maze, kind_of[title], title, done)
    canvas.draw()
    still = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    balls = []  # of every panel: pixels of every path, and colours
    for axes, (title, done) in zip(panels, rollouts.items(), strict=True):
        place = axes.transData.transform(done.path[:most, :, :2].reshape(-1, 2))
        place[:, 1] = still.height - place[:, 1]
        colours = [COLOURS[kind % len(COLOURS)] for kind in kind_of[title][:most]]
        balls.append((place.reshape(*done.path[:most].shape[:2], 2), colours))
    radius = 0.14 * abs(panels[0].transData.transform((1, 0)) - panels[0].transData.transform((0, 0)))[0]
    frames, palette = [], None
    for t in range(max(done.path.shape[1] for done in rollouts.values())):
        frame = still.copy()
        pen = ImageDraw.Draw(frame)
        for place, colours in balls:
            now = min(t, place.shape[1] - 1)
            for one, colour in zip(place, colours, strict=True):
                tail = [(float(x), float(y)) for x, y in one[max(0, now - trail) : now + 1]]
                if len(tail) > 1:
                    pen.line(tail, fill=colour, width=2 * _FINER)
                x, y = tail[-1]
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")
        frame = frame.reduce(_FINER)
        palette = palette or frame.quantize(colors=128)
        frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
    shown = [round(1000 * frame_s)] * (len(frames) - 1) + [round(1000 * frame_s) + 500]
    with replacing(path) as part:
        frames[0].save(part, format="GIF", save_all=True, append_images=frames[1:], duration=shown, loop=0)


def bars(
    success: Mapping[str, Mapping[str, Interval] | Interval],
    *,
    label: str = "success rate",
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Rates by method as bars with their intervals, grouped where each method has several.

    Args:
        success: By method, from the top: an interval, or intervals by group, such as a kind of user.
        label: Of the axis, from 0 to 1.
        reference: Rates to mark by a dotted line, by name, such as that of the oracle.

    Raises:
        ConfigError: No method.
    """
    from matplotlib.figure import Figure

    if not success:
        raise ConfigError("there is no method to draw; name at least one")
    grouped = {method: {"": each} if isinstance(each, Interval) else each for method, each in success.items()}
    groups = list(dict.fromkeys(group for each in grouped.values() for group in each))
    thick = 0.8 / len(groups)
    figure = Figure(figsize=(5.2, 0.9 + 0.3 * len(grouped) * max(1, 0.6 * len(groups))), layout="constrained")
    axes = figure.add_subplot()
    for number, group in enumerate(groups):
        at = [
            row + (number - (len(groups) - 1) / 2) * thick for row, each in enumerate(grouped.values()) if group in each
        ]
        shown = [each[group] for each in grouped.values() if group in each]
        axes.barh(
            at, [each.estimate for each in shown], height=0.9 * thick, color=COLOURS[number % len(COLOURS)],
            label=group or None,
        )  # fmt: skip
        for y, each in zip(at, shown, strict=True):
            if math.isfinite(each.low) and math.isfinite(each.high):
                axes.plot([max(each.low, 0), min(each.high, 1)], [y, y], color="black", lw=1.2, solid_capstyle="butt")
            axes.annotate(
                f"{each.estimate:.2f}", (min(max(each.estimate, each.high if math.isfinite(each.high) else 0), 1), y),
                xytext=(4, 0), textcoords="offset points", va="center", fontsize=7,
            )  # fmt: skip
    for name, rate in (reference or {}).items():
        axes.axvline(rate, ls=":", lw=1, color="#777777", label=name)
    axes.set_yticks(range(len(grouped)), list(grouped), fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xlabel(label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format of the path's ending; the same figure gives the same file.

    Raises:
        ConfigError: The ending is none of png, svg and pdf.
    """
    import matplotlib

    undated: dict[str, dict[str, Any]] = {
        "png": {"dpi": 200, "metadata": {"Software": None}},
        "svg": {"metadata": {"Date": None}},
        "pdf": {"metadata": {"CreationDate": None}},
    }
    ending = path.suffix.lower().removeprefix(".")
    if ending not in undated:
        raise ConfigError(f'the figure\'s name is "{path.name}"; it must end in .{", .".join(undated)}')
    with replacing(path) as part, matplotlib.rc_context({"svg.hashsalt": path.stem}):  # else marks have random names
        figure.savefig(part, format=ending, **undated[ending])


def _kinds(
    rollouts: Mapping[str, Rollouts], kinds: Mapping[str, Int[ndarray, " episodes"]] | Int[ndarray, " episodes"]
) -> dict[str, Int[ndarray, " episodes"]]:
    """Kinds of every panel's episodes."""
    found = {title: kinds.get(title, np.empty(0, int)) if isinstance(kinds, Mapping) else kinds for title in rollouts}
    wrong = [title for title, done in rollouts.items() if len(found[title]) != len(done.success)]
    if not rollouts or wrong:
        raise ConfigError(f"there are {len(rollouts)} panels, and {wrong} have kinds for another number of episodes")
    return found


def _ground(axes: Axes, maze: Maze, kind: Int[ndarray, " episodes"], title: str, done: Rollouts) -> None:
    """A panel without its paths."""
    _walls(axes)
    for each in np.unique(kind):
        _goal(axes, maze, int(each), COLOURS[each % len(COLOURS)])
    axes.set_title(f"{title}: {done.success.mean():.0%} of {len(done.success)} succeed", fontsize=9)


def _walls(axes: Axes) -> None:
    """The map's walls, seen from above."""
    from matplotlib.colors import ListedColormap

    walls = np.array([[1.0 if mark == "#" else np.nan for mark in row] for row in MAP])
    axes.imshow(walls, extent=_EXTENT, cmap=ListedColormap([_WALL]), interpolation="nearest")
    axes.set(xticks=[], yticks=[], xlim=(-_WIDTH, _WIDTH), ylim=(-_HEIGHT, _HEIGHT), aspect="equal")


def _goal(axes: Axes, maze: Maze, kind: int, colour: str) -> None:
    axes.plot(*maze.centres[maze.goal[kind]], "*", ms=12, color=colour, mec="black", mew=0.6, zorder=3)
