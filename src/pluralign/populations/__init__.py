"""Simulated users whose truth is known."""

from pluralign.populations.dialogues import (
    Dialogues,
    answer_log_prob,
    embedded_language_model,
    parse_styles,
    read_style,
    simulate_dialogues,
    write_dialogues,
)
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
    "Dialogues",
    "Didactic",
    "HiddenContext",
    "Pets",
    "Population",
    "RatedPairs",
    "Tastes",
    "answer_log_prob",
    "borda_limit",
    "count_style",
    "demo",
    "draw_didactic",
    "draw_tastes",
    "embedded_language_model",
    "flip_labels",
    "match_modes",
    "parse_styles",
    "read_rated_pairs",
    "read_style",
    "relabel",
    "simulate",
    "simulate_dialogues",
    "simulate_didactic",
    "simulate_hidden_context",
    "simulate_pets",
    "simulate_uf_p",
    "write_dialogues",
    "write_texts",
]
