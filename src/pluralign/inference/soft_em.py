"""Give each user a probability of each cluster: the latent-class logit (Greene and Hensher 2003).

    log L = sum_u log sum_k pi_k prod_j P(decision j of user u | theta_k)

EM alternates the users' posterior memberships (here) with heads refitted to them (`panels`). EM slows down as it
nears the optimum, so where the model is small `polish_mixture` ends it with a quasi-Newton search of log L itself;
its gradient is the M-step's, sum_u q_uk times the slope of l_u(theta_k) (Fisher's identity).
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from pluralign.features import Design
from pluralign.likelihoods import Likelihood
from pluralign.types import FloatArray


def posterior(
    log_prob: Float[Tensor, "users starts clusters"], shares: Float[Tensor, "starts clusters"]
) -> tuple[Float[Tensor, " starts"], Float[Tensor, "users starts clusters"]]:
    """Mixture log-likelihood sum_u log sum_k pi_k exp(l_u(theta_k)), in nats, and the posterior memberships.

    A user without decisions has log-likelihood 0 under every head: it adds nothing and its posterior is `shares`.
    """
    joint = log_prob + shares.log()
    total = joint.logsumexp(dim=2)
    return total.sum(0), (joint - total[:, :, None]).exp()


def polish_mixture(
    design: Design,
    theta: Float[Tensor, "clusters dim"],
    shares: Float[Tensor, " clusters"],
    *,
    likelihood: Likelihood,
    ridge: float,
    center: Float[Tensor, " dim"],
    max_iterations: int = 500,
) -> tuple[Float[Tensor, "clusters dim"], Float[Tensor, " clusters"]]:
    """Climb from a fit to the local optimum of the penalised mixture likelihood, by L-BFGS in float64.

    Args:
        design: Rows and features, float64.
        theta: Heads to start from, float64.
        shares: Shares to start from, float64.
        likelihood: P(decision | margins).
        ridge: Precision of the Gaussian prior on every head.
        center: Its mean.
        max_iterations: Of L-BFGS.

    Returns:
        Heads and shares.
    """
    clusters, dim = theta.shape
    scale = _inverse_root(design, theta, shares, likelihood, ridge)
    weight = design.weight[:, None]

    def unpack(point: FloatArray) -> tuple[Tensor, Tensor]:
        values = torch.as_tensor(point, dtype=theta.dtype, device=theta.device)
        step = values[: clusters * dim].view(clusters, dim, 1)
        return theta + (scale @ step)[:, :, 0], values[clusters * dim :]

    def loss(point: FloatArray) -> tuple[float, FloatArray]:
        heads, logits = unpack(point)
        margin = design.margins(heads)
        log_prob = weight * likelihood.log_prob(margin, design.decisions)
        by_user = log_prob.new_zeros((design.n_users, clusters)).index_add_(0, design.user, log_prob)
        pi = logits.softmax(0)
        total, member = posterior(by_user[:, None], pi[None])
        member = member[:, 0]
        slope = likelihood.slope(margin, design.decisions) * (weight * member[design.user])[design.decisions.index]
        away = heads - center
        gradient = design.pull(slope) - ridge * away
        toward = (gradient[:, None] @ scale)[:, 0]
        value = total.sum() - ridge / 2 * away.square().sum()
        both = torch.cat([toward.flatten(), member.sum(0) - len(member) * pi])
        return -float(value), -both.numpy(force=True)

    start = np.concatenate([np.zeros(clusters * dim), shares.log().numpy(force=True)])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": max_iterations, "ftol": 1e-14, "gtol": 1e-6}
    )
    if found.fun > loss(start)[0]:
        return theta, shares
    heads, logits = unpack(found.x)
    return heads, logits.softmax(0)


def _inverse_root(
    design: Design,
    theta: Float[Tensor, "clusters dim"],
    shares: Float[Tensor, " clusters"],
    likelihood: Likelihood,
    ridge: float,
) -> Float[Tensor, "clusters dim dim"]:
    """S with S S' about the inverse information on each head, so that the search sees unit curvature."""
    sample = torch.arange(design.n_rows, device=theta.device)[:: max(1, design.n_rows // 20_000)]
    x = design.differences(sample)
    information = x.T @ x * (design.n_rows / len(sample)) / 8  # curvature is at most 1/4; half of that is typical
    eye = torch.eye(theta.shape[1], dtype=theta.dtype, device=theta.device)
    each = shares[:, None, None] * information + (ridge + 1e-9 * information.diagonal().mean() + 1e-12) * eye
    # Of A = L L' the inverse root is L'^-1.
    return torch.linalg.solve_triangular(torch.linalg.cholesky(each).transpose(1, 2), eye.expand_as(each), upper=True)
