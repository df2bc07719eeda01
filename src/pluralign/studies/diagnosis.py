"""Whether and how users differ, and whether the data can be trusted: what a study knows besides its ladder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pluralign.comparisons import Comparisons
from pluralign.features import Design
from pluralign.studies.features import Step
from pluralign.studies.kept import SeedResult
from pluralign.studies.ladder import Rung
from pluralign.studies.settings import StudySettings


@dataclass(frozen=True, eq=False, kw_only=True)
class Diagnosis:
    tests: Any = None
    power: Any = None

    @property
    def heterogeneity(self) -> dict[str, object]:
        return {"tests": self.tests, "power": self.power}

    likes: Any = None
    scan: Any = None


def diagnose(
    comparisons: Comparisons,
    settings: StudySettings,
    seeds: Sequence[SeedResult],
    design: Design,
    rungs: dict[str, Rung],
    on_step: Step,
) -> Diagnosis:
    return Diagnosis()
