"""One LoRA adapter per cluster by reinforcement learning against the cluster's reward.

TRL's trainers, unmodified, on the language model inside a policy without user tokens; what they need of us is a reward
function. `beta` is the weight of the KL divergence from the policy that training starts from (TRL's GRPO default is 0,
no reference at all), and therefore has no default here: a personal reward is a model fitted to few choices, and a
policy that is free to leave the texts it was fitted on will find what it overrates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from pluralign.errors import ConfigError
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.policies.policy import Policy, Prompt, read_prompt
from pluralign.policies.reward_callable import RewardFunction
from pluralign.rewards.linear import LinearReward
from pluralign.training.train import train_in_its_precision
from pluralign.users.heads import Clusters

REFERENCE = "ref"  # name of the adapter that TRL adds to hold the policy as it was


def reinforce(
    policy: Policy,
    prompts: Sequence[Prompt],
    reward: RewardFunction,
    *,
    beta: float,
    output_dir: str | Path,
    method: str = "grpo",
    columns: Mapping[str, Sequence[Any]] | None = None,
    **settings: Any,
) -> list[dict[str, float]]:
    """Train a policy's adapter in place.

    Args:
        policy: LoRA without user tokens; the one that it is now is the reference.
        prompts: Texts or chats, all of the one kind or the other.
        reward: From `reward_function`, or any reward function of TRL.
        beta: Weight of the KL divergence from the policy as it is now.
        output_dir: Where TRL writes its checkpoints.
        method: Which of TRL's trainers, "grpo" or "rloo".
        columns: Further columns for the reward function ("user"), one value per prompt.
        settings: Of `trl.GRPOConfig` or `trl.RLOOConfig`.

    Returns:
        What the trainer logged.

    Raises:
        ConfigError: TRL is not installed, `method` is unknown, or the policy has user tokens or no adapter.
    """
    if method not in ("grpo", "rloo"):
        raise ConfigError(f'method is "{method}"; it must be grpo or rloo')
    if policy.model.users.n_tokens:
        raise ConfigError(
            f"the policy has {policy.model.users.n_tokens} tokens per user, which TRL's trainers do not write into "
            "prompts",
            hint="train one policy per cluster, without user tokens (n_tokens: 0)",
        )
    if policy.model.config.tuning != "lora":
        raise ConfigError(f'tuning is "{policy.model.config.tuning}"; an adapter is trained (lora)')
    try:
        trl: Any = import_module("trl")
    except ImportError:
        raise ConfigError("TRL is not installed", hint="pip install pluralign[grpo]") from None
    from datasets import Dataset

    make_config, make_trainer = getattr(trl, f"{method.upper()}Config"), getattr(trl, f"{method.upper()}Trainer")
    on_cpu = not torch.cuda.is_available()
    defaults = {"report_to": "none", "save_strategy": "no", "bf16": not on_cpu, "use_cpu": on_cpu}
    args = make_config(output_dir=str(output_dir), beta=beta, **{**defaults, **settings})
    trainer = make_trainer(
        model=policy.model.lm,
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [read_prompt(each) for each in prompts], **(columns or {})}),
        processing_class=policy.tokenizer,
    )
    train_in_its_precision(trainer)
    if REFERENCE in policy.model.lm.peft_config:
        policy.model.lm.delete_adapter(REFERENCE)
    policy.model.eval()
    return trainer.state.log_history


def train_adapters(
    base: str | Path,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    rewards: Mapping[str, RewardFunction],
    folder: str | Path,
    *,
    beta: float,
    lora: dict[str, Any] | None = None,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Path]:
    """Train one adapter for each reward, each from the same beginning, and save each as a policy.

    Args:
        base: Hub id or folder of the language model.
        tokenizer: Its tokenizer.
        prompts: What all of them write answers to.
        rewards: Reward function of each cluster, by the name that its folder gets.
        folder: Gets a folder for each policy.
        beta: Weight of the KL divergence from the language model.
        lora: Settings of `peft.LoraConfig`.
        seed: Of the adapters' beginnings and of TRL's sampling.
        settings: As of `reinforce`.

    Returns:
        Folder of each policy.
    """
    folders = {}
    for name, reward in rewards.items():
        config = PersonalConfig(base=str(base), users={"kind": "uniform", "n_tokens": 0}, tuning="lora", lora=lora)
        policy = Policy(PersonalPolicy.make(config, seed=seed), tokenizer)
        folders[name] = Path(folder) / name
        reinforce(policy, prompts, reward, beta=beta, output_dir=folders[name] / "checkpoints", seed=seed, **settings)
        policy.save(folders[name])
    return folders


def rewards_of_clusters(reward: LinearReward) -> LinearReward:
    """The same rewards with the clusters as users, named "0", "1", ...; an unknown one gets the clusters' mixture.

    Raises:
        ConfigError: The users of the reward have no clusters.
    """
    users = reward.users
    if not isinstance(users, Clusters):
        raise ConfigError(f'the users are of kind "{users.kind}", which has no clusters; fit the cluster rung')
    clusters = replace(users, membership=torch.eye(users.n_clusters, dtype=users.theta.dtype), soft=False)
    return replace(reward, users=clusters, user_ids=tuple(str(k) for k in range(users.n_clusters)))
