"""Look for what fools a reward model, and for what makes data untrustworthy.

Every shortcut is scored as a model would be: on decisions it was not fitted to, with an interval clustered by user.
Each family of tests (signs of format, beginnings and ends, users by position, by length, by everybody's model, by
their own contradictions) names something in clean data with a probability of at most 5 %.
"""

from __future__ import annotations

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.scans.attributes import find_telling_attributes
from pluralign.scans.duplicates import find_fine_sources, find_split_leaks
from pluralign.scans.findings import Baseline, Finding, Scan, sort_findings
from pluralign.scans.formats import find_leaks
from pluralign.scans.labels import find_checked, find_odd_labels, find_odd_texts, find_telling_covariates
from pluralign.scans.positions import find_position_bias
from pluralign.scans.predicting import Held
from pluralign.scans.raters import find_contradicting_users, find_length_rules, find_misfits, find_small_users
from pluralign.scans.shortcuts import find_shortcuts, score_popularity
from pluralign.scans.texts import Texts
from pluralign.scans.wins import Wins


def scan(
    comparisons: Comparisons,
    *,
    split: np.ndarray | None = None,
    seed: int = 0,
    near: float = 0.8,
    min_decisions: int = 5,
    max_decisions: int = 100_000,
) -> Scan:
    """Scan a table of comparisons.

    Args:
        comparisons: The table; nothing in it is changed.
        split: Name of every row's split, (rows,); None means the table's own `split`, if it has one.
        seed: Of folds, of what is drawn, and of the search for near duplicates.
        near: Least Jaccard index of two texts' runs of three words that makes them near duplicates.
        min_decisions: Users with fewer are reported.
        max_decisions: Decisions that the baselines are fitted to and scored on, drawn at random where there are more.
            All else looks at every row.

    Returns:
        What was found, the worst first.

    Raises:
        DataError: There are no rows, or `split` has not one name per row.
        ConfigError: A setting has a value that is not accepted.
    """
    if not 0 < near <= 1:
        raise ConfigError(f"near is {near}; it must be above 0 and at most 1")
    for name, value in (("min_decisions", min_decisions), ("max_decisions", max_decisions)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if not len(comparisons):
        raise DataError("there are no comparisons to scan")
    if split is not None and len(split) != len(comparisons):
        raise DataError(f"split has {len(split)} names for {len(comparisons)} rows; it must have one for each")
    split = comparisons.split if split is None else split
    wins = Wins.of(comparisons)
    held = Held.draw(comparisons, max_decisions, seed) if len(wins) else None
    texts = None if comparisons.format == "numeric" else Texts.of_responses(comparisons)

    findings: list[Finding] = [*find_checked(comparisons), *find_odd_labels(comparisons)]
    baselines: list[Baseline] = []
    reference = None
    if held is not None and texts is not None:
        found, scored = find_shortcuts(texts, held, seed=seed)
        findings = find_leaks(texts, wins) + found + findings
        baselines += scored
        findings += find_length_rules(texts, wins, comparisons)
    if held is not None:
        found, scored = find_telling_attributes(comparisons, held)
        findings, baselines = findings + found, baselines + scored
    found, scored = find_position_bias(comparisons)
    findings, baselines = findings + found, baselines + scored
    popularity, predictions = score_popularity(comparisons) if len(wins) else (None, None)
    if popularity is not None and predictions is not None:
        baselines.append(popularity)
        reference = predictions
        findings += find_misfits(comparisons, reference, "how often others chose the same responses")
    findings += find_contradicting_users(comparisons, wins) + find_small_users(comparisons, min_decisions)
    findings += find_telling_covariates(comparisons)
    if texts is not None:
        findings += find_odd_texts(comparisons, texts)
        findings += find_fine_sources(comparisons, texts, Texts.of_prompts(comparisons), near=near, seed=seed)
    if split is not None:
        findings += find_split_leaks(comparisons, texts, split, near=near, seed=seed)
    return Scan(
        findings=sort_findings(findings),
        baselines=tuple(baselines),
        n_rows_scanned=len(comparisons),
        note=_note(comparisons, held, split, max_decisions),
    )


def _note(comparisons: Comparisons, held: Held | None, split: np.ndarray | None, most: int) -> str:
    said = []
    if comparisons.n_decisions > most:
        said.append(f"baselines are of {most:,} decisions drawn from {comparisons.n_decisions:,}")
    if comparisons.position is None:
        said.append("no position is recorded, so a bias of position cannot be seen")
    if split is None:
        said.append("there is no split column, so duplicates across splits were not looked for")
    if held is None:
        said.append("there are too few decisions for any baseline")
    return "; ".join(said)
