"""Tiny random models, one of each way to know positions."""

from pathlib import Path
from typing import Any

import pytest

from ..tiny_models import make_tokenizer, save_tiny_gpt2, save_tiny_llama


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory) -> Path:
    """A Llama: rotary positions, a head of its own."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def tied_folder(tmp_path_factory) -> Path:
    """A Llama whose head is its input embedding."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tied", tied=True)


@pytest.fixture(scope="session")
def absolute_folder(tmp_path_factory) -> Path:
    """A GPT-2: learned absolute positions, tied embeddings."""
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "gpt2")
