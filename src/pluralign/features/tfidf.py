"""Words and word pairs, weighted by rarity and compressed: latent semantic analysis, with the style columns beside it.

Deerwester et al. (1990). It needs no weights and no network, and is the default for texts. The rarity of words and
the directions are learnt on the items of the training rows only. Only the response is read: rows mostly compare answers
to one prompt, and what the prompt adds to both cancels in a linear reward.

The vocabulary is hashed, so that what is saved are numbers: the columns that were kept, their weights, the directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from typing import ClassVar, final

import numpy as np
from scipy.sparse import csr_array, diags_array

from pluralign.errors import ConfigError, DataError
from pluralign.features.style import STYLE_NAMES, Style
from pluralign.features.texts import Item

N_HASHES = 2**20
MAX_TERMS = 2**15  # the most frequent are kept


@final
@dataclass(frozen=True, kw_only=True)
class Tfidf:
    """Settings of the text features; `fit` learns them.

    Attributes:
        topics: Directions kept at most; fewer where the training items are fewer.
        style: Whether the style columns stand beside them.
        seed: Of the randomised decomposition.
    """

    kind: ClassVar[str] = "tfidf"
    topics: int = 128
    style: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.topics < 1:
            raise ConfigError(f"topics is {self.topics}; it must be at least 1")

    def fit(self, items: Sequence[Item]) -> FittedTfidf:
        """Learn the weights of terms and the directions from the training items.

        Raises:
            DataError: There is no item, or no item has a word.
        """
        from sklearn.decomposition import TruncatedSVD

        counts = count_terms(items)
        frequency = np.bincount(counts.indices, minlength=N_HASHES)  # rows hold each term once
        kept = np.flatnonzero(frequency >= 2)
        if len(kept) < 2:  # a handful of texts that share nothing
            kept = np.flatnonzero(frequency)
        if not len(kept):
            raise DataError(
                f"none of the {len(items)} training items has a word to learn from",
                hint="features that need no words: `style`, or a model, `hf:MODEL` or `st:MODEL`",
            )
        if len(kept) > MAX_TERMS:
            kept = np.sort(kept[np.argsort(-frequency[kept], kind="stable")[:MAX_TERMS]])
        rarity = np.log((1 + len(items)) / (1 + frequency[kept])) + 1
        weighted = csr_array(weigh_terms(counts, kept, rarity))
        topics = min(self.topics, *weighted.shape)
        if topics < min(weighted.shape):
            svd = TruncatedSVD(topics, n_iter=7, random_state=self.seed).fit(weighted)
            directions = svd.components_
        else:
            directions = np.linalg.svd(weighted.toarray(), full_matrices=False)[2][:topics]
            largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
            directions = directions * np.sign(largest)
        return FittedTfidf(
            settings=self,
            terms=kept.astype(np.int32),
            rarity=rarity.astype(np.float32),
            directions=np.ascontiguousarray(directions, dtype=np.float32),
        )


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class FittedTfidf:
    """Text features that encode any text.

    Attributes:
        settings: What they were learnt with.
        terms: Hashes of the terms that are kept, (terms,).
        rarity: Weight of every term, (terms,).
        directions: Rows are orthonormal, (topics, terms).
    """

    kind: ClassVar[str] = "tfidf"
    stored: ClassVar[str] = "float32"
    settings: Tfidf
    terms: np.ndarray
    rarity: np.ndarray
    directions: np.ndarray

    @cached_property
    def identity(self) -> dict[str, object]:
        state = sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in (self.terms, self.rarity, self.directions)))
        return {"kind": self.kind, **asdict(self.settings), "state": state.hexdigest()}

    @property
    def dim(self) -> int:
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        topics = tuple(f"topic_{i}" for i in range(len(self.directions)))
        return topics + STYLE_NAMES if self.settings.style else topics

    def encode(self, items: Sequence[Item], *, device: str | None = None, batch_size: int = 32) -> np.ndarray:
        topics = weigh_terms(count_terms(items), self.terms, self.rarity) @ self.directions.T
        topics = np.asarray(topics, dtype=np.float32)
        return np.hstack([topics, Style().encode(items)]) if self.settings.style else topics


def count_terms(items: Sequence[Item]) -> csr_array:
    """Count words and word pairs of the responses by hash, (items, hashes)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=N_HASHES, ngram_range=(1, 2), alternate_sign=False, norm=None)
    return csr_array(vectorizer.transform([item.text(prompt=False) for item in items]))


def weigh_terms(counts: csr_array, terms: np.ndarray, rarity: np.ndarray) -> csr_array:
    """Weigh the kept terms by (1 + log count) times rarity, and scale every row to length 1 (an empty row stays 0)."""
    kept = counts[:, terms].tocsr()
    kept.data = 1 + np.log(kept.data)
    weighted = kept @ diags_array(rarity)
    length = np.sqrt((weighted * weighted).sum(axis=1))
    return diags_array(1 / np.where(length > 0, length, 1)) @ weighted
