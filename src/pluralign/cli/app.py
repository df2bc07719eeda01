"""The commands of `pluralign`, their flags and their help. What they do stands in `commands.py`."""

from pathlib import Path
from typing import Annotated

import typer

from pluralign.cli.flags import take_flags

app = typer.Typer(
    name="pluralign",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn from preference data in which people disagree: test it, model it, evaluate it honestly.",
    epilog="DATA is everywhere the same: `simulated`, the name of a data set (`pluralign datasets` lists them), a file "
    "(.jsonl, .csv, .parquet) or folder of rows with prompt, chosen, rejected and user, or `hf:organisation/name`.",
)

Data = Annotated[str, typer.Argument(metavar="DATA", help="`simulated`, a data set's name, a file, or `hf:org/name`.")]
DataPath = Annotated[
    Path | None, typer.Option("--path", help="Local folder of a named data set; without it, its public source.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="A column under another name, `ours=theirs`, as in `--column user=worker`. Repeatable."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="An option of the data set's loader, `name=value`; `pluralign datasets NAME` lists them."
    ),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file with the settings below by name; flags win over it.")
]
Flags = Annotated[
    Path | None,
    typer.Option(
        "--config",
        is_eager=True,
        callback=take_flags,
        help="YAML file with this command's flags by name; those on the command line win over it.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Features: `auto`, `attributes`, `tfidf`, `style`, `hf:MODEL`, `st:MODEL` (a hub id or a local folder) or "
        "`array:FILE.npy`."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the results.")]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", help="Feature cache; default OUT/cache. Share it between studies of one data set."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Where all randomness begins.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
PoolData = Annotated[
    str,
    typer.Argument(
        metavar="POOL", help="Pairs that could be asked: rows with prompt, chosen (or first) and rejected (or second)."
    ),
]
Answers = Annotated[
    str | None,
    typer.Option("--answers", help="The user's comparisons so far, to which the model was not fitted; a file of rows."),
]
Method = Annotated[
    str,
    typer.Option(
        help="`information_gain`, `d_optimal`, `uncertainty`, `uncertainty_predictive`, `random` or `vpl_released`."
    ),
]
Epsilon = Annotated[
    float,
    typer.Option(min=0, help="Enough is known when no answer is expected to gain this much reward, in nats."),
]
Device = Annotated[str, typer.Option("--device", help="Where encoders and fits run: cpu, cuda, cuda:1.")]


@app.command(rich_help_panel="The main job")
def study(
    data: Data,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    out: Out = None,
    config: Config = None,
    encoder: Encoder = None,
    cache: Cache = None,
    device: Device = "cpu",
    rungs: Annotated[str | None, typer.Option(help="Rungs to fit, comma-separated; default all but latent.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of splits; every figure is over all of them.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Hold out by `source` (siblings together), `item` (test items never seen) or `last` (each user's)."
        ),
    ] = None,
    test: Annotated[float | None, typer.Option(help="Share held out.")] = None,
    unseen: Annotated[float | None, typer.Option(help="Share of users kept out of training.")] = None,
    max_clusters: Annotated[int | None, typer.Option(help="Largest number of clusters tried.")] = None,
    starts: Annotated[int | None, typer.Option(help="Restarts of the clusters' EM.")] = None,
    query_curve: Annotated[
        str | None,
        typer.Option(
            help="Rungs, comma-separated, for which unseen users are asked pair by pair: what asking well saves."
        ),
    ] = None,
    questions: Annotated[int | None, typer.Option(help="Questions of that curve at most; default 8.")] = None,
    worthwhile: Annotated[
        float | None, typer.Option(help="Smallest gain in accuracy worth a model per user, a share; default 0.01.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Draws from the null of each test of whether users differ.")] = None,
    seed: Seed = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Splits fitted at a time; default one per core, 1 on a GPU or for large data."),
    ] = None,
    json: Json = False,
) -> None:
    """Should you personalise? Fit the whole ladder, evaluate it on held-out rows, and say what to train.

    Writes `report.html`, `results.json`, figures, tables and the fitted models to OUT. A run that was stopped goes on
    from there.

    \b
      pluralign study simulated --out studies/simulated
      pluralign study jester --path data/jester5k --out studies/jester
      pluralign study rows.jsonl --column user=annotator --encoder st:MODEL
    """
    from pluralign.cli import commands

    flags = {
        "encoder": encoder,
        "rungs": None if rungs is None else rungs.split(","),
        "seeds": seeds,
        "split": split,
        "test": test,
        "unseen": unseen,
        "clusters": None if max_clusters is None else [*range(1, max_clusters + 1)],
        "starts": starts,
        "query_rungs": None if query_curve is None else query_curve.split(","),
        "questions": questions,
        "worthwhile": worthwhile,
        "draws": draws,
        "seed": seed,
    }
    commands.study(
        commands.Source(data, path, column, option),
        out,
        config,
        flags,
        cache=cache,
        device=device,
        jobs=jobs,
        json=json,
    )


@app.command(rich_help_panel="The main job")
def scan(
    data: Data,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    near: Annotated[
        float, typer.Option(help="Overlap of two texts' runs of three words that makes them near duplicates, 0 to 1.")
    ] = 0.8,
    min_decisions: Annotated[int, typer.Option(help="Report users with fewer decisions than this.")] = 5,
    max_decisions: Annotated[
        int, typer.Option(help="Decisions that the baselines are fitted to; all else looks at every row.")
    ] = 100_000,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where an error was found: for CI.")] = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """What fools a reward model here, and can these data be trusted? Run it before anything is trained.

    Scores length alone, format alone, position alone and the words alone on held-out decisions; looks for signs of
    format that tell chosen from rejected, duplicates across splits and sources, users who answer by a rule, at random
    or the other way round, and odd labels and texts. Each finding says which rows, how bad, and what to do.

    \b
      pluralign scan rows.jsonl --column user=annotator
      pluralign scan cobbler --path data/cobbler_rankings
      pluralign scan rows.parquet --strict --json > scan.json
    """
    from pluralign.cli import commands

    commands.scan(
        commands.Source(data, path, column, option),
        strict=strict,
        json=json,
        near=near,
        min_decisions=min_decisions,
        max_decisions=max_decisions,
        seed=seed or 0,
    )


@app.command(rich_help_panel="The main job")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `study --out` wrote.")],
    json: Json = False,
) -> None:
    """Write the report of a study: one page for a browser, figures for papers, and the numbers as CSV.

    DIR/report.html holds all that it shows and needs no network; figures and numbers are in DIR/figures and DIR/tables.
    """
    from pluralign.cli import commands

    commands.report(folder, json=json)


@app.command(rich_help_panel="Steps")
def encode(
    data: Data,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    config: Flags = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A frozen encoder: `style`, `attributes`, `hf:MODEL`, `st:MODEL` (a hub id or a local folder) or "
            "`array:FILE.npy`. Default: `style` for text, `attributes` for numeric items."
        ),
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Feature cache.")] = Path("cache"),
    device: Device = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per batch.")] = 32,
    json: Json = False,
) -> None:
    """Run a frozen encoder once over the distinct items and cache the features.

    A study or fit with the same --encoder and --cache reads them. A run that was killed goes on where it stopped.
    Several processes share the work under `torchrun`.
    """
    from pluralign.cli import commands

    source = commands.Source(data, path, column, option)
    commands.encode(source, encoder, cache, device=device, batch_size=batch_size, json=json)


@app.command(rich_help_panel="Steps")
def fit(
    data: Data,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    config: Flags = None,
    users: Annotated[
        str, typer.Option(help="User model: `pooled`, `reliability`, `cluster`, `basis`, `individual` or `latent`.")
    ] = "pooled",
    clusters: Annotated[int | None, typer.Option(help="Clusters; chosen by cross-validation when not given.")] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Latent classes (soft EM) instead of hard assignment.")] = False,
    rank: Annotated[
        int | None, typer.Option(help="Rank of `basis`; chosen by cross-validation when not given.")
    ] = None,
    ridge: Annotated[
        float | None,
        typer.Option(
            help="Ridge of the shared reward and of the clusters' (precision of a Gaussian prior). Default: 0, maximum "
            "likelihood, for numeric attributes; chosen by cross-validation for text."
        ),
    ] = None,
    starts: Annotated[int, typer.Option(help="Restarts of EM.")] = 20,
    encoder: Encoder = None,
    cache: Cache = None,
    device: Device = "cpu",
    out: Out = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Fit one user model to all rows and save it.

    pluralign fit swiss --path data/swiss_route_choice --users cluster --clusters 2 --soft --json
    """
    from pluralign.cli import commands
    from pluralign.studies.fitting import FitSettings

    commands.fit(
        commands.Source(data, path, column, option),
        FitSettings(users=users, clusters=clusters, soft=soft, rank=rank, ridge=ridge, starts=starts, seed=seed or 0),
        encoder or "auto",
        cache,
        out,
        device=device,
        json=json,
    )


@app.command(rich_help_panel="Steps")
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a fitted or trained model.")],
    data: Data,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    config: Flags = None,
    pooled: Annotated[
        Path | None, typer.Option(help="Folder of a pooled model, for the paired difference to it.")
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Of a policy's implicit reward; default that of its training.")
    ] = None,
    json: Json = False,
) -> None:
    """Score a saved model on other rows: accuracy, log-probability, calibration, beside what an unknown user gets.

    A model is what `fit`, `study`, `train-reward`, `train-dpo` or `train-clusters` wrote; a policy is judged by its
    implicit reward.
    """
    from pluralign.cli import commands, language

    source = commands.Source(data, path, column, option)
    if language.is_language_model(model):
        language.evaluate(model, source, pooled, beta=beta, json=json)
    else:
        commands.evaluate(model, source, pooled, json=json)


@app.command(rich_help_panel="Steps")
def adapt(
    model: Annotated[Path, typer.Argument(help="Folder that `fit` or `study` wrote.")],
    data: Data,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    config: Flags = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Place new users from their own comparisons, without refitting what is shared.

    OUT gets the model with the users it knew and the new ones; the model's own folder stays as it is.
    """
    from pluralign.cli import commands

    commands.adapt(model, commands.Source(data, path, column, option), out, json=json)


@app.command(rich_help_panel="Asking people")
def ask(
    model: Annotated[Path, typer.Argument(help="Folder that `fit` or `study` wrote.")],
    pool: PoolData,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    answers: Answers = None,
    user: Annotated[
        str | None, typer.Option("--user", help="Whom to ask. A name the model does not know is somebody new.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--questions", help="Questions to propose.")] = 4,
    method: Method = "information_gain",
    epsilon: Epsilon = 0.01,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Propose the next comparisons to ask a user, from a pool of pairs.

    The questions of one call are chosen together, so that none asks what another will tell. Take the answers with
    `pluralign adapt`, or give them as `--answers` of the next call.

    \b
      pluralign ask models/basis pool.jsonl --user ada -n 4
      pluralign ask models/basis pool.jsonl --user ada --answers ada.jsonl --json
    """
    from pluralign.cli import commands

    commands.ask(
        model,
        commands.Source(pool, path, column, option),
        answers,
        user,
        n=n,
        method=method,
        epsilon=epsilon,
        seed=seed or 0,
        json=json,
    )


@app.command(rich_help_panel="Asking people")
def interview(
    model: Annotated[Path, typer.Argument(help="Folder that `fit` or `study` wrote.")],
    pool: PoolData,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    answers: Answers = None,
    user: Annotated[
        str | None, typer.Option("--user", help="Who is asked. A name the model does not know is somebody new.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--questions", help="Most answers wanted.")] = 20,
    method: Method = "information_gain",
    epsilon: Epsilon = 0.01,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the answers (answers.jsonl) and the model of this user.")
    ] = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Ask a person at the keyboard, say after each answer where it puts them, and stop when enough is known.

    Every question is answered with 1 or 2, s to skip it, or q to stop. With `--json` the questions are on stderr.

    \b
      pluralign interview models/cluster pool.jsonl --user ada --out ada
      printf '1\\n2\\n1\\nq\\n' | pluralign interview models/cluster pool.jsonl
    """
    from pluralign.cli import commands

    commands.interview(
        model,
        commands.Source(pool, path, column, option),
        answers,
        user,
        n=n,
        method=method,
        epsilon=epsilon,
        out=out,
        seed=seed or 0,
        json=json,
    )


@app.command(rich_help_panel="Data")
def simulate(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File (.jsonl, .parquet) to write; a folder for numeric features.")
    ],
    config: Flags = None,
    kind: Annotated[
        str,
        typer.Option(help="How users differ: `clusters`, `basis`, `individual`, `reliability` or `null` (not at all)."),
    ] = "clusters",
    n_users: Annotated[int, typer.Option("--users", help="Users.")] = 120,
    comparisons_per_user: Annotated[int, typer.Option("--comparisons", help="Comparisons of each user.")] = 60,
    n_clusters: Annotated[int, typer.Option("--clusters", help="Planted clusters.")] = 3,
    noise: Annotated[float, typer.Option(help="Share of the answers replaced by another response at random.")] = 0.1,
    shares: Annotated[
        str | None, typer.Option(help="Share of the users in each cluster, comma-separated: 0.5,0.3,0.2.")
    ] = None,
    reliability_sd: Annotated[
        float | None,
        typer.Option(help="Spread (SD of the log) of users' reliability. Default: 0.7 for `reliability`, else 0."),
    ] = None,
    rank: Annotated[int, typer.Option(help="Directions of a `basis`.")] = 2,
    features: Annotated[
        str,
        typer.Option(
            help="`text`: answers that differ in style. `dialogues`: short ones that the embedded language model can "
            "write, two tastes. `numeric`: vectors, written as a folder."
        ),
    ] = "text",
    dim: Annotated[int, typer.Option(help="Number of numeric features.")] = 8,
    choices: Annotated[int, typer.Option(help="Responses to choose from each time.")] = 2,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Write a population whose truth is known, on texts made here, and the truth beside it (OUT.truth.json).

    \b
      pluralign simulate users.jsonl --clusters 2 --shares 0.8,0.2
      pluralign simulate panel --kind null --features numeric --dim 4
    """
    from pluralign.cli import commands

    commands.simulate(
        out,
        kind=kind,
        n_users=n_users,
        comparisons_per_user=comparisons_per_user,
        n_clusters=n_clusters,
        noise=noise,
        shares=None if shares is None else commands.numbers("--shares", shares),
        reliability_sd=reliability_sd,
        rank=rank,
        features=features,
        dim=dim,
        n_choices=choices,
        seed=seed or 0,
        json=json,
    )


@app.command(rich_help_panel="Data")
def datasets(
    name: Annotated[str | None, typer.Argument(help="One data set, with the options of its loader.")] = None,
    json: Json = False,
) -> None:
    """List the data sets that have a loader."""
    from pluralign.cli import commands

    commands.datasets(name, json=json)


def _version(value: bool) -> bool:
    if value:
        from pluralign import __version__

        typer.echo(__version__)
        raise typer.Exit
    return value


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
