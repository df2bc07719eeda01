"""Simulated users whose truth is known."""

from pluralign.populations.simulate import TEXT_TASTES, Population, demo, relabel, simulate
from pluralign.populations.tastes import KINDS, Tastes, draw_tastes
from pluralign.populations.texts import STYLE_NAMES, Corpus, count_style, write_texts

__all__ = [
    "KINDS",
    "STYLE_NAMES",
    "TEXT_TASTES",
    "Corpus",
    "Population",
    "Tastes",
    "count_style",
    "demo",
    "draw_tastes",
    "relabel",
    "simulate",
    "write_texts",
]
