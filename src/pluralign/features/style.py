"""How a response is written: length, layout, punctuation, stance. Nothing of what it says.

These columns are what fools a reward model, and often what annotators differ in; on their own they are the model that
any other should beat. Counts enter as log(1 + count), rates per word or per character. The word lists are English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from pluralign.features.texts import Item

WORD = re.compile(r"\w+(?:['’]\w+)*")
COUNTED = {
    "sentences": re.compile(r"[.!?]+(?=\s|$)"),
    "paragraphs": re.compile(r"\n\s*\n"),
    "lines": re.compile(r"\n"),
    "bullets": re.compile(r"^\s*[-*•]\s", re.MULTILINE),
    "numbered": re.compile(r"^\s*\(?\d+[.)]\s", re.MULTILINE),
    "headings": re.compile(r"^\s*#{1,6}\s", re.MULTILINE),
    "emphasis": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
    "code": re.compile(r"`"),
    "links": re.compile(r"https?://|www\.|\]\("),
    "questions": re.compile(r"\?"),
    "exclamations": re.compile(r"!"),
    "quotes": re.compile(r"[\"“”«»]"),
    "parentheses": re.compile(r"\("),
}
PER_CHARACTER = {
    "uppercase": re.compile(r"[A-Z]"),
    "digits": re.compile(r"\d"),
    "punctuation": re.compile(r"[^\w\s]"),
    "commas": re.compile(r","),
    "non_ascii": re.compile(r"[^\x00-\x7f]"),
}
PER_WORD = {
    "first_person": re.compile(r"\b(?:i|me|my|mine|we|us|our|i'm|i've|i'd)\b", re.IGNORECASE),
    "second_person": re.compile(r"\b(?:you|your|yours|you're)\b", re.IGNORECASE),
    "hedges": re.compile(r"\b(?:may|might|could|perhaps|maybe|probably|possibly|seems?|likely)\b", re.IGNORECASE),
    "negations": re.compile(r"\b(?:no|not|never|none|nothing|cannot)\b|n['’]t\b", re.IGNORECASE),
    "apologies": re.compile(r"\b(?:sorry|apologi[sz]e|unfortunately|as an ai)\b", re.IGNORECASE),
}
LENGTHS = ("characters", "words", "word_length", "sentence_length", "distinct_words")
STYLE_NAMES = (*LENGTHS, *COUNTED, *PER_CHARACTER, *PER_WORD)


def style_columns(text: str) -> list[float]:
    """Return the columns named in `STYLE_NAMES` for one text; an empty text is all zeros."""
    words = WORD.findall(text)
    n_characters, n_words = max(len(text), 1), max(len(words), 1)
    counts = [len(pattern.findall(text)) for pattern in COUNTED.values()]
    return [
        float(np.log1p(len(text))),
        float(np.log1p(len(words))),
        sum(map(len, words)) / n_words,
        float(np.log1p(len(words) / max(counts[0], 1))),
        len({word.lower() for word in words}) / n_words,
        *np.log1p(counts).tolist(),
        *(len(pattern.findall(text)) / n_characters for pattern in PER_CHARACTER.values()),
        *(len(pattern.findall(text)) / n_words for pattern in PER_WORD.values()),
    ]


@final
@dataclass(frozen=True)
class Style:
    """The style columns of the response alone."""

    kind: ClassVar[str] = "style"
    stored: ClassVar[str] = "float32"

    @property
    def identity(self) -> dict[str, object]:
        return {"kind": self.kind, "columns": list(STYLE_NAMES), "version": 1}

    @property
    def dim(self) -> int:
        return len(STYLE_NAMES)

    @property
    def names(self) -> tuple[str, ...]:
        return STYLE_NAMES

    def encode(self, items: Sequence[Item], *, device: str | None = None, batch_size: int = 32) -> np.ndarray:
        rows = [style_columns(item.text(prompt=False)) for item in items]
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.dim)
