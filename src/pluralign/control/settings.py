"""Settings of a control experiment, and the tasks that are known by name.

A *row* is a method and a scaling of its reward, "vpl spo" say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from pluralign.control.iql import IqlSettings
from pluralign.control.rewards import METHODS, POOLS, SCALINGS, Method, Pool, Scaling, control_settings
from pluralign.control.tasks import Steered
from pluralign.errors import ConfigError
from pluralign.inference.latent_elbo import LatentSettings

ROWS = (
    "oracle none",
    "bayes none",
    "btl spo",
    "dpl-mean-variance spo",
    "dpl-categorical spo",
    "vpl none",
    "vpl spo",
    "vpl max-norm",
    "vpl batch-norm",
)
T = TypeVar("T")
S = TypeVar("S", bound="RunSettings")
ALIASES = {"ravens": "table-top"}  # the paper names the table after the suite that its own came from
# Chosen by the oracle's success: the shorter horizon and the quicker target let values climb within the training, and
# states that are rare in the data but good for somebody are drawn often enough.
_STEERED = {"discount": 0.95, "target_rate": 0.02, "temperature": 50.0, "shaped": True, "candidates": 16}
IQL: dict[str, dict[str, Any]] = {
    "maze": {"steps": 6000, **_STEERED},
    "table-top": {"steps": 10_000, "width": 256, **_STEERED, "candidates": 1},
}
POLICIES = ("iql", "plan")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run of any task depends on; a YAML file names it by the same words.

    Attributes:
        task: Its name.
        options: Of the task's class, by name.
        seeds: Number of runs, each with comparisons, fits and test users of its own.
        sets: Users to fit to, one set of comparisons each.
        users: Test users.
        latent: Fields of `LatentSettings` that differ from the task's own.
        seed: Where the seeds begin.
    """

    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    sets: int = 5000
    users: int = 100
    latent: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "seed" and isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ConfigError(f"{each.name} is {value}; it must be at least 1")
        self.latent_settings(0)

    @property
    def numbers(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)

    def latent_settings(self, seed: int) -> LatentSettings:
        """What VPL is fitted by."""
        return replace(control_settings(seed=seed), **self.latent)

    @classmethod
    def of(cls: type[S], given: Mapping[str, Any]) -> S:
        """Settings from a mapping, a YAML file's or flags'; lists become tuples.

        Raises:
            ConfigError: A name that is no setting, or a value that is not accepted.
        """
        known = {each.name for each in fields(cls)}
        for name in given:
            if name not in known:
                raise ConfigError(f'unknown setting "{name}"; known: {", ".join(sorted(known))}')
        values: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in given.items()}
        if "task" in values:
            values["task"] = ALIASES.get(values["task"], values["task"])
        try:
            return cls(**values)
        except TypeError as error:  # a name within `iql` or `latent` that is none, or a value of another kind
            raise ConfigError(f"settings are not accepted: {error}") from error

    def make(self, tasks: Mapping[str, Callable[..., T]]) -> T:
        """The task of that name.

        Raises:
            ConfigError: There is none, or an option that it does not take.
        """
        if self.task not in tasks:
            raise ConfigError(f'unknown task "{self.task}"; known: {", ".join(tasks)}')
        try:
            return tasks[self.task](**self.options)
        except TypeError as error:
            raise ConfigError(f"{self.task} does not take these options: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ControlSettings(RunSettings):
    """Everything that a run of a steered task depends on.

    Each seed has data and policies of its own too, and each test user one episode, of every kind in turn.

    Attributes:
        rows: Methods and scalings to compare, as "vpl spo".
        policy: "iql", or "plan" on the reward (the maze alone).
        steps: Steps of offline data.
        pairs: Comparisons of each user, to fit to or to be placed by.
        targets: Other comparisons of each test user, by which accuracy is measured.
        draws: Latents in the pool that a policy learns from.
        pool: Where they are drawn from: the "prior", as in the paper, the training users' "posterior", or "both".
        comparators: States with which a scaling compares.
        curves: Whether to draw, for VPL, what asking well saves and what wrong answers do (the row "vpl spo" acts).
        features: Whether policies see the task's features beside the observation.
        iql: Fields of `IqlSettings` that differ from those of the task (`IQL`).
    """

    task: str = "maze"
    rows: tuple[str, ...] = ROWS
    policy: str = "iql"
    steps: int = 50_000
    pairs: int = 8
    targets: int = 16
    draws: int = 128
    pool: Pool = "both"
    comparators: int = 1000
    curves: bool = False
    features: bool = True
    iql: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for row in self.rows:
            read_row(row)
        if not self.rows or len(set(self.rows)) < len(self.rows):
            raise ConfigError(f"rows are {list(self.rows)}; there must be one or more, none twice")
        if self.pool not in POOLS:
            raise ConfigError(f'pool is "{self.pool}"; known: {", ".join(POOLS)}')
        if self.policy not in POLICIES:
            raise ConfigError(f'policy is "{self.policy}"; known: {", ".join(POLICIES)}')
        if self.policy == "plan" and self.task != "maze":
            raise ConfigError('policy "plan" is for the maze, whose moves are known', hint='take policy "iql"')
        self.iql_settings()

    def iql_settings(self) -> IqlSettings:
        """What policies are learnt by."""
        return IqlSettings(**{**IQL.get(self.task, {}), **self.iql})


def read_row(row: str) -> tuple[Method, Scaling]:
    """Method and scaling of a row.

    Raises:
        ConfigError: One of them is not known.
    """
    method, _, scaling = row.partition(" ")
    if method not in METHODS or scaling not in SCALINGS:
        raise ConfigError(
            f'row "{row}" is not known; a row is a method ({", ".join(METHODS)}) and a scaling '
            f'({", ".join(SCALINGS)}), as "vpl spo"'
        )
    return method, scaling


def make_task(settings: ControlSettings) -> Steered:
    """The task of that name.

    Raises:
        ConfigError: There is none, an option that it does not take, or its physics are not installed.
    """
    from pluralign.control.maze import Maze
    from pluralign.control.table_top import TableTop

    tasks: dict[str, Callable[..., Steered]] = {"maze": Maze, "table-top": TableTop}
    return settings.make(tasks)
