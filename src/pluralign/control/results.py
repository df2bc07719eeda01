"""What a control experiment came to: accuracies of rewards and success of policies, with intervals, over all seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pluralign.control.evaluation import Run, Success, success_difference, success_interval
from pluralign.control.settings import ControlSettings, read_row
from pluralign.evaluation import Interval, Predictions, combine_seeds, mean_interval, paired_difference
from pluralign.files import plain

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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found: dict[str, Any] = plain({each.name: getattr(self, each.name) for each in fields(self)})
        return found


def seed_folder(out: Path, seed: int) -> Path:
    """Where a seed's results are kept."""
    return out / f"seed-{seed}"


def row_folder(out: Path, seed: int, row: str) -> Path:
    """Where a policy and what it did are kept."""
    return seed_folder(out, seed) / row.replace(" ", "-")


def gather(kinds: tuple[str, ...], settings: ControlSettings, out: Path) -> ControlResult:
    """Put together what the seeds' folders hold."""
    seeds = range(settings.seed, settings.seed + settings.seeds)
    kept = {row: [_read(row_folder(out, seed, row) / "result.json") for seed in seeds] for row in settings.rows}
    methods = list(dict.fromkeys(read_row(row)[0] for row in settings.rows))
    fits = {method: [_read(seed_folder(out, seed) / f"{method}.json") for seed in seeds] for method in methods}
    predicted = {
        method: combine_seeds([_predictions(each["predicted"], n, settings.users) for n, each in enumerate(found)])
        for method, found in fits.items()
    }
    runs = {
        row: [
            Run(
                success=np.array(each["success"]),
                kind=np.array(each["kind"]),
                user=np.arange(len(each["kind"])) + number * settings.users,  # every seed has users of its own
            )
            for number, each in enumerate(found)
        ]
        for row, found in kept.items()
    }
    cluster = "both" if settings.seeds > 1 else "user"
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


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _predictions(columns: Mapping[str, Any], number: int, n_users: int) -> Predictions:
    """As they were kept, every seed with users of its own; a source is a seed, as of success."""
    arrays: dict[str, Any] = {name: np.array(each, dtype=np.float64) for name, each in columns.items()}
    user = np.array(columns["user"], dtype=np.int32) + np.int32(number * n_users)
    return Predictions(**{**arrays, "user": user, "source": np.full(len(user), number, dtype=np.int32)})
