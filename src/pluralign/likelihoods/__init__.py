"""P(decision | reward margins)."""

from pluralign.likelihoods.decisions import Block, Decisions, Likelihood
from pluralign.likelihoods.lapsing import Lapsing
from pluralign.likelihoods.logit import Logit
from pluralign.likelihoods.thurstone import Thurstone
from pluralign.likelihoods.ties import Davidson, RaoKupper

__all__ = ["Block", "Davidson", "Decisions", "Lapsing", "Likelihood", "Logit", "RaoKupper", "Thurstone"]
