"""The answer, the paragraph and the numbers that a reader takes away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pluralign.reports.blocks import Block, Headline, Section, Text, Tile
from pluralign.reports.reading import (
    LONGEST,
    clean,
    count,
    entries,
    estimate,
    fixed,
    number,
    part,
    percent,
    signed,
    span,
)

ANSWERS = {
    "personalise": ("Personalise", "yes"),
    "do not personalise": ("Do not personalise", "no"),
    "cannot tell yet": ("Cannot tell yet", "unsure"),
}
KINDS = {
    "taste": "The difference between users is one of taste: they want different things.",
    "reliability": "The difference between users is one of reliability: they want the same, with more or less noise.",
    "none": "Users do not differ in a way that these data show.",
}
MEANING = {
    "yes": "Users get rewards of their own: the gain on decisions that no fit saw is more than chance and noise.",
    "no": "One reward for everybody: no model of users' own tastes does better by more than chance and noise explain.",
    "unsure": "Too few data to say: neither a useful gain nor its absence is shown. What it takes stands below.",
}


def verdict(results: dict[str, Any]) -> Section:
    """Section 1."""
    found = part(results, "verdict")
    answer, mood = ANSWERS.get(found.get("answer", ""), (clean(found.get("answer")) or "No answer", "unsure"))
    blocks: list[Block] = [
        Headline(
            answer=answer, mood=mood, reason=clean(found.get("reason"), LONGEST), tiles=tuple(_tiles(results, found))
        ),
        Text(text=MEANING[mood], kind="explain"),
    ]
    if found.get("kind") in KINDS:
        blocks.append(Text(text=KINDS[found["kind"]]))
    level = number(part(results, "settings").get("level")) or 0.95
    blocks.append(
        Text(
            text=f"Brackets are {percent(level)} intervals, counting users as what was sampled. All numbers are from "
            "decisions held out of the fit. A point is one percent of decisions predicted right; a nat is the unit of "
            "log-probability: +0.1 nats makes what users chose 10 % likelier.",
            kind="explain",
        )
    )
    return Section(
        anchor="verdict", title="Verdict", lead="Should users get a reward of their own?", blocks=tuple(blocks)
    )


def _tiles(results: dict[str, Any], found: dict[str, Any]) -> Iterator[Tile]:
    rows = {row.get("name"): row for row in entries(part(results, "ladder").get("rows"))}
    candidate = clean(found.get("candidate"))
    own, pooled = part(rows.get(candidate), "accuracy"), part(rows.get("pooled"), "accuracy")
    if pooled and candidate == "pooled":
        yield Tile(label="Accuracy of one reward for all", value=_share(pooled), interval=_range(pooled))
    elif own:
        beside = [f"one reward for all {_share(pooled)} {_range(pooled)}"]
        beside += [
            f"{control} {_share(given)} {_range(given)}"
            for control in ("another user's", "random clusters")
            if (given := part(rows.get(f"{candidate}, {control}"), "accuracy"))
        ]
        yield Tile(label=f"Accuracy of {candidate}", value=_share(own), interval=_range(own), beside="; ".join(beside))
    if candidate != "pooled":
        if gain := estimate(found.get("gain_accuracy")):
            yield Tile(
                label="Gain in accuracy",
                value=f"{signed(100 * gain.value)} points",
                interval=_points(gain.low, gain.high),
                beside=_control_gain(rows, candidate),
            )
        if gain := estimate(found.get("gain")):
            yield Tile(
                label="Gain in log-probability",
                value=f"{signed(gain.value, 3)} nats",
                interval=span(gain, 3, sign=True).partition(" ")[2],
                beside=f"beyond reliability {span(beyond, 3, sign=True)}"
                if (beyond := estimate(found.get("gain_over_reliability")))
                else "",
            )
    yield from _who(found)


def _who(found: dict[str, Any]) -> Iterator[Tile]:
    if (n := number(found.get("n_clusters"))) is not None and n > 1:
        agreement = number(found.get("stability"))
        yield Tile(
            label="Clusters of users",
            value=count(n),
            beside=""
            if agreement is None
            else f"stability {fixed(agreement, 2)} (1: the same people each time; 0: chance)",
        )
    minority = part(found, "minority")
    if minority:
        cost = estimate(minority.get("gain_accuracy"))
        own, pooled = (span(estimate(minority.get(key))) for key in ("accuracy_own", "accuracy_pooled"))
        sizes = f"{percent(number(minority.get('share')))} of users"
        yield Tile(
            label="What one reward costs the minority",
            value="–" if cost is None else f"{fixed(100 * cost.value, 1)} points",
            interval="" if cost is None else _points(cost.low, cost.high),
            beside=f"{sizes}: own reward {own}, one reward for all {pooled}",
        )
    losers = part(found, "losers")
    if losers:
        beyond = number(losers.get("beyond_chance"))
        yield Tile(
            label="Users who lose by it",
            value=percent(number(losers.get("share"))),
            beside=f"{count(number(losers.get('users')))} users, on the decisions held out"
            + ("" if beyond is None else f"; {count(beyond)} of them beyond chance"),
        )
    if (detectable := number(found.get("detectable"))) is not None:
        yield Tile(
            label="Smallest gain these data would show",
            value=f"{fixed(detectable, 1)} points",
            beside="with probability 0.8",
        )


def _control_gain(rows: dict[Any, dict[str, Any]], candidate: str) -> str:
    given = estimate(part(rows.get(f"{candidate}, another user's"), "gains").get("accuracy"))
    return "" if given is None else f"with another user's model {span(given, 1, sign=True, factor=100)}"


def _share(accuracy: dict[str, Any]) -> str:
    return fixed(number(accuracy.get("estimate")))


def _range(accuracy: dict[str, Any]) -> str:
    return span(estimate(accuracy)).partition(" ")[2]


def _points(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{signed(100 * low)}, {signed(100 * high)}]"
