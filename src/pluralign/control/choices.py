"""Tasks of one step: users who want things in different places, and a robot that puts each where its user wants it.

The two tasks of VPL (arXiv 2408.10075, B.1) on Habitat are choices: the simulator only moves what has been decided. So
here they are choices alone, without scenes that need a licence. An observation is a row of ones and zeros that says
which option it is, and whoever gives a reward of every option is judged by what it likes best.

`Rearrange`: one thing, five places, and each kind of user has an ordering of them. `Tidy`: five objects that are of
metal or plastic, for the table or for cooking; one kind of user sorts by material, the other by function, and on some
objects both come to the same place. The paper gives two lists of objects, which differ; these are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from pluralign.control.preferences import Sets, draw_sets
from pluralign.errors import ConfigError
from pluralign.inference.latent_elbo import LatentSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACES: Final = ("desk", "bedroom", "dining table", "coffee table", "sofa")
_SPOTS: Final = ((0.8, 2.7), (3.4, 2.7), (5.2, 0.8), (2.2, 0.9), (0.7, 0.9))  # of the places, in the drawing
_AGREED: Final = ("metal fork", "plastic spatula", "metal spoon", "plastic colander", "metal knife")
_DISPUTED: Final = ("metal pan", "plastic cup", "metal pot", "plastic plate", "metal wok")
_FOR_TABLE: Final = ("fork", "spoon", "knife", "cup", "plate")
SHELVES: Final = ("left shelf", "right shelf")
_SAME: Final = 1e-9  # rewards nearer than this are a tie


def choice_settings(*, n_kinds: int = 5, seed: int = 0) -> LatentSettings:
    """Settings of latent users of these tasks.

    An encoder that has to find everything by itself: orderings are no low-rank normal distribution around a mean, where
    a guided one begins. Those for few kinds come within .04 of the exact posterior in seconds; those for many, wider
    and longer, too (a hundred kinds, 16 answers), in ten minutes. What is held out to stop early is little and is not
    fitted again.

    Args:
        n_kinds: Kinds of users that there may be, roughly.
        seed: Of everything random.
    """
    few = n_kinds <= 20
    return LatentSettings(
        latent_dim=4 if few else 8,
        kl_weight=0.05 if few else 0.02,
        guided=False,
        hidden=32 if few else 96,
        draws=2,
        users=128 if few else 256,
        learning_rate=5e-3 if few else 4e-3,
        steps=500 if few else 1600,
        every=100 if few else 300,
        held_out=0.1,
        refit=False,
        seed=seed,
    )


class _Choices:
    """What both tasks share: a finite list of options, of which one is taken from each group."""

    name: str
    users: tuple[str, ...]
    value: Float[ndarray, "users options"]
    """True reward of every option."""
    groups: Int[ndarray, "choices alternatives"]
    """Options among which each choice is made."""

    @cached_property
    def observations(self) -> Float[ndarray, "options options"]:
        """Every option there is, (options, options)."""
        return np.eye(self.value.shape[1])

    @cached_property
    def questions(self) -> Int[ndarray, "questions 2"]:
        """Pairs of options that are alternatives of each other."""
        first, second = np.triu_indices(self.groups.shape[1], 1)
        return np.stack([self.groups[:, first], self.groups[:, second]], axis=2).reshape(-1, 2)

    @cached_property
    def right(self) -> Float[ndarray, "users options"]:
        """1 where an option is what a kind of user likes best of its group, shared out among ties."""
        return _taken(self.value, self.groups)

    def features(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n dim"]:
        """Which option it is."""
        return observation

    def rewards(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "users n"]:
        """As in `Task.rewards`."""
        return self.value @ observation.T

    def goals(self) -> Float[ndarray, "users goal"]:
        """Rewards of all options, centred: there is nothing shorter that says what an ordering wants."""
        return 2 * self.value - 1

    def draw(
        self,
        n_users: int,
        n_pairs: int,
        *,
        kind: np.ndarray | None = None,
        shares: np.ndarray | None = None,
        seed: int,
    ) -> Sets:
        """Draw users who were asked about alternatives, as `draw_sets` does."""
        return draw_sets(
            self,
            self.observations,
            n_users=n_users,
            n_pairs=n_pairs,
            kind=kind,
            shares=shares,
            questions=self.questions,
            seed=seed,
        )

    def choose(self, reward: Float[ndarray, "options users"], kind: Int[ndarray, " users"]) -> Float[ndarray, " users"]:
        """Success of taking what has the largest reward: the share of a user's choices that are right.

        Args:
            reward: Of every option for every user, (options, users). A tie is broken at random, and counts so.
            kind: What each user really wants, (users,).
        """
        taken = _taken(reward.T, self.groups)
        # Where a kind likes two options best, either is right.
        return (taken * (self.right[kind] > 0)).sum(1) / len(self.groups)


def _taken(value: Float[ndarray, "users options"], groups: Int[ndarray, "choices alternatives"]) -> ndarray:
    """Probability of every option when the best of each group is taken, (users, options)."""
    within = value[:, groups]  # (users, choices, alternatives)
    best = within >= within.max(2, keepdims=True) - _SAME
    taken = np.zeros(value.shape)
    taken[:, groups] = best / best.sum(2, keepdims=True)
    return taken


@dataclass(frozen=True, kw_only=True, eq=False)
class Rearrange(_Choices):
    """Put a thing in one of several places, each kind of user having an ordering of them, drawn at random.

    Attributes:
        n_users: Kinds of users, with different orderings.
        n_places: Places.
        seed: Of the orderings.
    """

    n_users: int = 5
    n_places: int = 5
    seed: int = 0
    name: str = field(default="rearrange", init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.n_places <= len(PLACES):
            raise ConfigError(f"n_places is {self.n_places}; there are 2 to {len(PLACES)}")
        if not 1 <= self.n_users <= self.n_orderings:
            raise ConfigError(
                f"n_users is {self.n_users}; {self.n_places} places have {self.n_orderings} orderings, one per kind"
            )

    @property
    def n_orderings(self) -> int:
        """Orderings that there are."""
        return int(np.prod(np.arange(1, self.n_places + 1)))

    @cached_property
    def order(self) -> Int[ndarray, "users places"]:
        """Places from the best to the worst, for each kind."""
        rng = np.random.default_rng(self.seed)
        found: dict[tuple[int, ...], None] = {}
        while len(found) < self.n_users:
            found[tuple(rng.permutation(self.n_places).tolist())] = None
        return np.array(list(found))

    @cached_property
    def users(self) -> tuple[str, ...]:  # type: ignore[override]
        """What each kind wants, in words."""
        return tuple(" > ".join(PLACES[place] for place in row) for row in self.order)

    @cached_property
    def value(self) -> Float[ndarray, "users options"]:  # type: ignore[override]
        """1 for the first place to 0 for the last, in equal steps."""
        return 1 - np.argsort(self.order, axis=1) / (self.n_places - 1)

    @cached_property
    def groups(self) -> Int[ndarray, "choices alternatives"]:  # type: ignore[override]
        """One choice, among all places."""
        return np.arange(self.n_places)[None]

    def shares(self, majority: float) -> Float[ndarray, " users"]:
        """Probabilities of the kinds when the first of them is a majority and the others share the rest equally."""
        return _shares(majority, self.n_users)

    def figure(self, reward: Float[ndarray, " options"], *, title: str = "") -> Figure:
        """Draw the apartment: larger dots have a larger reward, and the arrow goes to the best place."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.4, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 6, 6, 0, 0], [0, 0, 3.4, 3.4, 0], color="0.3")
        axes.plot([0, 2.2], [1.9, 1.9], color="0.3")
        axes.plot([4.2, 4.2, 3.0], [3.4, 1.9, 1.9], color="0.3")
        spot = np.array(_SPOTS[: self.n_places])
        size = reward - reward.min()
        size = size / (size.max() or 1.0)
        axes.scatter(spot[:, 0], spot[:, 1], s=40 + 400 * size, c=size, cmap="viridis", vmin=0, vmax=1)
        for (x, y), name in zip(spot, PLACES, strict=False):
            axes.annotate(name, (x, y - 0.42), ha="center", fontsize=8)
        best = spot[int(np.argmax(reward))]
        axes.annotate("", xy=best, xytext=(3.2, 1.7), arrowprops={"arrowstyle": "->", "lw": 2, "color": "C3"})
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.set_title(title, fontsize=8)
        return figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Tidy(_Choices):
    """Put five objects on two shelves, sorted by material or by function.

    Options are (object, shelf), object by object.

    Attributes:
        agree: Objects that both kinds of users put on the same shelf, 0 to 5.
    """

    agree: int = 3
    name: str = field(default="tidy", init=False)
    users: tuple[str, ...] = field(default=("by material", "by function"), init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.agree <= len(_AGREED):
            raise ConfigError(f"agree is {self.agree}; there are 0 to {len(_AGREED)} objects to agree on")

    @property
    def objects(self) -> tuple[str, ...]:
        """What is to be tidied up, those first on which users agree."""
        return _AGREED[: self.agree] + _DISPUTED[: len(_AGREED) - self.agree]

    @cached_property
    def shelf(self) -> Int[ndarray, "users objects"]:
        """Where each kind puts each object: metal, or what is for the table, on the left."""
        material, use = zip(*(name.split() for name in self.objects), strict=True)
        return np.array([[m != "metal" for m in material], [u not in _FOR_TABLE for u in use]]).astype(np.int64)

    @cached_property
    def value(self) -> Float[ndarray, "users options"]:  # type: ignore[override]
        """1 for the right shelf, else 0."""
        return np.eye(len(SHELVES))[self.shelf].reshape(len(self.users), -1)

    @cached_property
    def groups(self) -> Int[ndarray, "choices alternatives"]:  # type: ignore[override]
        """The two shelves, for each object."""
        return np.arange(len(self.objects) * len(SHELVES)).reshape(-1, len(SHELVES))

    def features(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n dim"]:
        """Which shelf, and which object on which shelf: what an object is made of is for the rewards to find out."""
        shelf = observation.reshape(len(observation), -1, len(SHELVES)).sum(1)
        return np.concatenate([shelf, observation], axis=1)

    def shares(self, majority: float) -> Float[ndarray, " users"]:
        """Probabilities of the kinds when those who sort by material are so many."""
        return _shares(majority, 2)

    def figure(self, reward: Float[ndarray, " options"], *, title: str = "") -> Figure:
        """Draw the two shelves with every object on the one that has the larger reward."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.4, 3), layout="constrained")
        axes = figure.add_subplot()
        put = reward[self.groups].argmax(1)
        for shelf, name in enumerate(SHELVES):
            axes.plot([shelf * 1.2, shelf * 1.2 + 1], [0, 0], color="0.3", lw=4)
            axes.annotate(name, (shelf * 1.2 + 0.5, -0.45), ha="center")
            for level, item in enumerate(np.flatnonzero(put == shelf)):
                metal = self.objects[item].startswith("metal")
                box = {"boxstyle": "round", "facecolor": "0.85" if metal else "moccasin"}
                x, y = shelf * 1.2 + 0.5, 0.5 + level * 0.8
                axes.text(x, y, self.objects[item], bbox=box, ha="center", va="center", fontsize=9)
        axes.set(xlim=(-0.1, 2.3), ylim=(-0.8, 4.6), xticks=[], yticks=[])
        axes.set_title(title, fontsize=8)
        return figure


def _shares(majority: float, n: int) -> Float[ndarray, " users"]:
    if not 0 <= majority <= 1 or (n == 1 and majority != 1):
        raise ConfigError(f"majority is {majority}; it is the first kind's share, from 0 to 1, and 1 where it is alone")
    return np.array([majority] + [(1 - majority) / (n - 1)] * (n - 1))
