"""The one-dimensional example from end to end: whose reward was recovered, by whom.

One reward for everybody ends between the modes and is right as often as the majority of users is; latent users recover
every mode. Nothing is steered: success is accuracy on other comparisons, and the likeness of the curves. A run that was
stopped goes on with the next seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from pluralign.control import drawing
from pluralign.control.didactic import LENGTH, Didactic
from pluralign.control.evaluation import cluster_of
from pluralign.control.preferences import draw_sets
from pluralign.control.results import claim, keep_seed, predictions_of
from pluralign.control.rewards import Personal, fit_reward
from pluralign.control.settings import RunSettings
from pluralign.evaluation import Interval, mean_interval, paired_difference
from pluralign.files import write_json

METHODS = ("btl", "dpl-mean-variance", "vpl")


@dataclass(frozen=True, kw_only=True)
class DidacticSettings(RunSettings):
    """Everything that a run depends on; test users are of every kind in turn.

    Attributes:
        pairs: Comparisons of each user, to fit to or to be placed by.
    """

    task: str = "didactic"
    pairs: int = 16
    sets: int = 3000
    users: int = 400


@dataclass(frozen=True, kw_only=True)
class DidacticRow:
    """A method over all seeds.

    Attributes:
        method: Its name.
        accuracy: On other comparisons of test users.
        over_baseline: The same less BTL's; None for that itself.
        likeness: Correlation with the true reward of each kind, over the line, mean over seeds.
        peak: Where the reward of each kind is largest, mean over seeds.
    """

    method: str
    accuracy: Interval
    over_baseline: Interval | None
    likeness: tuple[float, ...]
    peak: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DidacticResult:
    """A whole run.

    Attributes:
        settings: What it depended on.
        kinds: What users want.
        majority: Share of the users who agree with most of them, over pairs: no single answer is right more often.
        rows: Methods.
        words: What VPL's latent carries, for each seed.
    """

    settings: DidacticSettings
    kinds: tuple[str, ...]
    majority: float
    rows: tuple[DidacticRow, ...]
    words: tuple[str, ...]


def run_didactic(
    settings: DidacticSettings, out: Path | None = None, *, say: Callable[[str], None] = print
) -> DidacticResult:
    """Fit every method to the same users, and compare curves, going on from what `out` holds.

    Args:
        settings: Of everything.
        out: Folder for `control.json` and `rewards.png`; None writes nothing.
        say: Is told what has been done.

    Raises:
        ConfigError: A setting or an option is not accepted.
        CacheError: The folder holds a run of other settings.
    """
    task = settings.make({"didactic": Didactic})
    if out is not None:
        claim(settings, out)
    kept = [keep_seed(out, seed, partial(_run_seed, task, settings, seed, say)) for seed in settings.numbers]
    places = task.places(201)
    truth = task.rewards(places)
    pairs = np.random.default_rng(settings.seed).random((2, 50_000, 1)) * LENGTH
    cluster = cluster_of(settings.seeds)
    joined = {
        method: predictions_of([each["methods"][method]["predicted"] for each in kept], settings.users)
        for method in METHODS
    }
    curves = {method: [np.array(each["methods"][method]["curves"]) for each in kept] for method in METHODS}
    result = DidacticResult(
        settings=settings,
        kinds=task.users,
        majority=float(task.majority(*pairs).mean()),
        rows=tuple(
            DidacticRow(
                method=method,
                accuracy=mean_interval(joined[method], "accuracy", cluster=cluster),
                over_baseline=None
                if method == METHODS[0]
                else paired_difference(joined[method], joined[METHODS[0]], "accuracy", cluster=cluster),
                likeness=_over_seeds([_likeness(each, truth) for each in curves[method]]),
                peak=_over_seeds([places[c.argmax(1), 0] for c in curves[method]]),
            )
            for method in METHODS
        ),
        words=tuple(each["words"] for each in kept),
    )
    if out is not None:
        write_json(out / "control.json", result)
        _draw(task, places, truth, {method: each[0] for method, each in curves.items()}, out)
    return result


def _run_seed(task: Didactic, settings: DidacticSettings, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Predictions for new users, and the reward along the line of each kind: at the mean z of its users."""
    seeds = np.random.SeedSequence(seed).generate_state(4).tolist()
    line = np.random.default_rng(seeds[3]).random((20_000, 1)) * LENGTH
    kind = np.arange(settings.users) % len(task.users)
    training = draw_sets(task, line, n_users=settings.sets, n_pairs=settings.pairs, seed=seeds[0])
    context, fresh = (
        draw_sets(task, line, n_users=settings.users, n_pairs=settings.pairs, kind=kind, seed=each)
        for each in seeds[1:3]
    )
    methods, words = {}, ""
    for method in METHODS:
        latent = settings.latent_settings(seed)
        fitted = fit_reward(method, task, training, settings=latent, ridge=1.0, seed=seed)
        z = fitted.place(context)
        middle = np.stack([z[kind == k].mean(0) for k in range(len(task.users))])
        predicted = fitted.predict(fresh, z)
        methods[method] = {
            "predicted": asdict(predicted),
            "curves": fitted.reward(fitted.sees(task.places(201)), middle).T,
        }
        if isinstance(fitted, Personal):
            words = fitted.words
        say(f"seed {seed}: {method}: {float(np.nanmean(predicted.correct)):.3f} of pairs right")
    return {"words": words, "methods": methods}


def _likeness(one: ndarray, other: ndarray) -> list[float]:
    """Correlation of every row with the other's."""
    return [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(one, other, strict=True)]


def _over_seeds(values: list[Any]) -> tuple[float, ...]:
    return tuple(float(each) for each in np.mean(values, axis=0))


def _draw(task: Didactic, places: ndarray, truth: ndarray, curves: Mapping[str, ndarray], out: Path) -> None:
    """The true rewards, and each method's, standardised over the line: constant and scale are not known."""
    from matplotlib.figure import Figure

    panels = {"true": truth, **curves}
    figure = Figure(figsize=(3 * len(panels), 2.8), layout="constrained")
    for axes, (name, each) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for k, curve in enumerate(each):
            axes.plot(places[:, 0], (curve - curve.mean()) / curve.std(), color=drawing.COLOURS[k])
            axes.axvline(task.modes[k], color=drawing.COLOURS[k], lw=0.8, ls=":")
        axes.set(title=name, xlabel="x")
    drawing.save(figure, out / "rewards.png")
