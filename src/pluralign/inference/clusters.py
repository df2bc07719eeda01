"""Fit `Clusters`: hard (Algorithm 1 of arXiv 2601.20760; Park et al., arXiv 2405.00254) or soft (latent-class logit).

Hard: maximise sum_u max_k sum_j log P(decision j of u | theta_k) over heads in the ball |theta_k| <= B. Eq. (3) of the
paper as printed has no max over k: every user's decisions count for every theta_k, all of which then solve the pooled
problem, and Eq. (4) is a tie. We fit the estimator that is meant; `literal_eq3` fits what is printed. The paper leaves
the optimiser, the restarts, empty clusters and ties open; here assign and refit by turns, from several partitions
(`restarts`), an empty cluster taking the worst served user, ties to the lowest index.

Soft: maximise the mixture likelihood (`soft_em`).

Where there are few features all restarts run on the likelihood itself, the worse half dropped every few rounds. Where
there are many, they run on its second order expansion in the directions in which users differ (`panels`), and the best
go on in all dimensions. With a ridge the objective is penalised; log-likelihoods are reported without the penalty.
"""

import math
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.inference.em import Em, Rounds
from pluralign.inference.hard_em import assign_users
from pluralign.inference.heads import EXACT_DIM, fit_heads
from pluralign.inference.panels import ExactPanel, QuadraticPanel, expand, leading_directions
from pluralign.inference.restarts import agreement, start_kind, starting_memberships
from pluralign.inference.soft_em import polish_mixture, posterior
from pluralign.likelihoods import Likelihood, Logit
from pluralign.users import Clusters

SCREEN_WIDTH = 32  # directions in which restarts are screened from `EXACT_DIM` dimensions on
SCREEN_ROUNDS = 60
WITHIN_REACH = 1.0  # nats by which EM's slow end may have left the better of two restarts behind
LEAST_RIDGE = 1e-6  # keeps a separable or an empty cluster finite; moves no published log-likelihood by 1e-5
M_STEP_PASSES = 2  # raising the likelihood is all that EM needs of an M-step
ROUNDS_BETWEEN_CUTS = 30
ROUNDS_OF_SCREENED = 3  # on the likelihood, before all but the best screened restart are dropped


@final
@dataclass(frozen=True, kw_only=True)
class Start:
    """One restart.

    Attributes:
        kind: How it began.
        objective: Penalised log-likelihood where it ended or was dropped, in nats; for restarts that were only
            screened, of the expansion.
        rounds: Rounds of EM it was given.
        finalist: Whether it was run to the end on the likelihood itself.
        agreement: Adjusted Rand index of its partition with the winner's.
    """

    kind: str
    objective: float
    rounds: int
    finalist: bool
    agreement: float


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class ClustersFit:
    """A fitted `Clusters` and how it came about.

    Attributes:
        model: Heads, shares and memberships; clusters are numbered by falling share.
        log_likelihood: Soft: of the mixture. Hard: classification log-likelihood. In nats, without the penalty.
        mixture_log_likelihood: Of the mixture with the model's heads and shares, hard or soft.
        bic: -2 mixture_log_likelihood + n_parameters log(n_decisions). For a hard fit too, because the classification
            log-likelihood has spent a further parameter on each user.
        history: Penalised objective of the winner after each round on the likelihood itself.
        starts: Every restart, in the order they were drawn; empty where one cluster needs none.
        agreement: Mean adjusted Rand index of all restarts' partitions with the winner's; NaN where there were none.
        n_parameters: Heads and shares.
        n_decisions: Decisions fitted.
    """

    model: Clusters
    log_likelihood: float
    mixture_log_likelihood: float
    bic: float
    history: tuple[float, ...]
    starts: tuple[Start, ...]
    agreement: float
    n_parameters: int
    n_decisions: int


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Screen:
    """What restarts need to know of the users, the same for every K.

    Attributes:
        panel: Second order expansion at the pooled reward, in all dimensions if few, else in those of `basis`.
        basis: Orthonormal directions, (dim, width), or None for all dimensions.
        embeddings: One-step estimates of the users' departures from the pooled reward, (users, width).
    """

    panel: QuadraticPanel
    basis: Float[Tensor, "dim width"] | None
    embeddings: Float[Tensor, "users width"]


def screen_users(
    design: Design,
    *,
    ridge: float = 0.0,
    center: Float[Tensor, " dim"] | None = None,
    likelihood: Likelihood | None = None,
    seed: int = 0,
) -> Screen:
    """Expand the users' likelihoods at the pooled reward. Arguments as of `fit_clusters`."""
    likelihood, ridge = likelihood or Logit(), max(ridge, LEAST_RIDGE)
    center = torch.zeros_like(design.features[0]) if center is None else center.to(design.features)
    pooled = fit_heads(design, ridge=center.new_full((1,), ridge), center=center[None], likelihood=likelihood).theta[0]
    basis = None
    if design.dim >= EXACT_DIM:
        generator = torch.Generator().manual_seed(seed)
        basis = leading_directions(design, pooled, SCREEN_WIDTH, likelihood=likelihood, generator=generator)
        design, pooled, center = design.with_features(design.features @ basis), pooled @ basis, center @ basis
    panel = expand(design, pooled, likelihood=likelihood, ridge=ridge, center=center)
    return Screen(panel=panel, basis=basis, embeddings=panel.embeddings())


def fit_clusters(
    design: Design,
    n_clusters: int,
    *,
    soft: bool = True,
    ridge: float = 0.0,
    center: Float[Tensor, " dim"] | None = None,
    n_starts: int = 20,
    seed: int = 0,
    max_norm: float | None = None,
    literal_eq3: bool = False,
    likelihood: Likelihood | None = None,
    tolerance: float | None = None,
    max_rounds: int = 300,
    exact: bool = True,
    screen: Screen | None = None,
) -> ClustersFit:
    """Fit K heads and who belongs to which.

    Args:
        design: Training rows and features. A user without a row belongs to every cluster by its share.
        n_clusters: K, at most the number of users with rows.
        soft: Latent classes, rather than an assignment of each user.
        ridge: Precision of the Gaussian prior of every head around `center`; never below `LEAST_RIDGE`.
        center: What clusters are shrunk to, usually the pooled reward, (dim,); None means 0.
        n_starts: Restarts. Local optima are common: 20 is a modest number.
        seed: Of the restarts.
        max_norm: Bound B on the norm of every head, or None. The constrained optimum, not a rescaled head.
        literal_eq3: Fit Eq. (3) as printed (module docstring). Hard only.
        likelihood: Logit by default.
        tolerance: EM stops when a round gains less than this, in nats per decision; None means 1e-6, or 1e-5 from
            `EXACT_DIM` dimensions on.
        max_rounds: Rounds of EM at most for each restart that is run to the end.
        exact: Whether soft clusters of few features end at their optimum to many digits, as published log-likelihoods
            ask; predictions do not.
        screen: `screen_users` of the same arguments, where it is at hand.

    Raises:
        ConfigError: A setting is out of range, or there are more clusters than users with rows.
        DataError: There is no row.
    """
    likelihood = likelihood or Logit()
    size = design.weight.new_zeros(design.n_users).index_add_(0, design.user, design.weight)
    _check(size, n_clusters, n_starts, ridge, max_norm, eq3_of_soft=literal_eq3 and soft)
    ridge = max(ridge, LEAST_RIDGE)
    center = torch.zeros_like(design.features[0]) if center is None else center.to(design.features)
    together, few = n_clusters == 1 or literal_eq3, design.dim < EXACT_DIM
    panel = ExactPanel(
        design=design,
        likelihood=likelihood,
        ridge=ridge,
        center=center,
        max_norm=max_norm,
        tolerance=1e-8 if few and design.features.dtype == torch.float64 else 1e-5,
        max_passes=200 if together or max_norm is not None else M_STEP_PASSES,
    )
    if tolerance is None:
        tolerance = (1e-6 if few else 1e-5) if exact else 1e-4
    em = Em(panel=panel, size=size, soft=soft, tolerance=tolerance * design.n_decisions)
    if together:
        # Equal heads tie for every user, up to rounding; a tie goes to the lowest index.
        state = em.from_membership(torch.ones((design.n_users, 1, n_clusters), dtype=torch.float64))
        state.membership[:], state.membership[:, :, 0] = 0, 1
        return _collect(em, state, ())
    screen = screen or screen_users(design, ridge=ridge, center=center, likelihood=likelihood, seed=seed)
    memberships = starting_memberships(screen.embeddings, size > 0, n_clusters, n_starts, np.random.default_rng(seed))
    if screen.basis is None:
        keep = max(1, n_starts // 4)
        groups = em.run_halving(em.from_membership(memberships), rounds=ROUNDS_BETWEEN_CUTS, keep=keep)
        chosen, finalists = groups[-1]
    else:
        quick = replace(em, panel=screen.panel)
        ended = quick.run(quick.from_membership(memberships), SCREEN_ROUNDS)
        groups = [(torch.arange(n_starts), ended)]
        chosen = _best_distinct(ended, max(1, n_starts // 10))
        finalists = em.from_theta(ended.theta[chosen] @ screen.basis.T, ended.shares[chosen])
        *_, (left, finalists) = em.run_halving(finalists, rounds=ROUNDS_OF_SCREENED, keep=1)
        chosen = chosen[left]
    finalists = em.run(finalists, max_rounds)
    if exact and soft and few and max_norm is None:
        near = finalists.objective >= finalists.objective.max() - WITHIN_REACH
        chosen, finalists = chosen[near], _polish(em, finalists.take(near.nonzero().flatten()))
    winner = finalists.take(finalists.objective.argmax()[None])
    return _collect(em, winner, _starts(groups, chosen, finalists, winner))


def place(model: Clusters, design: Design, likelihood: Likelihood | None = None) -> Float[Tensor, "users clusters"]:
    """Membership of users, new ones too, from their own decisions only (Eq. (4); soft: the posterior).

    Args:
        model: Fitted clusters.
        design: The users' decisions. Its users need not be the model's; one without a decision gets the shares.
        likelihood: Logit by default.
    """
    log_prob = (likelihood or Logit()).log_prob(design.margins(model.theta), design.decisions) * design.weight[:, None]
    present = torch.bincount(design.user, minlength=design.n_users) > 0
    membership = model.shares.expand(design.n_users, -1).clone()
    if not present.any():
        return membership
    number = present.cumsum(0) - 1
    user, n_present = number[design.user], int(present.sum())
    if model.soft:
        total = log_prob.new_zeros((n_present, model.n_clusters)).index_add_(0, user, log_prob)
        found = posterior(total[:, None].double(), model.shares[None].double())[1][:, 0]
    else:
        found = torch.nn.functional.one_hot(assign_users(log_prob, user, n_present), model.n_clusters)
    membership[present] = found.to(membership.dtype)
    return membership


def _check(
    size: Float[Tensor, " users"],
    n_clusters: int,
    n_starts: int,
    ridge: float,
    max_norm: float | None,
    *,
    eq3_of_soft: bool,
) -> None:
    n_present = int((size > 0).sum())
    if not n_present:
        raise DataError("there is no comparison to fit clusters to")
    if n_clusters < 1:
        raise ConfigError(f"n_clusters is {n_clusters}; it must be at least 1")
    if n_clusters > n_present:
        raise ConfigError(
            f"n_clusters is {n_clusters}, but only {n_present} users have comparisons",
            hint=f"ask for at most {n_present} clusters",
        )
    if n_starts < 1:
        raise ConfigError(f"n_starts is {n_starts}; it must be at least 1")
    if not (ridge >= 0 and math.isfinite(ridge)):
        raise ConfigError(f"ridge is {ridge}; it must be 0 or above")
    if max_norm is not None and not max_norm > 0:
        raise ConfigError(f"max_norm is {max_norm}; it must be above 0, or None for no bound")
    if eq3_of_soft:
        raise ConfigError("literal_eq3 is for hard clusters", hint="say soft=False")


def _labels(state: Rounds) -> Int[Tensor, "users starts"]:
    return state.membership.argmax(2)


def _best_distinct(state: Rounds, count: int) -> Int[Tensor, " some"]:
    """The best restarts, leaving out those that found the partition of a better one."""
    kept: list[int] = []
    labels = _labels(state).numpy(force=True)
    for i in state.objective.argsort(descending=True, stable=True).tolist():
        if all(agreement(labels[:, i], labels[:, j]) < 0.99 for j in kept):
            kept.append(i)
        if len(kept) == count:
            break
    return torch.tensor(kept, device=state.objective.device)


def _polish(em: Em, state: Rounds) -> Rounds:
    """End every restart at its local optimum, in float64."""
    panel = em.panel
    assert isinstance(panel, ExactPanel)
    design = panel.design.double
    ends = [
        polish_mixture(
            design, theta, shares, likelihood=panel.likelihood, ridge=panel.ridge, center=panel.center.double()
        )
        for theta, shares in zip(state.theta.double(), state.shares, strict=True)
    ]
    exact = replace(em, panel=replace(panel, design=design, center=panel.center.double()))
    ended = exact.from_theta(torch.stack([theta for theta, _ in ends]), torch.stack([pi for _, pi in ends]))
    return replace(ended, history=torch.cat([state.history, ended.history]), rounds=state.rounds)


def _starts(
    groups: list[tuple[Tensor, Rounds]], chosen: Tensor, finalists: Rounds, winner: Rounds
) -> tuple[Start, ...]:
    found: dict[int, Start] = {}
    best = _labels(winner)[:, 0].numpy(force=True)
    for which, state in [*groups, (chosen, finalists)]:
        labels = _labels(state).numpy(force=True)
        for column, i in enumerate(which.tolist()):
            found[i] = Start(
                kind=start_kind(i),
                objective=float(state.objective[column]),
                rounds=int(state.rounds[column]),
                finalist=state is finalists,
                agreement=agreement(labels[:, column], best),
            )
    return tuple(found[i] for i in sorted(found))


def _collect(em: Em, winner: Rounds, starts: tuple[Start, ...]) -> ClustersFit:
    """The model of one restart, clusters by falling share."""
    panel = em.panel
    assert isinstance(panel, ExactPanel)
    design, dtype = panel.design, panel.design.features.dtype
    order = winner.shares[0].argsort(descending=True, stable=True)
    theta, shares = winner.theta[0, order], winner.shares[0, order]
    membership, log_prob = winner.membership[:, 0, order], winner.log_prob[:, 0, order]
    absent = em.size == 0
    membership[absent] = shares
    mixture = float(posterior(log_prob[:, None], shares[None])[0])
    model = Clusters(theta=theta.to(dtype), shares=shares.to(dtype), membership=membership.to(dtype), soft=em.soft)
    return ClustersFit(
        model=model,
        log_likelihood=mixture if em.soft else float(log_prob.amax(1).sum()),
        mixture_log_likelihood=mixture,
        bic=-2 * mixture + model.n_parameters * math.log(design.n_decisions),
        history=tuple(winner.history[:, 0].tolist()),
        starts=starts,
        agreement=float(np.mean([start.agreement for start in starts])) if starts else math.nan,
        n_parameters=model.n_parameters,
        n_decisions=design.n_decisions,
    )
