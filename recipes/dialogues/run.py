"""P-RM and P-DPO on users of two planted tastes, end to end on a language model that is trained here."""

import argparse
import json
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import ttest_1samp

from pluralign.evaluation import mean_interval
from pluralign.language_models.loading import load_tokenizer
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.policies.best_of_n import choose_best
from pluralign.policies.evaluation import evaluate_policy, evaluate_reward, predict_decisions
from pluralign.policies.policy import Policy
from pluralign.populations.dialogues import AXES, Dialogues, embedded_language_model, parse_styles, read_style
from pluralign.populations.dialogues import simulate_dialogues as simulate
from pluralign.rewards.transformer import TransformerReward
from pluralign.training.train import train_policy, train_reward

HERE, GROUPS = Path(__file__).parent, ("majority", "minority")


def accuracies(shipped: Policy | TransformerReward, world: Dialogues) -> dict[str, Any]:
    """For each group's held-out choices: their own models' accuracy, the generic user's, the oracle's."""
    table, truth, found = world.test, world.population, {}
    evaluate = evaluate_policy if isinstance(shipped, Policy) else evaluate_reward
    for number, group in enumerate(GROUPS):
        rows = table.take(world.cluster[table.user] == number)
        said = evaluate(shipped, rows, control=False)
        pull = truth.features[rows.chosen] - truth.features[rows.rejected]
        oracle = mean_interval(predict_decisions(rows, (pull * truth.tastes.theta[rows.user]).sum(1)))
        found[group] = {"own": said.top.as_dict(), "generic": said.generic_all.as_dict(), "oracle": oracle.estimate}
    return found


def describe(world: Dialogues, prompts: list[str], texts: np.ndarray, user: np.ndarray) -> dict[str, Any]:
    """What each group is given: share of each style, of texts that make sense, and reward; of (users, prompts, k)."""
    found = {}
    texts = np.broadcast_to(texts, (len(user), *texts.shape[1:]))
    for number, group in enumerate(GROUPS):
        mine = world.cluster[user] == number
        said, asked = texts[mine].ravel().tolist(), np.broadcast_to(np.array(prompts)[:, None], texts[mine].shape)
        reader = np.broadcast_to(user[mine, None, None], texts[mine].shape).ravel()
        reward = world.reward(asked.ravel().tolist(), said, reader).reshape(texts[mine].shape).mean((0, 2))
        style = dict(zip(AXES, read_style(said).mean(0).tolist(), strict=True))
        sense = float((parse_styles(asked.ravel().tolist(), said) >= 0).mean())
        found[group] = {**style, "sense": sense, "reward": float(reward.mean()), "by prompt": reward.tolist()}
    return found


def more(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[float]]:
    """How much more reward one gives than the other, paired by prompt: mean, low, high."""
    found = {}
    for group in GROUPS:
        gain = np.subtract(one[group]["by prompt"], other[group]["by prompt"])
        ends = ttest_1samp(gain, 0).confidence_interval(0.95) if gain.std() else (gain.mean(), gain.mean())
        found[group] = [float(each) for each in (gain.mean(), *ends)]
    return found


def study(config: dict[str, Any], seed: int, out: Path) -> dict[str, Any]:
    """Train every model on one population; what it says for each group, or chooses for it among the base's samples."""
    world, settings = simulate(**config["population"], seed=seed), config["writing"]
    base = embedded_language_model(settings=config["model"], n_topics=config["population"]["n_topics"])
    asked = {world.test.items.prompts[i].as_py() for i in world.test.items.prompt[world.test.chosen]}
    prompts = sorted(asked)[: settings["prompts"]]
    user = np.concatenate([np.flatnonzero(world.cluster == number)[: settings["users"]] for number in range(2)])
    names = [world.comparisons.user_ids[i] for i in user]

    def write(policy: Policy, readers: list[Any], **sampling: Any) -> np.ndarray:
        whom = np.repeat(readers, len(prompts)).tolist()
        rows = policy.generate(prompts * len(readers), whom, max_new_tokens=settings["max_new_tokens"], **sampling)
        return np.array([[each.text for each in row] for row in rows]).reshape(len(readers), len(prompts), -1)

    def choose(reward: TransformerReward, readers: list[Any]) -> np.ndarray:
        whom = np.repeat(readers, len(prompts)).tolist()
        best = choose_best(prompts * len(readers), whom, candidates[0].tolist() * len(readers), reward)
        return np.array(best.texts).reshape(len(readers), len(prompts), 1)

    plain = PersonalPolicy.make(PersonalConfig(base=str(base), tuning="frozen"))
    candidates = write(Policy(plain, load_tokenizer(base)), [None], do_sample=True, **settings["sampling"])
    found: dict[str, Any] = {"base": {"users": describe(world, prompts, candidates, user)}}
    for name, run in config["runs"].items():
        began, is_reward = time.process_time(), run["kind"] == "reward"
        model, tokenizer = (train_reward if is_reward else train_policy)(
            world.train, base, out=out / str(seed) / name, args={**config["args"], **run["args"]},
            **{**run["settings"], "seed": seed}, resume=False,
        )  # fmt: skip
        shipped = TransformerReward(model=model, tokenizer=tokenizer) if is_reward else Policy(model, tokenizer)
        found[name] = {"seconds": time.process_time() - began, "accuracy": accuracies(shipped, world)}
        for whom, readers in (("users", names), ("stranger", [None])) if run.get("writes", True) else ():
            texts = choose(shipped, readers) if is_reward else write(shipped, readers)
            found[name][whom] = describe(world, prompts, texts, user)
            found[name][whom]["over base"] = more(found[name][whom], found["base"]["users"])
        print(seed, name, json.dumps({**found[name], "seconds": round(found[name]["seconds"])}), flush=True)
    return found


def main() -> None:
    """Run all seeds, keep what they find, and compare it with what is expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("studies/dialogues"), help="folder of models and results")
    parser.add_argument("--seed", type=int, help="one seed of those in config.yaml")
    given = parser.parse_args()
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")}
    for seed in config["seeds"] if given.seed is None else [given.seed]:
        record = {"config": config, "commit": commit, "versions": versions, "found": study(config, seed, given.out)}
        (given.out / f"{seed}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
