"""An encoder that writes down what it was asked, for this process and for others."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DIM = 4


@dataclass(frozen=True)
class Counting:
    """Four numbers of every text. `log` gets a line per text: the process's rank and the text."""

    log: Path
    version: int = 0
    stored: str = "float32"
    wait_s: float = 0.0
    kind: str = "counting"

    @property
    def identity(self):
        return {"kind": self.kind, "version": self.version}

    @property
    def dim(self):
        return DIM

    def encode(self, items, *, device=None, batch_size=32):
        with self.log.open("a") as file:
            for item in items:
                time.sleep(self.wait_s)
                file.write(f"{os.environ.get('RANK', 0)} {item.response}\n")
        numbers = [[len(item.response), hash_of(item.response), len(item.prompt), self.version] for item in items]
        return np.array(numbers, dtype=np.float32).reshape(-1, DIM)

    def asked(self):
        """Texts encoded since the log was last cleared, in order."""
        return [line.split(" ", 1)[1] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def ranks(self):
        return [int(line.split(" ", 1)[0]) for line in self.log.read_text().splitlines()]


def hash_of(text):
    return sum(i * ord(c) for i, c in enumerate(text, 1)) % 9973


def main(texts: str, cache_dir: str, log: str, out: str, wait_s: str, shard_rows: str) -> None:
    """Encode a file of texts, one a line, as `python counting.py ...` or under torchrun."""
    from pluralign.features import Item, cache, encode_items

    cache.SHARD_ROWS = int(shard_rows)
    items = [Item("", line) for line in Path(texts).read_text().splitlines()]
    rank, world = 0, 1
    if "RANK" in os.environ:
        from torch import distributed

        distributed.init_process_group("gloo")
        rank, world = distributed.get_rank(), distributed.get_world_size()
    features = encode_items(items, Counting(Path(log), wait_s=float(wait_s)), cache_dir=cache_dir)
    np.save(f"{out}.{rank}of{world}.npy", features)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
