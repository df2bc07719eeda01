"""Tasks of one choice, from comparisons to what is chosen for each user, beside the best that can be done.

One reward for everybody (BTL) and latent users (VPL) are fitted to the same comparisons; test users, placed by their
first few, are then served by the reward that is theirs. `bayes` knows which kinds of users there are and what each
wants, and takes what is most probably right: on average no method can do better. Nothing is learnt by reinforcement:
the decision is one step, and greedy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from pluralign.control import drawing
from pluralign.control.bayes import kinds_posterior
from pluralign.control.choices import Rearrange, Tidy, choice_settings
from pluralign.control.evaluation import as_predictions
from pluralign.control.rewards import Personal, fit_reward
from pluralign.control.settings import read_settings
from pluralign.errors import ConfigError
from pluralign.evaluation import Interval, Predictions, combine_seeds, mean_interval, paired_difference
from pluralign.files import plain, write_json
from pluralign.inference.latent_elbo import LatentSettings

TASKS: dict[str, Callable[..., Rearrange | Tidy]] = {"rearrange": Rearrange, "tidy": Tidy}
METHODS = ("btl", "vpl", "bayes")
FEW_KINDS = 5  # of which each has a figure of its own
CONTEXTS = {"rearrange": (4, 8), "tidy": (1, 2, 4, 8)}


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """Everything that a run depends on; a YAML file names it by the same words.

    Attributes:
        task: "rearrange" or "tidy".
        options: Of the task's class, by name.
        contexts: Comparisons that a test user is placed by, ascending; None means (4, 8), for "tidy" (1, 2, 4, 8).
        seeds: Numbers of runs, each with comparisons, fits and test users of its own.
        sets: Users to fit to, with half as many comparisons again as the largest context, and 4 more at least: what is
            to be predicted from a context is never in it.
        users: Test users.
        majority: Share of the first kind of user, the others sharing the rest; None means the same for all.
        latent: Fields of `LatentSettings` that differ from `choice_settings`.
        seed: Where the seeds begin.
    """

    task: str = "rearrange"
    options: Mapping[str, Any] = field(default_factory=dict)
    contexts: tuple[int, ...] | None = None
    seeds: int = 3
    sets: int = 5000
    users: int = 1000
    majority: float | None = None
    latent: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f'unknown task "{self.task}"; known: {", ".join(TASKS)}')
        for name in ("seeds", "sets", "users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.sizes or min(self.sizes) < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ConfigError(f"contexts are {list(self.sizes)}; they must be ascending numbers from 1")
        self.latent_settings(0)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Comparisons that a test user is placed by."""
        return CONTEXTS[self.task] if self.contexts is None else self.contexts

    def latent_settings(self, seed: int) -> LatentSettings:
        """What VPL is fitted by."""
        return replace(choice_settings(n_kinds=len(self.make_task().users), seed=seed), **self.latent)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ChoiceSettings:
        """Settings from a mapping, a YAML file's or flags'; lists become tuples.

        Raises:
            ConfigError: A name that is no setting, or a value out of range.
        """
        return read_settings(cls, given)

    def make_task(self) -> Rearrange | Tidy:
        """The task of that name.

        Raises:
            ConfigError: An option that it does not take.
        """
        try:
            return TASKS[self.task](**self.options)
        except TypeError as error:
            raise ConfigError(f"{self.task} does not take these options: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ChoiceRow:
    """A method with users placed by so many comparisons, over all seeds.

    Attributes:
        method: Its name.
        context: Comparisons that users were placed by.
        success: Share of choices that are what the user wants.
        kinds: The same for each kind, where there are few.
        below_bayes: Success of the exact posterior less this one's, same users; None for that itself.
        over_baseline: Success less BTL's; None for that itself.
        accuracy: On the users' next comparisons.
    """

    method: str
    context: int
    success: Interval
    kinds: Mapping[str, Interval]
    below_bayes: Interval | None
    over_baseline: Interval | None
    accuracy: Interval


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    """A whole run.

    Attributes:
        settings: What it depended on.
        kinds: What users want.
        rows: Methods by number of comparisons.
        words: What VPL's latent carries, for each seed.
        seconds: Of processor time for a fit of VPL, for each seed.
    """

    settings: ChoiceSettings
    kinds: tuple[str, ...]
    rows: tuple[ChoiceRow, ...]
    words: tuple[str, ...]
    seconds: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found: dict[str, Any] = plain({each.name: getattr(self, each.name) for each in fields(self)})
        return found


def run_choice(
    settings: ChoiceSettings, out: Path | None = None, *, say: Callable[[str], None] = print
) -> ChoiceResult:
    """Run a task of one choice.

    Args:
        settings: Of everything.
        out: Folder for `control.json`, `success.png` and pictures of what is chosen; None writes nothing.
        say: Is told what has been done.

    Raises:
        ConfigError: A setting is not accepted.
    """
    task = settings.make_task()
    shares = None if settings.majority is None else task.shares(settings.majority)
    cells: dict[tuple[str, int], list[tuple[Predictions, Predictions]]] = {}
    words, seconds, kinds = [], [], []
    for number in range(settings.seeds):
        seed = settings.seed + number
        first, second, third = np.random.SeedSequence(seed).generate_state(3).tolist()
        most = max(settings.sizes)
        training = task.draw(settings.sets, most + max(4, most // 2), shares=shares, seed=first)
        test = task.draw(settings.users, most, shares=shares, seed=second)
        fresh = task.draw(settings.users, most, kind=test.kind, seed=third)
        kinds.append(test.kind)
        shared = fit_reward("btl", task, training, seed=seed)
        began = time.process_time()
        personal = fit_reward("vpl", task, training, settings=settings.latent_settings(seed), seed=seed)
        seconds.append(time.process_time() - began)
        assert isinstance(personal, Personal)
        words.append(personal.words)
        users = number * settings.users + np.arange(settings.users, dtype=np.int32)  # every seed has users of its own
        for size in settings.sizes:
            context = replace(
                test, comparisons=test.comparisons.take(np.flatnonzero(np.arange(settings.users * most) % most < size))
            )
            posterior = kinds_posterior(task, context, shares=shares)
            options = task.features(task.observations)
            z, nobody = personal.place(context), shared.place(context)
            found = {
                "btl": (shared.reward(options, nobody[:1]).repeat(settings.users, 1), shared.predict(fresh, nobody)),
                "vpl": (personal.reward(options, z), personal.predict(fresh, z)),
                "bayes": (posterior.right(), posterior.predict(fresh)),
            }
            for method, (reward, predicted) in found.items():
                success = task.choose(reward, test.kind)
                cells.setdefault((method, size), []).append(
                    (as_predictions(success, users), replace(predicted, user=predicted.user + users[0]))
                )
            told = ", ".join(f"{method} {cells[method, size][-1][0].chosen.mean():.3f}" for method in found)
            say(f"seed {seed}: {size} comparisons: right {told}")
        if out is not None and number == 0:
            _draw_choices(task, personal, z, test.kind, shared.reward(options, nobody[:1])[:, 0], out)
    result = _gathered(task, settings, cells, np.concatenate(kinds), tuple(words), tuple(seconds))
    if out is not None:
        write_json(out / "control.json", result)
        bars = {f"{row.method}, {row.context}": row.success for row in result.rows}
        drawing.save(drawing.bars(bars, label="share of choices that are right"), out / "success.png")
    return result


def _gathered(
    task: Rearrange | Tidy,
    settings: ChoiceSettings,
    cells: Mapping[tuple[str, int], Sequence[tuple[Predictions, Predictions]]],
    kind: ndarray,
    words: tuple[str, ...],
    seconds: tuple[float, ...],
) -> ChoiceResult:
    """Put the seeds together."""
    done = {cell: combine_seeds([rates for rates, _ in found]) for cell, found in cells.items()}
    predicted = {cell: combine_seeds([each for _, each in found]) for cell, found in cells.items()}

    def less(one: tuple[str, int], other: tuple[str, int]) -> Interval | None:
        return None if one == other else paired_difference(done[one], done[other], "probability")

    return ChoiceResult(
        settings=settings,
        kinds=task.users,
        rows=tuple(
            ChoiceRow(
                method=method,
                context=size,
                success=mean_interval(done[method, size], "probability"),
                kinds={
                    name: mean_interval(done[method, size].take(kind == k), "probability")
                    for k, name in enumerate(task.users[:FEW_KINDS])
                    if len(task.users) <= FEW_KINDS and (kind == k).any()
                },
                below_bayes=less(("bayes", size), (method, size)),
                over_baseline=less((method, size), ("btl", size)),
                accuracy=mean_interval(predicted[method, size], "accuracy"),
            )
            for size in settings.sizes
            for method in METHODS
        ),
        words=words,
        seconds=seconds,
    )


def _draw_choices(
    task: Rearrange | Tidy, personal: Personal, z: ndarray, kind: ndarray, shared: ndarray, out: Path
) -> None:
    """What is chosen by one reward for all, without comparisons, and for the first user of each of two kinds."""
    options = task.features(task.observations)
    shown = {"one reward for all": shared, "no comparisons": personal.reward(options, personal.unknown()[None])[:, 0]}
    for k in np.unique(kind)[:2]:
        user = np.flatnonzero(kind == k)[0]
        shown[f"wants {task.users[k]}"] = personal.reward(options, z[user : user + 1])[:, 0]
    for number, (title, reward) in enumerate(shown.items()):
        drawing.save(task.figure(reward, title=title), out / f"choices-{number}.png")
