"""The last hidden state of a Hugging Face model, pooled: a causal language model, a reward model, or a BERT.

A reward model (a sequence classifier) is read below its scalar head. Pooling goes by the attention mask, never by
position -1, which in a padded batch is a padding token. Sequences are padded on the right whatever the tokenizer says,
so that positions are those of the text alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pluralign.errors import ConfigError, DataError
from pluralign.features.pretrained import (
    PRECISIONS,
    STORED,
    check_choice,
    check_source,
    identify,
    load_argument,
    no_loading_bars,
    pick_device,
    pick_precision,
)
from pluralign.features.texts import Item

MAX_LENGTH = 2048


def pool_hidden(
    hidden: Float[Tensor, "batch length dim"], mask: Int[Tensor, "batch length"], pooling: str
) -> Float[Tensor, "batch dim"]:
    """Pool hidden states over the tokens that the mask marks, wherever the padding stands; float32.

    A sequence without a marked token gives zeros.
    """
    hidden = hidden.float()
    if pooling == "mean":
        marked = (mask != 0)[..., None]
        return hidden.masked_fill(~marked, 0.0).sum(1) / marked.sum(1).clamp(min=1)
    place = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask != 0, place, -1).amax(1)
    pooled = hidden[torch.arange(len(hidden), device=hidden.device), last.clamp(min=0)]
    return torch.where(last[:, None] >= 0, pooled, 0.0)


@final
@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A network from `transformers`.

    Attributes:
        model: Local folder or hub id.
        revision: Branch, tag or commit of a hub id; None is its main branch, pinned to today's commit in `identity`.
        pooling: The last token's state, or the mean over the tokens.
        max_length: Tokens read; a longer text loses its beginning, because the response stands at the end. None is the
            model's own limit, at most 2048.
        with_prompt: Whether the prompt is read before the response.
        chat_template: Whether the model's chat template is applied. None applies it to chats; True also to texts, the
            prompt as the user's turn; False joins the messages by blank lines.
        precision: Number format of the network: auto, float32, bfloat16 or float16.
        stored: Number format of the features: float16 or float32.
        trust_remote_code: Whether code that comes with the model may run.
    """

    kind: ClassVar[str] = "hf"
    model: str
    revision: str | None = None
    pooling: str = "last"
    max_length: int | None = None
    with_prompt: bool = True
    chat_template: bool | None = None
    precision: str = "auto"
    stored: str = "float16"
    trust_remote_code: bool = False
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, ("last", "mean"))
        check_source(self.model, self.revision)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("stored", self.stored, STORED)
        if self.max_length is not None and self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}; it must be at least 2")

    @cached_property
    def weights(self) -> dict[str, object]:
        """Which weights exactly."""
        return identify(self.model, self.revision)

    @property
    def identity(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            **self.weights,
            "pooling": self.pooling,
            "max_length": self.max_length,
            "with_prompt": self.with_prompt,
            "chat_template": self.chat_template,
            "precision": pick_precision(self.precision),
        }

    @cached_property
    def config(self) -> Any:
        from transformers import AutoConfig

        name, revision = load_argument(self.model, self.weights)
        try:
            config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ConfigError(f'"{self.model}" cannot be read as a transformers model: {error}') from error
        if config.is_encoder_decoder:
            raise ConfigError(f'"{self.model}" is an encoder-decoder; a decoder or an encoder is accepted')
        return config.get_text_config()

    @property
    def dim(self) -> int:
        return int(self.config.hidden_size)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        name, revision = load_argument(self.model, self.weights)
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=self.trust_remote_code)

    @cached_property
    def limit(self) -> int:
        """Tokens read of a text at most."""
        positions = getattr(self.config, "max_position_embeddings", None) or MAX_LENGTH
        most = min(int(positions), int(self.tokenizer.model_max_length))
        if self.max_length is None:
            return min(most, MAX_LENGTH)
        if self.max_length > positions:
            raise ConfigError(f"max_length is {self.max_length}, but {self.model} reads at most {most} tokens")
        return self.max_length

    def tokens(self, items: Sequence[Item]) -> list[list[int]]:
        """Tokenize items, uncut."""
        texts, special = [], []
        for item in items:
            templated = item.chat if self.chat_template is None else self.chat_template
            texts.append(self._apply_template(item) if templated else item.text(prompt=self.with_prompt))
            special.append(not templated)  # a template writes its own special tokens
        ids: list[list[int]] = [[] for _ in items]
        for add in {*special}:
            places = [i for i, s in enumerate(special) if s == add]
            coded = self.tokenizer([texts[i] for i in places], add_special_tokens=add, verbose=False)["input_ids"]
            for i, row in zip(places, coded, strict=True):
                ids[i] = row
        return ids

    def _apply_template(self, item: Item) -> str:
        if self.tokenizer.chat_template is None:
            raise ConfigError(
                f'"{self.model}" has no chat template, and the items are chats',
                hint="chat_template=False joins the messages by blank lines",
            )
        messages = item.messages() if self.with_prompt else item._replace(prompt="").messages()
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:  # a template raises what it likes
            raise DataError(f'the chat template of "{self.model}" refuses {item.response[:60]!r}: {error}') from error

    def count_cut(self, items: Sequence[Item]) -> int:
        """Number of items that are longer than the limit."""
        return sum(len(ids) > self.limit for ids in self.tokens(items))

    def cut(self, ids: list[int]) -> list[int]:
        """Keep the end of a text, and the special token it begins with."""
        if len(ids) <= self.limit:
            return ids
        head = ids[:1] if ids[0] in self.tokenizer.all_special_ids else []
        return head + ids[len(ids) - self.limit + len(head) :]

    def network(self, device: str) -> Any:
        """The model on a device, loaded once.

        Raises:
            ConfigError: The checkpoint lacks weights of the network, which would be random.
        """
        if "model" not in self._loaded:
            from transformers import AutoModel

            name, revision = load_argument(self.model, self.weights)
            with no_loading_bars():
                model, info = AutoModel.from_pretrained(
                    name,
                    revision=revision,
                    dtype=getattr(torch, pick_precision(self.precision)),
                    trust_remote_code=self.trust_remote_code,
                    output_loading_info=True,
                )
            missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
            if missing:
                raise ConfigError(
                    f'"{self.model}" lacks {len(missing)} of the network\'s weights, the first is {missing[0]}; '
                    "they would be random"
                )
            model.config.use_cache = False
            self._loaded["model"] = model.eval().requires_grad_(False)
        return self._loaded["model"].to(device)

    def encode(self, items: Sequence[Item], *, device: str | None = None, batch_size: int = 32) -> np.ndarray:
        """Return float32 features, (items, dim). Longest texts go first, so that memory runs out at once or never."""
        place = pick_device(device)
        model = self.network(place)
        ids = [self.cut(row) for row in self.tokens(items)]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        out = np.empty((len(ids), self.dim), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            tokens, mask = pad_right([ids[i] for i in batch])
            try:
                with torch.inference_mode():
                    hidden = model(input_ids=tokens.to(place), attention_mask=mask.to(place)).last_hidden_state
                    out[batch] = pool_hidden(hidden, mask.to(place), self.pooling).numpy(force=True)
            except torch.OutOfMemoryError as error:
                raise ConfigError(
                    f"{place} has no memory for {len(batch)} texts of {tokens.shape[1]} tokens",
                    hint="lower batch_size or max_length",
                ) from error
        return out


def pad_right(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "batch length"], Int[Tensor, "batch length"]]:
    """Stack token rows; 0 stands where the mask is 0. An empty row keeps one unmarked place."""
    length = max(1, *map(len, rows))
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = 1
    return tokens, mask
