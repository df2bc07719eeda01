"""One model of the users of two: those it was fitted to, and others who were placed in it since."""

from dataclasses import replace
from typing import TypeVar

import torch

from pluralign.errors import ConfigError
from pluralign.users.model import UserModel

Model = TypeVar("Model", bound=UserModel)

OF_USERS: dict[str, tuple[str, ...]] = {  # fields with a row for every user; all others are shared
    "pooled": (),
    "reliability": ("log_scale", "log_scale_sd"),
    "cluster": ("membership",),
    "basis": ("mean", "covariance"),
    "individual": ("offset", "covariance"),
    "latent": ("log_weight", "mean", "log_variance"),
    "distribution": (),
}


def join_users(known: Model, placed: Model) -> Model:
    """Return a model of both models' users, (known.n_users + placed.n_users), those of `known` first.

    Args:
        known: A fitted model.
        placed: The same with other users, as `adapt` returns it; what is shared is taken from `known`.

    Raises:
        ConfigError: They are of two kinds, or of one whose users are not known to this module.
    """
    if known.kind != placed.kind or known.kind not in OF_USERS:
        raise ConfigError(
            f"users of a model of kind {placed.kind} cannot be joined to one of kind {known.kind}; "
            f"both must be of one kind, of {', '.join(OF_USERS)}"
        )
    names = OF_USERS[known.kind]
    if not names:
        return replace(known, n_users=known.n_users + placed.n_users)  # type: ignore[type-var]
    rows = {name: torch.cat([getattr(known, name), getattr(placed, name).to(getattr(known, name))]) for name in names}
    return replace(known, **rows)  # type: ignore[type-var]
