"""Standard errors of a convex model of few dimensions, from its curvature and from its users.

`information` is the inverse of the negative Hessian H, right where decisions are independent given theta. Decisions of
one person are not: `by_user` is the sandwich H^-1 (sum_u s_u s_u') H^-1 n / (n - 1), s_u being the sum of the gradients
of user u's decisions and n the number of users with any (Liang and Zeger 1986).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.heads import EXACT_DIM
from pluralign.inference.newton import hessian
from pluralign.inference.stack import Stack
from pluralign.likelihoods import Likelihood, Logit


@dataclass(frozen=True, eq=False, kw_only=True)
class Covariances:
    """Two covariances of one estimate, float64.

    Attributes:
        information: Inverse negative Hessian, (dim, dim).
        by_user: The sandwich clustered by user, (dim, dim).
    """

    information: Float[Tensor, "dim dim"]
    by_user: Float[Tensor, "dim dim"]

    @property
    def standard_error(self) -> Float[Tensor, " dim"]:
        """From the Hessian."""
        return self.information.diagonal().sqrt()

    @property
    def robust_standard_error(self) -> Float[Tensor, " dim"]:
        """From the users."""
        return self.by_user.diagonal().sqrt()


def covariances(
    design: Design, theta: Float[Tensor, " dim"], *, ridge: float = 0.0, likelihood: Likelihood | None = None
) -> Covariances:
    """Covariances of a fitted theta.

    Args:
        design: The rows it was fitted to.
        theta: The optimum.
        ridge: The prior precision it was fitted with.
        likelihood: Logit by default.

    Raises:
        ConfigError: 100 features or more, one user only, or a direction of theta that no row tells anything about.
    """
    if design.dim >= EXACT_DIM:
        raise ConfigError(f"there are {design.dim} features; standard errors are for fewer than {EXACT_DIM}")
    wide, at = design.double, theta.double()[None]
    stack = Stack(
        design=wide,
        likelihood=likelihood or Logit(),
        ridge=at.new_tensor([ridge]),
        center=torch.zeros_like(at),
        group=design.user,
        group_weight=None,
    )
    margin = stack.margins(at)
    factor, failed = torch.linalg.cholesky_ex(hessian(stack, margin)[0])
    weak = factor.diagonal() ** 2 < 1e-12 * factor.square().sum(1)  # a pivot that is rounding
    if bool(failed) or bool(weak.any()):
        raise ConfigError(
            "the Hessian is singular: some combination of features never differs within a decision",
            hint="drop a feature that is the same for all items of a decision, or give a ridge",
        )
    inverse = torch.cholesky_inverse(factor)
    slope, rows = stack.slopes(margin), torch.arange(design.n_rows, device=margin.device)
    score = at.new_zeros((design.n_users, design.dim))
    for block in stack.blocks:
        who = design.user[block.decisions][block.within.index]
        score.index_add_(0, who, slope[block.rows] * wide.differences(rows[block.rows]))
    present = int((torch.bincount(design.user, minlength=design.n_users) > 0).sum())
    if present < 2:
        raise ConfigError("all decisions are one user's; errors clustered by user need two users or more")
    meat = score.T @ score * (present / (present - 1))
    return Covariances(information=inverse, by_user=inverse @ meat @ inverse)
