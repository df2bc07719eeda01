"""Language models from the command line: train, evaluate, write, score."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pluralign.cli.language import read_rows, write_rows
from pluralign.cli.language_settings import find_base, hold, read_settings
from pluralign.comparisons import read
from pluralign.errors import ConfigError, DataError

from ..tiny_models import VOCABULARY
from .conftest import n_compared

ROW = {"prompt": "Say it", "chosen": "yes", "rejected": "no", "user": "ann"}
QUICK = ["--set", "max_steps=2", "--set", "use_cpu=true", "--batch-size", 4]


def test_train_dpo_prints_one_json_object_with_the_held_out_accuracy(run, base, letters, tmp_path, read_by_reference):
    done = run("train-dpo", letters, "--base", base, "--out", tmp_path / "m", *QUICK, "--hold-out", 0.3, "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    found = json.loads(done.out)
    assert found["users"] == {"kind": "individual", "n_users": 6, "n_tokens": 1, "dim": 32}
    assert 0 <= found["held_out"]["top"]["estimate"] <= 1
    assert found["held_out"]["n_decisions"] + found["n_comparisons"] == 72
    assert json.loads((tmp_path / "m" / "evaluation.json").read_text()) == found["held_out"]
    # What is held out is read before the training, which looks at it, and not again for its evaluation.
    assert sum(read_by_reference) == n_compared(read(letters))


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


def test_a_prompt_that_is_no_text_is_named(run, policy, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": 5}\n')
    done = run("generate", policy, tmp_path / "prompts.jsonl")
    assert done.code == 2
    assert "error: 5 is not a list of messages" in done.err


def test_a_path_that_cannot_be_is_named(run, policy, tmp_path):
    done = run("generate", policy, "--prompt", "Hi", "--tokens", "2", "--out", tmp_path)
    assert done.code == 2
    assert f"error: {tmp_path}: Is a directory" in done.err.splitlines()


def test_a_name_that_a_policy_does_not_know_is_refused(run, policy):
    done = run("generate", policy, "--prompt", "Hello", "--user", "nobody")
    assert done.code == 2
    assert 'the model has never met "nobody"' in done.err
    assert "--stranger" in done.err


def test_a_reward_model_scores_a_file_and_chooses_the_best_of_several(run, base, policy, letters, tmp_path):
    out = tmp_path / "reward"
    done = run("train-reward", letters, "--base", base, "--out", out, "--head", "late", *QUICK, "--hold-out", 0)
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


def test_evaluate_reads_what_a_folder_holds(run, policy, letters):
    done = run("evaluate", policy, letters, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["n_decisions"] == 72
    assert found["beta"] == 0.5
    assert "policy, by its implicit reward" in run("evaluate", policy, letters).out


def test_clusters_that_were_fitted_are_what_a_policy_is_trained_for(run, base, letters, tmp_path):
    fit = run(
        "fit", letters, "--users", "cluster", "--clusters", 2, "--starts", 2, "--ridge", 1, "--out", tmp_path / "fit"
    )
    assert fit.code == 0, fit.err
    out = tmp_path / "policy"
    done = run(
        "train-dpo", letters, "--base", base, "--out", out, "--clusters-from", tmp_path / "fit", *QUICK, "--hold-out", 0
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


def test_describe_needs_covariates(run, base, letters, tmp_path):
    done = run("train-dpo", letters, "--base", base, "--out", tmp_path / "m", "--describe", "age")
    assert done.code == 2
    assert "says nothing of its users" in done.err


def test_settings_come_from_yaml_and_flags_win(run, base, letters, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("beta: 0.1\nalpha: 1\nmax_steps: 2\nusers: {kind: basis, rank: 2, n_tokens: 3}\nuse_cpu: true\n")
    out = tmp_path / "m"
    arguments = ["--base", base, "--out", out, "--config", config, "--tokens", 2, "--hold-out", 0]
    assert run("train-dpo", letters, *arguments).code == 0
    users = json.loads((out / "pluralign.json").read_text())["users"]
    assert (users["kind"], users["rank"], users["n_tokens"]) == ("basis", 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "betta=1"], "betta"),
        (["--alpha", 2], "alpha is 2.0; it must be between 0 and 1"),
        (["--users", "clusters"], 'unknown user model "clusters"'),
        (["--set", "users=clusters"], 'unknown user model "clusters"'),
        (["--users", "cluster"], "hint: give --clusters K"),
        (["--users", "basis"], "hint: give --rank R"),
        (["--users", "text"], "hint: give --describe"),
        (["--clusters", 3], "hint: --clusters K is for --users cluster"),
        (["--users", "basis", "--rank", 2, "--clusters", 3], "n_clusters is given, but users are basis"),
        (["--set", "alpha=half"], 'alpha is "half"; it must be a number'),
        (["--set", "seed=abc"], 'seed is "abc"; it must be a whole number'),
        (["--set", "users=5"], "users is 5; it must be a text or a table"),
        (["--set", "users={kind: [1]}"], "users: kind is [1]; it must be a text"),
        (["--set", "users={kind: basis, rank: two}"], 'users: rank is "two"; it must be a whole number'),
        (["--set", "lora={r: abc}"], 'lora: r is "abc"; it must be a whole number'),
        (["--set", "lora={rank: 4}"], "lora: unknown setting rank"),
        (["--set", "lora={1: 2, a: 3}"], "lora: unknown setting 1"),
        (["--set", "loading=0"], "loading is no table"),
        (["--set", "max_prompt=2.5"], "max_prompt is 2.5; it must be a whole number or nothing"),
        (["--set", "max_steps=abc"], 'max_steps is "abc"; it must be a whole number'),
        (["--hold-out", 1], "--hold-out is 1; it must be at least 0 and below 1"),
        (["--set", "eval_strategy=steps", "--set", "use_cpu=true"], "a command evaluates once, at the end"),
        (
            ["--set", "lr_scheduler_type=foo", "--set", "use_cpu=true"],
            "training arguments: foo is not a valid SchedulerType",
        ),
    ],
)
def test_bad_settings_are_named(run, base, letters, tmp_path, arguments, message):
    done = run("train-dpo", letters, "--base", base, "--out", tmp_path / "m", *arguments)
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize(
    ("command", "setting", "message"),
    [
        ("train-clusters", "n_starts: abc", 'n_starts is "abc"; it must be a whole number'),
        ("train-clusters", "held_out: some", 'held_out is "some"; it must be a number'),
        ("train-clusters", "refit: maybe", 'refit is "maybe"; it must be true or false'),
        ("train-clusters", "cache: 3", "cache is 3; it must be a text or nothing"),
        ("train-clusters", "beta: abc", 'beta is "abc"; it must be a number'),
        ("train-clusters", "users: abc", 'users is "abc"; it must be a table'),
        ("train-clusters", "loading: abc", 'loading is "abc"; it must be a table or nothing'),
        ("train-clusters", "learning_rate: abc", 'learning_rate is "abc"; it must be a number'),
        ("train-reward", "centring: abc", 'centring is "abc"; it must be a number'),
        ("train-reward", "bf16: maybe", 'bf16 is "maybe"; it must be true or false'),
        ("train-reward", "users: latent\nlatent: 3", "latent is 3; it must be a table"),
        ("train-reward", "users: latent\nlatent: {steps: abc}", 'latent: steps is "abc"; it must be a whole number'),
        ("train-reward", "users: latent\nridge: abc", 'ridge is "abc"; it must be a number or nothing'),
    ],
)
def test_values_of_another_kind_are_named(run, base, letters, tmp_path, command, setting, message):
    config = tmp_path / "run.yaml"
    config.write_text(f"{setting}\nuse_cpu: true\n")
    arguments = [command, letters, "--base", base, "--out", tmp_path / "m"]
    by_set = [part for line in setting.splitlines() for part in ("--set", line.replace(": ", "=", 1))]
    for given in (["--config", config], by_set):
        done = run(*arguments, *given)
        assert done.code == 2
        assert f"error: {message}" in " ".join(done.err.split())
    assert not (tmp_path / "m").exists()


def test_flags_read_numbers_and_nothing():
    assert read_settings({"a": "1e3", "b": "2E-1", "c": {"d": "null", "e": "1e"}, "f": 2}) == {
        "a": 1000, "b": 0.2, "c": {"d": None, "e": "1e"}, "f": 2
    }  # fmt: skip
    assert isinstance(read_settings("1e3"), int)
    assert read_settings(["1.5e4", {"a": "2.5e-1"}]) == [15000, {"a": 0.25}]


def test_flags_that_contradict_fitted_clusters_are_named(run, base, letters, tmp_path, monkeypatch):
    found = {"kind": "cluster", "hard": True, "n_clusters": 2, "assignment": {}}
    for module in ("language", "language_clusters"):
        monkeypatch.setattr(f"pluralign.cli.{module}.hard_clusters", lambda _: found)
    arguments = ["--base", base, "--out", tmp_path / "m", "--clusters-from", tmp_path]
    for command, flags, message in (
        ("train-dpo", ["--users", "basis"], 'kind is "basis", but --clusters-from makes it "cluster"'),
        ("train-dpo", ["--clusters", 3], "n_clusters is 3, but --clusters-from makes it 2"),
        ("train-clusters", ["--clusters", 3], "n_clusters is 3, but --clusters-from makes it 2"),
    ):
        done = run(command, letters, *arguments, *flags)
        assert done.code == 2
        assert message in done.err


def test_what_is_held_out_is_looked_at_before_the_training(run, base, tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": "yes", "rejected": "no", "user": f"u{i % 3}"} for i in range(20)]
    table = tmp_path / "rows.jsonl"
    write_rows(table, rows)
    _, held = hold(read(table), 0.2, 0)
    for i in {held.items.prompts[int(each)].as_py() for each in held.items.prompt[held.chosen]}:
        rows[int(i[1:])]["chosen"] = "yes " * 600
    write_rows(table, rows)
    given = ("--base", base, "--out", tmp_path / "out", "--hold-out", 0.2, *QUICK)
    found = run("train-reward", table, *given, "--set", "max_response=5000")
    assert found.code == 2
    assert "more than the 1024 tokens that the model reads" in found.err
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_the_base_is_read_as_loading_says(run, base, letters, tmp_path):
    given = ("--base", base, "--out", tmp_path / "out", "--hold-out", 0, "--tuning", "full", *QUICK)
    assert run("train-reward", letters, *given, "--set", "loading={dtype: bfloat16}").code == 0
    kept = load_file(tmp_path / "out" / "model" / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.bfloat16}
    found = run("train-reward", letters, *given, "--set", "loading=bfloat16")
    assert "loading is no table" in found.err


def test_a_single_source_cannot_be_held_out(run, base, tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text("".join(json.dumps({**ROW, "chosen": f"yes {i}"}) + "\n" for i in range(4)))
    done = run("train-dpo", file, "--base", base, "--out", tmp_path / "m")
    assert done.code == 2
    assert "there are 1" in done.err
    assert "hint: --hold-out 0 trains on everything" in done.err


def test_a_missing_user_column_is_named_by_the_flag_that_there_is(run, base, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**{name: ROW[name] for name in ("prompt", "chosen", "rejected")}, "worker": "a"}))
    done = run("train-dpo", file, "--base", base, "--out", tmp_path / "m")
    assert done.code == 2
    assert "hint: name it with --column user=worker" in done.err


def test_ties_alone_are_judged_with_dashes(run, policy, tmp_path):
    users = json.loads((policy / "pluralign.json").read_text())["user_ids"]
    file = tmp_path / "ties.jsonl"
    file.write_text("".join(json.dumps({**ROW, "user": user, "outcome": 0.5}) + "\n" for user in users))
    done = run("evaluate", policy, file)
    assert done.code == 0, done.err
    rows = {line.strip().split("  ")[0]: line.split()[-1] for line in done.out.splitlines()[1:]}
    assert rows["accuracy, known users"] == rows["accuracy as an unknown user, all"] == rows["personal"] == "-"
    assert "- points, " in done.out


def test_a_policy_is_no_reward(run, policy, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "Hello", "response": "Hi"}))
    for arguments in (
        ["reward", policy, file],
        ["generate", policy, "--prompt", "Hello", "--best-of", 2, "--reward", policy],
    ):
        done = run(*arguments)
        assert done.code == 2
        assert f"{policy} holds a policy, which writes and does not score" in done.err
        assert "train-reward" in done.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--temperature", -5], "--temperature is -5; it must be at least 0", None),
        (["-n", 3, "--temperature", 0], "the responses of -n 3 would all be one", "leave out --temperature"),
        (["--best-of", 4, "--reward", "r", "--temperature", 0], "--best-of 4 would all be one", "one above 0"),
        (["--best-of", 4, "--reward", "r", "-n", 3], "-n is 3, but of the best of 4 one is kept", "leave out -n"),
        (["--top-p", 0.9], "--top-p is 0.9, but the likeliest token is always taken", "--temperature above 0"),
    ],
)
def test_flags_of_sampling_that_are_at_odds(run, policy, arguments, message, hint):
    done = run("generate", policy, "--prompt", "Hello", *arguments)
    assert done.code == 2
    assert message in done.err
    assert hint is None or hint in done.err


def test_names_that_a_model_never_met_are_counted_on_stderr(run, policy, tmp_path):
    users = json.loads((policy / "pluralign.json").read_text())["user_ids"]
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": "A", "user": user}) + "\n" for user in ("zoe", users[0], "zoe", "al"))
    )
    done = run("generate", policy, file, "--tokens", 3, "--json")
    assert "note: the model has never met 2 of these users (al, zoe)" in done.err
    assert [row["user"] for row in json.loads(done.out)["responses"]] == ["zoe", users[0], "zoe", "al"]
    file.write_text(json.dumps({"prompt": "A", "user": users[0]}))
    assert "never met" not in run("generate", policy, file, "--tokens", 3, "--json").err


def test_a_base_that_is_not_there_is_named(run, letters, tmp_path):
    done = run("train-dpo", letters, "--base", tmp_path / "none", "--out", tmp_path / "m")
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


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [
        {"prompt": "Line\u2028separator", "response": "next\x85line, \x0b and \x1c"},
        {"prompt": "B", "response": "b"},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl", ("prompt", "response")) == rows


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_files_of_spreadsheets_begin_with_a_mark(tmp_path, newline):
    (tmp_path / "rows.csv").write_bytes(newline.join(["prompt,response", '"two\nlines",Hi', ""]).encode("utf-8-sig"))
    assert read_rows(tmp_path / "rows.csv", ("prompt",)) == [{"prompt": "two\nlines", "response": "Hi"}]
    (tmp_path / "rows.jsonl").write_bytes(newline.join(['{"prompt": "A"}', '{"prompt": "B"}', ""]).encode("utf-8-sig"))
    assert read_rows(tmp_path / "rows.jsonl", ("prompt",)) == [{"prompt": "A"}, {"prompt": "B"}]
    (tmp_path / "rows.csv").write_bytes("prompt\ncaf\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"rows\.csv is not text in UTF-8"):
        read_rows(tmp_path / "rows.csv", ("prompt",))
