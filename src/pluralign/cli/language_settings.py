"""What the commands that train language models make of their flags, of `--set` and of a YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from pluralign.cli.printing import stderr
from pluralign.comparisons import Comparisons, split_by_source
from pluralign.comparisons.columns import show
from pluralign.errors import ConfigError, DataError

EMBEDDED = "embedded"
# What a kind of users cannot do without, and the flag that gives it.
NEEDED = {
    "cluster": ("n_clusters", "--clusters K"),
    "basis": ("rank", "--rank R"),
    "text": ("described", "--describe COLUMN,COLUMN"),
}


def find_base(base: str, *, progress: bool) -> str:
    """A hub id or a folder; `embedded` or `embedded:small` is the model that is trained here."""
    name, _, size = base.partition(":")
    if name != EMBEDDED or Path(base).exists():
        return base
    from pluralign.populations import embedded_language_model

    sizes: dict[str, Any] = {"": {}, "default": {}, "small": {"settings": "small", "n_topics": 4}}
    if size not in sizes:
        raise ConfigError(f'there is no embedded model "{size}"; known: default, small')
    return str(embedded_language_model(progress=progress, **sizes[size]))


def hard_clusters(folder: Path) -> dict[str, Any]:
    """The hard cluster of every user of a model that `fit` or `study` wrote, as a user model of a language model."""
    from pluralign.rewards import LinearReward
    from pluralign.users import Clusters

    reward = LinearReward.load(folder)
    if not isinstance(reward.users, Clusters):
        raise ConfigError(f"{folder} holds users of kind {reward.users.kind}, not clusters")
    cluster = reward.users.membership.argmax(1).tolist()
    return {
        "kind": "cluster",
        "hard": True,
        "n_clusters": len(reward.users.shares),
        "assignment": dict(zip(reward.user_ids, cluster, strict=True)),
    }


def described(comparisons: Comparisons, columns: list[str]) -> dict[str, Any]:
    """A user model of covariates, as numbers for each user."""
    from pluralign.language_models.descriptions import describe_covariates

    if comparisons.users is None:
        raise ConfigError(f"{comparisons.name} says nothing of its users; --describe needs their covariates")
    rows = describe_covariates(comparisons.users, columns).tolist()
    return {"kind": "text", "described": dict(zip(comparisons.user_ids, rows, strict=True))}


def arguments(given: Mapping[str, Any], out: Path, *, between: bool = False) -> dict[str, Any]:
    """Fields of `TrainingArguments`, tried before anything long begins.

    Args:
        given: The fields.
        out: Folder of the model.
        between: Whether there is something to evaluate on between steps. What is held out for the end is not: a
            checkpoint could be chosen by it.

    Raises:
        ConfigError: There is no such field, its value is not accepted, or it asks for what is not there.
    """
    from pluralign.training.train import make_arguments

    found = {"disable_tqdm": not stderr.is_terminal, **given}
    made = make_arguments(found, out)
    if made.eval_strategy != "no" and not between:
        raise ConfigError(
            f"eval_strategy is {made.eval_strategy.value}; a command evaluates once, at the end",
            hint="leave it out; --hold-out says on what share, and `eval` of train_policy in Python evaluates between",
        )
    return found


def hold(comparisons: Comparisons, share: float, seed: int) -> tuple[Comparisons, Comparisons | None]:
    """Comparisons to learn from, and those of a share of the sources.

    Raises:
        ConfigError: It is no share.
        DataError: There are fewer than two sources.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"--hold-out is {share:g}; it must be at least 0 and below 1")
    if not share:
        return comparisons, None
    n_sources = len(np.unique(comparisons.source))
    if n_sources < 2:
        raise DataError(
            f"--hold-out needs at least 2 sources, there are {n_sources}",
            hint="--hold-out 0 trains on everything; --column source=NAME names finer sources",
        )
    split = split_by_source(comparisons, share, seed=seed)
    return comparisons.take(split.train), comparisons.take(split.test)


def read_settings(value: Any) -> Any:
    """Numbers such as 1e-4, which YAML takes for texts, as numbers, and `null` of a flag as None, however deep."""
    if isinstance(value, Mapping):
        return {name: read_settings(each) for name, each in value.items()}
    if isinstance(value, list):
        return [read_settings(each) for each in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", value, re.IGNORECASE):
        number = float(value)
        return int(number) if number.is_integer() else number
    return None if value == "null" else value


def joined(users: dict[str, Any], found: Mapping[str, Any], flag: str) -> dict[str, Any]:
    """What was given and what a flag found.

    Raises:
        ConfigError: They are at odds.
    """
    for name, value in found.items():
        if users.get(name, value) != value:
            raise ConfigError(
                f"{name} is {show(users[name])}, but {flag} makes it {show(value)}",
                hint=f"leave out {flag}, or {name}",
            )
    return {**users, **found}


def check_tables(given: Mapping[str, Any]) -> None:
    """Check what is passed on to other libraries.

    Raises:
        ConfigError: It is no table, or PEFT has no such setting or takes no such value.
    """
    if not isinstance(given.get("loading"), Mapping | None):
        raise ConfigError("loading is no table", hint="as in --set 'loading={dtype: float32, revision: main}'")
    lora = given.get("lora")
    if isinstance(lora, Mapping):
        from peft import LoraConfig

        from pluralign.training.settings import check_kinds

        known = {each.name for each in fields(LoraConfig)}
        unknown = [name for name in lora if name not in known]
        if unknown:
            raise ConfigError(f"lora: unknown setting {unknown[0]}", hint="peft.LoraConfig says what there is")
        check_kinds(LoraConfig, lora, of="lora: ", foreign=True)


def check_users(users: Mapping[str, Any]) -> None:
    """Name the flag that a user model lacks, the user model that a flag is for, or a value that cannot be.

    Raises:
        ConfigError: There is one.
    """
    from pluralign.language_models.user_tokens import KINDS
    from pluralign.training.settings import check_kinds

    kind = users["kind"]
    if not isinstance(kind, str):
        raise ConfigError(f"users: kind is {show(kind)}; it must be a text")
    for each, (setting, flag) in NEEDED.items():
        if kind == each and setting not in users:
            raise ConfigError(f"users are {kind}, but {setting} is not given", hint=f"give {flag}")
        if kind in KINDS and kind != each and setting in users:
            raise ConfigError(f"{setting} is given, but users are {kind}", hint=f"{flag} is for --users {each}")
    if kind in KINDS:
        check_kinds(KINDS[kind].__init__, users, of="users: ")
