"""Small populations and settings under which a study takes a second."""

from collections.abc import Callable
from typing import Any

import pytest

from pluralign.comparisons import Comparisons
from pluralign.populations import simulate
from pluralign.studies.settings import StudySettings


@pytest.fixture(scope="module", autouse=True)
def fast(whole_runs: None) -> None:
    """Every test of this folder runs whole studies."""


def simulate_small(**given: Any) -> Comparisons:
    settings = {
        "features": "numeric",
        "dim": 3,
        "n_users": 14,
        "comparisons_per_user": 30,
        "n_prompts": 50,
        "n_clusters": 2,
        "noise": 0.05,
    }
    return simulate(**{**settings, **given}).comparisons


@pytest.fixture(scope="session")
def population() -> Callable[..., Comparisons]:
    return simulate_small


@pytest.fixture(scope="session")
def quick() -> Callable[..., StudySettings]:
    """Settings of one split, of few rungs that try little."""

    def make(**given: Any) -> StudySettings:
        settings = {
            "rungs": ("pooled", "reliability", "cluster"),
            "seeds": 1,
            "folds": 2,
            "clusters": (1, 2),
            "ranks": (0, 1),
            "starts": 2,
            "ridge": 1.0,
            "contexts": (0, 2, 4),
            "draws": 19,
        }
        return StudySettings(**{**settings, **given})

    return make
