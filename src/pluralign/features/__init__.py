"""Features of items: encoders, the cache, standardization, and the design of a linear fit on them."""

from pluralign.features.arrays import Attributes, Precomputed, save_features
from pluralign.features.cache import default_cache_dir, encode, encode_items
from pluralign.features.design import Design
from pluralign.features.encoders import (
    Encoder,
    Lookup,
    Trainable,
    default_encoder,
    fit_encoder,
    load_encoder,
    make_encoder,
    save_encoder,
)
from pluralign.features.sentence import SentenceTransformer
from pluralign.features.standardize import Standardizer, to_tensor
from pluralign.features.style import STYLE_NAMES, Style
from pluralign.features.texts import Item, list_items, used_items
from pluralign.features.tfidf import FittedTfidf, Tfidf
from pluralign.features.transformer import Transformer

__all__ = [
    "STYLE_NAMES",
    "Attributes",
    "Design",
    "Encoder",
    "FittedTfidf",
    "Item",
    "Lookup",
    "Precomputed",
    "SentenceTransformer",
    "Standardizer",
    "Style",
    "Tfidf",
    "Trainable",
    "Transformer",
    "default_cache_dir",
    "default_encoder",
    "encode",
    "encode_items",
    "fit_encoder",
    "list_items",
    "load_encoder",
    "make_encoder",
    "save_encoder",
    "save_features",
    "to_tensor",
    "used_items",
]
