"""Words that one group of users chooses and the others do not.

Whether a word is in the chosen or in the rejected response is counted for members and for the others, and the log-odds
ratio of the two counts is compared between them: what was shown to a group, and what everybody prefers, cancel out. As
in Monroe, Colaresi and Quinn (2008, "Fightin' Words") counts are smoothed by a Dirichlet prior in proportion to how
common each word is, so that rare words do not win by chance, and words are ranked by their z-score. Two things are not
theirs. A response counts a word once, for words come in bursts. And the z-score divides by the larger of two errors,
theirs, for which all counts are independent, and the one between users, of whom each is one draw.

Words are runs of characters between spaces and punctuation, in lower case; of scripts without spaces (Chinese,
Japanese) every two neighbouring characters are one. Nothing is stemmed and no list of stop words is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

PRIOR = 500.0  # pseudo-responses of a word that every response has
LEAST = 5  # distinct responses that a word is in; fewer where there are fewer than 250
MOST_WORDS = 20_000
MAX_LENGTH = 40  # characters; what is longer is no word
FEW_USERS = 5

_APART = "".join(
    (
        r"\s\x00-\x1f!-/:-@\[-`{-\x7f\u00a1-\u00a9\u00ab-\u00b1\u00b4-\u00b8\u00bb-\u00bf",
        r"\u2000-\u206f\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65",
    )
)
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]+|[^{_APART}{_UNSPACED}]+(?:['’][^{_APART}{_UNSPACED}]+)*")
_FIRST_UNSPACED = re.compile(rf"[{_UNSPACED}]")


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word that a group's choices favour (or shun) more than the others' choices do.

    Attributes:
        word: In lower case.
        log_odds: Of chosen against rejected, the group's minus the others', in nats; above 0 where the group likes it.
        z: In standard errors.
    """

    word: str
    log_odds: float
    z: float


def list_words(text: str) -> set[str]:
    """The distinct words of a text."""
    found = set()
    for token in _TOKEN.findall(text.casefold()):
        if _FIRST_UNSPACED.match(token):
            found |= {token[i : i + 2] for i in range(max(1, len(token) - 1))}
        elif len(token) <= MAX_LENGTH:
            found.add(token)
    return found


def compare_words(
    texts: Sequence[str],
    chosen: Int[np.ndarray, " rows"],
    rejected: Int[np.ndarray, " rows"],
    user: Int[np.ndarray, " rows"],
    weight: Float[np.ndarray, " rows"],
    member: Float[np.ndarray, "users groups"],
    *,
    n_words: int = 20,
) -> tuple[tuple[Word, ...], ...]:
    """Rank the words of every group.

    Args:
        texts: Responses.
        chosen: Number of the chosen text of every row.
        rejected: Number of the rejected one.
        user: Who chose.
        weight: Of every row; below 0 where the second text was preferred.
        member: Probability of each group for every user, rows of zeros for users of none.
        n_words: Words returned at most of those liked, and of those shunned.

    Returns:
        For every group the words it likes more than others, largest z first, then those it likes less, smallest last.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    # Rows turned so that the first text is the preferred one.
    first = np.where(weight >= 0, chosen, rejected)
    second = np.where(weight >= 0, rejected, chosen)
    used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    counter = CountVectorizer(analyzer=list_words, binary=True, max_features=MOST_WORDS, dtype=np.float32)
    none: tuple[tuple[Word, ...], ...] = ((),) * member.shape[1]
    try:
        has = csr_array(counter.fit_transform([texts[i] for i in used]))
    except ValueError:  # no text has a word
        return none
    common = np.asarray((has > 0).sum(0)).ravel() >= np.clip(len(used) // 50, 1, LEAST)
    if not common.any():
        return none
    vocabulary = counter.get_feature_names_out()[common]
    has = has[:, np.flatnonzero(common)]
    n_users, n_rows = len(member), len(first)
    size = np.abs(weight)

    def per_user(item: np.ndarray) -> np.ndarray:
        """How many responses with each word a user has on one side, (users, words)."""
        shown = csr_array((size, (user, item)), shape=(n_users, len(used)))
        return np.asarray((shown @ has).todense())

    on_top, below = per_user(place[:n_rows]), per_user(place[n_rows:])
    responses = np.bincount(user, weights=size, minlength=n_users)
    share = (on_top + below).sum(0) / max(2 * responses.sum(), 1e-12)
    prior = np.minimum(share, 1 - 1e-6) * PRIOR
    rest = PRIOR - prior
    others = member.sum(1, keepdims=True) - member
    found = []
    for k in range(member.shape[1]):
        log_odds, model, between, n_sides = np.zeros(len(prior)), np.zeros(len(prior)), np.zeros(len(prior)), []
        for sign, belongs in ((1, member[:, k]), (-1, others[:, k])):
            n = float(belongs @ responses)
            error = np.zeros_like(on_top)
            for side, counts in ((1, on_top), (-1, below)):
                total = belongs @ counts + prior
                missing = n - belongs @ counts + rest
                log_odds += sign * side * np.log(total / missing)
                model += 1 / total + 1 / missing
                # What each user moves the log-odds by.
                error += side * belongs[:, None] * (counts / total - (responses[:, None] - counts) / missing)
            centre = np.divide(belongs * responses, n, out=np.zeros(n_users), where=n > 0)
            error -= centre[:, None] * error.sum(0)
            between += (error**2).sum(0)
            n_sides.append(int(((belongs > 0.5) & (responses > 0)).sum()))
        variance = np.maximum(model, between) if min(n_sides) >= FEW_USERS else model
        z = log_odds / np.sqrt(variance)
        order = np.argsort(-z, kind="stable")
        picked = [i for i in order[:n_words] if z[i] > 0] + [i for i in order[-n_words:] if z[i] < 0]
        found.append(tuple(Word(word=str(vocabulary[i]), log_odds=float(log_odds[i]), z=float(z[i])) for i in picked))
    return tuple(found)
