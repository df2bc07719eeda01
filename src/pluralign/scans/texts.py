"""The distinct texts behind the items, and their words as numbers, without a Python loop over texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pluralign.comparisons import Comparisons
from pluralign.comparisons.table import index_texts
from pluralign.features import used_items
from pluralign.features.texts import Item
from pluralign.types import FloatArray, IntArray

NOT_WORDS = r"[\s\p{P}\p{S}\p{C}]+"
_BLOCK = 20_000  # texts whose words are held at once


@dataclass(frozen=True, eq=False, kw_only=True)
class Texts:
    """Responses (or prompts) as plain text, each once.

    Attributes:
        text: Distinct texts, (texts,).
        of_item: Text of every item (or prompt), -1 where no row uses it, (items,).
    """

    text: pa.Array
    of_item: IntArray

    @classmethod
    def of_responses(cls, comparisons: Comparisons) -> Texts:
        """The responses that some row compares."""
        used = used_items(comparisons)
        found = comparisons.items.response.take(pa.array(used))
        return cls._of(found, used, len(comparisons.items), chat=comparisons.format == "chat")

    @classmethod
    def of_prompts(cls, comparisons: Comparisons) -> Texts:
        """The prompts that some row answers."""
        used = np.unique(comparisons.items.prompt[used_items(comparisons)])
        found = comparisons.items.prompts.take(pa.array(used))
        return cls._of(found, used, len(comparisons.items.prompts), chat=comparisons.format == "chat")

    @classmethod
    def _of(cls, found: pa.Array, used: np.ndarray, n: int, *, chat: bool) -> Texts:
        if chat:
            plain = [Item("", text, chat=True).text(prompt=False) for text in found.to_pylist()]
            found = pa.array(plain, type=pa.large_string())
        number, text = index_texts(found)
        of_item = np.full(n, -1, dtype=np.int32)
        of_item[used] = number
        return cls(text=text, of_item=of_item)

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def n_characters(self) -> FloatArray:
        """Characters of every text, (texts,)."""
        return numbers(pc.utf8_length(self.text))

    @cached_property
    def n_words(self) -> FloatArray:
        """Runs of characters that are not blanks, of every text, (texts,)."""
        return numbers(pc.count_substring_regex(self.text, pattern=r"\S+"))

    def matches(self, pattern: str) -> np.ndarray:
        """Whether each text matches a regular expression (RE2), (texts,)."""
        return np.asarray(pc.match_substring_regex(self.text, pattern=pattern).to_numpy(zero_copy_only=False), np.bool_)


@dataclass(frozen=True, eq=False, kw_only=True)
class Words:
    """Words of some texts, as hashes in order.

    Attributes:
        first: Number of the first of these texts.
        word: Hash of every word, uint64 (words,).
        start: Where each text's words begin, and the end, (texts + 1,).
    """

    first: int
    word: np.ndarray
    start: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """Text of every word, counted from `first`, (words,)."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def shingles(self, width: int) -> Words:
        """Runs of `width` words, in lower case and without punctuation; a shorter text is one run."""
        size = np.diff(self.start)
        n_own = np.where(size >= width, size - width + 1, np.minimum(size, 1))
        start = np.concatenate([[0], np.cumsum(n_own)])
        owner = np.repeat(np.arange(len(size)), n_own)
        place = self.start[owner] + np.arange(len(owner)) - start[owner]
        last = self.start[owner + 1] - 1
        hashed = np.zeros(len(owner), dtype=np.uint64)
        for step in range(width):
            at = np.minimum(place + step, last)
            # Beyond the end of a short text the same word again would make "no" and "no no no" alike.
            word = np.where(place + step <= last, self.word[at], np.uint64(0))
            hashed = mix(hashed ^ word)
        return Words(first=self.first, word=hashed, start=start)


def hash_words(text: pa.Array) -> Iterator[Words]:
    """Words of the texts in lower case, what stands between punctuation and blanks, in blocks of texts."""
    for first in range(0, len(text), _BLOCK):
        block = pc.utf8_lower(text.slice(first, _BLOCK))
        lists = pc.split_pattern_regex(block, pattern=NOT_WORDS)
        coded = lists.flatten().dictionary_encode()
        hashes = np.array([crc32(word.encode("utf-8", "surrogatepass")) for word in coded.dictionary.to_pylist()])
        blank = np.asarray(pc.equal(coded.dictionary, "").to_numpy(zero_copy_only=False), np.bool_)
        index = coded.indices.to_numpy(zero_copy_only=False)
        kept = ~blank[index] if len(index) else np.zeros(0, dtype=np.bool_)
        size = numbers(pc.list_value_length(lists)).astype(np.int64)
        owner = np.repeat(np.arange(len(block)), size)[kept]
        start = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(block)))])
        word = hashes.astype(np.uint64)[index[kept]] if len(index) else np.zeros(0, dtype=np.uint64)
        yield Words(first=first, word=mix(word + np.uint64(1)), start=start)


def mix(x: np.ndarray) -> np.ndarray:
    """Scramble 64 bits so that near numbers are far apart (the finaliser of SplitMix64; Steele et al. 2014)."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def numbers(array: pa.Array) -> FloatArray:
    """An Arrow array of numbers as float64."""
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)
