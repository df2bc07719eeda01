"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("PLURALIGN_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets, each with its SOURCE.md."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; name their folder in PLURALIGN_DATA")
    return DATA
