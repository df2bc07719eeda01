"""Tasks of one choice, from comparisons to what is chosen for each user, beside the best that can be done.

One reward for everybody (BTL) and latent users (VPL) are fitted to the same comparisons; test users, placed by their
first few, are then served by the reward that is theirs. `bayes` knows which kinds of users there are and what each
wants, and takes what is most probably right: on average no method can do better. Nothing is learnt by reinforcement:
the decision is one step, and greedy. A run that was stopped goes on with the next seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from pluralign.control import drawing
from pluralign.control.bayes import kinds_posterior
from pluralign.control.choices import Rearrange, Tidy, choice_settings
from pluralign.control.evaluation import Success, cluster_of, success_difference, success_interval
from pluralign.control.results import claim, keep_seed, predictions_of, runs_of
from pluralign.control.rewards import Personal, fit_reward
from pluralign.control.settings import RunSettings
from pluralign.errors import ConfigError
from pluralign.evaluation import Interval, mean_interval
from pluralign.files import write_json
from pluralign.inference.latent_elbo import LatentSettings

TASKS: dict[str, Callable[..., Rearrange | Tidy]] = {"rearrange": Rearrange, "tidy": Tidy}
METHODS = ("btl", "vpl", "bayes")
FEW_KINDS = 5  # of which each has a figure of its own
CONTEXTS = {"rearrange": (4, 8), "tidy": (1, 2, 4, 8)}


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings(RunSettings):
    """Everything that a run depends on.

    Users to fit to have half as many comparisons again as the largest context, and 4 more at least: what is to be
    predicted from a context is never in it.

    Attributes:
        contexts: Comparisons that a test user is placed by, ascending; None means (4, 8), for "tidy" (1, 2, 4, 8).
        majority: Share of the first kind of user, the others sharing the rest; None means the same for all.
    """

    task: str = "rearrange"
    contexts: tuple[int, ...] | None = None
    users: int = 1000
    majority: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sizes or min(self.sizes) < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ConfigError(f"contexts are {list(self.sizes)}; they must be ascending numbers from 1")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Comparisons that a test user is placed by."""
        return CONTEXTS[self.task] if self.contexts is None else self.contexts

    def latent_settings(self, seed: int) -> LatentSettings:
        return replace(choice_settings(n_kinds=len(self.make(TASKS).users), seed=seed), **self.latent)


@dataclass(frozen=True, kw_only=True)
class ChoiceRow:
    """A method with users placed by so many comparisons, over all seeds.

    Attributes:
        method: Its name.
        context: Comparisons that users were placed by.
        success: Share of choices that are what the user wants, and the same for each kind, where there are few.
        below_bayes: Success of the exact posterior less this one's, same users; None for that itself.
        over_baseline: Success less BTL's; None for that itself.
        accuracy: On the users' next comparisons.
    """

    method: str
    context: int
    success: Success
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


def run_choice(
    settings: ChoiceSettings, out: Path | None = None, *, say: Callable[[str], None] = print
) -> ChoiceResult:
    """Run a task of one choice, going on from what `out` holds.

    Args:
        settings: Of everything.
        out: Folder for `control.json`, `success.png` and pictures of what is chosen; None writes nothing.
        say: Is told what has been done.

    Raises:
        ConfigError: A setting is not accepted.
        CacheError: The folder holds a run of other settings.
    """
    task = settings.make(TASKS)
    if out is not None:
        claim(settings, out)
    kept = [keep_seed(out, seed, partial(_run_seed, task, settings, seed, out, say)) for seed in settings.numbers]
    result = _gathered(task, settings, kept)
    if out is not None:
        write_json(out / "control.json", result)
        bars = {f"{row.method}, {row.context}": row.success.overall for row in result.rows}
        drawing.save(drawing.bars(bars, label="share of choices that are right"), out / "success.png")
    return result


def _run_seed(
    task: Rearrange | Tidy, settings: ChoiceSettings, seed: int, out: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fit to one draw of users, and serve new ones."""
    shares = None if settings.majority is None else task.shares(settings.majority)
    first, second, third = np.random.SeedSequence(seed).generate_state(3).tolist()
    most = max(settings.sizes)
    training = task.draw(settings.sets, most + max(4, most // 2), shares=shares, seed=first)
    test = task.draw(settings.users, most, shares=shares, seed=second)
    fresh = task.draw(settings.users, most, kind=test.kind, seed=third)
    shared = fit_reward("btl", task, training, seed=seed)
    began = time.process_time()
    personal = fit_reward("vpl", task, training, settings=settings.latent_settings(seed), seed=seed)
    seconds = time.process_time() - began
    assert isinstance(personal, Personal)
    options = task.features(task.observations)
    cells: dict[str, dict[str, Any]] = {}
    for size in settings.sizes:
        context = replace(
            test, comparisons=test.comparisons.take(np.flatnonzero(np.arange(settings.users * most) % most < size))
        )
        posterior = kinds_posterior(task, context, shares=shares)
        z, nobody = personal.place(context), shared.place(context)
        found = {
            "btl": (shared.reward(options, nobody[:1]).repeat(settings.users, 1), shared.predict(fresh, nobody)),
            "vpl": (personal.reward(options, z), personal.predict(fresh, z)),
            "bayes": (posterior.right(), posterior.predict(fresh)),
        }
        for method, (reward, predicted) in found.items():
            success = task.choose(reward, test.kind)
            cells[f"{method} {size}"] = {"success": success, "kind": test.kind, "predicted": asdict(predicted)}
        told = ", ".join(f"{method} {cells[f'{method} {size}']['success'].mean():.3f}" for method in found)
        say(f"seed {seed}: {size} comparisons: right {told}")
    if out is not None and seed == settings.seed:
        _draw_choices(task, personal, z, test.kind, shared.reward(options, nobody[:1])[:, 0], out)
    return {"words": personal.words, "seconds": seconds, "cells": cells}


def _gathered(task: Rearrange | Tidy, settings: ChoiceSettings, kept: list[dict[str, Any]]) -> ChoiceResult:
    """Put the seeds together."""
    cells = {
        (method, size): [each["cells"][f"{method} {size}"] for each in kept]
        for size in settings.sizes
        for method in METHODS
    }
    runs = {cell: runs_of(each, settings.users) for cell, each in cells.items()}

    def row(method: str, size: int) -> ChoiceRow:
        own, others = runs[method, size], {other: runs[other, size] for other in METHODS if other != method}
        predicted = predictions_of([each["predicted"] for each in cells[method, size]], settings.users)
        return ChoiceRow(
            method=method,
            context=size,
            success=success_interval(own, task.users if len(task.users) <= FEW_KINDS else ()),
            below_bayes=success_difference(others["bayes"], own) if "bayes" in others else None,
            over_baseline=success_difference(own, others["btl"]) if "btl" in others else None,
            accuracy=mean_interval(predicted, "accuracy", cluster=cluster_of(settings.seeds)),
        )

    return ChoiceResult(
        settings=settings,
        kinds=task.users,
        rows=tuple(row(method, size) for method, size in cells),
        words=tuple(each["words"] for each in kept),
        seconds=tuple(each["seconds"] for each in kept),
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
