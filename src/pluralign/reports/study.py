"""The front door: a study and its page."""

from __future__ import annotations

from pathlib import Path

from pluralign.comparisons import Comparisons
from pluralign.reports.page import write_report
from pluralign.studies.pipeline import Study, run_study
from pluralign.studies.settings import StudySettings


def study(
    comparisons: Comparisons, *, out: Path | str | None = None, device: str = "cpu", jobs: int = 1, **settings: object
) -> Study:
    """Run the whole study, and write its report where there is a folder to write to.

    Args:
        comparisons: The data.
        out: Folder for results, models and `report.html`; None writes nothing.
        device: Where encoders and fits run.
        jobs: Splits fitted at a time, as `run_study` has it.
        settings: Fields of `StudySettings` by name.

    Raises:
        ConfigError: An unknown setting, or a value that is not accepted.
        DataError: Too few sources, users or rows for the splits that were asked for.
    """
    folder = None if out is None else Path(out)
    found = run_study(comparisons, StudySettings.of(settings), out=folder, device=device, jobs=jobs)
    if folder is not None:
        write_report(folder)
    return found
