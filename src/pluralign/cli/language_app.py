"""The commands of language models, their flags and their help.

What they do stands in `language.py` and `language_clusters.py`.
"""

from pathlib import Path
from typing import Annotated

import typer

from pluralign.cli.app import Columns, Data, DataPath, Json, Options, Seed, app

__all__ = ["app"]

PANEL = "Language models"
Base = Annotated[
    str,
    typer.Option(
        "--base",
        help="Language model: a hub id, a folder, or `embedded` (`embedded:small`), a tiny one that is trained here in "
        "a minute (in seconds) and cached.",
    ),
]
OutModel = Annotated[Path, typer.Option("--out", help="Folder for the model. The same command again goes on there.")]
TrainConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with settings of the run and of transformers' TrainingArguments by name; flags win over it.",
    ),
]
More = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting or TrainingArguments field, `name=value`, as in `--set bf16=true`."),
]
Users = Annotated[
    str | None,
    typer.Option(
        help="User model: `individual` (e_0 + o_u), `cluster` (a mixture of K), `basis` (rank numbers per user), "
        "`latent` (of a reward: placed by an encoder, new users too), or `uniform`; `uniform` with `--tokens 0` and "
        "`--alpha 0` is the ordinary, vanilla model. Default individual."
    ),
]
Tokens = Annotated[int | None, typer.Option(help="Soft tokens per user; default 1.")]
NClusters = Annotated[int | None, typer.Option("--clusters", help="Clusters of `--users cluster`.")]
Rank = Annotated[int | None, typer.Option(help="Rank of `--users basis`.")]
ClustersFrom = Annotated[
    Path | None,
    typer.Option(help="Folder of fitted clusters (`fit` or a study's models/cluster): each user gets its cluster's."),
]
Describe = Annotated[
    str | None,
    typer.Option(help="Covariates of the users' table, with commas: a user is what these say."),
]
Alpha = Annotated[
    float | None, typer.Option(help="Weight of the personal term, the rest is the unknown user's; default 0.5.")
]
Mixture = Annotated[
    str | None, typer.Option(help="`exact`: both terms of every pair. `sampled`: one of them, half the cost.")
]
Place = Annotated[
    str | None,
    typer.Option(
        help="Where the user's tokens stand: `before` the prompt (as in the paper; a policy's default) or `after` it "
        "(cheaper; a reward model's default)."
    ),
]
Tuning = Annotated[str | None, typer.Option(help="What is trained of the model: `lora` (default), `full`, `frozen`.")]
Epochs = Annotated[float | None, typer.Option("--epochs", help="Passes over the comparisons; default 1.")]
Rate = Annotated[float | None, typer.Option(help="Learning rate; default 5e-5.")]
UserRate = Annotated[float | None, typer.Option(help="Learning rate of the users; default that of everything else.")]
Batch = Annotated[int | None, typer.Option(help="Pairs per step and process; default 16.")]
HoldOut = Annotated[float, typer.Option(help="Share of the sources held out and evaluated on at the end; 0 for none.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew over what OUT holds.")]


@app.command("train-reward", rich_help_panel=PANEL)
def train_reward(
    data: Data,
    base: Base,
    out: OutModel,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    config: TrainConfig = None,
    more: More = None,
    users: Users = None,
    tokens: Tokens = None,
    clusters: NClusters = None,
    rank: Rank = None,
    clusters_from: ClustersFrom = None,
    describe: Describe = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="`linear` on a text with the user in it, or `late`: the user is the head, one pass serves every user."
        ),
    ] = None,
    alpha: Alpha = None,
    mixture: Mixture = None,
    place: Place = None,
    tuning: Tuning = None,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    user_learning_rate: UserRate = None,
    batch_size: Batch = None,
    hold_out: HoldOut = 0.1,
    fresh: Fresh = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Fine-tune a personal reward model (P-RM) and evaluate it on held-out sources.

    \b
      pluralign train-reward rows.jsonl --base Qwen/Qwen3-0.6B --head late --out models/reward
      torchrun --nproc_per_node 8 -m pluralign train-reward rows.jsonl --base MODEL --out models/reward
    """
    from pluralign.cli import commands, language

    language.train(
        "reward",
        commands.Source(data, path, column, option),
        base,
        out,
        config,
        {
            "users": users,
            "tokens": tokens,
            "clusters": clusters,
            "rank": rank,
            "head": head,
            "alpha": alpha,
            "mixture": mixture,
            "place": place,
            "tuning": tuning,
            "num_train_epochs": epochs,
            "learning_rate": learning_rate,
            "user_learning_rate": user_learning_rate,
            "per_device_train_batch_size": batch_size,
            "seed": seed,
        },
        commands.settings_of("--set", more),
        clusters_from=clusters_from,
        describe=describe,
        hold_out=hold_out,
        fresh=fresh,
        json=json,
    )


@app.command("train-dpo", rich_help_panel=PANEL)
def train_dpo(
    data: Data,
    base: Base,
    out: OutModel,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    config: TrainConfig = None,
    more: More = None,
    users: Users = None,
    tokens: Tokens = None,
    clusters: NClusters = None,
    rank: Rank = None,
    clusters_from: ClustersFrom = None,
    describe: Describe = None,
    beta: Annotated[
        float | None, typer.Option(help="How strongly the reference, the base without users, holds; default 0.5.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Loss of a margin, `sigmoid` (DPO) by default.")] = None,
    alpha: Alpha = None,
    mixture: Mixture = None,
    place: Place = None,
    tuning: Tuning = None,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    user_learning_rate: UserRate = None,
    batch_size: Batch = None,
    hold_out: HoldOut = 0.1,
    fresh: Fresh = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Train a personal language model (P-DPO) and evaluate its implicit reward on held-out sources.

    \b
      pluralign train-dpo rows.jsonl --base Qwen/Qwen3-0.6B --out models/policy
      pluralign train-dpo rows.jsonl --base MODEL --clusters-from studies/mine/models/cluster --out models/clusters
    """
    from pluralign.cli import commands, language

    language.train(
        "policy",
        commands.Source(data, path, column, option),
        base,
        out,
        config,
        {
            "users": users,
            "tokens": tokens,
            "clusters": clusters,
            "rank": rank,
            "beta": beta,
            "loss": loss,
            "alpha": alpha,
            "mixture": mixture,
            "place": place,
            "tuning": tuning,
            "num_train_epochs": epochs,
            "learning_rate": learning_rate,
            "user_learning_rate": user_learning_rate,
            "per_device_train_batch_size": batch_size,
            "seed": seed,
        },
        commands.settings_of("--set", more),
        clusters_from=clusters_from,
        describe=describe,
        hold_out=hold_out,
        fresh=fresh,
        json=json,
    )


@app.command("train-clusters", rich_help_panel=PANEL)
def train_clusters(
    data: Data,
    base: Base,
    out: OutModel,
    path: DataPath = None,
    column: Columns = None,
    option: Options = None,
    config: TrainConfig = None,
    more: More = None,
    clusters: Annotated[int | None, typer.Option("--clusters", help="Number of clusters; default 2.")] = None,
    clusters_from: ClustersFrom = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of training and assigning, default 5; 0 leaves users where they start.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="From `features` (a fit on frozen ones, the default) or at `random`.")
    ] = None,
    soft: Annotated[bool, typer.Option("--soft", help="Rows weigh by the posterior of their user's cluster.")] = False,
    held_out: Annotated[
        float | None, typer.Option(help="Share of the sources that users are assigned by; default 0, by all.")
    ] = None,
    fresh: Fresh = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Train one policy per cluster by DPO and assign users to them, in turns (2601.20760, Algorithm 1).

    Each OUT/cluster-K/adapter is an ordinary LoRA adapter. `generate`, `evaluate` and `export` take OUT as a whole.
    --set and --config reach features, n_starts, refit, cache and loading too.

    \b
      pluralign train-clusters rows.jsonl --base MODEL --clusters 2 --held-out 0.2 --out models/clusters
      pluralign train-clusters rows.jsonl --base MODEL --clusters-from studies/mine/models/cluster --rounds 0 --out ...
    """
    from pluralign.cli import commands, language_clusters

    language_clusters.train(
        commands.Source(data, path, column, option),
        base,
        out,
        config,
        {
            "n_clusters": clusters,
            "max_rounds": rounds,
            "start": start,
            "soft": soft or None,
            "held_out": held_out,
            "seed": seed,
        },
        commands.settings_of("--set", more),
        clusters_from=clusters_from,
        fresh=fresh,
        json=json,
    )


@app.command(rich_help_panel=PANEL)
def generate(
    model: Annotated[Path, typer.Argument(help="Folder that `train-dpo` or `train-clusters` wrote.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="PROMPTS", help="Rows with prompt, and user if you like.")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt. Repeatable.")] = None,
    user: Annotated[
        list[str] | None, typer.Option("--user", help="For whom; a name that it knows. Repeatable.")
    ] = None,
    cluster: Annotated[list[int] | None, typer.Option(help="For a cluster, by number. Repeatable.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="For every user that it knows.")] = False,
    stranger: Annotated[bool, typer.Option("--stranger", help="For somebody unknown.")] = False,
    n: Annotated[int, typer.Option("-n", "--samples", help="Responses to each; more than one are sampled.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of the samples; 0 takes the likeliest token. Default 0 for one response, 1 for more."),
    ] = None,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens of this probability.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option("--tokens", help="Most tokens of a response.")] = 128,
    best_of: Annotated[
        int | None, typer.Option(help="Sample so many and keep what the user's reward likes best.")
    ] = None,
    reward: Annotated[
        Path | None, typer.Option(help="Whose reward: folder of `train-reward`, `fit` or a study's model.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences written at a time.")] = 32,
    out: Annotated[Path | None, typer.Option("--out", help="File (.jsonl) for the responses.")] = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Write for a user, a cluster, a stranger, or many users at once.

    \b
      pluralign generate models/policy --prompt "How do I bake bread?" --user ada --user ben --stranger
      pluralign generate models/policy prompts.jsonl --everyone --out responses.jsonl
      pluralign generate models/policy --prompt "..." --user ada --best-of 16 --reward models/reward
    """
    from pluralign.cli import language

    language.generate(
        model,
        file,
        prompt or [],
        user or [],
        cluster or [],
        everyone=everyone,
        stranger=stranger,
        reward=reward,
        best_of=best_of,
        out=out,
        json=json,
        n=n,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        seed=seed or 0,
    )


@app.command(rich_help_panel=PANEL)
def reward(
    model: Annotated[Path, typer.Argument(help="Folder of `train-reward`, `fit` or a study's model.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Rows (.jsonl, .csv, .parquet): prompt, response, user.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="File (.jsonl) for the rows and their rewards.")] = None,
    json: Json = False,
) -> None:
    """Score responses for users; rewards are comparable within a prompt and a user."""
    from pluralign.cli import language

    language.reward(model, file, out, json=json)


@app.command(rich_help_panel=PANEL)
def export(
    model: Annotated[Path, typer.Argument(help="Folder that `train-dpo` or `train-clusters` wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the checkpoint.")],
    user: Annotated[list[str] | None, typer.Option("--user", help="Which users; default all. Repeatable.")] = None,
    merge: Annotated[bool, typer.Option("--merge/--adapter", help="LoRA added to the weights, or beside them.")] = True,
    json: Json = False,
) -> None:
    """Write an ordinary checkpoint in which users are tokens, for transformers alone or a server.

    Clusters and the generic user are always among them; nobody's token is ever written by the model. What
    `train-clusters` wrote becomes a checkpoint, or an adapter of the base, for each cluster and for everybody.
    """
    from pluralign.cli import language

    language.export(model, out, user, merge=merge, json=json)
