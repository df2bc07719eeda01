"""What a scan reports: findings, baselines, and how bad each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pluralign.evaluation import Interval

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
N_SHOWN = 20  # rows and users that a finding lists
LEVEL = 0.05  # each family of tests names something in clean data with at most this probability


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that fools a reward model, or that a reader of the results should know.

    Attributes:
        name: What it is called; `docs/scan.md` lists the names.
        severity: "error": results on these data mean nothing before it is dealt with. "warning": they may mean
            something else than they seem to. "note": worth knowing; often it is how people choose.
        message: What it is, with the number.
        advice: What to do.
        count: How many there are, of what the message says.
        rows: The first rows that show it, numbered from 0 as in `Comparisons.take`.
        accuracy: Held-out accuracy of what is found, where it predicts.
        users: The first users it concerns.
    """

    name: str
    severity: Severity
    message: str
    advice: str
    count: int
    rows: tuple[int, ...] = ()
    accuracy: Interval | None = None
    users: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """How well something that is no taste predicts decisions it has not seen.

    Attributes:
        name: length, format, position, response, popularity, attributes, or attribute NAME.
        accuracy: With its interval, clustered by user.
        chance: What guessing scores: 1 / k among k responses.
        cross_validated: Whether it was fitted on other decisions than it is scored on.
        held_out_by: "source" or "item" (no fold trains on a source, or on a response, that it is scored on), "user"
            (others' votes), or "decision" where there is a single source.
        message: What the number means.
    """

    name: str
    accuracy: Interval
    chance: float
    cross_validated: bool = True
    held_out_by: str = "source"
    message: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was found.

    Attributes:
        findings: Errors first, then warnings, then notes.
        baselines: What each shortcut scores, found or not.
        n_rows_scanned: Rows that were looked at.
        note: What was drawn at random, and what was not looked at.
    """

    findings: tuple[Finding, ...]
    baselines: tuple[Baseline, ...]
    n_rows_scanned: int
    note: str

    @property
    def worst(self) -> Severity | None:
        """The worst severity, or None where nothing was found."""
        return self.findings[0].severity if self.findings else None

    def named(self, name: str) -> list[Finding]:
        """The findings of one name."""
        return [finding for finding in self.findings if finding.name == name]


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first; in the order they came within a severity."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def some_rows(rows: np.ndarray) -> tuple[int, ...]:
    """The first distinct row numbers, ascending, of row numbers or of a mask."""
    rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.unique(rows)
    return tuple(rows[:N_SHOWN].tolist())


def some_users(user_ids: tuple[str, ...], users: np.ndarray) -> tuple[str, ...]:
    """The ids of the first users of an index array, in its order."""
    return tuple(user_ids[user] for user in users[:N_SHOWN].tolist())


def range_of(interval: Interval, digits: int = 2) -> str:
    """An estimate and its interval in words: "0.63 (0.61 to 0.65)"."""
    shown = f"{interval.estimate:.{digits}f}"
    if not np.isfinite(interval.low):
        return shown
    return f"{shown} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def count_of(n: int, one: str, several: str | None = None) -> str:
    """A number and its noun: "1 row", "1,200 rows"."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"
