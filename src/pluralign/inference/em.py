"""The rounds of EM, hard or soft, for many restarts at once.

A round refits every head to its members and asks every user again. All restarts are heads of one problem, so a round
is a few passes over the features however many restarts there are. The objective (classification log-likelihood, or
mixture log-likelihood, less the ridge's penalty) never decreases: a restart whose round did not raise it is put back
and stops.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.inference.hard_em import classify, fill_empty
from pluralign.inference.panels import Panel
from pluralign.inference.soft_em import posterior


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Rounds:
    """Restarts after some rounds.

    Attributes:
        theta: (starts, clusters, dim).
        shares: Prior probability of every cluster; where hard, the share of users in it, (starts, clusters).
        log_prob: Log-likelihood of every user under every head, in nats, (users, starts, clusters).
        membership: (users, starts, clusters).
        objective: What each restart has reached, in nats, (starts,).
        history: The objective after every round; a restart that stopped repeats its last, (rounds, starts).
        rounds: Rounds of every restart, (starts,).
        stopped: Whether the restart gains no more, (starts,).
    """

    theta: Float[Tensor, "starts clusters dim"]
    shares: Float[Tensor, "starts clusters"]
    log_prob: Float[Tensor, "users starts clusters"]
    membership: Float[Tensor, "users starts clusters"]
    objective: Float[Tensor, " starts"]
    history: Float[Tensor, "rounds starts"]
    rounds: Int[Tensor, " starts"]
    stopped: Tensor

    def take(self, starts: Int[Tensor, " some"]) -> "Rounds":
        """Some of the restarts."""
        return Rounds(
            theta=self.theta[starts],
            shares=self.shares[starts],
            log_prob=self.log_prob[:, starts],
            membership=self.membership[:, starts],
            objective=self.objective[starts],
            history=self.history[:, starts],
            rounds=self.rounds[starts],
            stopped=self.stopped[starts],
        )


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Em:
    """EM on one panel.

    Attributes:
        panel: The data.
        size: Weight of every user's decisions, (users,); users of size 0 have no say in the shares.
        soft: Posterior memberships rather than assignments.
        tolerance: A restart stops when a round gains less than this, in nats.
    """

    panel: Panel
    size: Float[Tensor, " users"]
    soft: bool
    tolerance: float

    def from_membership(self, membership: Float[Tensor, "users starts clusters"]) -> Rounds:
        """Fit heads to given memberships."""
        membership = membership.double()
        return self.from_theta(self._refit(membership, None), self._shares(membership))

    def from_theta(
        self, theta: Float[Tensor, "starts clusters dim"], shares: Float[Tensor, "starts clusters"]
    ) -> Rounds:
        """Take heads as they are."""
        objective, membership, log_prob = self._score(theta, shares)
        return Rounds(
            theta=theta,
            shares=shares if self.soft else self._shares(membership),
            log_prob=log_prob,
            membership=membership,
            objective=objective,
            history=objective[None],
            rounds=torch.zeros(len(objective), dtype=torch.int64, device=objective.device),
            stopped=torch.zeros(len(objective), dtype=torch.bool, device=objective.device),
        )

    def run(self, state: Rounds, max_rounds: int) -> Rounds:
        """Run rounds until every restart has stopped, at most `max_rounds`."""
        theta, shares, log_prob = state.theta.clone(), state.shares.clone(), state.log_prob.clone()
        membership, objective = state.membership.clone(), state.objective.clone()
        rounds, stopped, history = state.rounds.clone(), state.stopped.clone(), list(state.history)
        for _ in range(max_rounds):
            active = (~stopped).nonzero().flatten()
            if not active.numel():
                break
            target = membership[:, active]
            if not self.soft:
                target = fill_empty(target, log_prob[:, active], self.size)
            new_shares, new_theta = self._shares(target), self._refit(target, theta[active])
            new_objective, new_membership, new_log_prob = self._score(new_theta, new_shares)
            gain = new_objective - objective[active]
            better = gain > 0
            kept = active[better]
            theta[kept], shares[kept], objective[kept] = new_theta[better], new_shares[better], new_objective[better]
            membership[:, kept], log_prob[:, kept] = new_membership[:, better], new_log_prob[:, better]
            rounds[active] += 1
            stopped[active] = gain <= self.tolerance
            history.append(objective.clone())
        return Rounds(
            theta=theta,
            shares=shares if self.soft else self._shares(membership),
            log_prob=log_prob,
            membership=membership,
            objective=objective,
            history=torch.stack(history),
            rounds=rounds,
            stopped=stopped,
        )

    def run_halving(self, state: Rounds, *, rounds: int, keep: int) -> list[tuple[Tensor, Rounds]]:
        """Run all restarts `rounds` rounds, drop the worse half, and so on until `keep` are left.

        Returns:
            The restarts dropped at each cut, and last the ones left, best first: which of `state` they were, and how
            far they came.
        """
        left, groups = torch.arange(len(state.objective), device=state.objective.device), []
        while True:
            state = self.run(state, rounds)
            order = state.objective.argsort(descending=True, stable=True)
            n_left = max(keep, len(left) // 2)
            if len(left) > n_left:
                groups.append((left[order[n_left:]], state.take(order[n_left:])))
            state, left = state.take(order[:n_left]), left[order[:n_left]]
            if len(left) <= keep:
                return [*groups, (left, state)]

    def _refit(
        self, membership: Float[Tensor, "users starts clusters"], start: Float[Tensor, "starts clusters dim"] | None
    ) -> Float[Tensor, "starts clusters dim"]:
        theta = self.panel.refit(membership.flatten(1), None if start is None else start.flatten(0, 1))
        return theta.unflatten(0, (-1, membership.shape[2]))

    def _score(
        self, theta: Float[Tensor, "starts clusters dim"], shares: Float[Tensor, "starts clusters"]
    ) -> tuple[
        Float[Tensor, " starts"], Float[Tensor, "users starts clusters"], Float[Tensor, "users starts clusters"]
    ]:
        flat = theta.flatten(0, 1)
        log_prob = self.panel.user_log_prob(flat).unflatten(1, theta.shape[:2])
        value, membership = posterior(log_prob, shares) if self.soft else classify(log_prob)
        return value - self.panel.penalty(flat).view(theta.shape[:2]).sum(1), membership, log_prob

    def _shares(self, membership: Float[Tensor, "users starts clusters"]) -> Float[Tensor, "starts clusters"]:
        # A share of exactly 0 could never grow again, and its logarithm is not finite.
        return membership[self.size > 0].mean(0).clamp(min=1e-12)
