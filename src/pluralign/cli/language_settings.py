"""What the commands that train language models make of their flags, of `--set` and of a YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pluralign.cli.printing import stderr
from pluralign.comparisons import Comparisons, split_by_source
from pluralign.comparisons.columns import show
from pluralign.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pluralign.training.settings import Settings

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


def read_numbers(value: Any) -> Any:
    """Numbers such as 1e-4, which YAML takes for texts, as numbers, however deep."""
    if isinstance(value, Mapping):
        return {name: read_numbers(each) for name, each in value.items()}
    return (
        float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE) else value
    )


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


def check_users(users: Mapping[str, Any]) -> None:
    """Name the flag that a user model lacks, or the user model that a flag is for.

    Raises:
        ConfigError: There is one.
    """
    from pluralign.language_models.user_tokens import KINDS

    kind = users["kind"]
    for each, (setting, flag) in NEEDED.items():
        if kind == each and setting not in users:
            raise ConfigError(f"users are {kind}, but {setting} is not given", hint=f"give {flag}")
        if kind in KINDS and kind != each and setting in users:
            raise ConfigError(f"{setting} is given, but users are {kind}", hint=f"{flag} is for --users {each}")


def check_kinds(kind: type[Settings], given: Mapping[str, Any]) -> None:
    """Try settings, as `--set` and a YAML file give them, before anything long begins.

    Raises:
        ConfigError: One is not accepted, or is a text where a number is due.
    """
    try:
        kind(**given)
    except TypeError as error:
        raise ConfigError(f"a setting has a value of another kind: {str(error).splitlines()[0]}") from None
