"""What sections read from `results.json`: intervals, texts that are safe to show, numbers as a reader expects them.

Texts come from users, annotators and models, so nothing is known of them. `clean` makes any text one that HTML, SVG and
CSV can hold; that it is never read as markup is the renderers' business.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pluralign.errors import DataError

Number = float | int  # in annotations that are checked as tests run, an int is no float
MINUS = "\u2212"
RESULTS = "results.json"
LONGEST = 1200  # characters shown of one text
# Characters that XML cannot hold, lone surrogates, and those that turn the direction of the text around them.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_SPACE = re.compile(r"\s+")
_NEEDED = ("verdict", "ladder", "data")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimate and the ends of its interval, None where it has none."""

    value: float
    low: float | None
    high: float | None

    def scaled(self, factor: Number) -> Estimate:
        """The same in another unit; the factor is above 0."""
        return Estimate(
            value=self.value * factor,
            low=None if self.low is None else self.low * factor,
            high=None if self.high is None else self.high * factor,
        )


def read_results(folder: Path) -> dict[str, Any]:
    """Read the results of a study.

    Raises:
        DataError: The folder has none, or the file is not what a study writes.
    """
    path = folder / RESULTS
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder} has no {RESULTS}", hint="name the folder that `pluralign study --out` wrote"
        ) from None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error}", hint="run the study again; it goes on from what it kept"
        ) from None
    missing = [key for key in _NEEDED if not isinstance(found, Mapping) or not isinstance(found.get(key), Mapping)]
    if missing:
        raise DataError(f"{path} has no {missing[0]}", hint="it must be the results.json of `pluralign study`")
    return dict(found)


def estimate(given: object) -> Estimate | None:
    """An interval of `results.json`, or None where there is none."""
    if not isinstance(given, Mapping):
        return None
    value = number(given.get("estimate"))
    return (
        None if value is None else Estimate(value=value, low=number(given.get("low")), high=number(given.get("high")))
    )


def number(given: object) -> float | None:
    """A finite number, or None."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        return None
    return float(given)


def part(given: object, *path: str) -> dict[str, Any]:
    """A mapping inside mappings by its keys; empty where any of them is missing or null."""
    for key in path:
        given = given.get(key) if isinstance(given, Mapping) else None
    return dict(given) if isinstance(given, Mapping) else {}


def entries(given: object) -> list[dict[str, Any]]:
    """A list of mappings; empty where it is missing or null."""
    return [dict(each) for each in given if isinstance(each, Mapping)] if isinstance(given, list) else []


def clean(given: object, limit: int | None = None) -> str:
    """Any value as text that HTML, SVG and CSV can hold, cut after `limit` characters with a word on how many are left.

    Control characters, lone surrogates and marks that turn the direction of the text around them become U+FFFD.
    """
    if given is None:
        return ""
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    more = 0
    if limit is not None and len(text) > limit:
        text, more = text[:limit], len(text) - limit
    text = _UNFIT.sub("\ufffd", text.replace("\r\n", "\n"))
    return f"{text}… ({more:,} more characters)" if more else text


def short(given: object, limit: int = 40) -> str:
    """A text as a label: one line, of at most `limit` characters."""
    text = given if isinstance(given, str) else clean(given)
    text = _SPACE.sub(" ", clean(text[: 4 * limit])).strip()
    return text if len(text) <= limit and len(text) >= 1 else (text[: limit - 1] + "…" if text else "(empty)")


def fixed(value: Number | None, digits: int = 3) -> str:
    """A number with a true minus sign; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: Number | None, digits: int = 1) -> str:
    """A number with its sign, 0 without one."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def percent(value: Number | None, digits: int = 0) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{fixed(100 * value, digits)} %"


def count(value: Number | None) -> str:
    """A whole number with commas between thousands."""
    return "–" if value is None else f"{value:,.0f}".replace("-", MINUS)


def p_value(value: Number | None) -> str:
    """A p-value to two digits that count."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def span(given: Estimate | None, digits: int = 3, *, sign: bool = False, factor: Number = 1) -> str:
    """An estimate with its interval in brackets."""
    if given is None:
        return "–"
    shown, write = given.scaled(factor), signed if sign else fixed
    if shown.low is None or shown.high is None:
        return write(shown.value, digits)
    return f"{write(shown.value, digits)} [{write(shown.low, digits)}, {write(shown.high, digits)}]"


def flat(name: str, given: Estimate | None) -> dict[str, float | None]:
    """An interval as columns of a CSV file: name, name_low, name_high."""
    if given is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: given.value, f"{name}_low": given.low, f"{name}_high": given.high}
