"""What users get whom the model has not met: after m decisions of their own, and after n questions well asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pluralign.reports import axes
from pluralign.reports.blocks import Block, Chart, Grid, Line, Section, Subheading, Text
from pluralign.reports.reading import Estimate, clean, count, entries, estimate, flat, number, part, short, span
from pluralign.reports.sections.models import finite, order_of

METHODS = {
    "information_gain": "information gain: where the answer tells most about the user",
    "d_optimal": "d_optimal: where the volume of what is not known shrinks most",
    "uncertainty": "uncertainty: where the model can least tell the answer",
    "random": "random: any pair",
}


def few_shot(results: dict[str, Any]) -> Section:
    """What users unknown to the model get after m decisions of their own."""
    tables = [each for each in entries(results.get("unseen_users")) if entries(each.get("rows"))]
    blocks: list[Block] = []
    if tables:
        blocks += _few_shot_blocks(tables, results)
    else:
        blocks.append(
            Text(text="Left out: no users were kept out of training, or none has enough decisions.", kind="missing")
        )
    blocks += _query_curves(results)
    return Section(
        anchor="unseen",
        title="Users the model has not met",
        lead="How many decisions of a new user are needed before personalising helps?",
        blocks=tuple(blocks),
    )


def _few_shot_blocks(tables: Sequence[dict[str, Any]], results: dict[str, Any]) -> Iterator[Block]:
    sizes = [clean(each.get("n_context")) for each in tables]
    rows = sorted((row for each in tables for row in entries(each.get("rows"))), key=order_of)
    names = list(dict.fromkeys(row.get("name") for row in rows))
    candidate = part(results, "verdict").get("candidate")
    lines, records, shown, ends = [], [], [], []
    for k, name in enumerate(names):
        found = []
        for size, each in zip(sizes, tables, strict=True):
            row = next((row for row in entries(each.get("rows")) if row.get("name") == name), {})
            accuracy, gain = estimate(row.get("accuracy")), estimate(part(row, "gains").get("log_prob"))
            found.append((accuracy, gain))
            records.append(
                {"decisions_of_own": size, "model": name}
                | flat("accuracy", accuracy)
                | flat("gain_accuracy", estimate(part(row, "gains").get("accuracy")))
                | flat("gain_log_prob", gain)
            )
        tips = [f"{short(name)}, {size} decisions: {span(each)}" for size, (each, _) in zip(sizes, found, strict=True)]
        line, own = _line(
            [each for each, _ in found],
            0.03 * (k - (len(names) - 1) / 2),
            tips=tips,
            whiskers=name in (candidate, "pooled"),
            colour=k,
            dashed=name == "pooled",
            label=clean(name),
        )
        lines.append(line)
        ends += own
        shown.append((clean(name), *(span(accuracy) for accuracy, _ in found)))
    users = number(part(entries(tables[0].get("rows"))[0], "scores").get("n_users"))
    yield Chart(
        name="few-shot",
        caption=f"Accuracy for {count(users)} users kept out of training, by how many decisions of their own the model "
        "was told, on the same test decisions. At 0 the model knows nothing of the user. pooled, dashed, is what "
        "personalising must beat. Whiskers: intervals of pooled and of what cross-validation chose; all are below.",
        alt="Accuracy for unseen users by decisions known: "
        + "; ".join(f"{row[0]} from {row[1]} to {row[-1]}" for row in shown if row[0] in (candidate, "pooled"))
        + ".",
        x=axes.places(sizes, "decisions of the new user that the model knows"),
        y=axes.numbers(ends, "accuracy"),
        marks=tuple(lines),
        records=records,
        height=300,
    )
    yield Grid(
        name="few-shot-table",
        caption="Accuracy, by decisions of the new user that the model knows.",
        header=("Model", *sizes),
        numeric=(False, *(True,) * len(sizes)),
        rows=shown,
        records=[],
        strong=frozenset(i for i, row in enumerate(shown) if row[0] == candidate),
    )


def _query_curves(results: dict[str, Any]) -> Iterator[Block]:
    """Accuracy by number of questions, for each rung that the study was asked to draw it for."""
    curves = [each for each in entries(results.get("query_curves")) if part(each, "methods")]
    wanted = part(results, "settings").get("query_rungs")
    if curves:
        yield Subheading(text="Which question to ask")
    elif wanted:
        yield Text(
            text="Left out: query-efficiency curves. No users were kept out of training who have pairs to be asked.",
            kind="missing",
        )
    for k, curve in enumerate(curves):
        yield from _query_curve(curve, k)


def _query_curve(curve: dict[str, Any], k: int) -> Iterator[Block]:
    rung, methods = clean(curve.get("rung")), part(curve, "methods")
    names = [name for name in METHODS if name in methods] + [name for name in methods if name not in METHODS]
    scores = {name: [estimate(each) for each in _list(methods[name], "accuracy")] for name in names}
    gains = {name: [estimate(each) for each in _list(methods[name], "gain_over_random")] for name in names}
    n_steps = max((len(each) for each in scores.values()), default=0)
    if not n_steps:
        return
    steps = [str(n) for n in range(n_steps)]
    lines, records, ends = [], [], []
    for i, name in enumerate(names):
        line, own = _line(
            scores[name],
            0.05 * (i - (len(names) - 1) / 2),
            tips=[f"{short(name)}, {n} questions: {span(found)}" for n, found in enumerate(scores[name])],
            whiskers=name in ("information_gain", "random"),
            colour=i,
            dashed=name == "random",
            label=METHODS.get(name, short(name)),
        )
        lines.append(line)
        ends += own
        records += [
            {"rung": rung, "method": clean(name), "questions": n}
            | flat("accuracy", found)
            | flat("gain_over_random", gains[name][n] if n < len(gains[name]) else None)
            for n, found in enumerate(scores[name])
            if found is not None
        ]
    users = count(number(curve.get("n_users")))
    yield Chart(
        name=f"query-curve-{k + 1}",
        caption=f"{short(rung)}: accuracy for {users} users kept out of training, by how many questions of their own "
        "decisions they were asked, on the same test decisions. All methods begin at the same place; random, dashed, "
        "is what choosing questions must beat. Whiskers: intervals of information gain and random.",
        alt=f"Accuracy of {short(rung)} by number of questions: "
        + "; ".join(f"{short(name)} from {span(scores[name][0])} to {span(scores[name][-1])}" for name in names)
        + ".",
        x=axes.places(steps, "questions asked"),
        y=axes.numbers(ends, "accuracy"),
        marks=tuple(lines),
        records=records,
        height=280,
    )
    shown = [name for name in names if any(each is not None for each in gains[name])]
    asked = [n for n in range(1, n_steps) if n in (1, 2, 4, 8, 16, 32) or n == n_steps - 1]
    if shown and asked:
        yield Grid(
            name=f"query-curve-{k + 1}-table",
            caption=f"{short(rung)}: points of accuracy over questions at random, as many of them, paired by user.",
            header=("Method", *(f"{n} asked" for n in asked)),
            numeric=(False, *(True,) * len(asked)),
            rows=[
                (
                    short(name),
                    *(span(gains[name][n] if n < len(gains[name]) else None, 1, sign=True, factor=100) for n in asked),
                )
                for name in shown
            ],
            records=[],
        )


def _list(given: object, key: str) -> list[object]:
    found = given.get(key) if isinstance(given, dict) else None
    return found if isinstance(found, list) else []


def _line(
    found: Sequence[Estimate | None], aside: float, *, tips: Sequence[str], whiskers: bool, **style: Any
) -> tuple[Line, list[float]]:
    """A line through what is known at 0, 1, ..., set aside from its neighbours, and the values that its axis shows."""
    known = [(at, each) for at, each in enumerate(found) if each is not None]
    low, high = [finite(each.low) for _, each in known], [finite(each.high) for _, each in known]
    values = [each.value for _, each in known]
    line = Line(
        x=[at + aside for at, _ in known],
        y=values,
        low=low if whiskers else None,
        high=high if whiskers else None,
        tips=[tips[at] for at, _ in known],
        **style,
    )
    return line, [each for each in (*values, *(low + high if whiskers else ())) if each is not None]
