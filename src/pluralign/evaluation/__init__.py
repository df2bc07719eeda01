"""Scores with intervals, controls and calibration."""

from pluralign.evaluation.controls import other_users, permute_within, shuffle_membership
from pluralign.evaluation.few_shot import FewShot, draw_contexts, feasible_sizes, split_few_shot
from pluralign.evaluation.intervals import Interval, holm, mean_interval, paired_difference
from pluralign.evaluation.predictions import Predictions, combine_seeds
from pluralign.evaluation.scores import Calibration, Scores, UserScores, calibrate, score, score_users
from pluralign.evaluation.table import Row, Table, UserGains, compare, user_gains

__all__ = [
    "Calibration",
    "FewShot",
    "Interval",
    "Predictions",
    "Row",
    "Scores",
    "Table",
    "UserGains",
    "UserScores",
    "calibrate",
    "combine_seeds",
    "compare",
    "draw_contexts",
    "feasible_sizes",
    "holm",
    "mean_interval",
    "other_users",
    "paired_difference",
    "permute_within",
    "score",
    "score_users",
    "shuffle_membership",
    "split_few_shot",
    "user_gains",
]
