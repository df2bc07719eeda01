"""Every model on the same decisions: scores, personal minus pooled with its interval, and the control rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pluralign.errors import ConfigError
from pluralign.evaluation.groups import sum_by
from pluralign.evaluation.intervals import Interval, holm, mean_interval, paired_difference
from pluralign.evaluation.predictions import Predictions, combine_seeds, same_decisions
from pluralign.evaluation.scores import Scores, score
from pluralign.types import FloatArray, IntArray

GAINS = ("accuracy", "log_prob")


@dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    """One model of the table.

    Attributes:
        name: Of the model.
        control: Whether the model is there to be beaten by (a random other user's, say) and wins nothing.
        scores: Over all splits together, each counting the same.
        accuracy: The accuracy with its interval.
        gains: Model minus baseline in `accuracy` and in `log_prob` (nats per decision); above 0 is better in both.
            Empty for the baseline.
        gain_by_seed: The same difference in each split, (splits,).
        p_adjusted: P-value of the gain in log_prob, adjusted (Holm) for the number of models compared; None for the
            baseline and for controls.
    """

    name: str
    control: bool
    scores: Scores
    accuracy: Interval
    gains: dict[str, Interval]
    gain_by_seed: dict[str, FloatArray]
    p_adjusted: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "control": self.control,
            "scores": self.scores.as_dict(),
            "accuracy": self.accuracy.as_dict(),
            "gains": {metric: gain.as_dict() for metric, gain in self.gains.items()},
            "gain_by_seed": {metric: gain.tolist() for metric, gain in self.gain_by_seed.items()},
            "p_adjusted": self.p_adjusted,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """Models compared on the same held-out decisions.

    Attributes:
        baseline: Name of the row that gains are counted from.
        rows: In the order given.
        n_seeds: Number of splits.
    """

    baseline: str
    rows: tuple[Row, ...]
    n_seeds: int

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"baseline": self.baseline, "n_seeds": self.n_seeds, "rows": [row.as_dict() for row in self.rows]}


def compare(
    models: Mapping[str, Predictions | Sequence[Predictions]],
    *,
    baseline: str = "pooled",
    controls: Collection[str] = (),
    cluster: str = "user",
    level: float = 0.95,
    min_decisions: int = 10,
) -> Table:
    """Score every model and its gain over the baseline.

    Args:
        models: Predictions of the same decisions by name; where there are several splits, a sequence of them, in the
            same order for every model.
        baseline: What gains are counted from.
        controls: Names of the models that are controls.
        cluster: What intervals are clustered by (`paired_difference`).
        level: Confidence level.
        min_decisions: As in `score`.

    Raises:
        ConfigError: The baseline or a control is not among the models, or models have different numbers of splits.
        DataError: Two models predict different decisions.
    """
    seeds = {name: [given] if isinstance(given, Predictions) else list(given) for name, given in models.items()}
    missing = sorted({baseline, *controls} - set(seeds))
    if missing:
        raise ConfigError(f'no model "{missing[0]}"; known: {", ".join(sorted(seeds))}')
    n_seeds = len(seeds[baseline])
    for name, given in seeds.items():
        if len(given) != n_seeds:
            raise ConfigError(f'model "{name}" has {len(given)} splits and "{baseline}" has {n_seeds}')
    joined = {name: combine_seeds(given) for name, given in seeds.items()}

    gains = {
        name: {
            metric: paired_difference(joined[name], joined[baseline], metric, cluster=cluster, level=level)
            for metric in GAINS
        }
        for name in seeds
        if name != baseline
    }
    tested = [name for name in gains if name not in controls]
    adjusted = holm(np.array([gains[name]["log_prob"].p_value for name in tested]))
    p_adjusted = {name: float(p) for name, p in zip(tested, adjusted, strict=True) if np.isfinite(p)}
    rows = tuple(
        Row(
            name=name,
            control=name in controls,
            scores=score(joined[name], min_decisions=min_decisions),
            accuracy=mean_interval(joined[name], "accuracy", cluster=cluster, level=level),
            gains=gains.get(name, {}),
            gain_by_seed={
                metric: np.array(
                    [
                        paired_difference(a, b, metric).estimate
                        for a, b in zip(seeds[name], seeds[baseline], strict=True)
                    ]
                )
                for metric in (GAINS if name != baseline else ())
            },
            p_adjusted=p_adjusted.get(name),
        )
        for name in seeds
    )
    return Table(baseline=baseline, rows=rows, n_seeds=n_seeds)


@dataclass(frozen=True, eq=False, kw_only=True)
class UserGains:
    """Who gains and who loses: one entry per user, in the order of user numbers.

    Attributes:
        user: User index, (users,).
        n_decisions: Decisions, ties included, (users,).
        accuracy: The model's accuracy minus the baseline's, NaN where all are ties, (users,).
        log_prob: The same in nats per decision, above 0 where the model is better, (users,).
        standard_error: Of `log_prob`, over the user's decisions; NaN for a single one, (users,).
    """

    user: IntArray
    n_decisions: IntArray
    accuracy: FloatArray
    log_prob: FloatArray
    standard_error: FloatArray


def user_gains(model: Predictions, baseline: Predictions) -> UserGains:
    """Return what every user gains by the model over the baseline on the same decisions.

    Raises:
        DataError: The two do not predict the same decisions.
    """
    same_decisions(model, baseline)
    counts = model.weight > 0
    user, code = np.unique(model.user[counts], return_inverse=True)
    n, weight = len(user), model.weight[counts]
    gain = (model.log_prob - baseline.log_prob)[counts]
    right = (model.correct - baseline.correct)[counts]
    decided = ~np.isnan(right)
    total, square = sum_by(code, weight, n), sum_by(code, weight**2, n)
    judged = sum_by(code[decided], weight[decided], n)
    mean = sum_by(code, weight * gain, n) / total
    scatter = sum_by(code, weight * (gain - mean[code]) ** 2, n)
    freedom = total - square / total
    several = np.bincount(code, minlength=n) > 1
    variance = np.divide(scatter, freedom, out=np.full(n, np.nan), where=several) * square / total**2
    return UserGains(
        user=user.astype(np.int32),
        n_decisions=np.bincount(code, minlength=n).astype(np.int32),
        accuracy=np.divide(
            sum_by(code[decided], (weight * right)[decided], n), judged, out=np.full(n, np.nan), where=judged > 0
        ),
        log_prob=mean,
        standard_error=np.sqrt(variance),
    )
