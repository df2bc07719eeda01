"""Public sets of preference data, each read from local files (or, where it is there, the Hugging Face hub)."""

from pluralign.datasets.registry import Dataset, describe, load, names

__all__ = ["Dataset", "describe", "load", "names"]
