"""`pluralign scan`: what it prints, and its exit codes."""

import json

import pytest


@pytest.fixture
def leaky(texts, tmp_path):
    """The rejected replies printed as lists."""
    file = tmp_path / "leaky.jsonl"
    lines = [json.loads(line) for line in texts.read_text().splitlines()]
    file.write_text("".join(json.dumps(line | {"rejected": str([line["rejected"]])}) + "\n" for line in lines))
    return file


def test_scan_prints_one_json_object_and_nothing_else(run, leaky):
    done = run("scan", leaky, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert (found["findings"][0]["name"], found["findings"][0]["severity"]) == ("format_leak", "error")
    assert found["n_rows_scanned"] == 72
    assert {"length", "format", "response"} <= {each["name"] for each in found["baselines"]}


def test_strict_fails_on_errors_alone(run, leaky, texts, numbers):
    assert run("scan", leaky, "--strict").code == 1
    assert run("scan", leaky, "--strict", "--json").code == 1
    assert run("scan", leaky).code == 0
    assert run("scan", numbers, "--strict").code == 0
    assert run("scan", texts, "--strict").code == 0


def test_what_was_found_and_what_to_do_is_printed(run, leaky):
    done = run("scan", leaky)
    assert "72 decisions of 6 users" in done.out
    assert "error" in done.out
    assert "format_leak" in done.out
    assert "make the format the same on both sides" in " ".join(done.out.split())
    assert "no position is recorded" in done.out


def test_columns_settings_and_bad_input(run, texts, tmp_path):
    done = run("scan", texts, "--min-decisions", "13", "--json")
    (few,) = [each for each in json.loads(done.out)["findings"] if each["name"] == "few_decisions"]
    assert few["count"] == 6
    assert run("scan", tmp_path / "absent.jsonl").code == 2
    wrong = run("scan", texts, "--near", "2")
    assert wrong.code == 2
    assert "near is 2.0" in wrong.err
    assert "--strict" in run("scan", "--help").out
