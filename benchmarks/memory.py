"""Peak memory of every rung, and of the ladder in one call, in multiples of the feature matrix; seconds of CPU too.

    python benchmarks/memory.py                          # 100,000 comparisons x 384 features x 1,000 users
    python benchmarks/memory.py --rows 20000 --rungs pooled basis ladder

Each rung is fitted in a process of its own. Counted is what the process holds at its peak beyond what it held with the
libraries imported and nothing else: the features, the rows and whatever the fit adds. `ladder` is `fit_ladder` with all
its choices, the ridge excepted, on four folds by source. Linux only, for the peak is read from /proc/self/status.
"""

import argparse
import multiprocessing
from pathlib import Path
from time import process_time

import torch

from pluralign.features import Design
from pluralign.inference.folds import folds_by_source
from pluralign.likelihoods import Decisions
from pluralign.studies.ladder import RUNGS, LadderSettings, fit_ladder

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 100_000), ("users", 1_000), ("dim", 384), ("starts", 20), ("clusters", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rungs", nargs="+", default=[*RUNGS, "ladder"], choices=[*RUNGS, "ladder"])
    given = parser.parse_args()
    size = given.rows * given.dim * 4 / MIB
    print(f"{given.rows:,} comparisons, {given.rows:,} items x {given.dim} ({size:.0f} MiB), {given.users:,} users")
    print(f"{'':18s} {'with data':>12s} {'at the peak':>12s} {'x features':>12s} {'CPU':>10s}")
    apart = multiprocessing.get_context("spawn")
    for rung in given.rungs:
        with apart.Pool(1) as pool:
            data, peak, seconds = pool.apply(measure, (rung, given))
        row = f"{rung:18s} {data / MIB:8.0f} MiB {peak / MIB:8.0f} MiB {peak / MIB / size:12.2f} {seconds:8.1f} s"
        print(row, flush=True)


def measure(rung: str, given: argparse.Namespace) -> tuple[int, int, float]:
    """Bytes above the imports' with the data there, and at the peak of the fit; seconds of CPU that the fit took."""
    empty = resident("VmRSS")
    design = make_design(given)
    folds = folds_by_source(design, 4, 0)
    data = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: making the data is not the fit
    settings = LadderSettings(
        ridge=10.0, clusters=tuple(range(1, given.clusters + 1)), starts=given.starts, ranks=(0, 1, 2, 4)
    )
    began = process_time()
    fit_ladder(design, folds, settings, RUNGS if rung == "ladder" else (rung,))
    return data - empty, resident("VmHWM") - empty, process_time() - began


def make_design(given: argparse.Namespace) -> Design:
    """Users of three tastes and a little of their own, each comparison of two items among all."""
    g = torch.Generator().manual_seed(0)
    n, each = given.rows, given.rows // given.users
    features = torch.randn((n, given.dim), generator=g)
    user = torch.arange(n) // each % given.users
    first, second = torch.randint(n, (n,), generator=g), torch.randint(n, (n,), generator=g)
    second = torch.where(first == second, (second + 1) % n, second)
    score = features @ (torch.randn((given.dim, 3), generator=g) / given.dim**0.5)
    margin = score[first, user % 3] - score[second, user % 3]
    wins = torch.rand(n, generator=g) < torch.sigmoid(margin)
    return Design(
        features=features,
        chosen=torch.where(wins, first, second),
        rejected=torch.where(wins, second, first),
        decisions=Decisions(index=torch.arange(n), outcome=torch.ones(n), position=torch.zeros(n)),
        user=user,
        weight=torch.ones(n),
        source=torch.arange(n) // 4,
        n_users=given.users,
    )


def resident(line: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or held at most (VmHWM)."""
    rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(rows[line].split()[0]) * 1024


if __name__ == "__main__":
    main()
