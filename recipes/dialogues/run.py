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

from pluralign import fit
from pluralign.evaluation import mean_interval
from pluralign.language_models.loading import load_tokenizer
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.policies.best_of_n import choose_best
from pluralign.policies.evaluation import evaluate_policy, evaluate_reward
from pluralign.policies.policy import Policy
from pluralign.populations import dialogues as ours
from pluralign.rewards.transformer import TransformerReward
from pluralign.training.train import train_policy, train_reward
from pluralign.users import predict_decisions

HERE, GROUPS = Path(__file__).parent, ("majority", "minority")


def accuracies(shipped: Policy | TransformerReward, world: ours.Dialogues) -> dict[str, Any]:
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


def describe(world: ours.Dialogues, prompts: list[str], texts: np.ndarray, user: np.ndarray, base: Any) -> Any:
    """What each group is given, texts (users, prompts, k): styles, share that makes sense, reward and its gain."""
    found, texts = {}, np.broadcast_to(texts, (len(user), *texts.shape[1:]))
    asked, reader = (np.broadcast_to(each, texts.shape) for each in (np.array(prompts)[:, None], user[:, None, None]))
    for number, group in enumerate(GROUPS):
        mine = world.cluster[user] == number
        prompt, said, whose = (each[mine].ravel() for each in (asked, texts, reader))
        reward = world.reward(prompt, said, whose).reshape(texts[mine].shape).mean((0, 2))
        found[group] = dict(zip(ours.AXES, ours.read_style(said).mean(0).tolist(), strict=True))
        found[group]["sense"] = float((ours.parse_styles(prompt, said) >= 0).mean())
        found[group] |= {"reward": float(reward.mean()), "by prompt": reward.tolist()}
        for name, other in base.items():  # how much more reward, paired by prompt: mean, low, high
            gain = reward - other[group]["by prompt"]
            ends = ttest_1samp(gain, 0).confidence_interval(0.95) if gain.std() else (gain.mean(), gain.mean())
            found[group][f"over {name}"] = [float(each) for each in (gain.mean(), *ends)]
    return found


def study(config: dict[str, Any], seed: int, out: Path) -> dict[str, Any]:
    """Train every model on one population; what it says for each group, or chooses for it among the base's samples."""
    world, settings = ours.simulate_dialogues(**config["population"], seed=seed), config["writing"]
    base = ours.embedded_language_model(settings=config["model"], n_topics=config["population"]["n_topics"])
    prompts = [world.test.source_ids[i] for i in np.unique(world.test.source)[: settings["prompts"]]]
    user = np.concatenate([np.flatnonzero(world.cluster == number)[: settings["users"]] for number in range(2)])
    plain = Policy(PersonalPolicy.make(PersonalConfig(base=str(base), tuning="frozen")), load_tokenizer(base))
    asked, names = prompts * len(user), np.repeat([world.comparisons.user_ids[i] for i in user], len(prompts)).tolist()

    def write(policy: Policy, **sampling: Any) -> np.ndarray:
        whom = names if sampling == {} else [None] * len(prompts)
        rows = policy.generate(asked[: len(whom)], whom, max_new_tokens=settings["max_new_tokens"], **sampling)
        return np.array([[each.text for each in row] for row in rows]).reshape(-1, len(prompts), len(rows[0]))

    candidates = write(plain, do_sample=True, **settings["sampling"])
    found: dict[str, Any] = {"base": {"writes": describe(world, prompts, candidates, user, {})}}
    for name, run in config["runs"].items():
        began, reward = time.process_time(), run["kind"] == "reward"
        train, ship = (train_reward, TransformerReward) if reward else (train_policy, Policy)
        more = {"args": {**config["args"], **run["args"]}, "seed": seed, "resume": False, **run["settings"]}
        if "fit" in run:
            fitted = fit(world.train, **run["fit"]).reward
            assignment = dict(zip(fitted.user_ids, fitted.users.membership.argmax(1).tolist(), strict=True))
            more["users"] = {**more["users"], "assignment": assignment}
        model, tokenizer = train(world.train, base, out=out / str(seed) / name, **more)
        shipped = ship(model=model, tokenizer=tokenizer)
        found[name] = {"seconds": time.process_time() - began, "accuracy": accuracies(shipped, world)}
        if reward:
            best = choose_best(asked, names, candidates[0].tolist() * len(user), shipped).texts
        texts = np.array(best).reshape(len(user), -1, 1) if reward else write(shipped)
        beside = {each: found[each]["writes"] for each in ("base", "RM", "DPO") if "writes" in found.get(each, {})}
        found[name]["writes"] = describe(world, prompts, texts, user, beside)
        print(seed, name, json.dumps(found[name]), flush=True)
    return found


def main() -> None:
    """Run all seeds and keep what they find."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("studies/dialogues"), help="folder of models and results")
    out = parser.parse_args().out
    config = yaml.safe_load((HERE / "config.yaml").read_text())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")}
    for seed in config["seeds"]:
        record = {"config": config, "commit": commit, "versions": versions, "found": study(config, seed, out)}
        (out / f"{seed}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
