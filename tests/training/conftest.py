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


def make_tastes(
    n_users: int = 24, each: int = 10, *, first: int = 0, alike: bool = False, seed: int = 0
) -> Comparisons:
    """Users of two opposite tastes, one even and one odd, about one word of an answer; or of one taste."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), each)
    prompt = [f"q{i}:" for i in rng.integers(0, 24, len(user))]
    one, two = ([f"{word}{'.' * n}" for n in rng.integers(0, 3, len(user))] for word in (" aaa", " zzz"))
    likes = (user % 2 == 0) | alike
    return from_columns(
        prompt=prompt,
        chosen=[a if yes else b for a, b, yes in zip(one, two, likes, strict=True)],
        rejected=[b if yes else a for a, b, yes in zip(one, two, likes, strict=True)],
        user=[f"user {first + i}" for i in user],
    )


TASTES = {
    "latent": {"latent_dim": 1, "steps": 0, "hidden": 4, "width": 4, "users": 8},
    "ridge": 1.0,
    "lora": {"r": 4},
    "args": {
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 8,
        "save_steps": 2,
        "save_strategy": "steps",
        "logging_steps": 1,
        "disable_tqdm": True,
    },
}


@pytest.fixture(scope="session")
def tastes() -> Comparisons:
    return make_tastes()


@pytest.fixture(scope="session")
def trained_latent(base_folder, tastes, tmp_path_factory) -> Any:
    """A tower for latent users, and its folder."""
    from pluralign.training.latent_train import train_latent_reward

    folder = tmp_path_factory.mktemp("latent")
    return train_latent_reward(tastes, base_folder, out=folder, **TASTES), folder
