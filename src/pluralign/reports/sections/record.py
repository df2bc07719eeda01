"""What the scan found, and what the study was run with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pluralign.reports import axes
from pluralign.reports.blocks import (
    Block,
    Chart,
    Finding,
    Findings,
    Glossary,
    Grid,
    Rule,
    Section,
    Spans,
    Text,
    left_out,
    note,
)
from pluralign.reports.reading import (
    LONGEST,
    Estimate,
    clean,
    count,
    entries,
    estimate,
    flat,
    number,
    part,
    short,
    span,
)

SEVERITIES = ("error", "warning", "note")
WORDS = (
    ("accuracy", "share of decisions predicted right; a coin has 0.5 where there are two responses"),
    ("adjusted Rand index", "how far two groupings of the same users agree: 1 entirely, 0 as chance would have it"),
    ("cluster", "users who share one reward"),
    ("control", "a model that cannot be personal, fitted and scored alike; what it gains is not taste"),
    ("cosine", "likeness of two directions: 1 the same, 0 unrelated, -1 opposite"),
    ("cross-validation", "fitting on some sources and scoring on others, inside the training rows"),
    ("decision", "one choice of one user"),
    ("held out", "kept from every fit and looked at once, for the numbers shown here"),
    ("interval", "the range that holds the true value in 95 of 100 such studies, if no other level is named"),
    ("log-probability", "log of the probability that the model gave to what was chosen; nearer 0 is better"),
    ("margin", "the first response's reward minus the second's"),
    ("nat", "unit of log-probability"),
    ("null", "what would be seen if there were nothing to find"),
    ("p", "chance of a result at least as large under the null"),
    ("pooled", "one reward for everybody, the baseline"),
    ("reliability", "how often a user answers as that user's own taste would have it"),
    ("reward", "a number that says how much a response is liked"),
    ("rung", "one kind of model, from the poorest to the richest"),
    ("source", "what decisions were drawn from, a prompt or a conversation; never in training and test at once"),
)


def scan(results: dict[str, Any]) -> Section:
    """Findings by severity, and the shallow rules."""
    found = part(results, "scan")
    rows = entries(found.get("findings"))
    blocks: list[Block] = []
    if found:
        if rows:
            order = {name: i for i, name in enumerate(SEVERITIES)}
            rows.sort(key=lambda row: order.get(clean(row.get("severity")), len(order)))
            blocks.append(_findings(rows))
        else:
            blocks.append(Text(text="Nothing was found."))
        blocks += _baselines(entries(found.get("baselines")), results)
        scanned = number(found.get("n_rows_scanned"))
        if scanned is not None:
            blocks.append(note(f"{count(scanned)} rows were looked at; {clean(found.get('note'))}".strip("; ")))
    else:
        blocks.append(left_out(results, "scan", "the data were not scanned"))
    return Section(
        anchor="scan",
        title="Can the data be trusted?",
        lead="Leaks, duplicates, contradictions and careless users: what could fool a model, and what to do about it.",
        blocks=tuple(blocks),
    )


def _findings(rows: list[dict[str, Any]]) -> Findings:
    return Findings(
        name="scan",
        findings=tuple(
            Finding(
                severity=severity if (severity := clean(row.get("severity"))) in SEVERITIES else "note",
                name=short(row.get("name"), 60),
                message=clean(row.get("message"), LONGEST),
                advice=clean(row.get("advice"), LONGEST),
                facts=tuple(_facts(row)),
            )
            for row in rows
        ),
        records=[
            {
                **{key: clean(row.get(key)) for key in ("name", "severity", "message", "advice")},
                "count": number(row.get("count")),
                **flat("accuracy", estimate(row.get("accuracy"))),
            }
            for row in rows
        ],
    )


def _facts(row: dict[str, Any]) -> Iterator[str]:
    if (n := number(row.get("count"))) is not None:
        yield f"{count(n)} in all"
    if accuracy := estimate(row.get("accuracy")):
        yield f"accuracy from this alone {span(accuracy)}"
    for key, word in (("rows", "rows"), ("users", "users")):
        given = row.get(key)
        if isinstance(given, list) and given:
            yield f"{word} " + ", ".join(short(each, 40) for each in given[:20])


def _baselines(rows: list[dict[str, Any]], results: dict[str, Any]) -> Iterator[Block]:
    given: list[tuple[str, Estimate, int, str]] = [
        (f"{clean(row.get('name'))} alone", each, 1, clean(row.get("message")))
        for row in rows
        if (each := estimate(row.get("accuracy")))
    ]
    if not given:
        return
    ladder = {row.get("name"): row for row in entries(part(results, "ladder").get("rows"))}
    if pooled := estimate(part(ladder, "pooled").get("accuracy")):
        given.append(("pooled reward, for comparison", pooled, 0, ""))
    chance = number(rows[0].get("chance")) or 0.5
    ends = [end for _, e, _, _ in given for end in (e.value, _or_nan(e.low), _or_nan(e.high))]
    yield Chart(
        name="shallow-rules",
        caption="What a rule that never reads the text scores: by length alone, format alone, position alone. A rule "
        "that comes near the reward model is a leak, or all that the reward has learnt.",
        alt="; ".join(f"{short(name)} {span(each)}" for name, each, _, _ in given) + ".",
        x=axes.numbers(ends, "accuracy", include=(chance,)),
        y=axes.categories([name for name, _, _, _ in given]),
        marks=(
            Rule(at=chance, label="guessing"),
            *(
                Spans(
                    at=at,
                    value=[given[i][1].value for i in at],
                    low=[_or_nan(given[i][1].low) for i in at],
                    high=[_or_nan(given[i][1].high) for i in at],
                    tips=[f"{short(given[i][0])}: {span(given[i][1])}" for i in at],
                    colour=colour,
                    label=label,
                )
                for colour, label in ((1, "shallow rule"), (0, "reward model"))
                if (at := [i for i, each in enumerate(given) if each[2] == colour])
            ),
        ),
        records=[{"rule": name, **flat("accuracy", each), "message": message} for name, each, _, message in given],
    )
    for _, _, _, message in given:
        if message:
            yield note(message)


def settings(results: dict[str, Any]) -> Section:
    """Data, settings, versions."""
    data = part(results, "data")
    per_user = part(data, "decisions_per_user")
    facts: list[tuple[str, object]] = [
        (key, data.get(key)) for key in ("name", "format", "rows", "decisions", "items", "users", "sources")
    ]
    facts += [(f"decisions per user, {key}", per_user.get(key)) for key in ("median", "min", "max")]
    blocks: list[Block] = [
        _pairs("data", "The data.", facts),
        *(note(each.get("message")) for each in entries(data.get("findings"))),
        _pairs("settings", "Settings of the study.", list(_flattened(part(results, "settings")))),
        _pairs("encoder", "Encoder: what turned responses into features.", list(_flattened(part(results, "encoder")))),
        _pairs(
            "versions",
            "Versions.",
            [
                ("pluralign", results.get("pluralign")),
                ("python", results.get("python")),
                *part(results, "versions").items(),
            ],
        ),
        Text(
            text="Every figure of this page is in figures/ as PNG and SVG, and its numbers are in tables/ as CSV, "
            "beside this file. The page itself needs neither, nor a network.",
            kind="note",
        ),
    ]
    return Section(
        anchor="settings",
        title="Data, settings, versions",
        lead="What it takes to run this study again.",
        blocks=tuple(blocks),
    )


def glossary(results: dict[str, Any]) -> Section:
    """Every word that this page uses in a sense of its own."""
    return Section(anchor="words", title="Words", lead="What is meant by them here.", blocks=(Glossary(words=WORDS),))


def _pairs(name: str, caption: str, facts: list[tuple[str, object]]) -> Grid:
    kept = [(key, value) for key, value in facts if value is not None]
    return Grid(
        name=name,
        caption=caption,
        header=("", "Value"),
        numeric=(False, False),
        rows=[(clean(key, 200), _shown(value)) for key, value in kept],
        records=[{"name": clean(key), "value": clean(value)} for key, value in kept],
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(each) for each in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean(value, 400)
    return count(value) if float(value).is_integer() and abs(value) >= 10_000 else f"{value:g}"


def _flattened(given: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
