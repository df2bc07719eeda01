from itertools import pairwise

import numpy as np
import pytest

from pluralign.control.table_top import ZONES, TableTop
from pluralign.control.table_top_drawing import animate, draw_rewards, draw_rollouts, reward_map
from pluralign.control.tasks import Rollouts
from pluralign.errors import ConfigError

pytest.importorskip("mujoco")


@pytest.fixture(scope="module")
def task():
    return TableTop()


@pytest.fixture(scope="module")
def rollouts(task):
    """Three demonstrations, of which the users of the first and the last got what they wanted."""
    data = task.demonstrations(3, seed=0)
    path = np.concatenate([data.observation.reshape(3, -1, 7), data.after.reshape(3, -1, 7)[:, -1:]], axis=1)
    return Rollouts(success=np.array([True, False, True]), path=path)


def test_users_are_columns_and_their_shares_are_told(task, rollouts):
    figure = draw_rollouts(task, {"one": rollouts, "two": rollouts}, np.array([0, 0, 1]))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"{name}, {user}" for name in ("one", "two") for user in ("left zone: 50%", "right zone: 100%")]
    block = figure.axes[0].lines[1]
    np.testing.assert_array_equal(np.transpose(block.get_data()), rollouts.path[0][:, [4, 3]])
    assert [figure.axes[0].lines[i].get_markerfacecolor() != "none" for i in (3, 7)] == [True, False]


def test_a_reward_map_peaks_in_the_users_zone(task):
    places = reward_map()
    left = task.rewards(places)[0]
    figure = draw_rewards({"left": left, "both": task.rewards(places).mean(0)})
    image = figure.axes[0].images[0]
    row, column = np.unravel_index(np.argmax(image.get_array()), image.get_array().shape)
    y_low, y_high, x_low, x_high = image.get_extent()
    at = x_low + row * (x_high - x_low) / 40, y_low + column * (y_high - y_low) / 70
    assert np.linalg.norm(np.asarray(at) - ZONES[0]) <= 0.05
    assert places[:, 6].max() == 0


def test_an_animation_has_a_frame_for_every_moment(rollouts, tmp_path):
    from PIL import Image

    animate(rollouts.path[:2, ::5], np.array([0, 1]), ["one", "two"], tmp_path / "both.gif")
    with Image.open(tmp_path / "both.gif") as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
    assert len(frames) == 6
    assert all(np.abs(after - before).max() > 0 for before, after in pairwise(frames))


def test_nothing_to_draw_is_said(task, tmp_path):
    with pytest.raises(ConfigError, match="no rollouts"):
        draw_rollouts(task, {}, np.zeros(0, dtype=int))
    with pytest.raises(ConfigError, match="rewards of the 2911 observations"):
        draw_rewards({"one": np.zeros(3)})
    with pytest.raises(ConfigError, match="1 episodes, 1 users and 2 names"):
        animate(np.zeros((1, 3, 7)), np.zeros(1, dtype=int), ["a", "b"], tmp_path / "none.gif")
