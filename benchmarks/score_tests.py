"""Time both score tests, and a loop that refits the pooled model for every draw.

    python benchmarks/score_tests.py --rows 100000 --dim 384 --users 1000 --draws 1000

The loop is measured on `--loop` draws: each draws answers, refits theta from the old one, and adds the users' scores up
one after the other, for one of the two tests. The ratio is that of both tests to twice the loop, draw for draw.
"""

import argparse
import time
from dataclasses import replace

import torch

from pluralign.features import Design
from pluralign.heterogeneity import score_tests
from pluralign.inference.heads import fit_heads
from pluralign.inference.pooled import fit_pooled
from pluralign.populations import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 100_000), ("users", 1_000), ("dim", 384), ("draws", 1_000), ("loop", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shared", action="store_true", help="everybody answers the same questions: permutations too")
    given = parser.parse_args()
    population = simulate(
        n_users=given.users,
        comparisons_per_user=given.rows // given.users,
        features="numeric",
        dim=given.dim,
        n_prompts=given.rows // 8,
        kind="null",
        same_prompts=given.shared,
    )
    design = Design.of(population.comparisons, torch.as_tensor(population.features, dtype=torch.float32))
    print(f"{design.n_decisions:,} comparisons x {given.dim}, {given.users:,} users, {torch.get_num_threads()} threads")
    pooled, report = fit_pooled(design)

    start, cpu = time.perf_counter(), time.process_time()
    tests = score_tests(design, ridge=report.ridge, n_draws=given.draws)
    took, busy = time.perf_counter() - start, time.process_time() - cpu
    print(f"both tests, {given.draws:,} draws: {took:.1f} s of wall time, {busy:.1f} s of CPU time")
    print(f"  permutations: {tests.taste.n_permuted}; taste p = {tests.taste.p_bootstrap:.3f}")

    cpu = time.process_time()
    for seed in range(given.loop):
        refit_and_score(design, pooled.theta, report.ridge, seed)
    each = (time.process_time() - cpu) / given.loop
    whole = 2 * each * given.draws
    print(f"the loop: {each:.2f} s of CPU time a draw, {whole:,.0f} s for both tests: {whole / busy:.0f} times as long")


def refit_and_score(design: Design, theta: torch.Tensor, ridge: float, seed: int) -> float:
    """One draw of the statistic as one would write it down."""
    generator = torch.Generator().manual_seed(seed)
    margin = design.margins(theta[None])[:, 0]
    answer = (torch.rand(len(margin), generator=generator) < torch.sigmoid(margin)).to(margin)
    again = replace(design, decisions=replace(design.decisions, outcome=answer))
    fit = fit_heads(again, ridge=theta.new_tensor([ridge]), start=theta[None])
    residual = answer - torch.sigmoid(again.margins(fit.theta)[:, 0])
    order = design.user.argsort(stable=True)
    total = 0.0
    for rows in order.split(torch.bincount(design.user, minlength=design.n_users).tolist()):
        each = design.differences(rows) * residual[rows, None]
        total += float(each.sum(0).square().sum() - each.square().sum())
    return total


if __name__ == "__main__":
    main()
