"""Features of items, and the design of a linear fit on them."""

from pluralign.features.design import Design

__all__ = ["Design"]
