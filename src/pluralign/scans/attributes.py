"""Numeric items: whether one attribute says it all, and whether there was anything to weigh."""

from __future__ import annotations

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.evaluation import mean_interval
from pluralign.scans.findings import Baseline, Finding, count_of, some_rows
from pluralign.scans.predicting import Held, baseline
from pluralign.scans.wins import Wins
from pluralign.types import FloatArray

ENOUGH = 0.9  # accuracy of one attribute, at the interval's lower end
MANY = 0.5
SURE = 3.0  # standard errors from no preference, for a direction in which everybody is taken to like an attribute
MOST = 64  # attributes that are looked at one by one


def find_telling_attributes(comparisons: Comparisons, held: Held) -> tuple[list[Finding], list[Baseline]]:
    """Score every attribute alone and all together; say how many decisions had one response better in everything."""
    attributes = comparisons.items.attributes
    if attributes is None:
        return [], []
    names = comparisons.items.attribute_names
    findings, baselines = [], []
    everything = held.predict(attributes)
    if everything is not None:
        baselines.append(
            baseline("attributes", held, everything, "all attributes together, one logit for everybody, score {} here")
        )
    singles = []
    for column in range(min(attributes.shape[1], MOST)):
        predictions = held.predict(attributes[:, [column]])
        if predictions is not None:
            singles.append((mean_interval(predictions), names[column], predictions))
    if singles:
        accuracy, name, predictions = max(singles, key=lambda each: each[0].estimate)
        shown = baseline(
            f"attribute {name}", held, predictions, f"{name} alone, the best single attribute, scores {{}} here"
        )
        baselines.append(shown)
        if accuracy.low >= ENOUGH:
            findings.append(
                Finding(
                    name="single_attribute",
                    severity="warning",
                    message=shown.message,
                    advice="see whether it was computed from the choice; if not, these decisions ask only about it",
                    count=accuracy.n_decisions,
                    rows=some_rows(held.rows_of(predictions, right=True)),
                    accuracy=accuracy,
                )
            )
    return findings + _find_dominated(comparisons, attributes), baselines


def _find_dominated(comparisons: Comparisons, attributes: FloatArray) -> list[Finding]:
    """Pairs in which one response is at least as good in every attribute that has a clear direction, and better in one.

    The direction of an attribute is that of its mean difference between winner and loser, where that is clear. Where
    attributes are only marks of which item it is (0 and 1), and for fewer than two attributes, nothing is said.
    """
    wins = Wins.of(comparisons)
    if attributes.shape[1] < 2 or not len(wins) or np.isin(attributes, (0.0, 1.0)).all():
        return []
    block = 200_000
    total, square = np.zeros(attributes.shape[1]), np.zeros(attributes.shape[1])
    for at in range(0, len(wins), block):
        part = attributes[wins.winner[at : at + block]] - attributes[wins.loser[at : at + block]]
        total += part.sum(0)
        square += (part**2).sum(0)
    clear = np.abs(total) >= SURE * np.sqrt(square)
    clear &= square > 0
    if clear.sum() < 2 or clear.sum() < (square > 0).sum():
        return []  # an attribute that people weigh differently may outweigh the others
    direction = np.sign(total)
    better = np.zeros(len(wins), dtype=np.bool_)
    worse = np.zeros(len(wins), dtype=np.bool_)
    for at in range(0, len(wins), block):
        part = (attributes[wins.winner[at : at + block]] - attributes[wins.loser[at : at + block]]) * direction
        differs = (part != 0).any(1)
        better[at : at + block] = differs & (part >= 0).all(1)
        worse[at : at + block] = differs & (part <= 0).all(1)
    dominated = better | worse
    if not dominated.any():
        return []
    return [
        Finding(
            name="dominated",
            severity="warning" if dominated.mean() > MANY else "note",
            message=f"in {dominated.mean():.0%} of {count_of(len(wins), 'pair')} one response is better in everything "
            f"(by what most people like); the worse one was chosen in {worse.sum() / dominated.sum():.1%} of them",
            advice="such pairs tell how careful people are, not what they trade for what; leave most of them out",
            count=int(dominated.sum()),
            rows=some_rows(wins.row[worse] if worse.any() else wins.row[dominated]),
        )
    ]
