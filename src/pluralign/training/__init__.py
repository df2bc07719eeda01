"""Training language models on comparisons by people who disagree."""
