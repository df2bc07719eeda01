"""Users whom a step does not meet stand still.

Adam moves every row of a parameter at every step: an absent user's row has gradient zero and momentum left from
before. A table has a row for each user, so that most users would drift through most steps on what they said long ago.
Here a row whose gradient is exactly zero keeps its value and its moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def hold_absent_rows(optimizer: torch.optim.Optimizer, tables: Callable[[], list[nn.Parameter]]) -> None:
    """Have an optimizer leave the rows alone that a step has no gradient for.

    Works on the local part of sharded tables (`fully_shard` shards rows). DeepSpeed's optimizers do not run these
    hooks; there, absent users move with their momentum.

    Args:
        optimizer: The optimizer.
        tables: Gives the parameters with a row for each user, when a step is taken.
    """
    kept: list[tuple[Tensor, Tensor, Tensor]] = []  # a tensor, its rows that must not move, what they held

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        kept.clear()
        for table in tables():
            if table.grad is None:
                continue
            absent = (local(table.grad).flatten(1) == 0).all(1).nonzero()[:, 0]
            moments = [each for each in optimizer.state.get(table, {}).values() if _like(each, table)]
            held = [local(table.detach()), *map(local, moments)]
            kept.extend((each, absent, each[absent].clone()) for each in held)

    def after(*_: Any) -> None:
        with torch.no_grad():
            for each, rows, values in kept:
                each[rows] = values
        kept.clear()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor."""
    return value.to_local() if hasattr(value, "to_local") else value


def _like(value: object, table: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == table.shape
