"""One policy per cluster by Algorithm 1 (arXiv 2601.20760) on users of two planted tastes: are the groups found, and
does the policy of each user's cluster rank answers as the user's true taste does?"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from pluralign.evaluation import mean_interval
from pluralign.populations import dialogues as ours
from pluralign.training.cluster_policies import train_cluster_policies
from pluralign.users import predict_decisions

GROUPS = ("majority", "minority")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", choices=("features", "random"), default="features")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--out", type=Path, default=Path("studies/dialogues-clusters"))
    given = parser.parse_args()
    world = ours.simulate_dialogues(
        n_users=40, comparisons_per_user=100, n_topics=4, noise=0.03, shares=[0.7, 0.3], test=0.4, seed=given.seed
    )
    begin, out = time.process_time(), given.out / f"{given.start}-{given.seed}"
    found = train_cluster_policies(
        world.train,
        ours.embedded_language_model(settings="small", n_topics=4),
        n_clusters=2,
        max_rounds=given.rounds,
        start=given.start,
        seed=given.seed,
        out=out,
        args={
            "per_device_train_batch_size": 16,
            "learning_rate": 3e-3,
            "num_train_epochs": given.epochs,
            "lr_scheduler_type": "cosine",
            "logging_strategy": "no",
            "disable_tqdm": True,
        },
    )
    margin, table, truth = found.margins(world.test), world.test, world.population
    where = dict(zip(found.user_ids, found.cluster.tolist(), strict=True))
    cluster = np.array([where[name] for name in table.user_ids])[table.user]
    pull = ((truth.features[table.chosen] - truth.features[table.rejected]) * truth.tastes.theta[table.user]).sum(1)
    said = margin[np.arange(len(table)), cluster]
    share = {}
    for number, group in enumerate(GROUPS):
        rows = np.flatnonzero(world.cluster[table.user] == number)
        own, oracle = (mean_interval(predict_decisions(table.take(rows), each[rows])).estimate for each in (said, pull))
        share[group] = round(own / oracle, 3)
    result = {
        "of the oracle's accuracy": share,
        "adjusted Rand index": adjusted_rand_score(world.cluster, [where[name] for name in world.train.user_ids]),
        "moved": [each.moved for each in found.rounds],
        "log-likelihood": [each.log_likelihood for each in found.rounds],
        "CPU s": round(time.process_time() - begin),
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
