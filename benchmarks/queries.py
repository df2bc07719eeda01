"""How long it takes to find the next question, and what asking well buys on real people.

    python benchmarks/queries.py [--pairs 10000] [--dim 384] [--rank 8] [--clusters 8] [--threads 1]
    python benchmarks/queries.py --curve jester --path DATA/jester5k [--rank 4] [--users 300] [--questions 16]

The first prints CPU milliseconds for a question of an enquiry, which has put the pool's features in order once: to
place a user by eight answers, to believe (the margins of all pairs), to choose one question by information gain, all
three, and to choose a batch of eight. The second fits a rung to most users of a data set, asks the others from their
own decisions by every method, and prints the accuracy on the rest of their decisions.
"""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from pluralign.features import Design
from pluralign.inference.basis import fit_basis
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.inference.clusters import fit_clusters
from pluralign.likelihoods import Decisions
from pluralign.queries import METHODS, believe, propose, query_curve
from pluralign.queries.placing import place, straightened
from pluralign.studies.data import load
from pluralign.studies.features import FeatureSource
from pluralign.users import UNKNOWN, Basis, Clusters, Individual, Reliability, UserModel

T = TypeVar("T")


def make_pairs(pairs: int, dim: int, items: int = 10_000) -> Design:
    """Random pairs of random items."""
    g = torch.Generator().manual_seed(0)
    first = torch.randint(0, items, (pairs,), generator=g)
    return Design(
        features=torch.randn(items, dim, generator=g) / dim**0.5,
        chosen=first,
        rejected=(first + torch.randint(1, items, (pairs,), generator=g)) % items,
        decisions=Decisions(index=torch.arange(pairs), outcome=torch.ones(pairs), position=torch.zeros(pairs)),
        user=torch.zeros(pairs, dtype=torch.int64),
        weight=torch.ones(pairs),
        source=torch.arange(pairs),
        n_users=1,
    )


def models(dim: int, rank: int, clusters: int) -> dict[str, UserModel]:
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    nobody, theta = torch.zeros(0), draw(dim)
    return {
        f"cluster, K = {clusters}": Clusters(
            theta=draw(clusters, dim),
            shares=torch.full((clusters,), 1 / clusters),
            membership=torch.zeros(0, clusters),
            soft=True,
        ),
        "reliability": Reliability(
            theta=theta, log_scale=nobody, log_scale_sd=nobody, spread=0.7, lapse=0.05, position_bias=0.0
        ),
        f"basis, rank {rank}": Basis(
            theta=theta, basis=draw(dim, rank), mean=torch.zeros(0, rank), covariance=torch.zeros(0, rank, rank)
        ),
        "individual": Individual(
            theta=theta,
            axes=torch.eye(dim),
            scale=torch.ones(dim),
            offset=torch.zeros(0, dim),
            covariance=torch.zeros(0, dim),
        ),
    }


def best_of(times: int, work: Callable[[], T]) -> tuple[T, float]:
    """The result, and the milliseconds of CPU of the quickest run."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        found = work()
        taken.append(1e3 * (time.process_time() - start))
    return found, min(taken)


def time_questions(args: argparse.Namespace) -> None:
    design = make_pairs(args.pairs, args.dim)
    print(f"{args.pairs} pairs, {args.dim} features, {args.threads} threads, milliseconds of CPU, best of 5")
    print(f"{'':16s} {'place':>6s} {'believe':>8s} {'one question':>13s} {'all three':>10s} {'batch of 8':>11s}")
    for name, fitted in models(args.dim, args.rank, args.clusters).items():
        model, turn = straightened(fitted)
        pairs = design if turn is None else design.with_features(design.features @ turn)
        answers = pairs.take(torch.arange(args.pairs) < 8)
        placed, placing = best_of(5, lambda model=model, answers=answers: place(model, UNKNOWN, answers))
        _, believing = best_of(5, lambda placed=placed, pairs=pairs: believe(placed, pairs, pairs.user))
        # A belief keeps what it has computed, so that each run needs a fresh one.
        _, both = best_of(5, lambda placed=placed, pairs=pairs: propose(believe(placed, pairs, pairs.user)))
        _, batch = best_of(5, lambda placed=placed, pairs=pairs: propose(believe(placed, pairs, pairs.user), 8))
        one = max(0.0, both - believing)
        print(f"{name:16s} {placing:6.1f} {believing:8.1f} {one:13.1f} {placing + both:10.1f} {batch:11.1f}")


def print_curve(args: argparse.Namespace) -> None:
    options = dict(each.split("=") for each in args.option)
    numbers = {name: int(value) if value.isdigit() else value for name, value in options.items()}
    comparisons = load(args.curve, path=args.path, **numbers)
    rng = np.random.default_rng(args.seed)
    user = comparisons.user[comparisons.first_row]
    order = rng.permutation(np.unique(user))
    unseen = order[: min(args.users, len(order) // 3)]
    fitted = np.setdiff1d(order, unseen)[: args.fitted]
    train = comparisons.take_decisions(np.isin(user, fitted))
    _, _, features = FeatureSource(comparisons, args.encoder).of(train)
    start = time.perf_counter()
    design = Design.of(train, features)
    if args.rung == "basis":
        model: UserModel = fit_basis(design, args.rank, ridge=args.ridge, tolerance=1e-5).model
    else:
        chosen = choose_clusters(design, range(1, args.clusters + 1), ridge=args.ridge, n_starts=5).n_clusters
        model = fit_clusters(design, chosen, ridge=args.ridge, n_starts=10).model
        print(f"K = {chosen}")
    others = Design.of(comparisons.take_decisions(np.isin(user, unseen)), features)
    took = time.perf_counter() - start
    print(f"{args.rung} fitted to {len(fitted)} users, {design.n_decisions} decisions: {took:.0f} s")
    pool = torch.from_numpy(rng.random(others.n_decisions) < 0.6)
    methods = [each for each in METHODS if args.rung == "basis" or each != "vpl_released"]
    curve = query_curve(model, others, pool, ~pool, methods=methods, n_questions=args.questions, seed=args.seed)
    shown = [n for n in (0, 1, 2, 4, 8, 16, 32) if n <= args.questions]
    print(f"{len(curve.users)} unseen users ({len(curve.left_out)} left out): accuracy after n questions")
    print(f"{'':24s}" + "".join(f"{n:>8d}" for n in shown))
    for method in methods:
        print(f"{method:24s}" + "".join(f"{100 * curve.score(method, n).estimate:8.1f}" for n in shown))
    print("points over random at the same number of questions, 95 % intervals paired by user")
    for method in methods:
        if method != "random":
            gains = [curve.gain(method, n) for n in shown[1:]]
            cells = [f"{100 * g.estimate:+.1f} [{100 * g.low:+.1f}, {100 * g.high:+.1f}]" for g in gains]
            print(f"{method:24s}" + "  ".join(cells))
    for m in (8, 16):
        if m <= args.questions:
            half = curve.gain("information_gain", m // 2, "random", m)
            needed = curve.needed("information_gain", "random", m)
            print(
                f"information_gain at {m // 2} less random at {m}: {100 * half.estimate:+.2f} "
                f"[{100 * half.low:+.2f}, {100 * half.high:+.2f}]; reaches random at {m} with {needed}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--curve", help="A data set by name.")
    parser.add_argument("--path", help="Its folder.")
    parser.add_argument("--option", action="append", default=[], help="An option of its loader, name=value.")
    parser.add_argument("--encoder", default="auto")
    parser.add_argument("--rung", choices=["basis", "cluster"], default="basis")
    parser.add_argument("--ridge", type=float, default=1.0)
    parser.add_argument("--fitted", type=int, default=1000, help="Most users the rung is fitted to.")
    parser.add_argument("--users", type=int, default=300, help="Most users to ask.")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.curve:
        print_curve(args)
    else:
        time_questions(args)


if __name__ == "__main__":
    main()
