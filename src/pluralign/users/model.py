"""What every rung of the ladder is once fitted: a distribution over rewards for each user.

All rungs share one shape. The reward of item phi for user u is theta . phi for a random theta whose distribution is
u's: a point (`pooled`), finitely many heads with probabilities (`cluster`), or a Gaussian (`basis`, `individual`).
`UNKNOWN` is the user of whom nothing is known; every model answers for it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.comparisons import Comparisons
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.likelihoods import Logit
from pluralign.types import FloatArray

UNKNOWN = -1


@runtime_checkable
class UserModel(Protocol):
    """A fitted rung. Implementations are frozen dataclasses of tensors, so that saving is one rule for all."""

    kind: ClassVar[str]

    @property
    def n_users(self) -> int:
        """Number of users it knows."""

    @property
    def dim(self) -> int:
        """Number of features."""

    @property
    def n_parameters(self) -> int:
        """Free parameters, as BIC counts them."""

    def predict(self, design: Design, user: Int[Tensor, " decisions"] | None = None) -> Predictions:
        """Probabilities of the design's decisions.

        Args:
            design: Held-out rows on the features the model was fitted on.
            user: Whose model predicts each decision, `UNKNOWN` for nobody's, (decisions,); None means the design's own
                users. Another user's model is what controls ask for. The result's `user` is the design's in any case.
        """

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        """Mean and standard deviation of each item's reward for the user beside it (`UNKNOWN` allowed)."""


def predictions_from(design: Design, chosen: Float[Tensor, " decisions"], other: Float[Tensor, " rows"]) -> Predictions:
    """Collect probabilities of the chosen item (per decision) and of the others (per row) into `Predictions`."""
    best = torch.full_like(chosen, -1.0).scatter_reduce(0, design.decisions.index, other, "amax")
    first = torch.zeros_like(design.user).scatter_reduce(
        0,
        design.decisions.index,
        torch.arange(design.n_rows, device=other.device),
        "amin",
        include_self=False,
    )
    return Predictions(
        chosen=chosen.double().numpy(force=True),
        best_other=best.double().numpy(force=True),
        outcome=design.decisions.outcome[first].double().numpy(force=True),
        user=design.user.int().numpy(force=True),
        source=design.source.int().numpy(force=True),
        weight=design.weight.double().numpy(force=True),
    )


def predict_decisions(comparisons: Comparisons, margin: FloatArray) -> Predictions:
    """Predict decisions from the margins of their rows, (rows,), by whatever reward.

    A pair is decided by the logistic of its margin, a choice among several by the multinomial logit.
    """
    design = Design.of(comparisons, torch.zeros(len(comparisons.items), 0, dtype=torch.float64))
    margins = torch.as_tensor(margin, dtype=torch.float64)[:, None]
    chosen, other = Logit().choice_probabilities(margins, design.decisions)
    return predictions_from(design, chosen[:, 0], other[:, 0])
