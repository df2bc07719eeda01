"""Bring features to mean 0 and standard deviation 1, as the training items say.

A ridge on the heads means the same for every column only if the columns have one scale. A column that does not vary
over the training items is dropped: nothing can be learnt from it, and in a fit without a ridge it would be singular.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pluralign.errors import CacheError, DataError
from pluralign.files import replacing

BLOCK_ROWS = 8192
SMALL_DIM = 100  # below it fits are exact Newton in float64


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Standardizer:
    """Column means and scales of the training items.

    Attributes:
        mean: Of the columns that are kept, float64 (kept,).
        scale: Standard deviations of the columns that are kept, float64 (kept,).
        columns: Which columns of the raw features are kept, ascending, (kept,).
        raw_dim: Width of the raw features.
    """

    mean: Float[Tensor, " kept"]
    scale: Float[Tensor, " kept"]
    columns: Int[Tensor, " kept"]
    raw_dim: int

    @classmethod
    def fit(
        cls,
        features: Float[np.ndarray, "items dim"],
        items: Int[np.ndarray, " train"] | Bool[np.ndarray, " items"] | None = None,
    ) -> "Standardizer":
        """Measure the columns over some items, each counted once.

        Args:
            features: Raw features.
            items: The training items (`used_items(train)`), as indices or as a mask; None means all.

        Raises:
            DataError: There is no training item, or no column varies over them.
        """
        n, dim = features.shape
        rows = np.arange(n) if items is None else np.flatnonzero(items) if items.dtype == np.bool_ else items
        if not len(rows):
            raise DataError("there is no training item to standardize by")
        mean, square = np.zeros(dim), np.zeros(dim)
        for block in _blocks(len(rows)):
            mean += features[rows[block]].sum(axis=0, dtype=np.float64) / len(rows)
        largest = np.zeros(dim)
        for block in _blocks(len(rows)):
            values = features[rows[block]].astype(np.float64)
            square += ((values - mean) ** 2).sum(axis=0) / len(rows)
            largest = np.maximum(largest, np.abs(values).max(axis=0))
        scale = np.sqrt(square)
        # A constant column's deviations are rounding errors of its mean, relative to its size.
        columns = np.flatnonzero(scale > 1e-10 * largest)
        if not len(columns):
            raise DataError(f"none of the {dim} features varies over the {len(rows)} training items")
        return cls(
            mean=torch.from_numpy(mean[columns]),
            scale=torch.from_numpy(scale[columns]),
            columns=torch.from_numpy(columns),
            raw_dim=dim,
        )

    @property
    def dim(self) -> int:
        """Width of the standardized features."""
        return self.columns.numel()

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of the columns that are kept, given those of the raw ones."""
        return tuple(names[i] for i in self.columns.tolist())

    def transform(
        self,
        features: Float[np.ndarray, "items raw"],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "items kept"]:
        """Return the standardized features as a tensor; by default float64 below 100 columns, else float32.

        Raises:
            DataError: The features have another width than those it was fitted on.
        """
        if features.shape[1] != self.raw_dim:
            raise DataError(f"features have {features.shape[1]} columns; the standardizer knows {self.raw_dim}")
        dtype = dtype or pick_dtype(self.dim)
        out = torch.empty(len(features), self.dim, dtype=dtype, device=device)
        columns = self.columns.numpy() if self.dim < self.raw_dim else slice(None)
        for block in _blocks(len(features)):
            values = torch.from_numpy(features[block].astype(np.float64)[:, columns])
            out[block] = ((values - self.mean) / self.scale).to(device, dtype)
        return out

    def save(self, path: Path) -> None:
        """Write the tensors as safetensors."""
        from safetensors.torch import save_file

        with replacing(path) as part:
            save_file(self.tensors(), part)

    def tensors(self) -> dict[str, Tensor]:
        """Everything it is, as named tensors."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "columns": self.columns,
            "raw_dim": torch.tensor(self.raw_dim),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Standardizer":
        """Make it of what `tensors` returned."""
        return cls(
            mean=tensors["mean"],
            scale=tensors["scale"],
            columns=tensors["columns"],
            raw_dim=int(tensors["raw_dim"]),
        )

    @classmethod
    def load(cls, path: Path) -> "Standardizer":
        """Read what `save` wrote.

        Raises:
            CacheError: The file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return cls.from_tensors(load_file(path))
        except (OSError, SafetensorError, KeyError) as error:
            raise CacheError(f"{path} holds no standardizer: {error}") from error


def pick_dtype(dim: int) -> torch.dtype:
    """float64 for narrow features, whose fits are exact Newton; float32 for wide ones."""
    return torch.float64 if dim < SMALL_DIM else torch.float32


def to_tensor(
    features: Float[np.ndarray, "items dim"],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "items dim"]:
    """Return features as they are, as a tensor; by default float64 below 100 columns, else float32."""
    dtype = dtype or pick_dtype(features.shape[1])
    out = torch.empty(features.shape, dtype=dtype, device=device)
    for block in _blocks(len(features)):
        out[block] = torch.from_numpy(np.array(features[block])).to(device, dtype)  # a copy: memory maps are read-only
    return out


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(n, start + BLOCK_ROWS)) for start in range(0, n, BLOCK_ROWS))
