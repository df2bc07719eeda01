"""How fast many linear heads are fitted, against a scikit-learn loop and against the machine.

    python benchmarks/heads.py                                      # a quick look, under two minutes
    python benchmarks/heads.py --rows 100000 --dims 384 1024 --heads 8 16 64
    python benchmarks/heads.py --rows 250000 1000000 --peer-heads 0 --skip-disjoint     # cost and memory of many rows

Times are CPU seconds of `--threads` threads. The peer is `LogisticRegression(solver="lbfgs")` at the same ridge and
scikit-learn's own tolerance, max|gradient of the mean loss| < 1e-4, given the feature differences ready made; it runs
on `--peer-heads` of the heads and its time is scaled to all. Where each row is one user's, the two take turns
`--repeats` times and the ratio is the median of the turns'; "+ form" is the ratio with the forming of every user's
differences counted to the peer too, as it is to ours. Gaps are nats per decision above a
tight optimum. "pass / limit" is the time of a pass over that of reading the feature matrix twice, or of its arithmetic
at the measured speed of a square product, whichever is longer.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pluralign.features import Design
from pluralign.inference.disjoint import fit_disjoint
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Decisions, Logit

RIDGE, TOLERANCE = 10.0, 1e-4


def make_design(rows: int, dim: int, items: int, users: int, seed: int = 0) -> Design:
    """Pairs of items with a decaying spectrum, each user preferring by the common taste and as much of an own."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(items, dim, generator=g).mul_(torch.arange(1, dim + 1) ** -0.5)
    first = torch.randint(0, items, (rows,), generator=g)
    second = (first + torch.randint(1, items, (rows,), generator=g)) % items
    user = torch.randint(0, users, (rows,), generator=g)
    common, own = torch.randn(dim, generator=g), torch.randn(users, dim, generator=g)
    margin = torch.empty(rows)
    for some in torch.arange(rows).split(10_000):
        difference = features[first[some]] - features[second[some]]
        margin[some] = (difference * (common + own[user[some]])).sum(1) * 0.5**0.5
    wins = torch.rand(rows, generator=g) < torch.sigmoid(margin)
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


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def limits(dim: int) -> tuple[float, float]:
    """Bytes read per CPU second by a matrix-vector product, and multiply-adds per CPU second of a square product."""
    wide, square, vector = torch.randn(2**26 // dim, dim), torch.randn(1024, 1024), torch.randn(dim)
    read = min(timed(lambda: wide @ vector)[0] for _ in range(5))
    multiply = min(timed(lambda: square @ square)[0] for _ in range(5))
    return wide.numel() * 4 / read, 1024**3 / multiply


def peer(x: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """One scikit-learn fit; every second row is turned round, for it wants two classes."""
    sign = np.where(np.arange(len(x)) % 2, 1, -1).astype(np.float32)
    model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=TOLERANCE, max_iter=1000)
    return np.asarray(model.fit(x * sign[:, None], sign, sample_weight=weight).coef_[0])


def loss(design: Design, theta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean penalised loss of every head, float64, (heads,)."""
    log_prob = Logit().log_prob(design.margins(theta).double(), design.decisions)
    total = (log_prob * weight).sum(0) - RIDGE / 2 * theta.double().square().sum(1)
    return -total / weight.sum(0)


def stacked(design: Design, heads: int, peer_heads: int) -> str:
    """A row of the table: heads that all see all rows, each with its own weights."""
    membership = torch.rand(design.n_users, heads, generator=torch.Generator().manual_seed(1))
    ridge = torch.full((heads,), RIDGE)
    fresh = Design(**{name: getattr(design, name) for name in Design.__dataclass_fields__})  # nothing cached
    cold, fit = timed(lambda: fit_heads(fresh, ridge=ridge, group_weight=membership, tolerance=TOLERANCE))
    warm, _ = timed(lambda: fit_heads(fresh, ridge=ridge, group_weight=membership, tolerance=TOLERANCE))
    each = warm / fit.passes
    read, multiply = limits(design.dim)
    work = fresh.compact.features.numel()
    limit = 2 * max(4 * work / read, work * heads / multiply)
    line = (
        f"{design.n_rows:>8} {design.dim:>5} {heads:>5} {cold:>8.2f} {warm:>8.2f} {fit.passes:>6} {each / limit:>8.1f}"
    )
    if not peer_heads:
        return line
    tight = fit_heads(fresh, ridge=ridge, group_weight=membership, tolerance=1e-7).theta
    weight = membership[design.user].double()
    x = design.differences(torch.arange(design.n_rows)).numpy()
    some = range(min(peer_heads, heads))
    spent, found = timed(lambda: [peer(x, weight[:, k].numpy()) for k in some])
    best = loss(design, tight, weight)
    ours = float((loss(design, fit.theta, weight) - best).max())
    theirs = torch.from_numpy(np.stack(found)).float()
    gap = float((loss(design, theirs, weight[:, : len(theirs)]) - best[: len(theirs)]).max())
    loop = spent * heads / len(some)
    return f"{line} {loop:>8.2f} {loop / cold:>7.1f} {loop / warm:>7.1f} {ours:>9.1e} {gap:>9.1e}"


def disjoint(design: Design, repeats: int) -> str:
    """A row of the table: every user a head of their own."""
    order = torch.argsort(design.user, stable=True)
    size = torch.bincount(design.user, minlength=design.n_users).tolist()
    turns = []
    for _ in range(repeats):
        fresh = Design(**{name: getattr(design, name) for name in Design.__dataclass_fields__})  # nothing cached
        ours, theta = timed(partial(fit_disjoint, fresh, ridge=RIDGE, tolerance=TOLERANCE))
        forming, parts = timed(lambda: [design.differences(rows).numpy() for rows in order.split(size)])
        spent, found = timed(partial(list, map(peer, parts)))
        turns.append((ours, spent, spent / ours, (forming + spent) / ours))
    tight = fit_disjoint(design, ridge=RIDGE, tolerance=1e-7)

    def total(at: torch.Tensor) -> float:
        margin = (design.features[design.chosen] - design.features[design.rejected]).mul_(at[design.user]).sum(1)
        fitted = float(torch.nn.functional.logsigmoid(margin.double()).sum())
        return (RIDGE / 2 * float(at.double().square().sum()) - fitted) / design.n_rows

    best = total(tight)
    gaps = total(theta) - best, total(torch.from_numpy(np.stack(found)).float()) - best
    middle = [statistics.median(column) for column in zip(*turns, strict=True)]
    return (
        f"{design.n_rows:>8} {design.dim:>5} {design.n_users:>5} {middle[0]:>8.2f} {middle[1]:>8.2f} "
        f"{middle[2]:>7.1f} {middle[3]:>8.1f} {gaps[0]:>9.1e} {gaps[1]:>9.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384])
    parser.add_argument("--heads", type=int, nargs="+", default=[8])
    parser.add_argument("--users", type=int, nargs="+", default=[20, 200], help="of the disjoint fits")
    parser.add_argument("--items", type=float, default=1.0, help="items for each row")
    parser.add_argument("--peer-heads", type=int, default=1, help="heads that scikit-learn fits; 0 for none")
    parser.add_argument("--skip-disjoint", action="store_true")
    parser.add_argument("--repeats", type=int, default=3, help="turns of either where each row is one user's")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
    print(
        "heads that all see all rows\n"
        f"{'rows':>8} {'dim':>5} {'heads':>5} {'cold s':>8} {'warm s':>8} {'passes':>6} {'/limit':>8} {'peer s':>8} "
        f"{'x cold':>7} {'x warm':>7} {'gap':>9} {'peer gap':>9}   peak memory / features"
    )
    for dim in options.dims:
        for rows in options.rows:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            design = make_design(rows, dim, max(2, int(rows * options.items)), 1000)
            for heads in options.heads:
                line = stacked(design, heads, options.peer_heads)
                # With a peer the peak is the peer's, whose differences are a feature matrix more.
                peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
                print(line, "" if options.peer_heads else f"  {peak / (design.features.numel() * 4):.1f}", flush=True)
    if options.skip_disjoint:
        return
    print(
        "\neach row one user's\n"
        f"{'rows':>8} {'dim':>5} {'users':>5} {'ours s':>8} {'peer s':>8} {'ratio':>7} {'+ form':>8} {'gap':>9} "
        f"{'peer gap':>9}"
    )
    for dim in options.dims:
        for users in options.users:
            print(
                disjoint(
                    make_design(options.rows[-1], dim, int(options.rows[-1] * options.items), users), options.repeats
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
