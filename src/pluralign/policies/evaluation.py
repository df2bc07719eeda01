"""How often a personal model is right about held-out choices, for whom, and whether that is personal.

The accuracies are those of P-RLHF (arXiv 2402.05133, section 6): *top*, over the rows of users that the model was
trained on; *average*, of these users' own accuracies, with their standard deviation; *generic*, of the generic user
e_0, on rows of users that the model has never met, and on all rows. A response is right where its margin is strictly
above 0; a margin of exactly 0 counts half, so that a model that says nothing scores one half and not zero. A policy is
judged by its implicit reward, whose reference sees no user.

An accuracy shows no personalisation by itself. So each comes with an interval clustered by users, and the personal
model is compared, decision by decision, with its own generic user, with a pooled model where there is one, and as a
control with itself as it answers for a random other user.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch

from pluralign.comparisons import Comparisons
from pluralign.errors import DataError
from pluralign.evaluation import (
    Interval,
    Predictions,
    Scores,
    Table,
    compare,
    mean_interval,
    other_users,
    paired_difference,
    score,
)
from pluralign.evaluation.table import GAINS
from pluralign.language_models.personal import PersonalPolicy, PersonalReward
from pluralign.language_models.reading import BATCH_TOKENS
from pluralign.language_models.tokens import tokenize
from pluralign.rewards import LinearReward
from pluralign.rewards.transformer import TransformerReward
from pluralign.training.cluster_policies import ClusterPolicies
from pluralign.training.margins import policy_reference, row_margins
from pluralign.types import IntArray
from pluralign.users import UNKNOWN, predict_decisions

logger = logging.getLogger(__name__)

PERSONAL, GENERIC, POOLED, OTHER = "personal", "generic", "pooled", "another user's"
# Predictions of all decisions, each by the model of the user beside it (`UNKNOWN` the generic one), (decisions,).
Predictor: TypeAlias = Callable[[IntArray], Predictions]


@runtime_checkable
class TransformerModel(Protocol):
    """A policy or a reward model as it is shipped, with its tokenizer."""

    @property
    def model(self) -> Any: ...

    @property
    def tokenizer(self) -> Any: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """Held-out decisions judged by a personal model.

    Attributes:
        n_decisions: Decisions, ties included.
        n_known_users: Users with decisions whom the model knows.
        n_unseen_users: Users with decisions whom it has never met.
        top: Accuracy over the known users' decisions; None where there are none.
        average: Mean of the known users' own accuracies; NaN where there are none.
        average_sd: Their standard deviation; NaN for one user.
        generic_unseen: Accuracy of the generic user on decisions of unseen users; None where there are none.
        generic_all: Accuracy of the generic user on all decisions.
        scores: Of the known users' decisions, log loss and calibration among them.
        table: The personal model beside its generic user, the pooled model and another user's, on the known users'
            decisions; gains are over the pooled model where there is one, else over the generic user.
        over_generic: Personal minus generic user, in accuracy and in log_prob (nats).
        over_other: Personal minus another user's; about 0 where what is called personal is anybody's.
        beta: Of the implicit reward; None for a reward model. Accuracies do not depend on it.
    """

    n_decisions: int
    n_known_users: int
    n_unseen_users: int
    top: Interval | None
    average: float
    average_sd: float
    generic_unseen: Interval | None
    generic_all: Interval
    scores: Scores | None
    table: Table | None
    over_generic: dict[str, Interval]
    over_other: dict[str, Interval]
    beta: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where a number is missing."""

        def plain(value: Any) -> Any:
            if isinstance(value, float) and not np.isfinite(value):
                return None
            if isinstance(value, dict):
                return {name: plain(each) for name, each in value.items()}
            return value.as_dict() if hasattr(value, "as_dict") else value

        return {name: plain(value) for name, value in self.__dict__.items()}


def evaluate_policy(
    policy: TransformerModel,
    comparisons: Comparisons,
    *,
    beta: float | None = None,
    pooled: TransformerModel | None = None,
    reference: np.ndarray | None = None,
    cache: str | Path | None = None,
    control: bool = True,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> Evaluation:
    """Judge a policy by its implicit reward beta log pi(y | x, u) / pi_ref(y | x).

    Args:
        policy: Its model and its tokenizer.
        comparisons: Held-out choices; users are matched by name.
        beta: Log loss and calibration depend on it; None is that of its training.
        pooled: A policy without users, or anything that is to be beaten, of the same tokenizer; its generic user is
            asked.
        reference: Log-probability of every item's response under the reference, in nats, (items,); None means what the
            policy was before its training (`policy_reference`). Of a pooled policy with another base its own is taken.
        cache: Folder where the reference is kept.
        control: Whether to ask a random other user's model too, which takes as long again.
        seed: Of who that is.
        batch_tokens: About how many tokens are read at a time.

    Raises:
        DataError: There is nothing to score.
    """
    beta = policy.model.config.beta if beta is None else beta
    judge = _transformer(policy, comparisons, beta, reference, cache, batch_tokens)
    base = None
    if pooled is not None:
        same = pooled.model.config.base == policy.model.config.base
        base = _transformer(pooled, comparisons, beta, reference if same else None, cache, batch_tokens)
    user_ids = policy.model.user_ids
    return _evaluate(judge, comparisons, user_ids, pooled=base, control=control, seed=seed, beta=beta)


def evaluate_clusters(
    policies: ClusterPolicies,
    comparisons: Comparisons,
    *,
    control: bool = True,
    seed: int = 0,
    reference: np.ndarray | None = None,
    cache: str | Path | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Evaluation:
    """Judge one policy per cluster: every user by its cluster's, strangers by everybody's; arguments as above."""
    margin = policies.margins(comparisons, reference=reference, cache=cache, batch_tokens=batch_tokens)
    column = np.append(policies.cluster, policies.n_clusters)  # `UNKNOWN`, -1, is the last

    def predict(user: IntArray) -> Predictions:
        rows = column[user[comparisons.decision]]
        return predict_decisions(comparisons, margin[np.arange(len(rows)), rows])

    return _evaluate(
        predict, comparisons, policies.user_ids, pooled=None, control=control, seed=seed, beta=policies.settings.beta
    )


def evaluate_reward(
    reward: TransformerModel | LinearReward,
    comparisons: Comparisons,
    *,
    pooled: TransformerModel | LinearReward | None = None,
    control: bool = True,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> Evaluation:
    """Judge a reward model, on frozen features or a language model's; arguments as of `evaluate_policy`."""

    def predictor(each: TransformerModel | LinearReward) -> Predictor:
        if isinstance(each, LinearReward):
            design = each.design(comparisons)
            return lambda user: each.users.predict(design, torch.as_tensor(user, dtype=torch.int64))
        return _transformer(each, comparisons, 1.0, None, None, batch_tokens)

    user_ids = reward.user_ids if isinstance(reward, LinearReward) else reward.model.user_ids
    base = None if pooled is None else predictor(pooled)
    return _evaluate(predictor(reward), comparisons, user_ids, pooled=base, control=control, seed=seed, beta=None)


def _transformer(
    shipped: TransformerModel,
    comparisons: Comparisons,
    beta: float,
    reference: np.ndarray | None,
    cache: str | Path | None,
    batch_tokens: int,
) -> Predictor:
    model = shipped.model
    reads = shipped if isinstance(shipped, TransformerReward) else model.config  # as much of a text as in training
    tokens = tokenize(comparisons, shipped.tokenizer, max_prompt=reads.max_prompt, max_response=reads.max_response)
    if tokens.cut:
        logger.warning("%s: %s, as in training", comparisons.name, tokens.cut)
    if isinstance(model, PersonalPolicy):
        if reference is None:
            reference = policy_reference(model, tokens, cache=cache, batch_tokens=batch_tokens)
    elif not isinstance(model, PersonalReward):
        raise DataError(f"a {type(model).__name__} is neither a policy nor a reward model")

    def predict(user: IntArray) -> Predictions:
        rows = user[comparisons.decision]
        margin = row_margins(model, tokens, rows, reference=reference, beta=beta, batch_tokens=batch_tokens)
        return predict_decisions(comparisons, margin)

    return predict


def _evaluate(
    predict: Predictor,
    comparisons: Comparisons,
    user_ids: list[str] | tuple[str, ...],
    *,
    pooled: Predictor | None,
    control: bool,
    seed: int,
    beta: float | None,
) -> Evaluation:
    number = {name: i for i, name in enumerate(user_ids)}
    theirs = np.array([number.get(name, UNKNOWN) for name in comparisons.user_ids], dtype=np.int32)
    decider = comparisons.user[comparisons.first_row]
    own = theirs[decider]
    known = own >= 0
    if not len(own):
        raise DataError("there are no comparisons to evaluate on")
    generic = predict(np.full_like(own, UNKNOWN))
    models: dict[str, Predictions] = {}
    if known.any():
        models = {PERSONAL: predict(own).take(known), GENERIC: generic.take(known)}
        if pooled is not None:
            models[POOLED] = pooled(np.full_like(own, UNKNOWN)).take(known)
        present = np.unique(own[known])
        if control and len(present) > 1:
            other = other_users(present, len(user_ids), seed=seed)
            models[OTHER] = predict(np.where(known, other[own.clip(min=0)], UNKNOWN).astype(np.int32)).take(known)
    personal = models.get(PERSONAL)
    scores = None if personal is None else score(personal)
    baseline = POOLED if POOLED in models else GENERIC
    controls = [OTHER] if OTHER in models else []

    def gains(over: str) -> dict[str, Interval]:
        if personal is None or over not in models:
            return {}
        return {metric: paired_difference(personal, models[over], metric) for metric in GAINS}

    return Evaluation(
        n_decisions=len(own),
        n_known_users=len(np.unique(decider[known])),
        n_unseen_users=len(np.unique(decider[~known])),
        top=None if personal is None else mean_interval(personal),
        average=float("nan") if scores is None else scores.accuracy_users,
        average_sd=float("nan") if scores is None else scores.accuracy_users_sd,
        generic_unseen=mean_interval(generic.take(~known)) if (~known).any() else None,
        generic_all=mean_interval(generic),
        scores=scores,
        table=compare(models, baseline=baseline, controls=controls) if models else None,
        over_generic=gains(GENERIC),
        over_other=gains(OTHER),
        beta=beta,
    )
