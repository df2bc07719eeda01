"""Which few questions to put to every new user: VPL's active queries (arXiv 2408.10075), and what they buy.

There, a fixed *set* of q questions is chosen once, for everybody, out of many random sets, as the one whose answers y
tell most of z. With the posterior N(mu_y, S_y) that the encoder gives to each vector of answers y, the scores are:

- `moment-matched`: 1/2 log det(E S_y + Cov mu_y) - 1/2 E log det S_y, what the paper's text describes. The entropy of
  the mixture over y is replaced by that of a normal distribution of the same moments, which is never below it: the
  score is an upper bound, may exceed q log 2, and is 0 if the encoder ignores the answers.
- `predictive`: the mutual information of z and y under the model, by draws of z from the prior: H[y] less E H[y | z].
  It is 0 where both items of every pair are the same, and at most q log 2.
- `entropy`: less the mean entropy of the posteriors.
- `released`: log(2 pi mean_y sum_d s_yd) - mean_y sum_d log(2 pi s_yd), s being the variances, as the released code has
  it: posterior *means* do not enter, and a small variance is rewarded also after answers that nobody gives.
- `random`: for every user another set, so that the curve is a mean over random sets.

The expectation over y has two readings: uniform over all 2^q vectors, as the paper writes it, and by their probability
under the model, which is the information a user's real answers will have. The two scores of the paper's text take
either (`weights`), "model" by default; `released` is uniform, as there, but over all vectors and not 50 at random.
From 9 questions on 256 vectors are sampled, uniformly or from the model.

A posterior that is a mixture counts by its mean and its whole covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from pluralign.control.evaluation import as_predictions
from pluralign.control.preferences import Sets, answer, draw_sets
from pluralign.control.rewards import Personal
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError
from pluralign.evaluation import Interval, Predictions, mean_interval, paired_difference
from pluralign.features import Design
from pluralign.inference.gaussian_blocks import one_thread
from pluralign.inference.latent_encoder import Comparisons, read
from pluralign.inference.latent_prior import condition
from pluralign.likelihoods import Decisions
from pluralign.queries import believe
from pluralign.users import Latent
from pluralign.users.latent import Gaussians, decode, embed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Score = Literal["moment-matched", "predictive", "entropy", "released"]
Weights = Literal["model", "uniform"]
Success = Callable[[Float[ndarray, "users latent"], Int[ndarray, " users"]], Float[ndarray, " users"]]
"""Success of users with these z and of these kinds, each from 0 to 1."""

SCORES: tuple[Score, ...] = get_args(Score)
METHODS = ("random", *SCORES)
EACH = "one by one"
"""The method that asks every user a next question of their own (`queries`)."""
MAX_VECTORS = 256
N_DRAWS = 256  # of z, of which the probability of a vector of answers is a mean
_BLOCK_ROWS = 2**16
_BLOCK_USERS = 64
_POOL = 100  # pairs from which a user's own next question is chosen


class Vectors(NamedTuple):
    """What answering a set of questions one way or another does, for some candidate sets.

    Attributes:
        weight: Of every vector of answers in an expectation, (candidates, vectors).
        mean: Posterior mean after it, (candidates, vectors, latent).
        covariance: Posterior covariance, (candidates, vectors, latent, latent).
    """

    weight: Float[Tensor, "candidates vectors"]
    mean: Float[Tensor, "candidates vectors latent"]
    covariance: Float[Tensor, "candidates vectors latent latent"]


def moment_matched(after: Vectors) -> Float[Tensor, " candidates"]:
    """Information gain if the mixture of the posteriors were normal, in nats (module docstring)."""
    weight = after.weight[..., None]
    away = after.mean - (weight * after.mean).sum(1, keepdim=True)
    spread = (weight * away).mT @ away
    within = (weight[..., None] * after.covariance).sum(1)
    return _log_det(within + spread) / 2 + entropy(after)


def entropy(after: Vectors) -> Float[Tensor, " candidates"]:
    """Less the mean entropy of the posteriors, but for a constant."""
    return -(after.weight * _log_det(after.covariance)).sum(1) / 2


def released(after: Vectors) -> Float[Tensor, " candidates"]:
    """The released formula; the weights are taken to be uniform."""
    variance = after.covariance.diagonal(dim1=2, dim2=3)
    total = torch.log(2 * math.pi * variance.sum(2).mean(1))
    return total - torch.log(2 * math.pi * variance).sum(2).mean(1)


def predictive(
    first: Float[Tensor, "candidates questions draws"], weight: Float[Tensor, " draws"], answers: Tensor | None = None
) -> Float[Tensor, " candidates"]:
    """Mutual information of z and the answers, in nats.

    Args:
        first: Probability of the first item in each question under each draw of z.
        weight: Of the draws.
        answers: Vectors of answers sampled from the model for each candidate, (candidates, vectors, questions), where
            there are too many to go through; None goes through all.
    """
    n_questions = first.shape[1]
    vectors = _all_vectors(n_questions).to(first) if answers is None else answers.to(first)
    log_prob = _log_vectors(first, vectors) + weight.log()  # (candidates, vectors, draws), jointly with the draw
    marginal = log_prob.logsumexp(2)
    whole = -(marginal.exp() * marginal).sum(1) if answers is None else -marginal.mean(1)
    tiny = torch.finfo(first.dtype).tiny
    each = -(first * first.clamp(min=tiny).log() + (1 - first) * (1 - first).clamp(min=tiny).log())
    return (whole - (each.sum(1) * weight).sum(1)).clamp(min=0, max=n_questions * math.log(2))


@one_thread()
def score_sets(
    model: Latent,
    features: Float[Tensor, "items dim"],
    pairs: Int[Tensor, "candidates questions 2"],
    methods: Sequence[str] = SCORES,
    *,
    weights: Weights = "model",
    seed: int = 0,
) -> dict[str, Float[Tensor, " candidates"]]:
    """Score candidate sets of questions, larger being better.

    Args:
        model: Fitted latent users; the user to be asked is the unknown one.
        features: Of the items.
        pairs: Items of each question, first and second, (candidates, questions, 2).
        methods: Some of `SCORES`.
        weights: Of vectors of answers, in "moment-matched" and "entropy".
        seed: Of vectors that are sampled.

    Raises:
        ConfigError: An unknown score or weighting, or no question.
    """
    unknown = [each for each in methods if each not in SCORES]
    if unknown or weights not in get_args(Weights):
        raise ConfigError(
            f'unknown score in {unknown} or weights "{weights}"; known: {", ".join(SCORES)}, and as weights '
            f"{', '.join(get_args(Weights))}"
        )
    if not pairs.shape[1]:
        raise ConfigError("there is no question in a set; each must have at least 1")
    items = model.items(features)
    g = torch.Generator().manual_seed(seed)
    n_questions = pairs.shape[1]
    step = max(1, _BLOCK_ROWS // (n_questions * min(2**n_questions, MAX_VECTORS)))
    found: dict[str, list[Tensor]] = {method: [] for method in methods}
    with torch.no_grad():
        for some in pairs.split(step):
            for method, value in _scored(model, items, some, methods, weights, g).items():
                found[method].append(value)
    return {method: torch.cat(values) for method, values in found.items()}


def _scored(
    model: Latent,
    items: Float[Tensor, "items width1"],
    pairs: Int[Tensor, "candidates questions 2"],
    methods: Sequence[str],
    weights: Weights,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    first, draws = _first(model, items, pairs)
    shape = len(pairs), MAX_VECTORS, pairs.shape[1]
    vectors = _all_vectors(pairs.shape[1]).expand(len(pairs), -1, -1)
    sampled = None
    if not vectors.shape[1]:
        vectors = (torch.rand(shape, generator=generator) < 0.5).double()
        which = torch.multinomial(draws, MAX_VECTORS, replacement=True, generator=generator)
        sampled = (torch.rand(shape, generator=generator).to(first) < first[:, :, which].mT).double()
    equal = torch.full(vectors.shape[:2], 1 / vectors.shape[1], dtype=torch.float64)
    after = weighted = _after(model, items, pairs, vectors, equal)
    if weights == "model" and sampled is not None:
        weighted = _after(model, items, pairs, sampled, equal)
    elif weights == "model":
        weighted = after._replace(weight=(_log_vectors(first, vectors) + draws.log()).logsumexp(2).softmax(1))
    found = {}
    for method in methods:
        if method == "predictive":
            found[method] = predictive(first, draws, sampled)
        elif method == "released":
            found[method] = released(after)
        else:
            found[method] = (moment_matched if method == "moment-matched" else entropy)(weighted)
    return found


def _all_vectors(n_questions: int) -> Float[Tensor, "vectors questions"]:
    """All vectors of answers, 1 for the first item; none at all where they are too many."""
    if 2**n_questions > MAX_VECTORS:
        return torch.zeros(0, n_questions, dtype=torch.float64)
    return (torch.arange(2**n_questions)[:, None] >> torch.arange(n_questions) & 1).double()


def _log_vectors(first: Float[Tensor, "candidates questions draws"], vectors: Tensor) -> Tensor:
    """Log-probability of vectors of answers under each draw, (candidates, vectors, draws)."""
    tiny = torch.finfo(first.dtype).tiny
    vectors = vectors.to(first)
    return vectors @ first.clamp(min=tiny).log() + (1 - vectors) @ (1 - first).clamp(min=tiny).log()


def _first(model: Latent, items: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of the first item under draws of the unknown user's z, and the weights of the draws."""
    z, log_weight = model.with_posterior(Gaussians(*(part[:0] for part in model.posterior))).draw(N_DRAWS)
    one, other = pairs.reshape(-1, 2).T
    targets = embed(model.decoder, model.form, items, one, other)
    margin = decode(model.decoder, model.form, targets, z, torch.zeros_like(one)).double()
    weight = log_weight[0].double().softmax(0)
    return torch.sigmoid(margin).view(*pairs.shape[:2], -1), weight


def _after(
    model: Latent,
    items: Tensor,
    pairs: Int[Tensor, "candidates questions 2"],
    vectors: Float[Tensor, "candidates vectors questions"],
    weight: Float[Tensor, "candidates vectors"],
) -> Vectors:
    """Posteriors of users who give each vector of answers: one user for each candidate and vector."""
    n_candidates, n_vectors, n_questions = vectors.shape
    n_users = n_candidates * n_vectors
    one, other = pairs[:, None].expand(-1, n_vectors, -1, -1).reshape(-1, 2).T
    said = vectors.reshape(-1) > 0.5
    rows = torch.arange(len(one))
    own = Comparisons(
        chosen=torch.where(said, one, other),
        rejected=torch.where(said, other, one),
        decisions=Decisions(
            index=rows, outcome=torch.ones(len(one)).to(items), position=torch.zeros(len(one)).to(items)
        ),
        weight=torch.ones(len(one)).to(items),
        owner=rows // n_questions,
        group=rows,
        n_users=n_users,
    )
    found = condition(model.prior, read(model, items, own))
    part = found.log_weight.double().exp()[..., None]
    mean = found.mean.double()
    center = (part * mean).sum(1)
    away = mean - center[:, None]
    within = (part * found.log_variance.double().exp()).sum(1)
    covariance = (part * away).mT @ away + torch.diag_embed(within)
    shape = n_candidates, n_vectors
    return Vectors(weight, center.reshape(*shape, -1), covariance.reshape(*shape, *covariance.shape[1:]))


def _log_det(matrix: Float[Tensor, "*many latent latent"]) -> Float[Tensor, "*many"]:
    return torch.linalg.cholesky(matrix).diagonal(dim1=-2, dim2=-1).log().sum(-1) * 2


@dataclass(frozen=True, eq=False, kw_only=True)
class ActiveCurve:
    """What methods of asking buy, for the same test users and the same pairs to be predicted.

    Attributes:
        questions: How many were asked, ascending.
        predictions: For each method, one entry for every number of questions.
        success: The same of success, (users,) each, empty where nothing acts.
        chosen: Observations of the pairs asked of everybody, by method and number, (questions, 2, observation).
    """

    questions: tuple[int, ...]
    predictions: Mapping[str, tuple[Predictions, ...]]
    success: Mapping[str, tuple[Float[ndarray, " users"], ...]]
    chosen: Mapping[str, tuple[ndarray, ...]]

    def score(self, method: str, n: int) -> Interval:
        """Accuracy of a method after n questions."""
        return mean_interval(self.predictions[method][self.questions.index(n)], "accuracy")

    def gain(self, method: str, n: int, other: str = "random", m: int | None = None) -> Interval:
        """Accuracy of a method after n questions less another's after m (None: as many), paired by user."""
        one, two = (self.questions.index(each) for each in (n, n if m is None else m))
        return paired_difference(self.predictions[method][one], self.predictions[other][two], "accuracy")

    def success_score(self, method: str, n: int) -> Interval:
        """Success of a method after n questions, over users."""
        return mean_interval(self._as_decisions(method, n), "probability")

    def success_gain(self, method: str, n: int, other: str = "random", m: int | None = None) -> Interval:
        """As `gain`, of success."""
        two = self._as_decisions(other, n if m is None else m)
        return paired_difference(self._as_decisions(method, n), two, "probability")

    def as_dict(self) -> dict[str, Any]:
        """Plain values: accuracy, gain over `random` with as many questions, and success if there is any."""
        methods: dict[str, Any] = {}
        for method in self.predictions:
            row = {"accuracy": [self.score(method, n).as_dict() for n in self.questions]}
            if method != "random" and "random" in self.predictions:
                row["gain_over_random"] = [self.gain(method, n).as_dict() for n in self.questions]
            if self.success:
                row["success"] = [self.success_score(method, n).as_dict() for n in self.questions]
            methods[method] = row
        return {"questions": list(self.questions), "methods": methods}

    def figure(self) -> Figure:
        """Accuracy, and success beside it, against the number of questions, with intervals."""
        from matplotlib.figure import Figure

        panels = [("accuracy on other pairs", self.score)]
        if self.success:
            panels.append(("success", self.success_score))
        figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
        for place, (label, score) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            for number, method in enumerate(self.predictions):
                found = [score(method, n) for n in self.questions]
                low, high = ([getattr(each, end) for each in found] for end in ("low", "high"))
                axes.plot(self.questions, [each.estimate for each in found], "o-", color=f"C{number}", label=method)
                axes.fill_between(self.questions, low, high, color=f"C{number}", alpha=0.15, lw=0)
            axes.set_xscale("log", base=2)
            axes.set_xticks(self.questions, [str(n) for n in self.questions])
            axes.set(xlabel="questions", ylabel=label)
        figure.axes[0].legend(fontsize=8)
        return figure

    def _as_decisions(self, method: str, n: int) -> Predictions:
        return as_predictions(self.success[method][self.questions.index(n)])


def active_curve(
    fitted: Personal,
    task: Task,
    observation: Float[ndarray, "n observation"],
    *,
    questions: Sequence[int] = (1, 2, 4, 8),
    methods: Sequence[str] = METHODS,
    n_candidates: int = 1000,
    n_users: int = 400,
    n_test: int = 32,
    weights: Weights = "model",
    success: Success | None = None,
    asked: Int[ndarray, "pairs 2"] | None = None,
    seed: int = 0,
) -> ActiveCurve:
    """Choose questions by each method, put them to the same new users, and predict other pairs of theirs.

    Args:
        fitted: VPL's reward.
        task: Whose users.
        observation: Observations to ask about.
        questions: How many to ask.
        methods: Some of `METHODS`, and `EACH`, which asks every user a next question of their own.
        n_candidates: Random sets to choose from; `EACH` chooses from 100 random pairs.
        n_users: Test users, of every kind as many.
        n_test: Pairs to predict for each.
        weights: As in `score_sets`.
        success: What acting on a user's z comes to, if anything acts.
        asked: Pairs of observations that may be asked, as indices; None means any two.
        seed: Of candidates, users and pairs.

    Raises:
        ConfigError: An unknown method.
    """
    unknown = [each for each in methods if each not in (*METHODS, EACH)]
    if unknown or not methods or not questions:
        raise ConfigError(
            f"unknown methods {unknown}, or no method, or no number of questions; known: {', '.join((*METHODS, EACH))}"
        )
    kind = np.arange(n_users, dtype=np.int32) % len(task.users)
    test = draw_sets(task, observation, n_users=n_users, n_pairs=n_test, kind=kind, questions=asked, seed=seed + 1)
    rng = np.random.default_rng(seed)
    features = torch.as_tensor(task.features(observation)).to(fitted.model.theta)
    placed: dict[str, list[ndarray]] = {method: [] for method in methods}
    chosen: dict[str, list[ndarray]] = {method: [] for method in methods if method in SCORES}
    for n in sorted(questions):
        pairs = _candidates(len(observation), (n_candidates, n), asked, rng)
        wanted = tuple(chosen)
        scores = score_sets(fitted.model, features, torch.as_tensor(pairs), wanted, weights=weights, seed=seed)
        for method in wanted:
            best = pairs[int(scores[method].argmax())]
            chosen[method].append(observation[best])
            everybody = np.repeat(best[None], n_users, axis=0)
            placed[method].append(fitted.place(_answered(task, observation, everybody, kind)))
        if "random" in placed:
            own = pairs[np.arange(n_users) % n_candidates]
            placed["random"].append(fitted.place(_answered(task, observation, own, kind)))
    if EACH in placed:
        pool = _candidates(len(observation), (max(_POOL, *questions), 1), asked, rng)[:, 0]
        found = _one_by_one(fitted, task, observation, pool, kind, max(questions))
        placed[EACH] = [found[n] for n in sorted(questions)]
    return ActiveCurve(
        questions=tuple(sorted(questions)),
        predictions={method: tuple(fitted.predict(test, z) for z in each) for method, each in placed.items()},
        success={}
        if success is None
        else {method: tuple(success(z, kind) for z in each) for method, each in placed.items()},
        chosen={method: tuple(each) for method, each in chosen.items()},
    )


def _candidates(
    n: int, shape: tuple[int, int], asked: ndarray | None, rng: np.random.Generator
) -> Int[ndarray, "candidates questions 2"]:
    """Random pairs of different observations."""
    if asked is not None:
        return asked[rng.integers(0, len(asked), shape)]
    first = rng.integers(0, n, shape)
    return np.stack([first, (first + rng.integers(1, n, shape)) % n], axis=2)


def _answered(task: Task, observation: ndarray, pairs: Int[ndarray, "users questions 2"], kind: ndarray) -> Sets:
    return answer(task, observation, pairs[..., 0], pairs[..., 1], kind)


def _one_by_one(
    fitted: Personal,
    task: Task,
    observation: Float[ndarray, "n observation"],
    pool: Int[ndarray, "pool 2"],
    kind: Int[ndarray, " users"],
    n_questions: int,
) -> dict[int, Float[ndarray, "users latent"]]:
    """Where users are after 1, 2, ... questions, each the most informative of the pool for that user."""
    n_users, model = len(kind), fitted.model
    features = torch.as_tensor(task.features(observation)).to(model.theta)
    rows = len(pool) * n_users
    user = torch.arange(n_users).repeat_interleave(len(pool))
    one, other = torch.as_tensor(pool).repeat(n_users, 1).T
    design = Design(
        features=features,
        chosen=one,
        rejected=other,
        decisions=Decisions(
            index=torch.arange(rows), outcome=torch.ones(rows).to(features), position=torch.zeros(rows).to(features)
        ),
        user=user,
        weight=torch.ones(rows).to(features),
        source=torch.arange(rows),
        n_users=n_users,
    )
    blocks = [design.take((user >= at) & (user < at + _BLOCK_USERS)) for at in range(0, n_users, _BLOCK_USERS)]
    left = np.ones((n_users, len(pool)), dtype=np.bool_)
    asked = np.zeros((n_users, 0, 2), dtype=np.int64)
    found: dict[int, ndarray] = {}
    placed = model.with_posterior(Gaussians(*(part.expand(n_users, *part.shape[1:]) for part in model.prior)))
    for n in range(1, n_questions + 1):
        gain = np.concatenate([believe(placed, some, some.user).information_gain().numpy() for some in blocks])
        best = np.where(left, gain.reshape(left.shape), -1.0).argmax(1)
        left[np.arange(n_users), best] = False
        asked = np.concatenate([asked, pool[best][:, None]], axis=1)
        sets = _answered(task, observation, asked, kind)
        placed = fitted.users(sets)
        found[n] = fitted.centers(placed)
    return found
