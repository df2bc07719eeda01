"""2601.20760 as its experiments went: user embeddings learned with a reward, groups, a reward model for each group."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from pluralign import datasets
from pluralign.cli.language import find_base
from pluralign.comparisons import Comparisons, split_by_source
from pluralign.evaluation import mean_interval, paired_difference
from pluralign.files import write_json
from pluralign.populations import simulate_dialogues
from pluralign.rewards.transformer import TransformerReward
from pluralign.studies.settings import read_yaml
from pluralign.training.train import train_reward

HERE = Path(__file__).parent
VANILLA = {"users": {"kind": "uniform", "n_tokens": 0}, "alpha": 0.0}


def train(rows: Comparisons, base: str, config: dict[str, Any], out: Path, seed: int, **own: Any) -> TransformerReward:
    """A reward model; the vanilla one is a linear head, which is a late head without users."""
    head = "linear" if own.get("alpha") == 0.0 else config["settings"]["head"]
    settings = {**config["settings"], **own, "head": head, "seed": seed}
    train_reward(rows, base, out=out, args={**config["training"], "seed": seed}, **settings)
    return TransformerReward.load(out)


def of_users(table: Comparisons, users: np.ndarray) -> Comparisons:
    """The rows of some users."""
    return table.take(np.isin(table.user, users))


def run(config: dict[str, Any], table: Comparisons, base: str, out: Path, seed: int, width: int) -> dict[str, Any]:
    """One split: naive and group models on each group's own held-out rows."""
    split = split_by_source(table, config["test"], seed=seed)
    learn, test = table.take(split.train), table.take(split.test)
    naive = train(learn, base, config, out / "naive", seed, **VANILLA)
    users = {"kind": "basis", "n_tokens": 1, "rank": width}
    personal = train(learn, base, config, out / f"width_{width}", seed, users=users, alpha=1.0)
    embedding = normalize(personal.model.users.get_parameter("weight").numpy(force=True))  # cosine similarity
    group = KMeans(config["groups"], n_init=20, random_state=seed).fit_predict(embedding)
    number = np.array([personal.user_ids.index(name) if name in personal.user_ids else -1 for name in table.user_ids])
    rows = []
    for each in range(config["groups"]):
        members = np.flatnonzero((number >= 0) & (group[number] == each))
        held = of_users(test, members)
        theirs = train(of_users(learn, members), base, config, out / f"width_{width}_group_{each}", seed, **VANILLA)
        own, pooled = theirs.predict(held), naive.predict(held)
        gain = paired_difference(own, pooled, "accuracy")
        rows.append({"group": each, "users": [table.user_ids[i] for i in members], "own": mean_interval(own)})
        rows[-1] |= {"naive": mean_interval(pooled), "own_minus_naive": gain}
        points = ", ".join(f"{100 * each.correct.mean():.2f}" for each in (own, pooled))
        told = f"{100 * gain.estimate:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"
        print(f"width {width}, group {each}, {len(members)} users: own, naive {points}; {told}", flush=True)
    return {"seed": seed, "width": width, "naive": mean_interval(naive.predict(test)), "groups": rows, "group": group}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, help="folder of the raw batches; without it the hub's copy")
    parser.add_argument("--base", help="language model, a hub id or a folder")
    parser.add_argument("--out", type=Path, default=Path("studies/tldr_finetuned"))
    parser.add_argument("--twin", action="store_true", help="simulated users and the embedded language model")
    given = parser.parse_args()
    config: dict[str, Any] = read_yaml(HERE / ("finetuned_twin.yaml" if given.twin else "finetuned.yaml"))
    told = simulate_dialogues(**config["dialogues"]) if given.twin else None
    table = told.comparisons if told else datasets.load("tldr", given.path, **config["data"])
    base = find_base(given.base or config["base"], progress=True)
    pairs = [(seed, width) for seed in config["seeds"] for width in config["widths"]]
    found = [run(config, table, base, given.out / str(seed), seed, width) for seed, width in pairs]
    if told is not None:
        print(f"groups against the planted ones: ARI {adjusted_rand_score(told.cluster, found[0]['group']):.2f}")
    write_json(given.out / "results.json", {"config": config, "runs": found})


if __name__ == "__main__":
    main()
