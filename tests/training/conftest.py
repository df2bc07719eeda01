"""A tiny model, and comparisons by a few users."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pluralign.comparisons import Comparisons
from pluralign.comparisons.table import from_columns

from ..tiny_models import make_tokenizer, save_tiny_llama


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory) -> Path:
    """A random Llama of 32 dimensions."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama")


def make_comparisons(n: int = 22, *, n_users: int = 3, seed: int = 0) -> Comparisons:
    """Random short texts; items occur several times, rows have weights, some are ties."""
    rng = np.random.default_rng(seed)

    def words(most: int) -> str:
        return " ".join("abc"[i] * (i + 1) for i in rng.integers(0, 3, rng.integers(1, most)))

    prompts = [f"say {words(5)}:" for _ in range(6)]
    return from_columns(
        prompt=[prompts[i] for i in rng.integers(0, 6, n)],
        chosen=[f" yes {words(4)}" for _ in range(n)],
        rejected=[f" no {words(3)}" for _ in range(n)],
        user=[f"user {i}" for i in [*range(n_users), *rng.integers(0, n_users, n - n_users)]],
        outcome=rng.choice([1.0, 1.0, 0.5, 0.8], n),
        weight=rng.choice([1.0, 2.0], n),
    )


@pytest.fixture
def comparisons() -> Comparisons:
    return make_comparisons()
