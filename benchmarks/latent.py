"""What latent users cost: a fit, and the placing of many new users.

    python benchmarks/latent.py [--rows 100000] [--dim 384] [--users 1000] [--items 20000] [--steps 400] [--threads 1]

Prints wall and CPU seconds of `fit_latent` and of `adapt` for 10,000 users x 16 comparisons, and accuracy on held-out
rows beside `pooled` and `basis`. Users differ in two directions.
"""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.basis import fit_basis
from pluralign.inference.heads import fit_heads
from pluralign.inference.latent import fit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.likelihoods import Decisions
from pluralign.users import Pooled, UserModel

T = TypeVar("T")


def make_design(rows: int, users: int, items: int, dim: int, *, seed: int = 0, rank: int = 2) -> Design:
    """Random pairs; margins of standard deviation 1.5, the users' own part as large as the common one."""
    g = torch.Generator().manual_seed(1)
    features = torch.randn(items, dim, generator=g)
    theta = torch.randn(dim, generator=g) * (1.1 / (2 * dim) ** 0.5)
    basis = torch.randn(dim, rank, generator=g) * (1.1 / (2 * dim * rank) ** 0.5)
    g = torch.Generator().manual_seed(seed)
    first = torch.randint(0, items, (rows,), generator=g)
    second = (first + torch.randint(1, items, (rows,), generator=g)) % items
    user = torch.arange(rows) % users
    w = torch.randn(users, rank, generator=g)
    scores, own = features @ theta, features @ basis
    margin = scores[first] - scores[second] + ((own[first] - own[second]) * w[user]).sum(1)
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


def timed(words: str, run: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    print(f"{words:28s} {time.perf_counter() - wall:7.2f} s wall, {time.process_time() - cpu:7.2f} s CPU", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 100_000), ("dim", 384), ("users", 1000), ("items", 20_000), ("steps", 400)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    whole = make_design(args.rows * 5 // 4, args.users, args.items, args.dim)
    test = torch.rand(whole.n_decisions, generator=torch.Generator().manual_seed(2)) < 0.2
    design, held = whole.take(~test), whole.take(test)
    print(f"{design.n_rows} rows x {args.dim} features, {args.users} users, {args.threads} threads")
    theta = timed("pooled", lambda: fit_heads(design, ridge=torch.tensor([100.0])).theta[0])
    basis = timed("basis, rank 2", lambda: fit_basis(design, 2, ridge=100.0, start=theta).model)
    found = timed("latent", lambda: fit_latent(design, LatentSettings(steps=args.steps), ridge=100.0, start=theta))
    models: dict[str, UserModel] = {"pooled": Pooled(theta=theta, n_users=args.users), "basis": basis}
    for name, model in (models | {"latent": found.model}).items():
        seen = model.predict(held)
        print(f"{name:28s} accuracy {np.mean(seen.correct):.4f}, {np.mean(seen.log_prob):.4f} nats per decision")
    print(f"latent: {found.steps} steps; {found.diagnosis.words}")
    new = make_design(160_000, 10_000, args.items, args.dim, seed=7)
    timed("adapt, 10,000 users x 16", lambda: adapt(found.model, new))


if __name__ == "__main__":
    main()
