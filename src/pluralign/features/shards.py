"""Feature files: safetensors with a checksum, read in place.

A file holds `features` (rows, dim) and `keys` (rows, 16), the hashes of the texts the rows belong to, so that it says
by itself what is in it; the CRC-32 of both stands in its header. The header is read here rather than by the
safetensors package because a memory map needs the tensor's offset and a file too large for memory is written in
blocks; the format is the package's own.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pluralign.errors import CacheError
from pluralign.features.texts import KEY_BYTES
from pluralign.files import replacing

FORMAT = "pluralign features 1"
CODES = {"float16": "F16", "float32": "F32", "float64": "F64"}
NAMES = {code: name for name, code in CODES.items()}
BLOCK_BYTES = 1 << 24


@dataclass(frozen=True, eq=False, kw_only=True)
class Shard:
    """Features of some texts, mapped from a file: features (rows, dim), keys uint8 (rows, 16)."""

    path: Path
    features: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


def read_header(path: Path) -> tuple[dict[str, dict], int]:
    """Return a safetensors header and where the data begin.

    Raises:
        CacheError: The file is cut short or is no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise CacheError(f"{path} is no safetensors file, or was cut short")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise CacheError(f"{path} has a header that is not JSON") from error
    return header, 8 + length


def map_tensor(path: Path, entry: dict, start: int) -> np.ndarray:
    """Map one tensor of a safetensors file into memory without reading it; bfloat16 comes as uint16.

    Raises:
        CacheError: The file is shorter than its header says, or the tensor's type is not one that is read here.
    """
    code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    types = NAMES | {"BF16": "uint16", "U8": "uint8"}
    if code not in types:
        raise CacheError(f"{path} holds a tensor of type {code}; accepted: {', '.join(sorted(types))}")
    dtype = np.dtype(types[code])
    if path.stat().st_size < start + end or end - begin != dtype.itemsize * int(np.prod(shape)):
        raise CacheError(f"{path} is shorter than its header says")
    if end == begin:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + begin, shape=shape)


def write_shard(path: Path, keys: np.ndarray, dim: int, dtype: np.dtype, rows: Callable[[slice], np.ndarray]) -> None:
    """Write the features that `rows` returns for a slice of the keys, block by block; whole or not at all.

    Raises:
        CacheError: The file cannot be written.
    """
    n, width = len(keys), dim * dtype.itemsize
    keys = np.ascontiguousarray(keys)

    def header(crc: int) -> bytes:
        entries = {
            "__metadata__": {"format": FORMAT, "crc32": f"{crc:08x}"},
            "features": {"dtype": CODES[dtype.name], "shape": [n, dim], "data_offsets": [0, n * width]},
            "keys": {"dtype": "U8", "shape": [n, KEY_BYTES], "data_offsets": [n * width, n * (width + KEY_BYTES)]},
        }
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)  # the data begin at a multiple of eight bytes
        return len(text).to_bytes(8, "little") + text

    step = max(1, BLOCK_BYTES // width)
    try:
        with replacing(path) as part, part.open("wb") as file:
            crc = 0
            file.write(header(crc))
            for start in range(0, n, step):
                block = np.ascontiguousarray(rows(slice(start, min(n, start + step))), dtype=dtype)
                crc = zlib.crc32(block.data, crc)
                file.write(block.data)
            crc = zlib.crc32(keys.data, crc)
            file.write(keys.data)
            file.seek(0)
            file.write(header(crc))  # of the same length: the checksum has a fixed width
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror}", hint="name another folder for the cache") from error


def open_shard(path: Path) -> Shard:
    """Map a file that `write_shard` wrote, after checking its length and its checksum.

    Raises:
        CacheError: The file is cut short, altered, or not a feature file.
    """
    header, start = read_header(path)
    meta = header.get("__metadata__", {})
    if meta.get("format") != FORMAT or not {"features", "keys"} <= header.keys():
        raise CacheError(f"{path} is not a feature file of this version")
    features = map_tensor(path, header["features"], start)
    keys = map_tensor(path, header["keys"], start)
    if f"{zlib.crc32(keys.data, zlib.crc32(features.data)):08x}" != meta["crc32"]:
        raise CacheError(f"{path} does not match its checksum")
    return Shard(path=path, features=features, keys=keys)
