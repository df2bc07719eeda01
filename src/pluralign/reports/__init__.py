"""The report of a study: one self-contained page, figures for papers, and the numbers as CSV."""

from pathlib import Path


def write_report(folder: Path) -> Path:
    """Write `report.html`, `figures/` and `tables/` beside the `results.json` of a study (`reports.page`)."""
    from pluralign.reports.page import write_report as write

    return write(folder)


__all__ = ["write_report"]
