"""A fitted user model together with what turns items into its features: the thing one ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from pluralign.comparisons import Comparisons
from pluralign.comparisons.chats import read_chat
from pluralign.errors import CacheError, DataError
from pluralign.evaluation import Predictions
from pluralign.features import (
    Design,
    Encoder,
    Item,
    Lookup,
    Standardizer,
    encode,
    load_encoder,
    save_encoder,
)
from pluralign.files import write_json
from pluralign.types import FloatArray
from pluralign.users import UNKNOWN, UserModel, store


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class LinearReward:
    """r(prompt, response, user), linear in frozen features.

    Attributes:
        users: The user model.
        user_ids: Names of its users, (users,).
        encoder: What reads an item.
        standardizer: What scales its features.
    """

    users: UserModel
    user_ids: tuple[str, ...]
    encoder: Encoder | Lookup
    standardizer: Standardizer

    def user_index(self, names: Sequence[str]) -> Tensor:
        """Index of each user by name, `UNKNOWN` for one that the model has never met, (names,)."""
        known = {name: i for i, name in enumerate(self.user_ids)}
        return torch.tensor([known.get(name, UNKNOWN) for name in names], dtype=torch.int64)

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], users: Sequence[str | None]
    ) -> tuple[FloatArray, FloatArray]:
        """Reward of each response for the user beside it; one that many users share is encoded once.

        Args:
            prompts: One per response: texts, or chats as canonical JSON.
            responses: What is scored, (n,); chats where prompts are.
            users: Whose reward; a name the model does not know, or None, is the unknown user.

        Returns:
            Mean and standard deviation of each reward, (n,). Rewards are defined up to a constant per prompt.

        Raises:
            DataError: Lengths differ, or the model was fitted on features that were computed elsewhere.
        """
        if not len(prompts) == len(responses) == len(users):
            raise DataError(f"{len(prompts)} prompts, {len(responses)} responses and {len(users)} users were given")
        if isinstance(self.encoder, Lookup):
            raise DataError(
                f'the model was fitted on "{self.encoder.kind}" features, which texts do not have',
                hint="score vectors with `score_features`",
            )
        items = [
            Item(prompt, response, bool(read_chat(response)) and (not prompt or bool(read_chat(prompt))))
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        number: dict[Item, int] = {}
        row = [number.setdefault(item, len(number)) for item in items]
        return self.score_features(self.encoder.encode(list(number))[row], users)

    def score_features(self, features: np.ndarray, users: Sequence[str | None]) -> tuple[FloatArray, FloatArray]:
        """Reward of raw (not standardized) features (n, dim) for the user beside each; returns as `score` does.

        Raises:
            DataError: There is not one user for each row, or the model was fitted on another number of features.
        """
        if len(features) != len(users):
            raise DataError(f"{len(features)} rows of features and {len(users)} users were given")
        index = self.user_index(["" if user is None else user for user in users])
        index[[user is None for user in users]] = UNKNOWN
        mean, sd = self.users.reward(self.standardizer.transform(features), index)
        return mean.double().numpy(force=True), sd.double().numpy(force=True)

    def design(self, comparisons: Comparisons, **settings: object) -> Design:
        """Encode comparisons and join them to the features that the model knows; settings as of `encode`.

        Raises:
            DataError: The items have features of another number than the model was fitted on, or none.
        """
        raw = encode(comparisons, self.encoder, **settings)  # type: ignore[arg-type]
        return Design.of(comparisons, self.standardizer.transform(raw))

    def predict(self, comparisons: Comparisons, *, unknown: bool = False, **settings: object) -> Predictions:
        """Predict decisions with each user's own model, or with the unknown user's (`unknown`)."""
        design = self.design(comparisons, **settings)
        own = self.user_index(comparisons.user_ids)[design.user]
        return self.users.predict(design, torch.full_like(own, UNKNOWN) if unknown else own)

    def save(self, folder: Path | str) -> None:
        """Write safetensors and JSON into a folder."""
        folder = Path(folder)
        store.save(self.users, folder)
        save_encoder(self.encoder, folder)
        self.standardizer.save(folder / "standardizer.safetensors")
        write_json(folder / "reward.json", {"user_ids": list(self.user_ids)})

    @classmethod
    def load(cls, folder: Path | str) -> LinearReward:
        """Read what `save` wrote.

        Raises:
            CacheError: The folder holds no reward model, or one that is a language model.
        """
        folder = Path(folder)
        path = folder / "reward.json"
        hint = "name the folder that `pluralign fit --out` wrote, or OUT/models/RUNG of a study"
        if any((folder / name).is_file() for name in ("pluralign.json", "clusters.json")):
            raise CacheError(f"{folder} holds a language model; a reward on frozen features is needed here", hint=hint)
        if not path.is_file():
            raise CacheError(f"{folder} holds no reward model: there is no reward.json", hint=hint)
        return cls(
            users=store.load(folder),
            user_ids=tuple(json.loads(path.read_text(encoding="utf-8"))["user_ids"]),
            encoder=load_encoder(folder),
            standardizer=Standardizer.load(folder / "standardizer.safetensors"),
        )
