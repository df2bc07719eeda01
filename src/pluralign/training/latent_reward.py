"""A tuned tower that scores for latent users, with its tokenizer: the thing one ships.

Somebody new is placed by frozen features of what they compared, which cost one pass over each text, or nothing where
they are known already; the tower reads what is to be scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.comparisons import Comparisons
from pluralign.errors import CacheError, DataError
from pluralign.evaluation import Predictions
from pluralign.features import Design, Item, Standardizer, encode, used_items
from pluralign.features.pretrained import pick_device
from pluralign.features.standardize import pick_dtype
from pluralign.files import write_json
from pluralign.inference.adapt import adapt
from pluralign.language_models.loading import check_tokenizer, load_tokenizer, read_json
from pluralign.language_models.personal import PersonalConfig
from pluralign.rewards import LinearReward
from pluralign.rewards.transformer import LIMITS, TOKENIZER
from pluralign.training.latent_tower import LatentHead, LatentTower, TowerEncoder
from pluralign.types import FloatArray
from pluralign.users.latent import Gaussians, Latent


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class LatentReward:
    """r(prompt, response, z) of a tuned tower, for users who are points z.

    Attributes:
        tower: The language model and its head.
        tokenizer: Its Hugging Face tokenizer.
        user_ids: Names of the users that are placed.
        posterior: Where they are.
        max_prompt: Tokens of a prompt that are read; a longer one loses its beginning. None reads all.
        max_response: Tokens of a response that are read; a longer one loses its end. None reads all.
    """

    tower: LatentTower
    tokenizer: Any
    user_ids: tuple[str, ...]
    posterior: Gaussians
    max_prompt: int | None = 512
    max_response: int | None = 512

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer, self.tower.get_input_embeddings().num_embeddings)

    @classmethod
    def of(cls, tower: LatentTower, tokenizer: Any, **limits: int | None) -> LatentReward:
        """A tower and the users that its head keeps."""
        known = _head(tower).latent().posterior
        return cls(tower=tower, tokenizer=tokenizer, user_ids=tuple(tower.user_ids), posterior=known, **limits)

    @cached_property
    def users(self) -> Latent:
        """The users as a model of the tower's features."""
        head = _head(self.tower)
        return fixed(head.latent().with_posterior(self.posterior), pick_dtype(head.standardizer.dim))

    @cached_property
    def linear(self) -> LinearReward:
        """The same reward as one on features, those of the tuned tower: what evaluation and scoring take."""
        head = _head(self.tower)
        return LinearReward(
            users=self.users,
            user_ids=self.user_ids,
            encoder=self._encoder(self.tower, frozen=False),
            standardizer=head.standardizer,
        )

    @cached_property
    def frozen(self) -> TowerEncoder:
        """The encoder of contexts: the language model as it was before any tuning, read anew if it was tuned fully."""
        config = self.tower.config
        if config.tuning != "full":
            return self._encoder(self.tower, frozen=True)
        plain = PersonalConfig(base=config.base, tuning="frozen")
        return self._encoder(LatentTower.make(plain, dtype=self.tower.dtype).to(self.tower.device), frozen=True)

    def _encoder(self, tower: LatentTower, *, frozen: bool) -> TowerEncoder:
        return TowerEncoder(
            tower=tower, tokenizer=self.tokenizer, frozen=frozen,
            max_prompt=self.max_prompt, max_response=self.max_response,
        )  # fmt: skip

    def frozen_features(self, comparisons: Comparisons, *, cache: str | Path | None = None) -> np.ndarray:
        """Frozen features of every text of a table, (items, dim), each read once, or never if `cache` holds it."""
        return encode(comparisons, self.frozen, cache_dir=cache, progress=False)

    def place(
        self,
        comparisons: Comparisons,
        *,
        features: Float[np.ndarray, "items dim"] | None = None,
        cache: str | Path | None = None,
    ) -> LatentReward:
        """The same reward of other users: those of a table, placed by their comparisons. The tower is not tuned.

        Args:
            comparisons: What they chose; somebody without a row is placed at the prior.
            features: What `frozen_features` said of the table's texts; a text that no row has may be NaN. None reads
                the texts.
            cache: Folder of frozen features.

        Raises:
            DataError: Features of another number than the texts, or not of each.
        """
        if features is None:
            features = self.frozen_features(comparisons, cache=cache)
        head = _head(self.tower)
        design = context_design(comparisons, features, head.standardizer)
        placed = adapt(fixed(head.latent(context=True), design.features.dtype), design)
        assert isinstance(placed, Latent)
        posterior = Gaussians(*(part.float() for part in placed.posterior))  # as it is kept
        return replace(self, user_ids=comparisons.user_ids, posterior=posterior)

    def score(
        self, prompts: Sequence[str], responses: Sequence[str], users: Sequence[str | None]
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of each response's reward for the user beside it, (n,); arguments as of
        `LinearReward.score`. A text is read once for all users."""
        return self.linear.score(prompts, responses, users)

    def score_at(
        self, prompts: Sequence[str], responses: Sequence[str], z: Float[Tensor, "points latent"]
    ) -> Float[np.ndarray, "n points"]:
        """Reward of each response at each z, wherever z is from.

        Raises:
            DataError: Lengths differ.
        """
        if len(prompts) != len(responses):
            raise DataError(f"{len(prompts)} prompts and {len(responses)} responses were given")
        items = [Item(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        raw = self._encoder(self.tower, frozen=False).encode(items)
        said: FloatArray = self.users.reward_at(
            _head(self.tower).standardizer.transform(raw), z.to(self.users.theta)
        ).numpy(force=True)
        return said.astype(np.float64)

    def predict(self, comparisons: Comparisons, *, unknown: bool = False) -> Predictions:
        """Predict decisions, each user's z integrated over its posterior, or over the prior (`unknown`)."""
        return self.linear.predict(comparisons, unknown=unknown, progress=False)

    def save(self, folder: Path | str) -> None:
        """Write safetensors and JSON into a folder: adapter or checkpoint, the head with its users, tokenizer."""
        folder, head, config = Path(folder), _head(self.tower), self.tower.config
        theirs = head.latent().posterior, config.user_ids, config.users
        mine = self.posterior, list(self.user_ids), {**config.users, "n_users": len(self.user_ids)}
        try:
            head.place(mine[0])
            config.user_ids, config.users = mine[1:]
            self.tower.save(folder)
        finally:  # other rewards may have the same tower
            head.place(theirs[0])
            config.user_ids, config.users = theirs[1:]
        self.tokenizer.save_pretrained(folder / TOKENIZER)
        write_json(folder / LIMITS, {"max_prompt": self.max_prompt, "max_response": self.max_response})

    @classmethod
    def load(
        cls, folder: Path | str, *, base: str | None = None, device: str | None = None, **settings: Any
    ) -> LatentReward:
        """Read what `save` wrote; arguments as of `TransformerReward.load`.

        Raises:
            CacheError: The folder holds no such reward model.
        """
        folder = Path(folder)
        tower = LatentTower.load(folder, base=base, **settings)
        for part in (TOKENIZER, LIMITS):
            if not (folder / part).exists():
                raise CacheError(f"{folder} holds no whole reward model: there is no {part}")
        limits = read_json(folder / LIMITS)
        return cls.of(tower.to(pick_device(device)), load_tokenizer(folder / TOKENIZER), **limits)


def context_design(
    comparisons: Comparisons, features: Float[np.ndarray, "items dim"], standardizer: Standardizer
) -> Design:
    """Comparisons on frozen features, standardised.

    Raises:
        DataError: Features of another number than the texts, or not of each.
    """
    if len(features) != len(comparisons.items):
        raise DataError(f"{len(comparisons.items)} texts and {len(features)} rows of features were given")
    used = used_items(comparisons)
    bare = used[~np.isfinite(features[used]).all(1)]
    if len(bare):
        text = comparisons.items.response.to_pylist()[bare[0]]
        raise DataError(
            f"{text[:60]!r} is in a context and has no features ({len(bare):,} such texts)",
            hint="read them with `frozen_features`, or leave `features` out",
        )
    return Design.of(comparisons, standardizer.transform(np.nan_to_num(features)))


def _head(tower: LatentTower) -> LatentHead:
    if tower.head is None:
        raise CacheError("the tower has no head; train it with `train_latent_reward`")
    return tower.head


def fixed(model: Latent, dtype: torch.dtype) -> Latent:
    """The same model on the CPU, without gradients, as the features of `Standardizer.transform` are."""

    def still(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: still(each) for name, each in value.items()}
        return value.detach().to("cpu", dtype) if isinstance(value, Tensor) else value

    return replace(model, **{each.name: still(getattr(model, each.name)) for each in fields(model)})
