"""What a personal reward gains on items never seen in training, by the number of comparisons per user.

    python benchmarks/unseen_items.py jester data/jester5k --encoder st:all-MiniLM-L6-v2
    python benchmarks/unseen_items.py jester data/jester5k --encoder st:all-MiniLM-L6-v2 --pairs 200 --users 400

A data set of ratings implies hundreds of comparisons per user, of which its loader draws `pairs_per_user`. In each of
several splits a fifth of the items is held out; test rows compare two of them, training rows none. `pooled` chooses its
ridge and `individual` its shrinkage by folds of items inside the training rows, "none" among the candidates; the same
users and splits serve every number of comparisons. Intervals are paired and clustered by user.

What is linear in the features lives in the span of the training items, so that everything is fitted in the coordinates
of that span, to the same optimum; and for `pooled` equal rows are one row with a weight.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pluralign import datasets
from pluralign.comparisons import Comparisons, split_by_item
from pluralign.evaluation import Predictions, combine_seeds, mean_interval, paired_difference
from pluralign.features import Design, used_items
from pluralign.inference.folds import folds_by_item
from pluralign.inference.gaussian_choice import choose_tau
from pluralign.inference.individual import fit_individual
from pluralign.inference.pooled import fit_pooled
from pluralign.studies.features import FeatureSource


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="A data set whose loader takes pairs_per_user.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--encoder", default="tfidf")
    parser.add_argument("--pairs", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--users", type=int, default=800, help="Drawn among those of the data set.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", type=float, default=0.2, help="Share of the items held out.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for pairs in given.pairs:
        start = time.process_time()
        table = draw_users(datasets.load(given.name, given.path, pairs_per_user=pairs), given.users)
        source = FeatureSource(table, given.encoder)
        own, pooled, scales = [], [], []
        for seed in range(given.seeds):
            a, b, scale = one_split(table, source, given.test, seed)
            own.append(a)
            pooled.append(b)
            scales.append(scale)
        a, b = combine_seeds(own), combine_seeds(pooled)
        accuracy = [each.estimate for each in (mean_interval(b, "accuracy"), mean_interval(a, "accuracy"))]
        gain, nats = paired_difference(a, b, "accuracy"), paired_difference(a, b, "log_prob")
        by_split = [100 * paired_difference(p, q, "accuracy").estimate for p, q in zip(own, pooled, strict=True)]
        print(f"{pairs} comparisons drawn per user, {given.users} users, {len(a):,} test rows in {given.seeds} splits")
        print(f"  accuracy {accuracy[0]:.3f} pooled, {accuracy[1]:.3f} individual; tau {np.round(scales, 4).tolist()}")
        print(f"  gain {100 * gain.estimate:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}] points, ", end="")
        print(f"{nats.estimate:+.4f} [{nats.low:+.4f}, {nats.high:+.4f}] nats")
        seconds = time.process_time() - start
        print(f"  points by split {np.round(by_split, 1).tolist()}; {seconds:.0f} s of CPU", flush=True)


def draw_users(table: Comparisons, n_users: int) -> Comparisons:
    """The rows of users drawn at random, the same ones whatever was drawn of theirs."""
    names = np.array(sorted(table.user_ids))
    kept = np.random.default_rng(0).permutation(names)[:n_users]
    return table.take(np.flatnonzero(np.isin(np.array(table.user_ids), kept)[table.user]))


def one_split(
    table: Comparisons, source: FeatureSource, test: float, seed: int
) -> tuple[Predictions, Predictions, float]:
    """Test predictions of `individual` and of `pooled`, and the tau chosen."""
    split = split_by_item(table, test, seed=seed)
    train = table.take(split.train)
    features = source.of(train)[2].double()
    _, size, axes = torch.linalg.svd(features[used_items(train)], full_matrices=False)
    features = features @ axes[size > 1e-5 * size[0]].T
    design, held = Design.of(train, features), Design.of(table.take(split.test), features)
    tallied = tally(train, features)
    pooled, report = fit_pooled(tallied, folds=folds_by_item(tallied, 4, seed))
    choice = choose_tau(design, ridge=report.ridge, folds=folds_by_item(design, 4, seed))
    own = fit_individual(design, ridge=report.ridge, tau=choice.best, start=pooled.theta).model
    return own.predict(held), pooled.predict(held), choice.best


def tally(table: Comparisons, features: torch.Tensor) -> Design:
    """The rows that differ, each with its count as weight: all that a reward for everybody needs to know."""
    rows = np.stack([table.chosen, table.rejected], axis=1)
    _, first, count = np.unique(rows, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return replace(Design.of(table.take(first[order]), features), weight=torch.as_tensor(count[order]).to(features))


if __name__ == "__main__":
    main()
