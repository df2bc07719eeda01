"""What turns items into vectors, and how one is named: `make_encoder("tfidf")`, `make_encoder("hf:owner/name")`.

| name | reads | learns | width |
|---|---|---|---|
| `tfidf` | words, word pairs and style of the response | yes | at most 128 + 28 |
| `style` | length, layout, punctuation and stance of the response | no | 28 |
| `attributes` | numeric items as they are | no | theirs |
| `hf:MODEL` | any causal LM, reward model or BERT, a folder or a hub id | no | the model's |
| `st:MODEL` | any sentence-transformers model, a folder or a hub id | no | the model's |
| `array:FILE` | features that exist: `.npy` or `.safetensors` | no | the file's |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
from typing_extensions import Protocol, runtime_checkable  # on 3.11 isinstance by `typing` would load the network

from pluralign.comparisons import Comparisons
from pluralign.errors import CacheError, ConfigError
from pluralign.features.arrays import Attributes, Precomputed
from pluralign.features.sentence import SentenceTransformer
from pluralign.features.style import Style
from pluralign.features.texts import Item, list_items, used_items
from pluralign.features.tfidf import FittedTfidf, Tfidf
from pluralign.features.transformer import Transformer
from pluralign.files import replacing, write_json


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors, each text by itself."""

    kind: ClassVar[str]

    @property
    def identity(self) -> dict[str, object]:
        """Everything that its vectors depend on, as JSON; two encoders with one identity give one vector."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    @property
    def stored(self) -> str:
        """Precision its vectors are kept in, "float16" or "float32"."""

    def encode(self, items: Sequence[Item], *, device: str | None = None, batch_size: int = 32) -> np.ndarray:
        """Return the vectors of some texts, (items, dim). Encoders without a network ignore the settings."""


@runtime_checkable
class Trainable(Protocol):
    """Becomes an encoder once it has seen the items of the training rows."""

    def fit(self, items: Sequence[Item]) -> Encoder:
        """Learn from training items."""


Lookup: TypeAlias = Attributes | Precomputed  # they know the vectors of a table's items already
AnyEncoder: TypeAlias = Encoder | Trainable | Lookup

PLAIN: dict[str, Callable[..., AnyEncoder]] = {"attributes": Attributes, "style": Style, "tfidf": Tfidf}
FROM: dict[str, Callable[..., AnyEncoder]] = {"array": Precomputed, "hf": Transformer, "st": SentenceTransformer}
KNOWN = ", ".join(sorted([*PLAIN, *(f"{name}:..." for name in FROM)]))


def make_encoder(spec: str, **settings: Any) -> AnyEncoder:
    """Make an encoder from its name, "tfidf", or its kind and source, "hf:owner/name".

    Args:
        spec: See the table at the head of this module.
        settings: Fields of the encoder's class, `pooling="mean"` for "hf:...", say.

    Raises:
        ConfigError: There is no such encoder, setting, model, file or package.
    """
    kind, colon, source = spec.partition(":")
    if colon and kind in FROM and source:
        make = FROM[kind]
        given = {"path": Path(source).expanduser()} if kind == "array" else {"model": source}
    elif not colon and kind in PLAIN:
        make, given = PLAIN[kind], {}
    elif kind in FROM:
        raise ConfigError(f'encoder "{spec}" names no source', hint=f'write "{kind}:" and a {_source(kind)}')
    else:
        raise ConfigError(f'unknown encoder "{spec}"; known: {KNOWN}')
    accepted = [f.name for f in fields(make) if f.init and f.name not in given]  # type: ignore[arg-type]
    unknown = sorted(settings.keys() - accepted)
    if unknown:
        raise ConfigError(f'encoder "{kind}" has no setting "{unknown[0]}"; it has: {", ".join(accepted) or "none"}')
    return make(**given, **settings)


def _source(kind: str) -> str:
    return ".npy or .safetensors file" if kind == "array" else "local folder or a hub id"


def default_encoder(comparisons: Comparisons) -> AnyEncoder:
    """Return the encoder for data of which nothing else is said: `attributes` for numeric items, else `tfidf`."""
    return Attributes() if comparisons.format == "numeric" else Tfidf()


def fit_encoder(encoder: AnyEncoder, train: Comparisons) -> Encoder | Lookup:
    """Let an encoder that learns from texts learn from the items of the training rows; return others as they are."""
    if not isinstance(encoder, Trainable):
        return encoder
    items = list_items(train.items, chat=train.format == "chat")
    return encoder.fit([items[i] for i in used_items(train)])


def save_encoder(encoder: Encoder | Lookup, folder: Path) -> None:
    """Write what `load_encoder` needs to score new texts: settings as JSON, learnt numbers as safetensors.

    Raises:
        ConfigError: The encoder is of a kind that is not known here.
    """
    note: dict[str, object]
    if isinstance(encoder, FittedTfidf):
        from safetensors.numpy import save_file

        arrays = {"terms": encoder.terms, "rarity": encoder.rarity, "directions": encoder.directions}
        with replacing(folder / "encoder.safetensors") as part:
            save_file(arrays, part)
        note = {"spec": "tfidf", "settings": asdict(encoder.settings)}
    elif isinstance(encoder, Style | Attributes):
        note = {"spec": encoder.kind, "settings": {}}
    elif isinstance(encoder, Precomputed):
        note = {"spec": f"array:{encoder.path}", "settings": {}}
    elif isinstance(encoder, Transformer | SentenceTransformer):
        settings = {f.name: getattr(encoder, f.name) for f in fields(encoder) if f.init and f.name != "model"}
        # The precision and the commit of today, so that another machine on another day computes the same.
        settings |= {"precision": encoder.identity["precision"], "revision": encoder.weights.get("revision")}
        note = {"spec": f"{encoder.kind}:{encoder.model}", "settings": settings}
    else:
        raise ConfigError(f"{type(encoder).__name__} cannot be saved; known: {KNOWN}")
    write_json(folder / "encoder.json", note | {"identity": encoder.identity})


def load_encoder(folder: Path) -> Encoder | Lookup:
    """Read what `save_encoder` wrote.

    Raises:
        CacheError: The folder holds no encoder, or the model it names has changed since.
    """
    path = folder / "encoder.json"
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        spec, settings, identity = note["spec"], note["settings"], note["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{path} holds no encoder: {error}") from error
    encoder: Encoder | Lookup
    if spec == "tfidf":
        from safetensors.numpy import load_file

        encoder = FittedTfidf(settings=Tfidf(**settings), **load_file(folder / "encoder.safetensors"))
    else:
        encoder = cast(Encoder | Lookup, make_encoder(spec, **settings))
    if encoder.identity != identity:
        raise CacheError(f'"{spec}" is not what it was when {path} was written', hint="encode and fit again")
    return encoder
