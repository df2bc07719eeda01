"""Pairs of texts that are nearly the same, without comparing all with all.

Two texts are near duplicates where the sets of their runs of three words overlap by at least a threshold (Jaccard
index; Broder 1997). Candidates share the MinHash of one of 8 bands of 4 (the chance to be one is 1 - (1 - J^4)^8: 0.99
at J = 0.8, 0.88 at 0.7); each is then checked against its actual index. Within a bucket a text is compared with
the first and with the one before it, so that the work is linear in the number of texts: nobody's twin is lost
altogether, but not every pair of a large family is listed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from pluralign.scans.texts import hash_words, mix
from pluralign.types import FloatArray

SHINGLE = 3
N_BANDS, N_ROWS = 8, 4
FEWEST_WORDS = 5  # of a text that is looked at: "Yes, it is." has twins that mean nothing
_COLUMNS = 2**31 - 1
_BLOCK = 100_000  # pairs checked at once


@dataclass(frozen=True, eq=False, kw_only=True)
class Twins:
    """Nearly equal texts.

    Attributes:
        first: The one that comes first, (pairs,).
        second: The other, (pairs,).
        overlap: Their Jaccard index, (pairs,).
    """

    first: np.ndarray
    second: np.ndarray
    overlap: FloatArray


def find_twins(text: pa.Array, *, threshold: float, seed: int) -> Twins:
    """Find pairs of distinct texts whose overlap is at least the threshold.

    Args:
        text: Distinct texts. Earlier ones are the first of their buckets, which matters where few are listed.
        threshold: Least Jaccard index of their runs of three words, above 0.
        seed: Of the hash functions.
    """
    salt = np.random.default_rng(seed).integers(1, 2**63, N_BANDS * N_ROWS, dtype=np.uint64)
    signature = np.full((N_BANDS * N_ROWS, len(text)), np.iinfo(np.uint64).max, dtype=np.uint64)
    long_enough = np.zeros(len(text), dtype=np.bool_)
    columns, starts = [], [np.zeros(1, dtype=np.int64)]
    for words in hash_words(text):
        runs = words.shingles(SHINGLE)
        here = slice(words.first, words.first + len(words.start) - 1)
        long_enough[here] = np.diff(words.start) >= FEWEST_WORDS
        full = np.flatnonzero(np.diff(runs.start))
        if len(full):
            for number, each in enumerate(salt):
                # An odd multiplier and a shift: the high bits are hashed well enough to be compared by size.
                hashed = (runs.word ^ each) * (each | np.uint64(1))
                signature[number, words.first + full] = np.minimum.reduceat(hashed, runs.start[full])
        columns.append((runs.word % np.uint64(_COLUMNS)).astype(np.int32))
        starts.append(runs.start[1:] + starts[-1][-1])
    first, second = _candidates(signature, np.flatnonzero(long_enough))
    if not len(first):
        return Twins(first=first, second=second, overlap=np.zeros(0))
    shingles = csr_array(
        (np.ones(sum(map(len, columns)), dtype=np.int32), np.concatenate(columns), np.concatenate(starts)),
        shape=(len(text), _COLUMNS),
    )
    overlap = _overlap(shingles, first, second)
    kept = overlap >= threshold
    return Twins(first=first[kept], second=second[kept], overlap=overlap[kept])


def _candidates(signature: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that share a band: each text with the first of its bucket and with the one before it."""
    found = []
    n = signature.shape[1]
    for band in signature[:, texts].reshape(N_BANDS, N_ROWS, len(texts)):
        key = np.zeros(len(texts), dtype=np.uint64)
        for row in band:
            key = mix(key ^ row)
        order = np.argsort(key, kind="stable")
        new = np.diff(key[order], prepend=~key[order[:1]]) != 0
        head = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        later = np.flatnonzero(~new)
        found += [texts[other].astype(np.int64) * n + texts[order[later]] for other in (head[later], order[later - 1])]
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    return pairs // n, pairs % n


def _overlap(shingles: csr_array, first: np.ndarray, second: np.ndarray) -> FloatArray:
    """Jaccard index of the sets of columns of pairs of rows, (pairs,)."""
    used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    rows = shingles[used]
    rows.sum_duplicates()
    rows.data[:] = 1
    size = np.diff(rows.indptr)
    one, other = place[: len(first)], place[len(first) :]
    both = np.concatenate(
        [
            rows[one[at : at + _BLOCK]].multiply(rows[other[at : at + _BLOCK]]).sum(axis=1)
            for at in range(0, len(first), _BLOCK)
        ]
    )
    return both / (size[one] + size[other] - both)
