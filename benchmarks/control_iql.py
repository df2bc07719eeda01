"""Our offline learner beside d3rlpy's: the same maze data, rewards, sizes and steps; success and seconds in one run.

    python benchmarks/control_iql.py [--goals two] [--decisions 20000] [--steps 4000] [--users 200] [--seed 0]

Users are known by their goals (the oracle): d3rlpy cannot redraw z per element of a minibatch, so it is given every
trajectory under every goal, which holds the same steps and rewards. Its learning rates fall by the same cosine. Without
d3rlpy (`pip install 'pluralign[d3rlpy]'`) only ours is run.
"""

import argparse
import logging
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pluralign.control.evaluation import Run, success_difference, success_interval, success_rates
from pluralign.control.iql import IqlSettings, train_iql
from pluralign.control.maze import Maze
from pluralign.control.rewards import RewardTable
from pluralign.control.tasks import Offline


@dataclass
class Theirs:
    """d3rlpy's policy, which sees observation and z side by side, standardised as ours."""

    model: Any
    mean: np.ndarray
    scale: np.ndarray

    def see(self, observation: np.ndarray, z: np.ndarray) -> np.ndarray:
        return ((np.concatenate([observation, z], axis=1) - self.mean) / self.scale).astype(np.float32)

    def act(self, observation: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.clip(self.model.predict(self.see(observation, z)), -1, 1)


def train_d3rlpy(data: Offline, table: RewardTable, to: IqlSettings, seed: int) -> Theirs:
    import d3rlpy
    import structlog
    from d3rlpy.logging import NoopAdapterFactory
    from d3rlpy.models import VectorEncoderFactory
    from d3rlpy.optimizers import AdamFactory
    from d3rlpy.optimizers.lr_schedulers import CosineAnnealingLRFactory

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    d3rlpy.seed(seed)
    draws = len(table.z)
    wide = np.concatenate([np.tile(data.observation, (draws, 1)), np.repeat(table.z, len(data.action), axis=0)], axis=1)
    theirs = Theirs(None, wide.mean(0), np.maximum(wide.std(0), 1e-6))
    ends = np.append(np.diff(data.episode) != 0, True).astype(np.float32)
    dataset = d3rlpy.dataset.MDPDataset(
        observations=theirs.see(wide[:, : data.observation.shape[1]], wide[:, data.observation.shape[1] :]),
        actions=np.tile(data.action, (draws, 1)).astype(np.float32),
        rewards=table.value.T.reshape(-1, 1),
        terminals=np.zeros(len(wide), np.float32),
        timeouts=np.tile(ends, draws),
    )
    hidden = VectorEncoderFactory([to.width, to.width])
    adam = AdamFactory(lr_scheduler_factory=CosineAnnealingLRFactory(T_max=to.steps))
    theirs.model = d3rlpy.algos.IQLConfig(
        actor_learning_rate=to.learning_rate,
        critic_learning_rate=to.learning_rate,
        actor_optim_factory=adam,
        critic_optim_factory=adam,
        actor_encoder_factory=hidden,
        critic_encoder_factory=hidden,
        value_encoder_factory=hidden,
        batch_size=to.batch,
        gamma=to.discount,
        tau=to.target_rate,
        expectile=to.expectile,
        weight_temp=to.temperature,
        max_weight=to.max_weight,
    ).create(device="cpu:0")
    theirs.model.fit(
        dataset,
        n_steps=to.steps,
        n_steps_per_epoch=to.steps,
        show_progress=False,
        logger_adapter=NoopAdapterFactory(),
    )
    return theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goals", default="two")
    for name, default in (("decisions", 20_000), ("steps", 4000), ("users", 200), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = Maze(args.goals)
    data = task.offline(args.decisions, seed=args.seed)
    rewards = task.rewards(data.after).T
    table = RewardTable(z=task.goals().astype(np.float32), value=(rewards - rewards.mean(0)).astype(np.float32))
    settings = replace(IqlSettings(), steps=args.steps)
    kind = np.arange(args.users) % len(task.users)
    trainers = {
        "pluralign": lambda: train_iql(data, table, settings, seed=args.seed),
        "d3rlpy": lambda: train_d3rlpy(data, table, settings, args.seed),
    }
    runs, seconds = {}, {}
    for name, train in trainers.items():
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            policy = train()
        except ModuleNotFoundError as error:
            print(f"{name}: skipped, {error.name} is not installed")
            continue
        seconds[name] = time.process_time() - cpu
        done = success_rates(task, policy, task.goals()[kind], kind, seed=args.seed)
        runs[name] = [Run.of(done, kind)]
        rate = success_interval(runs[name], task.users).overall
        print(
            f"{name:10s} {args.steps} steps: {time.perf_counter() - wall:7.1f} s wall, {seconds[name]:7.1f} s CPU; "
            f"success {rate.estimate:.3f} ({rate.low:.3f} to {rate.high:.3f})",
            flush=True,
        )
    if len(runs) == 2:
        apart = success_difference(runs["pluralign"], runs["d3rlpy"])
        print(f"d3rlpy takes {seconds['d3rlpy'] / seconds['pluralign']:.2f} times our CPU seconds")
        print(f"success, ours minus d3rlpy's: {apart.estimate:+.3f} ({apart.low:+.3f} to {apart.high:+.3f})")


if __name__ == "__main__":
    main()
