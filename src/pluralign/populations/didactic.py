"""VPL's example in one dimension: users with one of four Gaussian rewards (arXiv 2408.10075, its didactic figure).

Every user wants x near one of four places and says which of two random x is better, by a logit of the rewards. One
reward for everybody averages the four; a distribution of reward shows at best where they differ; a model of users can
recover them. The features are Gaussian bumps of the modes' own width, at places that include the modes', so that every
true reward is linear in the features and what a method misses is its own doing.

The paper prints neither places, widths nor counts: those here are ours, and they matter. With modes at 0.3, 0.4, 0.6,
0.7 the spread that DPL's mean-variance model learns from endless data follows the users' (correlation 0.98 over x);
with modes at 0.15, 0.4, 0.6 and 0.85 it does not (-0.2): it supposes that an item's reward is drawn anew in every
comparison, while a user's two rewards go together. At a few thousand comparisons there is hardly a spread to be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pluralign.comparisons import from_attributes
from pluralign.errors import ConfigError, DataError
from pluralign.features import Design
from pluralign.populations.simulate import Population, relabel
from pluralign.populations.tastes import Tastes, exact_sizes
from pluralign.types import FloatArray, IntArray
from pluralign.users import UserModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODES = (0.3, 0.4, 0.6, 0.7)
WIDTH = 0.1
_N_ITEMS = 101
_PLACES = np.linspace(0, 1, 21)


@dataclass(frozen=True, eq=False, kw_only=True)
class Didactic:
    """The example and its truth.

    Attributes:
        population: Comparisons, features and true tastes; `population.tastes.cluster` is the mode of every user.
        x: The item's place in [0, 1], (items,).
        rewards: True reward of every item in every mode, (modes, items).
        shares: Share of the users in each mode, (modes,).
    """

    population: Population
    x: FloatArray
    rewards: FloatArray
    shares: FloatArray

    @property
    def design(self) -> Design:
        """All comparisons on the features."""
        return Design.of(self.population.comparisons, torch.as_tensor(self.population.features))

    @property
    def mean_reward(self) -> FloatArray:
        """Mean over users of the true rewards, (items,): what one reward for everybody is said to learn."""
        return self.shares @ self.rewards

    @property
    def mean_spread(self) -> FloatArray:
        """Standard deviation over users of the true rewards, (items,)."""
        return np.sqrt(self.shares @ (self.rewards - self.mean_reward) ** 2)

    @property
    def endless(self) -> Design:
        """Every pair of items once, with the share of the population that prefers the first as its soft label.

        What a user-blind model learns from it, at no more than a trace of a ridge, is its limit as comparisons grow.
        Bradley-Terry's is near the mean reward where rewards are small, and flatter where they are large: the logit of
        a mean probability is not the mean of logits.
        """
        first, second = np.triu_indices(len(self.x), 1)
        margin = self.rewards[:, first] - self.rewards[:, second]
        table = from_attributes(
            attributes=self.x[:, None],
            attribute_names=("x",),
            chosen=first,
            rejected=second,
            user=["everybody"] * len(first),
            outcome=self.shares @ (1 / (1 + np.exp(-margin))),
        )
        return Design.of(table, torch.as_tensor(self.population.features))

    def of_mode(self, mode: int) -> Design:
        """The comparisons of one mode's users: a pooled fit to them is the oracle's, who knows who is who."""
        design = self.design
        return design.take(torch.as_tensor(self.population.tastes.cluster == mode)[design.user])

    def user_rewards(self, model: UserModel) -> FloatArray:
        """Mean reward of every item for every user, as a fitted model has it, (users, items)."""
        n_users, features = self.population.tastes.n_users, torch.as_tensor(self.population.features)
        user = torch.arange(n_users).repeat_interleave(len(self.x))
        return model.reward(features.repeat(n_users, 1), user)[0].reshape(n_users, -1).double().numpy(force=True)

    def recovery_error(self, rewards: np.ndarray) -> FloatArray:
        """How far each user's estimated reward is from the true one, (users,): 0 is right, 1 knows nothing.

        Root mean square over items of the difference, both centred (a constant is not identified), over the standard
        deviation of the true reward over items: 1 is what a flat reward scores; it can exceed 1. The scale counts,
        for a logit identifies it.

        Args:
            rewards: Estimated reward of every item for every user, (users, items), or the same for all, (items,).
                A reward per mode goes in as `rewards[tastes.cluster]`.
        """
        return _error(np.broadcast_to(rewards, (self.population.tastes.n_users, len(self.x))), self._own)

    @property
    def _own(self) -> FloatArray:
        return self.rewards[self.population.tastes.cluster]


def simulate_didactic(
    *,
    n_users: int = 80,
    comparisons_per_user: int = 30,
    height: float = 4.0,
    shares: Sequence[float] | None = None,
    modes: Sequence[float] = MODES,
    seed: int = 0,
) -> Didactic:
    """Make the example.

    Args:
        n_users: Number of users.
        comparisons_per_user: Pairs that each is asked.
        height: Of each mode's reward above its floor, in logits.
        shares: Share of the users in each mode; None means the same. Sizes are exact, to the nearest user.
        modes: Where the modes are, in steps of 0.05 from 0 to 1.
        seed: Of users, pairs and choices.

    Raises:
        ConfigError: A mode that is not on the grid, or a number out of range.
    """
    place = [int(np.abs(_PLACES - mode).argmin()) for mode in modes]
    if not len(modes) or np.abs(_PLACES[place] - np.asarray(modes)).max() > 1e-9 or len(set(place)) < len(place):
        raise ConfigError(f"modes are {list(modes)}; they must be different multiples of 0.05 from 0 to 1")
    if n_users < len(modes) or comparisons_per_user < 1 or not height > 0:
        raise ConfigError(
            f"n_users is {n_users}, comparisons_per_user {comparisons_per_user} and height {height}; there must be a "
            f"user for each of {len(modes)} modes, a comparison, and a height above 0"
        )
    share = np.full(len(modes), 1 / len(modes)) if shares is None else np.asarray(shares, dtype=np.float64)
    if share.shape != (len(modes),) or share.min() <= 0 or abs(share.sum() - 1) > 1e-6:
        raise ConfigError(f"shares are {share.tolist()}; {len(modes)} modes need as many, above 0, that sum to 1")
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 1, _N_ITEMS)
    features = np.exp(-((x[:, None] - _PLACES) ** 2) / (2 * WIDTH**2))
    heads = height * np.eye(len(_PLACES))[place]
    sizes = exact_sizes(share.tolist(), n_users)
    mode = rng.permutation(np.repeat(np.arange(len(modes)), sizes)).astype(np.int32)
    n = n_users * comparisons_per_user
    first = rng.integers(0, _N_ITEMS, n)
    table = from_attributes(
        attributes=x[:, None],
        attribute_names=("x",),
        chosen=first,
        rejected=(first + rng.integers(1, _N_ITEMS, n)) % _N_ITEMS,
        user=[f"user {i}" for i in np.repeat(np.arange(n_users), comparisons_per_user)],
        labels=[f"x = {each:.2f}" for each in x],
        name="four Gaussian rewards",
    )
    tastes = Tastes(
        kind="clusters", heads=heads, loading=np.eye(len(modes))[mode], cluster=mode, reliability=np.ones(n_users)
    )
    names = tuple(f"bump at {each:.2f}" for each in _PLACES)
    return Didactic(
        population=relabel(table, features, tastes, feature_names=names, seed=int(rng.integers(0, 2**31))),
        x=x,
        rewards=heads @ features.T,
        shares=sizes / n_users,
    )


def match_modes(example: Didactic, rewards: np.ndarray) -> tuple[IntArray, FloatArray]:
    """Pair a model's heads with the true modes, each with one, at the least total error.

    Args:
        example: The truth.
        rewards: Reward of every item under every head, (heads, items): of a cluster, or of a point of the latent space.

    Returns:
        The head of every mode, (modes,), and its error as of `Didactic.recovery_error`, (modes,).

    Raises:
        DataError: There are fewer heads than modes.
    """
    from scipy.optimize import linear_sum_assignment

    if len(rewards) < len(example.rewards):
        raise DataError(f"{len(rewards)} heads cannot be the {len(example.rewards)} modes")
    cost = np.stack([_error(rewards, np.broadcast_to(mode, rewards.shape)) for mode in example.rewards])
    mode, head = linear_sum_assignment(cost)
    return head.astype(np.int32), cost[mode, head]


def draw_didactic(
    example: Didactic,
    *,
    blind: UserModel,
    distribution: UserModel | None = None,
    personal: UserModel | None = None,
) -> Figure:
    """Draw the figure: the true modes, one reward for everybody, its distribution, and every user's own.

    Rewards are centred, since a constant is not identified, and the distribution's, whose unit is not either, is scaled
    to the mean true reward by least squares.

    Args:
        example: The truth.
        blind: One reward for everybody, `Pooled`.
        distribution: A `Distribution`, drawn as its mean with a band of one standard deviation.
        personal: Any model of users, one thin line for each, in the colour of the user's mode.
    """
    from matplotlib.figure import Figure

    features = torch.as_tensor(example.population.features)
    nobody = torch.full((len(example.x),), -1)
    colours = [f"C{k}" for k in range(len(example.rewards))]

    def panel(axes, title: str) -> None:  # type: ignore[no-untyped-def]
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("x")
        axes.label_outer()

    panels = 2 + (distribution is not None) + (personal is not None)
    figure = Figure(figsize=(3 * panels, 2.8), layout="constrained")
    row = iter(figure.subplots(1, panels, sharey=True))
    axes = next(row)
    for reward, colour in zip(example.rewards, colours, strict=True):
        axes.plot(example.x, _centred(reward), color=colour)
    axes.set_ylabel("reward, in logits")
    panel(axes, "true modes")

    axes = next(row)
    axes.plot(example.x, _centred(example.mean_reward), color="0.6", label="mean of users")
    axes.plot(example.x, _centred(blind.reward(features, nobody)[0].numpy(force=True)), color="k", label="fitted")
    axes.legend(fontsize=8, frameon=False)
    panel(axes, "one reward for everybody")

    if distribution is not None:
        axes = next(row)
        mean, sd = (each.numpy(force=True) for each in distribution.reward(features, nobody))
        truth = _centred(example.mean_reward)
        scale = abs(float(_centred(mean) @ truth / max(float(_centred(mean) @ _centred(mean)), 1e-12)))
        axes.plot(example.x, scale * _centred(mean), color="k")
        axes.fill_between(
            example.x, scale * (_centred(mean) - sd), scale * (_centred(mean) + sd), color="0.85", linewidth=0
        )
        panel(axes, "a distribution of reward")

    if personal is not None:
        axes = next(row)
        mode = example.population.tastes.cluster
        for reward, k in zip(example.user_rewards(personal), mode, strict=True):
            axes.plot(example.x, _centred(reward), color=colours[k], linewidth=0.5, alpha=0.6)
        panel(axes, "every user's own")
    return figure


def _centred(reward: np.ndarray) -> FloatArray:
    return np.asarray(reward - reward.mean(axis=-1, keepdims=True), dtype=np.float64)


def _error(estimate: np.ndarray, truth: np.ndarray) -> FloatArray:
    away = _centred(estimate) - _centred(truth)
    return np.asarray(np.sqrt((away**2).mean(axis=-1)) / truth.std(axis=-1), dtype=np.float64)
