"""Latent users: has the encoder collapsed, what z carries, and where users lie. Not there without such a rung."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pluralign.reports import axes
from pluralign.reports.blocks import Block, Chart, Dots, Grid, Rule, Section, Spans, Stretch, Subheading, Text, note
from pluralign.reports.reading import clean, count, entries, estimate, fixed, number, part, percent, short, signed, span
from pluralign.reports.sections.similarity import bare, groups, matrix

ACTIVE = 0.005  # variance of the posterior means above which a dimension counts as active
CONTEXTS = {
    "own": "the user's own comparisons",
    "own, mean of z": "the same, at the mean of z",
    "shuffled": "another user's comparisons",
    "prior": "no comparisons: the prior",
    "pooled": "one reward for everybody",
}
ALL_ROWS = "all rows"


def latent(results: dict[str, Any]) -> Section | None:
    """The collapse panel and the map of z; None where the rung was not fitted."""
    fits = _fits(results)
    if not fits:
        return None
    blocks: list[Block] = [_words(fits), _fits_table(fits)]
    blocks += _contexts(fits)
    blocks += _dimensions(fits)
    blocks += _map(part(results, "latent", "map"))
    return Section(
        anchor="latent",
        title="Latent users",
        lead="Did the encoder learn to tell users apart, or has it collapsed into one reward for everybody?",
        blocks=tuple(blocks),
    )


def _fits(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What every fit of the rung says of itself: all rows first, then each split."""
    splits = [
        (f"split {clean(seed.get('seed'))}", part(seed, "rungs", "latent", "settings"))
        for seed in entries(results.get("seeds"))
    ]
    found = [(ALL_ROWS, part(results, "latent", "diagnosis")), *splits]
    return [(name, each) for name, each in found if each.get("kl") is not None]


def _words(fits: Sequence[tuple[str, dict[str, Any]]]) -> Text:
    collapsed = [name for name, each in fits if each.get("collapsed")]
    if not collapsed:
        said = "No fit has collapsed."
    elif len(collapsed) == len(fits):
        said = "Every fit has collapsed: z carries nothing that predicts."
    else:
        said = f"Some fits have collapsed: {', '.join(collapsed)}. What users gain by z is then in doubt in all."
    name, first = fits[0]
    words = clean(first.get("words"), 600).strip()
    return Text(text=f"{said} {name[:1].upper() + name[1:]}: {words}." if words else said)


def _fits_table(fits: Sequence[tuple[str, dict[str, Any]]]) -> Grid:
    shown, records = [], []
    for name, each in fits:
        kl = [v for v in map(number, each["kl"] if isinstance(each["kl"], list) else []) if v is not None]
        active, steps, total = (number(each.get(key)) for key in ("active_units", "steps", "kl_total"))
        own = estimate(each.get("own_over_shuffled"))
        flag = "collapsed" if each.get("collapsed") else "not collapsed"
        shown.append(
            (
                name,
                flag + (", pooled model returned" if each.get("fell_back") else ""),
                "–" if active is None else f"{count(active)} of {len(kl)}",
                fixed(total, 2),
                span(own, 3, sign=True),
                count(steps),
            )
        )
        records.append(
            {
                "fit": name,
                "collapsed": bool(each.get("collapsed")),
                "fell_back": bool(each.get("fell_back")),
                "active_units": active,
                "kl_total": total,
                "steps": steps,
                "own_over_shuffled": None if own is None else own.value,
            }
        )
    return Grid(
        name="latent-fits",
        caption="Each fit. Active units: dimensions whose posterior mean varies by more than "
        f"{ACTIVE:g} over users. KL: how far users are from the prior, nats per user. Own over another's: what a "
        "user's own comparisons gain over another user's, nats per decision held out inside the training rows. "
        "Steps: of training, 0 where the start, a basis, was best.",
        header=("Fit", "", "Active units", "KL", "Own over another's", "Steps"),
        numeric=(False, False, True, True, True, True),
        rows=shown,
        records=records,
        quiet=frozenset(i for i, (_, each) in enumerate(fits) if each.get("collapsed")),
    )


def _contexts(fits: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Block]:
    """What is predicted by what z was made from."""
    kept = [key for key in CONTEXTS if any(number(part(each, "log_prob").get(key)) is not None for _, each in fits)]
    if not kept:
        return
    marks, records, ends = [], [], []
    for k, (name, each) in enumerate(fits):
        log_prob, accuracy = part(each, "log_prob"), part(each, "accuracy")
        points = [(i, v) for i, key in enumerate(kept) if (v := number(log_prob.get(key))) is not None]
        ends += [v for _, v in points]
        marks.append(
            Spans(
                at=[i + 0.16 * (k - (len(fits) - 1) / 2) / max(1, (len(fits) - 1) / 3) for i, _ in points],
                value=[v for _, v in points],
                low=[math.nan] * len(points),
                high=[math.nan] * len(points),
                tips=[f"{name}, {CONTEXTS[kept[i]]}: {fixed(v, 4)} nats" for i, v in points],
                colour=k,
                hollow=name != ALL_ROWS,
                label=name,
            )
        )
        records += [
            {"fit": name, "z": key, "log_prob": number(log_prob.get(key)), "accuracy": number(accuracy.get(key))}
            for key in kept
        ]
    first = part(fits[0][1], "log_prob")
    yield Subheading(text="What z carries")
    yield Chart(
        name="latent-contexts",
        caption="Log-probability of decisions held out inside the training rows, by what z was made from. In a model "
        "that listens the user's own comparisons stand to the right of all others; in one that has collapsed all "
        "stand where one reward for everybody does.",
        alt="Log-probability by what z was made from: "
        + "; ".join(f"{CONTEXTS[key]} {fixed(number(first.get(key)), 3)}" for key in kept)
        + ".",
        x=axes.numbers(ends, "log-probability, nats per decision"),
        y=axes.categories([CONTEXTS[key] for key in kept]),
        marks=tuple(marks),
        records=records,
    )
    yield Grid(
        name="latent-contexts-table",
        caption="The same with accuracy. These sources chose when training stopped, so the figures are a little too "
        "good; those of the ladder are not.",
        header=("z was made from", *(f"{name}: {what}" for name, _ in fits for what in ("accuracy", "nats"))),
        numeric=(False, *(True,) * (2 * len(fits))),
        rows=[
            (
                CONTEXTS[key],
                *(
                    cell
                    for _, each in fits
                    for cell in (
                        percent(number(part(each, "accuracy").get(key)), 1),
                        signed(number(part(each, "log_prob").get(key)), 3),
                    )
                ),
            )
            for key in kept
        ],
        records=[],
    )


def _dimensions(fits: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Block]:
    """KL of every dimension as bars, in the fit to all rows (or the first there is)."""
    name, fit = fits[0]
    kl = [v for v in map(number, fit["kl"] if isinstance(fit["kl"], list) else []) if v is not None]
    if not kl:
        return
    given = fit.get("variance")
    variance = [number(v) for v in given] if isinstance(given, list) and len(given) == len(kl) else [None] * len(kl)
    active = [v is None or v > ACTIVE for v in variance]
    named = {True: "active", False: "not active"}
    seen: set[bool] = set()
    bars = []
    for i, (value, used, spread) in enumerate(zip(kl, active, variance, strict=True)):
        tip = f"z{i + 1}: {fixed(value, 3)} nats"
        bars.append(
            Stretch(
                at=float(i),
                start=0.0,
                stop=max(value, 0.0),
                colour=0 if used else 1,
                text=fixed(value, 2),
                tip=tip if spread is None else f"{tip}, variance of the means {fixed(spread, 3)}, {named[used]}",
                label=None if used in seen else named[used],
            )
        )
        seen.add(used)
    yield Chart(
        name="latent-kl",
        caption=f"How much each dimension of z says of a user: KL from the prior, mean over users, {name}.",
        alt="KL by dimension: " + "; ".join(f"z{i + 1} {fixed(value, 2)}" for i, value in enumerate(kl)) + " nats.",
        x=axes.numbers(kl, "nats per user", include=(0,)),
        y=axes.categories([f"z{i + 1}" for i in range(len(kl))]),
        marks=(Rule(at=0, dashed=False), *bars),
        records=[
            {"dimension": i + 1, "kl": value, "variance": spread, "active": used}
            for i, (value, spread, used) in enumerate(zip(kl, variance, active, strict=True))
        ],
    )


def _map(found: dict[str, Any]) -> Iterator[Block]:
    names = [short(each, 60) for each in found.get("user") or []]
    two = matrix(found.get("two"))
    yield Subheading(text="Where users lie")
    if two is None or len(two) != len(names) or two.shape[1] != 2:
        yield Text(text="Left out: every user lies at the prior, so that there is no map of z.", kind="missing")
        return
    group, labels = groups(found.get("cluster"), len(names))
    sizes = np.bincount(group, minlength=len(labels))
    given = found.get("cluster")
    cluster = given if isinstance(given, list) and len(given) == len(names) else [None] * len(names)
    method = clean(found.get("method")) or "t-SNE"
    how = "the two dimensions of z" if method == "z" else f"{method} of z"
    yield Chart(
        name="latent-map",
        caption=f"{count(len(names))} users by {how} (posterior means), coloured by cluster where the study has any. "
        "Users near each other are inferred to want alike. Such maps show groups in noise too.",
        alt=f"Map of {len(names)} users by {how}, coloured by {len(labels)} groups.",
        x=bare(two, 0),
        y=bare(two, 1),
        marks=(
            Dots(
                xy=two,
                group=group,
                tips=[f"{name}, {labels[k]}" for name, k in zip(names, group, strict=True)],
                labels=tuple(f"{label} ({count(int(size))} users)" for label, size in zip(labels, sizes, strict=False)),
            ),
        ),
        records=[
            {"user": clean(user), "cluster": number(own), "x": float(x), "y": float(y)}
            for user, own, (x, y) in zip(found["user"], cluster, two, strict=True)
        ],
        square=True,
    )
    if found.get("note"):
        yield note(found["note"])
