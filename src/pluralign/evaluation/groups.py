"""Sums over the entries of each group."""

import numpy as np

from pluralign.types import FloatArray


def sum_by(group: np.ndarray, values: np.ndarray, n_groups: int) -> FloatArray:
    """Sum values (n,) by their group number (n,); groups without an entry get 0, (n_groups,)."""
    return np.bincount(group, weights=values, minlength=n_groups).astype(np.float64, copy=False)
