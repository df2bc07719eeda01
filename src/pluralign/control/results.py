"""What a control experiment came to: accuracies of rewards and success of policies, with intervals, over all seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pluralign.control.evaluation import Run, Success, cluster_of, success_difference, success_interval
from pluralign.control.settings import ControlSettings, RunSettings, read_row
from pluralign.errors import CacheError
from pluralign.evaluation import Interval, Predictions, combine_seeds, mean_interval, paired_difference
from pluralign.files import plain, write_json

ORACLE, BASELINE, PERSONAL = "oracle", "btl", "vpl"


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """What a row came to over all seeds.

    Attributes:
        row: Its name.
        success: By kind and overall.
        over_baseline: Success less that of the baseline's first row, same users, same starts; None for that row.
        of_oracle: Success as a share of the oracle's, None where the oracle has no row.
        swapped: Mean over seeds of success with another's z, of that z's own goal reached, and without comparisons.
        seconds: Of processor time for one policy, mean over seeds.
    """

    row: str
    success: Success
    over_baseline: Interval | None
    of_oracle: float | None
    swapped: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What a fitted reward came to over all seeds.

    Attributes:
        method: Its name.
        accuracy: On other comparisons of test users, ties apart.
        over_baseline: The same less the baseline's, paired; None for the baseline.
        words: What its latent carries, for each seed; empty where there is none.
        seconds: Of processor time for one fit, mean over seeds.
    """

    method: str
    accuracy: Interval
    over_baseline: Interval | None
    words: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """A whole run.

    Attributes:
        settings: What it depended on.
        kinds: What users want.
        methods: Rewards.
        rows: Policies.
    """

    settings: ControlSettings
    kinds: tuple[str, ...]
    methods: tuple[MethodResult, ...]
    rows: tuple[RowResult, ...]


def claim(settings: RunSettings, out: Path, *, grows: Sequence[str] = ("seeds",)) -> None:
    """Make sure that what the folder holds is of these settings.

    Args:
        settings: Of the run.
        out: Its folder, which keeps them as `settings.json`.
        grows: Settings that may be others: there will be more of the same.

    Raises:
        CacheError: The folder holds a run of other settings.
    """
    given = {name: each for name, each in plain(asdict(settings)).items() if name not in grows}
    path = out / "settings.json"
    if path.is_file():
        there = read_json(path)
        other = sorted(name for name in given if there.get(name) != given[name])
        if other:
            was = ", ".join(f"{name} was {there.get(name)!r}" for name in other)
            raise CacheError(
                f"{out} holds a run of other settings: {was}", hint="give another --out, or delete the folder"
            )
    write_json(path, given)


def keep_seed(out: Path | None, seed: int, make: Callable[[], Any]) -> Any:
    """What a seed came to as JSON has it: from its folder, or else made now and kept there; None keeps nothing."""
    path = None if out is None else seed_folder(out, seed) / "result.json"
    if path is not None and path.is_file():
        return read_json(path)
    found = plain(make())
    if path is not None:
        write_json(path, found)
    return found


def seed_folder(out: Path, seed: int) -> Path:
    """Where a seed's results are kept."""
    return out / f"seed-{seed}"


def row_folder(out: Path, seed: int, row: str) -> Path:
    """Where a policy and what it did are kept."""
    return seed_folder(out, seed) / row.replace(" ", "-")


def gather(kinds: tuple[str, ...], settings: ControlSettings, out: Path) -> ControlResult:
    """Put together what the seeds' folders hold."""
    seeds = settings.numbers
    kept = {row: [read_json(row_folder(out, seed, row) / "result.json") for seed in seeds] for row in settings.rows}
    methods = list(dict.fromkeys(read_row(row)[0] for row in settings.rows))
    fits = {method: [read_json(seed_folder(out, seed) / f"{method}.json") for seed in seeds] for method in methods}
    predicted = {
        method: predictions_of([each["predicted"] for each in found], settings.users) for method, found in fits.items()
    }
    runs = {row: runs_of(found, settings.users) for row, found in kept.items()}
    cluster = cluster_of(settings.seeds)
    success = {row: success_interval(each, kinds) for row, each in runs.items()}
    baseline = next((row for row in settings.rows if read_row(row)[0] == BASELINE), None)
    oracle = next((success[row] for row in settings.rows if read_row(row)[0] == ORACLE), None)
    return ControlResult(
        settings=settings,
        kinds=kinds,
        methods=tuple(
            MethodResult(
                method=method,
                accuracy=mean_interval(predicted[method], "accuracy", cluster=cluster),
                over_baseline=None
                if method == BASELINE or BASELINE not in predicted
                else paired_difference(predicted[method], predicted[BASELINE], "accuracy", cluster=cluster),
                words=tuple(each["words"] for each in fits[method] if each["words"]),
                seconds=float(np.mean([each["seconds"] for each in fits[method]])),
            )
            for method in methods
        ),
        rows=tuple(
            RowResult(
                row=row,
                success=success[row],
                over_baseline=None
                if baseline is None or row == baseline
                else success_difference(runs[row], runs[baseline]),
                of_oracle=None
                if oracle is None or not oracle.overall.estimate
                else success[row].overall.estimate / oracle.overall.estimate,
                swapped=_mean_of([each["swapped"] for each in kept[row]]),
                seconds=float(np.mean([each["seconds"] for each in kept[row]])),
            )
            for row in settings.rows
        ),
    )


def _mean_of(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the seeds that have a number: one whose latent has collapsed has none."""
    names = dict.fromkeys(name for one in each for name in one)
    return {name: float(np.mean([one[name] for one in each if name in one])) for name in names}


def read_json(path: Path) -> Any:
    """What a file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def predictions_of(kept: Sequence[Mapping[str, Any]], n_users: int) -> Predictions:
    """The seeds' predictions as they were kept, every seed with users of its own; a source is a seed."""
    found = []
    for number, columns in enumerate(kept):
        arrays: dict[str, Any] = {name: np.array(each, dtype=np.float64) for name, each in columns.items()}
        user = np.array(columns["user"], dtype=np.int32) + np.int32(number * n_users)
        found.append(Predictions(**{**arrays, "user": user, "source": np.full(len(user), number, dtype=np.int32)}))
    return combine_seeds(found)


def runs_of(kept: Sequence[Mapping[str, Any]], n_users: int) -> list[Run]:
    """The seeds' success as it was kept, every seed with users of its own."""
    return [
        Run(
            success=np.array(each["success"]),
            kind=np.array(each["kind"]),
            user=np.arange(len(each["kind"])) + number * n_users,
        )
        for number, each in enumerate(kept)
    ]
