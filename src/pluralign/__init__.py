"""Learn what each person prefers, rather than what people prefer on average, from pairwise choices."""

__version__ = "0.1.0"
