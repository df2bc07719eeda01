"""The tutorials run as they stand."""

import doctest
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"


def run(name: str) -> None:
    failed, tried = doctest.testfile(str(TUTORIALS / name), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    assert tried
    assert not failed


@pytest.mark.usefixtures("whole_runs")
def test_the_tutorial_on_simulated_users(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("simulated.md")


@pytest.mark.data
@pytest.mark.study
@pytest.mark.usefixtures("whole_runs")
def test_the_tutorial_on_real_answers(tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data_dir)
    run("real.md")


@pytest.mark.study
@pytest.mark.usefixtures("whole_runs")
def test_the_tutorial_on_a_language_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLURALIGN_CACHE", str(tmp_path / "cache"))
    run("language_model.md")
