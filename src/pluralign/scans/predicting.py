"""What a few columns predict of decisions they were not fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions, mean_interval
from pluralign.features import Design
from pluralign.inference.folds import Folds, folds_by_item, folds_by_source
from pluralign.inference.heads import fit_heads
from pluralign.likelihoods import Logit
from pluralign.scans.findings import Baseline, range_of
from pluralign.types import FloatArray
from pluralign.users.model import predictions_from

N_FOLDS = 5
SHARED = 0.1  # share of held-out decisions whose items were trained on, from which items are held out instead
RIDGE = 1.0  # on standardised columns: a hundredth of what a few hundred decisions say


@dataclass(frozen=True, eq=False, kw_only=True)
class Held:
    """Decisions, and which fold holds each out.

    Attributes:
        table: Their rows.
        rows: Their row numbers in the whole table, (rows,).
        folds: What trains and what is held out.
        by: "source", "item" or "decision".
        chance: What guessing scores on the decisions that are held out.
    """

    table: Comparisons
    rows: np.ndarray
    folds: Folds
    by: str

    @classmethod
    def draw(cls, comparisons: Comparisons, most: int, seed: int) -> Held | None:
        """Draw at most so many decisions and divide them into folds; None where they cannot be divided.

        Folds are whole sources. Where texts recur in many sources, a fit to a few columns could know those it is scored
        on by heart, and folds are of responses instead; where there is one source, of decisions. Attributes are all
        there is to know of a numeric item, so that there is nothing to know by heart.
        """
        n = comparisons.n_decisions
        rng = np.random.default_rng(seed)
        kept = np.zeros(n, dtype=np.bool_)
        kept[rng.permutation(n)[:most]] = True
        rows = np.flatnonzero(kept[comparisons.decision])
        table = comparisons.take(rows)
        design = Design.of(table, torch.zeros((len(table.items), 1), dtype=torch.float64))
        n_sources = len(design.source.unique())
        n_items = len(torch.cat([design.chosen, design.rejected]).unique())
        by = "source"
        if n_sources < 2:
            design, n_sources, by = (
                replace(design, source=torch.arange(design.n_decisions)),
                design.n_decisions,
                "decision",
            )
        if n_sources < 2:
            return None
        folds = folds_by_source(design, min(N_FOLDS, n_sources), seed)
        if comparisons.format != "numeric" and _share_trained_on(design, folds) > SHARED:
            try:
                divided = folds_by_item(design, min(N_FOLDS, max(n_items // 4, 2)), seed)
            except ConfigError:  # two or three responses in all
                divided = folds
            if bool((divided.held_in >= 0).any()):
                by = by if divided is folds else "item"
                folds = divided
        return cls(table=table, rows=rows, folds=folds, by=by)

    @property
    def chance(self) -> float:
        held = self.folds.held_in.numpy() >= 0
        size = np.bincount(self.table.decision, minlength=self.table.n_decisions) + 1
        return float((1 / size[held]).mean()) if held.any() else 0.5

    def predict(self, features: FloatArray) -> Predictions | None:
        """Fit one logit to the features in every fold and predict what the fold holds out.

        Args:
            features: Columns of every item of the table, (items, columns).

        Returns:
            Predictions of the decisions that some fold holds out, or None where no column varies.
        """
        used = np.unique(np.concatenate([self.table.chosen, self.table.rejected]))
        mean, scale = features[used].mean(0), features[used].std(0)
        varies = scale > 1e-9 * np.maximum(np.abs(mean), 1)
        if not varies.any():
            return None
        standard = (features[:, varies] - mean[varies]) / scale[varies]
        design = Design.of(self.table, torch.as_tensor(standard))
        heads = len(self.folds)
        fit = fit_heads(
            design,
            ridge=torch.full((heads,), RIDGE, dtype=torch.float64),
            group=self.folds.group,
            group_weight=self.folds.trains,
        )
        return self.predict_margins(design.margins(fit.theta).numpy())

    def predict_margins(self, margin: FloatArray) -> Predictions:
        """Predictions of the held-out decisions from every row's margins in the folds' fits, (rows, folds)."""
        held_in = self.folds.held_in
        fold = held_in.clamp(min=0).numpy()[self.table.decision]
        own = np.take_along_axis(margin, fold[:, None], 1)[:, 0]
        return predict_margin(self.table, own).take(held_in.numpy() >= 0)

    def rows_of(self, predictions: Predictions, *, right: bool) -> np.ndarray:
        """Row numbers, in the whole table, of the decisions that the predictions get right (or wrong)."""
        held = np.flatnonzero(self.folds.held_in.numpy() >= 0)
        meant = held[predictions.correct == (1.0 if right else 0.0)]
        return self.rows[self.table.first_row[meant]]


def predict_margin(table: Comparisons, margin: FloatArray) -> Predictions:
    """Logit predictions of all decisions from the margin of every row, (rows,)."""
    design = Design.of(table, torch.zeros((len(table.items), 1), dtype=torch.float64))
    chosen, other = Logit().choice_probabilities(torch.as_tensor(margin)[:, None], design.decisions)
    return predictions_from(design, chosen[:, 0], other[:, 0])


def baseline(name: str, held: Held, predictions: Predictions, message: str) -> Baseline:
    """The accuracy of held-out predictions; {} in the message is where the number stands."""
    accuracy = mean_interval(predictions)
    return Baseline(
        name=name,
        accuracy=accuracy,
        chance=held.chance,
        held_out_by=held.by,
        message=message.format(range_of(accuracy)),
    )


def _share_trained_on(design: Design, folds: Folds) -> float:
    """Share of the decisions one of whose items occurs in another fold."""
    n = design.features.shape[0]
    fold = folds.held_in[design.decisions.index]
    low = torch.full((n,), len(folds), dtype=fold.dtype)
    high = torch.full((n,), -1, dtype=fold.dtype)
    for item in (design.chosen, design.rejected):
        low.scatter_reduce_(0, item, fold, "amin")
        high.scatter_reduce_(0, item, fold, "amax")
    apart = high > low
    return float((apart[design.chosen] | apart[design.rejected]).double().mean()) if design.n_rows else 0.0
