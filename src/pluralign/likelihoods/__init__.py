"""P(decision | reward margins), and P(decision | reward distributions)."""

from pluralign.likelihoods.categorical import Categorical
from pluralign.likelihoods.decisions import Block, Decisions, Likelihood
from pluralign.likelihoods.distributions import RewardDistribution, explained_by_items
from pluralign.likelihoods.lapsing import Lapsing
from pluralign.likelihoods.logit import Logit
from pluralign.likelihoods.mean_variance import MeanVariance
from pluralign.likelihoods.thurstone import Thurstone
from pluralign.likelihoods.ties import Davidson, RaoKupper

__all__ = [
    "Block",
    "Categorical",
    "Davidson",
    "Decisions",
    "Lapsing",
    "Likelihood",
    "Logit",
    "MeanVariance",
    "RaoKupper",
    "RewardDistribution",
    "Thurstone",
    "explained_by_items",
]
