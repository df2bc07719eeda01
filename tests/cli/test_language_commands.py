"""Language models from the command line: train, evaluate, write, score."""

import json

import pytest
from transformers import AutoModelForCausalLM

from pluralign.cli.language import find_base, read_rows
from pluralign.comparisons import read
from pluralign.errors import ConfigError, DataError
from pluralign.training.train import train_policy

from ..tiny_models import VOCABULARY, save_tiny_llama

QUICK = ["--set", "max_steps=2", "--set", "use_cpu=true", "--batch-size", 4]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "llama", max_position_embeddings=1024)


@pytest.fixture(scope="module")
def policy(base, texts, tmp_path_factory):
    """A policy for the six users of `texts`."""
    out = tmp_path_factory.mktemp("models") / "policy"
    train_policy(read(texts), base, out=out, args={"max_steps": 2, "use_cpu": True, "disable_tqdm": True})
    return out


def test_train_dpo_prints_one_json_object_with_the_held_out_accuracy(run, base, texts, tmp_path):
    done = run("train-dpo", texts, "--base", base, "--out", tmp_path / "m", *QUICK, "--hold-out", 0.3, "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    found = json.loads(done.out)
    assert found["users"] == {"kind": "individual", "n_users": 6, "n_tokens": 1, "dim": 32}
    assert 0 <= found["held_out"]["top"]["estimate"] <= 1
    assert found["held_out"]["n_decisions"] + found["n_comparisons"] == 72
    assert json.loads((tmp_path / "m" / "evaluation.json").read_text()) == found["held_out"]


def test_a_policy_writes_for_users_clusters_and_strangers(run, policy, tmp_path):
    users = json.loads((policy / "pluralign.json").read_text())["user_ids"]
    file = tmp_path / "written.jsonl"
    arguments = ["--prompt", "Hello", "--user", users[0], "--stranger", "--tokens", 5, "-n", 2, "--out", file]
    done = run("generate", policy, *arguments, "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["responses"]
    assert [row["user"] for row in rows] == [users[0], users[0], None, None]
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows


def test_prompts_of_a_file_are_for_their_users(run, policy, tmp_path):
    users = json.loads((policy / "pluralign.json").read_text())["user_ids"]
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "A", "user": users[1]}) + "\n" + json.dumps({"prompt": "B"}) + "\n")
    rows = json.loads(run("generate", policy, file, "--tokens", 3, "--json").out)["responses"]
    assert [(row["prompt"], row["user"]) for row in rows] == [("A", users[1]), ("B", None)]


def test_a_name_that_a_policy_does_not_know_is_refused(run, policy):
    done = run("generate", policy, "--prompt", "Hello", "--user", "nobody")
    assert done.code == 2
    assert 'the model has never met "nobody"' in done.err
    assert "--stranger" in done.err


def test_a_reward_model_scores_a_file_and_chooses_the_best_of_several(run, base, policy, texts, tmp_path):
    out = tmp_path / "reward"
    done = run("train-reward", texts, "--base", base, "--out", out, "--head", "late", *QUICK, "--hold-out", 0)
    assert done.code == 0, done.err
    user = json.loads((out / "pluralign.json").read_text())["user_ids"][0]
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "Hello", "response": text, "user": user} for text in ("Good day", "Go away")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = json.loads(run("reward", out, file, "--json").out)["rewards"]
    assert [row["response"] for row in scored] == ["Good day", "Go away"]
    assert scored[0]["reward"] != scored[1]["reward"]
    arguments = ["--prompt", "Hello", "--user", user, "--best-of", 4, "--reward", out, "--tokens", 5, "--json"]
    done = run("generate", policy, *arguments)
    assert done.code == 0, done.err
    (best,) = json.loads(done.out)["responses"]
    assert best["of"] == 4


def test_evaluate_reads_what_a_folder_holds(run, policy, texts):
    done = run("evaluate", policy, texts, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["n_decisions"] == 72
    assert found["beta"] == 0.5
    assert "policy, by its implicit reward" in run("evaluate", policy, texts).out


def test_clusters_that_were_fitted_are_what_a_policy_is_trained_for(run, base, texts, tmp_path):
    fit = run(
        "fit", texts, "--users", "cluster", "--clusters", 2, "--starts", 2, "--ridge", 1, "--out", tmp_path / "fit"
    )
    assert fit.code == 0, fit.err
    out = tmp_path / "policy"
    done = run(
        "train-dpo", texts, "--base", base, "--out", out, "--clusters-from", tmp_path / "fit", *QUICK, "--hold-out", 0
    )
    assert done.code == 0, done.err
    assert json.loads((out / "pluralign.json").read_text())["users"]["n_clusters"] == 2
    done = run("generate", out, "--prompt", "Hello", "--cluster", 1, "--tokens", 3, "--json")
    assert json.loads(done.out)["responses"][0]["user"] == "cluster 1"


def test_export_writes_an_ordinary_checkpoint(run, policy, tmp_path):
    users = json.loads((policy / "pluralign.json").read_text())["user_ids"]
    done = run("export", policy, tmp_path / "checkpoint", "--user", users[0], "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["tokens"]) == {"", users[0]}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint").config.vocab_size == VOCABULARY + 2


def test_train_clusters_writes_a_policy_for_each(run, base, texts, tmp_path):
    out = tmp_path / "clusters"
    arguments = ["--base", base, "--out", out, "--start", "random", "--rounds", 1]
    done = run("train-clusters", texts, *arguments, "--set", "max_steps=1", "--set", "use_cpu=true", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert sorted(set(found["cluster"].values())) in ([0], [0, 1])
    done = run("generate", out / "cluster-1", "--prompt", "Hello", "--tokens", 3, "--json")
    assert len(json.loads(done.out)["responses"]) == 1


def test_describe_needs_covariates(run, base, texts, tmp_path):
    done = run("train-dpo", texts, "--base", base, "--out", tmp_path / "m", "--describe", "age")
    assert done.code == 2
    assert "says nothing of its users" in done.err


def test_settings_come_from_yaml_and_flags_win(run, base, texts, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("beta: 0.1\nalpha: 1\nmax_steps: 2\nusers: {kind: basis, rank: 2, n_tokens: 3}\nuse_cpu: true\n")
    out = tmp_path / "m"
    arguments = ["--base", base, "--out", out, "--config", config, "--tokens", 2, "--hold-out", 0]
    assert run("train-dpo", texts, *arguments).code == 0
    users = json.loads((out / "pluralign.json").read_text())["users"]
    assert (users["kind"], users["rank"], users["n_tokens"]) == ("basis", 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "betta=1"], "betta"),
        (["--alpha", 2], "alpha is 2.0; it must be between 0 and 1"),
        (["--users", "clusters"], 'unknown user model "clusters"'),
    ],
)
def test_bad_settings_are_named(run, base, texts, tmp_path, arguments, message):
    done = run("train-dpo", texts, "--base", base, "--out", tmp_path / "m", *arguments)
    assert done.code == 2
    assert message in done.err


def test_a_base_that_is_not_there_is_named(run, texts, tmp_path):
    done = run("train-dpo", texts, "--base", tmp_path / "none", "--out", tmp_path / "m")
    assert done.code == 2
    assert "none" in done.err


def test_an_embedded_model_of_no_such_size():
    with pytest.raises(ConfigError, match="known: default, small"):
        find_base("embedded:huge", progress=False)


def test_rows_that_lack_a_prompt_are_named(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("prompt,response\nHello,Hi\n,Hi\n")
    with pytest.raises(DataError, match=r"row 2 has no prompt"):
        read_rows(file, ("prompt", "response"))
