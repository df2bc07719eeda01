"""The one-dimensional example from end to end: whose reward was recovered, by whom.

One reward for everybody ends between the modes and is right as often as the majority of users is; latent users recover
every mode. Nothing is steered: success is accuracy on other comparisons, and the likeness of the curves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from pluralign.control import drawing
from pluralign.control.didactic import LENGTH, Didactic
from pluralign.control.preferences import Sets, draw_sets
from pluralign.control.rewards import Personal, Reward, control_settings, fit_reward
from pluralign.control.settings import read_settings
from pluralign.errors import ConfigError
from pluralign.evaluation import Interval, Predictions, combine_seeds, mean_interval, paired_difference
from pluralign.files import plain, write_json
from pluralign.inference.latent_elbo import LatentSettings

METHODS = ("btl", "dpl-mean-variance", "vpl")


@dataclass(frozen=True, kw_only=True)
class DidacticSettings:
    """Everything that a run depends on.

    Attributes:
        task: "didactic".
        options: Of `Didactic`, by name.
        seeds: Numbers of runs.
        pairs: Comparisons of each user to fit to, and of each test user.
        sets: Users to fit to.
        users: Test users, of every kind in turn.
        latent: Fields of `LatentSettings` that differ from `control_settings`.
        seed: Where the seeds begin.
    """

    task: str = "didactic"
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    pairs: int = 16
    sets: int = 3000
    users: int = 400
    latent: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("seeds", "pairs", "sets", "users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        self.latent_settings(0)

    def latent_settings(self, seed: int) -> LatentSettings:
        """What VPL is fitted by."""
        return replace(control_settings(seed=seed), **self.latent)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> DidacticSettings:
        """Settings from a mapping.

        Raises:
            ConfigError: A name that is no setting, or a value out of range.
        """
        return read_settings(cls, given)


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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found: dict[str, Any] = plain({each.name: getattr(self, each.name) for each in fields(self)})
        return found


def run_didactic(
    settings: DidacticSettings, out: Path | None = None, *, say: Callable[[str], None] = print
) -> DidacticResult:
    """Fit every method to the same users, and compare curves.

    Args:
        settings: Of everything.
        out: Folder for `control.json` and `rewards.png`; None writes nothing.
        say: Is told what has been done.

    Raises:
        ConfigError: A setting or an option is not accepted.
    """
    try:
        task = Didactic(**settings.options)
    except TypeError as error:
        raise ConfigError(f"didactic does not take these options: {error}") from error
    places = task.places(201)
    truth = task.rewards(places)
    predicted: dict[str, list[Predictions]] = {method: [] for method in METHODS}
    curves: dict[str, list[ndarray]] = {method: [] for method in METHODS}
    words = []
    for number in range(settings.seeds):
        seed = settings.seed + number
        seeds = np.random.SeedSequence(seed).generate_state(4).tolist()
        line = np.random.default_rng(seeds[3]).random((20_000, 1)) * LENGTH
        kind = np.arange(settings.users) % len(task.users)
        training = draw_sets(task, line, n_users=settings.sets, n_pairs=settings.pairs, seed=seeds[0])
        context, fresh = (
            draw_sets(task, line, n_users=settings.users, n_pairs=settings.pairs, kind=kind, seed=each)
            for each in seeds[1:3]
        )
        for method in METHODS:
            latent = settings.latent_settings(seed)
            fitted = fit_reward(method, task, training, settings=latent, ridge=1.0, seed=seed)
            found, curve = _found(fitted, task, context, fresh, places)
            first_user = number * settings.users  # every seed has users of its own
            predicted[method].append(replace(found, user=found.user + first_user))
            curves[method].append(curve)
            if isinstance(fitted, Personal):
                words.append(fitted.words)
            say(f"seed {seed}: {method}: {float(np.nanmean(found.correct)):.3f} of pairs right")
    pairs = np.random.default_rng(settings.seed).random((2, 50_000, 1)) * LENGTH
    joined = {method: combine_seeds(each) for method, each in predicted.items()}
    result = DidacticResult(
        settings=settings,
        kinds=task.users,
        majority=float(task.majority(*pairs).mean()),
        rows=tuple(
            DidacticRow(
                method=method,
                accuracy=mean_interval(joined[method], "accuracy"),
                over_baseline=None
                if method == METHODS[0]
                else paired_difference(joined[method], joined[METHODS[0]], "accuracy"),
                likeness=_over_seeds([_likeness(each, truth) for each in curves[method]]),
                peak=_over_seeds([places[c.argmax(1), 0] for c in curves[method]]),
            )
            for method in METHODS
        ),
        words=tuple(words),
    )
    if out is not None:
        write_json(out / "control.json", result)
        _draw(task, places, truth, {method: each[0] for method, each in curves.items()}, out)
    return result


def _found(fitted: Reward, task: Didactic, context: Sets, fresh: Sets, places: ndarray) -> tuple[Predictions, ndarray]:
    """Predictions, and the reward along the line of each kind: at the mean z of its users, (kinds, places)."""
    z = fitted.place(context)
    middle = np.stack([z[context.kind == k].mean(0) for k in range(len(task.users))])
    return fitted.predict(fresh, z), fitted.reward(fitted.sees(places), middle).T


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
