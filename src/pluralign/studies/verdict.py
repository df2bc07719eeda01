"""What to train, said from held-out evidence.

The rung is chosen inside the training rows, by cross-validation; the test rows are looked at once, to ask whether that
rung's gain over `pooled` is real. Three things must hold before users get models of their own:

1. cross-validation prefers the rung to `pooled` by more than one standard error (clustered by user);
2. on the test rows its gain in log-probability over `pooled` has an interval above 0;
3. so has its gain over `reliability`: users who only differ in how noisily they answer share one taste.

Log-probability decides because it is proper: accuracy moves only when a prediction crosses one half. Both are reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pluralign.evaluation import Interval

SHARED = ("pooled", "reliability")  # rungs in which everybody has the same taste

Answer = Literal["personalise", "do not personalise"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The recommendation of a study.

    Attributes:
        answer: Whether users should get rewards of their own.
        rung: The rung to train.
        candidate: The rung that cross-validation chose; not `rung` where the test rows did not bear it out.
        reason: One plain paragraph.
        gain: Test gain of the candidate over `pooled` in nats per decision.
        gain_accuracy: The same in accuracy.
        gain_over_reliability: Test gain of the candidate over `reliability` in nats, where both were fitted.
    """

    answer: Answer
    rung: str
    candidate: str
    reason: str
    gain: Interval
    gain_accuracy: Interval
    gain_over_reliability: Interval | None


def decide(
    candidate: str,
    gain: Interval,
    gain_accuracy: Interval,
    gain_over_reliability: Interval | None,
    described: Mapping[str, str],
) -> Verdict:
    """Turn the candidate and its test gains into a verdict (module docstring).

    Args:
        candidate: The rung that cross-validation chose.
        gain: Its gain over `pooled` on the test rows, nats per decision.
        gain_accuracy: The same in accuracy.
        gain_over_reliability: Its gain over `reliability`, nats; None where `reliability` was not fitted.
        described: What each rung is in words, settings included ("one reward per cluster, 3 clusters").
    """
    size = (
        f"{_signed(gain_accuracy, 100.0)} points of accuracy and {_signed(gain, 1.0)} nats per decision "
        "over the pooled reward"
    )
    if candidate == "pooled":
        rung, reason = (
            "pooled",
            (
                "Train one reward for everybody. Cross-validation inside the training rows found nothing that predicts "
                "better for each user than the pooled reward does."
            ),
        )
    elif not gain.low > 0:
        rung, reason = (
            "pooled",
            (
                f"Train one reward for everybody. Cross-validation preferred {described[candidate]}, but on held-out "
                f"decisions it gains {size}: an interval that does not exclude 0."
            ),
        )
    elif candidate == "reliability":
        rung, reason = (
            "reliability",
            (
                "Train one reward for everybody, and model how reliably each user answers. Users differ in noise, not "
                f"in taste: their reliability alone gains {size}, and no model of taste does better."
            ),
        )
    elif gain_over_reliability is not None and not gain_over_reliability.low > 0:
        rung, reason = (
            "reliability",
            (
                "Train one reward for everybody. Users differ, but in how reliably they answer: beyond that, "
                f"{described[candidate]} gains {_signed(gain_over_reliability, 1.0)} nats per decision, an interval "
                "that does not exclude 0."
            ),
        )
    else:
        rung, reason = candidate, f"Train {described[candidate]}. On held-out decisions it gains {size}."
    return Verdict(
        answer="do not personalise" if rung in SHARED else "personalise",
        rung=rung,
        candidate=candidate,
        reason=reason,
        gain=gain,
        gain_accuracy=gain_accuracy,
        gain_over_reliability=gain_over_reliability,
    )


def _signed(interval: Interval, scale: float) -> str:
    digits = 1 if scale == 100 else 3
    low, high = interval.low * scale, interval.high * scale
    return f"{interval.estimate * scale:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
