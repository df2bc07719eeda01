"""What a personal reward gains on items never seen in training, by the number of comparisons per user.

    python benchmarks/unseen_items.py jester data/jester5k --encoder st:all-MiniLM-L6-v2
    python benchmarks/unseen_items.py jester data/jester5k --encoder st:all-MiniLM-L6-v2 --pairs 200 --users 400
    python benchmarks/unseen_items.py jester data/jester5k --encoder st:all-MiniLM-L6-v2 --rungs basis individual

A data set of ratings implies hundreds of comparisons per user, of which its loader draws `pairs_per_user`. In each of
several splits a fifth of the items is held out; test rows compare two of them, training rows none. `pooled` chooses its
ridge, `basis` its rank and scale and `individual` its shrinkage by folds of items inside the training rows, "none"
among the candidates; of several rungs, each split also takes the one that those folds predict best. The same users and
splits serve every number of comparisons. Intervals are paired and clustered by user.

What is linear in the features lives in the span of the training items, so that everything is fitted in the coordinates
of that span, to the same optimum; and for `pooled` equal rows are one row with a weight.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pluralign import datasets
from pluralign.comparisons import Comparisons, split_by_item
from pluralign.evaluation import Predictions, combine_seeds, mean_interval, paired_difference
from pluralign.features import Design, used_items
from pluralign.inference.folds import folds_by_item
from pluralign.inference.pooled import fit_pooled
from pluralign.studies.features import FeatureSource
from pluralign.studies.ladder import LadderSettings, Rung, fit_ladder

RUNGS = ("basis", "individual")
SHOWN = ("rank", "ridge", "tau")


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Test predictions of one split, and what was chosen inside its training rows.

    Attributes:
        pooled: Of the reward for everybody.
        own: Of every rung.
        chosen: Settings of every rung.
        inside: What every rung gains over none on the decisions that folds hold out, in nats per decision.
    """

    pooled: Predictions
    own: dict[str, Predictions]
    chosen: dict[str, str]
    inside: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="A data set whose loader takes pairs_per_user.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--encoder", default="tfidf")
    parser.add_argument("--pairs", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--users", type=int, default=800, help="Drawn among those of the data set.")
    parser.add_argument("--rungs", choices=RUNGS, nargs="+", default=["individual"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 1, 2, 4, 8], help="Tried by `basis`.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test", type=float, default=0.2, help="Share of the items held out.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for pairs in given.pairs:
        start = time.process_time()
        table = draw_users(datasets.load(given.name, given.path, pairs_per_user=pairs), given.users)
        source = FeatureSource(table, given.encoder)
        splits = []
        for seed in range(given.seeds):
            settings = LadderSettings(ranks=tuple(given.ranks), seed=seed)
            splits.append(one_split(table, source, given.test, settings, tuple(given.rungs)))
        pooled = [split.pooled for split in splits]
        n_rows = len(combine_seeds(pooled))
        print(f"{pairs} comparisons drawn per user, {given.users} users, {n_rows:,} test rows in {given.seeds} splits")
        for rung in given.rungs:
            show(rung, [split.own[rung] for split in splits], pooled)
            print(f"    chosen: {', '.join(split.chosen[rung] for split in splits)}; ", end="")
            print(f"nats gained inside {np.round([split.inside[rung] for split in splits], 4).tolist()}")
        if len(given.rungs) > 1:
            best = [max(given.rungs, key=split.inside.__getitem__) for split in splits]
            mixed = [split.own[rung] for split, rung in zip(splits, best, strict=True)]
            show(f"the better inside ({', '.join(best)})", mixed, pooled)
        print(f"  {time.process_time() - start:.0f} s of CPU", flush=True)


def show(name: str, own: list[Predictions], pooled: list[Predictions]) -> None:
    """A rung's gain over `pooled`, over all splits and by split."""
    a, b = combine_seeds(own), combine_seeds(pooled)
    accuracy = [mean_interval(each, "accuracy").estimate for each in (b, a)]
    gain, nats = paired_difference(a, b, "accuracy"), paired_difference(a, b, "log_prob")
    by_split = [100 * paired_difference(p, q, "accuracy").estimate for p, q in zip(own, pooled, strict=True)]
    print(f"  {name}: accuracy {accuracy[0]:.3f} pooled, {accuracy[1]:.3f} own")
    print(f"    gain {100 * gain.estimate:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}] points, ", end="")
    print(f"{nats.estimate:+.4f} [{nats.low:+.4f}, {nats.high:+.4f}] nats; ", end="")
    print(f"points by split {np.round(by_split, 1).tolist()}")


def draw_users(table: Comparisons, n_users: int) -> Comparisons:
    """The rows of users drawn at random, the same ones whatever was drawn of theirs."""
    names = np.array(sorted(table.user_ids))
    kept = np.random.default_rng(0).permutation(names)[:n_users]
    return table.take(np.flatnonzero(np.isin(np.array(table.user_ids), kept)[table.user]))


def one_split(
    table: Comparisons, source: FeatureSource, test: float, settings: LadderSettings, names: tuple[str, ...]
) -> Split:
    """Fit `pooled` and the rungs named to the training rows of the split numbered `settings.seed`."""
    split = split_by_item(table, test, seed=settings.seed)
    train = table.take(split.train)
    features = source.of(train)[2].double()
    _, size, axes = torch.linalg.svd(features[used_items(train)], full_matrices=False)
    features = features @ axes[size > 1e-5 * size[0]].T
    design, held = Design.of(train, features), Design.of(table.take(split.test), features)
    tallied = tally(train, features)
    pooled, report = fit_pooled(tallied, folds=folds_by_item(tallied, 4, settings.seed))
    folds = folds_by_item(design, 4, settings.seed)
    rungs = fit_ladder(design, folds, replace(settings, ridge=report.ridge), names)
    return Split(
        pooled=pooled.predict(held),
        own={name: rungs[name].model.predict(held) for name in names},
        chosen={name: in_words(rungs[name]) for name in names},
        inside={name: gain_inside(rungs[name]) for name in names},
    )


def in_words(rung: Rung) -> str:
    """What a rung chose."""
    return " ".join(f"{name} {value:.3g}" for name, value in rung.settings.items() if name in SHOWN)


def gain_inside(rung: Rung) -> float:
    """Held-out log-probability of the candidate taken less that of the first, which is no personalisation."""
    log_prob = [row["log_prob"] for row in rung.choice]
    return max(log_prob) - log_prob[0]


def tally(table: Comparisons, features: torch.Tensor) -> Design:
    """The rows that differ, each with its count as weight: all that a reward for everybody needs to know."""
    rows = np.stack([table.chosen, table.rejected], axis=1)
    _, first, count = np.unique(rows, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return replace(Design.of(table.take(first[order]), features), weight=torch.as_tensor(count[order]).to(features))


if __name__ == "__main__":
    main()
