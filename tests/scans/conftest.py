"""Tables of comparisons for the tests of the scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pluralign.comparisons import Comparisons, from_columns
from pluralign.populations import relabel, simulate
from pluralign.populations.tastes import draw_tastes

WORDS = np.array([f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstvz"])
SMALL = {"n_users": 40, "comparisons_per_user": 40, "n_prompts": 80}


def write_sentences(n: int, rng: np.random.Generator, low: int = 12, high: int = 30) -> list[str]:
    return [" ".join(rng.choice(WORDS, size)).capitalize() + "." for size in rng.integers(low, high, n)]


def make_rows(n_rows: int = 600, n_users: int = 12, n_prompts: int = 60, seed: int = 0, **more: object) -> Comparisons:
    rng = np.random.default_rng(seed)
    prompts = write_sentences(n_prompts, rng)
    columns: dict[str, object] = {
        "prompt": [prompts[i] for i in rng.integers(0, n_prompts, n_rows)],
        "chosen": write_sentences(n_rows, rng),
        "rejected": write_sentences(n_rows, rng),
        "user": [f"user {i}" for i in rng.integers(0, n_users, n_rows)],
    }
    return from_columns(**(columns | more))  # type: ignore[arg-type]


def texts_of(table: Comparisons) -> dict[str, list[str]]:
    responses, prompts = table.items.response.to_pylist(), table.items.prompts.to_pylist()
    return {
        "prompt": [prompts[i] for i in table.items.prompt[table.chosen]],
        "chosen": [responses[i] for i in table.chosen],
        "rejected": [responses[i] for i in table.rejected],
        "user": [table.user_ids[i] for i in table.user],
    }


def make_hidden(seed: int, *, kind: str = "null", signal: float = 2.0, position: bool = False, **more) -> Comparisons:
    table = simulate(**(SMALL | {"seed": seed} | more)).comparisons
    rng = np.random.default_rng(seed + 1_000_000)
    features = rng.standard_normal((len(table.items), 4))
    tastes = draw_tastes(features, table.n_users, kind=kind, signal=signal, seed=seed)
    if position:
        table = replace(table, position=rng.choice([-1, 1], len(table)).astype(np.int32))
    return relabel(table, features, tastes, seed=seed).comparisons


@pytest.fixture(scope="session")
def sentences() -> Callable[..., list[str]]:
    """Texts of random words, each a sentence."""
    return write_sentences


@pytest.fixture(scope="session")
def rows() -> Callable[..., Comparisons]:
    """Comparisons of random texts, all different, decided by coins."""
    return make_rows


@pytest.fixture(scope="session")
def columns_of() -> Callable[..., dict[str, list[str]]]:
    """Texts of a table's rows, to be changed and put together again."""
    return texts_of


@pytest.fixture(scope="session")
def hidden() -> Callable[..., Comparisons]:
    """Texts with choices by a taste for something that no text shows: clean by construction."""
    return make_hidden
