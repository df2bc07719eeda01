"""The whole ladder on one table: seconds of every rung, as multiples of one pooled fit, and peak memory.

    python benchmarks/ladder.py                          # 100,000 comparisons x 384 features x 1,000 users
    python benchmarks/ladder.py --rows 20000 --users 200

Two readings of "the whole ladder with 20 restarts x K = 1..8". *Fits*: every rung once, clusters for every K from 20
restarts, the shrinkage of `individual` estimated. *Choices*: what a study's split does on top, everything chosen by
cross-validation inside the rows.
"""

import argparse
import resource
import time

import torch

from pluralign.features import Design
from pluralign.inference.basis import fit_basis
from pluralign.inference.clusters import fit_clusters, screen_users
from pluralign.inference.folds import folds_by_source
from pluralign.inference.individual import fit_individual
from pluralign.inference.pooled import fit_pooled
from pluralign.inference.reliability import fit_reliability
from pluralign.populations import simulate
from pluralign.studies.ladder import LadderSettings, fit_ladder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 100_000), ("users", 1_000), ("dim", 384), ("starts", 20), ("clusters", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--choices", action="store_true", help="Also time the choices, which take several times longer."
    )
    given = parser.parse_args()

    population = simulate(
        n_users=given.users,
        comparisons_per_user=given.rows // given.users,
        features="numeric",
        dim=given.dim,
        n_prompts=given.rows // 8,
        n_clusters=3,
    )
    features = torch.as_tensor(population.features, dtype=torch.float32)
    design = Design.of(population.comparisons, features)
    size = features.numel() * features.element_size() / 2**20
    print(f"{design.n_decisions:,} comparisons, {features.shape[0]:,} items x {given.dim} ({size:.0f} MiB)")
    print(f"{given.users:,} users, {torch.get_num_threads()} threads")

    start = time.perf_counter()
    pooled, report = fit_pooled(design)
    say("ridge path, 5 folds", start, None)
    start = time.perf_counter()
    fit_pooled(design, ridge=report.ridge)
    unit = say("pooled, ridge given", start, None)
    everything = time.perf_counter()
    start = time.perf_counter()
    fit_reliability(design, ridge=report.ridge)
    say("reliability", start, unit)
    start = time.perf_counter()
    screen = screen_users(design, ridge=report.ridge, center=pooled.theta)
    for k in range(1, given.clusters + 1):
        fit_clusters(
            design, k, ridge=report.ridge, center=pooled.theta, n_starts=given.starts, screen=screen if k > 1 else None
        )
    say(f"soft clusters, {given.starts} starts x K = 1..{given.clusters}", start, unit)
    start = time.perf_counter()
    fit_basis(design, 4, ridge=report.ridge)
    say("basis of rank 4", start, unit)
    start = time.perf_counter()
    fit_individual(design, ridge=report.ridge)
    say("individual, shrinkage estimated", start, unit)
    say("all fits", everything, unit)
    if given.choices:
        start = time.perf_counter()
        settings = LadderSettings(clusters=tuple(range(1, given.clusters + 1)), starts=given.starts)
        fit_ladder(design, folds_by_source(design, 4, 0), settings)
        say("the ladder with its choices", start, unit)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak memory of the process {peak:,.0f} MiB, simulation included: {peak / size:.1f} x the features")


def say(what: str, start: float, unit: float | None) -> float:
    """Print the seconds since `start`, and how many pooled fits they are."""
    seconds = time.perf_counter() - start
    print(f"{what:42s} {seconds:8.2f} s" + ("" if unit is None else f" {seconds / unit:8.1f} x pooled"), flush=True)
    return seconds


if __name__ == "__main__":
    main()
