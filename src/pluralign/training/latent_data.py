"""Contexts for targets: what else a user said, as rows of a matrix that was computed once.

A context is drawn anew in every epoch for every target, from comparisons of the target's user that have another source.
Its size is uniform on a logarithmic scale, from about one comparison to all. Draws are a function of the seed, the
epoch and the row, so that micro-batches and processes change nothing, and a run that goes on draws what it would have
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.language_models.tokens import PreferenceTokens
from pluralign.training.data import Key, Pair, PairCollator, PairDataset
from pluralign.types import FloatArray

CONTEXT, EVALUATION = 2, 3  # what a draw is for, beside those of `data`


class Drawn(NamedTuple):
    """Contexts of a target.

    Attributes:
        rows: Comparisons of each.
        share: Of each context's divergence that is the target's: one over the weight that the context leaves out.
        noise: Draws from N(0, I), (contexts, draws, latent).
    """

    rows: list[np.ndarray]
    share: list[float]
    noise: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Contexts:
    """Comparisons that contexts are drawn from.

    Attributes:
        items: Coordinates of their texts (`Latent.items` of the model of contexts), (items, width + 1).
        tokens: The comparisons; users are numbered as the model has them.
        n_contexts: Contexts of a target.
        draws: Draws of z in each.
        latent_dim: Numbers in z.
        seed: Of everything drawn.
    """

    items: Float[Tensor, "items width1"]
    tokens: PreferenceTokens
    n_contexts: int
    draws: int
    latent_dim: int
    seed: int

    @cached_property
    def _of_user(self) -> list[np.ndarray]:
        """Rows of every user."""
        order = np.argsort(self.tokens.user, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.tokens.user, minlength=len(self.tokens.user_ids)))[:-1])

    def of(self, user: int, source: int, row: int, epoch: int | None) -> Drawn:
        """Contexts of a target.

        Args:
            user: Whose; of `UNKNOWN` nothing is known.
            source: Of the target: nothing of it is in a context.
            row: Of the target.
            epoch: None takes all that there is, and no share of the divergence.
        """
        purpose = [0, EVALUATION] if epoch is None else [epoch, CONTEXT]
        rng = np.random.default_rng([self.seed, *purpose, row])
        noise = rng.standard_normal((self.n_contexts, self.draws, self.latent_dim))
        own = self._of_user[user] if user >= 0 else np.empty(0, dtype=np.int64)
        theirs, number = np.unique(self.tokens.source[own], return_inverse=True)
        allowed = theirs != source
        rows, share = [], []
        for _ in range(self.n_contexts):
            if epoch is None:
                dealt = allowed
            else:
                wanted = max(len(own), 1) ** (rng.random() - 1) * 0.95
                dealt = (rng.random(len(theirs)) < wanted) & allowed
            inside = dealt[number]
            rows.append(own[inside])
            left = float(self.tokens.weight[own[~inside]].sum())
            share.append(1 / left if left and epoch is not None else 0.0)
        return Drawn(rows, share, noise)


class Target(NamedTuple):
    """A comparison to learn from or to be judged by, and its contexts."""

    pair: Pair
    contexts: Drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetDataset(PairDataset):
    """Comparisons as targets.

    Attributes:
        contexts: Where contexts come from; sources are numbered as there.
    """

    contexts: Contexts

    def __getitem__(self, key: int | Key) -> Target:  # type: ignore[override]
        pair = super().__getitem__(key)
        at = pair.key
        user, source = int(self.tokens.user[at.row]), int(self.tokens.source[at.row])
        return Target(pair, self.contexts.of(user, source, at.row, at.epoch))


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetCollator:
    """A batch of `PairCollator`, and the contexts of its terms as `LatentTower.bound` takes them.

    The generic term of a pair has contexts without comparisons, so that its z is drawn from the prior.
    """

    pairs: PairCollator
    contexts: Contexts

    def __call__(self, targets: Sequence[Target]) -> dict[str, Any]:
        """Lay out."""
        batch = self.pairs([each.pair for each in targets])
        terms = list(zip(batch["pair"].tolist(), batch["personal"].tolist(), strict=True))
        rows: list[np.ndarray] = []
        share: list[float] = []
        for pair, personal in terms:
            drawn = targets[pair].contexts
            rows += drawn.rows if personal else [drawn.rows[0][:0]] * len(drawn.rows)
            share += drawn.share if personal else [0.0] * len(drawn.share)
        every, tokens = np.concatenate(rows), self.contexts.tokens
        items, at = np.unique(np.stack([tokens.chosen[every], tokens.rejected[every]]), return_inverse=True)
        chosen, rejected = torch.from_numpy(at.reshape(2, -1).astype(np.int64))
        noise = np.concatenate([targets[pair].contexts.noise for pair, _ in terms])
        return batch | {
            "context_items": self.contexts.items[torch.from_numpy(items.astype(np.int64))],
            "context_chosen": chosen,
            "context_rejected": rejected,
            "context_outcome": torch.from_numpy(tokens.outcome[every]).float(),
            "context_weight": torch.from_numpy(tokens.weight[every]).float(),
            "context_owner": torch.repeat_interleave(torch.tensor([len(each) for each in rows])),
            "share": torch.tensor(share),
            "noise": torch.from_numpy(noise).float()[:, None],
        }
