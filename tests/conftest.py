"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no bug, and a law that fails must fail for everybody.
settings.register_profile("pluralign", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("pluralign")

DATA = Path(os.environ.get("PLURALIGN_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets, each with its SOURCE.md."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; name their folder in PLURALIGN_DATA")
    return DATA
