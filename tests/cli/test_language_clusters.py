"""A policy for each cluster from the command line: trained, written with, judged, exported."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pluralign.comparisons import read
from pluralign.errors import ConfigError
from pluralign.training.cluster_policies import train_cluster_policies

from .conftest import n_compared


@pytest.fixture(scope="module")
def clusters(base, letters, tmp_path_factory):
    """Policies of two clusters for the six users of `letters`, the second of them in cluster 1."""
    out = tmp_path_factory.mktemp("models") / "clusters"
    table = read(letters)
    given = {name: int(i == 1) for i, name in enumerate(table.user_ids)}
    args = {
        "max_steps": 2,
        "learning_rate": 0.05,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    train_cluster_policies(table, base, out=out, args=args, assignment=given, max_rounds=0)
    return out


def test_train_clusters_writes_a_policy_for_each(run, base, letters, tmp_path):
    out = tmp_path / "clusters"
    arguments = ["--base", base, "--out", out, "--start", "random", "--rounds", 1]
    done = run("train-clusters", letters, *arguments, "--set", "max_steps=1", "--set", "use_cpu=true", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert sorted(set(found["cluster"].values())) in ([0], [0, 1])
    done = run("generate", out / "cluster-1", "--prompt", "Hello", "--tokens", 3, "--json")
    assert len(json.loads(done.out)["responses"]) == 1


def test_the_clusters_of_a_folder_write_as_one(run, clusters, tmp_path):
    users = list(json.loads((clusters / "clusters.json").read_text())["cluster"])
    file = tmp_path / "prompts.jsonl"
    asked = [users[0], users[1], None, users[2], "zoe"]
    file.write_text("".join(json.dumps({"prompt": "Hello", "user": user}) + "\n" for user in asked))
    done = run("generate", clusters, file, "--tokens", 8, "--json")
    assert done.code == 0, done.err
    assert "never met 1 of these users (zoe)" in done.err
    rows = json.loads(done.out)["responses"]
    assert [row["user"] for row in rows] == asked
    alone = [
        json.loads(run("generate", clusters / name, "--prompt", "Hello", "--tokens", 8, "--json").out)["responses"][0]
        for name in ("cluster-0", "cluster-1", "generic")
    ]
    first, second, generic = (row["response"] for row in alone)
    assert first != second
    assert [row["response"] for row in rows] == [first, second, generic, first, generic]
    done = run("generate", clusters, "--prompt", "Hello", "--cluster", 1, "--tokens", 8, "--json")
    assert [row["response"] for row in json.loads(done.out)["responses"]] == [second]


def test_the_clusters_of_a_folder_are_judged_as_one(run, clusters, letters, policy, tmp_path, read_by_reference):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(letters.read_text().splitlines(keepends=True)[::6]))
    done = run("evaluate", clusters, few, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["n_decisions"], found["n_known_users"], found["beta"]) == (12, 6, 0.5)
    sharper = json.loads(run("evaluate", clusters, few, "--beta", 1, "--json").out)
    assert sum(read_by_reference) == n_compared(read(few)), "once for both evaluations"
    assert sharper["top"] == found["top"]
    assert sharper["scores"]["log_loss"] != found["scores"]["log_loss"]
    assert found["over_generic"]["log_prob"]["estimate"] != 0
    done = run("evaluate", clusters, few, "--pooled", policy)
    assert done.code == 2
    assert "leave --pooled out" in done.err
    pooled = json.loads(run("evaluate", policy, few, "--pooled", clusters, "--json").out)
    generic = json.loads(run("evaluate", policy, few, "--pooled", clusters / "generic", "--json").out)
    assert pooled["table"] == generic["table"]


def test_the_clusters_of_a_folder_are_exported_each(run, clusters, tmp_path):
    done = run("export", clusters, tmp_path / "adapters", "--adapter", "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["policies"]) == {"cluster-0", "cluster-1", "generic"}
    for name in ("cluster-0", "cluster-1", "generic"):
        assert (tmp_path / "adapters" / name / "adapter_config.json").is_file()
    done = run("export", clusters, tmp_path / "adapters", "--adapter")
    assert "a LoRA adapter for each of 2 clusters and for everybody" in " ".join(done.out.split())
    done = run("export", clusters, tmp_path / "more", "--user", "user 0")
    assert done.code == 2
    assert "no tokens of users" in done.err


def test_settings_of_clusters_come_from_yaml_and_set_and_flags_win(run, base, letters, tmp_path, monkeypatch):
    given = {}

    def caught(*_, **settings):
        given.update(settings)
        raise ConfigError("caught")

    monkeypatch.setattr("pluralign.training.cluster_policies.train_cluster_policies", caught)
    config = tmp_path / "run.yaml"
    config.write_text(
        "seed: 5\nn_clusters: 4\nmax_rounds: 1\nbeta: 1e-1\n"
        "use_cpu: true\nlearning_rate: 1e-4\nlora: {lora_dropout: 5E-2}\n"
    )
    arguments = ["--base", base, "--out", tmp_path / "m", "--config", config, "--set", "n_starts=3", "--clusters", 3]
    assert "caught" in run("train-clusters", letters, *arguments, "--soft").err
    assert given.pop("args") == {"use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-4}
    assert given == {
        "lora": {"lora_dropout": 0.05},
        "out": tmp_path / "m", "resume": True, "seed": 5, "n_clusters": 3, "max_rounds": 1, "beta": 0.1, "n_starts": 3,
        "soft": True,
    }  # fmt: skip


def test_train_clusters_prints_the_sizes_of_the_clusters_that_it_keeps(run, base, letters, tmp_path, monkeypatch):
    rounds = [SimpleNamespace(sizes=sizes) for sizes in ((5, 1, 0), (3, 2, 1))]  # of which the first is kept
    kept = SimpleNamespace(n_clusters=3, user_ids=("u",) * 6, cluster=np.array([0, 1, 0, 0, 0, 0]), rounds=rounds)
    monkeypatch.setattr("pluralign.training.cluster_policies.train_cluster_policies", lambda *_, **__: kept)
    done = run("train-clusters", letters, "--base", base, "--out", tmp_path / "m", "--set", "use_cpu=true")
    assert "3 clusters of 6 users (5, 1, 0)" in done.out
