"""What is known of users as numbers: what the user model "text" (e_0 + W f_u) reads.

Two readings. A persona is the mean of the language model's own input embeddings of its words, so that personas about
the same things are near each other before anything is learnt. Covariates are numbers as they are and a column of 0 and
1 for each category. Both are standardised over the users and scaled so that an average user's f_u has length 1: the
generic user e_0 is then the average user, and W learns at the pace of other user models' blocks whatever the width.

Standardising is over all users given. So give everyone whose rewards will be asked for, those without a choice among
them: they have rows in the user model too, and their rewards follow from what is known of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pluralign.errors import ConfigError, DataError


def describe_texts(
    texts: Sequence[str], tokenizer: Any, vocabulary: Float[Tensor, "words dim"]
) -> Float[Tensor, "users dim"]:
    """Describe users by texts about them; a user with none is the average one.

    Args:
        texts: One per user.
        tokenizer: The language model's.
        vocabulary: Its input embedding.
    """
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    rows = np.full((len(texts), vocabulary.shape[1]), np.nan)
    for i, each in enumerate(ids):
        if each:
            rows[i] = vocabulary[torch.tensor(each, device=vocabulary.device)].double().mean(0).numpy(force=True)
    return _standardize(rows)


def describe_covariates(users: pa.Table, columns: Sequence[str] | None = None) -> Float[Tensor, "users width"]:
    """Describe users by covariates; a value that is missing is the average.

    Args:
        users: One row per user (`Comparisons.users`).
        columns: Which columns; None is all.

    Raises:
        ConfigError: There is no such column.
        DataError: A column is neither numbers nor texts, or nothing in the columns differs between users.
    """
    names = users.column_names if columns is None else list(columns)
    missing = sorted(set(names) - set(users.column_names))
    if missing:
        raise ConfigError(f'no covariate "{missing[0]}"; known: {", ".join(users.column_names)}')
    parts = [_numbers(name, users.column(name)) for name in names]
    described = _standardize(np.concatenate([np.empty((users.num_rows, 0)), *parts], axis=1))
    if not described.any():
        raise DataError(f"no covariate ({', '.join(names) or 'none was named'}) differs between users")
    return described


def _numbers(name: str, column: pa.ChunkedArray) -> Float[np.ndarray, "users width"]:
    """A column of numbers as it is; of texts, a column for each that occurs; NaN where missing."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.array([[np.nan if each is None else float(each)] for each in column.to_pylist()])
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataError(f'covariate "{name}" is {kind}; numbers and texts are accepted')
    code = pc.dictionary_encode(column).combine_chunks().indices.to_numpy(zero_copy_only=False)
    known = np.isfinite(code)
    rows = np.full((len(code), int(code[known].max(initial=-1)) + 1), np.nan)
    rows[known] = np.eye(rows.shape[1])[code[known].astype(int)]
    return rows


def _standardize(rows: Float[np.ndarray, "users width"]) -> Float[Tensor, "users width"]:
    """Columns of mean 0 and variance 1 over the users, divided by the root of the width; missing values are 0."""
    seen = ~np.isnan(rows).all(axis=0)
    scaled = np.zeros_like(rows)
    if len(rows) and seen.any():
        scaled[:, seen] = StandardScaler().fit_transform(rows[:, seen])
    return torch.from_numpy(np.nan_to_num(scaled) / np.sqrt(max(1, rows.shape[1]))).float()
