"""Ask one person, question by question, until the rule says stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from pluralign.errors import ConfigError
from pluralign.queries.enquiry import Enquiry
from pluralign.queries.pool import show_prompt, show_response
from pluralign.queries.scores import check_method
from pluralign.queries.value import Value

EPSILON = 0.01  # nats of reward
Reply: TypeAlias = Literal["first", "second", "skip", "quit"]


class Question(NamedTuple):
    """A pair as it is put to somebody: its responses in random order.

    Attributes:
        number: 1, 2, 3, ..., skipped ones included.
        row: Row of the pool that was given.
        prompt: Empty where there is none.
        first: What is shown first.
        second: What is shown second.
        probability: Of the one shown first being preferred, as far as is known.
        gain: Information in the answer about this person, in nats.
    """

    number: int
    row: int
    prompt: str
    first: str
    second: str
    probability: float
    gain: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Interview:
    """How it ended.

    Attributes:
        enquiry: What is known of the person.
        reason: "enough" (no question is worth asking), "limit" (of questions), "quit", or "pool" (all were asked).
        skipped: Questions that were put and not answered.
        value: What one more answer was expected to gain, when last looked at.
    """

    enquiry: Enquiry
    reason: Literal["enough", "limit", "quit", "pool"]
    skipped: int
    value: Value | None


def interview(
    enquiry: Enquiry,
    put: Callable[[Question], Reply],
    *,
    n: int = 20,
    epsilon: float = EPSILON,
    method: str = "information_gain",
    seed: int = 0,
    on_answer: Callable[[Enquiry], None] = lambda enquiry: None,
) -> Interview:
    """Ask until no question is worth asking.

    Args:
        enquiry: Whom, and from which pool.
        put: Shows a question and returns what was said.
        n: Most answers wanted.
        epsilon: Stop when one more answer is expected to gain less than this in the reward of the response chosen for
            a prompt, in nats; 0 never stops.
        method: How questions are chosen, one of `METHODS`.
        seed: Of the order in which responses are shown, and of `random`.
        on_answer: Called after every answer that is no skip.

    Raises:
        ConfigError: An unknown method, or a negative number.
    """
    check_method(method)
    if n < 1 or epsilon < 0:
        raise ConfigError(f"n is {n} and epsilon {epsilon}; n must be at least 1 and epsilon at least 0")
    rng = np.random.default_rng(seed)
    skipped, value = 0, None
    while True:
        if not enquiry.open.any():
            return Interview(enquiry=enquiry, reason="pool", skipped=skipped, value=value)
        if len(enquiry.rows) >= n:
            return Interview(enquiry=enquiry, reason="limit", skipped=skipped, value=value)
        value = enquiry.value()
        if value.stop(epsilon):
            return Interview(enquiry=enquiry, reason="enough", skipped=skipped, value=value)
        row = int(enquiry.propose(method=method, seed=seed).rows[0])
        turned = bool(rng.random() < 0.5)
        reply = put(_question(enquiry, row, turned, len(enquiry.rows) + skipped + 1))
        if reply == "quit":
            return Interview(enquiry=enquiry, reason="quit", skipped=skipped, value=value)
        if reply == "skip":
            enquiry, skipped = enquiry.skip(row), skipped + 1
            continue
        enquiry = enquiry.answer(row, first=(reply == "first") != turned, position=-1 if turned else 1)
        on_answer(enquiry)


def _question(enquiry: Enquiry, row: int, turned: bool, number: int) -> Question:
    pool, belief = enquiry.pool, enquiry.belief
    items = [int(pool.chosen[row]), int(pool.rejected[row])]
    first, second = (show_response(pool, item) for item in (reversed(items) if turned else items))
    probability = float(belief.predictive()[row])
    return Question(
        number=number,
        row=int(enquiry.origin[row]),
        prompt=show_prompt(pool, row),
        first=first,
        second=second,
        probability=1 - probability if turned else probability,
        gain=float(belief.information_gain()[row]),
    )
