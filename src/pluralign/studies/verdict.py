"""What to train, said from held-out evidence.

The rung is chosen inside the training rows, by cross-validation; the test rows are looked at once, to ask whether that
rung's gain over `pooled` is real. Three things must hold before users get models of their own:

1. cross-validation prefers the rung to `pooled` by more than one standard error (clustered by user);
2. on the test rows its gain in log-probability over `pooled` has an interval above 0;
3. so has its gain over `reliability`: users who only differ in how noisily they answer share one taste.

Log-probability decides because it is proper: accuracy moves only when a prediction crosses one half. Both are reported.

Where they do not all hold, one reward serves everybody, and the question is whether that is known or only not refuted.
It is *cannot tell yet* where the score test says that tastes differ though no model turns it into better predictions,
where the interval of the best model of taste reaches a gain that would have been worth having, or where there was
neither a test of taste nor a model of it that predicts anything else than the pooled reward does. It is *do not
personalise* where none of these is so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pluralign.evaluation import Interval
from pluralign.studies.groups import ClusterGain, Losers

SHARED = ("pooled", "reliability")  # rungs in which everybody has the same taste

Answer = Literal["personalise", "do not personalise", "cannot tell yet"]
Kind = Literal["taste", "reliability", "none", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What a study knows besides the candidate's gains; each may be missing.

    Attributes:
        untried: Why neither a test nor a model could show several users' tastes to differ; None where one could.
        taste_p: p-value of the score test of taste, the larger where there are two.
        personal: The rung of taste that cross-validation liked best, in words.
        personal_accuracy: Its test gain over `pooled` in accuracy.
        detectable: Gain in points of accuracy that data like these would show in 8 of 10 cases.
        needed: Users, and comparisons of each, that would show a gain of one point in 8 of 10 cases.
        n_clusters: Clusters of the `cluster` rung, fitted to all rows, that are some user's most likely one.
        stability: Adjusted Rand index of the clusters in two halves of the training sources, mean over the splits.
        minority: The smallest cluster, by its own reward and by the pooled one.
        losers: Whom the candidate serves worse than `pooled`.
    """

    untried: str | None = None
    taste_p: float | None = None
    personal: str | None = None
    personal_accuracy: Interval | None = None
    detectable: float | None = None
    needed: tuple[int, int] | None = None
    n_clusters: int | None = None
    stability: float | None = None
    minority: ClusterGain | None = None
    losers: Losers | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The recommendation of a study.

    Attributes:
        answer: Whether users should get rewards of their own.
        rung: The rung to train.
        candidate: The rung that cross-validation chose; not `rung` where the test rows did not bear it out.
        kind: What users differ in as far as the test rows show it: "taste", "reliability" or "none"; "unknown" where
            it cannot be told.
        reason: One plain paragraph.
        gain: Test gain of the candidate over `pooled` in nats per decision.
        gain_accuracy: The same in accuracy.
        gain_over_reliability: Test gain of the candidate over `reliability` in nats, where both were fitted.
        n_clusters: As in `Beside`, like all that follows.
        stability: Of the clusters.
        minority: The smallest cluster and what pooling costs it.
        losers: Whom the candidate serves worse.
        detectable: Gain in points that would have been seen.
    """

    answer: Answer
    rung: str
    candidate: str
    kind: Kind
    reason: str
    gain: Interval
    gain_accuracy: Interval
    gain_over_reliability: Interval | None
    n_clusters: int | None = None
    stability: float | None = None
    minority: ClusterGain | None = None
    losers: Losers | None = None
    detectable: float | None = None


def decide(
    candidate: str,
    gain: Interval,
    gain_accuracy: Interval,
    gain_over_reliability: Interval | None,
    described: Mapping[str, str],
    beside: Beside | None = None,
    *,
    worthwhile: float = 0.01,
    level: float = 0.95,
) -> Verdict:
    """Turn the candidate and its test gains into a verdict (module docstring).

    Args:
        candidate: The rung that cross-validation chose.
        gain: Its gain over `pooled` on the test rows, nats per decision.
        gain_accuracy: The same in accuracy.
        gain_over_reliability: Its gain over `reliability`, nats; None where `reliability` was not fitted.
        described: What each rung is in words, settings included ("one reward per cluster, 3 clusters").
        beside: What else is known.
        worthwhile: Smallest gain in accuracy that would be worth a model for each user, a share.
        level: Of the intervals and the test.
    """
    beside = beside or Beside()
    size = (
        f"{_signed(gain_accuracy, 100.0)} points of accuracy and {_signed(gain, 1.0)} nats per decision "
        "over the pooled reward"
    )
    rung, kind = "pooled", "none"
    if candidate == "pooled":
        reason = (
            "Train one reward for everybody. Cross-validation inside the training rows found nothing that predicts "
            "better for each user than the pooled reward does."
        )
    elif not gain.low > 0:
        reason = (
            f"Train one reward for everybody. Cross-validation preferred {described[candidate]}, but on held-out "
            f"decisions it gains {size}: an interval that does not exclude 0."
        )
    elif candidate == "reliability":
        rung, kind = "reliability", "reliability"
        reason = (
            "Train one reward for everybody, and model how reliably each user answers. Users differ in noise, not "
            f"in taste: their reliability alone gains {size}, and no model of taste does better."
        )
    elif gain_over_reliability is not None and not gain_over_reliability.low > 0:
        rung, kind = "reliability", "reliability"
        reason = (
            "Train one reward for everybody. Users differ, but in how reliably they answer: beyond that, "
            f"{described[candidate]} gains {_signed(gain_over_reliability, 1.0)} nats per decision, an interval "
            "that does not exclude 0."
        )
    else:
        rung, kind = candidate, "taste"
        reason = f"Train {described[candidate]}. On held-out decisions it gains {size}."
    sentences = [reason]
    answer: Answer = "personalise"
    if rung in SHARED:
        doubts = _doubts(beside, worthwhile, level)
        answer = "cannot tell yet" if doubts else "do not personalise"
        sentences += doubts
    sentences += _minority(beside, personalise=rung not in SHARED)
    if rung not in SHARED and beside.losers is not None:
        sentences.append(_losers(beside.losers))
    return Verdict(
        answer=answer,
        rung=rung,
        candidate=candidate,
        kind="unknown" if answer == "cannot tell yet" and kind == "none" else kind,  # type: ignore[arg-type]
        reason=" ".join(sentences),
        gain=gain,
        gain_accuracy=gain_accuracy,
        gain_over_reliability=gain_over_reliability,
        n_clusters=beside.n_clusters,
        stability=beside.stability,
        minority=beside.minority,
        losers=beside.losers,
        detectable=beside.detectable,
    )


def _doubts(beside: Beside, worthwhile: float, level: float) -> list[str]:
    """Why a shared reward is not yet the last word; nothing where it is."""
    found = []
    if beside.taste_p is not None and beside.taste_p <= 1 - level:
        found.append(
            f"But tastes do differ (score test, p = {beside.taste_p:.3g}): too little, or in too few answers, for the "
            "models tried here to predict better."
        )
    gain = beside.personal_accuracy
    if beside.untried is not None:
        found.append(
            f"But nothing here could have shown a difference of taste: {beside.untried}, and it was not tested."
        )
    if gain is not None and gain.high >= worthwhile:
        found.append(
            f"The best model of taste, {beside.personal}, gains {_signed(gain, 100.0)} points: {100 * worthwhile:g} "
            f"{'point' if worthwhile == 0.01 else 'points'} or more cannot be ruled out."
        )
    if found and beside.detectable is not None:
        seen = f"Data like these show a gain of {beside.detectable:.1f} points in 8 of 10 cases"
        if beside.needed is not None:
            users, decisions = beside.needed
            seen += f"; to see 1 point takes about {users:,} users with {decisions:,} held-out comparisons each"
        found.append(f"{seen}.")
    return found


def _minority(beside: Beside, *, personalise: bool) -> list[str]:
    row = beside.minority
    if row is None or not (personalise or row.gain_log_prob.low > 0):
        return []
    pooled, own = (100 * each.estimate for each in (row.accuracy_pooled, row.accuracy_own))
    words = (
        f"The smallest of the {beside.n_clusters} clusters that users fall into is {100 * row.share:.0f} % of them; "
        f"the pooled reward is right in {pooled:.1f} % of their held-out decisions, their own in {own:.1f} %: pooling "
        f"costs them {_signed(row.gain_accuracy, 100.0)} points."
    )
    return [words]


def _losers(losers: Losers) -> str:
    how_many = "none" if not losers.beyond_chance else f"{losers.beyond_chance:,}"
    return (
        f"{100 * losers.share:.0f} % of the users are predicted worse than by the pooled reward, {how_many} of them "
        "beyond chance."
    )


def _signed(interval: Interval, scale: float) -> str:
    digits = 1 if scale == 100 else 3
    low, high = interval.low * scale, interval.high * scale
    return f"{interval.estimate * scale:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
