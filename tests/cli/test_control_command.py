"""`pluralign control`: tables, JSON, a file of settings, and what it refuses."""

import json

import pytest

QUICK = ("--set", "sets=200", "--set", "users=60", "--set", "latent={steps: 60, every: 30, users: 32, hidden: 8}")


def test_a_choice_from_the_command_line(run, tmp_path):
    config = tmp_path / "tidy.yaml"
    config.write_text("contexts: [1, 4]\nseeds: 2\n")
    done = run("control", "tidy", "--config", config, *QUICK, "--seeds", 1, "--option", "agree=2", "--out", tmp_path)
    assert done.code == 0, done.err
    assert "Choices that are right, 1 seeds of 60 users" in done.out
    assert "seed 0: 4 comparisons" in done.err
    kept = json.loads((tmp_path / "control.json").read_text())
    assert kept["settings"]["options"] == {"agree": 2}
    assert [row["context"] for row in kept["rows"]] == [1, 1, 1, 4, 4, 4]


def test_a_plan_in_the_maze_as_json(run, tmp_path):
    pytest.importorskip("mujoco", reason="the maze needs the extra `control`")
    pytest.importorskip("gymnasium_robotics", reason="the maze needs the extra `control`")
    arguments = (*QUICK, "--set", "steps=400", "--plan", "--seeds", 1, "--rows", "oracle none, btl spo,vpl spo")
    done = run("control", "maze", *arguments, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [row["row"] for row in found["rows"]] == ["oracle none", "btl spo", "vpl spo"]
    assert found["rows"][0]["success"]["overall"]["estimate"] == 1
    assert (tmp_path / "rewards.png").is_file()
    again = run("control", "maze", *arguments, "--out", tmp_path)
    assert again.code == 0, again.err
    assert again.err.strip() == ""  # nothing left to do
    assert "Success of plans on the reward" in again.out


def test_what_is_refused(run, tmp_path):
    for arguments, words in (
        (("mase",), 'unknown task "mase"'),
        (("maze", "--rows", "vpl"), 'row "vpl" is not known'),
        (("table-top", "--plan"), 'policy "plan" is for the maze'),
        (("tidy", "--set", "contexts=[4, 2]"), "contexts are [4, 2]"),
    ):
        done = run("control", *arguments, "--out", tmp_path)
        assert done.code == 2
        assert words in done.err
