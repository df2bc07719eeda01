"""Fixtures shared by all tests."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, as the hub's library is imported: no test asks the network

import jaxtyping
import pytest
from hypothesis import settings

# A busy machine is no bug, and a law that fails must fail for everybody.
settings.register_profile("pluralign", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("pluralign")

DATA = Path(os.environ.get("PLURALIGN_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: accelerate calls it at every training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets, each with its SOURCE.md."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; name their folder in PLURALIGN_DATA")
    return DATA


@pytest.fixture(scope="module")
def whole_runs() -> Iterator[None]:
    """One thread, and no checks of shapes: a study takes ten times as long with them."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch.set_num_threads(threads)
