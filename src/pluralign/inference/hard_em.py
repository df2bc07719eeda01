"""Put each user in the cluster whose reward best explains that user's choices.

The hard assignment of Shashidhar et al. (2026, arXiv 2601.20760), Eq. (4), and Park et al. (2024, arXiv 2405.00254).
Not in the papers: a user without comparisons is an error here, because Eq. (4) is then an argmax over empty sums; an
empty cluster is given the user whom the present clusters serve worst.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import NoComparisonsError


def assign_users(
    log_prob: Float[Tensor, "decisions clusters"], user: Int[Tensor, " decisions"], n_users: int
) -> Int[Tensor, " {n_users}"]:
    """Return the most likely cluster of every user.

    Args:
        log_prob: Log-probability of each decision under each cluster, in nats, (decisions, clusters).
        user: Who decided, an index in [0, n_users), (decisions,).
        n_users: Number of users, whether or not they appear in `user`.

    Returns:
        Cluster index per user, (n_users,). Ties go to the lowest index.

    Raises:
        NoComparisonsError: A user has no decision; its `users` lists all such users.
    """
    missing = (torch.bincount(user, minlength=n_users) == 0).nonzero().flatten()
    if missing.numel():
        raise NoComparisonsError(missing.tolist())
    total = log_prob.new_zeros((n_users, log_prob.shape[1])).index_add_(0, user, log_prob)
    return total.argmax(dim=1)  # the first of equals: torch documents no order, the test holds it


def classify(
    log_prob: Float[Tensor, "users starts clusters"],
) -> tuple[Float[Tensor, " starts"], Float[Tensor, "users starts clusters"]]:
    """Classification log-likelihood sum_u max_k l_u(theta_k), in nats, and the one-hot membership that attains it."""
    value, best = log_prob.max(dim=2)
    return value.sum(0), torch.nn.functional.one_hot(best, log_prob.shape[2]).to(log_prob.dtype)


def fill_empty(
    membership: Float[Tensor, "users starts clusters"],
    log_prob: Float[Tensor, "users starts clusters"],
    size: Float[Tensor, " users"],
) -> Float[Tensor, "users starts clusters"]:
    """Give every empty cluster the worst served user of a cluster that keeps others.

    Args:
        membership: One-hot, of every start.
        log_prob: Every user's log-likelihood under every cluster.
        size: Weight of every user's decisions; a user of size 0 is never moved.
    """
    filled = membership.clone()
    served = (membership * log_prob).sum(2) / size.clamp(min=1e-12)[:, None]
    for _ in range(membership.shape[2]):
        members = (filled * (size > 0)[:, None, None]).sum(0)  # (starts, clusters)
        starts = (members == 0).any(1).nonzero().flatten()
        if not starts.numel():
            break
        empty = (members[starts] == 0).int().argmax(1)
        movable = ((filled * (members > 1)).sum(2) > 0) & (size > 0)[:, None]
        worst = torch.where(movable, served, torch.inf)[:, starts].argmin(0)
        possible = movable[worst, starts]
        starts, empty, worst = starts[possible], empty[possible], worst[possible]
        if not starts.numel():
            break
        filled[worst, starts] = 0
        filled[worst, starts, empty] = 1
    return filled
