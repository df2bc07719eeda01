"""User models: the rungs of the ladder once fitted."""

from pluralign.users.gaussian import Basis, Individual
from pluralign.users.heads import Clusters, Pooled
from pluralign.users.model import UNKNOWN, UserModel, predictions_from

__all__ = ["UNKNOWN", "Basis", "Clusters", "Individual", "Pooled", "UserModel", "predictions_from"]
