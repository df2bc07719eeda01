"""Pictures of the table from above: what a policy does for each kind of user, and where a reward wants the block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from pluralign.control.table_top import HALF_BLOCK, HIGH, LOW, ZONE_RADIUS, ZONES
from pluralign.control.tasks import Rollouts, Steered
from pluralign.errors import ConfigError
from pluralign.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_COLOURS = ("#0072B2", "#D55E00")  # of the kinds of users and their zones
_GRID = (41, 71)  # places along x and y of a reward map
_FRAME_MS = 160


def draw_rollouts(task: Steered, rollouts: Mapping[str, Rollouts], user: Int[ndarray, " episodes"]) -> Figure:
    """Paths of block and gripper: a row per policy, a column per kind of user.

    The block's path is a thick line from its first place (open square) to its last (filled where the user got what they
    want); the gripper's is thin and grey. The zone that the user wants is full.

    Args:
        task: Whose users.
        rollouts: Episodes of each policy, by its name.
        user: Kind of each episode's user, the same for all policies.

    Raises:
        ConfigError: No policy.
    """
    from matplotlib.figure import Figure

    if not rollouts:
        raise ConfigError("there are no rollouts to draw")
    figure = Figure(figsize=(4.2 * len(task.users), 2.6 * len(rollouts)), layout="compressed")
    grid = figure.subplots(len(rollouts), len(task.users), squeeze=False, sharex=True, sharey=True)
    for (name, each), row in zip(rollouts.items(), grid, strict=True):
        for kind, axes in enumerate(row):
            mine = user == kind
            _table(axes, wanted=kind)
            for path, won in zip(each.path[mine], each.success[mine], strict=True):
                axes.plot(path[:, 1], path[:, 0], color="0.7", linewidth=0.6)
                axes.plot(path[:, 4], path[:, 3], color=_COLOURS[kind], linewidth=1.6)
                face = _COLOURS[kind] if won else "none"
                axes.plot(path[0, 4], path[0, 3], "s", color="0.3", markerfacecolor="none", markersize=5)
                axes.plot(path[-1, 4], path[-1, 3], "s", color=_COLOURS[kind], markerfacecolor=face, markersize=7)
            share = f"{each.success[mine].mean():.0%}" if mine.any() else "no episode"
            axes.set_title(f"{name}, {task.users[kind]}: {share}", fontsize=9)
            axes.label_outer()
    return figure


def reward_map() -> Float[ndarray, "places 7"]:
    """Observations with a released block at every place of a grid, and the end effector just above it."""
    x, y = (np.linspace(LOW[i], HIGH[i], n) for i, n in enumerate(_GRID))
    place = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    n = len(place)
    block = np.column_stack([place, np.full(n, HALF_BLOCK)])
    return np.column_stack([block + np.array([0, 0, 2 * HALF_BLOCK]), block, np.zeros(n)])


def draw_rewards(rewards: Mapping[str, Float[ndarray, " places"]]) -> Figure:
    """Where a reward wants the block: a map per reward, each in colours of its own, since their units differ.

    Args:
        rewards: Of the observations of `reward_map`, by the name of the reward or user.

    Raises:
        ConfigError: No reward, or one that is not of these observations.
    """
    from matplotlib.figure import Figure

    if not rewards or any(each.shape != (_GRID[0] * _GRID[1],) for each in rewards.values()):
        raise ConfigError(f"there must be rewards of the {_GRID[0] * _GRID[1]} observations of `reward_map`")
    figure = Figure(figsize=(4.2 * len(rewards), 2.6), layout="compressed")
    for (name, each), axes in zip(rewards.items(), figure.subplots(1, len(rewards), squeeze=False)[0], strict=True):
        _table(axes)
        axes.imshow(
            each.reshape(_GRID), origin="lower", extent=(LOW[1], HIGH[1], LOW[0], HIGH[0]), aspect="equal", zorder=0
        )
        axes.set_title(name, fontsize=9)
        axes.label_outer()
    return figure


def animate(
    path: Float[ndarray, "episodes time 7"], user: Int[ndarray, " episodes"], names: Sequence[str], where: Path
) -> None:
    """Write a GIF of episodes side by side, from above and, below that, from the side.

    Args:
        path: Observations, `Rollouts.path`.
        user: Kind of each episode's user, whose zone is full.
        names: Title of each episode.
        where: File to write.

    Raises:
        ConfigError: No episode, or not a name and a user for each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    if not len(path) or len(names) != len(path) or len(user) != len(path):
        raise ConfigError(f"there are {len(path)} episodes, {len(user)} users and {len(names)} names; give one of each")
    figure = Figure(figsize=(3.8 * len(path), 4.0), layout="compressed", dpi=80)
    grid = figure.subplots(2, len(path), squeeze=False, sharex=True, height_ratios=(1, 0.83))
    drawn: list[tuple[ndarray, list[Line2D]]] = []
    for episode, (above, side) in zip(path, grid.T, strict=True):
        number = len(drawn)
        _table(above, wanted=int(user[number]))
        above.set_title(names[number], fontsize=9)
        side.axhline(0, color="0.5", linewidth=0.8)
        side.set_ylim(-0.01, HIGH[2] + 0.02)
        side.set_aspect("equal")
        side.set_ylabel("z, m", fontsize=8)
        side.set_xlabel("y, m", fontsize=8)
        side.tick_params(labelsize=7)
        above.set_xlabel("")
        parts = [
            axes.plot([], [], mark, color=colour, markersize=size)[0]
            for axes in (above, side)
            for mark, colour, size in (("s", _COLOURS[int(user[number])], 9), ("v", "k", 7))
        ]
        drawn.append((episode, parts))
    canvas = FigureCanvasAgg(figure)
    frames = []
    for t in range(path.shape[1]):
        for episode, parts in drawn:
            x, y, z, block_x, block_y, block_z, grasped = episode[t]
            for part, at in zip(parts, ((block_y, block_x), (y, x), (block_y, block_z), (y, z)), strict=True):
                part.set_data([at[0]], [at[1]])
            for cup in parts[1::2]:
                cup.set_markerfacecolor("k" if grasped else "none")
        canvas.draw()
        if not t:
            figure.set_layout_engine("none")  # laid out once, so that nothing moves but the scene
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(64))
    with replacing(where) as part_written:
        frames[0].save(part_written, format="GIF", save_all=True, append_images=frames[1:], duration=_FRAME_MS, loop=0)


def _table(axes: Axes, wanted: int | None = None) -> None:
    """The workspace and its zones. y runs to the left, as for one who stands behind the robot."""
    from matplotlib.patches import Circle

    for kind, (x, y) in enumerate(ZONES):
        circle = Circle((y, x), ZONE_RADIUS, edgecolor=_COLOURS[kind], facecolor="none", linewidth=1.2)
        if kind == wanted:
            circle.set_facecolor((*circle.get_edgecolor()[:3], 0.25))
        axes.add_patch(circle)
    axes.set_xlim(HIGH[1], LOW[1])
    axes.set_ylim(LOW[0], HIGH[0])
    axes.set_aspect("equal")
    axes.set_xlabel("y, m", fontsize=8)
    axes.set_ylabel("x, m", fontsize=8)
    axes.tick_params(labelsize=7)
