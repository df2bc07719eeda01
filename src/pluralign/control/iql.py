"""Offline policies that do what their user wants: implicit Q-learning conditioned on a latent z.

Kostrikov et al. (2021, arXiv 2110.06169). With data (s, a, s'), a reward r(s', z), and Q the lesser of two nets,

    V:       minimise E |tau - 1(u < 0)| u^2,  u = Q_target(s, a, z) - V(s, z)
    Q:       minimise E (r + gamma V(s', z) - Q(s, a, z))^2
    policy:  maximise E min(e^(beta u), max_weight) log pi(a | s, z)
    target:  Q_target <- Q_target + rate (Q - Q_target)

pi is a Gaussian whose standard deviation does not depend on the state; what it does is its mean, cut to [-1, 1].

No library draws z anew for every element of a minibatch, which is what VPL's expectation over z ~ p(z) (arXiv
2408.10075, Algorithm 2) asks for: here an element is a random step of the data under a random column of a
`RewardTable`. The same random reward for a whole trajectory, as published, covers z far less well.

Where this leaves the papers: all nets of a step learn from the same parameters in one backward pass, where the authors
update V, the policy and Q in turn; the four nets (two Q, V, policy) are one batched product per layer; the learning
rate of all of them, not of the policy alone, falls by a cosine. Rewards should be centred (`relabel` does it): no step
is terminal, so a constant changes no policy, but V would have to climb to constant / (1 - gamma) first.

With `shaped`, nets learn only what is still to come. Where rewards themselves rise towards the goal, as values and
learnt rewards do, V is nearly r / (1 - gamma), and on a range as wide as that the advantage of one decision is lost in
the error of the nets. Shaping by the potential r / (1 - gamma) (Ng, Harada and Russell 1999) makes a step's reward
(r(s') - r(s)) / (1 - gamma) and takes r(s) / (1 - gamma) off V and Q of a state alike: advantages, expectiles and the
best policy stay those of r itself, and no centring is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from pluralign.control.rewards import RewardTable
from pluralign.control.tasks import Offline
from pluralign.errors import CacheError, ConfigError, DataError
from pluralign.files import replacing
from pluralign.inference.gaussian_blocks import one_thread

OnStep = Callable[[int, dict[str, float]], None]
_CHUNK = 100  # minibatches drawn at once
_MIN_LOG_STD = -5.0
_LAYERS = ("weight_in", "bias_in", "weight", "bias", "weight_out", "bias_out")


@dataclass(frozen=True, kw_only=True)
class IqlSettings:
    """Sizes and rates of `train_iql`; the defaults learn a point maze with ten steps per decision.

    Attributes:
        steps: Minibatches.
        width: Units of each of the two hidden layers.
        learning_rate: Of Adam; falls to 0 by a cosine.
        batch: Elements of a minibatch.
        discount: gamma.
        expectile: tau of V: 0.5 values the data's behaviour, towards 1 the best action in the data.
        temperature: beta, per unit of advantage: 0 copies the data.
        target_rate: Of the target Q, per step.
        max_weight: Largest weight of an action.
        shaped: Whether rewards are shaped by r / (1 - gamma) of the state before (module docstring); the first step of
            an episode, before which the table has no reward, is then not learnt from.
        candidates: For half of every minibatch, an element's step is the one of so many random ones whose state before
            has the largest reward under the element's own latent, so that the few steps near what a user wants are not
            drowned; 1 draws all alike. States, not actions, are selected, so that what is learnt of a state is the
            same. The first step of an episode is left out here too.
    """

    steps: int = 20_000
    width: int = 128
    learning_rate: float = 1e-3
    batch: int = 256
    discount: float = 0.99
    expectile: float = 0.9
    temperature: float = 10.0
    target_rate: float = 0.005
    max_weight: float = 100.0
    shaped: bool = False
    candidates: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "width", "batch", "candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "max_weight"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("temperature",):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name, closed in (("discount", False), ("expectile", False), ("target_rate", True)):
            value = getattr(self, name)
            if not (0 < value < 1 or (closed and value == 1)):
                raise ConfigError(f"{name} is {value}; it must be above 0 and {'at most' if closed else 'below'} 1")


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoding:
    """What the nets see of an observation and a latent: both standardised by the data.

    Attributes:
        mean: Of the data's observations, (observation,).
        scale: Their standard deviations, 1 where they do not vary, (observation,).
        z_mean: Of the pool of latents, (latent_dim,).
        z_scale: Their standard deviations, 1 where they do not vary, (latent_dim,).
    """

    mean: Float[Tensor, " observation"]
    scale: Float[Tensor, " observation"]
    z_mean: Float[Tensor, " latent_dim"]
    z_scale: Float[Tensor, " latent_dim"]

    def observation(self, observation: Float[Tensor, "n observation"]) -> Float[Tensor, "n observation"]:
        return (observation - self.mean) / self.scale

    def z(self, z: Float[Tensor, "n latent_dim"]) -> Float[Tensor, "n latent_dim"]:
        return (z - self.z_mean) / self.z_scale


@dataclass(frozen=True, eq=False, kw_only=True)
class Policy:
    """What to do in a state for a user at z.

    Attributes:
        encoding: What the net sees.
        layers: Weights (in, out) and biases (1, out) of its three layers, in turn.
        log_std: Of the actions it learnt from, (action,); `act` does not use it.
        settings: What trained it.
        steps: Minibatches it was trained on.
    """

    encoding: Encoding
    layers: tuple[Tensor, ...]
    log_std: Float[Tensor, " action"]
    settings: IqlSettings
    steps: int

    @property
    def observation_dim(self) -> int:
        return len(self.encoding.mean)

    @property
    def latent_dim(self) -> int:
        return len(self.encoding.z_mean)

    @torch.no_grad()
    def act(
        self, observation: Float[ndarray, "n observation"], z: Float[ndarray, "n latent_dim"]
    ) -> Float[ndarray, "n action"]:
        """The mean action for every observation and its own latent, each number in [-1, 1]; float32.

        Raises:
            ConfigError: Observations or latents are not as wide as those the policy was trained on.
        """
        for name, given, dim in (
            ("observations", observation, self.observation_dim),
            ("latents", z, self.latent_dim),
        ):
            if given.shape[1] != dim:
                raise ConfigError(f"{name} have {given.shape[1]} numbers; this policy was trained on {dim}")
        device = self.log_std.device
        seen = self.encoding.observation(torch.as_tensor(np.asarray(observation, dtype=np.float32), device=device))
        latent = self.encoding.z(torch.as_tensor(np.asarray(z, dtype=np.float32), device=device))
        h = torch.cat([seen, latent], dim=1)
        for weight, bias in zip(self.layers[0:4:2], self.layers[1:4:2], strict=True):
            h = torch.addmm(bias, h, weight).relu()
        action: ndarray = torch.addmm(self.layers[5], h, self.layers[4]).clamp(-1, 1).cpu().numpy()
        return action

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` into a folder; settings are JSON in its header."""
        tensors = {**vars(self.encoding), **dict(zip(_LAYERS, self.layers, strict=True)), "log_std": self.log_std}
        _write(folder / "policy.safetensors", tensors, {"settings": asdict(self.settings), "steps": self.steps})

    @classmethod
    def load(cls, folder: Path) -> Policy:
        """Read what `save` wrote, on the CPU.

        Raises:
            CacheError: The folder holds no policy, or a damaged one.
        """
        path = folder / "policy.safetensors"
        if not path.is_file():
            raise CacheError(f"{folder} holds no policy: {path.name} is missing")
        try:
            tensors, words = _read(path)
            return cls(
                encoding=Encoding(**{field.name: tensors[field.name] for field in fields(Encoding)}),
                layers=tuple(tensors[name] for name in _LAYERS),
                log_std=tensors["log_std"],
                settings=IqlSettings(**words["settings"]),
                steps=words["steps"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CacheError(f"the policy in {folder} is damaged: {error}", hint="train it again") from error


@one_thread()
def train_iql(
    offline: Offline,
    table: RewardTable,
    settings: IqlSettings | None = None,
    *,
    seed: int,
    on_step: OnStep | None = None,
    report_every: int = 1000,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
) -> Policy:
    """Learn from data without rewards what to do for every latent of a table.

    Args:
        offline: What was driven.
        table: Latents, and the reward of every step under each; centred.
        settings: Sizes and rates; None means the defaults.
        seed: Of the nets and the minibatches, which are the same on every device.
        on_step: Called every `report_every` steps and at the end with the number of steps done and the means of the
            last minibatch: the losses `value` and `q`, the weights' mean `weight`, and `v`, the mean of V.
        report_every: Steps between calls of `on_step`, and between checkpoints.
        checkpoint: A folder in which training is kept, and from which an interrupted one goes on to the same numbers;
            what another seed, other data or other settings left there is not used. None keeps nothing.
        device: Where to train.

    Returns:
        The policy, on that device.

    Raises:
        DataError: The table does not have a row for every step, or something is not finite.
        CacheError: The checkpoint is damaged.
    """
    settings = settings or IqlSettings()
    _check(offline, table, settings)
    g = torch.Generator().manual_seed(seed)
    encoding = _encoding(offline, table)
    learner = _Learner(offline, table, settings, encoding, g, torch.device(device))
    key = _key(offline, table, settings, seed) if checkpoint else ""
    if checkpoint and (checkpoint / "training.safetensors").is_file():
        learner.resume(checkpoint, key)
    while learner.done < settings.steps:
        numbers = learner.step()
        if learner.done % report_every and learner.done < settings.steps:
            continue
        if checkpoint:
            learner.keep(checkpoint, key)
        if on_step:
            on_step(learner.done, {name: float(value) for name, value in numbers.items()})
    return learner.policy()


class _Learner:
    """Nets, their optimiser and the draws of training, from step to step.

    The nets are Q, Q, V and the policy, in this order the first axis of every weight. Inputs are what is seen, the
    latent, and the action, which is 0 for V and the policy. All nets put out as many numbers as an action has; Q and V
    use the first.
    """

    def __init__(
        self,
        offline: Offline,
        table: RewardTable,
        settings: IqlSettings,
        encoding: Encoding,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        def tensor(array: ndarray) -> Tensor:
            return torch.as_tensor(np.asarray(array, dtype=np.float32))

        self.settings, self.generator, self.device = settings, generator, device
        self.encoding = Encoding(**{name: value.to(device) for name, value in vars(encoding).items()})
        self.before = encoding.observation(tensor(offline.observation)).to(device)
        self.after = encoding.observation(tensor(offline.after)).to(device)
        self.action = tensor(offline.action).to(device)
        self.z = encoding.z(tensor(table.z)).to(device)
        reward = tensor(table.value)
        self.rows = torch.arange(len(reward))
        if settings.shaped or settings.candidates > 1:
            # The state before a step is the one after the step before it.
            self.rows = self.rows[1:][torch.as_tensor(np.diff(offline.episode) == 0)]
        self.level = torch.cat([reward[:1], reward[:-1]]) if settings.candidates > 1 else None
        if settings.shaped:
            reward = torch.cat([reward[:1], torch.diff(reward, dim=0) / (1 - settings.discount)])
        self.reward = reward.to(device)
        self.done = 0

        seen, latent_dim, action = self.before.shape[1], self.z.shape[1], self.action.shape[1]
        self.seen, self.state = seen, seen + latent_dim
        width, wide = settings.width, self.state + action
        sizes = [(4, wide, width), (4, 1, width), (4, width, width), (4, 1, width), (4, width, action), (4, 1, action)]
        start = [torch.zeros(size) for size in sizes]
        for weight, bias in zip(start[::2], start[1::2], strict=True):
            bound = weight.shape[1] ** -0.5  # as torch.nn.Linear begins
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        start.append(torch.zeros(action))
        self.flat = torch.cat([each.flatten() for each in start]).to(device)
        self.flat.grad = torch.zeros_like(self.flat)
        # Nets and their gradients are views of two vectors: one step of Adam, one zeroing.
        self.nets = [each.requires_grad_() for each in self._views(self.flat, start)]
        for net, gradient in zip(self.nets, self._views(self.flat.grad, start), strict=True):
            net.grad = gradient
        self.online = [net.detach()[:2] for net in self.nets[:-1]]
        self.value = [net.detach()[2:3] for net in self.nets[:-1]]
        self.target = [net.clone() for net in self.online]
        self.optimizer = torch.optim.Adam([self.flat], lr=settings.learning_rate, fused=True)
        self.input = torch.zeros(4, settings.batch, wide, device=device)
        self.next_input = torch.zeros(1, settings.batch, wide, device=device)
        self.draws: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def _views(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
        parts = flat.detach().split([each.numel() for each in like])
        return [part.view(each.shape) for part, each in zip(parts, like, strict=True)]

    def step(self) -> dict[str, Tensor]:
        """One minibatch."""
        to = self.settings
        row, column = self._draw()
        action, reward = self.action[row], self.reward[row, column]
        x, after = self.input, self.next_input
        x[:, :, : self.seen] = self.before[row]
        after[0, :, : self.seen] = self.after[row]
        x[:, :, self.seen : self.state] = after[0, :, self.seen : self.state] = self.z[column]
        x[:2, :, self.state :] = action
        with torch.no_grad():
            aim = reward + to.discount * _through(self.value, after)[0, :, 0]
            q = _through(self.target, x[:2])[..., 0].amin(0)
        out = _through(self.nets, x)
        above = q - out[2, :, 0]
        value_loss = expectile_loss(above, to.expectile).mean()
        q_loss = (out[:2, :, 0] - aim).square().mean(1).sum()
        weight = (to.temperature * above.detach()).exp().clamp(max=to.max_weight)
        log_std = self.nets[-1].clamp(min=_MIN_LOG_STD)
        surprise = ((action - out[3]) * (-log_std).exp()).square().sum(1) / 2 + log_std.sum()
        (value_loss + q_loss + (weight * surprise).mean()).backward()
        self.optimizer.param_groups[0]["lr"] = to.learning_rate * (1 + math.cos(math.pi * self.done / to.steps)) / 2
        self.optimizer.step()
        assert self.flat.grad is not None
        self.flat.grad.zero_()
        torch._foreach_lerp_(self.target, self.online, to.target_rate)
        self.done += 1
        return {
            "value": value_loss.detach(),
            "q": q_loss.detach(),
            "weight": weight.mean(),
            "v": out[2, :, 0].detach().mean(),
        }

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of the next minibatch: a step of the data, and a latent for it."""
        at = self.done % _CHUNK
        if at == 0 or self.draws is None:
            self.drawn_from = self.generator.get_state()
            size = (_CHUNK, self.settings.batch)
            sizes = len(self.rows), self.reward.shape[1]
            rows, columns = (torch.randint(n, size, generator=self.generator) for n in sizes)
            rows = self.rows[rows]
            if self.level is not None:
                rows = self._best(rows, columns, self.level)
            self.draws = rows.to(self.device), columns.to(self.device)
        return self.draws[0][at], self.draws[1][at]

    def _best(self, rows: Tensor, columns: Tensor, level: Tensor) -> Tensor:
        """Rows of which the second half of every minibatch is the best of several by the reward before the step."""
        half = self.settings.batch // 2
        size = (len(rows), self.settings.batch - half, self.settings.candidates)
        some = self.rows[torch.randint(len(self.rows), size, generator=self.generator)]
        best = level[some, columns[:, half:, None]].argmax(2, keepdim=True)
        return torch.cat([rows[:, :half], some.gather(2, best)[:, :, 0]], dim=1)

    def policy(self) -> Policy:
        """The policy as it stands."""
        layers = [net.detach()[3].clone() for net in self.nets[:-1]]
        layers[0] = layers[0][: self.state].contiguous()
        log_std = self.nets[-1].detach().clamp(min=_MIN_LOG_STD)
        if not all(each.isfinite().all() for each in layers):
            raise DataError("training diverged", hint="centre the rewards, or lower learning_rate")
        return Policy(
            encoding=self.encoding, layers=tuple(layers), log_std=log_std, settings=self.settings, steps=self.done
        )

    def keep(self, folder: Path, key: str) -> None:
        """Write all that the next step depends on."""
        drawn = self.done % _CHUNK  # draws in use are drawn again from the state before them
        tensors = {f"target.{i}": each for i, each in enumerate(self.target)}
        tensors |= {"nets": self.flat, "generator": self.drawn_from if drawn else self.generator.get_state()}
        tensors |= self.optimizer.state[self.flat]
        _write(folder / "training.safetensors", tensors, {"key": key, "done": self.done})

    def resume(self, folder: Path, key: str) -> None:
        """Go on from what `keep` wrote, if it was the same training."""
        try:
            tensors, words = _read(folder / "training.safetensors")
            if words["key"] != key:
                return
            self.flat.copy_(tensors.pop("nets"))
            self.generator.set_state(tensors.pop("generator"))
            for i, each in enumerate(self.target):
                each.copy_(tensors.pop(f"target.{i}"))
            self.optimizer.state[self.flat] = {name: each.to(self.device) for name, each in tensors.items()}
            self.done = words["done"]
        except (ValueError, KeyError, RuntimeError) as error:
            raise CacheError(f"the checkpoint in {folder} is damaged: {error}", hint="delete the folder") from error


def expectile_loss(above: Float[Tensor, " n"], expectile: float) -> Float[Tensor, " n"]:
    """|expectile - 1(above < 0)| above^2, whose mean is least at the expectile of what is compared.

    At 0.5 that is the mean, and towards 1 the maximum.

    Args:
        above: Values minus the estimate, (n,).
        expectile: In (0, 1).
    """
    return (expectile - (above < 0).to(above.dtype)).abs() * above.square()


def _through(nets: list[Tensor], x: Float[Tensor, "nets batch wide"]) -> Float[Tensor, "nets batch action"]:
    for weight, bias in zip(nets[0:4:2], nets[1:4:2], strict=True):
        x = torch.baddbmm(bias, x, weight).relu()
    return torch.baddbmm(nets[5], x, nets[4])


def _encoding(offline: Offline, table: RewardTable) -> Encoding:
    def moments(array: ndarray) -> tuple[Tensor, Tensor]:
        each = np.asarray(array, dtype=np.float64)
        scale = each.std(0)
        return torch.as_tensor(each.mean(0)).float(), torch.as_tensor(np.where(scale > 1e-6, scale, 1.0)).float()

    (mean, scale), (z_mean, z_scale) = moments(offline.observation), moments(table.z)
    return Encoding(mean=mean, scale=scale, z_mean=z_mean, z_scale=z_scale)


def _check(offline: Offline, table: RewardTable, settings: IqlSettings) -> None:
    steps, rows = len(offline.observation), len(table.value)
    if not steps or steps != rows or table.value.shape[1] != len(table.z):
        raise DataError(
            f"the table has {rows} rewards under {table.value.shape[1]} latents, for {steps} steps and "
            f"{len(table.z)} latents; it needs one for every step under every latent"
        )
    if (settings.shaped or settings.candidates > 1) and not (np.diff(offline.episode) == 0).any():
        raise DataError("no episode has two steps, so none has a reward before it", hint="shaped=False, candidates=1")
    values = {"observation": offline.observation, "action": offline.action, "after": offline.after}
    for name, value in (values | {"z": table.z, "value": table.value}).items():
        if not np.isfinite(value).all():
            raise DataError(f"row {int(np.argwhere(~np.isfinite(value))[0, 0])} of {name} is not finite")


def _key(offline: Offline, table: RewardTable, settings: IqlSettings, seed: int) -> str:
    """What a training depends on, in a few letters."""
    found = sha256(json.dumps([asdict(settings), seed], sort_keys=True).encode())
    for array in (*vars(offline).values(), table.z, table.value):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def _write(path: Path, tensors: dict[str, Tensor], words: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as part:
        save_file({name: each.contiguous() for name, each in tensors.items()}, part, {"pluralign": json.dumps(words)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of a file; ValueError or KeyError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            words = json.loads((file.metadata() or {})["pluralign"])
            # Copied, because products of a tensor that lies otherwise in memory may differ in their last digit.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, words  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
