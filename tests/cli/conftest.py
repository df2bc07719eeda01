"""The command line, run in this process."""

import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from pluralign.cli import main
from pluralign.comparisons import save, write_jsonl
from pluralign.populations import simulate


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
