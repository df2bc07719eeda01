"""Features that exist already: the numeric attributes of the items, or an array that another program made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from pluralign.comparisons import Comparisons, Items
from pluralign.errors import ConfigError, DataError
from pluralign.features.shards import CODES, map_tensor, read_header, write_shard
from pluralign.features.texts import KEY_BYTES, find_keys, list_items, text_keys


@final
@dataclass(frozen=True)
class Attributes:
    """The numeric attributes of the items as they are."""

    kind: ClassVar[str] = "attributes"

    @property
    def identity(self) -> dict[str, object]:
        return {"kind": self.kind}

    def look_up(self, items: Items) -> np.ndarray:
        """Return the attributes, float64 (items, attributes).

        Raises:
            DataError: The items are texts alone.
        """
        if items.attributes is None:
            raise DataError("the items have no numeric attributes", hint='encode their texts: `make_encoder("tfidf")`')
        return items.attributes


@final
@dataclass(frozen=True)
class Precomputed:
    """An array in a file: `.npy`, or `.safetensors` with a tensor `features`.

    Its rows are the items in order, or, where the file also holds `keys` (see `save_features`), are found by text.
    """

    kind: ClassVar[str] = "array"
    path: Path

    def __post_init__(self) -> None:
        if self.path.suffix not in {".npy", ".safetensors"}:
            raise ConfigError(f"{self.path} ends in {self.path.suffix!r}; accepted: .npy, .safetensors")
        if not self.path.is_file():
            raise ConfigError(f"there is no file {self.path}")

    @property
    def identity(self) -> dict[str, object]:
        with self.path.open("rb") as file:
            digest = sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return {"kind": self.kind, "path": str(self.path), "sha256": digest.hexdigest()}

    @property
    def dim(self) -> int:
        return self._arrays[0].shape[1]

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        keys = None
        if self.path.suffix == ".npy":
            try:
                features = np.load(self.path, mmap_mode="r", allow_pickle=False)
            except ValueError as error:
                raise DataError(f"{self.path} is no plain array: {error}") from error
        else:
            header, start = read_header(self.path)
            tensors = sorted(header.keys() - {"__metadata__"})
            name = "features" if "features" in tensors or len(tensors) != 1 else tensors[0]
            if name not in tensors:
                raise DataError(f'{self.path} has no tensor "features"; it has: {", ".join(tensors) or "none"}')
            features = map_tensor(self.path, header[name], start)
            if header[name]["dtype"] == "BF16":
                features = (features.astype(np.uint32) << 16).view(np.float32)
            if "keys" in tensors:
                keys = map_tensor(self.path, header["keys"], start)
        if features.ndim != 2 or features.dtype.kind != "f":
            raise DataError(f"{self.path} holds {features.dtype} {features.shape}; accepted: floats (items, dim)")
        if keys is not None and keys.shape != (len(features), KEY_BYTES):
            raise DataError(f"{self.path} has keys of shape {keys.shape} for {len(features)} rows of features")
        return features, keys

    def look_up(self, items: Items) -> np.ndarray:
        """Return the items' rows, (items, dim), in the file's precision.

        Raises:
            DataError: The rows are not as many as the items, or a text is not in the file, or a value is not finite.
        """
        features, keys = self._arrays
        if keys is None:
            if len(features) != len(items):
                raise DataError(
                    f"{self.path} has {len(features):,} rows, but there are {len(items):,} items",
                    hint="give one row per item as in `comparisons.items`, or key it by text (`save_features`)",
                )
        else:
            features = self._by_text(items, features, keys)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise DataError(f"{self.path}: the features of item {bad[0]} hold a NaN or an infinity")
        return features

    def _by_text(self, items: Items, features: np.ndarray, keys: np.ndarray) -> np.ndarray:
        # Items do not know whether they are chats; the file has a text's key as the one or as the other.
        rows = find_keys(text_keys(list_items(items)), keys)
        chats = find_keys(text_keys(list_items(items, chat=True)), keys)
        rows = np.where(rows < 0, chats, rows)
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            raise DataError(
                f"{self.path} has no features for {len(absent):,} of {len(items):,} items; the first is "
                f"{items.response[int(absent[0])].as_py()[:60]!r}"
            )
        return features[rows]


def save_features(path: str | Path, comparisons: Comparisons, features: np.ndarray) -> None:
    """Write features keyed by text, so that any table that holds these texts finds them again.

    Args:
        path: A `.safetensors` file.
        comparisons: The table.
        features: One row per item, (items, dim), float16, float32 or float64.

    Raises:
        ConfigError: The path has another ending.
        DataError: The array does not fit the items.
        CacheError: The file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} ends in {path.suffix!r}; features keyed by text are a .safetensors file")
    items = list_items(comparisons.items, chat=comparisons.format == "chat")
    if features.ndim != 2 or len(features) != len(items) or features.dtype.name not in CODES:
        raise DataError(f"features are {features.dtype} {features.shape}; accepted: floats ({len(items)}, dim)")
    write_shard(path, text_keys(items), features.shape[1], features.dtype, lambda rows: features[rows])
