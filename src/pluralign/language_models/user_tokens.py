"""User models of a language model: a user is a few rows of its input embedding.

P-RLHF (arXiv 2402.05133, section 4) writes a user as T_u soft tokens e_u of the model's width. Each kind below is a
module that turns users into those rows; the generic user e_0, `UNKNOWN`, is always one of them, and a user that a
model has never met is generic. All but clusters start where every user is the generic one, so that personalisation
begins from the pooled model (the released code draws offsets from the vocabulary: users begin as sums of two words).

Kinds:
    uniform: One row block for everybody; of width 0 tokens it is no user model at all (Remarks 5.2 and 5.3).
    individual: e_0 + o_u (Example 2).
    cluster: sum_k w_uk V_k with w_u on the simplex (Example 3 writes unconstrained weights, the released code a
        softmax, which is done here); `hard` gives each user one row block.
    basis: e_0 + sum_r w_ur V_r, unconstrained, w_u = 0 at the start: n_users x rank numbers instead of n_users x dim.
    text: e_0 + W f_u, f_u a fixed vector of what is known of the user (a persona, demographics), W = 0 at the start. A
        user who is described but was never trained on has a reward too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pluralign.errors import ConfigError
from pluralign.users import UNKNOWN


class UserTokens(nn.Module):
    """Rows of the input embedding for each user.

    Attributes:
        n_users: Number of users, the generic one not among them.
        n_tokens: Tokens per user, T_u.
        dim: Width of the embedding.
    """

    kind: ClassVar[str]

    def __init__(self, *, n_users: int, n_tokens: int, dim: int) -> None:
        super().__init__()
        if n_users < 0 or n_tokens < 0 or dim < 1:
            raise ConfigError(f"{n_users} users, {n_tokens} tokens per user and width {dim} cannot be")
        self.n_users, self.n_tokens, self.dim = n_users, n_tokens, dim

    def forward(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n tokens dim"]:
        """Rows of each user, `UNKNOWN` the generic one."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What `make_user_tokens` needs to make the module again, tensors apart."""
        return {"kind": self.kind, "n_users": self.n_users, "n_tokens": self.n_tokens, "dim": self.dim}

    def tables(self) -> list[nn.Parameter]:
        """Parameters with a row for each user: an optimizer must not move the rows of users that a batch lacks."""
        return []


class UniformTokens(UserTokens):
    """One block of rows shared by everybody, perhaps of no rows."""

    kind = "uniform"

    def __init__(self, *, n_users: int, n_tokens: int, dim: int) -> None:
        super().__init__(n_users=n_users, n_tokens=n_tokens, dim=dim)
        self.generic = nn.Parameter(torch.zeros(n_tokens, dim))

    def forward(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n tokens dim"]:
        return self.generic.expand(len(user), -1, -1)


class IndividualTokens(UserTokens):
    """e_0 + o_u: a shared block and one offset per user."""

    kind = "individual"

    def __init__(self, *, n_users: int, n_tokens: int, dim: int) -> None:
        super().__init__(n_users=n_users, n_tokens=n_tokens, dim=dim)
        self.generic = nn.Parameter(torch.zeros(n_tokens, dim))
        self.offset = nn.Parameter(torch.zeros(n_users, n_tokens, dim))

    def forward(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n tokens dim"]:
        return self.generic + known(user, self.offset)

    def tables(self) -> list[nn.Parameter]:
        return [self.offset]


class ClusterTokens(UserTokens):
    """A mixture of K shared blocks: softmax of a user's logits, or (`hard`) the block of the user's cluster.

    The generic user mixes the blocks by logits of its own (as released), so that training without the generic term
    (alpha = 1) leaves it where it began: at equal shares. Indices from `n_users` on are the clusters
    themselves, so that text can be written for a cluster.
    """

    kind = "cluster"
    cluster: Tensor

    def __init__(self, *, n_users: int, n_tokens: int, dim: int, n_clusters: int, hard: bool = False) -> None:
        super().__init__(n_users=n_users, n_tokens=n_tokens, dim=dim)
        if n_clusters < 1:
            raise ConfigError(f"n_clusters is {n_clusters}; it must be at least 1")
        self.n_clusters, self.hard = n_clusters, hard
        self.blocks = nn.Parameter(torch.zeros(n_clusters, n_tokens, dim))
        self.generic_logit = nn.Parameter(torch.zeros(n_clusters))
        if hard:
            self.register_buffer("cluster", torch.zeros(n_users, dtype=torch.int64))
        else:
            self.logit = nn.Parameter(torch.zeros(n_users, n_clusters))

    def shares(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n clusters"]:
        """Weight of each block for each user; rows sum to 1."""
        generic = self.generic_logit.softmax(0)
        one = torch.eye(self.n_clusters, device=generic.device, dtype=generic.dtype)
        number = user.clamp(min=0, max=max(self.n_users - 1, 0))
        if not self.n_users:
            own = generic.expand(len(user), -1)
        elif self.hard:
            own = one[self.cluster[number]]
        else:
            own = self.logit[number].softmax(-1)
        pure = one[(user - self.n_users).clamp(min=0)]
        return torch.where((user < 0)[:, None], generic, torch.where((user < self.n_users)[:, None], own, pure))

    def forward(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n tokens dim"]:
        return torch.einsum("nk,ktd->ntd", self.shares(user), self.blocks)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "n_clusters": self.n_clusters, "hard": self.hard}

    def tables(self) -> list[nn.Parameter]:
        return [] if self.hard else [self.logit]

    def assign(self, cluster: Int[Tensor, " users"]) -> None:
        """Put every user into a cluster (`hard`).

        Raises:
            ConfigError: Users share the clusters softly, one has no cluster here, or the number of users is another.
        """
        if not self.hard:
            raise ConfigError("users mix the clusters; make the user model with hard=True to assign them")
        if len(cluster) != self.n_users:
            raise ConfigError(f"{len(cluster)} clusters for {self.n_users} users; give one for each")
        if ((cluster < 0) | (cluster >= self.n_clusters)).any():
            wrong = int(((cluster < 0) | (cluster >= self.n_clusters)).nonzero()[0])
            raise ConfigError(
                f"user {wrong} is in cluster {int(cluster[wrong])}; it must be 0 to {self.n_clusters - 1}",
                hint="a user without a cluster is nobody that the model knows: leave the name out of user_ids",
            )
        self.cluster.copy_(cluster)


class BasisTokens(UserTokens):
    """e_0 + sum_r w_ur V_r: each user is `rank` numbers."""

    kind = "basis"

    def __init__(self, *, n_users: int, n_tokens: int, dim: int, rank: int) -> None:
        super().__init__(n_users=n_users, n_tokens=n_tokens, dim=dim)
        if rank < 1:
            raise ConfigError(f"rank is {rank}; it must be at least 1")
        self.rank = rank
        self.generic = nn.Parameter(torch.zeros(n_tokens, dim))
        self.blocks = nn.Parameter(torch.zeros(rank, n_tokens, dim))
        self.weight = nn.Parameter(torch.zeros(n_users, rank))

    def forward(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n tokens dim"]:
        return self.generic + torch.einsum("nr,rtd->ntd", known(user, self.weight), self.blocks)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "rank": self.rank}

    def tables(self) -> list[nn.Parameter]:
        return [self.weight]


class TextTokens(UserTokens):
    """e_0 + W f_u, where f_u describes the user (`described`, (users, width))."""

    kind = "text"
    described: Tensor

    def __init__(self, *, n_users: int, n_tokens: int, dim: int, width: int) -> None:
        super().__init__(n_users=n_users, n_tokens=n_tokens, dim=dim)
        self.width = width
        self.generic = nn.Parameter(torch.zeros(n_tokens, dim))
        self.project = nn.Parameter(torch.zeros(width, n_tokens, dim))
        self.register_buffer("described", torch.zeros(n_users, width))

    def forward(self, user: Int[Tensor, " n"]) -> Float[Tensor, "n tokens dim"]:
        return self.generic + torch.einsum("nw,wtd->ntd", known(user, self.described), self.project)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "width": self.width}

    def describe(self, rows: Float[Tensor, "users width"]) -> None:
        """Say what is known of every user (`pluralign.language_models.descriptions` makes such rows).

        Raises:
            ConfigError: There is not one row of `width` numbers for each user.
        """
        if rows.shape != self.described.shape:
            raise ConfigError(
                f"descriptions are {tuple(rows.shape)}, and the user model is for {tuple(self.described.shape)}: "
                "users, numbers for each"
            )
        self.described.copy_(rows)


KINDS: dict[str, type[UserTokens]] = {
    each.kind: each for each in (UniformTokens, IndividualTokens, ClusterTokens, BasisTokens, TextTokens)
}


def known(user: Int[Tensor, " n"], table: Tensor) -> Tensor:
    """Rows of a table, (users, ...), for the users that it knows, zeros for `UNKNOWN`, (n, ...)."""
    if not len(table):
        return table.new_zeros(len(user), *table.shape[1:])
    rows = table[user.clamp(min=0)]
    return rows * (user >= 0).view(-1, *[1] * (rows.ndim - 1)).to(rows.dtype)


def make_user_tokens(kind: str, **settings: Any) -> UserTokens:
    """Make a user model by name, all zeros; `start` or a state dict fills it.

    Raises:
        ConfigError: There is no such kind, or it has no such setting.
    """
    if kind not in KINDS:
        raise ConfigError(f'unknown user model "{kind}"; known: {", ".join(KINDS)}')
    try:
        return KINDS[kind](**settings)
    except TypeError as error:
        raise ConfigError(f"user model {kind}: {error}") from None


Draw = Callable[[torch.Size], Tensor]
"""Shape -> where rows of that shape start, their width last."""


def from_vocabulary(vocabulary: Float[Tensor, "words dim"], generator: torch.Generator) -> Draw:
    """Rows of the vocabulary at random (P-RLHF, appendix: training is faster than from random numbers)."""

    def draw(shape: torch.Size) -> Tensor:
        return vocabulary[torch.randint(len(vocabulary), shape[:-1], generator=generator).to(vocabulary.device)]

    return draw


def normal(scale: float, generator: torch.Generator) -> Draw:
    """Numbers from N(0, scale^2)."""
    return lambda shape: scale * torch.randn(shape, generator=generator)


def start(users: UserTokens, draw: Draw, generator: torch.Generator) -> None:
    """Fill e_0 and the shared blocks.

    Tables of users stay zero, so every user of the individual, basis and text kinds starts as the generic one (of the
    basis kind the weights move in the first step, and the blocks, whose gradient they scale, from the second). The
    clusters' logits are drawn from N(0, 1) as released: equal ones would keep users and blocks equal for ever.
    """
    with torch.no_grad():
        for name, value in users.named_parameters():
            if name in ("generic", "blocks") and value.numel():
                value.copy_(draw(value.shape))
            elif name == "logit":
                value.copy_(torch.randn(value.shape, generator=generator))


__all__ = [
    "KINDS",
    "UNKNOWN",
    "BasisTokens",
    "ClusterTokens",
    "IndividualTokens",
    "TextTokens",
    "UniformTokens",
    "UserTokens",
    "from_vocabulary",
    "make_user_tokens",
    "normal",
    "start",
]
