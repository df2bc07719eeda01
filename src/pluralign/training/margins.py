"""What a personal model says of compared responses: rewards of items for users, and margins of rows.

A policy's implicit reward is beta times the log-ratio of a response under the policy, which sees the user, and under
the reference, which sees none (arXiv 2305.18290, section 5.1; arXiv 2402.05133, section 4); what depends on the prompt
alone is left out, and cancels in a margin. A pair of an item and a user is read once however many rows have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pluralign.errors import ConfigError
from pluralign.language_models.personal import PersonalConfig, PersonalModel, PersonalPolicy
from pluralign.language_models.reading import BATCH_TOKENS, read_values
from pluralign.language_models.tokens import PreferenceTokens
from pluralign.training.objectives import PER_TOKEN
from pluralign.training.reference import item_batches, reference_log_probs
from pluralign.types import FloatArray
from pluralign.users import UNKNOWN


def item_values(
    model: PersonalModel,
    tokens: PreferenceTokens,
    item: np.ndarray,
    user: np.ndarray,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> FloatArray:
    """Log-probability (policy, in nats) or reward of each item for the user beside it, (n,).

    Args:
        model: A policy or a reward model.
        tokens: What items say.
        item: Item indices, (n,).
        user: The model's user indices, `UNKNOWN` the generic user, (n,).
        batch_tokens: About how many tokens are read at a time.
    """
    if not model.users.n_tokens:
        user = np.full_like(user, UNKNOWN)
    found, inverse = np.unique(np.stack([item, user], axis=1).astype(np.int64), axis=0, return_inverse=True)
    prompt = tokens.prompt[found[:, 0]]
    # Those that can share a row side by side, and prompts of one length, so that there is little padding.
    apart = found[:, 1] if model.place == "before" else np.zeros(len(found))
    order = np.lexsort((found[:, 1], found[:, 0], apart, prompt, tokens.prompts.length[prompt]))
    batches = (order[rows] for rows in _runs(model, tokens, found[order, 0], batch_tokens))
    values = read_values(model, len(found), lambda i: tokens.sequence(*found[i].tolist()), batches)
    return values[inverse.reshape(-1)]


def row_margins(
    model: PersonalModel,
    tokens: PreferenceTokens,
    user: np.ndarray,
    *,
    reference: np.ndarray | None = None,
    beta: float = 1.0,
    batch_tokens: int = BATCH_TOKENS,
) -> FloatArray:
    """Margin of each row for the user beside it: the chosen response's reward minus the rejected one's, (rows,).

    Of a policy that was trained by its log-ratios per token (`PER_TOKEN`) they are rewards per token.

    Args:
        model: A policy or a reward model.
        tokens: The rows.
        user: The model's user index of every row, (rows,).
        reference: Log-probability of every item under the reference, (items,); for policies.
        beta: What a policy's log-ratios are multiplied by.
        batch_tokens: About how many tokens are read at a time.
    """
    both = np.concatenate([tokens.chosen, tokens.rejected])
    said = item_values(model, tokens, both, np.concatenate([user, user]), batch_tokens=batch_tokens)
    if reference is not None:
        said = said - reference[both]
    if model.config.loss in PER_TOKEN:
        said = said / tokens.responses.length[both]
    chosen, rejected = np.split(said, 2)
    return beta * (chosen - rejected)


def policy_reference(
    model: PersonalPolicy, tokens: PreferenceTokens, *, cache: Any = None, batch_tokens: int = BATCH_TOKENS
) -> np.ndarray:
    """Log-probability of every compared response under what a policy was before its training, in nats, (items,).

    That is its language model without users and without adapter; of a fully tuned one, its base read anew.

    Raises:
        ConfigError: A fully tuned policy names no base.
    """
    if model.config.tuning == "full":
        if not model.config.base:
            raise ConfigError("a fully tuned policy that names no base has no reference", hint="give `reference`")
        plain = PersonalConfig(base=model.config.base, tuning="frozen")
        model = PersonalPolicy.make(plain, dtype=model.dtype).to(model.device)
    return reference_log_probs(model, tokens, cache=cache, batch_tokens=batch_tokens, progress=False)


def _runs(model: PersonalModel, tokens: PreferenceTokens, items: np.ndarray, batch_tokens: int) -> Iterator[slice]:
    """Runs of sorted items. What reads no user is read once for all of them, and counts once."""
    if model.place == "none":
        first = np.flatnonzero(np.diff(items, prepend=-1))
        ends = np.append(first, len(items))
    else:
        ends = np.arange(len(items) + 1)
    for run in item_batches(tokens, items[ends[:-1]], batch_tokens):
        yield slice(int(ends[run[0]]), int(ends[run[-1] + 1]))
