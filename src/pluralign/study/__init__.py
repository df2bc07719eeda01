"""The whole pipeline, from comparisons to a verdict."""
