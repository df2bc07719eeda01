"""Is another question worth its while? What an answer is expected to gain in the choice of a best response.

Whoever must give a user one response of a set gives the one of the largest expected reward. An answer is worth what
it is expected to add to that reward, in the reward's units (nats of a margin): E_y max_j E[r_j | y] - max_j E[r_j],
which is never negative and is 0 where no answer would change the choice. It looks one question ahead: where only two
answers together would change a choice it says 0, so that it is taken over many sets, and `perfect` stands beside it:
E max_j r_j - max_j E[r_j], what somebody would gain who knew the user, an upper bound on any number of questions.

A reward is taken as the margin over the first response of its set, which adds to each side the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.features import Design
from pluralign.likelihoods import Decisions
from pluralign.queries.beliefs import Belief, Gaussian, Particles
from pluralign.queries.believing import believe
from pluralign.types import FloatArray
from pluralign.users import UserModel

_N_DRAWS = 256  # a power of two, as Sobol sequences want


@dataclass(frozen=True, eq=False, kw_only=True)
class Value:
    """What can be gained in the reward of the response chosen, mean over the sets, in nats.

    Attributes:
        gain: By one answer to each of the questions, (questions,).
        perfect: By knowing the user; from quasi-random draws where the posterior is Gaussian.
        sets: Number of sets of responses.
    """

    gain: FloatArray
    perfect: float
    sets: int

    @property
    def best(self) -> float:
        """What the best of the questions is worth."""
        return float(self.gain.max(initial=0.0))

    def stop(self, epsilon: float) -> bool:
        """Whether no question is expected to gain as much as `epsilon`."""
        return self.best < epsilon


@dataclass(frozen=True, eq=False, kw_only=True)
class Responses:
    """Sets of responses, from each of which the user will be given one.

    Attributes:
        design: One row for each response, which compares it with the first of its set.
        set: Set of every response, (responses,).
        count: Number of sets.
    """

    design: Design
    set: Int[Tensor, " responses"]
    count: int

    @classmethod
    def of(cls, pairs: Design, group: np.ndarray, items: np.ndarray) -> Responses:
        """From the items of a design, `group` being the set of every item and `items` those to be had."""
        items = np.unique(items)
        _, first, number = np.unique(group[items], return_index=True, return_inverse=True)
        item = torch.as_tensor(items, dtype=torch.int64, device=pairs.chosen.device)
        other = torch.as_tensor(items[first][number], dtype=torch.int64, device=pairs.chosen.device)
        return cls(
            design=rows_of(pairs, item, other),
            set=torch.as_tensor(number, dtype=torch.int64, device=pairs.chosen.device),
            count=len(first),
        )


def rows_of(design: Design, first: Int[Tensor, " rows"], second: Int[Tensor, " rows"]) -> Design:
    """Pairs of a design's items, of user 0."""
    at = torch.arange(len(first), device=first.device)
    one = design.features.new_ones(len(first))
    return replace(
        design,
        chosen=first,
        rejected=second,
        decisions=Decisions(index=at, outcome=one, position=torch.zeros_like(one)),
        user=torch.zeros_like(at),
        weight=one,
        source=at,
        n_users=1,
    )


def value_of_asking(model: UserModel, user: int, questions: Design, responses: Responses) -> Value:
    """What an answer to each question is worth for the choice of responses.

    Args:
        model: A model with a posterior of the user.
        user: Whose, or `UNKNOWN`.
        questions: Pairs that could be asked, one row each.
        responses: What the user is to be given, on the same features.
    """
    both = rows_of(
        questions,
        torch.cat([questions.chosen, responses.design.chosen]),
        torch.cat([questions.rejected, responses.design.rejected]),
    )
    belief = believe(model, both, torch.full((both.n_rows,), user, device=both.chosen.device))
    return value_under(belief, questions.n_rows, responses.set, responses.count)


def value_under(belief: Belief, n_questions: int, group: Int[Tensor, " responses"], n_sets: int) -> Value:
    """As `value_of_asking`, where the first rows of a belief are questions and the others responses."""
    ways = _ways_gaussian(belief, n_questions) if isinstance(belief, Gaussian) else _ways_particles(belief, n_questions)
    probability, reward = ways.probability, ways.reward
    now = _best(ways.now[None], group, n_sets)[0]
    after = sum(p * _best(each, group, n_sets) for p, each in zip(probability, reward, strict=True))
    assert isinstance(after, Tensor)
    known = _best(ways.draws, group, n_sets) @ ways.share
    return Value(
        gain=(after - now).clamp(min=0).numpy(force=True),
        perfect=max(0.0, float(known - now)),
        sets=n_sets,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Ways:
    """How rewards may turn out: now; after either answer to each question; and under draws of the user."""

    now: Float[Tensor, " responses"]
    probability: tuple[Float[Tensor, " questions"], Float[Tensor, " questions"]]
    reward: tuple[Float[Tensor, "questions responses"], Float[Tensor, "questions responses"]]
    draws: Float[Tensor, "draws responses"]
    share: Float[Tensor, " draws"]


def _ways_particles(belief: Particles, n: int) -> _Ways:
    weight, first, margin = belief.weight[0], belief.first[:n], belief.margin[n:]
    chances = first @ weight, (1 - first) @ weight
    tiny = torch.finfo(torch.float64).tiny
    rewards = tuple(
        (each * weight) @ margin.T / chance.clamp(min=tiny)[:, None]
        for each, chance in zip((first, 1 - first), chances, strict=True)
    )
    return _Ways(
        now=margin @ weight, probability=chances, reward=(rewards[0], rewards[1]), draws=margin.T, share=weight
    )


def _ways_gaussian(belief: Gaussian, n: int) -> _Ways:
    # Given its margin the rewards are linear in it, so that an answer moves them along their covariance with it, by
    # E[m | y] - E[m]. That is Cov(p, m) / P(y), and by Stein's lemma Cov(p, m) = variance E p (1 - p).
    now, coordinate = belief.mean[n:], belief.coordinate.double()
    covariance = coordinate[:n] @ coordinate[n:].T - belief.explained[:n] @ belief.explained[n:].T
    first, slope = belief.predictive()[:n], belief.fisher()[:n]
    tiny = torch.finfo(torch.float64).tiny
    up = (slope / first.clamp(min=tiny))[:, None] * covariance
    down = (slope / (1 - first).clamp(min=tiny))[:, None] * covariance
    return _Ways(
        now=now,
        probability=(first, 1 - first),
        reward=(now + up, now - down),
        draws=now + _draws(belief, n),
        share=now.new_full((_N_DRAWS,), 1 / _N_DRAWS),
    )


def _draws(belief: Gaussian, n: int) -> Float[Tensor, "draws responses"]:
    """Quasi-random draws of what the responses' rewards differ from their means."""
    coordinate = belief.coordinate[n:].double()
    rank = coordinate.shape[1]
    if not rank:
        return coordinate.new_zeros((_N_DRAWS, len(coordinate)))
    uniform = torch.quasirandom.SobolEngine(rank, scramble=True, seed=0).draw(_N_DRAWS, dtype=torch.float64)
    noise = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12)).to(coordinate.device)
    # Draws and their mirror images: the mean is then exact, and nothing is gained where there is nothing to choose.
    half = noise[: _N_DRAWS // 2]
    return torch.cat([half, -half]) @ coordinate.T


def _best(
    reward: Float[Tensor, "ways responses"], group: Int[Tensor, " responses"], n_sets: int
) -> Float[Tensor, " ways"]:
    """Largest reward of every set, mean over the sets."""
    index = group.expand(len(reward), -1)
    largest = reward.new_full((len(reward), n_sets), -torch.inf).scatter_reduce(1, index, reward, "amax")
    return largest.mean(1)
