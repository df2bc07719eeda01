"""What `pluralign control` does: run a task, say what is going on, and print what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pluralign.cli.printing import print_json, print_line, stderr, stdout
from pluralign.studies.settings import read_yaml

if TYPE_CHECKING:
    from pluralign.control.choice_experiment import ChoiceResult
    from pluralign.control.didactic_experiment import DidacticResult
    from pluralign.control.results import ControlResult
    from pluralign.evaluation import Interval


def control(
    task: str,
    out: Path,
    config: Path | None,
    more: Mapping[str, Any],
    *,
    options: Mapping[str, Any],
    rows: str | None,
    plan: bool,
    seeds: int | None,
    seed: int | None,
    json: bool,
) -> None:
    """Run a task; flags win over the file."""
    from pluralign.control import choice_experiment
    from pluralign.control.didactic_experiment import DidacticSettings, run_didactic
    from pluralign.control.experiment import run_control
    from pluralign.control.settings import ControlSettings

    given: dict[str, Any] = (read_yaml(config) if config else {}) | dict(more) | {"task": task}
    if options:
        given["options"] = {**given.get("options", {}), **options}
    if rows is not None:
        given["rows"] = [row.strip() for row in rows.split(",")]
    if plan:
        given["policy"] = "plan"
    given |= {name: value for name, value in (("seeds", seeds), ("seed", seed)) if value is not None}

    def say(words: str) -> None:
        print_line(words, to=stderr)

    found: ChoiceResult | ControlResult | DidacticResult
    if task in choice_experiment.TASKS:
        found = choice_experiment.run_choice(choice_experiment.ChoiceSettings.of(given), out, say=say)
        table = _choices(found)
    elif task == "didactic":
        found = run_didactic(DidacticSettings.of(given), out, say=say)
        table = _curves(found)
    else:
        with stderr.status("") as status:
            found = run_control(
                ControlSettings.of(given),
                out,
                say=say,
                on_step=lambda step, numbers: status.update(f"step {step:,}, value {numbers['v']:.2f}"),
            )
        if not json:
            _print_rewards(found)
        table = _policies(found)
    if json:
        print_json(found)
        return
    stdout.print(table)
    print_line(f"{out}/control.json, and figures beside it")


def _print_rewards(found: ControlResult) -> None:
    table = Table(title=f"Rewards, {found.settings.seeds} seeds: other pairs of users placed by {found.settings.pairs}")
    table.add_column("method")
    for column in ("pairs right", "over btl", "CPU s"):
        table.add_column(column, justify="right")
    for each in found.methods:
        table.add_row(each.method, _shown(each.accuracy), _shown(each.over_baseline), f"{each.seconds:.0f}")
    stdout.print(table)
    for each in found.methods:
        for words in each.words:
            stdout.print(f"{each.method}: {words}", highlight=False, markup=False)


def _policies(found: ControlResult) -> Table:
    few = len(found.kinds) <= 4
    what = "plans on the reward" if found.settings.policy == "plan" else "policies"
    wants = "; ".join(f"{number}: {words}" for number, words in enumerate(found.kinds)) if few else ""
    table = Table(
        title=f"Success of {what}, {found.settings.seeds} seeds of {found.settings.users} users",
        caption=f"users want {wants}" if few else None,
    )
    table.add_column("reward, scaling")
    for column in ("success", "of oracle", "over btl", *(f"users {k}" for k in range(len(found.kinds)) if few)):
        table.add_column(column, justify="right")
    for column in ("another's z", "its goal", "no answers", "CPU s"):
        table.add_column(column, justify="right")
    for each in found.rows:
        kinds = [each.success.kinds.get(kind) for kind in found.kinds] if few else []
        swapped = [each.swapped.get(name) for name in ("lent", "followed", "unknown")]
        table.add_row(
            each.row,
            _shown(each.success.overall, 2),
            _rate(each.of_oracle),
            _shown(each.over_baseline, 2),
            *("" if kind is None else _rate(kind.estimate) for kind in kinds),
            *(_rate(rate) for rate in swapped),
            f"{each.seconds:.0f}",
        )
    return table


def _choices(found: ChoiceResult) -> Table:
    table = Table(title=f"Choices that are right, {found.settings.seeds} seeds of {found.settings.users:,} users")
    for column in ("comparisons", "method"):
        table.add_column(column)
    kinds = [name for name in found.kinds if name in found.rows[0].success.kinds] if len(found.kinds) <= 2 else []
    for column in ("right", "below bayes", "over btl", *kinds, "pairs right"):
        table.add_column(column, justify="right")
    for row in found.rows:
        table.add_row(
            str(row.context),
            row.method,
            _shown(row.success.overall),
            _shown(row.below_bayes),
            _shown(row.over_baseline),
            *(_rate(row.success.kinds[kind].estimate) for kind in kinds),
            _shown(row.accuracy),
        )
    return table


def _curves(found: DidacticResult) -> Table:
    table = Table(
        title=f"Rewards recovered, {found.settings.seeds} seeds of {found.settings.users} users; one answer for all is "
        f"right in {found.majority:.3f} at most"
    )
    table.add_column("method")
    for column in ("pairs right", "over btl", *(f"like {kind}" for kind in found.kinds)):
        table.add_column(column, justify="right")
    for row in found.rows:
        table.add_row(
            row.method,
            _shown(row.accuracy),
            _shown(row.over_baseline),
            *(f"{like:.2f}, peak {peak:.1f}" for like, peak in zip(row.likeness, row.peak, strict=True)),
        )
    return table


def _shown(interval: Interval | None, digits: int = 3) -> str:
    if interval is None:
        return ""
    return f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
