"""P(decision | reward margins)."""

from pluralign.likelihoods.decisions import Decisions, Likelihood
from pluralign.likelihoods.logit import Logit

__all__ = ["Decisions", "Likelihood", "Logit"]
