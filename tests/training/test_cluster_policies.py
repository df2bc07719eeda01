"""An adapter for each cluster of users, and who is in which."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from pluralign.comparisons import Comparisons
from pluralign.comparisons.table import from_columns
from pluralign.errors import CacheError, ConfigError, NoComparisonsError
from pluralign.policies.evaluation import evaluate_clusters
from pluralign.policies.policy import Policy
from pluralign.training.cluster_policies import (
    ClusterPolicies,
    _hold_out,
    cluster_by_features,
    train_cluster_policies,
)
from pluralign.training.rounds import decision_log_probs
from pluralign.training.trainer import PreferenceTrainer

from ..tiny_models import save_tiny_llama

GROUP = np.array([0, 0, 0, 0, 1, 1, 1])
ARGS = {"learning_rate": 2e-2, "per_device_train_batch_size": 14, "use_cpu": True, "disable_tqdm": True}
SETTINGS = {"beta": 0.5, "lora": {"r": 4, "lora_alpha": 8}}


def choices(group: np.ndarray, *, n: int = 6, seed: int = 0, prefix: str = "user") -> Comparisons:
    """Users of group 0 choose what is written in a's, users of group 1 what is written in z's."""
    rng = np.random.default_rng(seed)
    rows = []
    for user, which in enumerate(group.tolist()):
        for _ in range(n):
            ends = rng.integers(0, 10, 2)
            pair = [f"aa a {ends[0]}", f"zz z {ends[1]}"]
            rows.append((f"{prefix} {user}", f"say {rng.integers(4)}", pair[which], pair[1 - which]))
    user, prompt, chosen, rejected = zip(*rows, strict=True)
    return from_columns(prompt=prompt, chosen=chosen, rejected=rejected, user=user)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "llama")


def train(base: Path, comparisons: Comparisons, folder: Path, **settings) -> ClusterPolicies:
    return train_cluster_policies(comparisons, base, args=ARGS, cache=folder, **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory) -> ClusterPolicies:
    """From an assignment with two users misplaced."""
    wrong = dict(zip((f"user {i}" for i in range(7)), [0, 0, 0, 1, 1, 1, 0], strict=True))
    return train(base, choices(GROUP), tmp_path_factory.mktemp("cache"), assignment=wrong, max_rounds=4)


def test_misplaced_users_find_their_cluster(trained):
    assert trained.cluster.tolist() == GROUP.tolist()
    assert trained.rounds[0].moved == 2
    assert trained.rounds[-1].sizes == (4, 3)


def test_each_clusters_policy_serves_its_users_and_the_generic_one_the_majority(trained, tmp_path):
    found = evaluate_clusters(trained, choices(GROUP, seed=1), cache=tmp_path)
    assert found.top.estimate == 1
    assert found.table["generic"].scores.accuracy == pytest.approx(4 / 7, abs=0.05)
    assert found.over_generic["log_prob"].low > 0


def test_new_users_are_placed_by_their_own_choices(trained, tmp_path):
    new = choices(np.array([1, 0, 1]), n=2, seed=2, prefix="new")
    assert trained.assign(new, cache=tmp_path).tolist() == [1, 0, 1]
    with pytest.raises(NoComparisonsError, match=r"users \[2\]"):
        trained.assign(new.take(np.arange(4)), cache=tmp_path)


def test_what_is_shipped_is_trained_anew_on_the_clusters_found(base, trained, tmp_path):
    found = {f"user {i}": int(cluster) for i, cluster in enumerate(trained.cluster)}
    again = train(base, choices(GROUP), tmp_path, assignment=found, max_rounds=0)
    for adapter, other in zip((*trained.adapters, trained.generic), (*again.adapters, again.generic), strict=True):
        assert all(torch.equal(adapter[name], other[name]) for name in other)


ROUNDS = {"assignment": {f"user {i}": int(i in (3, 4, 5)) for i in range(7)}, "max_rounds": 3, "refit": False}


@pytest.fixture(scope="module")
def in_rounds(base, tmp_path_factory) -> ClusterPolicies:
    return train(base, choices(GROUP), tmp_path_factory.mktemp("cache"), **ROUNDS)


def test_the_best_round_is_kept(in_rounds, tmp_path):
    margin = in_rounds.margins(choices(GROUP), cache=tmp_path)[:, :2]
    per_user = np.zeros((7, 2))
    np.add.at(per_user, choices(GROUP).user, decision_log_probs(choices(GROUP), margin).numpy())
    best = max(each.log_likelihood for each in in_rounds.rounds)
    assert per_user.max(1).sum() == pytest.approx(best, abs=1e-3)


def test_a_run_that_was_killed_ends_as_one_that_was_not(base, in_rounds, tmp_path, monkeypatch):
    run, n_trained = PreferenceTrainer.train, []

    def dies(trainer, *_, **__):
        if len(n_trained) == 5:  # in the second round, after two of its three adapters
            raise KeyboardInterrupt
        n_trained.append(run(trainer))

    monkeypatch.setattr(PreferenceTrainer, "train", dies)
    with pytest.raises(KeyboardInterrupt):
        train(base, choices(GROUP), tmp_path, out=tmp_path / "out", **ROUNDS)
    monkeypatch.setattr(PreferenceTrainer, "train", lambda trainer, *_, **__: n_trained.append(run(trainer)))
    again = train(base, choices(GROUP), tmp_path, out=tmp_path / "out", **ROUNDS)
    assert len(n_trained) == 3 * len(again.rounds)
    assert again.rounds == in_rounds.rounds
    adapters = zip((*again.adapters, again.generic), (*in_rounds.adapters, in_rounds.generic), strict=True)
    for mine, other in adapters:
        assert all(torch.equal(mine[name], other[name]) for name in other)
    with pytest.raises(ConfigError, match="holds another run: clusters differ"):
        train(base, choices(GROUP), tmp_path, out=tmp_path / "out", soft=True, **ROUNDS)


def test_saved_clusters_are_ordinary_policies(trained, tmp_path):
    trained.save(tmp_path)
    asked, said = ["say 1", "say 1"], ["aa a 3", "zz z 3"]
    for cluster, name in ((0, "cluster-0"), (1, "cluster-1"), (None, "generic")):
        with trained.use(cluster) as model:
            kept = Policy(model, trained.tokenizer).log_prob(asked, said, [None, None])
        again = Policy.load(tmp_path / name).log_prob(asked, said, [None, None])
        np.testing.assert_allclose(again, kept, rtol=1e-6)
        assert (tmp_path / name / "adapter" / "adapter_config.json").is_file()
    written = json.loads((tmp_path / "clusters.json").read_text())
    assert written["cluster"]["user 6"] == 1
    assert written["reference"] == {"model": trained.model.config.base, "users": None, "beta": 0.5}


def test_policies_of_clusters_are_read_back_as_they_were(trained, tmp_path):
    trained.save(tmp_path)
    again = ClusterPolicies.load(tmp_path)
    assert again.user_ids == trained.user_ids
    assert again.cluster.tolist() == trained.cluster.tolist()
    assert again.membership.tolist() == trained.membership.tolist()
    assert again.rounds == trained.rounds
    assert again.settings == trained.settings
    table = choices(GROUP, n=2, seed=3)
    margin = again.margins(table)
    assert len({tuple(column) for column in margin.T}) == 3, "each has weights of its own"
    np.testing.assert_allclose(margin, trained.margins(table), atol=1e-5)
    shutil.rmtree(tmp_path / "cluster-1")
    with pytest.raises(CacheError, match="there is no cluster-1/"):
        ClusterPolicies.load(tmp_path)
    with pytest.raises(CacheError, match=r"there is no clusters\.json"):
        ClusterPolicies.load(tmp_path / "cluster-0")


def test_wholly_tuned_policies_are_read_back_too(base, tmp_path):
    settings = {"tuning": "full", "lora": None, "max_rounds": 0}
    given = {f"user {i}": int(g) for i, g in enumerate(GROUP)}
    args = {**ARGS, "max_steps": 1}
    found = train_cluster_policies(
        choices(GROUP), base, args=args, cache=tmp_path, out=tmp_path / "out", assignment=given, **settings
    )
    again = ClusterPolicies.load(tmp_path / "out")
    table = choices(GROUP, n=2, seed=3)
    reference = np.zeros(len(table.items))
    np.testing.assert_allclose(
        again.margins(table, reference=reference), found.margins(table, reference=reference), atol=1e-5
    )


def test_another_number_of_clusters_is_another_run(base, tmp_path):
    settings = {"assignment": {f"user {i}": int(g) for i, g in enumerate(GROUP)}, "max_rounds": 0}
    settings |= {"args": {**ARGS, "max_steps": 1}, "cache": tmp_path, "out": tmp_path / "out"}
    train_cluster_policies(choices(GROUP), base, n_clusters=2, **settings)
    with pytest.raises(ConfigError, match="holds another run: clusters differ"):
        train_cluster_policies(choices(GROUP), base, n_clusters=3, **settings)


def test_adapters_and_reference_are_read_at_one_precision(base, tmp_path, monkeypatch):
    # No step moves an adapter, so each policy is the reference: read in the same batches, every margin is 0.
    given = {f"user {i}": int(g) for i, g in enumerate(GROUP)}
    args = {**ARGS, "bf16": True, "max_steps": 1, "learning_rate": 0.0}
    settings = {"args": args, "assignment": given, "max_rounds": 1, "refit": False, "out": tmp_path / "out"}
    table = choices(GROUP)
    found = train_cluster_policies(table, base, cache=tmp_path / "cache", **settings)
    assert [folder.name.endswith("-bfloat16") for folder in (tmp_path / "cache").iterdir()] == [True]
    assert found.rounds[0].log_likelihood == pytest.approx(table.n_decisions * np.log(0.5), abs=1e-9)
    # A run that goes on trains nothing before it assigns users.
    monkeypatch.setattr(PreferenceTrainer, "train", None)
    again = train_cluster_policies(table, base, cache=tmp_path / "cache", **settings)
    assert again.rounds == found.rounds
    # What was trained and what is read from its folder compute alike, and can have one cache.
    loaded = ClusterPolicies.load(tmp_path / "out", device="cpu")
    for policies in (found, loaded):
        assert not policies.margins(table, cache=tmp_path / "later").any()


def test_one_cluster_is_the_pooled_policy(base, tmp_path):
    given = {f"user {i}": 0 for i in range(7)}
    found = train(base, choices(GROUP), tmp_path, n_clusters=1, assignment=given, max_rounds=1)
    for name, value in found.generic.items():
        assert torch.equal(found.adapters[0][name], value)


def test_without_rounds_users_stay_where_a_study_put_them(base, tmp_path):
    given = dict(zip((f"user {i}" for i in range(7)), [1, 0, 0, 0, 0, 1, 1], strict=True))
    found = train(base, choices(GROUP), tmp_path, assignment=given, max_rounds=0)
    assert found.cluster.tolist() == [1, 0, 0, 0, 0, 1, 1]
    assert [each.moved for each in found.rounds] == [0]


def test_an_empty_cluster_takes_who_is_served_worst(base, tmp_path):
    # Everybody in cluster 0: cluster 1 is the base model, whose margins are 0, and the minority prefers that.
    given = {f"user {i}": 0 for i in range(7)}
    found = train(base, choices(GROUP), tmp_path, assignment=given, max_rounds=3, refit=False)
    assert adjusted_rand_score(GROUP, found.cluster) == 1


def test_soft_clusters_find_the_groups(base, tmp_path):
    found = train(base, choices(GROUP), tmp_path, soft=True, start="features", max_rounds=2, refit=False)
    assert adjusted_rand_score(GROUP, found.cluster) == 1
    np.testing.assert_allclose(found.membership.sum(1), 1)


def test_frozen_features_give_the_start():
    assert adjusted_rand_score(GROUP, cluster_by_features(choices(GROUP), choices(GROUP).user_ids, 2)) == 1


def test_what_is_held_out_is_whole_prompts_with_everybody_on_both_sides():
    table = choices(GROUP, n=20)
    judged = _hold_out(table, 0.5, seed=0)
    assert len(np.unique(table.source[judged])) == 2
    assert not set(table.source[judged]) & set(table.source[~judged])
    assert set(table.user[judged]) == set(table.user[~judged]) == set(range(7))
    with pytest.raises(NoComparisonsError):
        _hold_out(choices(GROUP, n=1), 0.5, seed=0)


def test_held_out_choices_are_not_trained_on(base, tmp_path):
    # All that users are assigned by is turned round: whoever trained on it would not be served so badly.
    table = choices(GROUP, n=12)
    judged = _hold_out(table, 0.5, seed=0)
    chosen = np.where(judged, table.rejected, table.chosen)
    rejected = np.where(judged, table.chosen, table.rejected)
    turned = replace(table, chosen=chosen, rejected=rejected)
    given = {f"user {i}": int(g) for i, g in enumerate(GROUP)}
    found = train(base, turned, tmp_path, assignment=given, max_rounds=1, held_out=0.5, refit=False)
    assert found.cluster.tolist() == (1 - GROUP).tolist()  # by the turned choices each fits the other cluster


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_clusters": 0}, "n_clusters is 0"),
        ({"n_clusters": 9}, "n_clusters is 9, but there are 7 users"),
        ({"assignment": {"user 0": 0}}, "have no cluster"),
        ({"assignment": {f"user {i}": 2 for i in range(7)}}, "not 0 to 1"),
        ({"start": "guess"}, 'start is "guess"'),
        ({"held_out": 1.0}, r"held_out is 1\.0"),
        ({"users": {"kind": "individual", "n_tokens": 1}}, "no user tokens"),
    ],
)
def test_what_cannot_be(base, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        train(base, choices(GROUP), tmp_path, **settings)
