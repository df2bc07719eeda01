"""User models: the rungs of the ladder once fitted."""

from pluralign.users.gaussian import Basis, Individual
from pluralign.users.heads import Clusters, Pooled
from pluralign.users.model import UNKNOWN, UserModel, predictions_from
from pluralign.users.reliability import Reliability

__all__ = ["UNKNOWN", "Basis", "Clusters", "Individual", "Pooled", "Reliability", "UserModel", "predictions_from"]
