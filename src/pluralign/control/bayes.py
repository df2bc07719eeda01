"""The exact posterior over finitely many kinds of users, whose true rewards are known: the best that can be done.

With shares s_k and answers y of one user, P(k | y) is proportional to s_k times the product of P(y_i | k), and an
answer without noise has probability 1 under every kind that gives it and 0 under the others. No latent user predicts
pairs better, or puts more things right, on average over users drawn by the shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from pluralign.comparisons import Comparisons
from pluralign.control.choices import Rearrange, Tidy
from pluralign.control.preferences import Sets
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Predictions
from pluralign.evaluation.groups import sum_by


@dataclass(frozen=True, eq=False, kw_only=True)
class Kinds:
    """What is known of every user: the probability of each kind.

    Attributes:
        task: Whose kinds.
        probability: Of each kind, (users, kinds).
    """

    task: Task
    probability: Float[ndarray, "users kinds"]

    def predict(self, sets: Sets) -> Predictions:
        """Probabilities of other answers of the same users, given without noise.

        A kind to which both items are the same counts as one that tosses a coin.
        """
        table = sets.comparisons
        said = _said(self.task, table)
        chosen = np.einsum("rk,rk->r", self.probability[table.user], (said + 1) / 2)
        outcome = np.ones(len(table)) if table.outcome is None else table.outcome
        weight = np.ones(len(table)) if table.weight is None else table.weight
        return Predictions(
            chosen=chosen,
            best_other=1 - chosen,
            outcome=outcome,
            user=table.user,
            source=table.source,
            weight=weight,
        )

    def reward(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n users"]:
        """Expected true reward, (n, users)."""
        return self.task.rewards(observation).T @ self.probability.T

    def right(self) -> Float[ndarray, "options users"]:
        """Probability that each option of a one-step task is right: taking the largest is right most often.

        Raises:
            ConfigError: The task is no choice.
        """
        if not isinstance(self.task, Rearrange | Tidy):
            raise ConfigError(f'the task "{self.task.name}" is no choice among options', hint="take `reward`")
        return (self.probability @ self.task.right).T


def kinds_posterior(
    task: Task, sets: Sets, *, shares: Float[ndarray, " kinds"] | None = None, noise: float = 0.0
) -> Kinds:
    """Say of every user how probable each kind is, after all of their answers.

    Args:
        task: Whose kinds and true rewards.
        sets: The answers.
        shares: Probability of each kind beforehand; None means the same for all.
        noise: Probability that an answer is turned round.

    Raises:
        ConfigError: The noise is no probability, or the shares are not those of the task's kinds.
        DataError: A user's answers are given by no kind of user.
    """
    n_kinds = len(task.users)
    shares = np.full(n_kinds, 1 / n_kinds) if shares is None else np.asarray(shares, dtype=np.float64)
    if not 0 <= noise <= 1:
        raise ConfigError(f"noise is {noise}; it is a probability, from 0 to 1")
    if shares.shape != (n_kinds,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ConfigError(f"shares must be {n_kinds} probabilities that add up to 1, one per kind of user")
    table = sets.comparisons
    said = _said(task, table)
    tied = np.zeros(len(table), dtype=np.bool_) if table.outcome is None else table.outcome == 0.5
    # A tie is a tie however noisy: turned round it is the same.
    clear = np.where(said == 0, 0.0, np.where(said > 0, 1 - noise, noise))
    with np.errstate(divide="ignore"):
        log_prob = np.log(np.where(tied[:, None], said == 0, clear))
        total = _sum_rows(table.user, log_prob, table.n_users) + np.log(shares)
    top = total.max(1, keepdims=True)
    if not np.isfinite(top).all():
        lost = np.flatnonzero(~np.isfinite(top[:, 0]))
        raise DataError(
            f"the answers of {len(lost)} users, the first {table.user_ids[lost[0]]}, are given by no kind of user",
            hint="say a noise above 0",
        )
    probability = np.exp(total - top)
    return Kinds(task=task, probability=probability / probability.sum(1, keepdims=True))


def _sum_rows(user: Int[ndarray, " rows"], values: Float[ndarray, "rows kinds"], n_users: int) -> ndarray:
    """Sums over each user's rows, (users, kinds)."""
    return np.stack([sum_by(user, column, n_users) for column in values.T], axis=1)


def _said(task: Task, table: Comparisons) -> Float[ndarray, "rows kinds"]:
    """1 where a kind agrees with a row, -1 where it does not, 0 where both items are the same to it."""
    if table.items.attributes is None:
        raise DataError("the items have no attributes, from which their true rewards are computed")
    reward = task.rewards(table.items.attributes)
    return np.sign(reward[:, table.chosen] - reward[:, table.rejected]).T
