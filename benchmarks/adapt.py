"""How long it takes to place many new users by a few comparisons each.

    python benchmarks/adapt.py [--users 10000] [--comparisons 16] [--dim 384] [--rank 8] [--threads 2]

Prints wall and CPU seconds of `adapt` for a basis and for individual users, features in hand.
"""

import argparse
import time

import torch

from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.likelihoods import Decisions
from pluralign.users import Basis, Individual, UserModel


def make_design(users: int, comparisons: int, dim: int, items: int = 20_000) -> Design:
    """New users' random pairs of random items."""
    g, rows = torch.Generator().manual_seed(0), users * comparisons
    first = torch.randint(0, items, (rows,), generator=g)
    return Design(
        features=torch.randn(items, dim, generator=g) / dim**0.5,
        chosen=first,
        rejected=(first + torch.randint(1, items, (rows,), generator=g)) % items,
        decisions=Decisions(index=torch.arange(rows), outcome=torch.ones(rows), position=torch.zeros(rows)),
        user=torch.arange(users).repeat_interleave(comparisons),
        weight=torch.ones(rows),
        source=torch.arange(rows),
        n_users=users,
    )


def models(dim: int, rank: int) -> dict[str, UserModel]:
    g = torch.Generator().manual_seed(1)
    theta, basis = torch.randn(dim, generator=g), torch.randn(dim, rank, generator=g)
    return {
        f"basis, rank {rank}": Basis(
            theta=theta, basis=basis, mean=torch.zeros(0, rank), covariance=torch.zeros(0, rank, rank)
        ),
        "individual": Individual(
            theta=theta,
            axes=torch.eye(dim),
            scale=torch.ones(dim),
            offset=torch.zeros(0, dim),
            covariance=torch.zeros(0, dim),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--comparisons", type=int, default=16)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    design = make_design(args.users, args.comparisons, args.dim)
    print(f"{args.users} new users x {args.comparisons} comparisons, {args.dim} features, {args.threads} threads")
    for name, model in models(args.dim, args.rank).items():
        wall, cpu = time.perf_counter(), time.process_time()
        adapt(model, design)
        print(f"{name:16s} {time.perf_counter() - wall:6.2f} s wall, {time.process_time() - cpu:6.2f} s CPU")


if __name__ == "__main__":
    main()
