"""P(decision | reward margins)."""

from pluralign.likelihoods.decisions import Block, Decisions, Likelihood
from pluralign.likelihoods.lapsing import Lapsing
from pluralign.likelihoods.logit import Logit

__all__ = ["Block", "Decisions", "Lapsing", "Likelihood", "Logit"]
