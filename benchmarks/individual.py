"""The cost of individual users with their shrinkage estimated, as a multiple of one pooled fit.

    python benchmarks/individual.py [--rows 100000] [--dim 384] [--users 1000] [--items 100000] [--threads 1]

Prints CPU seconds of one pooled fit (`fit_heads`, one head) on a design nothing is known of and again, of a candidate
tau by the evidence of a sample of users, where the search begins, of all users, where it ends, and of the whole fit,
which also refits theta and computes every user's posterior variances. Ratios are to the first pooled fit. The issue's
limit is 3 pooled fits per candidate; the last line divides the whole fit by all its candidates, and says the peak.
"""

import argparse
import resource
import time

import torch

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    design = make_design(args.rows, args.dim, args.users, args.items)
    ridge = torch.tensor([1.0])
    fit_heads(make_design(5_000, args.dim, 10, 5_000), ridge=ridge)  # warm
    start = time.process_time()
    theta = fit_heads(design, ridge=ridge).theta[0]
    pooled = time.process_time() - start
    start = time.process_time()
    fit_heads(design, ridge=ridge)
    print(f"{args.rows} rows, {args.dim} features, {args.users} users, {args.items} items, {args.threads} threads")
    print(f"pooled fit       {pooled:6.2f} s CPU, again {time.process_time() - start:.2f}")
    panel, unit = OffsetPanel(design, Logit()), float(margin_unit(design))
    for name, some in (("sample", panel.sample), ("all", panel)):
        some.solve(theta, MARGIN_SCALES[1] / unit)  # forms the Gram matrices
        for scale in MARGIN_SCALES[2:5]:
            start = time.process_time()
            evidence = some.solve(theta, scale / unit)[0]
            seconds = time.process_time() - start
            print(f"tau {scale / unit:.3f}, {name:6s} {seconds:5.2f} s CPU ({seconds / pooled:4.1f}x)  {evidence:.1f}")
    del panel
    sampled = 0
    solve = OffsetPanel.solve

    def counted(self: OffsetPanel, *args: object, **kwargs: object) -> object:
        nonlocal sampled
        sampled += self.users is not None
        return solve(self, *args, **kwargs)

    OffsetPanel.solve = counted
    start = time.process_time()
    fit = fit_individual(design, start=theta)
    seconds = time.process_time() - start
    candidates = sampled + len(fit.taus)
    print(f"whole fit        {seconds:6.2f} s CPU: {seconds / pooled:.1f}x a pooled fit,", end=" ")
    print(f"{seconds / pooled / candidates:.1f}x for each of {candidates} candidates ({sampled} on a sample of users)")
    print(f"tau {float(fit.model.scale[0]):.3f} (planted 1), peak memory of the process", end=" ")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{peak:.0f} MiB, features {design.features.numel() * 4 / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
