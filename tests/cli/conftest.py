"""The command line, run in this process."""

import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from pluralign.cli import main
from pluralign.comparisons import Comparisons, read, save, write_jsonl
from pluralign.populations import simulate

from ..tiny_models import save_tiny_llama
from ..training.conftest import make_tastes


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module", autouse=True)
def fast(whole_runs: None) -> None:
    """Every test of this folder runs whole studies."""


def call(*arguments: object) -> int:
    """Run a command; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pluralign", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return 0 if stop.code is None else int(stop.code)
    return 0


@pytest.fixture
def run(capsys) -> Callable[..., Finished]:
    def called(*arguments: object) -> Finished:
        capsys.readouterr()
        code = call(*arguments)
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return called


@pytest.fixture(scope="module")
def run_once() -> Callable[..., Finished]:
    """As `run`, for what several tests look at."""

    def called(*arguments: object) -> Finished:
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = call(*arguments)
        return Finished(code, out.getvalue(), err.getvalue())

    return called


@pytest.fixture(scope="session")
def numbers(tmp_path_factory) -> Path:
    """A folder of numeric comparisons: two camps."""
    folder = tmp_path_factory.mktemp("numbers") / "panel"
    table = simulate(
        features="numeric", dim=3, n_users=12, comparisons_per_user=30, n_prompts=50, n_clusters=2, noise=0.05
    )
    save(table.comparisons, folder)
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """A file of comparisons of texts."""
    file = tmp_path_factory.mktemp("texts") / "rows.jsonl"
    table = simulate(n_users=6, comparisons_per_user=12, n_prompts=12, n_clusters=2)
    write_jsonl(table.comparisons, file)
    return file


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A random language model that reads bytes."""
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "llama", max_position_embeddings=1024)


@pytest.fixture(scope="session")
def letters(tmp_path_factory) -> Path:
    """A file of 72 comparisons of a few letters, which is what a model of bytes reads soon."""
    file = tmp_path_factory.mktemp("texts") / "rows.jsonl"
    write_jsonl(make_tastes(6, 12), file)
    return file


@pytest.fixture(scope="session")
def policy(base, letters, tmp_path_factory) -> Path:
    """A policy for the six users of `letters`."""
    from pluralign.training.train import train_policy

    out = tmp_path_factory.mktemp("models") / "policy"
    train_policy(read(letters), base, out=out, args={"max_steps": 2, "use_cpu": True, "disable_tqdm": True})
    return out


@pytest.fixture
def read_by_reference(monkeypatch, tmp_path) -> list[int]:
    """How many sequences each pass of a reference reads, which keeps them in a folder of its own."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from pluralign.language_models.personal import PersonalPolicy

    monkeypatch.setenv("PLURALIGN_CACHE", str(tmp_path / "cache"))
    forward, counts = PersonalPolicy.forward, []

    def counted(model, **batch):
        if any(module.disable_adapters for module in model.modules() if isinstance(module, BaseTunerLayer)):
            counts.append(len(batch["branch"]))
        return forward(model, **batch)

    monkeypatch.setattr(PersonalPolicy, "forward", counted)
    return counts


def n_compared(table: Comparisons) -> int:
    """Responses that some row compares."""
    return len(np.unique([table.chosen, table.rejected]))
