"""What the commands of language models do: train, export, evaluate, write, score.

With a policy for each cluster they do what stands in `language_clusters.py`.
"""

from __future__ import annotations

import csv
import json as js
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pluralign.cli import language_clusters
from pluralign.cli.commands import Source
from pluralign.cli.language_settings import (
    arguments,
    check_tables,
    check_users,
    described,
    find_base,
    hard_clusters,
    hold,
    joined,
    read_settings,
)
from pluralign.cli.printing import print_json, print_judged, print_line, print_written, stderr, stdout, visible
from pluralign.comparisons import Comparisons
from pluralign.comparisons.columns import show
from pluralign.errors import ConfigError, DataError
from pluralign.files import replacing, write_json
from pluralign.studies.settings import read_yaml

if TYPE_CHECKING:
    from pluralign.policies.clusters import ClusterWriter
    from pluralign.policies.evaluation import Evaluation
    from pluralign.policies.policy import Policy, Reader

LATENT, CLUSTERED = "latent", "ClusterPolicies"
# Flags of a user model and what they are called there.
USERS = {"users": "kind", "tokens": "n_tokens", "clusters": "n_clusters", "rank": "rank"}


def train(
    what: Literal["reward", "policy"],
    source: Source,
    base: str,
    out: Path,
    config: Path | None,
    flags: Mapping[str, Any],
    more: Mapping[str, object],
    *,
    clusters_from: Path | None,
    describe: str | None,
    hold_out: float,
    fresh: bool,
    json: bool,
) -> None:
    from pluralign.training.latent_train import LatentRewardSettings, train_latent_reward
    from pluralign.training.settings import PolicySettings, RewardSettings
    from pluralign.training.train import train_policy, train_reward

    comparisons = source.load()
    given: dict[str, Any] = read_settings((read_yaml(config) if config else {}) | dict(more))
    given |= {name: value for name, value in flags.items() if value is not None and name not in USERS}
    users = given.pop("users", {})
    if not isinstance(users, str | Mapping):
        raise ConfigError(f"users is {show(users)}; it must be a text or a table")
    users = {"kind": users} if isinstance(users, str) else dict(users)
    users |= {ours: flags[name] for name, ours in USERS.items() if flags.get(name) is not None}
    latent = what == "reward" and users.get("kind") == LATENT
    kind = LatentRewardSettings if latent else RewardSettings if what == "reward" else PolicySettings
    known = {each.name for each in fields(kind)}
    if clusters_from is not None:
        users = joined(users, hard_clusters(clusters_from), "--clusters-from")
    if describe is not None:
        users = joined(users, described(comparisons, describe.split(",")), "--describe")
    if users:
        given["users"] = users if latent else {"kind": "individual", "n_tokens": 1, **users}
        check_users(given["users"])
    kind(**{name: value for name, value in given.items() if name in known})  # tried before anything long begins
    check_tables(given)
    comparisons, held = hold(comparisons, hold_out, int(given.get("seed", 0)))
    call: Any = train_latent_reward if latent else train_reward if what == "reward" else train_policy
    known |= {"eval", "loading"}
    given["eval"] = held  # looked at before the training: a row may be too long for the model
    with redirect_stdout(sys.stderr):  # the Trainer prints its log on stdout
        trained = call(
            comparisons,
            find_base(base, progress=True),
            out=out,
            args=arguments({name: value for name, value in given.items() if name not in known}, out, between=latent),
            resume=not fresh,
            **{name: value for name, value in given.items() if name in known},
        )
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that trained together one speaks
    model = trained.reward.tower if latent else trained[0]
    found: dict[str, Any] = {
        "model": str(out),
        "base": model.config.base,
        "users": users if latent else model.users.settings(),
        "n_comparisons": len(comparisons),
        "held_out": None,
    }
    if latent:
        found["latent"] = {"words": trained.words, "tower": trained.diagnosis, "start": trained.start}
    if held is not None:
        found["held_out"] = judge(out, held)
        write_json(out / "evaluation.json", found["held_out"])
    if json:
        print_json(found)
        return
    print_line(f"trained on {len(comparisons):,} comparisons of {len(model.user_ids):,} users, saved in {out}")
    if latent:
        stdout.print(trained.words, highlight=False)
    if held is not None:
        print_judged(found["held_out"].as_dict())


def export(model: Path, out: Path, users: list[str] | None, *, merge: bool, json: bool) -> None:
    from pluralign.policies.export import export as write
    from pluralign.policies.policy import Policy

    if _kind(model) == CLUSTERED:
        language_clusters.export(model, out, users, merge=merge, json=json)
        return
    exported = write(Policy.load(model), out, users=users, merge=merge)
    if json:
        print_json({"folder": str(out), "place": exported.place, "tokens": exported.tokens, "ids": exported.ids})
    else:
        print_line(f"an ordinary checkpoint in {out}, {len(exported.tokens):,} users and clusters as tokens")


def judge(
    folder: Path, comparisons: Comparisons, *, pooled: Path | None = None, beta: float | None = None
) -> Evaluation:
    """Evaluate a saved policy, the policies of clusters, or a reward model of either kind."""
    from pluralign.policies.evaluation import evaluate_policy, evaluate_reward
    from pluralign.training.cluster_policies import GENERIC
    from pluralign.training.reference import default_cache_dir

    cache = default_cache_dir()  # where a training left the reference of what it held out
    if _kind(folder) == CLUSTERED:
        return language_clusters.judge(folder, comparisons, pooled=pooled, beta=beta, cache=cache)
    if pooled is not None and _kind(pooled) == CLUSTERED:
        pooled = pooled / GENERIC
    base = None if pooled is None else load_any(pooled)
    model = load_any(folder)
    if is_policy(folder):
        return evaluate_policy(model, comparisons, pooled=base, beta=beta, cache=cache)
    return evaluate_reward(model, comparisons, pooled=base)


def evaluate(folder: Path, source: Source, pooled: Path | None, *, beta: float | None, json: bool) -> None:
    found = judge(folder, source.load(), pooled=pooled, beta=beta).as_dict()
    if json:
        print_json(found)
    else:
        print_judged(found)


def generate(
    model: Path,
    file: Path | None,
    prompts: Sequence[str],
    users: Sequence[str],
    clusters: Sequence[int],
    *,
    everyone: bool,
    stranger: bool,
    reward: Path | None,
    best_of: int | None,
    out: Path | None,
    json: bool,
    n: int,
    temperature: float | None,
    top_p: float,
    **settings: Any,
) -> None:
    from pluralign.policies.best_of_n import best_of_n

    if (best_of is None) != (reward is None):
        raise ConfigError("--best-of and --reward belong together")
    if best_of is not None and clusters:
        raise ConfigError("best of n asks a user's reward; name users instead of clusters")
    settings |= _sampling(n, best_of, temperature, top_p)
    policy = load_writer(model)
    readers = _readers(policy, users, clusters, everyone=everyone, stranger=stranger)
    asked = _asked(file, prompts, readers)
    whom = [user for _, user in asked]
    texts = [prompt for prompt, _ in asked]
    _tell_unknown(whom, policy.user_ids)
    if reward is None:
        written = policy.generate(texts, whom, n=n, progress=stderr.is_terminal, **settings)
        rows = [
            {"prompt": prompt, "user": _name(user), "response": each.text, "finished": each.finished}
            for (prompt, user), row in zip(asked, written, strict=True)
            for each in row
        ]
    else:
        scorer = load_reward(reward)
        best = best_of_n(policy, scorer, texts, whom, n=best_of, **settings)  # type: ignore[arg-type]
        rows = [
            {"prompt": prompt, "user": _name(user), "response": text, "reward": float(values.max()), "of": best.n}
            for (prompt, user), text, values in zip(asked, best.texts, best.rewards, strict=True)
        ]
    if out is not None:
        write_rows(out, rows)
    if json:
        print_json({"responses": rows})
    elif out is None:
        print_written(rows)
    else:
        print_line(f"{len(rows):,} responses in {out}")


def reward(model: Path, file: Path, out: Path | None, *, json: bool) -> None:
    from pluralign.policies.scoring import score_texts

    rows = read_rows(file, ("prompt", "response"))
    scorer, users = load_reward(model), [_user(row) for row in rows]
    _tell_unknown(users, scorer.user_ids)
    values = score_texts(scorer, [row["prompt"] for row in rows], [row["response"] for row in rows], users)
    scored = [{**row, "reward": float(value)} for row, value in zip(rows, values, strict=True)]
    if out is not None:
        write_rows(out, scored)
    if json:
        print_json({"rewards": scored})
    elif out is None:
        print_written(scored)
    else:
        print_line(f"{len(scored):,} rewards in {out}")


def is_policy(folder: Path) -> bool:
    """Whether a folder holds a policy."""
    return _kind(folder) == "PersonalPolicy"


def is_language_model(folder: Path) -> bool:
    """Whether a folder holds a policy, the policies of clusters or a fine-tuned reward model."""
    return _kind(folder) is not None


def load_writer(folder: Path) -> Policy | ClusterWriter:
    """What writes for users: a saved policy, or the policies of clusters."""
    if _kind(folder) == CLUSTERED:
        from pluralign.policies.clusters import ClusterWriter

        return ClusterWriter(load_any(folder))
    from pluralign.policies.policy import Policy

    return Policy.load(folder)


def load_reward(folder: Path) -> Any:
    """What scores for users.

    Raises:
        ConfigError: It is a policy.
    """
    if is_policy(folder) or _kind(folder) == CLUSTERED:
        raise ConfigError(
            f"{folder} holds a policy, which writes and does not score",
            hint="name the folder of a reward: of `train-reward`, `fit` or a study's model",
        )
    return load_any(folder)


def load_any(folder: Path) -> Any:
    """A saved policy, the policies of clusters, a fine-tuned reward model, or a reward on frozen features."""
    if _kind(folder) == CLUSTERED:
        from pluralign.training.cluster_policies import ClusterPolicies

        return ClusterPolicies.load(folder)
    if is_policy(folder):
        from pluralign.policies.policy import Policy

        return Policy.load(folder)
    if _kind(folder) == "LatentTower":
        from pluralign.training.latent_reward import LatentReward

        return LatentReward.load(folder).linear
    if is_language_model(folder):
        from pluralign.rewards.transformer import TransformerReward

        return TransformerReward.load(folder)
    from pluralign.rewards import LinearReward

    return LinearReward.load(folder)


def read_rows(file: Path, needed: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of a .jsonl, .csv or .parquet file.

    Raises:
        DataError: It is none of these, is not text in UTF-8, or a row lacks a needed value.
    """
    if not file.is_file():
        raise DataError(f"there is no file {file}")
    if file.suffix == ".jsonl":
        # Lines end at a newline alone: `splitlines` would cut texts at U+2028, which JSON has as it is.
        lines = [line for line in _text(file).split("\n") if line.strip()]
        try:
            rows = [js.loads(line) for line in lines]
        except js.JSONDecodeError as error:
            raise DataError(f"{file} is not JSON lines: {error}") from error
    elif file.suffix == ".csv":
        rows = list(csv.DictReader(StringIO(_text(file), newline="")))
    elif file.suffix == ".parquet":
        from pyarrow.parquet import read_table

        rows = read_table(file).to_pylist()
    else:
        raise DataError(f"{file} is none of .jsonl, .csv, .parquet")
    for number, row in enumerate(rows, start=1):
        for name in needed:
            if not isinstance(row, dict) or not row.get(name):
                raise DataError(f"{file}, row {number} has no {name}")
    return rows


def _text(file: Path) -> str:
    """What a file says, its line ends as they are, without the mark that spreadsheets put before it."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8: {error}", hint="save it as UTF-8") from None


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines."""
    with replacing(file) as part:
        part.write_text("".join(js.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _kind(folder: Path) -> str | None:
    """Class of the model that was saved in a folder, None if it is not one of a language model."""
    path = folder / "pluralign.json"
    if path.is_file():
        from pluralign.language_models.loading import read_json

        return read_json(path).get("model")
    return CLUSTERED if (folder / "clusters.json").is_file() else None


def _sampling(n: int, best_of: int | None, temperature: float | None, top_p: float) -> dict[str, Any]:
    """How responses are drawn; without a temperature one response is the likeliest, several are sampled.

    Raises:
        ConfigError: Flags are at odds, or a temperature is negative.
    """
    if best_of is not None and n != 1:
        raise ConfigError(f"-n is {n}, but of the best of {best_of} one is kept", hint="leave out -n, or --best-of")
    several = f"-n {n}" if n > 1 else None if best_of is None else f"--best-of {best_of}"
    if temperature is None:
        temperature = 1.0 if several else 0.0
    if temperature < 0:
        raise ConfigError(f"--temperature is {temperature:g}; it must be at least 0")
    if temperature == 0 and several:
        raise ConfigError(
            f"--temperature is 0, at which the responses of {several} would all be one",
            hint="leave out --temperature, or give one above 0",
        )
    if temperature == 0 and top_p != 1:
        raise ConfigError(
            f"--top-p is {top_p:g}, but the likeliest token is always taken",
            hint="sample: give a --temperature above 0",
        )
    sampled = {"do_sample": True, "temperature": temperature, "top_p": top_p}
    return sampled if temperature else {"do_sample": False}


def _tell_unknown(users: Iterable[Any], known: Iterable[str]) -> None:
    """Say on stderr which names a model has never met: they are served as somebody unknown."""
    unknown = sorted({name for name in users if isinstance(name, str)} - set(known))
    if unknown:
        names = visible(", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else ""))
        print_line(
            f"note: the model has never met {len(unknown):,} of these users ({names}); to it they are somebody unknown",
            to=stderr,
        )


def _readers(
    policy: Policy | ClusterWriter, users: Sequence[str], clusters: Sequence[int], *, everyone: bool, stranger: bool
) -> list[Reader]:
    from pluralign.policies.policy import Cluster

    for name in users:
        if name not in policy.user_ids:
            raise ConfigError(
                f'the model has never met "{name}"; it knows {len(policy.user_ids):,} users, '
                f"such as {', '.join(policy.user_ids[:5])}",
                hint="--stranger writes for somebody unknown",
            )
    readers: list[Reader] = [*users, *(Cluster(number) for number in clusters)]
    readers += policy.user_ids if everyone else ()
    return readers + ([None] if stranger else [])


def _asked(file: Path | None, prompts: Sequence[str], readers: list[Reader]) -> list[tuple[Any, Reader]]:
    """Every prompt for every reader; rows of a file that name their user are for that user."""
    anybody: list[Reader] = readers or [None]
    asked: list[tuple[Any, Reader]] = [(prompt, reader) for prompt in prompts for reader in anybody]
    for row in [] if file is None else read_rows(file, ("prompt",)):
        own = [_user(row)] if not readers and _user(row) is not None else anybody
        asked += [(row["prompt"], reader) for reader in own]
    if not asked:
        raise ConfigError("there is nothing to write about", hint="give --prompt TEXT, or a file of prompts")
    return asked


def _user(row: Mapping[str, Any]) -> str | None:
    return None if row.get("user") in (None, "") else str(row["user"])


def _name(reader: Any) -> str | None:
    return reader if reader is None or isinstance(reader, str) else f"cluster {reader.number}"
