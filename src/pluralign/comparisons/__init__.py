"""Comparisons: who chose what. Reading, converting, checking, splitting and writing them."""

from pluralign.comparisons.chats import decode_chat, encode_chat
from pluralign.comparisons.checks import Finding, check
from pluralign.comparisons.columns import Columns
from pluralign.comparisons.conversions import from_best_of, from_rankings, from_ratings, from_votes
from pluralign.comparisons.reading import read
from pluralign.comparisons.splits import (
    Split,
    StudySplit,
    fold_by_source,
    group_rows,
    split_by_item,
    split_by_source,
    split_given,
    split_last,
    split_users,
    study_split,
)
from pluralign.comparisons.table import Comparisons, Items, from_attributes, from_columns
from pluralign.comparisons.writing import load, save, to_table, to_trl, write_jsonl

__all__ = [
    "Columns",
    "Comparisons",
    "Finding",
    "Items",
    "Split",
    "StudySplit",
    "check",
    "decode_chat",
    "encode_chat",
    "fold_by_source",
    "from_attributes",
    "from_best_of",
    "from_columns",
    "from_rankings",
    "from_ratings",
    "from_votes",
    "group_rows",
    "load",
    "read",
    "save",
    "split_by_item",
    "split_by_source",
    "split_given",
    "split_last",
    "split_users",
    "study_split",
    "to_table",
    "to_trl",
    "write_jsonl",
]
