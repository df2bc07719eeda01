"""Rewards of a task: the oracle's, one for everybody (BTL, DPL), and VPL's, which depends on a user's z.

After VPL's control experiments (arXiv 2408.10075). All are fitted to the same sets of comparisons, put on a scale that
an offline learner can use (`scale`), and laid out in one table of steps by latents (`relabel`), so that every method is
post-processed alike.

Pooled fits and latent users are those of the whole library. What control adds:

- The policy sees the *active* dimensions of z alone (mean divergence from the prior above `ACTIVE` nats over the
  training users; under a mixture, whose dimensions tell which component a user is of without moving within it, also
  those in which users vary by more than `VARIES`); the others are held at the prior's mean. A dimension that says
  nothing of the user is noise to a policy, and enough of them ruin it.
- A pool of latents, under each of which every step of the data has its reward, stands for the expectation over z. Drawn
  from the prior, as in the paper's second algorithm, no latent need be where a user is: between two kinds lies much of
  a normal prior. So it can be drawn from the training users' posteriors, or half from each.
- The reward of a step is that of the state after it.

The DPL baselines pool all pairs; the released code of VPL reads the wrong axis where a set has more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, final, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import expit
from torch import Tensor

from pluralign.control.bayes import kinds_posterior
from pluralign.control.preferences import Sets
from pluralign.control.tasks import Task
from pluralign.errors import ConfigError
from pluralign.evaluation import Predictions
from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.dpl import fit_dpl
from pluralign.inference.latent import LatentFit, fit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.inference.pooled import fit_pooled
from pluralign.likelihoods import Categorical
from pluralign.types import IntArray
from pluralign.users import Distribution, Latent, Pooled, predict_decisions
from pluralign.users.latent import Gaussians

Method = Literal["oracle", "bayes", "btl", "dpl-mean-variance", "dpl-categorical", "vpl"]
Scaling = Literal["none", "spo", "spo-released", "max-norm", "batch-norm"]
Pool = Literal["prior", "posterior", "both"]

METHODS: tuple[Method, ...] = get_args(Method)
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
POOLS: tuple[Pool, ...] = get_args(Pool)
ACTIVE = 0.02  # nats
VARIES = 0.02  # variance over users of the posterior mean
_STEP = 0.5  # of the grid on which win rates are tabulated: an error of h^4 / 384 max |s''''| = 2e-5
_BLOCK = 2**20
_PASSES = 100  # over the comparisons, in a fit of DPL: labels without noise let it creep on for hundreds


@runtime_checkable
class Reward(Protocol):
    """A reward of a task, conditioned on what is known of the user."""

    @property
    def name(self) -> str:
        """Which method it is of."""

    @property
    def latent_dim(self) -> int:
        """Width of the z that a policy sees: 0 where there is one reward for everybody."""

    def sees(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n dim"]:
        """What `reward` reads of an observation: the task's features; the oracle reads the observation itself."""

    def draw(self, n: int, *, seed: int) -> Float[ndarray, "draws latent"]:
        """A pool of latents, (n, latent_dim); a single empty one where there is one reward for everybody."""

    def place(self, sets: Sets) -> Float[ndarray, "users latent"]:
        """The z of every user, from their comparisons: the posterior mean. The oracle knows the user's kind."""

    def unknown(self) -> Float[ndarray, " latent"]:
        """The z of a user of whom nothing is known."""

    def reward(
        self, seen: Float[ndarray, "items dim"], z: Float[ndarray, "draws latent"]
    ) -> Float[ndarray, "items draws"]:
        """Reward of every item under every z."""

    def predict(self, sets: Sets, z: Float[ndarray, "users latent"]) -> Predictions:
        """Predictions of the comparisons of users who have these z."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Oracle:
    """The true reward, and the kind of every user: z is what the task's `goals` say of a kind.

    Its predictions are right or wrong; their probabilities are those of a logit that true users do not follow.

    Attributes:
        task: Whose rewards.
        told: Whether it is told the kind of every user. If not, it takes the most probable one after the user's
            comparisons, all kinds being known: what those comparisons can say at best.
    """

    task: Task
    told: bool = True

    @property
    def name(self) -> str:
        return "oracle" if self.told else "bayes"

    @property
    def latent_dim(self) -> int:
        return int(self.task.goals().shape[1])

    def sees(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n observation"]:
        return observation

    def draw(self, n: int, *, seed: int) -> Float[ndarray, "draws latent"]:
        """Every kind as often as every other, to within one, in random order."""
        return self.task.goals()[np.random.default_rng(seed).permutation(np.arange(n) % len(self.task.users))]

    def place(self, sets: Sets) -> Float[ndarray, "users latent"]:
        kind = sets.kind if self.told else kinds_posterior(self.task, sets).probability.argmax(1)
        return self.task.goals()[kind]

    def unknown(self) -> Float[ndarray, " latent"]:
        return self.task.goals().mean(0)

    def reward(
        self, seen: Float[ndarray, "items dim"], z: Float[ndarray, "draws latent"]
    ) -> Float[ndarray, "items draws"]:
        """Rewards of the kind whose goal is nearest to z."""
        return self.task.rewards(seen)[self._kind(z)].T

    def predict(self, sets: Sets, z: Float[ndarray, "users latent"]) -> Predictions:
        table = sets.comparisons
        reward = self.task.rewards(np.asarray(table.items.attributes))
        kind = self._kind(z)[table.user]
        return predict_decisions(table, reward[kind, table.chosen] - reward[kind, table.rejected])

    def _kind(self, z: Float[ndarray, "n latent"]) -> IntArray:
        away = ((z[:, None] - self.task.goals()) ** 2).sum(2)
        return np.asarray(away.argmin(1), dtype=np.int32)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Shared:
    """One reward for everybody.

    Attributes:
        model: Bradley and Terry's reward, or a distribution of reward per item.
        features: What it reads of an observation.
        sampled: Whether the reward of an item is a draw from its distribution, as VPL's code has it, or the mean.
        seed: Of those draws.
    """

    name: str
    model: Pooled | Distribution
    features: Callable[[ndarray], ndarray]
    sampled: bool = False
    seed: int = 0

    @property
    def latent_dim(self) -> int:
        return 0

    def sees(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n dim"]:
        return self.features(observation)

    def draw(self, n: int, *, seed: int) -> Float[ndarray, "draws latent"]:
        del n, seed
        return np.zeros((1, 0))

    def place(self, sets: Sets) -> Float[ndarray, "users latent"]:
        return np.zeros((sets.n_users, 0))

    def unknown(self) -> Float[ndarray, " latent"]:
        return np.zeros(0)

    def reward(
        self, seen: Float[ndarray, "items dim"], z: Float[ndarray, "draws latent"]
    ) -> Float[ndarray, "items draws"]:
        features = torch.as_tensor(seen, dtype=torch.float64)
        if self.sampled and isinstance(self.model, Distribution):
            found = self._drawn(self.model, features)
        else:
            found = self.model.reward(features, torch.full((len(seen),), -1))[0]
        return np.repeat(found.double().numpy()[:, None], len(z), axis=1)

    def predict(self, sets: Sets, z: Float[ndarray, "users latent"]) -> Predictions:
        del z
        return self.model.predict(sets.design)

    def _drawn(self, model: Distribution, features: Float[Tensor, "items dim"]) -> Float[Tensor, " items"]:
        g, outputs = torch.Generator().manual_seed(self.seed), model.outputs(features)
        likelihood = model.likelihood
        if isinstance(likelihood, Categorical):
            atom = torch.multinomial(outputs.softmax(1), 1, generator=g)[:, 0]
            return (atom.double() + 0.5) / likelihood.n_atoms
        noise = torch.randn(len(outputs), generator=g, dtype=outputs.dtype)
        return likelihood.mean(outputs) + likelihood.sd(outputs) * noise


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Personal:
    """VPL's reward r(s, z), z being the active dimensions of the latent (module docstring).

    Attributes:
        fit: The latent users fitted, with their diagnosis.
        active: Dimensions that carry more than `ACTIVE` nats, (latent_dim,).
        features: What it reads of an observation.
        pool: Where `draw` draws from.
    """

    fit: LatentFit
    active: IntArray
    features: Callable[[ndarray], ndarray]
    pool: Pool = "prior"
    name: str = "vpl"

    @property
    def model(self) -> Latent:
        return self.fit.model

    @property
    def latent_dim(self) -> int:
        return len(self.active)

    @property
    def words(self) -> str:
        """What the latent carries, in a sentence or two."""
        kl = ", ".join(f"{each:.2f}" for each in self.fit.diagnosis.kl)
        seen = f"the policy sees {self.latent_dim} of {self.model.latent_dim} dimensions (KL {kl} nats)"
        return f"{seen}; {self.fit.diagnosis.words}"

    def sees(self, observation: Float[ndarray, "n observation"]) -> Float[ndarray, "n dim"]:
        return self.features(observation)

    def draw(self, n: int, *, seed: int) -> Float[ndarray, "draws latent"]:
        """Draws from the prior, from the posteriors of training users drawn at random, or half from each."""
        if not self.latent_dim:
            return np.zeros((1, 0))
        rng = np.random.default_rng(seed)
        prior, posterior = self.model.prior, self.model.posterior
        if self.pool == "both":
            halves = self._drawn(prior, n // 2, rng), self._drawn(posterior, n - n // 2, rng)
            return np.concatenate(halves)
        return self._drawn(prior if self.pool == "prior" else posterior, n, rng)

    def _drawn(self, users: Gaussians, n: int, rng: np.random.Generator) -> Float[ndarray, "draws latent"]:
        user = rng.integers(0, len(users.mean), n)
        chance = users.log_weight.softmax(1).double().numpy()[user]
        part = (chance.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=chance.shape[1] - 1)
        mean = users.mean.double().numpy()[user, part][:, self.active]
        sd = np.exp(users.log_variance.double().numpy()[user, part][:, self.active] / 2)
        return mean + sd * rng.standard_normal((n, self.latent_dim))

    def users(self, sets: Sets) -> Latent:
        """The model whose users are those of the sets, placed by their comparisons."""
        placed = adapt(self.model, _design(sets))
        assert isinstance(placed, Latent)
        return placed

    def place(self, sets: Sets) -> Float[ndarray, "users latent"]:
        return self.centers(self.users(sets))

    def centers(self, placed: Latent) -> Float[ndarray, "users latent"]:
        """The z of a model's users: the active dimensions of their posterior means."""
        return placed.posterior.center.double().numpy()[:, self.active]

    def unknown(self) -> Float[ndarray, " latent"]:
        return self.model.prior.center.double().numpy()[0, self.active]

    def reward(
        self, seen: Float[ndarray, "items dim"], z: Float[ndarray, "draws latent"]
    ) -> Float[ndarray, "items draws"]:
        features = torch.as_tensor(seen).to(self.model.theta)
        return self.model.reward_at(features, self._whole(z)).double().numpy()

    def predict(self, sets: Sets, z: Float[ndarray, "users latent"]) -> Predictions:
        whole = self._whole(z)
        n_components = self.model.prior_log_weight.numel()
        mean = whole[:, None].expand(-1, n_components, -1)
        log_weight = whole.new_full((len(z), n_components), -float(np.log(n_components)))
        users = Gaussians(log_weight, mean, torch.full_like(mean, -torch.inf))
        return self.model.with_posterior(users).predict(_design(sets), draws=0)

    def _whole(self, z: Float[ndarray, "n latent"]) -> Float[Tensor, "n whole"]:
        """All dimensions, the inactive ones at the prior's mean."""
        whole = self.model.prior.center.repeat(len(z), 1)
        whole[:, torch.as_tensor(self.active, dtype=torch.int64)] = torch.as_tensor(z).to(whole)
        return whole


def control_settings(*, seed: int = 0) -> LatentSettings:
    """Settings of a latent fit to thousands of users with a few noise-free comparisons each.

    The decoder has to find by itself what users differ in, as in the paper, which takes some hundred steps in which
    nothing is seen to improve: so it is not stopped early, and the best look is taken. The prior is learned, so that a
    pool drawn from it lies where users do. Labels without noise have no best size of reward: it grows for as long as
    training goes on, and every scaling but "none" takes it out.
    """
    return LatentSettings(
        latent_dim=4,
        prior="diagonal",
        guided=False,
        width=64,
        hidden=64,
        kl_weight=0.1,
        learning_rate=5e-3,
        steps=1000,
        every=200,
        patience=5,
        users=256,
        held_out=0.1,
        refit=False,
        seed=seed,
    )


def fit_reward(
    method: str,
    task: Task,
    sets: Sets,
    *,
    settings: LatentSettings | None = None,
    ridge: float | None = None,
    sampled: bool = False,
    pool: Pool = "prior",
    seed: int = 0,
) -> Reward:
    """Fit one of `METHODS`.

    Args:
        method: Its name.
        task: Whose features; the oracle takes its true rewards too.
        sets: Comparisons to fit.
        settings: Of VPL; None means `control_settings`, with this seed.
        ridge: Of BTL and DPL; None chooses it by cross-validation.
        sampled: Whether a DPL reward is a draw from its distribution, as in VPL's code, or its mean.
        pool: Where VPL's pool of latents comes from.
        seed: Of everything random.

    Raises:
        ConfigError: A method that is not known.
    """
    if method in ("oracle", "bayes"):
        return Oracle(task=task, told=method == "oracle")
    if method == "btl":
        return Shared(name=method, model=fit_pooled(sets.design, ridge=ridge)[0], features=task.features)
    if method in ("dpl-mean-variance", "dpl-categorical"):
        model = fit_dpl(sets.design, method.removeprefix("dpl-"), ridge=ridge, seed=seed, max_passes=_PASSES)[0]
        return Shared(name=method, model=model, features=task.features, sampled=sampled, seed=seed)
    if method == "vpl":
        fit = fit_latent(_design(sets), settings or control_settings(seed=seed))
        told = np.asarray(fit.diagnosis.kl) > ACTIVE
        if fit.model.prior_log_weight.numel() > 1:
            told |= np.asarray(fit.diagnosis.variance) > VARIES
        active = np.flatnonzero(told).astype(np.int32)
        return Personal(fit=fit, active=active, features=task.features, pool=pool)
    raise ConfigError(f'unknown method "{method}"; known: {", ".join(METHODS)}')


def scale(
    reward: Float[ndarray, "items draws"],
    comparators: Float[ndarray, "comparators draws"],
    how: str,
    *,
    centred: bool = True,
) -> Float[ndarray, "items draws"]:
    """Put rewards on a scale that an offline learner can use, in float32.

    A reward fitted to comparisons is known up to a constant f(z) for every z, which "none" and "batch-norm" keep:

    - "none": as fitted.
    - "spo": the chance of beating a random comparator under the same z, in (0, 1).
    - "spo-released": exp of that, in (1, e), as the released code has it.
    - "max-norm": divided by the largest absolute reward under any z.
    - "batch-norm": divided by the comparators' mean under the same z, which may be of either sign and near 0: rewards
      then turn round or explode for some z (`batch_norm_denominators`). This is the paper's, not a remedy.

    Args:
        reward: Of the items, under every z.
        comparators: Rewards of the items to compare with, under the same z.
        how: One of `SCALINGS`.
        centred: Subtract the comparators' mean under the same z, after scaling; under "max-norm" before it, so that
            f(z) has no say in it. Where no episode ends early that changes nothing but how far a value function has to
            climb. For "spo" it subtracts 1/2.

    Raises:
        ConfigError: A scaling that is not known, or no comparator.
    """
    if how not in SCALINGS:
        raise ConfigError(f'unknown scaling "{how}"; known: {", ".join(SCALINGS)}')
    if not len(comparators):
        raise ConfigError("there are no comparators; there must be at least one")
    middle = comparators.mean(0) if centred else np.zeros(reward.shape[1])
    if how == "none":
        found = reward - middle
    elif how == "max-norm":
        largest = max(np.abs(reward - middle).max(initial=0), np.abs(comparators - middle).max())
        found = (reward - middle) / (largest or 1.0)
    elif how == "batch-norm":
        found = reward / comparators.mean(0) - centred
    else:
        found = np.empty(reward.shape, dtype=np.float32)
        for draw, (one, other) in enumerate(zip(reward.T, comparators.T, strict=True)):
            if how == "spo":
                found[:, draw] = win_rate(one, other) - centred / 2
            else:
                found[:, draw] = np.exp(win_rate(one, other)) - centred * np.exp(win_rate(other, other)).mean()
    return np.asarray(found, dtype=np.float32)


def batch_norm_denominators(comparators: Float[ndarray, "comparators draws"]) -> Float[ndarray, " draws"]:
    """What "batch-norm" divides by under each z; where signs differ, it turns the reward round for some."""
    return np.asarray(comparators.mean(0), dtype=np.float64)


def win_rate(reward: Float[ndarray, " items"], comparators: Float[ndarray, " comparators"]) -> Float[ndarray, " items"]:
    """Mean over the comparators of sigmoid(r(item) - r(comparator)), to within 3e-5.

    It depends on an item's reward alone, so it is tabulated with its slope on a grid, where that has fewer points than
    there are items, and interpolated by cubics.
    """
    points = 2 + np.ptp(reward) / _STEP if len(reward) else np.inf
    if not points < len(reward):
        return _rates(reward, comparators)[0]
    grid = np.linspace(reward.min(), reward.max(), int(np.ceil(points)))
    return np.asarray(CubicHermiteSpline(grid, *_rates(grid, comparators))(reward), dtype=np.float64)


def _rates(at: ndarray, comparators: ndarray) -> tuple[ndarray, ndarray]:
    """The mean of sigmoids, and its slope."""
    step = max(1, _BLOCK // len(comparators))
    rate, slope = np.empty(len(at)), np.empty(len(at))
    for first in range(0, len(at), step):
        here = slice(first, first + step)
        each = expit(at[here, None] - comparators)
        rate[here], slope[here] = each.mean(1), (each * (1 - each)).mean(1)
    return rate, slope


@dataclass(frozen=True, eq=False, kw_only=True)
class RewardTable:
    """Rewards of all steps of the data under every latent of a pool.

    Attributes:
        z: The pool, (draws, latent_dim), float32.
        value: Reward of every step, (steps, draws), float32.
    """

    z: Float[ndarray, "draws latent"]
    value: Float[ndarray, "steps draws"]


def relabel(
    fitted: Reward,
    observation: Float[ndarray, "steps observation"],
    *,
    scaling: str = "spo",
    draws: int = 128,
    seed: int,
    comparators: int = 1000,
    centred: bool = True,
) -> RewardTable:
    """Reward of every step under every latent of a pool.

    Args:
        fitted: The reward.
        observation: After every step (`Offline.after`); comparators are drawn from them too.
        scaling: As in `scale`.
        draws: Size of the pool.
        seed: Of pool and comparators.
        comparators: How many to draw, once for all latents.
        centred: As in `scale`.

    Raises:
        ConfigError: No step, no draw, no comparator, or a scaling that is not known.
    """
    if not len(observation) or draws < 1 or comparators < 1:
        raise ConfigError(
            f"there are {len(observation)} steps, {draws} draws and {comparators} comparators; each must be at least 1"
        )
    z = fitted.draw(draws, seed=seed)
    some = np.random.default_rng(seed).integers(0, len(observation), comparators)
    reward = fitted.reward(fitted.sees(observation), z)
    value = scale(reward, reward[some], scaling, centred=centred)
    return RewardTable(z=z.astype(np.float32), value=value)


def _design(sets: Sets) -> Design:
    """Comparisons on float32 features: nets train twice as fast."""
    return Design.of(sets.comparisons, torch.as_tensor(sets.features, dtype=torch.float32))
