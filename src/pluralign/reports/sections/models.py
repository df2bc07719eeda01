"""The ladder and its controls, how its settings were chosen, and who gains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pluralign.reports import axes
from pluralign.reports.blocks import (
    Block,
    Chart,
    Dots,
    Glossary,
    Grid,
    Line,
    Rule,
    Section,
    Spans,
    Subheading,
    Text,
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
    short,
    signed,
    span,
)

RUNGS = {
    "pooled": "one reward for everybody",
    "reliability": "one reward for everybody, and how noisily each user answers",
    "cluster": "a few rewards; each user has a probability of belonging to each",
    "cluster-hard": "a few rewards; each user belongs to one",
    "cluster-embedding": "the same, users grouped by the likeness of their own rewards",
    "basis": "a reward per user, in a few shared directions of taste",
    "individual": "a reward per user, drawn towards the shared one",
    "latent": "a reward per user, inferred from their comparisons by a trained encoder",
}
CONTROLS = (
    ("control: another user's", "the model above it, but each user is predicted with a random other user's part of it"),
    ("control: random clusters", "clusters of the same sizes as in the model above it, their members drawn at random"),
)
EVIDENCE = "log-probability, nats per decision"
SHOWN_USERS = 10  # at either end of the table of gains


def ladder(results: dict[str, Any]) -> Section:
    """Every model on the same held-out decisions, controls beside."""
    rows = sorted(entries(part(results, "ladder").get("rows")), key=order_of)
    chosen = part(results, "verdict").get("rung")
    blocks: list[Block] = []
    gains = [(row, gain) for row in rows if (gain := estimate(part(row, "gains").get("accuracy")))]
    if gains:
        blocks.append(_gains_chart(gains))
    blocks.append(_ladder_table(results, rows, chosen))
    names = {row.get("name") for row in rows}
    blocks.append(Glossary(words=tuple((name, words) for name, words in RUNGS.items() if name in names) + CONTROLS))
    blocks.append(
        Text(text="A gain is personal where the model stands clear of 0 and its controls do not.", kind="explain")
    )
    return Section(
        anchor="ladder",
        title="The ladder of models",
        lead="How well does each model, from one reward for all to one for each, predict decisions it has not seen?",
        blocks=tuple(blocks),
    )


def _gains_chart(gains: Sequence[tuple[dict[str, Any], Estimate]]) -> Chart:
    names = [_name(row) for row, _ in gains]
    marks = []
    for control, colour, label in ((False, 0, "model"), (True, 1, "control")):
        at = [i for i, (row, _) in enumerate(gains) if bool(row.get("control")) == control]
        if at:
            marks.append(
                Spans(
                    at=at,
                    value=[gains[i][1].value for i in at],
                    low=[finite(gains[i][1].low) for i in at],
                    high=[finite(gains[i][1].high) for i in at],
                    tips=[
                        f"{short(gains[i][0].get('name'))}: {span(gains[i][1], 1, sign=True, factor=100)} points"
                        for i in at
                    ],
                    colour=colour,
                    hollow=control,
                    label=label,
                )
            )
    ends = [end for _, gain in gains for end in (gain.value, finite(gain.low), finite(gain.high))]
    best = max((each for each in gains if not each[0].get("control")), key=lambda each: each[1].value, default=gains[0])
    return Chart(
        name="ladder",
        caption="Gain in accuracy over one reward for all, in points, with its interval. Hollow: controls, which ought "
        "to stand at or below 0.",
        alt=f"Forest plot of {len(gains)} gains over the pooled reward. Largest: {short(best[0].get('name'))}, "
        f"{span(best[1], 1, sign=True, factor=100)} points.",
        x=axes.numbers(ends, "points of accuracy over one reward for all", factor=100, include=(0,)),
        y=axes.categories(names),
        marks=(Rule(at=0, dashed=False), *marks),
        records=[
            {
                "model": clean(row.get("name")),
                "control": bool(row.get("control")),
                **flat("gain_accuracy", gain),
                **flat("gain_log_prob", estimate(part(row, "gains").get("log_prob"))),
            }
            for row, gain in gains
        ],
    )


def order_of(row: dict[str, Any]) -> tuple[int, bool, str]:
    """From the poorest model to the richest, each with its controls below it; unknown ones last."""
    name = clean(row.get("name"))
    order = list(RUNGS)
    rung = name.partition(", ")[0]
    return order.index(rung) if rung in RUNGS else len(order), bool(row.get("control")), name


def _name(row: dict[str, Any]) -> str:
    """A model's name; a control stands below its model, whose name it need not repeat."""
    name = clean(row.get("name"))
    return f"control: {name.partition(', ')[2] or name}" if row.get("control") else name


def _ladder_table(results: dict[str, Any], rows: Sequence[dict[str, Any]], chosen: object) -> Grid:
    settings = _chosen(entries(results.get("seeds")))
    shown, records = [], []
    for row in rows:
        name, scores, gains = clean(row.get("name")), part(row, "scores"), part(row, "gains")
        accuracy, loss = estimate(row.get("accuracy")), number(scores.get("log_loss"))
        users, sd = number(scores.get("accuracy_users")), number(scores.get("accuracy_users_sd"))
        gain, nats = estimate(gains.get("accuracy")), estimate(gains.get("log_prob"))
        p = number(row.get("p_adjusted"))
        shown.append(
            (
                (name.partition(", ")[2] if row.get("control") else name)
                + (f" ({settings[name]})" if settings.get(name) else ""),
                span(accuracy),
                span(gain, 1, sign=True, factor=100),
                span(nats, 3, sign=True),
                p_value(p),
                "–" if users is None else f"{fixed(users)} ± {fixed(sd)}",
                fixed(number(scores.get("worst_decile"))),
            )
        )
        records.append(
            {
                "model": name,
                "control": bool(row.get("control")),
                "settings": settings.get(name, ""),
                **flat("accuracy", accuracy),
                **flat("gain_accuracy", gain),
                **flat("gain_log_prob", nats),
                "p_adjusted": p,
                "accuracy_users": users,
                "accuracy_users_sd": sd,
                "worst_decile": number(scores.get("worst_decile")),
                "log_loss": loss,
            }
        )
    return Grid(
        name="ladder-table",
        caption="The ladder. Bold: what the verdict would train. Grey: controls. p: of the gain in nats, corrected "
        "(Holm) for the number of models. Users: mean and standard deviation of users' own accuracies. Worst tenth: "
        "accuracy of the tenth of users served worst.",
        header=("Model", "Accuracy", "Gain, points", "Gain, nats", "p", "Users ± SD", "Worst tenth"),
        numeric=(False, *(True,) * 6),
        rows=shown,
        records=records,
        strong=frozenset(i for i, row in enumerate(rows) if row.get("name") == chosen),
        quiet=frozenset(i for i, row in enumerate(rows) if row.get("control")),
    )


def _chosen(seeds: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What each rung chose in each split: "K 3" where all agree, "K 3, 2" where not."""
    found: dict[str, str] = {}
    for rung in part(seeds[0], "rungs") if seeds else ():
        for key, word in (("n_clusters", "K"), ("rank", "rank")):
            values = [number(part(seed, "rungs", rung, "settings").get(key)) for seed in seeds]
            texts = [count(value) for value in values if value is not None]
            if texts:
                found[rung] = f"{word} {texts[0] if len(set(texts)) == 1 else ', '.join(texts)}"
    return found


def choices(results: dict[str, Any]) -> Section:
    """Number of clusters and rank against evidence, and stability."""
    seeds = entries(results.get("seeds"))
    blocks: list[Block] = []
    for rung, key, label in (
        ("cluster", "n_clusters", "clusters"),
        ("basis", "rank", "directions of taste"),
        ("individual", "tau", "spread of users' tastes"),
    ):
        blocks += _curves(seeds, rung, key, label)
    if not blocks:
        blocks.append(Text(text="Left out: the results hold no candidates of K or rank.", kind="missing"))
    return Section(
        anchor="choices",
        title="How many clusters, how many directions",
        lead="What was tried inside the training rows, what it scored, and whether the same clusters come out again.",
        blocks=tuple(blocks),
    )


def _curves(seeds: Sequence[dict[str, Any]], rung: str, key: str, label: str) -> Iterator[Block]:
    series = [(seed.get("seed"), entries(part(seed, "rungs", rung).get("choice"))) for seed in seeds]
    series = [
        (seed, [row for row in rows if number(row.get(key)) is not None and number(row.get("log_prob")) is not None])
        for seed, rows in series
    ]
    series = [(seed, rows) for seed, rows in series if len(rows) > 1]
    if not series:
        return
    tried = sorted({float(row[key]) for _, rows in series for row in rows})
    names = [f"{value:g}" if value < 1 else count(value) for value in tried]
    if key == "tau":
        names = [f"{value:.2g}" for value in tried]
    place = {value: float(i) for i, value in enumerate(tried)}
    picked = [number(part(seed, "rungs", rung, "settings").get(key)) for seed in seeds]
    lines, records = [], []
    for k, (seed, rows) in enumerate(series):
        error = [number(row.get("standard_error")) or 0.0 for row in rows]
        value = [float(row["log_prob"]) for row in rows]
        lines.append(
            Line(
                x=[place[float(row[key])] for row in rows],
                y=value,
                low=[v - e for v, e in zip(value, error, strict=True)],
                high=[v + e for v, e in zip(value, error, strict=True)],
                tips=[
                    f"{label} {row[key]:g}, split {seed}: {fixed(v, 4)} ± {fixed(e, 4)}"
                    for row, v, e in zip(rows, value, error, strict=True)
                ],
                colour=k,
                dashed=k > 0,
                label=f"split {seed}",
            )
        )
        records += [
            {"split": seed, key: row[key]}
            | {
                name: number(row.get(name))
                for name in ("log_prob", "standard_error", "bic", "restart_agreement", "half_agreement")
            }
            for row in rows
        ]
    found = [f"{each:.3g}" for each in picked if each is not None]
    shown = found[0] + (" in every split" if len(found) > 1 else "") if len(set(found)) == 1 else ", ".join(found)
    yield Subheading(text=f"{rung}: {label}")
    yield Chart(
        name=f"choice-{rung}",
        caption=f"Cross-validated log-probability by {label}; higher is better. Whiskers: standard error of the "
        f"difference to the best. Chosen: {shown or 'none'}, the simplest within one standard error of the best.",
        alt=f"Cross-validated log-probability over {label} tried: {', '.join(names)}. Chosen: {shown or 'none'}.",
        x=axes.places(names, label),
        y=axes.numbers([end for line in lines for end in (*(line.low or ()), *(line.high or ()))], EVIDENCE),
        marks=tuple(lines),
        records=records,
        height=230,
    )
    stable = [row for row in records if row.get("restart_agreement") is not None]
    if stable:
        yield _stability(stable, names, place, label)


def _stability(rows: Sequence[dict[str, Any]], names: Sequence[str], place: dict[float, float], label: str) -> Chart:
    lines = []
    for k, split in enumerate(dict.fromkeys(row["split"] for row in rows)):
        for key, words, dashed in (("restart_agreement", "restarts", False), ("half_agreement", "halves", True)):
            here = [row for row in rows if row["split"] == split and row[key] is not None]
            lines.append(
                Line(
                    x=[place[float(row["n_clusters"])] for row in here],
                    y=[row[key] for row in here],
                    tips=[f"K {row['n_clusters']:g}, {words}, split {split}: {fixed(row[key], 2)}" for row in here],
                    colour=k,
                    dashed=dashed,
                    label=f"{words}, split {split}",
                )
            )
    return Chart(
        name="stability",
        caption="Stability: the adjusted Rand index, which is 1 where the same users fall together each time and 0 "
        "where they do so by chance. Restarts: the same data from other starting points. Halves: two halves of each "
        "user's decisions, clustered apart.",
        alt="Stability of the clusters by their number: "
        + "; ".join(f"K {row['n_clusters']:g} restarts {fixed(row['restart_agreement'], 2)}" for row in rows)
        + ".",
        x=axes.places(names, label),
        y=axes.numbers([y for line in lines for y in line.y], "adjusted Rand index", include=(0, 1)),
        marks=(Rule(at=0, upright=False), *lines),
        records=[
            {key: row[key] for key in ("split", "n_clusters", "restart_agreement", "half_agreement")} for row in rows
        ],
        height=200,
    )


def gains(results: dict[str, Any]) -> Section:
    """Who gains and who loses."""
    users = [row for row in entries(results.get("users")) if number(row.get("gain_log_prob")) is not None]
    found = part(results, "verdict")
    blocks: list[Block] = []
    if users:
        blocks += _user_blocks(users, clean(results.get("users_of") or found.get("candidate")))
    elif found.get("candidate") == "pooled":
        blocks.append(Text(text="Everybody gets the same reward, so that nobody gains or loses by personalisation."))
    else:
        blocks.append(Text(text="Left out: the results hold no gains by user.", kind="missing"))
    rows = entries(results.get("clusters"))
    if rows:
        blocks += _cluster_blocks(rows)
    return Section(
        anchor="users",
        title="Who gains, who loses",
        lead="What personalisation gives each user, and each cluster, on decisions held out.",
        blocks=tuple(blocks),
    )


def _user_blocks(users: list[dict[str, Any]], candidate: str) -> Iterator[Block]:
    users = sorted(users, key=lambda row: (float(row["gain_log_prob"]), clean(row.get("user"))))
    gain = np.array([float(row["gain_log_prob"]) for row in users])
    n, winners, losers = len(users), int((gain > 0).sum()), int((gain < 0).sum())
    share = (np.arange(n) + 0.5) / n
    group = np.where(gain > 0, 0, 1)
    yield Chart(
        name="user-gains",
        caption=f"Every user, from who loses most to who gains most: nats per decision of {candidate} over one reward "
        f"for all. {count(winners)} of {count(n)} users gain ({percent(winners / n)}), {count(losers)} lose "
        f"({percent(losers / n)}); half of them gain {signed(float(np.median(gain)), 3)} or more.",
        alt=f"Sorted gains of {n} users: {winners} gain, {losers} lose; from {signed(float(gain[0]), 3)} to "
        f"{signed(float(gain[-1]), 3)} nats.",
        x=axes.numbers((0, 1), "share of users, %", factor=100),
        y=axes.numbers(gain.tolist(), "nats per decision", include=(0,)),
        marks=(
            Rule(at=0, upright=False, dashed=False),
            Dots(
                xy=np.stack([share, gain], axis=1),
                group=group,
                tips=[_gain_tip(row) for row in users],
                labels=("gains", "does not"),
            ),
        ),
        records=[
            {
                "user": clean(row.get("user")),
                "cluster": number(row.get("cluster")),
                "decisions": number(row.get("decisions")),
                "gain_log_prob": float(row["gain_log_prob"]),
                "gain_accuracy": number(row.get("gain_accuracy")),
                "standard_error": number(row.get("standard_error")),
            }
            for row in users
        ],
    )
    yield Text(
        text="One user's gain rests on a handful of decisions and is mostly noise: sorted noise has winners and losers "
        "too. Read the shares and the clusters below, not single users.",
        kind="note",
    )
    ends = users if n <= 2 * SHOWN_USERS else users[:SHOWN_USERS] + users[-SHOWN_USERS:]
    yield Grid(
        name="user-gains-ends",
        caption="All users."
        if len(ends) == n
        else f"The {SHOWN_USERS} users who lose most and the {SHOWN_USERS} who gain most.",
        header=("User", "Cluster", "Decisions", "Gain, nats", "± SE", "Gain, points"),
        numeric=(False, *(True,) * 5),
        rows=[
            (
                short(row.get("user"), 60),
                count(number(row.get("cluster"))),
                count(number(row.get("decisions"))),
                signed(number(row.get("gain_log_prob")), 3),
                fixed(number(row.get("standard_error"))),
                signed(None if (points := number(row.get("gain_accuracy"))) is None else 100 * points),
            )
            for row in ends
        ],
        records=[],
    )


def _gain_tip(row: dict[str, Any]) -> str:
    points = number(row.get("gain_accuracy"))
    return (
        f"{short(row.get('user'), 60)}: {signed(number(row.get('gain_log_prob')), 3)} nats"
        + ("" if points is None else f", {signed(100 * points)} points")
        + f", {count(number(row.get('decisions')))} decisions"
    )


def _cluster_blocks(rows: Sequence[dict[str, Any]]) -> Iterator[Block]:
    names, spans, shown, records = [], [], [], []
    for row in rows:
        share, size = number(row.get("share")), number(row.get("users"))
        names.append(f"cluster {row.get('cluster')} ({percent(share)})")
        gain = estimate(row.get("gain_accuracy"))
        spans.append(gain)
        shown.append(
            (
                f"{row.get('cluster')}",
                count(size),
                percent(share),
                span(estimate(row.get("accuracy_own"))),
                span(estimate(row.get("accuracy_pooled"))),
                span(gain, 1, sign=True, factor=100),
                span(estimate(row.get("gain_log_prob")), 3, sign=True),
            )
        )
        records.append(
            {"cluster": row.get("cluster"), "users": size, "share": share}
            | flat("accuracy_own", estimate(row.get("accuracy_own")))
            | flat("accuracy_pooled", estimate(row.get("accuracy_pooled")))
            | flat("gain_accuracy", gain)
            | flat("gain_log_prob", estimate(row.get("gain_log_prob")))
        )
    kept = [(i, each) for i, each in enumerate(spans) if each is not None]
    yield Subheading(text="By cluster: what one reward costs each")
    if kept:
        yield Chart(
            name="cluster-gains",
            caption="What each cluster's own reward gains for its members over one reward for all, in points. Small "
            "clusters are the minorities that one reward for all outvotes.",
            alt="Gains by cluster: "
            + "; ".join(f"{names[i]} {span(each, 1, sign=True, factor=100)} points" for i, each in kept)
            + ".",
            x=axes.numbers(
                [end for _, g in kept for end in (g.value, finite(g.low), finite(g.high))],
                "points of accuracy over one reward for all",
                factor=100,
                include=(0,),
            ),
            y=axes.categories([names[i] for i, _ in kept]),
            marks=(
                Rule(at=0, dashed=False),
                Spans(
                    at=range(len(kept)),
                    value=[g.value for _, g in kept],
                    low=[finite(g.low) for _, g in kept],
                    high=[finite(g.high) for _, g in kept],
                    tips=[f"{names[i]}: {span(g, 1, sign=True, factor=100)} points" for i, g in kept],
                    colour=0,
                ),
            ),
            records=records,
        )
    yield Grid(
        name="clusters",
        caption="Each cluster's members on their own held-out decisions.",
        header=("Cluster", "Users", "Share", "Own reward", "One for all", "Gain, points", "Gain, nats"),
        numeric=(False, *(True,) * 6),
        rows=shown,
        records=records,
    )


def finite(value: float | None) -> float:
    """The end of an interval; NaN, which is not drawn, where there is none."""
    return math.nan if value is None else value
