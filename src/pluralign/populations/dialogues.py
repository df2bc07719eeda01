"""Requests and answers in four styles, users of opposed tastes, and a language model that speaks them.

For the whole way without a download: `embedded_language_model` trains a small model on `write_dialogues`, answers of
all styles in equal shares; `simulate_dialogues` asks users of two tastes to choose; what a personal model then says to
each user can be judged, for `Dialogues.reward` reads the style out of any text.

A style has two parts that do not depend on each other: *detail*, whether a number stands in the answer, and *warmth*,
whether a kind word does (`count_style` counts both). By default seven users in ten want no detail and three in ten want
it, all want warmth, and detail counts four times as much. A reward for everybody therefore learns warmth and what most
think of detail, and what it says of the minority's choices is wrong more often than not. (Where warmth counts half as
much as detail, a pooled reward puts warmth first: the groups' disagreement takes most of its slope in detail.)

An answer is put together from independent uniform choices, of which none can be read off two others, so that its
probability under the generator is known (`answer_log_prob`), and with it the least loss that a language model can have.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import perm
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pluralign.comparisons import Comparisons, Split, encode_chat, from_columns, split_by_source
from pluralign.errors import ConfigError, DataError
from pluralign.populations.simulate import Population, relabel
from pluralign.populations.tastes import Tastes, exact_sizes
from pluralign.populations.texts import _PROMPTS, _TOPICS, _WARMTH, STYLE_NAMES, _Topic, count_style
from pluralign.types import FloatArray, IntArray

if TYPE_CHECKING:
    from pluralign.language_models.tiny import TinySettings

AXES = ("detail", "warmth")
# Detail and warmth of each style, 0 or 1; a style's number is 2 * detail + warmth.
STYLES = ((0, 0), (0, 1), (1, 0), (1, 1))
# Reward in logits for detail and for warmth, in each group.
TASTES = ((-4.0, 1.0), (4.0, 1.0))
SHARES = (0.7, 0.3)

_FRAMES = ("{}.", "You should {}.", "It helps to {}.", "Start here: {}.")
_KIND = tuple(phrase for group in _WARMTH for phrase in group)
_COLUMNS = [STYLE_NAMES.index(axis) for axis in AXES]
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# Sentences between the topic and the request of a long prompt.
_STORY = (
    "Last year I began with {}.",
    "I have read about {} for weeks.",
    "A friend talks about {} all day.",
    "Before that I spent a summer on {}.",
)
_REPORT = (
    "I was told to {}, and I did.",
    "Some say to {}, but I am not sure.",
    "I tried to {} and it went badly.",
    "Nobody told me to {} at first.",
    "My brother likes to {} and says it is enough.",
)
_N_STEPS, _N_DETAILS = 6, 3  # of every topic
MAX_TOPICS = len(_TOPICS)
# Topic of each request, those of one topic together.
_TOPIC = {template.format(topic[0]): topic for topic in _TOPICS for template in _PROMPTS}


@dataclass(frozen=True, eq=False, kw_only=True)
class Dialogues:
    """Simulated choices among answers in four styles, and their truth.

    Attributes:
        population: Comparisons and true tastes on the features `AXES`, each 0 or 1.
        split: Rows to train on and to be judged by; no prompt is on both sides.
    """

    population: Population
    split: Split

    @property
    def comparisons(self) -> Comparisons:
        """All choices; the prompt is the source."""
        return self.population.comparisons

    @property
    def train(self) -> Comparisons:
        return self.comparisons.take(self.split.train)

    @property
    def test(self) -> Comparisons:
        return self.comparisons.take(self.split.test)

    @property
    def cluster(self) -> IntArray:
        """Group of every user, (users,)."""
        return self.population.tastes.cluster

    def reward(self, prompts: Sequence[str], responses: Sequence[str], users: np.ndarray) -> FloatArray:
        """True reward of any texts, in logits, (n,): of their style, whatever else they say.

        Args:
            prompts: What was asked; nobody's taste depends on it.
            responses: Any texts: what a model generated, say. Nonsense has a style too (`parse_styles` finds it out).
            users: The user who reads each, an index, (n,).

        Raises:
            DataError: The lengths differ, or there is no such user.
        """
        users = np.asarray(users, dtype=np.int64)
        if not len(prompts) == len(responses) == len(users):
            raise DataError(f"there are {len(prompts)} prompts, {len(responses)} responses and {len(users)} users")
        tastes = self.population.tastes
        bad = users[(users < 0) | (users >= tastes.n_users)]
        if len(bad):
            raise DataError(f"there is no user {bad[0]}; users are 0 to {tastes.n_users - 1}")
        return np.einsum("nf,nf->n", read_style(responses), tastes.theta[users])

    def ceiling(self, rows: np.ndarray | None = None) -> FloatArray:
        """Expected accuracy, for each group's choices, of somebody who knows every taste, (groups,).

        Args:
            rows: Rows to judge, as indices; None means all. A group without a row has NaN.
        """
        right = np.maximum(self._chance, 1 - self._chance)
        return self._by_group(np.take_along_axis(right, self._group[:, None], 1)[:, 0], rows)

    def pooled_ceiling(self, rows: np.ndarray | None = None) -> FloatArray:
        """Expected accuracy, for each group's choices, of the best prediction that does not know who chose, (groups,).

        For every pair it names what most of the population would choose, by the groups' shares of the users.
        """
        share = np.bincount(self.cluster, minlength=self._chance.shape[1]) / len(self.cluster)
        named = self._chance @ share >= 0.5
        own = np.take_along_axis(self._chance, self._group[:, None], 1)[:, 0]
        return self._by_group(np.where(named, own, 1 - own), rows)

    @cached_property
    def _group(self) -> IntArray:
        return self.cluster[self.comparisons.user]

    @cached_property
    def _chance(self) -> FloatArray:
        """Probability that a user of each group is recorded as choosing what was chosen, (rows, groups)."""
        table, population = self.comparisons, self.population
        pull = population.features[table.chosen] - population.features[table.rejected]
        p = 1 / (1 + np.exp(-pull @ population.tastes.heads.T))
        return (1 - population.noise) * p + population.noise * (1 - p)

    def _by_group(self, value: FloatArray, rows: np.ndarray | None) -> FloatArray:
        rows = np.arange(len(value)) if rows is None else rows
        group, n_groups = self._group[rows], self._chance.shape[1]
        count = np.bincount(group, minlength=n_groups).astype(np.float64)
        count[count == 0] = np.nan
        return np.bincount(group, value[rows], n_groups) / count


def simulate_dialogues(
    *,
    n_users: int = 40,
    comparisons_per_user: int = 50,
    tastes: Sequence[Sequence[float]] = TASTES,
    shares: Sequence[float] = SHARES,
    noise: float = 0.03,
    n_prompts: int | None = None,
    n_responses: int = 8,
    n_topics: int = MAX_TOPICS,
    test: float = 0.2,
    long: bool = False,
    chat: bool = False,
    seed: int = 0,
) -> Dialogues:
    """Simulate users who choose between two answers of different styles to one request.

    Choices are drawn from the logit of the true rewards, and a share of them is turned round. Two answers of one style
    are never compared: nobody could tell which is chosen.

    Args:
        n_users: Number of users.
        comparisons_per_user: Choices of each.
        tastes: Reward in logits for each of `AXES` in every group.
        shares: Share of the users in each group. Sizes are exact, to the nearest user.
        noise: Share of the choices turned round.
        n_prompts: Distinct requests, at most 20 for each topic; None means 200, or all there are.
        n_responses: Answers to each to draw pairs from, a multiple of 4: as many of each style.
        n_topics: What requests are about: the first so many of 20 topics.
        test: Share of the choices held out, whole prompts.
        long: A story of about 350 tokens before each request, and answers of about 40 tokens, for measurements of
            speed. The embedded model has seen none of these stories.
        chat: Items are chats of one message each, rather than texts.
        seed: Of everything.

    Raises:
        ConfigError: A setting has a value that is not accepted.
    """
    heads = np.asarray(tastes, dtype=np.float64)
    possible = _requests(n_topics)
    n_prompts = min(200, len(possible)) if n_prompts is None else n_prompts
    _check(n_users, comparisons_per_user, heads, shares, noise, n_prompts, len(possible), n_responses)
    rng = np.random.default_rng(seed)
    label_seed, split_seed = (int(each) for each in rng.integers(0, 2**31, 2))
    cluster = rng.permutation(np.repeat(np.arange(len(heads)), exact_sizes(shares, n_users))).astype(np.int32)

    requests = [possible[i] for i in rng.permutation(len(possible))[:n_prompts]]
    each = n_responses // len(STYLES)
    responses: list[str] = []
    for request in requests:
        for style in range(len(STYLES)):
            written: dict[str, None] = {}  # in order and without repeats
            while len(written) < each:
                written[_answer(_TOPIC[request], style, rng, long=long)] = None
            responses += written
    prompts = [_story(request, rng) for request in requests] if long else requests
    features = read_style(responses)

    n = n_users * comparisons_per_user
    prompt = rng.integers(0, n_prompts, n)
    one = rng.integers(0, len(STYLES), n)
    other = (one + rng.integers(1, len(STYLES), n)) % len(STYLES)
    first, second = ((prompt * len(STYLES) + of) * each + rng.integers(0, each, n) for of in (one, other))

    def spell(text: str, role: str) -> str:
        return encode_chat([{"role": role, "content": text}]) if chat else text

    asked = [spell(text, "user") for text in prompts]
    said = [spell(text, "assistant") for text in responses]
    table = from_columns(
        prompt=[asked[i] for i in prompt],
        chosen=[said[i] for i in first],
        rejected=[said[i] for i in second],
        user=[f"user {i}" for i in np.repeat(np.arange(n_users), comparisons_per_user)],
        format="chat" if chat else "text",
        name="simulated dialogues",
    )
    # Items are numbered by their first appearance, and those never drawn are left out.
    place = np.empty(len(table.items), dtype=np.int64)
    place[table.chosen], place[table.rejected] = first, second
    truth = Tastes(
        kind="clusters",
        heads=heads,
        loading=np.eye(len(heads))[cluster],
        cluster=cluster,
        reliability=np.ones(n_users),
    )
    population = relabel(table, features[place], truth, noise=noise, feature_names=AXES, seed=label_seed)
    return Dialogues(population=population, split=split_by_source(population.comparisons, test, seed=split_seed))


def write_dialogues(n: int, *, seed: int, n_topics: int = MAX_TOPICS, long: bool = False) -> list[tuple[str, str]]:
    """Write requests with an answer each: every request and every style is as likely as any other."""
    rng = np.random.default_rng(seed)
    requests = _requests(n_topics)
    written = []
    picked = rng.integers(0, [len(requests), len(STYLES)], (n, 2)).tolist()
    for i, style in picked:
        prompt = _story(requests[i], rng) if long else requests[i]
        written.append((prompt, _answer(_TOPIC[requests[i]], style, rng, long=long)))
    return written


def read_style(texts: Sequence[str]) -> FloatArray:
    """Read `AXES` out of any texts: 1 where it is there and 0 where not, (texts, 2)."""
    return (count_style(texts)[:, _COLUMNS] > 0).astype(np.float64)


def parse_styles(prompts: Sequence[str], responses: Sequence[str], *, long: bool = False) -> IntArray:
    """Style of each answer, an index into `STYLES`, or -1 where it could not have been written to its prompt, (n,).

    Raises:
        DataError: A prompt is none of ours.
    """
    style = [_parse(_topic_of(prompt), text, long) for prompt, text in zip(prompts, responses, strict=True)]
    return np.array(style, dtype=np.int32)


def answer_log_prob(prompts: Sequence[str], responses: Sequence[str], *, long: bool = False) -> FloatArray:
    """Log-probability of each answer, given its prompt, under `write_dialogues`, in nats; -inf where it has none, (n,).

    Minus its mean over `write_dialogues` is the entropy of an answer: the least loss that a language model can reach.
    """
    style = parse_styles(prompts, responses, long=long)
    return np.append([-np.log(_ways(each, long)) for each in range(len(STYLES))], -np.inf)[style]


def embedded_language_model(
    *,
    settings: TinySettings | str = "default",
    n_topics: int = MAX_TOPICS,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Return the folder of a small language model that speaks these dialogues; trained here where it is not cached.

    Any other checkpoint folder or hub id can stand in its place. Like a pretrained model it knows all topics and
    requests, those also on which preferences are held out, and answers in all styles alike.

    Args:
        settings: Of the model, or the name of one of `pluralign.language_models.tiny.SIZES`.
        n_topics: What it speaks about, as of `simulate_dialogues`: fewer are learnt sooner ("small" learns four).
        cache: Folder to keep models in; None is the usual one.
        seed: Of the texts and of the model.
        progress: Whether to show a progress bar (on a terminal only).
    """
    from pluralign.language_models.tiny import find_size, tiny_language_model

    chosen = replace(find_size(settings), seed=seed)
    documents = write_dialogues(1000 * n_topics, seed=seed, n_topics=n_topics)
    return tiny_language_model(documents, settings=chosen, cache=cache, progress=progress)


def _requests(n_topics: int) -> list[str]:
    if not 1 <= n_topics <= MAX_TOPICS:
        raise ConfigError(f"n_topics is {n_topics}; it must be 1 to {MAX_TOPICS}")
    return list(_TOPIC)[: n_topics * len(_PROMPTS)]


def _answer(topic: _Topic, style: int, rng: np.random.Generator, *, long: bool) -> str:
    """One answer: perhaps a kind sentence, then steps, then perhaps details."""
    n_steps, n_details = _amounts(long)
    detail, warmth = STYLES[style]
    steps = [topic[1][i] for i in rng.permutation(len(topic[1]))[:n_steps]]
    frames = [_FRAMES[i] for i in rng.integers(0, len(_FRAMES), n_steps)]
    parts = [
        *([_KIND[rng.integers(0, len(_KIND))]] if warmth else []),
        *(_sentence(frame, step) for frame, step in zip(frames, steps, strict=True)),
        *([topic[2][i] for i in rng.permutation(len(topic[2]))[:n_details]] if detail else []),
    ]
    return " ".join(parts)


def _amounts(long: bool) -> tuple[int, int]:
    """Numbers of steps and of details."""
    return (3, 3) if long else (1, 1)


def _ways(style: int, long: bool) -> int:
    """How many equally likely answers there would be if every style had as many as this one."""
    n_steps, n_details = _amounts(long)
    detail, warmth = STYLES[style]
    ways = len(STYLES) * perm(_N_STEPS, n_steps) * len(_FRAMES) ** n_steps
    return ways * (perm(_N_DETAILS, n_details) if detail else 1) * (len(_KIND) if warmth else 1)


def _sentence(frame: str, step: str) -> str:
    text = frame.format(step)
    return text[0].upper() + text[1:]


def _parse(topic: _Topic, text: str, long: bool) -> int:
    n_steps, n_details = _amounts(long)
    sentences = _SENTENCE.split(text)
    if " ".join(sentences) != text:
        return -1
    warmth = sentences[0] in _KIND
    body = sentences[warmth:]
    known = {_sentence(frame, step): step for step in topic[1] for frame in _FRAMES}
    steps, details = [known.get(each) for each in body[:n_steps]], body[n_steps:]
    if None in steps or len(set(steps)) != n_steps or len(details) not in (0, n_details):
        return -1
    if not set(details) <= set(topic[2]) or len(set(details)) != len(details):
        return -1
    return 2 * bool(details) + warmth


def _topic_of(prompt: str) -> _Topic:
    request = prompt.rsplit("\n", 1)[-1]
    if request not in _TOPIC:
        raise DataError(f"{request!r} is not a request that `write_dialogues` makes")
    return _TOPIC[request]


def _story(request: str, rng: np.random.Generator, *, words: int = 215) -> str:
    """A request after a story of so many words about other things."""
    sentences: list[str] = []
    n = 0
    while n < words:
        topic = _TOPICS[rng.integers(0, len(_TOPICS))]
        steps = [topic[1][i] for i in rng.permutation(len(topic[1]))[:3]]
        frames = [_REPORT[i] for i in rng.permutation(len(_REPORT))[:3]]
        part = [_STORY[rng.integers(0, len(_STORY))].format(topic[0])]
        part += [frame.format(step) for frame, step in zip(frames, steps, strict=True)]
        sentences += part
        n += sum(len(each.split()) for each in part)
    return " ".join(sentences) + "\n" + request


def _check(
    n_users: int,
    comparisons_per_user: int,
    heads: np.ndarray,
    shares: Sequence[float],
    noise: float,
    n_prompts: int,
    most: int,
    n_responses: int,
) -> None:
    if heads.ndim != 2 or heads.shape[1] != len(AXES) or not len(heads):
        raise ConfigError(f"tastes have shape {heads.shape}; expected a row for each group, of {len(AXES)} rewards")
    if len(shares) != len(heads) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"shares are {list(shares)}; {len(heads)} groups need as many, above 0, that sum to 1")
    for name, value, accepted, right in (
        ("n_users", n_users, f"at least 1 for each of {len(heads)} groups", n_users >= len(heads)),
        ("comparisons_per_user", comparisons_per_user, "at least 1", comparisons_per_user >= 1),
        ("noise", noise, "at least 0 and below 0.5", 0 <= noise < 0.5),
        ("n_prompts", n_prompts, f"2 to {most}", 2 <= n_prompts <= most),
        ("n_responses", n_responses, "4 to 64, a multiple of 4", 4 <= n_responses <= 64 and n_responses % 4 == 0),
    ):
        if not right:
            raise ConfigError(f"{name} is {value}; it must be {accepted}")
