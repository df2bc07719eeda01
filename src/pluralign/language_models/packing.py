"""Sequences in rows: what several responses share is read once.

A pair's two responses have one prompt, and where the user's token stands after the prompt its personal and its generic
term have it too. Such sequences lie in one row: the prompt, then one *branch* for each response, each of which sees the
prompt and itself. Positions go on from the prompt's end in every branch, so a row gives what its sequences give apart.
With P tokens of prompt and R of responses a pair costs P + 2R instead of 2P + 2R; the attention mask is then no longer
plain, so rows are shared only where that saves `SAVING` of the tokens, padding included.

Prompts end in one column and branches begin in the next. So the columns whose logits are needed stand at the end,
where `logits_to_keep` of every causal model finds them: the LM head reads responses and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pluralign.errors import ConfigError, DataError
from pluralign.language_models.conditioning import user_token_ids

# Where the user's tokens stand: before the prompt (the paper), between prompt and response, or nowhere.
Place = Literal["before", "after", "none"]
SAVING = 1.25
PAD, PREFIX = -1, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """A prompt, a response to it, and for whom.

    Attributes:
        prompt: Token ids.
        response: Token ids, its end-of-sequence token among them.
        user: User index, `UNKNOWN` the generic user.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    user: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """A batch of sequences as the model reads it. Branches are numbered over all rows.

    Attributes:
        input_ids: Ids, users' reserved ones among them, (rows, length).
        position_ids: Position of every token in its sequence, (rows, length).
        segment: -1 padding, 0 prefix, 1, 2, ... the row's branches, (rows, length).
        shared: Whether some row has several branches: if not, attention is plain.
        first: First column whose logits anybody needs.
        target_row: Row of each response token, (targets,).
        target_column: Column whose logits predict it, (targets,).
        target: The token, (targets,).
        target_branch: Branch of it, (targets,).
        end_row: Row of each branch, (branches,).
        end_column: Column of its last token, (branches,).
        branch: Branch of each sequence; sequences that read the same share one, (sequences,).
        user: User of each sequence, (sequences,).
    """

    input_ids: Int[Tensor, "rows length"]
    position_ids: Int[Tensor, "rows length"]
    segment: Int[Tensor, "rows length"]
    shared: bool
    first: int
    target_row: Int[Tensor, " targets"]
    target_column: Int[Tensor, " targets"]
    target: Int[Tensor, " targets"]
    target_branch: Int[Tensor, " targets"]
    end_row: Int[Tensor, " branches"]
    end_column: Int[Tensor, " branches"]
    branch: Int[Tensor, " sequences"]
    user: Int[Tensor, " sequences"]

    def to(self, device: torch.device | str) -> Packed:
        """The same on another device."""
        tensors = {name: value for name, value in self.tensors().items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
        return replace(self, **moved)

    def tensors(self) -> dict[str, Any]:
        """Fields by name, as a model's `forward` takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def pack(
    sequences: List[Sequence],
    *,
    place: Place,
    vocab_size: int,
    n_tokens: int,
    share: bool | None = None,
    share_limit: int | None = None,
    longest: int | None = None,
) -> Packed:
    """Lay sequences out in rows. `PersonalModel.layout` holds what a model needs of these settings.

    Args:
        sequences: What to read.
        place: Where the user's tokens stand; "none" writes no user.
        vocab_size: Number of ordinary ids.
        n_tokens: Tokens per user.
        share: Whether sequences with the same prefix share a row; None means where it saves enough.
        share_limit: Longest row that may be shared, where `share` is None: further apart than that, or at all (0), the
            model does not see what a tree mask lets it see.
        longest: Most positions that the model has.

    Raises:
        ConfigError: There are no sequences.
        DataError: Nothing stands before a response's first token, a response is empty, or a sequence is too long.
    """
    if not sequences:
        raise ConfigError("there are no sequences to pack")
    if place == "none" or not n_tokens:
        place, n_tokens = "none", 0

    branch_of: dict[tuple, int] = {}
    branches: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []  # prefix, ids of the branch, its response tokens
    branch = np.empty(len(sequences), dtype=np.int64)
    for i, each in enumerate(sequences):
        own = tuple(user_token_ids(each.user, vocab_size=vocab_size, n_tokens=n_tokens)) if n_tokens else ()
        prefix = own + each.prompt if place == "before" else each.prompt
        ids = own + each.response if place == "after" else each.response
        key = (prefix, ids)
        if key not in branch_of:
            branch_of[key] = len(branches)
            branches.append((prefix, ids, len(each.response)))
            _check(each, n_tokens, longest)
        branch[i] = branch_of[key]

    together: dict[tuple[int, ...], list[int]] = {}
    for b, (prefix, _, _) in enumerate(branches):
        together.setdefault(prefix, []).append(b)
    rows_shared, rows_apart = list(together.values()), [[b] for b in range(len(branches))]
    if share is None:
        n_apart, n_shared = size_of(rows_apart, branches), size_of(rows_shared, branches)
        fits = share_limit is None or n_shared // len(rows_shared) <= share_limit
        share = fits and n_apart >= SAVING * n_shared
    rows = rows_shared if share else rows_apart
    return _lay_out(rows, branches, branch, np.array([each.user for each in sequences], dtype=np.int64))


def _check(sequence: Sequence, n_tokens: int, longest: int | None) -> None:
    """Check that a response has tokens, something to foretell the first, and room."""
    n_prompt, n_response = len(sequence.prompt), len(sequence.response)
    if not n_response:
        raise DataError("a response has no tokens", hint="drop empty responses")
    if not n_prompt + n_tokens:
        raise DataError("a prompt has no tokens", hint="begin it with the beginning-of-sequence token")
    if longest is not None and n_prompt + n_tokens + n_response > longest:
        raise DataError(
            f"a sequence has {n_prompt + n_tokens + n_response} tokens ({n_prompt} of prompt, {n_tokens} of the user, "
            f"{n_response} of response), and the model reads at most {longest}",
            hint="cut prompts and responses when they are tokenised (max_prompt, max_response)",
        )


def size_of(rows: list[list[int]], branches: list[tuple[tuple[int, ...], tuple[int, ...], int]]) -> int:
    """Number of tokens, padding included, of rows of branches."""
    before = max(len(branches[row[0]][0]) for row in rows)
    after = max(sum(len(branches[b][1]) for b in row) for row in rows)
    return len(rows) * (before + after)


def _lay_out(
    rows: list[list[int]],
    branches: list[tuple[tuple[int, ...], tuple[int, ...], int]],
    branch: np.ndarray,
    user: np.ndarray,
) -> Packed:
    start = max(len(branches[row[0]][0]) for row in rows)
    length = start + max(sum(len(branches[b][1]) for b in row) for row in rows)
    ids = np.zeros((len(rows), length), dtype=np.int64)
    position = np.zeros_like(ids)
    segment = np.full_like(ids, PAD)
    end = np.zeros((len(branches), 2), dtype=np.int64)
    target_row, target_column, target, target_branch = [], [], [], []
    for r, row in enumerate(rows):
        prefix = branches[row[0]][0]
        n = len(prefix)
        ids[r, start - n : start] = prefix
        position[r, start - n : start] = np.arange(n)
        segment[r, start - n : start] = PREFIX
        column = start
        for s, b in enumerate(row, start=1):
            _, own, n_response = branches[b]
            stop = column + len(own)
            ids[r, column:stop] = own
            position[r, column:stop] = np.arange(n, n + len(own))
            segment[r, column:stop] = s
            end[b] = r, stop - 1
            predictors = np.arange(stop - n_response, stop) - 1
            if n_response == len(own):
                predictors[:1] = start - 1  # the prefix's end foretells every branch's beginning
            target_row.append(np.full(n_response, r))
            target_column.append(predictors)
            target.append(np.asarray(own[len(own) - n_response :], dtype=np.int64))
            target_branch.append(np.full(n_response, b))
            column = stop

    def tensor(values: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(values).astype(np.int64))

    return Packed(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(position),
        segment=torch.from_numpy(segment),
        shared=any(len(row) > 1 for row in rows),
        first=max(start - 1, 0),
        target_row=tensor(target_row),
        target_column=tensor(target_column),
        target=tensor(target),
        target_branch=tensor(target_branch),
        end_row=torch.from_numpy(end[:, 0].copy()),
        end_column=torch.from_numpy(end[:, 1].copy()),
        branch=torch.from_numpy(branch),
        user=torch.from_numpy(user),
    )


def tree_mask(segment: Int[Tensor, "rows length"]) -> Bool[Tensor, "rows one length length"]:
    """Whether each token (third axis) sees each other (fourth): what precedes it in its prefix and its branch.

    Padding sees padding, because a softmax over nothing is not a number; nobody else does.
    """
    column = torch.arange(segment.shape[1], device=segment.device)
    same = (segment[:, None, :] == PREFIX) | (segment[:, None, :] == segment[:, :, None])
    return (same & (column <= column[:, None]))[:, None]
