"""P-RLHF's Tables 1 and 2: reward models and policies for ten TL;DR workers, or for simulated users (the twin)."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from pluralign import datasets
from pluralign.cli.language import find_base
from pluralign.comparisons import Comparisons
from pluralign.files import write_json
from pluralign.policies.evaluation import Evaluation, evaluate_policy, evaluate_reward
from pluralign.policies.policy import Policy
from pluralign.populations import simulate_dialogues
from pluralign.rewards.transformer import TransformerReward
from pluralign.studies.settings import read_yaml
from pluralign.training.train import train_policy, train_reward

HERE = Path(__file__).parent


def load(config: dict[str, Any], path: Path | None) -> tuple[Comparisons, Comparisons]:
    """Comparisons to learn from and held-out ones; posts of TL;DR's validation rows are not in its training rows."""
    if "dialogues" in config:
        told = simulate_dialogues(**config["dialogues"])
        return told.train, told.test
    table = datasets.load("tldr", path, filter="sup", top_workers=10, unseen=True, prompt_format="p-rlhf")
    train = np.asarray(table.split == "train")
    return table.take(train), table.take(~train)


def run(config: dict[str, Any], train: Comparisons, test: Comparisons, base: str, out: Path, seed: int) -> list[Any]:
    """Both tables for one seed: every model, and what it gains over the vanilla one, on the same rows."""
    rows = []
    for method, own in config["methods"].items():
        vanilla: Any = None
        for name, model in config["models"].items():
            folder = out / str(seed) / method / name.replace(" ", "_").replace(",", "")
            beta = {"beta": own["beta"]} if method == "P-DPO" else {}
            settings = {**config["shared"], **model, **beta, "seed": seed}
            args = {
                **config["training"],
                "learning_rate": own["learning_rate"],
                "seed": seed,
                **config.get("limit", {}),
            }
            if method == "P-RM":
                train_reward(train, base, out=folder, args=args, **settings)
                shipped: Any = TransformerReward.load(folder)
                found = evaluate_reward(shipped, test, pooled=vanilla)
            else:
                train_policy(train, base, out=folder, args=args, **settings)
                shipped = Policy.load(folder)
                found = evaluate_policy(shipped, test, pooled=vanilla)
            rows.append({"method": method, "model": name, "seed": seed, **found.as_dict()})
            print(f"{method:6s} {name:22s} {describe(found, vanilla is not None)}", flush=True)
            vanilla = vanilla or shipped
    return rows


def describe(found: Evaluation, compared: bool) -> str:
    """Top / average ± SD / generic of unseen users, and what is gained over the vanilla model on the same rows."""
    shown = [found.top.estimate if found.top else float("nan"), found.average, found.average_sd]
    told = "{:.2f} / {:.2f} ± {:.2f}".format(*(100 * each for each in shown))
    if found.generic_unseen is not None:
        told += f" / {100 * found.generic_unseen.estimate:.2f}"
    for row in found.table.rows if compared and found.table is not None else ():
        if row.name == "personal":
            gain = row.gains["accuracy"]
            told += f"   {100 * gain.estimate:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, help="folder of the raw batches; without it the hub's copy")
    parser.add_argument("--base", help="language model, a hub id or a folder")
    parser.add_argument("--out", type=Path, default=Path("studies/p_rlhf"))
    parser.add_argument("--twin", action="store_true", help="simulated users and the embedded language model")
    given = parser.parse_args()
    config: dict[str, Any] = read_yaml(HERE / ("twin.yaml" if given.twin else "config.yaml"))
    train, test = load(config, given.path)
    base = find_base(given.base or config["base"], progress=True)
    print("model: top / average ± SD / generic of unseen users   top over vanilla [95 %]")
    rows = [row for seed in config["seeds"] for row in run(config, train, test, base, given.out, seed)]
    write_json(given.out / "results.json", {"config": config, "rows": rows})


if __name__ == "__main__":
    main()
