"""The command line, run in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
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


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., Finished]:
    def call(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["pluralign", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else int(stop.code)
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return call


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
