"""What may be imported before it is needed: nothing heavy."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sklearn", "scipy", "pyarrow", "datasets", "numpy")
COMMANDS = {
    "study": ("--path", "--column", "--out", "--config", "--rungs", "--seeds", "--split", "--max-clusters", "--json"),
    "scan": ("--near", "--min-decisions", "--max-decisions", "--strict", "--seed", "--path", "--json"),
    "report": ("--json",),
    "encode": ("--encoder", "--cache", "--device", "--batch-size", "--json"),
    "fit": ("--users", "--clusters", "--soft", "--rank", "--starts", "--seed", "--encoder", "--ridge", "--json"),
    "evaluate": ("--pooled", "--path", "--json"),
    "adapt": ("--out", "--path", "--json"),
    "ask": ("--answers", "--user", "--questions", "--method", "--epsilon", "--column", "--seed", "--json"),
    "interview": ("--answers", "--user", "--questions", "--method", "--epsilon", "--out", "--seed", "--json"),
    "simulate": ("--kind", "--users", "--clusters", "--noise", "--shares", "--features", "--choices", "--json"),
    "datasets": ("--json",),
    "train-reward": ("--base", "--users", "--head", "--alpha", "--config", "--set", "--hold-out", "--fresh", "--json"),
    "train-dpo": ("--base", "--users", "--beta", "--clusters-from", "--place", "--tuning", "--out", "--json"),
    "train-clusters": ("--base", "--clusters", "--clusters-from", "--rounds", "--soft", "--held-out", "--json"),
    "export": ("--user", "--merge", "--json"),
    "generate": ("--prompt", "--user", "--cluster", "--stranger", "--best-of", "--reward", "--out", "--json"),
    "reward": ("--out", "--json"),
    "control": ("--option", "--rows", "--plan", "--seeds", "--config", "--set", "--out", "--json"),
}


def loaded_after(code: str) -> tuple[list[str], float]:
    """Heavy packages that the code imported, and the seconds of CPU that it took a new process."""
    script = (
        f"import json, sys, time\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(json.dumps([found, time.process_time()]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "150"}
    )
    found, seconds = json.loads(done.stderr.splitlines()[-1])
    return found, seconds


def test_importing_the_package_is_quick_and_imports_nothing_heavy():
    found, seconds = loaded_after("import pluralign")
    assert found == []
    assert seconds < 1


@pytest.mark.parametrize("arguments", [["--help"], ["study", "--help"], ["train-dpo", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = f"sys.argv = ['pluralign', *{arguments!r}]; from pluralign.cli import main; main()"
    found, seconds = loaded_after(code)
    assert found == []
    assert seconds < 1


def test_the_front_door_is_there_when_asked_for():
    import pluralign

    assert {"fit", "load", "study", "LinearReward"} <= set(pluralign.__all__)
    assert all(getattr(pluralign, name) for name in pluralign.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        pluralign.fitt  # noqa: B018


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_options(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    done = run(command, "--help")
    assert done.code == 0
    missing = [option for option in COMMANDS[command] if option not in done.out]
    assert not missing


def test_the_list_of_commands(run):
    done = run("--help")
    assert all(command in done.out for command in COMMANDS)


def test_the_version(run):
    import pluralign

    assert run("--version").out == f"{pluralign.__version__}\n"
