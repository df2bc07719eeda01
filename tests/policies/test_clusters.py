"""Policies of clusters in the place of one: who is served by which, and what is exported."""

import json

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.policies.best_of_n import best_of_n
from pluralign.policies.clusters import ClusterWriter
from pluralign.policies.export import export_clusters
from pluralign.policies.policy import Cluster, Policy
from pluralign.training.cluster_policies import ClusterPolicies
from pluralign.training.rounds import copy_values
from pluralign.training.settings import PolicySettings


@pytest.fixture(scope="module")
def alone(make_policy) -> list[Policy]:
    """The policy of cluster 0, of cluster 1 and of everybody, each a model of its own."""
    return [make_policy(kind="uniform", n_tokens=0, seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def writer(alone, make_policy) -> ClusterWriter:
    """ann and cy are in cluster 1, bob in cluster 0."""
    first, second, generic = (copy_values(each.model) for each in alone)
    shared = make_policy(kind="uniform", n_tokens=0, seed=9)
    policies = ClusterPolicies(
        model=shared.model,
        tokenizer=shared.tokenizer,
        adapters=(first, second),
        generic=generic,
        user_ids=("ann", "bob", "cy"),
        cluster=np.array([1, 0, 1], dtype=np.int32),
        membership=np.eye(2)[[1, 0, 1]],
        rounds=(),
        settings=PolicySettings(users={"kind": "uniform", "n_tokens": 0}, alpha=0.0),
    )
    return ClusterWriter(policies)


def test_each_reader_is_served_by_their_clusters_policy_in_the_order_asked(writer, alone):
    readers = ["ann", None, "bob", "zoe", Cluster(0), "cy", Cluster(1)]
    prompts = [f"Say {i}" for i in range(len(readers))]
    assert writer.clusters_of(readers) == [1, None, 0, None, 0, 1, 1]
    written = writer.generate(prompts, readers, max_new_tokens=8)
    for prompt, which, (response,) in zip(prompts, [1, 2, 0, 2, 0, 1, 1], written, strict=True):
        assert response == alone[which].generate([prompt], [None], max_new_tokens=8)[0][0]
    assert len({alone[k].generate(["Say"], [None], max_new_tokens=8)[0][0].text for k in range(3)}) == 3


def test_samples_of_two_policies_are_drawn_apart_and_again_the_same(writer):
    policies = writer.policies
    same = ClusterWriter(
        ClusterPolicies(**{**policies.__dict__, "adapters": (policies.generic, policies.generic)})
    )  # of equal policies equal draws would give equal texts
    settings = {"do_sample": True, "n": 2, "max_new_tokens": 8}
    first, second = same.generate(["Say"] * 2, ["ann", "bob"], **settings)
    assert first[0].text != second[0].text
    assert same.generate(["Say"] * 2, ["ann", "bob"], **settings) == [first, second]


def test_a_cluster_that_is_not_there(writer):
    with pytest.raises(ConfigError, match="there is no cluster 2; there are 2"):
        writer.generate(["Say"], [Cluster(2)])


class Longest:
    def score(self, prompts, responses, users):
        return np.array([float(len(each)) for each in responses])


def test_the_best_of_several_that_a_cluster_wrote(writer):
    best = best_of_n(writer, Longest(), ["Say", "Say"], ["bob", "ann"], n=3, max_new_tokens=5)
    assert [len(row) for row in best.candidates] == [3, 3]
    assert best.texts == [max(row, key=len) for row in best.candidates]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("merge", [True, False])
def test_exported_clusters_need_nothing_of_this_library(writer, alone, tmp_path, merge):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folders = export_clusters(writer.policies, tmp_path, merge=merge)
    assert list(folders) == ["cluster-0", "cluster-1", "generic"]
    ids = torch.tensor([[5, 6, 7, 8]])
    for policy, (name, folder) in zip(alone, folders.items(), strict=True):
        assert folder == tmp_path / name
        base = folder if merge else policy.model.config.base
        plain = AutoModelForCausalLM.from_pretrained(base)
        plain = (plain if merge else PeftModel.from_pretrained(plain, folder)).eval()
        with torch.no_grad():
            torch.testing.assert_close(plain(ids).logits, policy.model.lm(ids).logits, atol=1e-4, rtol=1e-4)
    served = json.loads((tmp_path / "served_by.json").read_text())
    assert served == {"ann": "cluster-1", "bob": "cluster-0", "cy": "cluster-1"}
