"""Sentence embeddings from a sentence-transformers model: Reimers and Gurevych (2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, final

import numpy as np

from pluralign.errors import ConfigError
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
    require,
)
from pluralign.features.texts import Item


@final
@dataclass(frozen=True, kw_only=True)
class SentenceTransformer:
    """A network from sentence-transformers, with its own pooling.

    Attributes:
        model: Local folder or hub id.
        revision: Branch, tag or commit of a hub id; None is its main branch, pinned to today's commit in `identity`.
        max_length: Tokens read; a longer text loses its end. These models stop early by default (at 256, say), and
            silently.
        with_prompt: Whether the prompt is read before the response. A long prompt leaves no room for the response.
        precision: Number format of the network: auto, float32, bfloat16 or float16.
        stored: Number format of the features: float16 or float32.
        trust_remote_code: Whether code that comes with the model may run.
    """

    kind: ClassVar[str] = "st"
    model: str
    revision: str | None = None
    max_length: int = 512
    with_prompt: bool = False
    precision: str = "auto"
    stored: str = "float16"
    trust_remote_code: bool = False
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require("sentence_transformers", f"st:{self.model}", "embed")
        check_source(self.model, self.revision)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("stored", self.stored, STORED)
        if self.max_length < 2:
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
            "max_length": self.max_length,
            "with_prompt": self.with_prompt,
            "precision": pick_precision(self.precision),
        }

    @property
    def dim(self) -> int:
        return int(self.network("cpu" if "model" not in self._loaded else None).get_embedding_dimension())

    def network(self, device: str | None) -> Any:
        """The model, loaded once, moved to a device where one is named."""
        if "model" not in self._loaded:
            import sentence_transformers
            import torch

            name, revision = load_argument(self.model, self.weights)
            with no_loading_bars():
                model = sentence_transformers.SentenceTransformer(
                    name,
                    device=device,
                    revision=revision,
                    trust_remote_code=self.trust_remote_code,
                    model_kwargs={"dtype": getattr(torch, pick_precision(self.precision))},
                )
            config = getattr(getattr(model[0], "auto_model", None), "config", None)
            positions = getattr(config, "max_position_embeddings", None)
            if positions and self.max_length > positions:
                raise ConfigError(f"max_length is {self.max_length}, but {self.model} reads at most {positions} tokens")
            model.max_seq_length = self.max_length
            self._loaded["model"] = model.eval()
        return self._loaded["model"] if device is None else self._loaded["model"].to(device)

    def count_cut(self, items: Sequence[Item]) -> int:
        """Number of items that are longer than `max_length` tokens."""
        texts = [item.text(prompt=self.with_prompt) for item in items]
        ids = self.network(None).tokenizer(texts, verbose=False)["input_ids"]
        return sum(len(row) > self.max_length for row in ids)

    def encode(self, items: Sequence[Item], *, device: str | None = None, batch_size: int = 32) -> np.ndarray:
        """Return float32 features, (items, dim)."""
        texts = [item.text(prompt=self.with_prompt) for item in items]
        vectors = self.network(pick_device(device)).encode(texts, batch_size=batch_size, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)
