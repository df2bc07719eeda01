"""`Distribution`: one distribution of reward per item, the same for every user (DPL, arXiv 2312.08358).

It knows that people differ and not who is who: its spread says how far an item's reward depends on what the model does
not see, and it predicts the same for everybody. So it stands beside the ladder as a baseline. What the spread changes
in a prediction is confidence; whom to please it cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear, relu

from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.likelihoods import Categorical, MeanVariance, RewardDistribution
from pluralign.users.model import predictions_from

FAMILIES = ("mean-variance", "mean-variance-surrogate", "categorical")


def make_family(name: str, n_atoms: int = 10) -> RewardDistribution:
    """The distribution of that name; `n_atoms` is of the categorical one.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in FAMILIES:
        raise ConfigError(f'unknown family "{name}"; known: {", ".join(FAMILIES)}')
    if name == "categorical":
        return Categorical(n_atoms)
    return MeanVariance("probit" if name == "mean-variance" else "surrogate")


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Distribution:
    """One distribution of reward per item, whoever asks.

    Attributes:
        weight: From features, or from hidden units, to what the family calls outputs, (outputs, width).
        bias: (outputs,).
        hidden: First layer, (units, dim); no units at all where the outputs are linear in the features.
        hidden_bias: (units,).
        family: One of `FAMILIES`.
        n_users: Number of users in the data; none of them is known apart.
    """

    kind: ClassVar[str] = "distribution"
    weight: Float[Tensor, "outputs width"]
    bias: Float[Tensor, " outputs"]
    hidden: Float[Tensor, "units dim"]
    hidden_bias: Float[Tensor, " units"]
    family: str
    n_users: int

    @property
    def dim(self) -> int:
        return self.hidden.shape[1]

    @property
    def likelihood(self) -> RewardDistribution:
        """What the outputs mean."""
        return make_family(self.family, n_atoms=max(2, len(self.bias)))

    @property
    def n_parameters(self) -> int:
        first = self.hidden.numel() + self.hidden_bias.numel()
        if self.family == "categorical":  # logits are up to a constant
            return first + (len(self.bias) - 1) * (self.weight.shape[1] + 1)
        return first + self.weight.numel()  # biases are held: a shift and a scale of the reward change nothing

    def outputs(self, features: Float[Tensor, "items dim"]) -> Float[Tensor, "items outputs"]:
        """The numbers that stand for each item's distribution."""
        seen = features.to(self.weight.dtype)
        units = relu(linear(seen, self.hidden, self.hidden_bias)) if len(self.hidden) else seen
        return linear(units, self.weight, self.bias)

    def predict(self, design: Design, user: Int[Tensor, " decisions"] | None = None) -> Predictions:
        check_pairs(design)
        outputs = self.outputs(design.features)
        chosen = self.likelihood.probability(outputs[design.chosen], outputs[design.rejected])
        return predictions_from(design, chosen, 1 - chosen)

    def reward(
        self, features: Float[Tensor, "items dim"], user: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, " items"], Float[Tensor, " items"]]:
        outputs = self.outputs(features)
        return self.likelihood.mean(outputs), self.likelihood.sd(outputs)

    def quantile(self, features: Float[Tensor, "items dim"], level: float) -> Float[Tensor, " items"]:
        """The reward that a share `level` of the distribution is below: at 0.01, say, a risk-averse reward.

        Raises:
            ConfigError: A level outside (0, 1).
        """
        return self.likelihood.quantile(self.outputs(features), level)


def check_pairs(design: Design) -> None:
    """Check that decisions are between two items.

    Raises:
        ConfigError: Some are among more.
    """
    if not design.decisions.pairwise:
        raise ConfigError(
            "a distribution of reward is about pairs, and some of these decisions are among more than two items",
            hint="explode the choices into pairs, or use the rungs of the ladder, which take choices",
        )
