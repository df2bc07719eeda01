"""Ids beyond the vocabulary stand for users: the input embedding answers for them, the output never offers them.

A language model with a `PersonalEmbedding` in the place of its input embedding reads `vocab_size + (user + 1) * T + t`
as token t of user `user` (the generic user is -1). Everything that hands it `input_ids` (trainers, collators,
generation, padding, positions) works as it is; the LM head is untouched, so a reserved id cannot be sampled.

Some embeddings multiply what they look up by a constant (Gemma's by the square root of the width). A user's rows are
multiplied like a word's: they are rows of the table, which an ordinary checkpoint holds as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pluralign.errors import ConfigError
from pluralign.language_models.user_tokens import UserTokens


class PersonalEmbedding(nn.Module):
    """Input embedding of ordinary ids and of users' ids.

    Attributes:
        base: The model's own embedding, or what PEFT wrapped it in.
        users: Rows of the users.
    """

    def __init__(self, base: Any, users: UserTokens) -> None:
        super().__init__()
        self.base, self.users = base, users
        if self.embedding_dim != users.dim:
            raise ConfigError(f"users have width {users.dim}, the model's embedding {self.embedding_dim}")

    @property
    def weight(self) -> Tensor:
        """The ordinary rows, which a tied LM head shares."""
        return self.base.weight

    @property
    def num_embeddings(self) -> int:
        """Number of ordinary ids."""
        return len(self.weight)  # what PEFT wraps around an embedding has a weight and nothing else of it

    @property
    def embedding_dim(self) -> int:
        return self.weight.shape[1]

    @property
    def scale(self) -> Any:
        """What rows of the table are multiplied by, under the name that transformers and PEFT have for it."""
        return getattr(getattr(self.base, "base_layer", self.base), "embed_scale", 1.0)

    def forward(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """Embed ids; reserved ones get their user's rows."""
        rows = self.base(ids.clamp(max=self.num_embeddings - 1))
        if not self.users.n_tokens:
            return rows
        reserved = ids >= self.num_embeddings
        number = ids[reserved] - self.num_embeddings
        # Each user's rows are formed once however often a batch has the user. A batch without users still reaches the
        # parameters (with gradient zero), which processes that train together rely on.
        user, place = torch.unique(number // self.users.n_tokens - 1, return_inverse=True)
        personal = self.users(user)[place, number % self.users.n_tokens]
        scale = self.scale
        scale = scale.to(rows) if isinstance(scale, Tensor) else scale
        return rows.masked_scatter(reserved[..., None], personal.to(rows.dtype) * scale)


def user_token_ids(user: int, *, vocab_size: int, n_tokens: int) -> list[int]:
    """Reserved ids of a user, `UNKNOWN` the generic one."""
    first = vocab_size + (user + 1) * n_tokens
    return list(range(first, first + n_tokens))
