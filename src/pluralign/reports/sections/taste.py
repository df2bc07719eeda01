"""Is it taste or noise: tests, what disagreement is made of, the ceiling, and what these data could have shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pluralign.reports import axes
from pluralign.reports.blocks import (
    Block,
    Chart,
    Grid,
    Line,
    Rule,
    Section,
    Spans,
    Stretch,
    Subheading,
    left_out,
    note,
)
from pluralign.reports.reading import (
    Estimate,
    clean,
    count,
    entries,
    estimate,
    fixed,
    flat,
    number,
    p_value,
    part,
    percent,
    signed,
    span,
)

QUESTIONS = {
    "taste": "Do users want different things?",
    "reliability": "Do users differ in how noisily they answer?",
}
SHARES = (
    ("taste", "taste: they want different things", 0),
    ("reliability", "reliability: some answer more noisily", 4),
    ("chance", "chance: one user asked twice differs too", 5),
)


def taste(results: dict[str, Any]) -> Section:
    """The whole section."""
    found = part(results, "heterogeneity")
    blocks: list[Block] = []
    for title, make, key in (
        ("Tests", _tests, "tests"),
        ("What disagreement is made of", _components, "components"),
        ("The noise ceiling", _ceiling, "ceiling"),
        ("Power: what these data could show", _power, "power"),
    ):
        blocks.append(Subheading(text=title))
        made = list(make(part(found, key), results))
        blocks += made or [left_out(results, key, _absent(key))]
    return Section(
        anchor="taste",
        title="Taste or noise",
        lead="People who differ may want different things, or answer with different care. Only the first calls for "
        "models of their own.",
        blocks=tuple(blocks),
    )


def _absent(key: str) -> str:
    return {
        "tests": "the results hold no tests of taste and reliability",
        "components": "the results hold no parts of the disagreement",
        "ceiling": "no pair was shown twice to a user or to two users, or it was not looked for",
        "power": "the results hold no power estimate",
    }[key]


def _tests(found: dict[str, Any], results: dict[str, Any]) -> Iterator[Block]:
    shown, records, notes = [], [], []
    for key, question in QUESTIONS.items():
        test = part(found, key)
        if not test:
            continue
        p = [number(test.get(name)) for name in ("p_bootstrap", "p_permutation")]
        known = [each for each in p if each is not None]
        answer = "–" if not known else "yes" if max(known) < 0.05 else "not shown"
        shown.append(
            (
                question,
                answer,
                fixed(number(test.get("effect")), 2),
                p_value(p[0]),
                p_value(p[1]),
            )
        )
        names = ("statistic", "expected", "effect", "p_bootstrap", "p_permutation", "n_draws", "n_permuted")
        records.append({"test": key} | {name: number(test.get(name)) for name in names})
        if test.get("note"):
            notes.append(f"{key}: {clean(test['note'])}")
    if not shown:
        return
    yield Grid(
        name="tests",
        caption="Score tests. Each asks whether users' decisions stray from one shared reward further than chance "
        "would carry them. p (simulated): the chance of a statistic as large if everybody were alike, from data drawn "
        "anew under one reward. p (permuted): the same from exchanging users who answered the same sources; a dash "
        "where they share none. Answer: yes where every p is below 0.05.",
        header=("Question", "Answer", "Size", "p (simulated)", "p (permuted)"),
        numeric=(False, False, *(True,) * 3),
        rows=shown,
        records=records,
    )
    for each in notes:
        yield note(each)


def _components(found: dict[str, Any], results: dict[str, Any]) -> Iterator[Block]:
    parts = [(name, label, colour, estimate(found.get(name))) for name, label, colour in SHARES]
    kept = [(name, label, colour, each) for name, label, colour, each in parts if each is not None]
    between, within = estimate(found.get("disagreement")), estimate(found.get("self_disagreement"))
    if not kept:
        return
    bars, start = [], 0.0
    for _, label, colour, each in kept:
        stop = start + max(each.value, 0)
        bars.append(
            Stretch(
                at=0,
                start=start,
                stop=stop,
                colour=colour,
                text=percent(each.value),
                label=label,
                tip=f"{label}: {_percents(each)}",
            )
        )
        start = stop
    yield Chart(
        name="components",
        caption=f"Two users asked the same differ with probability {span(between)}; one user asked twice with "
        f"probability {span(within)}. The bar divides the first into taste, reliability and chance.",
        alt="Parts of the disagreement: " + ", ".join(f"{name} {_percents(each)}" for name, _, _, each in kept) + ".",
        x=axes.numbers((0, max(start, 1)), "share of the disagreement, %", factor=100),
        y=axes.categories(["all disagreement"]),
        marks=tuple(bars),
        records=[
            {"part": name, **flat("share", each)}
            for name, each in (
                *((name, each) for name, _, _, each in kept),
                ("disagreement", between),
                ("self_disagreement", within),
            )
        ],
    )
    yield Grid(
        name="components-table",
        caption="The same with intervals.",
        header=("Part", "Share of disagreement"),
        numeric=(False, True),
        rows=[(label, _percents(each)) for _, label, _, each in kept],
        records=[],
    )
    how = {
        "repeats": "Measured on decisions that users repeated.",
        "model": "From a model of the answers: too few decisions were repeated to count them.",
    }
    yield from (note(said) for said in (how.get(clean(found.get("source"))), found.get("note")) if said)


def _percents(given: Estimate | None) -> str:
    return "–" if given is None else span(given, 0, factor=100) + " %"


def _ceiling(found: dict[str, Any], results: dict[str, Any]) -> Iterator[Block]:
    rows = {row.get("name"): row for row in entries(part(results, "ladder").get("rows"))}
    candidate = clean(part(results, "verdict").get("candidate"))
    given: list[tuple[str, Estimate | None, int]] = [
        ("best, knowing each user's taste", estimate(found.get("accuracy_ceiling_own")), 0),
        ("best, one reward for all", estimate(found.get("accuracy_ceiling_pooled")), 0),
        ("users agree with themselves", estimate(found.get("repeat_agreement")), 2),
        ("users agree with each other", estimate(found.get("shared_agreement")), 2),
    ]
    if not any(each for _, each, _ in given):
        return
    given += [
        (f"{name} reaches", estimate(part(rows.get(name)).get("accuracy")), 1)
        for name in dict.fromkeys((candidate, "pooled"))
    ]
    kept = [(name, each, colour) for name, each, colour in given if each is not None]
    labels = {0: "ceiling", 1: "model", 2: "agreement"}
    yield Chart(
        name="ceiling",
        caption=f"No model predicts better than users repeat themselves. From {count(number(found.get('n_repeated')))} "
        f"decisions repeated by one user and {count(number(found.get('n_shared')))} shared between users.",
        alt="; ".join(f"{name}: {span(each)}" for name, each, _ in kept) + ".",
        x=axes.numbers(
            [end for _, e, _ in kept for end in (e.value, *(x for x in (e.low, e.high) if x is not None))], "share"
        ),
        y=axes.categories([name for name, _, _ in kept]),
        marks=tuple(
            Spans(
                at=at,
                value=[kept[i][1].value for i in at],
                low=[_or_nan(kept[i][1].low) for i in at],
                high=[_or_nan(kept[i][1].high) for i in at],
                tips=[f"{kept[i][0]}: {span(kept[i][1])}" for i in at],
                colour=colour,
                label=label,
            )
            for colour, label in labels.items()
            if (at := [i for i, each in enumerate(kept) if each[2] == colour])
        ),
        records=[{"quantity": name, **flat("share", each)} for name, each, _ in kept],
    )
    if found.get("note"):
        yield note(found["note"])


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _power(found: dict[str, Any], results: dict[str, Any]) -> Iterator[Block]:
    curve = [
        (gain, power)
        for each in entries(found.get("curve"))
        if (gain := number(each.get("gain"))) is not None and (power := number(each.get("power"))) is not None
    ]
    detectable = number(found.get("detectable"))
    measured = estimate(part(results, "verdict").get("gain_accuracy"))
    if curve:
        marks: list[Rule | Line] = [Rule(at=0.8, upright=False, label="probability 0.8")]
        extra = []
        if (
            measured is not None
            and 0 < 100 * measured.value < 1.3 * curve[-1][0]
            and part(results, "verdict").get("candidate") != "pooled"
        ):
            marks.append(Rule(at=100 * measured.value, dashed=False, label="gain measured here"))
            extra.append(100 * measured.value)
        marks.append(
            Line(
                x=[g for g, _ in curve],
                y=[p for _, p in curve],
                tips=[f"a gain of {fixed(g, 1)} points is seen with probability {fixed(p, 2)}" for g, p in curve],
                colour=0,
                label="power",
            )
        )
        yield Chart(
            name="power",
            caption=f"If the true gain were so many points, how often a study of these "
            f"{count(number(found.get('n_users')))} users with {fixed(number(found.get('n_decisions_per_user')), 1)} "
            "held-out decisions each would show it."
            + ("" if detectable is None else f" Seen with probability 0.8: {fixed(detectable, 1)} points and more."),
            alt="Power by size of the gain: "
            + ", ".join(f"{fixed(g, 1)} points {fixed(p, 2)}" for g, p in curve[:: max(1, len(curve) // 6)])
            + ".",
            x=axes.numbers([g for g, _ in curve] + extra, "true gain, points of accuracy"),
            y=axes.numbers((0, 1), "probability of seeing it"),
            marks=tuple(marks),
            records=[{"gain_points": g, "power": p} for g, p in curve],
            height=220,
        )
    needed = entries(found.get("needed"))
    if needed:
        yield Grid(
            name="power-needed",
            caption="What it takes to see a gain: users, and held-out decisions of each.",
            header=("Gain, points", "Users", "Decisions each", "Probability"),
            numeric=(True,) * 4,
            rows=[
                (
                    signed(number(row.get("gain"))),
                    count(number(row.get("n_users"))),
                    count(number(row.get("n_decisions"))),
                    fixed(number(row.get("power")), 2),
                )
                for row in needed
            ],
            records=[
                {key: number(row.get(key)) for key in ("gain", "n_users", "n_decisions", "power")} for row in needed
            ],
        )
    if found.get("note"):
        yield note(found["note"])
