"""What fools a reward model, and whether data can be trusted."""

from pluralign.scans.findings import Baseline, Finding, Scan
from pluralign.scans.scan import scan

__all__ = ["Baseline", "Finding", "Scan", "scan"]
