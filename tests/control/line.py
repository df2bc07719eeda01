"""The smallest steered task whose users want opposite things."""

import numpy as np
from numpy import ndarray

from pluralign.control.tasks import Offline, Rollouts


class Line:
    """Positions from -1 to 1, moved by up to 0.2 at a time; one kind of user wants the left end, the other the right.

    Their rewards (1 - x) / 2 and (1 + x) / 2 have the mean 0.5 everywhere, so that for both at once there is no
    direction.
    """

    name = "line"
    users = ("left", "right")

    def features(self, observation: ndarray) -> ndarray:
        return observation

    def rewards(self, observation: ndarray) -> ndarray:
        return np.stack([1 - observation[:, 0], 1 + observation[:, 0]]) / 2

    def goals(self) -> ndarray:
        return np.array([[-1.0], [1.0]])

    def offline(self, steps: int, *, seed: int) -> Offline:
        """One trajectory by random actions."""
        rng = np.random.default_rng(seed)
        action = rng.uniform(-1, 1, (steps, 1))
        path = np.zeros((steps + 1, 1))
        for t in range(steps):
            path[t + 1] = self.move(path[t], action[t])
        return Offline(observation=path[:-1], action=action, after=path[1:], episode=np.zeros(steps, dtype=np.int32))

    def rollout(self, act, user: ndarray, *, seed: int) -> Rollouts:
        rng = np.random.default_rng(seed)
        path = [rng.uniform(-0.3, 0.3, (len(user), 1))]
        for _ in range(15):
            path.append(self.move(path[-1], act(path[-1])))
        success = np.abs(path[-1] - self.goals()[user])[:, 0] < 0.1
        return Rollouts(success=success, path=np.stack(path, axis=1))

    @staticmethod
    def move(x: ndarray, action: ndarray) -> ndarray:
        return np.clip(x + 0.2 * action, -1, 1)
