"""What a model says of held-out decisions: probabilities, and whose they are. Evaluation sees nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pluralign.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """Predicted probabilities of held-out decisions.

    Attributes:
        chosen: Probability given to the item that was chosen, (decisions,).
        best_other: Largest probability given to an item that was not, (decisions,). For a pair 1 - chosen.
        outcome: 1, or a soft label (0.5 a tie), (decisions,); a choice among several has 1.
        user: User of every decision, (decisions,).
        source: Source of every decision, (decisions,).
        weight: Weight of every decision, (decisions,).
    """

    chosen: FloatArray
    best_other: FloatArray
    outcome: FloatArray
    user: IntArray
    source: IntArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def log_prob(self) -> FloatArray:
        """Log-probability of what was decided, in nats, (decisions,)."""
        tiny = np.finfo(np.float64).tiny
        sure = np.log(np.maximum(self.chosen, tiny))
        soft = self.outcome * sure + (1 - self.outcome) * np.log(np.maximum(1 - self.chosen, tiny))
        return np.where(self.outcome == 1, sure, soft)

    @property
    def correct(self) -> FloatArray:
        """1 where the item preferred has the largest probability, 0 where not, 0.5 where undecided; NaN for a tie."""
        ahead = (np.sign(self.chosen - self.best_other) + 1) / 2
        return np.where(self.outcome == 0.5, np.nan, np.where(self.outcome > 0.5, ahead, 1 - ahead))
