"""Reading a million comparisons: CPU seconds, and how they grow, by kind of file.

    python benchmarks/reading.py [--rows 1000000] [--items 100000]

The yardstick is a Python loop that only splits the lines of the csv file and puts every text into a dictionary.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet as pq

from pluralign.comparisons import read


def make_table(n_rows: int, n_items: int, rng: np.random.Generator) -> pa.Table:
    """Comparisons of random texts of 20 words, 10 prompts to every 100 items, 1,000 users."""
    words = np.array([f"word{i}" for i in range(5_000)])
    texts = pa.array([" ".join(words[row]) for row in rng.integers(0, len(words), (n_items, 20))])
    chosen = rng.integers(0, n_items, n_rows)
    rejected = (chosen + rng.integers(1, n_items, n_rows)) % n_items
    return pa.table(
        {
            "prompt": texts.take(pa.array(chosen // 10 * 10)),
            "chosen": texts.take(pa.array(chosen)),
            "rejected": texts.take(pa.array(rejected)),
            "user": pa.array([f"user{i}" for i in range(1_000)]).take(pa.array(rng.integers(0, 1_000, n_rows))),
        }
    )


def write_jsonl(table: pa.Table, path: Path) -> None:
    import json

    with path.open("w") as file:
        for batch in table.to_batches(10_000):
            file.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())


def loop_over_lines(path: Path) -> int:
    """The yardstick: what a plain Python reader does at least."""
    numbers: dict[str, int] = {}
    with path.open(newline="") as file:
        for row in csv.reader(file):
            for value in row:
                numbers.setdefault(value, len(numbers))
    return len(numbers)


def cpu_seconds(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    args = parser.parse_args()
    for n_rows in (args.rows // 10, args.rows):
        table = make_table(n_rows, args.items, np.random.default_rng(0))
        with tempfile.TemporaryDirectory() as folder:
            paths = {ending: Path(folder) / f"data.{ending}" for ending in ("parquet", "csv", "jsonl")}
            pq.write_table(table, paths["parquet"])
            arrow_csv.write_csv(table, paths["csv"])
            write_jsonl(table, paths["jsonl"])
            del table
            loop, _ = cpu_seconds(lambda path=paths["csv"]: loop_over_lines(path))
            print(f"{n_rows:,} rows   loop over the csv file {loop:.2f} s of CPU")
            for ending, path in paths.items():
                cpu, wall = cpu_seconds(lambda path=path: read(path))
                print(f"  {ending:8} {cpu:6.2f} s of CPU, {wall:6.2f} s   {cpu / loop:.2f} x the loop")


if __name__ == "__main__":
    main()
