"""User models: the rungs of the ladder once fitted."""

from pluralign.users.distribution import Distribution
from pluralign.users.gaussian import Basis, Individual
from pluralign.users.heads import Clusters, Pooled
from pluralign.users.latent import Latent
from pluralign.users.model import UNKNOWN, UserModel, predict_decisions, predictions_from
from pluralign.users.reliability import Reliability

__all__ = [
    "UNKNOWN",
    "Basis",
    "Clusters",
    "Distribution",
    "Individual",
    "Latent",
    "Pooled",
    "Reliability",
    "UserModel",
    "predict_decisions",
    "predictions_from",
]
