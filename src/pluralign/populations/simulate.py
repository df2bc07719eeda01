"""Populations whose truth is known: comparisons, and the probability that stood behind each of them.

Every choice is drawn from the multinomial logit of the user's true rewards; then a share `noise` of the choices is
replaced by another of the responses shown, at random. So with k responses and a true probability p, what is recorded
has probability (1 - noise) p + noise (1 - p) / (k - 1), and the mean of the largest of these is the most anybody can
expect to get right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pluralign.comparisons import Comparisons, Items
from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.populations.tastes import Tastes, draw_tastes
from pluralign.populations.texts import STYLE_NAMES, write_texts
from pluralign.types import FloatArray, IntArray

# What the first clusters of a population of texts like, in standard deviations of each style (`STYLE_NAMES`).
TEXT_TASTES = {
    "brief": {"length": -1.5, "hedging": -0.6, "humour": -0.4, "detail": 0.3},
    "warm": {"warmth": 1.0, "exclamation": 0.9, "humour": 0.6, "formality": -0.6},
    "thorough": {"length": 0.6, "bullets": 0.9, "detail": 0.9, "exclamation": -0.5, "formality": 0.4},
    "careful": {"hedging": 1.2, "formality": 0.7, "exclamation": -0.8, "bullets": -0.4},
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Population:
    """Simulated comparisons and their truth.

    Attributes:
        comparisons: What a study would be given.
        features: What the true rewards are linear in, (items, dim): attributes, or standardised counts of style.
        feature_names: Names of the features.
        tastes: The true rewards.
        noise: Share of the choices that were replaced.
        chosen: True probability of what is recorded as chosen, without the noise, (decisions,).
        best_other: Largest true probability of a response that is not, without the noise, (decisions,).
    """

    comparisons: Comparisons
    features: np.ndarray
    feature_names: tuple[str, ...]
    tastes: Tastes
    noise: float
    chosen: FloatArray
    best_other: FloatArray

    def oracle(self) -> Predictions:
        """Predictions of somebody who knows every user's taste and the share of noise: the best there can be."""
        table = self.comparisons
        first = table.first_row
        return Predictions(
            chosen=self._recorded(self.chosen),
            best_other=self._recorded(self.best_other),
            outcome=np.ones(len(first)),
            user=table.user[first],
            source=table.source[first],
            weight=np.ones(len(first)) if table.weight is None else table.weight[first],
        )

    @property
    def ceiling(self) -> float:
        """Expected accuracy of the oracle on these choice sets, from probabilities alone, weights aside."""
        return float(self._recorded(np.maximum(self.chosen, self.best_other)).mean())

    def truth(self) -> dict[str, object]:
        """What there is to recover, as plain values: accuracies to be had, and every user's cluster and reward."""
        oracle = self.oracle()
        return {
            "kind": self.tastes.kind,
            "noise": self.noise,
            "ceiling": self.ceiling,
            "oracle_accuracy": float(np.average(oracle.correct, weights=oracle.weight)),
            "oracle_log_prob": float(np.average(oracle.log_prob, weights=oracle.weight)),
            "feature_names": list(self.feature_names),
            "users": [
                {"user": user, "cluster": int(cluster), "reliability": float(reliability), "theta": theta.tolist()}
                for user, cluster, reliability, theta in zip(
                    self.comparisons.user_ids,
                    self.tastes.cluster,
                    self.tastes.reliability,
                    self.tastes.theta,
                    strict=True,
                )
            ],
        }

    def _recorded(self, probability: FloatArray) -> FloatArray:
        """Probability that a response of true probability p is recorded as chosen."""
        others = np.bincount(self.comparisons.decision)
        return (1 - self.noise) * probability + self.noise * (1 - probability) / others


def simulate(
    *,
    n_users: int = 120,
    comparisons_per_user: int | Sequence[int] = 60,
    kind: str = "clusters",
    n_clusters: int = 3,
    shares: Sequence[float] | None = None,
    noise: float = 0.1,
    reliability_sd: float | None = None,
    signal: float = 2.0,
    spread: float = 1.0,
    rank: int = 2,
    same_prompts: bool = False,
    n_choices: int = 2,
    features: str = "text",
    dim: int = 8,
    n_prompts: int | None = None,
    n_responses: int = 8,
    seed: int = 0,
) -> Population:
    """Simulate users who choose among responses to prompts.

    Args:
        n_users: Number of users.
        comparisons_per_user: Decisions of every user, or of each, (users,).
        kind: `null`, `reliability`, `clusters`, `basis` or `individual` (`draw_tastes`, which has the settings from
            `n_clusters` to `rank` but for `noise`).
        n_clusters: Number of clusters. Up to four clusters of texts have the tastes of `TEXT_TASTES`.
        shares: Share of the users in each cluster.
        noise: Share of the choices replaced by another response at random: below (n_choices - 1) / n_choices.
        reliability_sd: Standard deviation of the log of users' reliability.
        signal: Standard deviation of the margin of a random pair, in logits.
        spread: Size of the user's own part of the margin over the common part.
        rank: Directions of a `basis`.
        same_prompts: Everybody is shown the same responses to the same prompts, rather than draws of their own.
        n_choices: Responses to choose from in each decision.
        features: "text", answers that differ in style, or "numeric", vectors from N(0, I).
        dim: Number of numeric features.
        n_prompts: Prompts, which are the sources; None means 300 for texts (at most 400), and for numbers a tenth of
            the decisions within 50 to 25,000.
        n_responses: Responses to each prompt.
        seed: Of everything.

    Raises:
        ConfigError: A setting has a value that is not accepted.
    """
    _check(n_users, features, dim, n_choices, n_responses, noise)
    rng = np.random.default_rng(seed)
    text_seed, taste_seed, label_seed = (int(s) for s in rng.integers(0, 2**31, 3))
    per_user = np.broadcast_to(np.asarray(comparisons_per_user), (n_users,))
    if per_user.min() < 1:
        raise ConfigError(f"comparisons_per_user is {comparisons_per_user}; it must be at least 1")
    heads: np.ndarray | None = None
    if features == "text":
        items, matrix, names = _text_items(300 if n_prompts is None else n_prompts, n_responses, text_seed)
        heads = _text_heads(kind, n_clusters)
        labels = tuple(items.prompts.to_pylist())
    else:
        n_prompts = int(np.clip(per_user.sum() // 10, 50, 25_000)) if n_prompts is None else n_prompts
        items, matrix, names = _numeric_items(n_prompts, n_responses, dim, rng)
        labels = tuple(f"prompt {i}" for i in range(n_prompts))
    tastes = draw_tastes(
        matrix,
        n_users,
        kind=kind,
        n_clusters=n_clusters,
        shares=shares,
        heads=heads,
        reliability_sd=reliability_sd,
        signal=signal,
        spread=spread,
        rank=rank,
        seed=taste_seed,
    )
    user = np.repeat(np.arange(n_users, dtype=np.int32), per_user)
    prompt, shown = _choice_sets(per_user, len(labels), n_responses, n_choices, same_prompts, rng)
    rows = n_choices - 1
    table = Comparisons(
        items=items,
        chosen=np.repeat(shown[:, 0], rows),
        rejected=shown[:, 1:].ravel(),
        user=np.repeat(user, rows),
        user_ids=tuple(f"user {i}" for i in range(n_users)),
        source=np.repeat(prompt, rows),
        source_ids=labels,
        choice=None if rows == 1 else np.repeat(np.arange(len(user), dtype=np.int32), rows),
        format="text" if features == "text" else "numeric",
        name=f"simulated {kind}",
    )
    return relabel(table, matrix, tastes, noise=noise, feature_names=names, seed=label_seed)


def demo(seed: int = 0) -> Population:
    """The population of the demonstration: three tastes in texts, a minority of a fifth, and uneven reliability."""
    return simulate(shares=(0.5, 0.3, 0.2), noise=0.1, reliability_sd=0.4, seed=seed)


def relabel(
    comparisons: Comparisons,
    features: np.ndarray,
    tastes: Tastes,
    *,
    noise: float = 0.0,
    feature_names: Sequence[str] = (),
    seed: int,
) -> Population:
    """Draw new choices for the same users and the same responses under known tastes.

    With real texts, users and features this makes populations on which a test's level and power can be measured. Ties
    and soft labels are replaced by choices; weights, sources and the rest stay.

    Args:
        comparisons: Who was shown what. What they chose is not used.
        features: Of its items, (items, dim).
        tastes: Of its users.
        noise: Share of the choices replaced by another response at random.
        feature_names: Names of the features.
        seed: Of the draw.

    Raises:
        ConfigError: Features or tastes do not fit the table.
    """
    if len(features) != len(comparisons.items) or features.shape[1] != tastes.heads.shape[1]:
        expected = (len(comparisons.items), tastes.heads.shape[1])
        raise ConfigError(f"features have shape {features.shape}; the items and the tastes ask for {expected}")
    if tastes.n_users != comparisons.n_users:
        raise ConfigError(f"tastes are of {tastes.n_users} users; the comparisons have {comparisons.n_users}")
    rng = np.random.default_rng(seed)
    first, decision = comparisons.first_row, comparisons.decision
    user = comparisons.user[first]
    kept = tastes.rewards(features, comparisons.chosen[first], user)
    other = tastes.rewards(features, comparisons.rejected, comparisons.user)

    # The largest of reward plus Gumbel noise is a draw from the logit.
    row = _winning_row(kept + rng.gumbel(size=len(kept)), other + rng.gumbel(size=len(other)), first, decision)
    replaced = rng.random(len(first)) < noise
    any_kept, any_other = rng.random(len(kept)), rng.random(len(other))
    any_kept[row < 0] = -1  # the winner is not among those that may replace it
    any_other[row[row >= 0]] = -1
    row = np.where(replaced, _winning_row(any_kept, any_other, first, decision), row)

    swapped = row >= 0
    winner = row[swapped]
    chosen, rejected = comparisons.chosen[first].copy(), comparisons.rejected.copy()
    chosen[swapped], rejected[winner] = comparisons.rejected[winner], chosen[swapped]
    kept[swapped], other[winner] = other[winner], kept[swapped]
    position = None if comparisons.position is None else comparisons.position.copy()
    if position is not None:
        turned = -position[winner]
        position[swapped[decision]] = 0  # which of two others was shown first is not known
        position[winner] = turned
    top = np.maximum.reduceat(other, first) if len(first) else other
    peak = np.maximum(kept, top)
    total = np.exp(kept - peak) + np.bincount(decision, np.exp(other - peak[decision]), len(first))
    return Population(
        comparisons=replace(
            comparisons, chosen=chosen[decision], rejected=rejected, position=position, outcome=None, split=None
        ),
        features=features,
        feature_names=tuple(feature_names),
        tastes=tastes,
        noise=noise,
        chosen=np.exp(kept - peak) / total,
        best_other=np.exp(top - peak) / total,
    )


def _winning_row(kept: FloatArray, other: FloatArray, first: IntArray, decision: IntArray) -> np.ndarray:
    """Row whose second item has the largest value of its decision, or -1 where the first item has, (decisions,)."""
    if not len(first):
        return np.empty(0, dtype=np.int64)
    top = np.maximum.reduceat(other, first)
    candidates = np.where(other == top[decision], np.arange(len(other)), len(other))
    return np.where(kept >= top, -1, np.minimum.reduceat(candidates, first))


def _choice_sets(
    per_user: np.ndarray, n_prompts: int, n_responses: int, n_choices: int, same_prompts: bool, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Prompt of every decision, (decisions,), and the items shown, (decisions, choices)."""
    n = int(per_user.max() if same_prompts else per_user.sum())
    if same_prompts:  # every prompt before any comes again
        prompt = np.concatenate([rng.permutation(n_prompts) for _ in range(-(-n // n_prompts))])[:n]
    else:
        prompt = rng.integers(0, n_prompts, n)
    order = rng.random((n, n_responses), dtype=np.float32).argsort(axis=1)[:, :n_choices]
    shown = prompt[:, None] * n_responses + order
    if same_prompts:
        turn = np.arange(per_user.sum()) - np.repeat(np.cumsum(per_user) - per_user, per_user)
        prompt, shown = prompt[turn], shown[turn]
    return prompt.astype(np.int32), shown.astype(np.int32)


def _text_items(n_prompts: int, n_responses: int, seed: int) -> tuple[Items, np.ndarray, tuple[str, ...]]:
    corpus = write_texts(n_prompts, n_responses, seed=seed)
    items = Items(
        prompt=corpus.prompt,
        prompts=pa.array(corpus.prompts, type=pa.large_string()),
        response=pa.array(corpus.responses, type=pa.large_string()),
    )
    return items, (corpus.style - corpus.style.mean(0)) / np.maximum(corpus.style.std(0), 1e-12), STYLE_NAMES


def _numeric_items(
    n_prompts: int, n_responses: int, dim: int, rng: np.random.Generator
) -> tuple[Items, np.ndarray, tuple[str, ...]]:
    n_items = n_prompts * n_responses
    matrix: np.ndarray = rng.standard_normal((n_items, dim), dtype=np.float32 if dim >= 100 else np.float64)
    names = tuple(f"x{i}" for i in range(dim))
    items = Items(
        prompt=np.zeros(n_items, dtype=np.int32),
        prompts=pa.array([""], type=pa.large_string()),
        response=pa.array([f"item {i}" for i in range(n_items)], type=pa.large_string()),
        attributes=matrix.astype(np.float64, copy=False),
        attribute_names=names,
    )
    return items, matrix, names


def _text_heads(kind: str, n_clusters: int) -> np.ndarray | None:
    """The first of `TEXT_TASTES`, or None where clusters outnumber them or there are none."""
    if kind != "clusters" or n_clusters > len(TEXT_TASTES):
        return None
    return np.array([[t.get(style, 0.0) for style in STYLE_NAMES] for t in list(TEXT_TASTES.values())[:n_clusters]])


def _check(n_users: int, features: str, dim: int, n_choices: int, n_responses: int, noise: float) -> None:
    if n_users < 1:
        raise ConfigError(f"n_users is {n_users}; it must be at least 1")
    if features not in ("text", "numeric"):
        raise ConfigError(f'unknown features "{features}"; known: numeric, text')
    if dim < 1:
        raise ConfigError(f"dim is {dim}; it must be at least 1")
    if not 2 <= n_choices <= n_responses:
        raise ConfigError(f"n_choices is {n_choices}; it must be 2 to n_responses ({n_responses})")
    if not 0 <= noise < (n_choices - 1) / n_choices:
        raise ConfigError(f"noise is {noise}; it must be at least 0 and below {(n_choices - 1) / n_choices:.3g}")
