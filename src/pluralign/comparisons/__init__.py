"""Comparisons: who chose what."""

from pluralign.comparisons.reading import read
from pluralign.comparisons.table import Comparisons, Items, from_attributes, from_columns

__all__ = ["Comparisons", "Items", "from_attributes", "from_columns", "read"]
