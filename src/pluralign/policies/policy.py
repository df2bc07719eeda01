"""A personal language model together with its tokenizer: the thing one ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from pluralign.comparisons.chats import decode_chat, encode_chat, read_chat
from pluralign.errors import CacheError, ConfigError, DataError
from pluralign.features.pretrained import pick_device
from pluralign.language_models.loading import check_tokenizer, load_tokenizer
from pluralign.language_models.packing import Sequence as Tokens
from pluralign.language_models.personal import PersonalPolicy
from pluralign.language_models.reading import read_values
from pluralign.language_models.tokens import prompt_ids, response_ids
from pluralign.language_models.user_tokens import UNKNOWN, ClusterTokens
from pluralign.types import FloatArray

TOKENIZER = "tokenizer"

# A text, a list of messages, or such a list spelled as `encode_chat` does.
Prompt: TypeAlias = str | Sequence[dict[str, Any]]


@final
@dataclass(frozen=True)
class Cluster:
    """A cluster of the user model in the place of a user."""

    number: int


# A name (one that the model has never met is the generic user), a cluster, or None for the generic user.
Reader: TypeAlias = str | Cluster | None


@final
@dataclass(frozen=True, eq=False)
class Policy:
    """A language model that writes for users.

    Attributes:
        model: The language model and its users.
        tokenizer: A Hugging Face tokenizer.
    """

    model: PersonalPolicy
    tokenizer: Any

    def __post_init__(self) -> None:
        check_tokenizer(self.tokenizer, self.embedding.num_embeddings)

    @property
    def user_ids(self) -> tuple[str, ...]:
        """Names of the users that it knows."""
        return tuple(self.model.user_ids)

    @property
    def embedding(self) -> Any:
        """The input embedding, of ordinary ids and of users' ids."""
        return self.model.get_input_embeddings()

    def user_index(self, users: Sequence[Reader]) -> list[int]:
        """Index of each user, `UNKNOWN` for None and for a name that the model has never met, (users,).

        Clusters are numbered after the users.

        Raises:
            ConfigError: A cluster that the user model does not have.
        """
        number: dict[Reader, int] = {name: i for i, name in enumerate(self.user_ids)}
        clusters = {each for each in users if isinstance(each, Cluster)}
        number |= {each: cluster_index(self.model, each.number) for each in clusters}
        return [number.get(each, UNKNOWN) for each in users]

    def log_prob(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Prompt],
        users: Sequence[Reader],
        *,
        batch_size: int = 16,
    ) -> FloatArray:
        """Log-probability of each response, its end-of-sequence token among it, for the user beside it, in nats, (n,).

        Args:
            prompts: One per response.
            responses: Texts, or lists of messages where prompts are.
            users: For whom each is written.
            batch_size: Sequences read at a time.

        Raises:
            DataError: Lengths differ.
        """
        if not len(prompts) == len(responses) == len(users):
            raise DataError(f"{len(prompts)} prompts, {len(responses)} responses and {len(users)} users were given")
        sequences = []
        for prompt, response, user in zip(prompts, responses, self.user_index(users), strict=True):
            asked = read_prompt(prompt)
            answer = response if isinstance(asked, str) else read_prompt(response)
            ids = prompt_ids(self.tokenizer, asked), response_ids(self.tokenizer, asked, answer)
            sequences.append(Tokens(prompt=tuple(ids[0]), response=tuple(ids[1]), user=user))
        # What has one prompt shares a row, and rows of one batch have about one length.
        order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i].prompt), sequences[i].prompt))
        batches = (np.array(order[first : first + batch_size]) for first in range(0, len(order), batch_size))
        return read_values(self.model, len(sequences), sequences.__getitem__, batches)

    def generate(self, prompts: Sequence[Prompt], users: Sequence[Reader], **settings: Any) -> Any:
        """Write for users: `generate` of `pluralign.policies.generation`."""
        from pluralign.policies.generation import generate

        return generate(self, prompts, users, **settings)

    def save(self, folder: str | Path) -> None:
        """Write the model (safetensors and JSON) and its tokenizer into a folder."""
        self.model.save(folder)
        self.tokenizer.save_pretrained(Path(folder) / TOKENIZER)

    @classmethod
    def load(cls, folder: str | Path, *, base: str | None = None, device: str | None = None, **settings: Any) -> Policy:
        """Read what `save` wrote; `base` and `settings` as of `PersonalPolicy.load`.

        It computes on `device`; None is the GPU if there is one.

        Raises:
            CacheError: The folder holds no policy.
        """
        model = PersonalPolicy.load(folder, base=base, **settings)
        if not (Path(folder) / TOKENIZER).is_dir():
            raise CacheError(f"{folder} holds no tokenizer: there is no {TOKENIZER}/")
        return cls(model.to(pick_device(device)), load_tokenizer(Path(folder) / TOKENIZER))


def cluster_index(model: PersonalPolicy, number: int) -> int:
    """Index that stands for a cluster itself.

    Raises:
        ConfigError: The user model has no such cluster.
    """
    n = model.users.n_clusters if isinstance(model.users, ClusterTokens) else 0
    if not 0 <= number < n:
        raise ConfigError(f"there is no cluster {number}; the model's users ({model.users.kind}) have {n} clusters")
    return model.users.n_users + number


def read_prompt(prompt: Prompt) -> str | list[dict[str, Any]]:
    """A text as it is; a chat, spelled as canonical JSON or not, as its messages.

    Raises:
        DataError: It is neither.
    """
    if not isinstance(prompt, str):
        return decode_chat(encode_chat(prompt))
    chat = read_chat(prompt)
    return prompt if chat is None else chat
