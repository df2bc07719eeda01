"""Encode every distinct text once, and keep the features on disk.

The cache is a folder per encoder (its identity hashed), of feature files that each hold some rows and the hashes of
their texts. Where a text stands is read off the files themselves, so there is no separate index that could fall out
of step with them. A file appears whole or not at all and carries a checksum; one that fails it is made again. A run
that was killed therefore resumes with what it had finished, and a data set that grew encodes only what is new.

The texts are cut into shards in their order of first appearance. With several processes (`torchrun`, `accelerate
launch`) process r makes the shards r, r + world, ..., and waits for the rest; where nothing arrives for a while it
makes the missing ones itself, so that a process that died or was never called costs time and not the run. At the end
one process joins the shards into one file in the order of the items, which a later call maps without copying.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from pluralign.comparisons import Comparisons
from pluralign.errors import CacheError, DataError, NotFittedError
from pluralign.features.encoders import AnyEncoder, Encoder, Lookup, Trainable
from pluralign.features.shards import Shard, open_shard, write_shard
from pluralign.features.texts import Item, distinct_keys, find_keys, list_items, text_keys
from pluralign.files import write_json

logger = logging.getLogger(__name__)

SHARD_ROWS = 1024
PATIENCE_S = 120.0  # how long a process waits for others' shards before it makes them itself


def default_cache_dir() -> Path:
    """The folder named by `PLURALIGN_CACHE`, else `~/.cache/pluralign/features`."""
    return Path(os.environ.get("PLURALIGN_CACHE", Path.home() / ".cache" / "pluralign" / "features"))


def encode(
    comparisons: Comparisons,
    encoder: AnyEncoder,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    device: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> np.ndarray:
    """Return the features of every item of a table, (items, dim).

    All items of the table are encoded, whichever rows were taken: one matrix serves all splits.

    Args:
        comparisons: The table.
        encoder: What reads the items; an encoder that learns from texts must have been fitted (`fit_encoder`).
        cache_dir: Folder to keep features in; None keeps nothing on disk. `default_cache_dir` is the usual place.
        device: Where a network runs, "cpu" or "cuda:1", say; None takes the GPU of this process where there is one.
        batch_size: Texts a network reads at a time.
        progress: Whether to show a progress bar (on a terminal only).

    Returns:
        Features in the encoder's stored precision; a read-only memory map where one cached file holds the items
        in order. Numeric and precomputed features come as they are and are not cached.

    Raises:
        NotFittedError: The encoder learns from texts and has not.
        DataError: The encoder returned a NaN or an infinity; the message names the text.
        CacheError: The cache cannot be written, or features do not fit in float16.
    """
    if isinstance(encoder, Lookup):
        return encoder.look_up(comparisons.items)
    if isinstance(encoder, Trainable):
        raise NotFittedError(
            f"{type(encoder).__name__} learns from texts and has not been fitted",
            hint="fit it on the items of the training rows: `encoder = fit_encoder(encoder, train)`",
        )
    items = list_items(comparisons.items, chat=comparisons.format == "chat")
    return encode_items(items, encoder, cache_dir=cache_dir, device=device, batch_size=batch_size, progress=progress)


def encode_items(
    items: Sequence[Item],
    encoder: Encoder,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    device: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> np.ndarray:
    """Return the features of a list of items, (items, dim); see `encode`."""
    keys = text_keys(items)
    first, number = distinct_keys(keys)
    texts = [items[i] for i in first]
    run = _Run(encoder, device, batch_size)
    if cache_dir is None:
        features = np.empty((len(texts), encoder.dim), dtype=encoder.stored)
        with run.bar(len(texts), 0, show=progress) as bar:
            for rows in _shards(len(texts)):
                features[rows] = run.encode(texts[rows], bar)
        run.report()
    else:
        features = _encode_cached(texts, keys[first], run, Store.of(encoder, Path(cache_dir)), progress)
    return features if len(first) == len(items) else features[number]


def _encode_cached(texts: Sequence[Item], keys: np.ndarray, run: _Run, store: Store, progress: bool) -> np.ndarray:
    rank, world = process()
    store.scan()
    missing = store.missing(keys)
    shards = [np.arange(rows.start, rows.stop)[missing[rows]] for rows in _shards(len(texts))]

    def make(rows: np.ndarray, bar: tqdm) -> None:
        store.add(keys[rows], run.encode([texts[i] for i in rows], bar))

    with run.bar(len(texts), len(texts) - int(missing.sum()), show=progress and rank == 0) as bar:
        for rows in shards[rank::world]:
            if len(rows):
                make(rows, bar)
        others = [rows for i, rows in enumerate(shards) if i % world != rank and len(rows)]
        # From the end: the process that owns them comes from the front, if it is alive.
        patience_s = max(PATIENCE_S, 3 * run.longest_s)
        while others and not store.wait(lambda: not store.missing(keys[np.concatenate(others)]).any(), patience_s):
            rows = others.pop()
            if store.missing(keys[rows]).any():
                make(rows, bar)
    run.report()
    if rank == 0:
        store.pack(keys)
    elif world > 1:
        store.wait(lambda: store.covering(keys) is not None, PATIENCE_S)
    return store.gather(keys)


def process() -> tuple[int, int]:
    """This process's number and how many there are, from the variables that torchrun and accelerate set."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _shards(n: int) -> Iterator[slice]:
    return (slice(start, min(n, start + SHARD_ROWS)) for start in range(0, n, SHARD_ROWS))


def _mark(path: Path) -> tuple[str, int, int]:
    """What changes when a file does."""
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns


class _Run:
    """One call's use of an encoder: its settings, its checks, and how many texts it cut."""

    def __init__(self, encoder: Encoder, device: str | None, batch_size: int) -> None:
        self.encoder, self.device, self.batch_size = encoder, device, batch_size
        self.n_texts = self.n_cut = 0
        self.longest_s = 0.0

    def encode(self, texts: Sequence[Item], bar: tqdm) -> np.ndarray:
        """Encode a shard. Its blocks do not depend on what else is missing, so that a resumed run repeats them."""
        began = time.monotonic()
        step = max(8 * self.batch_size, 64)
        blocks = []
        for start in range(0, len(texts), step):
            block = texts[start : start + step]
            blocks.append(
                self._check(block, self.encoder.encode(block, device=self.device, batch_size=self.batch_size))
            )
            bar.update(len(block))
        cut = getattr(self.encoder, "count_cut", None)
        self.n_texts += len(texts)
        self.n_cut += cut(texts) if cut else 0
        self.longest_s = max(self.longest_s, time.monotonic() - began)
        return np.concatenate(blocks)

    def _check(self, texts: Sequence[Item], features: np.ndarray) -> np.ndarray:
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise DataError(f"the features of {texts[bad[0]].response[:60]!r} hold a NaN or an infinity")
        stored = np.dtype(self.encoder.stored)
        if stored == np.float16 and np.abs(features).max(initial=0) > np.finfo(np.float16).max:
            raise CacheError(
                f"a feature is {np.abs(features).max():.3g}, which is beyond float16",
                hint='store them as float32: `make_encoder(..., stored="float32")`',
            )
        return features.astype(stored, copy=False)

    def bar(self, total: int, done: int, *, show: bool) -> tqdm:
        return tqdm(total=total, initial=done, unit="text", desc="encode", disable=None if show else True)

    def report(self) -> None:
        if self.n_cut:
            logger.warning(
                "%s of %s texts were longer than max_length = %s tokens and were cut",
                f"{self.n_cut:,}",
                f"{self.n_texts:,}",
                getattr(self.encoder, "max_length", "?"),
            )


class _Place(NamedTuple):
    """Where keys stand: the file's number and the row in it, -1 where no file has the key; both (keys,)."""

    shards: list[Shard]
    file: np.ndarray
    row: np.ndarray


class Store:
    """The feature files of one encoder in one folder."""

    def __init__(self, folder: Path, dim: int, dtype: np.dtype) -> None:
        self.folder, self.dim, self.dtype = folder, dim, dtype
        self.shards: dict[tuple[str, int, int], Shard] = {}

    @classmethod
    def of(cls, encoder: Encoder, cache_dir: Path) -> Store:
        """Open the folder of an encoder, or begin it with a note of what the features are."""
        identity = encoder.identity | {"stored": encoder.stored}
        digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        note = cache_dir / f"{identity['kind']}-{digest}" / "encoder.json"
        try:
            dim = int(json.loads(note.read_text())["dim"])
        except (OSError, ValueError, KeyError):
            dim = encoder.dim  # which may load the network: not needed where all features are on disk
            try:
                write_json(note, identity | {"dim": dim})
            except OSError as error:
                hint = "name another folder for the cache"
                raise CacheError(f"cannot write to {cache_dir}: {error.strerror}", hint=hint) from error
        return cls(note.parent, dim, np.dtype(encoder.stored))

    def scan(self) -> bool:
        """Take in files that are new, let go of those that went, remove those that are damaged; say if any is new."""
        found, new = {}, False
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                mark = _mark(path)
                if mark in self.shards:
                    found[mark] = self.shards[mark]
                    continue
                shard = open_shard(path)
                if shard.features.shape[1:] != (self.dim,) or shard.features.dtype != self.dtype:
                    raise CacheError(f"{path} holds {shard.features.dtype} features of width {shard.features.shape[1]}")
                found[mark], new = shard, True
            except FileNotFoundError:  # another process has joined it into a larger file
                continue
            except (CacheError, KeyError, TypeError, ValueError) as error:
                logger.warning("removed a damaged feature file, which will be made again: %s", error)
                path.unlink(missing_ok=True)
        self.shards = found
        for part in self.folder.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > 3600:  # left by a process that was killed
                    part.unlink()
        return new

    def _place(self, keys: np.ndarray) -> _Place:
        shards = sorted(self.shards.values(), key=len, reverse=True)
        if not shards:
            return _Place(shards, np.zeros(len(keys), np.int64), np.full(len(keys), -1))
        row = find_keys(keys, np.concatenate([shard.keys for shard in shards]))
        ends = np.cumsum([len(shard) for shard in shards])
        file = np.searchsorted(ends, row, side="right")
        starts = ends - [len(shard) for shard in shards]
        return _Place(shards, file, np.where(row < 0, -1, row - starts[file]))

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Which keys have no features yet, bool (keys,)."""
        return self._place(keys).row < 0

    def covering(self, keys: np.ndarray) -> Shard | None:
        """A file that holds all keys, if there is one."""
        large = [shard for shard in self.shards.values() if len(shard) >= len(keys)]
        exact = [shard for shard in large if np.array_equal(shard.keys, keys)]
        return next((s for s in exact + large if (find_keys(keys, s.keys) >= 0).all()), None)

    def add(self, keys: np.ndarray, features: np.ndarray) -> None:
        self._write(keys, lambda rows: features[rows])

    def _write(self, keys: np.ndarray, rows: Callable[[slice], np.ndarray]) -> Path:
        path = self.folder / f"{sha256(keys.tobytes()).hexdigest()[:32]}.safetensors"
        write_shard(path, keys, self.dim, self.dtype, rows)
        with contextlib.suppress(FileNotFoundError):  # another process may have joined it into a larger file already
            self.shards[_mark(path)] = open_shard(path)
        return path

    def wait(self, ready: Callable[[], bool], patience_s: float) -> bool:
        """Wait until `ready`, or until no new file has come for `patience_s`; say whether it is ready."""
        self.scan()
        quiet_since = time.monotonic()
        while not ready():
            if time.monotonic() - quiet_since > patience_s:
                return False
            time.sleep(0.2)
            if self.scan():
                quiet_since = time.monotonic()
        return True

    def pack(self, keys: np.ndarray) -> None:
        """Join the files that the keys are spread over into one, in the keys' order, and remove what it replaces."""
        if not len(keys) or self.covering(keys) is not None:
            return
        place = self._place(keys)
        packed = self._write(keys, lambda rows: self._copy(place, rows))
        others = [shard for shard in self.shards.values() if shard.path != packed]
        held = find_keys(np.concatenate([shard.keys for shard in others]), keys) >= 0
        for shard, rows in zip(others, np.split(held, np.cumsum([len(shard) for shard in others])[:-1]), strict=True):
            if rows.all():
                shard.path.unlink(missing_ok=True)
        self.scan()

    def gather(self, keys: np.ndarray) -> np.ndarray:
        """Features of the keys, (keys, dim): a view of one file where it holds them side by side, else a copy."""
        shard = self.covering(keys)
        if shard is None:
            return self._copy(self._place(keys), slice(0, len(keys)))
        rows = find_keys(keys, shard.keys)
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return shard.features[rows[0] : rows[0] + len(rows)]
        return shard.features[rows]

    def _copy(self, place: _Place, rows: slice) -> np.ndarray:
        file, row = place.file[rows], place.row[rows]
        out = np.empty((len(row), self.dim), self.dtype)
        for i in np.unique(file):
            mine = np.flatnonzero(file == i)
            out[mine] = place.shards[i].features[row[mine]]
        return out
