"""Scanning a million comparisons: CPU seconds, and how they grow with rows and texts.

    python benchmarks/scan.py [--rows 1000000] [--items 200000] [--words 60]

The yardstick is one pass of scikit-learn's HashingVectorizer over the same texts, which any look at words costs.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pluralign.comparisons import Comparisons, Items
from pluralign.scans import scan


def make_comparisons(n_rows: int, n_items: int, n_words: int, rng: np.random.Generator) -> Comparisons:
    """Random texts of about so many words, ten to a prompt; 1,000 users who choose by coins; 5 % near duplicates."""
    vocabulary = np.array([f"word{i}" for i in range(20_000)])
    drawn = (rng.zipf(1.3, (n_items, n_words)) - 1) % len(vocabulary)
    twins = rng.choice(n_items, n_items // 20, replace=False)
    drawn[twins] = drawn[np.roll(twins, 1)]
    drawn[twins, 0] = rng.integers(0, len(vocabulary), len(twins))
    size = rng.integers(n_words // 2, n_words + 1, n_items)
    texts = [" ".join(vocabulary[row[:n]]) + "." for row, n in zip(drawn, size, strict=True)]
    n_prompts = n_items // 10
    prompt = rng.integers(0, n_prompts, n_rows)
    first = rng.integers(0, 10, n_rows)
    second = (first + rng.integers(1, 10, n_rows)) % 10
    n_users = 1_000
    return Comparisons(
        items=Items(
            prompt=(np.arange(n_items) // 10).astype(np.int32),
            prompts=pa.array([f"Prompt {i}: {texts[10 * i][:80]}" for i in range(n_prompts)], type=pa.large_string()),
            response=pa.array(texts, type=pa.large_string()),
        ),
        chosen=(prompt * 10 + first).astype(np.int32),
        rejected=(prompt * 10 + second).astype(np.int32),
        user=rng.integers(0, n_users, n_rows).astype(np.int32),
        user_ids=tuple(f"user {i}" for i in range(n_users)),
        source=prompt.astype(np.int32),
        source_ids=tuple(f"prompt {i}" for i in range(n_prompts)),
        position=rng.choice([-1, 1], n_rows).astype(np.int32),
        split=np.where(prompt % 10 == 0, "test", "train"),
    )


def cpu_seconds(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--words", type=int, default=60)
    args = parser.parse_args()
    from sklearn.feature_extraction.text import HashingVectorizer

    for n_rows, n_items in (
        (args.rows // 10, args.items // 10),
        (args.rows // 10, args.items),
        (args.rows, args.items),
    ):
        table = make_comparisons(n_rows, n_items, args.words, np.random.default_rng(0))
        texts = table.items.response.to_pylist()
        pass_over, _ = cpu_seconds(lambda texts=texts: HashingVectorizer(n_features=2**18).transform(texts))
        cpu, wall = cpu_seconds(lambda table=table: scan(table))
        print(
            f"{n_rows:>9,} rows, {n_items:>7,} texts   scan {cpu:6.1f} s of CPU, {wall:6.1f} s   "
            f"{cpu / pass_over:.1f} x a pass of HashingVectorizer ({pass_over:.1f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
