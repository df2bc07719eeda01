"""Estimation: from comparisons and features to a fitted rung of the ladder."""
