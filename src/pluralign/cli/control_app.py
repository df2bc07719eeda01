"""The command of control tasks, its flags and its help. What it does stands in `control.py`."""

from pathlib import Path
from typing import Annotated

import typer

from pluralign.cli.app import Config, Json, Seed
from pluralign.cli.language_app import app

__all__ = ["app"]


@app.command(rich_help_panel="Control")
def control(
    task: Annotated[str, typer.Argument(help="`maze`, `table-top` (or `ravens`), `rearrange`, `tidy` or `didactic`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results. The same command again goes on there.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the task, `name=value`, as in `--option goals=ten`. Repeatable."),
    ] = None,
    config: Config = None,
    more: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting by name, as in `--set pairs=16`. Repeatable.")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Methods and scalings to compare, comma-separated, as in `--rows 'btl spo,vpl spo'`."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Plan on the rewards, without a policy: the maze in minutes.")
    ] = False,
    seeds: Annotated[int | None, typer.Option(help="Runs, each with data, fits and policies of its own.")] = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Learn what each user wants a machine to do from comparisons, and let it do that.

    One reward for everybody (BTL, DPL), latent users (VPL) and the oracle see the same comparisons of simulated users;
    policies follow their rewards. Writes `control.json`, figures and the policies to OUT. The maze and the table want
    `pip install 'pluralign[control]'`.

    \b
      pluralign control maze --plan --out control/maze-plan
      pluralign control maze --out control/maze
      pluralign control maze --config recipes/control/maze-ten.yaml --out control/maze-ten
      pluralign control rearrange --out control/rearrange
    """
    from pluralign.cli import commands
    from pluralign.cli import control as doing

    doing.control(
        task,
        out,
        config,
        commands.settings_of("--set", more),
        options=commands.settings_of("--option", option),
        rows=rows,
        plan=plan,
        seeds=seeds,
        seed=seed,
        json=json,
    )
