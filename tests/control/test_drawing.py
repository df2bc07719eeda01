"""Pictures of control tasks: what is drawn is what was given, and files are whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pluralign.control.drawing import COLOURS, animate, bars, paths, reward_maps, save
from pluralign.control.maze import Maze
from pluralign.control.tasks import Rollouts
from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions, mean_interval


@pytest.fixture(scope="module")
def maze() -> Maze:
    return Maze("two")


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    """Two episodes along the lowest and the middle row; only the first succeeds."""
    path = np.zeros((2, 5, 4))
    path[0, :, 0], path[0, :, 1] = np.linspace(-3.5, -4.5, 5), -3.0
    path[1, :, 0], path[1, :, 1] = np.linspace(-4.5, 0.5, 5), 1.0
    return Rollouts(success=np.array([True, False]), path=path)


def interval(rate: float):
    """Of so many successes in 40 episodes."""
    hit = (np.arange(40) < 40 * rate).astype(float)
    told = Predictions(
        chosen=hit,
        best_other=1 - hit,
        outcome=np.ones(40),
        user=np.arange(40, dtype=np.int32),
        source=np.arange(40, dtype=np.int32),
        weight=np.ones(40),
    )
    return mean_interval(told, "accuracy", cluster="user")


def test_a_reward_map_shows_every_cell_where_it_is(maze):
    figure = reward_maps(maze, {"true": maze.cell_rewards, "everybody's": np.arange(46.0)[None]})
    axes = np.array(figure.axes).reshape(2, 2)  # users by methods
    assert [each.get_title() for each in axes[0]] == ["true", "everybody's"]
    assert [each.get_ylabel() for each in axes[:, 0]] == list(maze.users)
    shown = axes[1, 0].images[0]
    assert shown.get_extent() == [-6, 6, -4.5, 4.5]
    grid = np.ma.filled(shown.get_array(), np.nan)
    assert grid[7, 10] == 1  # the second user's goal, in the map's own rows and columns
    assert np.nanmin(grid) == 0
    assert np.isfinite(grid).sum() == 46
    star, ring = axes[1, 0].lines
    assert star.get_xydata().tolist() == [[4.5, -3.0]]
    assert ring.get_xydata().tolist() == [[4.5, -3.0]]
    # One row of rewards serves all users: its highest cell is the last, row 7 and column 10.
    assert [each.lines[1].get_xydata().tolist() for each in axes[:, 1]] == [[[4.5, -3.0]]] * 2
    assert [each.lines[0].get_xydata().tolist() for each in axes[:, 1]] == [[[-4.5, -3.0]], [[4.5, -3.0]]]


def test_paths_are_drawn_in_the_colour_of_their_user(maze, rollouts):
    swapped = Rollouts(success=rollouts.success[::-1], path=rollouts.path[::-1])
    figure = paths(maze, {"own": rollouts, "swapped": swapped}, np.array([0, 1]))
    assert [each.get_title() for each in figure.axes] == ["own: 50% of 2 succeed", "swapped: 50% of 2 succeed"]
    lines = [line for line in figure.axes[0].lines if len(line.get_xydata()) == 5]
    np.testing.assert_array_equal(lines[0].get_xydata(), rollouts.path[0, :, :2])
    assert [line.get_color() for line in lines] == list(COLOURS[:2])
    first = next(line for line in figure.axes[1].lines if len(line.get_xydata()) == 5)
    assert first.get_color() == COLOURS[0]
    np.testing.assert_array_equal(first.get_xydata(), rollouts.path[1, :, :2])


def test_a_moving_picture_has_a_frame_for_every_decision_and_its_balls_move(maze, rollouts, tmp_path):
    file = tmp_path / "deep" / "run.gif"
    animate(file, maze, {"own": rollouts}, np.array([0, 1]))
    assert [each.name for each in file.parent.iterdir()] == ["run.gif"]
    with Image.open(file) as shown:
        assert shown.n_frames == 5
        seen = []
        for frame in range(5):
            shown.seek(frame)
            pixels = np.asarray(shown.convert("RGB")).astype(int)
            wanted = np.array([int(COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)])
            second = (np.abs(pixels - wanted).sum(axis=2) < 40) & (
                np.arange(pixels.shape[0])[:, None] < 0.6 * len(pixels)
            )
            seen.append(np.nonzero(second)[1].max())  # the ball is its path's right end
    # 5 cells in 4 moves, on a map of 12 cells over most of the picture's width.
    gaps = np.diff(seen)
    assert (gaps > 0).all()
    assert gaps.sum() == pytest.approx(5 / 12 * shown.width, rel=0.1)


def test_bars_are_as_long_as_the_rates(maze):
    high, low = interval(0.9), interval(0.1)
    figure = bars({"oracle": {"left": high, "right": high}, "BTL": {"right": low}}, reference={"the oracle's": 0.9})
    axes = figure.axes[0]
    assert [patch.get_width() for patch in axes.patches] == [high.estimate, high.estimate, low.estimate]
    assert [each.get_text() for each in axes.get_yticklabels()] == ["oracle", "BTL"]
    whiskers = [line.get_xdata() for line in axes.lines[:3]]
    np.testing.assert_allclose(whiskers, [[each.low, each.high] for each in (high, high, low)])
    # The bars of one method are on the two sides of its name, the only one of the other at its own group's place.
    middle = [patch.get_y() + patch.get_height() / 2 for patch in axes.patches]
    np.testing.assert_allclose(middle, [-0.2, 0.2, 1.2])
    assert len(bars({"BTL": low}).axes[0].patches) == 1


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_figure_gives_the_same_file(ending, maze, tmp_path):
    file, written = tmp_path / f"bars.{ending}", []
    for _ in range(2):
        save(bars({"BTL": interval(0.5)}), file)
        written.append(file.read_bytes())
    assert len(written[0]) > 1000
    assert written[0] == written[1]
    assert list(tmp_path.iterdir()) == [file]


def test_wrong_input_is_named(maze, rollouts, tmp_path):
    with pytest.raises(ConfigError, match=r"of which \['BTL'\] have rewards of another shape"):
        reward_maps(maze, {"BTL": np.zeros((3, 46))})
    with pytest.raises(ConfigError, match=r"1 panels, and \['own'\] have kinds for another number"):
        paths(maze, {"own": rollouts}, np.zeros(3, int))
    with pytest.raises(ConfigError, match=r'"run.mp4"; a moving one must end in .gif'):
        animate(tmp_path / "run.mp4", maze, {"own": rollouts}, np.zeros(2, int))
    with pytest.raises(ConfigError, match=r'"a.jpg"; it must end in .png, .svg, .pdf'):
        save(bars({"BTL": interval(0.5)}), tmp_path / "a.jpg")
    with pytest.raises(ConfigError, match="no method to draw"):
        bars({})
    assert not list(tmp_path.iterdir())
