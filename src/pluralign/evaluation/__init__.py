"""Scores with intervals, controls and calibration."""

from pluralign.evaluation.predictions import Predictions

__all__ = ["Predictions"]
