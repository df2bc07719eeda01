"""From comparisons as token ids to the batches of an optimiser step.

The rows of a step are a function of the seed and the epoch alone: how a step is divided into micro-batches, among
processes and among the workers that lay rows out changes neither which rows it has nor which of their terms, so that
loss and gradient are the same. Rows of like length go into one step, because padding is work.

P-RLHF's mixture alpha L(u) + (1 - alpha) L(u_0) gives a comparison two *terms*, one for its user and one for the
generic user. Drawn ("sampled"), it has one: its user is dropped with probability 1 - alpha, which has the same
expectation at half the cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pluralign.errors import ConfigError
from pluralign.language_models.packing import Sequence, pack
from pluralign.language_models.tokens import PreferenceTokens
from pluralign.users import UNKNOWN

STEPS_TOGETHER = 16  # rows of so many steps are sorted by length among themselves
ORDER, DROP = 0, 1  # what a draw is for


class Key(NamedTuple):
    """A row as the sampler hands it out.

    Attributes:
        row: Row number.
        personal: Whether it has its user's term.
        generic: Whether it has the generic user's.
        counted: Whether it is part of the loss, or there because its process has nothing else to do.
        epoch: Epoch in which it is learnt from; None where it is evaluated.
    """

    row: int
    personal: bool
    generic: bool
    counted: bool
    epoch: int | None = None


class Pair(NamedTuple):
    """A comparison as the collator reads it.

    Attributes:
        chosen: The first response, for its user.
        rejected: The second.
        outcome: Probability that the first is preferred.
        weight: Weight of the row; 0 where it does not count.
        reference: Log-probabilities of the two under the reference, in nats.
        key: What of it is asked for.
    """

    chosen: Sequence
    rejected: Sequence
    outcome: float
    weight: float
    reference: tuple[float, float]
    key: Key


@dataclass(frozen=True, kw_only=True, eq=False)
class PairDataset(Dataset[Pair]):
    """Comparisons as token ids, and what a frozen reference thinks of them.

    Attributes:
        tokens: The comparisons, users numbered as the model has them.
        reference: Log-probability of every item's response under the reference, in nats, (items,), or None.
    """

    tokens: PreferenceTokens
    reference: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, key: int | Key) -> Pair:
        """A comparison; by its number alone with both its terms."""
        key = key if isinstance(key, Key) else Key(row=int(key), personal=True, generic=True, counted=True)
        tokens, row = self.tokens, key.row
        first, second, user = int(tokens.chosen[row]), int(tokens.rejected[row]), int(tokens.user[row])
        return Pair(
            chosen=tokens.sequence(first, user),
            rejected=tokens.sequence(second, user),
            outcome=float(tokens.outcome[row]),
            weight=float(tokens.weight[row]),
            reference=(0.0, 0.0)
            if self.reference is None
            else (float(self.reference[first]), float(self.reference[second])),
            key=key,
        )


class StepSampler(Sampler[list[Key]]):
    """Batches of one process: which rows, and which of their terms, in every micro-batch of every step.

    Attributes:
        steps: Number of optimiser steps of an epoch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        batch: int,
        accumulation: int = 1,
        rank: int = 0,
        world: int = 1,
        alpha: float = 1.0,
        mixture: str = "exact",
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        """Plan.

        Args:
            lengths: What rows are sorted by, so that batches have little padding, (rows,).
            batch: Rows of a micro-batch.
            accumulation: Micro-batches of a process in a step.
            rank: Number of this process.
            world: Number of processes.
            alpha: Weight of the personal term.
            mixture: "exact", rows have both terms, or "sampled", one that is drawn.
            seed: Where orders and draws come from.
            drop_last: Leave out the rows that do not fill a step.

        Raises:
            ConfigError: There are fewer rows than a step needs.
        """
        self.lengths, self.batch, self.accumulation, self.rank, self.world = lengths, batch, accumulation, rank, world
        self.alpha, self.mixture, self.seed, self.drop_last = alpha, mixture, seed, drop_last
        self.epoch = 0
        self.size = batch * accumulation * world
        n = len(lengths)
        self.steps = n // self.size if drop_last else -(-n // self.size)
        if not self.steps:
            raise ConfigError(f"{n} comparisons do not fill one step of {self.size}")

    def set_epoch(self, epoch: int) -> None:
        """Number of the epoch that the next iteration is."""
        self.epoch = epoch

    def order(self) -> list[np.ndarray]:
        """Rows of every step of the epoch, each sorted by length."""
        rng = np.random.default_rng([self.seed, self.epoch, ORDER])
        rows = rng.permutation(len(self.lengths))
        whole = len(rows) // self.size * self.size
        rows, rest = rows[:whole], rows[whole:]
        together = self.size * STEPS_TOGETHER
        steps = []
        for first in range(0, whole, together):
            some = rows[first : first + together]
            some = some[np.argsort(self.lengths[some], kind="stable")]
            steps += [some[i : i + self.size] for i in range(0, len(some), self.size)]
        steps = [steps[i] for i in rng.permutation(len(steps))]
        if len(rest) and not self.drop_last:
            steps.append(rest[np.argsort(self.lengths[rest], kind="stable")])
        return steps

    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether each row has its personal and its generic term in this epoch, each (rows,)."""
        n = len(self.lengths)
        if self.mixture == "exact":
            return np.full(n, self.alpha > 0), np.full(n, self.alpha < 1)
        personal = np.random.default_rng([self.seed, self.epoch, DROP]).random(n) < self.alpha
        return personal, ~personal

    def __len__(self) -> int:
        """Number of micro-batches of this process in an epoch."""
        rest = 0 if self.drop_last else len(self.lengths) % self.size
        whole = len(self.lengths) // self.size * self.accumulation
        return whole + -(-rest // (self.batch * self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        personal, generic = self.terms()
        for rows in self.order():
            n_batches = -(-len(rows) // (self.batch * self.world))
            for part in np.array_split(rows, n_batches * self.world)[self.rank :: self.world]:
                # Every process takes part in every micro-batch; one that has no row reads one that does not count.
                counted = bool(len(part))
                yield [
                    Key(int(row), bool(personal[row]), bool(generic[row]), counted, self.epoch)
                    for row in (part if counted else rows[:1])
                ]


class StepLoader(DataLoader[Pair]):
    """A loader that tells its sampler the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Number of the epoch that the next iteration is."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


@dataclass(frozen=True, kw_only=True)
class PairCollator:
    """Lays comparisons out as a model reads them, with what their loss needs.

    Beside the fields of `Packed` a batch has, for its terms (a comparison's personal or generic one):
        labels: 1 for every comparison, -100 where it does not count, (pairs,): `Trainer` counts them.
        pair: Comparison of each term, (terms,).
        personal: Whether the term is the user's, (terms,).
        outcome: Probability that the first response is preferred, (terms,).
        weight: The row's weight times the term's share of the mixture, (terms,).
        reference: Log-probability under the reference of the first responses, then of the second, (2 terms,).
        length: Tokens of these responses, (2 terms,).
        about: Outcome, weight and user of each comparison, (pairs, 3).
    The model's outputs stand in the order of `reference`.

    Attributes:
        layout: What `pack` needs to know of the model.
        alpha: Weight of the personal term in the mixture.
        mixture: "exact", both terms, or "sampled", one that was drawn.
        impersonal: Whether all users are one, so that both terms are the same and one is enough.
        share: Whether rows are shared; None where it saves enough.
    """

    layout: Mapping[str, Any]
    alpha: float = 1.0
    mixture: str = "exact"
    impersonal: bool = False
    share: bool | None = None

    def __call__(self, pairs: List[Pair]) -> dict[str, Any]:
        """Lay out."""
        pair, personal, weight = [], [], []
        exact = self.mixture == "exact" and not self.impersonal
        for i, each in enumerate(pairs):
            terms = ((True, self.alpha, each.key.personal), (False, 1 - self.alpha, each.key.generic))
            for whose, share, wanted in ((False, 1.0, True),) if self.impersonal else terms:
                if wanted:
                    pair.append(i)
                    personal.append(whose)
                    weight.append((share if exact else 1.0) * each.weight * each.key.counted)
        firsts, seconds = ([getattr(pairs[i], which) for i in pair] for which in ("chosen", "rejected"))
        sequences = [
            each if whose else replace(each, user=UNKNOWN)
            for each, whose in zip([*firsts, *seconds], [*personal, *personal], strict=True)
        ]
        packed = pack(sequences, share=self.share, **self.layout)
        at = torch.tensor(pair)
        reference = torch.tensor([each.reference for each in pairs])

        def column(values: List[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32)

        return {
            **packed.tensors(),
            "labels": torch.tensor([1 if each.key.counted else -100 for each in pairs]),
            "pair": at,
            "personal": torch.tensor(personal),
            "outcome": column([each.outcome for each in pairs])[at],
            "weight": column(weight),
            "reference": reference[at].T.flatten(),
            "length": column([float(len(each.response)) for each in sequences]),
            "about": torch.tensor([[each.outcome, each.weight, each.chosen.user] for each in pairs]),
        }
