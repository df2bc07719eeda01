"""Unseen people: latent users against the exact low-rank posterior, on the same rows.

    python benchmarks/latent_people.py DATASET FOLDER [--seeds 2] [--users 200] [--split source]
        [--encoder auto] [--pieces N]

DATASET is a name of `pluralign.datasets`, FOLDER holds its files. 30 % of the users are kept out of training and
placed from m = 4 and 16 of their own decisions; prints accuracy of every rung, and what `latent` gains, paired and
clustered by user.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pluralign.comparisons import Comparisons
from pluralign.datasets import load
from pluralign.evaluation import combine_seeds, paired_difference
from pluralign.studies.features import FeatureSource, say_nothing
from pluralign.studies.pipeline import run_seed
from pluralign.studies.settings import StudySettings

RUNGS = ("pooled", "basis", "individual", "latent")


def cut(table: Comparisons, size: int) -> Comparisons:
    """Each user's rows, shuffled, as those of several users with `size` rows each; the rest is left out."""
    order = np.random.default_rng(0).permutation(len(table))
    order = order[np.argsort(table.user[order], kind="stable")]
    place = np.arange(len(order)) - np.searchsorted(table.user[order], table.user[order])
    piece = place // size
    whole = piece < np.bincount(table.user)[table.user[order]] // size
    names, user = np.unique(np.stack([table.user[order][whole], piece[whole]], axis=1), axis=0, return_inverse=True)
    rows = np.argsort(order[whole])
    cut = table.take(order[whole][rows])
    return replace(
        cut,
        user=user[rows].astype(np.int32),
        user_ids=tuple(f"{table.user_ids[u]}/{k}" for u, k in names.tolist()),
        users=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--users", type=int, default=200, help="at most so many, of those with 24 rows or more")
    parser.add_argument("--split", default="source")
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--pieces", type=int, help="deal each user's rows to users of so many: for data of few users")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = load(args.dataset, args.folder)
    if args.pieces:
        table = cut(table, args.pieces)
    user, count = np.unique(table.user, return_counts=True)
    busy = np.random.default_rng(0).permutation(user[count >= 24])[: args.users]
    table = table.take(np.flatnonzero(np.isin(table.user, busy)))
    settings = StudySettings(
        encoder=args.encoder,
        rungs=RUNGS,
        seeds=args.seeds,
        split=args.split,
        unseen=0.3,
        contexts=(0, 4, 16),
        ranks=(0, 1, 2, 4),
    )
    source = FeatureSource(table, settings.encoder, cache_dir=None, device="cpu", on_step=say_nothing)
    seeds = []
    for seed in range(args.seeds):
        at = time.process_time()
        seeds.append(run_seed(table, settings, seed, source, say_nothing))
        latent = seeds[-1].rungs["latent"]["settings"]
        rank = seeds[-1].rungs["basis"]["settings"]["rank"]
        print(
            f"seed {seed}: {time.process_time() - at:.0f} s CPU, basis of rank {rank}, latent {latent['steps']} steps"
        )
        print(f"  {latent['words']}; counts {seeds[-1].counts}", flush=True)
    for m in (4, 16):
        if any(f"pooled/{m}" not in seed.unseen for seed in seeds):
            continue
        joined = {name: combine_seeds([seed.unseen[f"{name}/{m}"] for seed in seeds]) for name in RUNGS}
        print(f"m = {m}:", ", ".join(f"{name} {np.mean(each.correct):.4f}" for name, each in joined.items()))
        for name in RUNGS[:-1]:
            for what, scale in (("accuracy", 100), ("log_prob", 1)):
                gain = paired_difference(joined["latent"], joined[name], what)
                low, high = gain.low * scale, gain.high * scale
                print(f"  latent over {name}, {what}: {gain.estimate * scale:+.4f} ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
