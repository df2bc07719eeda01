"""A language model that scores for users, with its tokenizer: the thing one ships after `train-reward`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from pluralign.comparisons import Comparisons
from pluralign.comparisons.chats import read_chat
from pluralign.errors import CacheError, DataError
from pluralign.evaluation import Predictions
from pluralign.features.pretrained import pick_device
from pluralign.files import write_json
from pluralign.language_models.loading import check_tokenizer, load_tokenizer, read_json
from pluralign.language_models.packing import Sequence as Tokens
from pluralign.language_models.personal import PersonalReward
from pluralign.language_models.reading import read_values
from pluralign.language_models.tokens import Ragged, prompt_ids, response_ids, shorten_prompt, tokenize
from pluralign.language_models.user_tokens import UniformTokens
from pluralign.types import FloatArray
from pluralign.users import UNKNOWN, predict_decisions

logger = logging.getLogger(__name__)

TOKENIZER, LIMITS = "tokenizer", "reward.json"
MAX_TOKENS = 512


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts to score: token ids of prompts and of responses, and the prompt of each response, (texts,)."""

    prompts: Ragged
    responses: Ragged
    prompt: Int[np.ndarray, " texts"]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TransformerReward:
    """r(prompt, response, user) of a fine-tuned language model.

    It is a point estimate: unlike `LinearReward` it has no standard deviation of a reward to give.

    Attributes:
        model: The language model, its head and its users.
        tokenizer: Its Hugging Face tokenizer.
        max_prompt: Tokens of a prompt that are read; a longer one loses its beginning. None reads all.
        max_response: Tokens of a response that are read; a longer one loses its end. None reads all.
    """

    model: PersonalReward
    tokenizer: Any
    max_prompt: int | None = MAX_TOKENS
    max_response: int | None = MAX_TOKENS

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer, self.model.get_input_embeddings().num_embeddings)

    @property
    def user_ids(self) -> tuple[str, ...]:
        """Names of the users that it knows."""
        return tuple(self.model.user_ids)

    def user_index(self, names: Sequence[str | None]) -> Int[Tensor, " names"]:
        """Index of each user by name, `UNKNOWN` for None and for one that the model has never met."""
        known: dict[str | None, int] = {name: i for i, name in enumerate(self.user_ids)}
        return torch.tensor([known.get(name, UNKNOWN) for name in names], dtype=torch.int64)

    def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        users: Sequence[str | None],
        *,
        batch_size: int = 16,
        progress: bool = False,
    ) -> FloatArray:
        """Reward of each response for the user beside it, (n,).

        A text is read once for each user, with a late head once for all. Rewards are defined up to a constant per
        prompt.

        Args:
            prompts: One per response: texts, or chats as canonical JSON.
            responses: What is scored; chats, or what the assistant says, where prompts are chats.
            users: Whose reward; a name the model does not know, or None, is the generic user.
            batch_size: Texts read at a time.
            progress: Whether to show a progress bar (on a terminal only).

        Raises:
            DataError: Lengths differ, or a text is longer than the model reads.
        """
        if not len(prompts) == len(responses) == len(users):
            raise DataError(f"{len(prompts)} prompts, {len(responses)} responses and {len(users)} users were given")
        texts, item = read_texts(
            self.tokenizer, prompts, responses, max_prompt=self.max_prompt, max_response=self.max_response
        )
        whose = self.user_index(users).numpy()
        return self.rewards(texts, item, whose, batch_size=batch_size, progress=progress)

    def predict(
        self, comparisons: Comparisons, *, unknown: bool = False, batch_size: int = 16, progress: bool = False
    ) -> Predictions:
        """Predict decisions with each user's own reward, or with the generic user's (`unknown`).

        A pair is decided by the logistic of the margin, a choice among several by the multinomial logit.

        Raises:
            DataError: Items are numbers, a response is empty, or a text is longer than the model reads.
        """
        tokens = tokenize(comparisons, self.tokenizer, max_prompt=self.max_prompt, max_response=self.max_response)
        if tokens.cut:
            logger.warning("%s", tokens.cut)
        texts = Texts(tokens.prompts, tokens.responses, tokens.prompt)
        whose = self.user_index(comparisons.user_ids).numpy()[comparisons.user]
        whose = np.full_like(whose, UNKNOWN) if unknown else whose
        item = np.concatenate([comparisons.chosen, comparisons.rejected])
        both = self.rewards(texts, item, np.tile(whose, 2), batch_size=batch_size, progress=progress)
        return predict_decisions(comparisons, both[: len(comparisons)] - both[len(comparisons) :])

    def rewards(
        self,
        texts: Texts,
        item: Int[np.ndarray, " n"],
        user: Int[np.ndarray, " n"],
        *,
        batch_size: int = 16,
        progress: bool = False,
    ) -> Float[np.ndarray, " n"]:
        """Reward of each text, by its number, for the user beside it, by index (`UNKNOWN` the generic one).

        Texts are read by prompts, the longest first, so that what can share a row does and memory runs out at once or
        never.
        """
        if not len(item):
            return np.empty(0)
        layout, model = self.model.layout, self.model
        if isinstance(model.users, UniformTokens):
            user = np.full_like(user, UNKNOWN)
        # What has to be read: each text for each user, or each text once where the user is in the head.
        inside = user if layout["place"] != "none" else np.zeros_like(user)
        (read_item, read_user), number = np.unique(np.stack([item, inside]), axis=1, return_inverse=True)
        prompt = texts.prompt[read_item]
        lengths = texts.prompts.length[prompt], texts.responses.length[read_item]
        order = np.lexsort((read_user, read_item, lengths[1], prompt, lengths[0]))[::-1]
        batch_of = np.empty(len(order), dtype=np.int64)
        batch_of[order] = np.arange(len(order)) // batch_size
        batch = batch_of[number.reshape(-1)]
        rows, ends = np.argsort(batch, kind="stable"), np.bincount(batch).cumsum()

        def sequence(i: int) -> Tokens:
            asked, said = texts.prompts[int(texts.prompt[item[i]])], texts.responses[int(item[i])]
            return Tokens(prompt=asked, response=said, user=int(user[i]))

        with tqdm(total=len(item), unit="reward", disable=None if progress else True) as bar:
            return read_values(model, len(item), sequence, np.split(rows, ends[:-1]), layout=layout, bar=bar)

    def save(self, folder: Path | str) -> None:
        """Write safetensors and JSON into a folder."""
        folder = Path(folder)
        self.model.save(folder)
        self.tokenizer.save_pretrained(folder / TOKENIZER)
        write_json(folder / LIMITS, {"max_prompt": self.max_prompt, "max_response": self.max_response})

    @classmethod
    def load(
        cls, folder: Path | str, *, base: str | None = None, device: str | None = None, **settings: Any
    ) -> TransformerReward:
        """Read what `save` wrote.

        Args:
            folder: The model's folder.
            base: The language model, where it no longer lies where it did.
            device: Where it computes; None is the GPU if there is one.
            settings: Passed on to `from_pretrained`.

        Raises:
            CacheError: The folder holds no such reward model.
        """
        folder = Path(folder)
        model = PersonalReward.load(folder, base=base, **settings)
        for part in (TOKENIZER, LIMITS):
            if not (folder / part).exists():
                raise CacheError(f"{folder} holds no whole reward model: there is no {part}")
        limits = read_json(folder / LIMITS)
        return cls(model=model.to(pick_device(device)), tokenizer=load_tokenizer(folder / TOKENIZER), **limits)


def read_texts(
    tokenizer: Any,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    max_prompt: int | None,
    max_response: int | None,
) -> tuple[Texts, Int[np.ndarray, " n"]]:
    """Tokenize responses to the prompts beside them, each distinct one once.

    Returns:
        The distinct texts, and the number of each of those given, (n,).
    """
    number: dict[tuple[str, str], int] = {}
    item = [number.setdefault(each, len(number)) for each in zip(prompts, responses, strict=True)]
    place: dict[str, int] = {}
    prompt = [place.setdefault(asked, len(place)) for asked, _ in number]
    asked_ids = [prompt_ids(tokenizer, _read(asked)) for asked in place]
    said_ids = [response_ids(tokenizer, *_read_pair(asked, said)) for asked, said in number]
    limits = (max_prompt, max_response)
    cut = [
        sum(limit is not None and len(ids) > limit for ids in lists)
        for limit, lists in zip(limits, (asked_ids, said_ids), strict=True)
    ]
    if any(cut):
        logger.warning("%d prompts lost their beginning and %d responses their end", *cut)
    texts = Texts(
        Ragged.of(shorten_prompt(ids, max_prompt, tokenizer) for ids in asked_ids),
        Ragged.of(ids[:max_response] for ids in said_ids),
        np.array(prompt, dtype=np.int64),
    )
    return texts, np.array(item, dtype=np.int64)


def _read(text: str) -> Any:
    """The messages that a text spells, or itself."""
    messages = read_chat(text)
    return text if messages is None else messages


def _read_pair(prompt: str, response: str) -> tuple[Any, Any]:
    """A prompt and its response, each a text or messages; a chat may have no prompt."""
    asked = _read(prompt)
    if not asked and read_chat(response) is not None:
        asked = []
    return asked, response if isinstance(asked, str) else _read(response)
