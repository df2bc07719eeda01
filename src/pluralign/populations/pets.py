"""Pets: two kinds of users who agree on the extremes and oppose on the pair between them.

The design of VPL's smallest text example (arXiv 2408.10075): a hundred sentences about each of four animals, of which
20 are kept for the test; everybody likes birds best and rabbits least, one kind of users likes dogs better than cats,
the other cats better than dogs. Half of each user's comparisons are of the divergent pair, dog and cat, the others of
the five pairs on which all agree. Nobody ever errs. The sentences are our own: ten facts about each animal, each said
in ten ways; a test sentence tells a fact that no training sentence tells.

A model that does not know the user is right on half of the divergent rows at best (with as many users of either kind):
75 % in all. The released code trains on up to four extra copies of the divergent rows, and scores the user-blind
baselines, not VPL, on copied test rows as well, where their ceiling is 58 %. Here `upsampled` gives the divergent rows
a weight and no copies, which would be taken for independent rows, and all models are scored on the same table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pluralign.comparisons import Comparisons, from_columns
from pluralign.errors import ConfigError
from pluralign.types import BoolArray, FloatArray, IntArray

PROMPT = "Say something about an animal that people keep."
TRAIN, TEST = "train", "test"
COPIES = 5  # of a divergent row in the up-sampled table, the row itself among them

_WAYS = (
    "Consider the {animal}: {fact}.",
    "If you keep a {animal}, you will notice that {fact}.",
    "Many people with a {animal} say that {fact}.",
    "The {animal} is a fine companion, for {fact}.",
    "Here is something about a {animal}: {fact}.",
    "Those who live with a {animal} know that {fact}.",
    "With a {animal} at home, expect that {fact}.",
    "A friend with a {animal} told me that {fact}.",
    "What I remember of our {animal} is that {fact}.",
    "Anyone who gets a {animal} soon learns that {fact}.",
)
_FACTS = {
    "bird": (
        "feathers end up on the window sill",
        "song fills the kitchen at sunrise",
        "seeds are cracked with great patience",
        "wings are stretched after every nap",
        "a perch by the window is loved above all",
        "whistled tunes are answered at once",
        "a small bath makes a big splash",
        "new voices are copied within weeks",
        "the cage door is best left open by day",
        "one leg is tucked away for sleeping",
    ),
    "dog": (
        "the lead by the door means joy",
        "a thrown stick comes back every time",
        "muddy paws cross the hall after rain",
        "the tail tells you the mood from afar",
        "strangers at the gate are announced loudly",
        "long walks are asked for in any weather",
        "old slippers get chewed in secret",
        "a good trainer needs treats and calm",
        "the back seat of the car is a throne",
        "you are met at the door like a hero",
    ),
    "cat": (
        "purring starts when the book is opened",
        "cardboard boxes beat any bought bed",
        "whiskers measure every gap in the fence",
        "the warmest spot of the sofa is taken",
        "claws are sharpened on the post, mostly",
        "midnight is for racing down the stairs",
        "a sunbeam is followed across the floor",
        "glasses are pushed off the table slowly",
        "affection is given on its own terms",
        "the litter tray must be kept spotless",
    ),
    "rabbit": (
        "carrot tops vanish in a minute",
        "long ears turn towards each sound",
        "hay has to be fresh every day",
        "cables must be hidden from the teeth",
        "a happy leap twists in the air",
        "the hutch needs a dry floor",
        "soft digging goes on under the hedge",
        "a thump of the hind foot is a warning",
        "two of them groom each other for hours",
        "the nose never stops twitching",
    ),
}
ANIMALS = tuple(_FACTS)
# What each kind of users likes, best first.
ORDERS = (("bird", "dog", "cat", "rabbit"), ("bird", "cat", "dog", "rabbit"))
DIVERGENT = frozenset({"dog", "cat"})
# Pairs (better, worse): those on which all agree, and the divergent one as each kind of users has it.
_PAIRS = (
    tuple((a, b) for i, a in enumerate(ORDERS[0]) for b in ORDERS[0][i + 1 :] if {a, b} != DIVERGENT),
    tuple(order[1:3] for order in ORDERS),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pets:
    """The comparisons and their truth.

    Attributes:
        comparisons: Rows of either split, named in `split`.
        kind: Which of `ORDERS` each user has, (users,).
        animal: Which of `ANIMALS` each item is about, (items,).
        divergent: Whether a row is of the pair on which the kinds oppose, (rows,).
    """

    comparisons: Comparisons
    kind: IntArray
    animal: IntArray
    divergent: BoolArray

    @property
    def features(self) -> FloatArray:
        """What the true rewards are linear in: one indicator per animal, (items, 4)."""
        return np.eye(len(ANIMALS))[self.animal]

    def rows(self, split: str, *, divergent: bool | None = None) -> IntArray:
        """Row numbers of a split, for `Comparisons.take`: all of them, the divergent ones or the others.

        Raises:
            ConfigError: A split that is neither "train" nor "test".
        """
        if split not in (TRAIN, TEST):
            raise ConfigError(f'unknown split "{split}"; known: test, train')
        wanted = self.comparisons.split == split
        if divergent is not None:
            wanted &= self.divergent == divergent
        return np.flatnonzero(wanted).astype(np.int32)

    def upsampled(self, copies: int = COPIES) -> Pets:
        """The same rows, a divergent one counting as so many (5 in the released code's "full" data)."""
        if copies < 1:
            raise ConfigError(f"copies is {copies}; it must be at least 1")
        return replace(self, comparisons=replace(self.comparisons, weight=np.where(self.divergent, float(copies), 1.0)))

    def ceiling(self, split: str = TEST) -> float:
        """The largest accuracy of a model that does not know the user: the majority's answer for each pair of animals.

        It counts rows by their weight, and knows the majority of the very rows it is scored on.
        """
        at = self.rows(split)
        table = self.comparisons
        weight = np.ones(len(at)) if table.weight is None else table.weight[at]
        won = np.zeros((len(ANIMALS), len(ANIMALS)))
        np.add.at(won, (self.animal[table.chosen[at]], self.animal[table.rejected[at]]), weight)
        return float(np.triu(np.maximum(won, won.T)).sum() / weight.sum())

    def truth(self) -> dict[str, object]:
        """Plain values: the ceilings of user-blind models on the test rows, plain and up-sampled, and who is what."""
        plain = replace(self, comparisons=replace(self.comparisons, weight=None))
        return {
            "oracle_accuracy": 1.0,
            "ceiling_user_blind": plain.ceiling(),
            "ceiling_user_blind_upsampled": plain.upsampled().ceiling(),
            "users": [
                {"user": user, "order": list(ORDERS[kind])}
                for user, kind in zip(self.comparisons.user_ids, self.kind, strict=True)
            ],
        }


def simulate_pets(
    *,
    n_users: int = 2,
    train_per_user: int = 2000,
    test_per_user: int = 200,
    divergent: float = 0.5,
    seed: int = 0,
) -> Pets:
    """Make the population; the defaults are the paper's sizes.

    Args:
        n_users: Users, half of either kind.
        train_per_user: Training rows of every user, of training sentences.
        test_per_user: Test rows of every user, of test sentences.
        divergent: Share of every user's rows, in either split, that compare a dog with a cat: exact to the nearest row.
        seed: Of the split of the sentences and of the draws.

    Raises:
        ConfigError: A number out of range.
    """
    if n_users < 2 or n_users % 2:
        raise ConfigError(f"n_users is {n_users}; it must be even and at least 2, half for either kind")
    if min(train_per_user, test_per_user) < 1 or not 0 <= divergent <= 1:
        raise ConfigError(
            f"train_per_user is {train_per_user}, test_per_user {test_per_user} and divergent {divergent}; "
            "rows must be at least 1 and divergent a share from 0 to 1"
        )
    rng = np.random.default_rng(seed)
    # Sentences by animal, fact and way; two of ten facts are the test's.
    said_of = [[way.format(animal=name, fact=fact) for fact in _FACTS[name] for way in _WAYS] for name in ANIMALS]
    texts = np.array(said_of)
    fact = rng.random((len(ANIMALS), 10)).argsort(axis=1)
    pool = {split: _sentences(fact[:, part]) for split, part in ((TRAIN, slice(2, None)), (TEST, slice(0, 2)))}
    kind = np.arange(n_users, dtype=np.int32) % 2
    agreed, opposed = (np.array([[ANIMALS.index(name) for name in pair] for pair in pairs]) for pairs in _PAIRS)
    drawn = []
    for split, n in ((TRAIN, train_per_user), (TEST, test_per_user)):
        apart = np.argsort(rng.random((n_users, n)), axis=1) < round(divergent * n)
        pair = np.where(apart[..., None], opposed[kind][:, None], agreed[rng.integers(0, len(agreed), (n_users, n))])
        said = pool[split][pair, rng.integers(0, pool[split].shape[1], pair.shape)]
        drawn.append((texts[pair, said].reshape(-1, 2), np.repeat(np.arange(n_users), n), apart.ravel()))
    sentence, user, apart = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    alphabetical = np.sort(sentence, axis=1)
    table = from_columns(
        prompt=[PROMPT] * len(user),
        chosen=sentence[:, 0].tolist(),
        rejected=sentence[:, 1].tolist(),
        user=[f"user {i}" for i in user],
        source=[" / ".join(pair) for pair in alphabetical.tolist()],
        split=np.repeat([TRAIN, TEST], [n_users * train_per_user, n_users * test_per_user]),
        name="pets",
    )
    about = {text: i for i, own in enumerate(said_of) for text in own}
    return Pets(
        comparisons=table,
        kind=kind,
        animal=np.array([about[text] for text in table.items.response.to_pylist()], dtype=np.int32),
        divergent=apart,
    )


def _sentences(fact: np.ndarray) -> np.ndarray:
    """Numbers of the sentences that tell these facts, (animals, sentences), of facts (animals, facts)."""
    ways = len(_WAYS)
    return (fact[..., None] * ways + np.arange(ways)).reshape(len(fact), -1)
