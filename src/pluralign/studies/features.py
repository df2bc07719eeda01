"""Features of all items of a table, as some training rows make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from pluralign.comparisons import Comparisons
from pluralign.features import (
    Encoder,
    Lookup,
    Standardizer,
    Trainable,
    default_encoder,
    encode,
    fit_encoder,
    make_encoder,
    used_items,
)

Step = Callable[[str], None]


def say_nothing(step: str) -> None:
    """The step that nobody wants to hear of."""


class FeatureSource:
    """An encoder and a table. What learns from texts or scales learns from the training rows' items alone.

    Args:
        comparisons: The whole table.
        encoder: As `make_encoder` names them, or "auto".
        cache_dir: Feature cache, for encoders that do not learn from the rows.
        device: Where encoders run and features lie.
        on_step: Called before a long step.
    """

    def __init__(
        self,
        comparisons: Comparisons,
        encoder: str = "auto",
        *,
        cache_dir: Path | None = None,
        device: str = "cpu",
        on_step: Step = say_nothing,
    ) -> None:
        self.comparisons, self.cache_dir, self.device, self.on_step = comparisons, cache_dir, device, on_step
        self.encoder = default_encoder(comparisons) if encoder == "auto" else make_encoder(encoder)
        self._raw: np.ndarray | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What the features depend on, but for the training rows."""
        if isinstance(self.encoder, Trainable):
            return {"kind": type(self.encoder).__name__, **asdict(self.encoder)}  # type: ignore[call-overload]
        return self.encoder.identity

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"on_step": say_nothing}  # whoever listens does so in this process

    def prepare(self) -> None:
        """Encode what does not depend on training rows, once for everybody who gets a copy."""
        if self._raw is None and not isinstance(self.encoder, Trainable):
            self.on_step("encode the items")
            self._raw = encode(self.comparisons, self.encoder, cache_dir=self.cache_dir, device=self.device)

    def of(self, train: Comparisons) -> tuple[Encoder | Lookup, Standardizer, Tensor]:
        """The encoder and the standardizer as `train` makes them, and the features of all items, (items, dim)."""
        encoder: Encoder | Lookup
        if isinstance(self.encoder, Trainable):
            encoder = fit_encoder(self.encoder, train)
            raw = encode(self.comparisons, encoder, device=self.device, progress=False)
        else:
            self.prepare()
            assert self._raw is not None
            encoder, raw = self.encoder, self._raw
        standardizer = Standardizer.fit(raw, used_items(train))
        return encoder, standardizer, standardizer.transform(raw, device=self.device)
