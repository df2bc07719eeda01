"""A reward model for latent users from the command line."""

import json

import pytest

from ..tiny_models import save_tiny_llama
from ..training.conftest import make_tastes

HOW = "{latent_dim: 1, steps: 0, hidden: 4, width: 4}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    from pluralign.comparisons import write_jsonl

    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(make_tastes(), file)
    return file


def test_latent_users_are_trained_evaluated_and_scored(run, rows, tmp_path):
    base, out = save_tiny_llama(tmp_path / "llama"), tmp_path / "model"
    quick = ["--set", "max_steps=2", "--set", "use_cpu=true", "--batch-size", 4, "--set", f"latent={HOW}",
             "--set", "ridge=1.0"]  # fmt: skip
    done = run("train-reward", rows, "--base", base, "--out", out, "--users", "latent", *quick, "--hold-out", 0.3,
               "--json")  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["users"] == {"kind": "latent"}
    assert found["latent"]["words"] == json.loads((out / "diagnosis.json").read_text())["words"]
    assert 0.8 <= found["held_out"]["top"]["estimate"] <= 1
    judged = json.loads(run("evaluate", out, rows, "--json").out)
    assert judged["n_known_users"] == 24
    file = tmp_path / "asked.jsonl"
    asked = [
        {"prompt": "q1:", "response": text, "user": user} for user in ("user 0", "user 1") for text in (" aaa", " zzz")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    one, two, three, four = (row["reward"] for row in json.loads(run("reward", out, file, "--json").out)["rewards"])
    assert one > two
    assert three < four


def test_what_is_not_a_towers_is_refused(run, rows, tmp_path):
    base = save_tiny_llama(tmp_path / "llama")
    done = run("train-reward", rows, "--base", base, "--out", tmp_path / "m", "--users", "latent", "--tokens", 4)
    assert done.code == 2
    assert "those of a tower are" in done.err
