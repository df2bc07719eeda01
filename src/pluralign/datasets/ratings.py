"""Ratings: each person rates many items, and every two items rated differently are a comparison.

- `jester`: Goldberg, Roeder, Gupta and Perkins (2001).
- `polis`: open conversations of The Computational Democracy Project.
- `ccai`: Collective Constitutional AI (Anthropic and the Collective Intelligence Project 2023).
- `dices`: Aroyo et al. (2023).
- `popquorn`: Pei and Jurgens (2023).

A person with 100 ratings implies up to 4,950 comparisons that are far from independent, so `pairs_per_user` of them are
drawn, without replacement and each as likely as the next. The pair of items is the source: whoever compares it, it
never straddles a split. All loaders here take

    pairs_per_user: Comparisons drawn per user; None for all that the ratings imply.
    min_gap: Smallest difference of two ratings that counts as a preference; equal ratings never do.
    ties: "drop", or "keep" pairs rated alike with outcome 0.5.
    seed: Seed of the draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pluralign.comparisons import Comparisons, Items
from pluralign.comparisons.table import index_texts
from pluralign.datasets.implied_pairs import ImpliedPairs
from pluralign.datasets.local_files import TEXT, lookup, one_of, read_csv, read_jsonl, require_file, texts, with_users
from pluralign.errors import DataError
from pluralign.types import FloatArray

CONVERSATIONS = ("bowling-green", "biodiversity", "canadian-electoral-reform", "football-concussions")


def jester(
    path: Path, *, pairs_per_user: int | None = 50, min_gap: float = 1.0, ties: str = "drop", seed: int = 0
) -> Comparisons:
    """Load 4,019 people's ratings of 100 jokes, from -10 to 10 (options: module docstring)."""
    jokes = read_csv(path, "jokes.csv", dict.fromkeys(("item", "text"), TEXT))
    text = dict(zip(texts(jokes, "item"), texts(jokes, "text"), strict=True))
    users, names, rating = _read_wide(path, "ratings_wide.csv.gz", "user")
    user, item = np.nonzero(~np.isnan(rating))
    return _compare(
        (user, users),
        (item, names, lookup(text, names, "ratings_wide.csv.gz, header")),
        rating[user, item],
        prompt="Tell me a joke.",
        pairs_per_user=pairs_per_user,
        min_gap=min_gap,
        ties=ties,
        seed=seed,
        name="jester",
    )


def dices(
    path: Path, *, pairs_per_user: int | None = 50, min_gap: float = 0.0, ties: str = "drop", seed: int = 0
) -> Comparisons:
    """Load 94 raters' judgements whether the reply in each of 350 conversations is safe: yes 2, unsure 1, no 0.

    Conversations differ in their prompts, so that the whole conversation is the response (options: module docstring).
    """
    rows = read_jsonl(path, "conversations.jsonl.gz", ("item_id", "context", "response"))
    text = {str(row["item_id"]): f"{row['context']}\nLAMDA: {row['response']}".lstrip("\n") for row in rows}
    names, users, rating = _read_wide(path, "ratings_wide.csv.gz", "item_id")
    user, item = np.nonzero(~np.isnan(rating.T))
    return _compare(
        (user, users),
        (item, names, lookup(text, names, "ratings_wide.csv.gz, item_id")),
        rating[item, user],
        prompt="Give the safer reply.",
        pairs_per_user=pairs_per_user,
        min_gap=min_gap,
        ties=ties,
        seed=seed,
        name="dices",
    )


def polis(
    path: Path,
    *,
    conversation: str = "bowling-green",
    pairs_per_user: int | None = 50,
    min_gap: float = 0.0,
    ties: str = "drop",
    seed: int = 0,
) -> Comparisons:
    """Load the votes of a Polis conversation on its participants' statements: agree 1, pass 0, disagree -1.

    A covariate of the users is the opinion group that Polis found. `conversation` is bowling-green (2,031 users),
    biodiversity (536), canadian-electoral-reform (448) or football-concussions (1,487); the other options are in the
    module docstring.
    """
    one_of("conversation", conversation, CONVERSATIONS)
    loaded = _read_votes(
        path,
        (f"{conversation}.votes.csv.gz", "user", "comment_id", "vote"),
        (f"{conversation}.statements.csv.gz", "comment_id"),
        prompt=f"Make a statement in the conversation {conversation}.",
        pairs_per_user=pairs_per_user,
        min_gap=min_gap,
        ties=ties,
        seed=seed,
        name=f"polis {conversation}",
    )
    return with_users(loaded, read_csv(path, f"{conversation}.participants.csv.gz", {"user": TEXT}), "user")


def ccai(
    path: Path, *, pairs_per_user: int | None = 50, min_gap: float = 0.0, ties: str = "drop", seed: int = 0
) -> Comparisons:
    """Load 899 Americans' votes on rules for an AI: agree 1, pass 0, disagree -1 (options: module docstring).

    Covariates of the users: the opinion group that Polis found, and the authors' marks for spam and for cleaned data.
    """
    loaded = _read_votes(
        path,
        ("votes.csv.gz", "user", "comment_id", "vote"),
        ("statements.csv.gz", "comment_id"),
        prompt="Which rule should an AI follow?",
        pairs_per_user=pairs_per_user,
        min_gap=min_gap,
        ties=ties,
        seed=seed,
        name="ccai",
    )
    return with_users(loaded, read_csv(path, "participants.csv", {"user": TEXT}), "user")


def popquorn(
    path: Path, *, pairs_per_user: int | None = 50, min_gap: float = 0.0, ties: str = "drop", seed: int = 0
) -> Comparisons:
    """Load 262 people's ratings of how offensive comments are, from 1 to 5; the less offensive one is preferred.

    Covariates of the users: gender, race, age, occupation, education (options: module docstring).
    """
    loaded = _read_votes(
        path,
        ("ratings.csv.gz", "user", "instance_id", "offensiveness"),
        ("texts.csv.gz", "instance_id"),
        sign=-1.0,
        prompt="Write a comment that offends nobody.",
        pairs_per_user=pairs_per_user,
        min_gap=min_gap,
        ties=ties,
        seed=seed,
        name="popquorn",
    )
    return with_users(loaded, read_csv(path, "users.csv", {"user": TEXT}), "user")


def _read_wide(path: Path, name: str, key: str) -> tuple[list[str], list[str], FloatArray]:
    """Read a table of ratings: names of its rows, names of its columns, and the values (NaN where there is none)."""
    table = read_csv(path, name, {key: TEXT})
    columns = [column for column in table.column_names if column != key]
    for column in columns:
        if not (
            pa.types.is_floating(kind := table[column].type) or pa.types.is_integer(kind) or pa.types.is_null(kind)
        ):
            raise DataError(f"{require_file(path, name)}, column {column} holds {kind} values; accepted: numbers")
    values = [table[column].cast(pa.float64()).to_numpy() for column in columns]
    return texts(table, key), columns, np.stack(values, axis=1)


def _read_votes(
    path: Path,
    votes: tuple[str, str, str, str],
    statements: tuple[str, str],
    *,
    sign: float = 1.0,
    prompt: str,
    pairs_per_user: int | None,
    min_gap: float,
    ties: str,
    seed: int,
    name: str,
) -> Comparisons:
    """Load a table of votes (file, user, item and value column) on the texts of another (file, item column)."""
    file, user_column, item_column, value = votes
    table = read_csv(path, file, {user_column: TEXT, item_column: TEXT, value: pa.float64()})
    if table[value].null_count:
        row = table[value].to_pylist().index(None)
        raise DataError(f"{require_file(path, file)}: row {row + 1} has no value in column {value}; a number is needed")
    file_of_texts, key = statements
    told = read_csv(path, file_of_texts, {key: TEXT, "text": TEXT})
    text = dict(zip(texts(told, key), texts(told, "text"), strict=True))
    user, users = index_texts(table[user_column])
    item, items = index_texts(table[item_column])
    return _compare(
        (user, users.to_pylist()),
        (item, items.to_pylist(), lookup(text, items.to_pylist(), file)),
        sign * table[value].to_numpy(),
        prompt=prompt,
        pairs_per_user=pairs_per_user,
        min_gap=min_gap,
        ties=ties,
        seed=seed,
        name=name,
    )


def _compare(
    users: tuple[np.ndarray, Sequence[str]],
    items: tuple[np.ndarray, Sequence[str], Sequence[str]],
    rating: FloatArray,
    *,
    prompt: str,
    pairs_per_user: int | None,
    min_gap: float,
    ties: str,
    seed: int,
    name: str,
) -> Comparisons:
    """Draw comparisons from ratings.

    Args:
        users: User of every rating, (ratings,), and the users' names; a user without a comparison is left out.
        items: Item of every rating, (ratings,), the items' names and their texts.
        rating: Higher is better, (ratings,).
        prompt: The prompt that all items answer.
        pairs_per_user: As the other options, see the module docstring.
    """
    user, user_names = users
    item, item_names, item_texts = items
    pairs = ImpliedPairs.of(user, rating, len(user_names), min_gap, ties)
    rng = np.random.default_rng(seed)
    better, worse, tied = pairs.decode(pairs.draw(pairs_per_user, rng))
    swap = tied & (rng.random(len(tied)) < 0.5)  # which of two equals stands first must not tell anything
    better, worse = np.where(swap, worse, better), np.where(swap, better, worse)
    present, who = np.unique(user[better], return_inverse=True)
    # Two items of one text are one item; their pair still has its own source.
    response, responses = index_texts(item_texts)
    low, high = np.minimum(item[better], item[worse]), np.maximum(item[better], item[worse])
    codes, source = np.unique(low.astype(np.int64) * len(item_names) + high, return_inverse=True)
    return Comparisons(
        items=Items(
            prompt=np.zeros(len(responses), dtype=np.int32), prompts=pa.array([prompt], type=TEXT), response=responses
        ),
        chosen=response[item[better]],
        rejected=response[item[worse]],
        user=who.astype(np.int32),
        user_ids=tuple(user_names[i] for i in present),
        source=source.astype(np.int32),
        source_ids=tuple(f"{item_names[c // len(item_names)]} {item_names[c % len(item_names)]}" for c in codes),
        outcome=np.where(tied, 0.5, 1.0) if tied.any() else None,
        name=name,
    )
