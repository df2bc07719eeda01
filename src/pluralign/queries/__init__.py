"""Which pair to ask a user next, and when to stop asking."""

from pluralign.queries.beliefs import Belief, Gaussian, Particles
from pluralign.queries.believing import Draws, believe
from pluralign.queries.choosing import Proposal, propose
from pluralign.queries.curves import QueryCurve, query_curve
from pluralign.queries.enquiry import Enquiry
from pluralign.queries.interview import Interview, Question, interview
from pluralign.queries.pool import read_pool
from pluralign.queries.scores import METHODS
from pluralign.queries.value import Value

__all__ = [
    "METHODS",
    "Belief",
    "Draws",
    "Enquiry",
    "Gaussian",
    "Interview",
    "Particles",
    "Proposal",
    "QueryCurve",
    "Question",
    "Value",
    "believe",
    "interview",
    "propose",
    "query_curve",
    "read_pool",
]
