"""Training and assigning by turns, the rounds of `pluralign.training.cluster_policies`.

Every adapter that was trained is kept, where a folder is given. What a round does is a function of its adapters and of
the users' places before it, so a run that was killed goes on by doing its rounds over without their training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainingArguments

from pluralign.comparisons import Comparisons
from pluralign.features import Design
from pluralign.files import replacing
from pluralign.inference.hard_em import classify, fill_empty
from pluralign.inference.soft_em import posterior
from pluralign.language_models.personal import PersonalPolicy
from pluralign.language_models.reading import BATCH_TOKENS
from pluralign.language_models.tokens import PreferenceTokens
from pluralign.likelihoods import Logit
from pluralign.training.data import PairDataset
from pluralign.training.margins import row_margins
from pluralign.training.settings import PolicySettings
from pluralign.training.train import autocast_dtype, train_in_its_precision
from pluralign.training.trainer import PreferenceTrainer
from pluralign.types import FloatArray, IntArray
from pluralign.users import UNKNOWN

Values: TypeAlias = dict[str, Tensor]
TOLERANCE = 0.01  # nats per decision: a round in which nobody moves and that gains less is the last
LEAST_WEIGHT = 1e-3  # rows of a smaller posterior are left out of a soft cluster's training


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round of training and assigning came to.

    Attributes:
        start: Which restart it belongs to.
        log_likelihood: Hard: sum_u max_k of the users' log-likelihoods; soft: of the mixture. In nats.
        sizes: Users of each cluster after the round.
        moved: Users whom the round put elsewhere.
    """

    start: int
    log_likelihood: float
    sizes: tuple[int, ...]
    moved: int


@dataclass(frozen=True, eq=False, kw_only=True)
class State:
    """A run of the alternation at its best round."""

    adapters: tuple[Values, ...]
    cluster: IntArray
    membership: FloatArray
    log_likelihood: float
    rounds: tuple[Round, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Alternation:
    """What the rounds of all starts share. Users are numbered as in `tokens`; `judged` marks the decisions assigned by,
    or is None where all are both trained on and assigned by. Adapters are kept in the folder `kept`."""

    model: PersonalPolicy
    comparisons: Comparisons
    tokens: PreferenceTokens
    reference: np.ndarray
    settings: PolicySettings
    args: TrainingArguments
    begin: Values
    judged: np.ndarray | None
    soft: bool
    kept: Path | None = None

    def run(self, cluster: IntArray, n_clusters: int, max_rounds: int, start: int) -> State:
        """Train and assign by turns from an assignment."""
        adapters = (self.begin,) * (n_clusters + 1)
        membership = np.eye(n_clusters)[cluster]
        best: State | None = None
        rounds: list[Round] = []
        for number in range(max(1, max_rounds)):
            adapters = self.train_all(adapters, membership, f"{start}-{number}")
            log_prob = self.user_log_prob(adapters[:-1])
            value, found = self.assign(log_prob, membership)
            if max_rounds == 0:
                value, found = float((membership * log_prob).sum()), membership
            moved = found.argmax(1) != membership.argmax(1)
            rounds.append(
                Round(
                    start=start,
                    log_likelihood=value,
                    sizes=tuple(np.bincount(found.argmax(1), minlength=n_clusters).tolist()),
                    moved=int(moved.sum()),
                )
            )
            if best is None or value > best.log_likelihood:
                best = State(
                    adapters=adapters,
                    cluster=found.argmax(1).astype(np.int32),
                    membership=found,
                    log_likelihood=value,
                    rounds=(),
                )
            membership = self.refilled(found, log_prob)
            gain = np.inf if len(rounds) < 2 else value - rounds[-2].log_likelihood
            n_judged = self.comparisons.n_decisions if self.judged is None else int(self.judged.sum())
            if not moved.any() and gain < TOLERANCE * n_judged:
                break
        assert best is not None
        return State(**{**best.__dict__, "rounds": tuple(rounds)})

    def train_all(self, adapters: tuple[Values, ...], membership: FloatArray, name: str) -> tuple[Values, ...]:
        """Each cluster's adapter after training on its members, and last everybody's; kept by the name of the round."""
        shares = np.concatenate([membership, np.ones((len(membership), 1))], axis=1)
        trained = []
        for k, values in enumerate(adapters):
            path = None if self.kept is None else self.kept / f"checkpoint-{name}" / f"adapter-{k}.safetensors"
            if path is not None and path.is_file():
                trained.append(load_file(path, device=str(self.args.device)))
                continue
            trained.append(self.train(values, shares[:, k]))
            if path is not None and self.args.should_save:
                with replacing(path) as part:
                    save_file({key: value.contiguous() for key, value in trained[-1].items()}, part)
        return tuple(trained)

    def train(self, values: Values, share: FloatArray) -> Values:
        """An adapter after DPO on rows weighted by their users' shares, (users,)."""
        tokens = self.tokens
        keep = share[tokens.user] > LEAST_WEIGHT
        if self.judged is not None:
            keep &= ~self.judged[self.comparisons.decision]
        if not keep.any():
            return values
        rows = tokens.take(keep)
        rows = replace(rows, weight=rows.weight * share[rows.user])
        load_values(self.model, values)
        trainer = PreferenceTrainer(
            self.model, self.args, self.settings, train=PairDataset(tokens=rows, reference=self.reference)
        )
        train_in_its_precision(trainer)
        return copy_values(self.model)

    def user_log_prob(self, adapters: tuple[Values, ...]) -> FloatArray:
        """Log-likelihood of each user's decisions under each adapter, in nats, (users, adapters).

        Adapters are read at the precision of their training, at which the reference was computed.
        """
        columns = []
        autocast = autocast_dtype(self.args)
        for values in adapters:
            load_values(self.model, values)
            with torch.autocast(self.model.device.type, dtype=autocast, enabled=autocast is not None):
                columns.append(cluster_margins(self.model, self.tokens, self.reference, self.settings.beta))
        log_prob = decision_log_probs(self.comparisons, np.stack(columns, axis=1)).numpy()
        if self.judged is not None:
            log_prob = log_prob * self.judged[:, None]
        total = np.zeros((len(self.tokens.user_ids), len(adapters)))
        np.add.at(total, self.tokens.user[self.comparisons.first_row], log_prob)
        return total

    def assign(self, log_prob: FloatArray, membership: FloatArray) -> tuple[float, FloatArray]:
        """The objective, and the membership that attains it."""
        users = torch.as_tensor(log_prob)[:, None]
        if self.soft:
            share = torch.as_tensor(membership.mean(0)).clamp(min=1e-12)[None]
            value, found = posterior(users, share)
        else:
            value, found = classify(users)
        return float(value[0]), found[:, 0].numpy()

    def refilled(self, membership: FloatArray, log_prob: FloatArray) -> FloatArray:
        """A membership in which no cluster is empty."""
        if self.soft:
            return membership
        size = np.bincount(self.tokens.user, minlength=len(membership)).astype(np.float64)
        filled = fill_empty(
            torch.as_tensor(membership)[:, None], torch.as_tensor(log_prob)[:, None], torch.as_tensor(size)
        )
        return filled[:, 0].numpy()


def decision_log_probs(comparisons: Comparisons, margin: FloatArray) -> Tensor:
    """Log-probability of every decision under every policy, in nats, (decisions, policies).

    Args:
        comparisons: The decisions.
        margin: Of every row under every policy, (rows, policies).
    """
    design = Design.of(comparisons, torch.zeros(len(comparisons.items), 0, dtype=torch.float64))
    return Logit().log_prob(torch.as_tensor(margin, dtype=torch.float64), design.decisions) * design.weight[:, None]


def copy_values(model: PersonalPolicy) -> Values:
    """What training has made of a model so far."""
    return {name: value.detach().clone() for name, value in model.trained().items()}


def load_values(model: PersonalPolicy, values: Values) -> None:
    """Put trained values back."""
    with torch.no_grad():
        for name, value in model.trained().items():
            if value.numel():  # users of no token are not trained once a trainer has seen them
                value.copy_(values[name])


def cluster_margins(
    model: PersonalPolicy,
    tokens: PreferenceTokens,
    reference: np.ndarray,
    beta: float,
    batch_tokens: int = BATCH_TOKENS,
) -> FloatArray:
    nobody = np.full(len(tokens), UNKNOWN)
    return row_margins(model, tokens, nobody, reference=reference, beta=beta, batch_tokens=batch_tokens)
