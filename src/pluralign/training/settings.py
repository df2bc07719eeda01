"""What a training run depends on, beside the data, the base model and `transformers.TrainingArguments`.

Defaults are those of P-RLHF (arXiv 2402.05133; the paper's first version and the released code) where it says:
alpha 0.5, beta 0.5, one soft token per user, individual users, a policy's tokens before the prompt. They leave it in
four places. A reward model's tokens stand after the prompt, where they cost least. LoRA's matrices are
`PersonalConfig`'s. Users begin as the generic user. And users may learn at a rate of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from pluralign.comparisons.columns import show
from pluralign.errors import ConfigError
from pluralign.training.objectives import check_loss

Chosen = TypeVar("Chosen", bound="Settings")
# What a value of an annotation is, and what we call it.
KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool, np.bool_), "true or false"),
    int: ((Integral,), "a whole number"),
    float: ((Real,), "a number"),
    str: ((str, PathLike), "a text"),
    Path: ((str, PathLike), "a text"),
    list: ((list, tuple), "a list"),
    dict: ((Mapping,), "a table"),
    Mapping: ((Mapping,), "a table"),
    NoneType: ((NoneType,), "nothing"),
}


def one_token_each() -> dict[str, Any]:
    """The user model of P-RLHF's first version: a soft token per user."""
    return {"kind": "individual", "n_tokens": 1}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What reward models and policies share.

    Attributes:
        users: The user model: `kind`, `n_tokens` and what the kind has beside them (see
            `pluralign.language_models.user_tokens`). Hard clusters need `assignment`, a cluster for each user id;
            texts need `described`, a vector for each user id.
        alpha: Weight of the personal term; 1 - alpha is the generic user's.
        mixture: "exact" computes both terms of every comparison, "sampled" one that is drawn: half the cost, the same
            expectation.
        place: Where the user's tokens stand, "before" or "after" the prompt.
        tuning: What of the language model is trained, "lora", "full" or "frozen".
        lora: Settings of `peft.LoraConfig`.
        loss: Name of the loss (see `pluralign.training.objectives`).
        smoothing: Probability that a choice is the opposite of what was meant.
        user_learning_rate: Learning rate of the users; None for that of everything else.
        max_prompt: Most tokens of a prompt; a longer one loses its beginning.
        max_response: Most tokens of a response; a longer one loses its end.
        share: Whether responses to one prompt share its pass; None where that saves enough.
        dropout: Keep the model's dropout. Off by default, as in TRL: a margin is a difference of two passes.
        seed: Where users, LoRA, orders and draws begin.
    """

    users: Mapping[str, Any] = field(default_factory=one_token_each)
    alpha: float = 0.5
    mixture: str = "exact"
    place: str = "after"
    tuning: str = "lora"
    lora: Mapping[str, Any] | None = None
    loss: str = "sigmoid"
    smoothing: float = 0.0
    user_learning_rate: float | None = None
    max_prompt: int | None = 512
    max_response: int | None = 512
    share: bool | None = None
    dropout: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check."""
        check_kinds(type(self), vars(self))
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha}; it must be between 0 and 1")
        for name, known in (
            ("mixture", ("exact", "sampled")),
            ("place", ("before", "after")),
            ("tuning", ("lora", "full", "frozen")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f'{name} is "{getattr(self, name)}"; it must be {" or ".join(known)}')
        if self.user_learning_rate is not None and not self.user_learning_rate >= 0:
            raise ConfigError(f"user_learning_rate is {self.user_learning_rate}; it must be at least 0")
        if "kind" not in self.users:
            raise ConfigError(f"users {dict(self.users)} have no kind")
        check_loss(self.loss, beta=self.strength, smoothing=self.smoothing)

    @property
    def strength(self) -> float:
        """What the loss multiplies a ratio by."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class RewardSettings(Settings):
    """A personal reward model, P-RM.

    Attributes:
        head: "linear" on a text with the user in it, or "late", the user as the head of a text without.
        centring: Weight of the mean squared sum of a pair's rewards, which keeps rewards near zero (arXiv 2312.09244,
            section 4; TRL's `center_rewards_coefficient`).
    """

    head: str = "linear"
    centring: float = 0.0

    def __post_init__(self) -> None:
        """Check."""
        super().__post_init__()
        if self.head not in ("linear", "late"):
            raise ConfigError(f'head is "{self.head}"; it must be linear or late')
        if self.loss not in ("sigmoid", "robust", "hinge"):
            raise ConfigError(f"loss is {self.loss}; a reward model's must be sigmoid, robust or hinge")
        if not self.centring >= 0:
            raise ConfigError(f"centring is {self.centring}; it must be at least 0")


@dataclass(frozen=True, kw_only=True)
class PolicySettings(Settings):
    """A personal policy, P-DPO.

    Attributes:
        beta: How strongly the reference holds the policy.
        place: As of `Settings`. Before the prompt a token that nothing has been trained to read changes a response
            little, and training begins near the reference; after it costs less and begins farther away.
    """

    beta: float = 0.5
    place: str = "before"

    @property
    def strength(self) -> float:
        return self.beta


def changed(settings: Chosen, changes: Mapping[str, Any]) -> Chosen:
    """Settings with some of them replaced.

    Raises:
        ConfigError: There is no such setting, or its value is not accepted.
    """
    known = {each.name for each in fields(settings)}
    for name in changes:
        if name not in known:
            raise ConfigError(f"unknown setting {name}; known: {', '.join(sorted(known))}")
    return replace(settings, **changes)


def check_kinds(owner: Any, given: Mapping[str, Any], *, of: str = "", foreign: bool = False) -> None:
    """Check that values are numbers, texts, tables, ... where annotations say so; other annotations are not looked at.

    Args:
        owner: The dataclass or function whose fields or arguments they are.
        given: The values, by name.
        of: What stands before the name in the message.
        foreign: Whether the owner is another library's, which takes more than its annotations say (`fsdp=True`, a
            fractional `lora_alpha`): only a text, list or table in place of a number or a truth value is refused.

    Raises:
        ConfigError: One is of another kind.
    """
    hints = get_type_hints(owner)
    for name, value in given.items():
        hint = hints.get(name, Any)
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds = [get_origin(each) or each for each in parts]
        if not all(kind in KINDS for kind in kinds) or any(_is(value, kind) for kind in kinds):
            continue
        numbers = {*kinds} <= {bool, int, float, NoneType}
        if foreign and not (numbers and isinstance(value, str | list | tuple | Mapping)):
            continue
        kinds.sort(key=lambda kind: kind is NoneType)  # "or nothing" comes last
        words = " or ".join(dict.fromkeys(KINDS[kind][1] for kind in kinds))
        raise ConfigError(f"{of}{name} is {show(value)}; it must be {words}")


def _is(value: object, kind: Any) -> bool:
    if isinstance(value, bool | np.bool_):  # which is a number to Python
        return kind is bool
    return isinstance(value, KINDS[kind][0])
