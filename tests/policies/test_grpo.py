from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.features import Item, Standardizer, make_encoder
from pluralign.policies.generation import generate
from pluralign.policies.grpo import reinforce, rewards_of_clusters, train_adapters
from pluralign.policies.policy import Policy
from pluralign.policies.reward_callable import reward_function
from pluralign.rewards import LinearReward
from pluralign.users import Clusters, Pooled

SETTINGS = {
    "max_completion_length": 6,
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "logging_steps": 1,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}
# What the stack says of itself.
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


class Shout:
    """ann likes capitals, everybody else small letters."""

    def __init__(self):
        self.users = []

    def score(self, prompts, responses, users):
        self.users += list(users)
        return np.array(
            [
                sum(c.isascii() and (c.isupper() if u == "ann" else c.islower()) for c in r)
                for r, u in zip(responses, users, strict=True)
            ],
            dtype=float,
        )


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_user_column_reaches_the_reward_in_a_run_of_trl(make_policy, tmp_path, method):
    pytest.importorskip("trl")
    policy = make_policy(kind="uniform", n_tokens=0)
    before = {name: value.clone() for name, value in policy.model.lm.named_parameters()}
    reward = Shout()
    logs = reinforce(
        policy,
        ["Say", "Tell me", "Go on", "What"],
        reward_function(reward, name="shout", remember=0),
        beta=0.1,
        output_dir=tmp_path,
        method=method,
        columns={"user": ["ann", "bob", "ann", "bob"]},
        max_steps=2,
        learning_rate=1e-2,
        **SETTINGS,
    )
    assert set(reward.users) == {"ann", "bob"}
    assert any("rewards/shout/mean" in row for row in logs)
    assert any("kl" in row for row in logs), "beta keeps the policy near where it was"
    assert list(policy.model.lm.peft_config) == ["default"]
    moved = {name for name, value in policy.model.lm.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


@pytest.mark.study
def test_one_adapter_per_cluster_learns_what_its_cluster_likes(bases, make_policy, tmp_path):
    pytest.importorskip("trl")
    tokenizer = make_policy().tokenizer
    reward, prompts = Shout(), ["Say", "Tell me", "Go on", "What"] * 8
    folders = train_adapters(
        bases["llama"],
        tokenizer,
        prompts,
        {name: reward_function(reward, user=name, name=name) for name in ("ann", "bob")},
        tmp_path,
        beta=0.01,
        lora={"r": 4},
        max_steps=30,
        learning_rate=2e-2,
        **{**SETTINGS, "num_generations": 8, "per_device_train_batch_size": 32},
    )
    asked = ["Say", "Go on", "What"] * 4
    share = {}
    for name, folder in folders.items():
        policy = Policy.load(folder)
        rows = generate(policy, asked, [None] * len(asked), max_new_tokens=6, do_sample=True, seed=1)
        texts = [row[0].text for row in rows]
        share[name] = [reward.score(asked, texts, [who] * len(texts)).mean() for who in ("ann", "bob")]
    assert share["ann"][0] > share["bob"][0] + 1
    assert share["bob"][1] > share["ann"][1] + 1


def test_clusters_of_a_linear_reward_become_users():
    encoder = make_encoder("style")
    prompts, responses = ["Why?"] * 4, ["Because!", "I think so.", "No.", "Perhaps it is late?"]
    scale = Standardizer.fit(encoder.encode([Item(*each) for each in zip(prompts, responses, strict=True)]))
    theta = torch.randn(2, len(scale.columns), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    users = Clusters(
        theta=theta,
        shares=torch.tensor([0.25, 0.75], dtype=torch.float64),
        membership=torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64),
        soft=True,
    )
    reward = LinearReward(users=users, user_ids=("ann", "bob", "cy"), encoder=encoder, standardizer=scale)
    clusters = rewards_of_clusters(reward)
    assert clusters.user_ids == ("0", "1")
    for cluster, user in (("0", "bob"), ("1", "ann"), (None, None)):
        mine, sd = clusters.score(prompts, responses, [cluster] * 4)
        np.testing.assert_allclose(mine, reward.score(prompts, responses, [user] * 4)[0], rtol=1e-9)
        assert cluster is None or (sd == 0).all()
    pooled = replace(reward, users=Pooled(theta=theta[0], n_users=3))
    with pytest.raises(ConfigError, match='the users are of kind "pooled", which has no clusters'):
        rewards_of_clusters(pooled)


def test_faults_are_named(make_policy, tmp_path):
    call = reward_function(Shout())
    settings = {"beta": 0.0, "output_dir": tmp_path}
    with pytest.raises(ConfigError, match="2 tokens per user, which TRL's trainers do not write"):
        reinforce(make_policy(), ["a"], call, **settings)
    plain = {"kind": "uniform", "n_tokens": 0}
    with pytest.raises(ConfigError, match='method is "ppo"'):
        reinforce(make_policy(**plain), ["a"], call, method="ppo", **settings)
    with pytest.raises(ConfigError, match='tuning is "full"'):
        reinforce(make_policy(tuning="full", **plain), ["a"], call, **settings)
