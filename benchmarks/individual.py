"""The cost of individual users with their shrinkage estimated, as a multiple of one pooled fit.

    python benchmarks/individual.py [--rows 100000] [--dim 384] [--users 1000] [--items 100000] [--threads 1]

Prints CPU seconds of one pooled fit (`fit_heads`, one head) on a design nothing is known of and again, of a candidate
tau by the evidence of a sample of users, where the search begins, of all users, where it ends, and of the whole fit,
which also refits theta and computes every user's posterior variances. Ratios are to the first pooled fit; the whole fit
and the pooled one take turns `--repeats` times, of which the medians are printed. The last line divides the whole fit
by all its candidates (the limit is 3 pooled fits for each), and says the peak.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from pluralign.features import Design
from pluralign.inference.heads import fit_heads
from pluralign.inference.individual import MARGIN_SCALES, fit_individual, margin_unit
from pluralign.inference.offset_panel import OffsetPanel
from pluralign.likelihoods import Decisions, Logit


def make_design(rows: int, dim: int, users: int, items: int) -> Design:
    """Pairs of items with a decaying spectrum; user u prefers by theta + o_u with a margin's deviation of 1 each."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(items, dim, generator=g).mul_(torch.arange(1, dim + 1) ** -0.5)
    features /= features.square().sum(1).mean().sqrt() * 2**0.5  # a difference has length 1
    first = torch.randint(0, items, (rows,), generator=g)
    second = (first + torch.randint(1, items, (rows,), generator=g)) % items
    user = torch.randint(0, users, (rows,), generator=g).sort().values
    theta, offset = torch.randn(dim, generator=g), torch.randn(users, dim, generator=g)
    margin = torch.empty(rows)
    for at in range(0, rows, 10_000):
        here = slice(at, at + 10_000)
        margin[here] = ((features[first[here]] - features[second[here]]) * (theta + offset[user[here]])).sum(1)
    wins = torch.rand(rows, generator=g) < margin.sigmoid()
    return Design(
        features=features,
        chosen=torch.where(wins, first, second),
        rejected=torch.where(wins, second, first),
        decisions=Decisions(index=torch.arange(rows), outcome=torch.ones(rows), position=torch.zeros(rows)),
        user=user,
        weight=torch.ones(rows),
        source=torch.arange(rows),
        n_users=users,
    )


def unknown(design: Design) -> Design:
    """The same design, of which nothing has been found out."""
    return Design(**{name: getattr(design, name) for name in Design.__dataclass_fields__})


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    threadpool_limits(args.threads)
    design = make_design(args.rows, args.dim, args.users, args.items)
    ridge = torch.tensor([1.0])
    fit_heads(make_design(5_000, args.dim, 10, 5_000), ridge=ridge)  # warm
    theta = fit_heads(design, ridge=ridge).theta[0]
    sampled = 0
    solve = OffsetPanel.solve

    def counted(self: OffsetPanel, *args: object, **kwargs: object) -> object:
        nonlocal sampled
        sampled += self.users is not None
        return solve(self, *args, **kwargs)

    turns = []
    for _ in range(args.repeats):
        first, _ = timed(partial(fit_heads, fresh := unknown(design), ridge=ridge))
        again, _ = timed(partial(fit_heads, fresh, ridge=ridge))
        OffsetPanel.solve, sampled = counted, 0
        whole, fit = timed(partial(fit_individual, unknown(design), start=theta))
        OffsetPanel.solve = solve
        candidates = sampled + len(fit.taus)
        turns.append((first, again, whole, whole / first, whole / first / candidates))
    pooled, again, whole, times, each = (statistics.median(column) for column in zip(*turns, strict=True))
    print(f"{args.rows} rows, {args.dim} features, {args.users} users, {args.items} items, {args.threads} threads")
    print(f"pooled fit       {pooled:6.2f} s CPU, again {again:.2f}")
    panel, unit = OffsetPanel(design, Logit()), float(margin_unit(design))
    for name, some in (("sample", panel.sample), ("all", panel)):
        some.solve(theta, MARGIN_SCALES[1] / unit)  # forms the Gram matrices
        for scale in MARGIN_SCALES[2:5]:
            start = time.process_time()
            evidence = some.solve(theta, scale / unit)[0]
            seconds = time.process_time() - start
            print(f"tau {scale / unit:.3f}, {name:6s} {seconds:5.2f} s CPU ({seconds / pooled:4.1f}x)  {evidence:.1f}")
    print(f"whole fit        {whole:6.2f} s CPU: {times:.1f}x a pooled fit,", end=" ")
    print(f"{each:.1f}x for each of {candidates} candidates ({sampled} on a sample of users)")
    print(f"tau {float(fit.model.scale[0]):.3f} (planted 1), peak memory of the process", end=" ")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{peak:.0f} MiB, features {design.features.numel() * 4 / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
