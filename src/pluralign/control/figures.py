"""Pictures of a control experiment, drawn from what it kept: success by method, maps of rewards, and what z does.

The pictures of single users are of the first seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pluralign.control import drawing, table_top_drawing
from pluralign.control.maze import REACH, Maze
from pluralign.control.results import ControlResult, row_folder, seed_folder
from pluralign.control.table_top import TableTop
from pluralign.control.tasks import Rollouts, Steered

SHOWN = ("vpl spo", "vpl max-norm", "vpl none")  # whose policy is drawn, the first that there is
TITLES = {"own": "own comparisons", "lent": "another kind's comparisons", "unknown": "no comparisons"}


def map_of(task: Steered) -> Float[ndarray, "places observation"] | None:
    """Observations whose rewards make a picture, None where the task has none."""
    if isinstance(task, Maze):
        return np.column_stack([task.centres, np.zeros((len(task.centres), 2))])
    return table_top_drawing.reward_map() if isinstance(task, TableTop) else None


def draw_control(task: Steered, result: ControlResult, out: Path) -> None:
    """Write `success.png`, and for the maze and the table `rewards.png`, `swap.png` and `swap.gif`."""
    rates = {each.row: each.success.kinds or each.success.overall for each in result.rows}
    many = len(result.kinds) > 4
    drawing.save(
        drawing.bars({each.row: each.success.overall for each in result.rows} if many else rates), out / "success.png"
    )
    seed = result.settings.seed
    maps = {
        each.method: {name: np.array(reward) for name, reward in kept.items()}
        for each in result.methods
        if (kept := _read(seed_folder(out, seed) / f"{each.method}.json")["maps"])
    }
    shown = next((row for row in SHOWN if row in result.settings.rows), None)
    done = _read(row_folder(out, seed, shown) / "result.json") if shown else {}
    paths = {TITLES[name]: np.array(path) for name, path in done.get("paths", {}).items()}
    kind = np.array(done["kind"])[done["shown"]] if paths else np.zeros(0, dtype=int)
    if isinstance(task, Maze):
        _draw_maze(task, maps, paths, kind, out)
    elif isinstance(task, TableTop):
        _draw_table(task, maps, paths, kind, out)


def _draw_maze(maze: Maze, maps: dict[str, Any], paths: dict[str, ndarray], kind: ndarray, out: Path) -> None:
    n_kinds = min(len(maze.users), 4)
    rewards = {name: each["users"][:n_kinds] for name, each in maps.items()}
    if "vpl" in maps:
        rewards["vpl, no comparisons"] = maps["vpl"]["unknown"][None]
    if rewards:
        drawing.save(drawing.reward_maps(maze, rewards, kinds=range(n_kinds)), out / "rewards.png")
    if paths:
        rollouts = {title: Rollouts(success=_reached(maze, path, kind), path=path) for title, path in paths.items()}
        drawing.save(drawing.paths(maze, rollouts, kind), out / "swap.png")
        drawing.animate(out / "swap.gif", maze, rollouts, kind)


def _reached(maze: Maze, path: ndarray, kind: ndarray) -> ndarray:
    """Whether paths end at the goals, where episodes stop."""
    away = np.linalg.norm(path[:, -1, :2] - maze.centres[maze.goal[kind]], axis=1)
    return np.asarray(away <= REACH + 1e-3)


def _draw_table(task: TableTop, maps: dict[str, Any], paths: dict[str, ndarray], kind: ndarray, out: Path) -> None:
    rewards = {
        f"{method}, {wants}" if len(np.unique(each["users"], axis=0)) > 1 else method: reward
        for method, each in maps.items()
        for wants, reward in zip(task.users, each["users"], strict=True)
    }
    if rewards:
        drawing.save(table_top_drawing.draw_rewards(rewards), out / "rewards.png")
    if paths:
        rollouts = {
            title: Rollouts(success=task.succeeded(path[:, -1], kind), path=path) for title, path in paths.items()
        }
        drawing.save(table_top_drawing.draw_rollouts(task, rollouts, kind), out / "swap.png")
        first = np.unique(kind, return_index=True)[1]
        whole = np.concatenate([each.path[first] for each in rollouts.values()])
        names = [f"{task.users[k]}: {title}" for title in rollouts for k in kind[first]]
        table_top_drawing.animate(whole, np.tile(kind[first], len(rollouts)), names, out / "swap.gif")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
