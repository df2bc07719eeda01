"""`Enquiry`: what is known of one user, what to ask next, and when to stop.

enquiry = Enquiry.of(reward, pool, user="ada", answers=earlier)
while not enquiry.value().stop(0.01):
    row = enquiry.propose().rows[0]
    enquiry = enquiry.answer(row, first=put(pool, row))
reward = enquiry.finished()
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
import torch

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.likelihoods import Decisions
from pluralign.queries.beliefs import Belief
from pluralign.queries.believing import believe
from pluralign.queries.choosing import Proposal, propose
from pluralign.queries.placing import bent_back, place, straightened
from pluralign.queries.pool import distinct_pairs, pairs_among, without_answers
from pluralign.queries.value import Responses, Value, rows_of, value_of_asking
from pluralign.rewards import LinearReward
from pluralign.types import BoolArray, FloatArray, IntArray
from pluralign.users import UNKNOWN, UserModel

STRANGER = "new user"
_MAX_QUESTIONS = 64  # whose value is computed: those of the largest information gain
_MAX_RESPONSES = 20_000
_MAX_PAIRS = 256
_MAX_PREDICTIONS = 500_000


class Resemblance(NamedTuple):
    """Somebody whom the model knows, and the chance of giving the same answer to a pair of the pool."""

    user: str
    agreement: float


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Enquiry:
    """A user who is being asked.

    Attributes:
        reward: The saved model.
        model: Its users, on the features of `design`.
        name: The user's name.
        user: The user's number in the model, or `UNKNOWN`.
        pool: The pairs, each of them once.
        origin: Row of every pair in the pool that was given, (rows,).
        design: The pairs on the features that `model` is about.
        earlier: Answers that were given before, as decisions of user 0.
        open: Pairs that may still be asked, (rows,).
        rows: Pairs that were answered, in order, (answers,).
        outcomes: 1 where the first was preferred, 0 the second, (answers,).
        positions: 1 where the first was shown first, -1 second, 0 unknown, (answers,).
    """

    reward: LinearReward
    model: UserModel
    name: str
    user: int
    pool: Comparisons
    origin: IntArray
    design: Design
    earlier: Design
    open: BoolArray
    rows: IntArray
    outcomes: FloatArray
    positions: IntArray

    @classmethod
    def of(
        cls,
        reward: LinearReward,
        pool: Comparisons,
        *,
        user: str | None = None,
        answers: Comparisons | None = None,
        **settings: object,
    ) -> Enquiry:
        """Begin with a saved model, a pool and the answers so far.

        Args:
            reward: The model. Not every one has something to ask: a pooled one has not.
            pool: Pairs that could be asked; who answered them, and how, is not looked at.
            user: The user's name. One whom the model knows begins where the model has them; None, or a name that it
                does not know, is somebody new.
            answers: Comparisons to which the model was not fitted. Those of this user are taken, and are not asked.
            settings: Of `encode`.

        Raises:
            ConfigError: The model has no posterior of a user, or cannot go on from one it knows.
            DataError: The pool is empty, or the answers have no row of this user.
        """
        origin = distinct_pairs(pool)
        pool = without_answers(pool).take(origin)
        design = reward.design(pool, **settings)
        earlier, open = design.take(torch.zeros(len(pool), dtype=torch.bool)), np.ones(len(pool), dtype=np.bool_)
        believe(reward.users, earlier, earlier.user)  # a model that has none says so at once
        if answers is not None:
            own = answers_of(answers, user)
            earlier, open = reward.design(own, **settings), ~pairs_among(pool, own)
            earlier = replace(earlier, user=torch.zeros_like(earlier.user), n_users=1)
        model, turn = straightened(reward.users)
        if turn is not None:
            design, earlier = (each.with_features(each.features @ turn.to(each.features)) for each in (design, earlier))
        return cls(
            reward=reward,
            model=model,
            name=STRANGER if user is None else user,
            user=UNKNOWN if user is None else int(reward.user_index([user])[0]),
            pool=pool,
            origin=origin,
            design=design,
            earlier=earlier,
            open=open,
            rows=np.empty(0, dtype=np.int32),
            outcomes=np.empty(0, dtype=np.float64),
            positions=np.empty(0, dtype=np.int32),
        )

    @property
    def known(self) -> bool:
        """Whether the model was fitted to this user."""
        return self.user != UNKNOWN

    @cached_property
    def answers(self) -> Design:
        """All answers, the earlier ones first."""
        return _joined(self.earlier, self._given)

    @cached_property
    def placed(self) -> UserModel:
        """Where the answers put the user: the model of this one user, number 0, on the features of `design`."""
        return place(self.model, self.user, self.answers)

    @cached_property
    def belief(self) -> Belief:
        """What is believed of the margins of the pool's pairs."""
        return believe(self.placed, self.design, torch.zeros_like(self.design.user))

    def propose(self, n: int = 1, *, method: str = "information_gain", seed: int = 0) -> Proposal:
        """The next questions, as `queries.propose` chooses them.

        Raises:
            DataError: All pairs have been asked.
        """
        return propose(self.belief, n, method=method, allowed=self.open, seed=seed)

    def answer(self, row: int, *, first: bool, position: int = 0) -> Enquiry:
        """What is known once the user preferred the first response of a pair, or the second.

        Args:
            row: The pair.
            first: Whether the first was preferred.
            position: 1 where the first was shown first, -1 second, 0 unknown.

        Raises:
            ConfigError: As `skip`.
        """
        closed = self.skip(row)
        return replace(
            closed,
            rows=np.append(self.rows, np.int32(row)),
            outcomes=np.append(self.outcomes, 1.0 if first else 0.0),
            positions=np.append(self.positions, np.int32(position)),
        )

    def skip(self, row: int) -> Enquiry:
        """The same, but for a pair that will not be asked again.

        Raises:
            ConfigError: It has been asked before, or there is no such pair.
        """
        if not (0 <= row < len(self.pool) and self.open[row]):
            raise ConfigError(f"pair {row} of the pool cannot be answered: it has been asked, or there is no such pair")
        open = self.open.copy()
        open[row] = False
        return replace(self, open=open)

    def value(self) -> Value:
        """What one more answer is expected to gain, for the choice of a response to each prompt of the pool.

        Only the questions of largest information gain are looked at, and of many prompts a sample.
        """
        ranked = np.argsort(-np.where(self.open, self.belief.information_gain().numpy(force=True), -1.0), kind="stable")
        rows = torch.from_numpy(ranked[: min(_MAX_QUESTIONS, int(self.open.sum()))])
        questions = rows_of(self.design, self.design.chosen[rows], self.design.rejected[rows])
        return value_of_asking(self.placed, 0, questions, self._responses)

    def resembles(self, n: int = 3) -> list[Resemblance]:
        """The known users who would give the same answers most often, on a sample of the pool's pairs."""
        own = _probabilities(self.placed, self._sample, torch.zeros(1, dtype=torch.int64))
        same = self._others @ own[0] + (1 - self._others) @ (1 - own[0])
        agreement = same.numpy(force=True) / max(1, self._sample.n_rows)
        names = list(self.reward.user_ids)
        order = [i for i in np.argsort(-agreement, kind="stable").tolist() if i != self.user]
        return [Resemblance(names[i], float(agreement[i])) for i in order[:n]]

    def finished(self) -> LinearReward:
        """The saved model with this user alone, placed by the answers."""
        return replace(self.reward, users=bent_back(self.placed, self.reward.users), user_ids=(self.name,))

    def table(self) -> Comparisons:
        """The answers given here, the preferred response first."""
        taken = self.pool.take(self.rows)
        first = self.outcomes == 1
        return replace(
            taken,
            chosen=np.where(first, taken.chosen, taken.rejected),
            rejected=np.where(first, taken.rejected, taken.chosen),
            position=np.where(first, self.positions, -self.positions) if self.positions.any() else None,
            user_ids=(self.name,),
        )

    @cached_property
    def _given(self) -> Design:
        rows = torch.from_numpy(self.rows).long()
        pairs = rows_of(self.design, self.design.chosen[rows], self.design.rejected[rows])
        outcome, position = (
            torch.from_numpy(each).to(self.design.features) for each in (self.outcomes, self.positions)
        )
        return replace(pairs, decisions=replace(pairs.decisions, outcome=outcome, position=position))

    @cached_property
    def _responses(self) -> Responses:
        group = self.pool.items.prompt
        items = np.union1d(self.pool.chosen, self.pool.rejected)
        if len(items) > _MAX_RESPONSES:
            order = np.random.default_rng(0).permutation(int(group.max()) + 1)[group[items]]
            items = items[np.argsort(order, kind="stable")[:_MAX_RESPONSES]]
        return Responses.of(self.design, group, items)

    @cached_property
    def _sample(self) -> Design:
        """Pairs on which users are compared: all, or as many at random as can be predicted for everybody."""
        most = min(_MAX_PAIRS, max(32, _MAX_PREDICTIONS // max(1, self.model.n_users)))
        rows = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(self.pool))[:most]))
        return rows_of(self.design, self.design.chosen[rows], self.design.rejected[rows])

    @cached_property
    def _others(self) -> torch.Tensor:
        return _probabilities(self.model, self._sample, torch.arange(self.model.n_users))


def answers_of(comparisons: Comparisons, user: str | None) -> Comparisons:
    """One user's rows; where no name is given, those of the only user there is.

    Raises:
        DataError: There is none, or no telling whose are meant.
    """
    number = {name: i for i, name in enumerate(comparisons.user_ids)}
    shown = ", ".join(f'"{name}"' for name in comparisons.user_ids[:5]) + (", ..." if len(number) > 5 else "")
    if user is None:
        if len(number) > 1:
            raise DataError(f"the answers are of {len(number)} users: {shown}", hint="say whose are meant: user")
        return comparisons
    if user not in number:
        raise DataError(f'the answers have no row of user "{user}"; they are of {shown}')
    return comparisons.take_decisions(comparisons.user[comparisons.first_row] == number[user])


def _joined(one: Design, other: Design) -> Design:
    """The decisions of two designs, each with its own items."""
    if not one.n_decisions:
        return other
    shift = len(one.features)
    return Design(
        features=torch.cat([one.features, other.features]),
        chosen=torch.cat([one.chosen, other.chosen + shift]),
        rejected=torch.cat([one.rejected, other.rejected + shift]),
        decisions=Decisions(
            index=torch.cat([one.decisions.index, other.decisions.index + one.n_decisions]),
            outcome=torch.cat([one.decisions.outcome, other.decisions.outcome]),
            position=torch.cat([one.decisions.position, other.decisions.position]),
        ),
        user=torch.cat([one.user, other.user]),
        weight=torch.cat([one.weight, other.weight]),
        source=torch.cat([one.source, other.source]),
        n_users=one.n_users,
    )


def _probabilities(model: UserModel, pairs: Design, users: torch.Tensor) -> torch.Tensor:
    """Probability that each user prefers the first of every pair, (users, pairs)."""
    first, second = (each.repeat(len(users)) for each in (pairs.chosen, pairs.rejected))
    repeated = rows_of(pairs, first, second)
    found = model.predict(repeated, users.repeat_interleave(pairs.n_rows)).chosen
    return torch.from_numpy(found).view(len(users), pairs.n_rows)
