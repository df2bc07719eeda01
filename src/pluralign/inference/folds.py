"""Cross-validation folds that hold out what a study holds out: new sources, or items never seen.

Folds by source deal out whole sources, so that siblings of a held-out decision are held out too. Folds by item deal
out the items: a decision is held out in fold f where all its items are f's, trains where none is, and where it
straddles it does neither.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.features import Design

N_FOLDS = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Folds:
    """Which decisions train and which are held out in every fold.

    Attributes:
        group: Group of every decision, (decisions,): decisions of one group train in the same folds.
        trains: 1 where a group trains in a fold, else 0, (groups, folds). With `group` it is what `fit_heads` takes.
        held_in: The one fold that holds a decision out, -1 for none, (decisions,).
    """

    group: Int[Tensor, " decisions"]
    trains: Float[Tensor, "groups folds"]
    held_in: Int[Tensor, " decisions"]

    def __len__(self) -> int:
        return self.trains.shape[1]

    def training(self, fold: int) -> Bool[Tensor, " decisions"]:
        """Decisions that train in a fold."""
        return self.trains[self.group, fold] > 0

    def absent_from(self) -> Int[Tensor, " decisions"]:
        """A fold in which each decision does not train, (decisions,): the one that holds it out, where there is one."""
        return self.trains[self.group].argmin(1)

    def held(self, fold: int) -> Bool[Tensor, " decisions"]:
        """Decisions that a fold holds out."""
        return self.held_in == fold


def default_folds(design: Design, seed: int = 0) -> Folds:
    """Five folds of whole sources, or as many as there are sources."""
    return folds_by_source(design, min(N_FOLDS, len(design.source.unique())), seed)


def folds_by_source(design: Design, n_folds: int, seed: int) -> Folds:
    """Deal the sources into folds of nearly equal numbers of decisions.

    Raises:
        ConfigError: Fewer than 2 folds, or more folds than sources.
    """
    _, number, count = design.source.unique(return_inverse=True, return_counts=True)
    n_sources = len(count)
    if not 2 <= n_folds <= n_sources:
        raise ConfigError(
            f"n_folds is {n_folds} and the rows come from {n_sources} sources; folds are whole sources, "
            f"so n_folds is from 2 to {n_sources}",
            hint="give the ridge, or a table whose `source` tells finer",
        )
    shuffled = torch.randperm(n_sources, generator=torch.Generator().manual_seed(seed)).to(count.device)
    order = shuffled[count[shuffled].argsort(descending=True, stable=True)]
    place = torch.arange(n_sources, device=count.device)
    there, back = place % n_folds, n_folds - 1 - place % n_folds
    fold = torch.empty_like(place)
    fold[order] = torch.where(place // n_folds % 2 == 0, there, back)  # largest first, to and fro
    fold = fold[number]
    trains = 1 - torch.eye(n_folds, dtype=design.features.dtype, device=fold.device)
    return Folds(group=fold, trains=trains, held_in=fold)


def folds_by_item(design: Design, n_folds: int, seed: int) -> Folds:
    """Deal the items that appear into folds (module docstring).

    Raises:
        ConfigError: Fewer than 2 folds, or fewer than two items for each.
    """
    items = torch.cat([design.chosen, design.rejected]).unique()
    if not 2 <= n_folds <= len(items) // 2:
        raise ConfigError(
            f"n_folds is {n_folds} and {len(items)} items were compared; a fold needs two, so n_folds is from 2 to "
            f"{len(items) // 2}"
        )
    fold_of = torch.full((design.features.shape[0],), -1, device=items.device)
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).to(items.device)
    fold_of[items[order]] = torch.arange(len(items), device=items.device) % n_folds
    # A decision touches a set of folds: one bit for each.
    touched = torch.zeros((design.n_decisions, n_folds), dtype=torch.bool, device=items.device)
    for item in (design.chosen, design.rejected):
        touched[design.decisions.index, fold_of[item]] = True
    patterns, group = touched.unique(dim=0, return_inverse=True)
    alone = touched.sum(1) == 1
    return Folds(
        group=group,
        trains=(~patterns).to(design.features.dtype),
        held_in=torch.where(alone, touched.int().argmax(1), torch.full_like(group, -1)),
    )
