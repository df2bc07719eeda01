"""P(decision | reward margins)."""

from pluralign.likelihoods.decisions import Block, Decisions, Likelihood
from pluralign.likelihoods.logit import Logit

__all__ = ["Block", "Decisions", "Likelihood", "Logit"]
