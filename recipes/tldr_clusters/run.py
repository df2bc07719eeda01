"""Check the papers' counts on the real TL;DR comparisons, then study the workers common to both splits."""

import argparse
from pathlib import Path

import numpy as np

from pluralign import datasets
from pluralign.datasets.tldr import EXPECTED, EXPECTED_TOP_WORKERS, EXPECTED_WORKERS
from pluralign.errors import DataError
from pluralign.studies.pipeline import run_study
from pluralign.studies.settings import StudySettings, read_yaml

ROUNDED = 100  # Table 1 of 2601.20760 is in hundreds


def check_counts(path: Path | None) -> None:
    """Compare rows and workers of every filter with what the papers print.

    Raises:
        DataError: A count differs.
    """
    for options, expected in EXPECTED:
        table = datasets.load("tldr", path, **options)
        train = table.split == "train"
        found = int(train.sum()), int((~train).sum())
        off = ROUNDED / 2 if "workers" in options else 0
        if any(abs(mine - theirs) > off for mine, theirs in zip(found, expected, strict=True)):
            raise DataError(f"tldr with {options or 'no filter'} has {found} rows; the papers have {expected}")
        print(f"{options or 'no filter'}: {found[0]:,} / {found[1]:,} rows")
        workers = [set(table.user[side].tolist()) for side in (train, ~train)]
        if not options:
            counts = {"train": len(workers[0]), "validation": len(workers[1]), "common": len(workers[0] & workers[1])}
            if counts != EXPECTED_WORKERS:
                raise DataError(f"tldr has {counts} workers; 2601.20760 has {EXPECTED_WORKERS}")
        if options == {"filter": "sup", "top_workers": 10}:
            rows = [np.bincount(table.user[side], minlength=table.n_users) for side in (train, ~train)]
            pairs = sorted(zip(*(each.tolist() for each in rows), strict=True), reverse=True)[:10]
            if tuple(pairs) != EXPECTED_TOP_WORKERS:
                raise DataError(f"the ten workers have {pairs} rows; P-RLHF has {EXPECTED_TOP_WORKERS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, help="folder of the raw batches; without it the hub's copy")
    parser.add_argument("--out", type=Path, default=Path("studies/tldr"))
    parser.add_argument("--counts-only", action="store_true")
    given = parser.parse_args()
    check_counts(given.path)
    if not given.counts_only:
        comparisons = datasets.load("tldr", given.path, workers="common")
        settings = StudySettings.of(read_yaml(Path(__file__).with_name("config.yaml")))
        study = run_study(comparisons, settings, out=given.out, on_step=print)
        print(study.verdict.reason)


if __name__ == "__main__":
    main()
