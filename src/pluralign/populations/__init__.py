"""Simulated users whose truth is known."""

from pluralign.populations.didactic import Didactic, draw_didactic, match_modes, simulate_didactic
from pluralign.populations.hidden_context import HiddenContext, borda_limit, simulate_hidden_context
from pluralign.populations.noise import flip_labels
from pluralign.populations.pets import ANIMALS, ORDERS, Pets, simulate_pets
from pluralign.populations.simulate import TEXT_TASTES, Population, demo, relabel, simulate
from pluralign.populations.tastes import KINDS, Tastes, draw_tastes
from pluralign.populations.texts import STYLE_NAMES, Corpus, count_style, write_texts
from pluralign.populations.ultrafeedback import RatedPairs, read_rated_pairs, simulate_uf_p

__all__ = [
    "ANIMALS",
    "KINDS",
    "ORDERS",
    "STYLE_NAMES",
    "TEXT_TASTES",
    "Corpus",
    "Didactic",
    "HiddenContext",
    "Pets",
    "Population",
    "RatedPairs",
    "Tastes",
    "borda_limit",
    "count_style",
    "demo",
    "draw_didactic",
    "draw_tastes",
    "flip_labels",
    "match_modes",
    "read_rated_pairs",
    "relabel",
    "simulate",
    "simulate_didactic",
    "simulate_hidden_context",
    "simulate_pets",
    "simulate_uf_p",
    "write_texts",
]
