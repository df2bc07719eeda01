"""Signs in a response that say how it was written or stored: markup, white space, how it begins and ends.

Two kinds. What is *stored* (a printed list, an escaped line break, a stray quotation mark, a chat's special token)
nobody saw and nobody prefers: where it tells chosen from rejected the labels have leaked. The published case is a
loader that passed the rejected reply as a list to a chat template, so that it was printed with brackets, and a model of
one dimension learnt the brackets. What is *written* (bullets, bold, a question mark) may be liked.

A sign is tested on texts, not rows: a text that bears it counts once, by whether it won or lost most of its comparisons
with texts that do not. So one popular response that happens to end in a blank is no finding. The bound on the share is
Clopper and Pearson's, on no more texts than there are distinct opponents, shared among all signs that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from pluralign.comparisons.checks import PRINTED_LIST
from pluralign.scans.findings import LEVEL, Finding, Severity, count_of, some_rows
from pluralign.scans.texts import Texts, numbers
from pluralign.scans.wins import Wins, lower_bound
from pluralign.types import FloatArray

STORED = {
    "a printed list": "(?s)" + PRINTED_LIST,
    "a JSON object": r"(?s)^\s*\{\s*\".*\}\s*$",
    "a printed bytes literal": r"(?s)^b['\"].*['\"]$",
    "quotation marks around the whole": r"(?s)^\s*(\"[^\"]*\"|'[^']*'|“[^”]*”)\s*$",
    "white space at the beginning": r"^\s",
    "white space at the end": r"\s$",
    "an escaped line break": r"\\n",
    "an HTML entity": r"&(?:amp|lt|gt|quot|nbsp|#\d+);",
    "a special token": r"<\|[a-z_]+\|>|</?s>|\[/?INST\]|<(?:pad|eos|bos|unk)>|\[(?:PAD|SEP|CLS)\]",
    "a speaker's label": r"(?i)^\s*(?:human|user|assistant|bot|ai)\s*:",
    "a label of its place": r"(?i)^\s*(?:(?:response|answer|option|output|completion|summary|model)\s*[AB12]\s*[:.)\n]"
    r"|(?:chosen|rejected)\s*:)",
    "a missing value in words": r"^\s*(?:None|nan|NaN|null|NULL|N/A)\s*$",
    "Windows line ends": r"\r\n",
    "characters that were lost": r"\x{FFFD}|Ã[\x{80}-\x{BF}]|â€",
    "invisible characters": r"[\x{200B}-\x{200D}\x{2060}\x{FEFF}\x{00}-\x{08}]",
}
WRITTEN = {
    "bullets": r"(?m)^\s*[-*•]\s",
    "numbered points": r"(?m)^\s*\(?\d+[.)]\s",
    "headings": r"(?m)^\s*#{1,6}\s",
    "bold": r"\*\*[^*\n]+\*\*|__[^_\n]+__",
    "a code fence": r"```",
    "inline code": r"`[^`\n]+`",
    "HTML tags": r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>",
    "a table": r"(?m)^\s*\|.*\|\s*$",
    "a link": r"https?://|www\.",
    "paragraphs": r"\n\s*\n",
    "line breaks": r"\n",
    "a small first letter": r"^\s*\p{Ll}",
    "no capital at all": r"^[^\p{Lu}]*$",
    "only capitals": r"^[^\p{Ll}]*\p{Lu}[^\p{Ll}]*$",
    "a sentence's end": r"[.!?][\"'”’)\]]*\s*$",
    "a question mark at the end": r"\?\s*$",
    "an ellipsis at the end": r"(?:\.\.\.|…)\s*$",
    "a comma at the end": r"[,;:]\s*$",
    "an end in mid-sentence": r"[\p{L}\p{N}]\s*$",
    "an exclamation mark": r"!",
    "emoji": r"[\x{1F300}-\x{1FAFF}\x{2600}-\x{27BF}]",
}
COUNTED = ("bullets", "numbered points", "bold", "paragraphs", "line breaks", "an exclamation mark")
LEAK, TELLS = 0.8, 0.5  # least share of the texts on one side, for what is stored
EDGE = 0.9  # and for how texts begin and end
WIDTHS = (1, 2, 4, 8, 16)  # characters of a beginning or an end
MOST_EDGES = 50  # that are looked at closely, those in most rows
FEWEST = 20  # texts with a beginning or an end, for it to be looked at
ADVICE = (
    "make the format the same on both sides where the data were made (render chats by one template, strip, unescape), "
    "or drop these rows; until then no accuracy on them means anything"
)
MILD_ADVICE = (
    "look at the rows: if people did not see this, make it the same on both sides; if they did, say that a model will "
    "learn it"
)


def format_columns(texts: Texts) -> FloatArray:
    """Signs of every text, and the logarithm of how many where a text may have several, (texts, columns)."""
    signs = [texts.matches(pattern) for pattern in (STORED | WRITTEN).values()]
    counts = [np.log1p(numbers(pc.count_substring_regex(texts.text, pattern=WRITTEN[name]))) for name in COUNTED]
    return np.stack([*signs, *counts], axis=1).astype(np.float64)


@dataclass(frozen=True, eq=False, kw_only=True)
class OneSided:
    """How texts of each code fare against texts of other codes.

    Attributes:
        won: Texts that won most of their comparisons with other codes, (codes,).
        n: Texts that won or lost most, (codes,).
        rows_won: Rows that a text of the code won against another code, (codes,).
        n_rows: Rows between the code and others, (codes,).
    """

    won: np.ndarray
    n: np.ndarray
    rows_won: np.ndarray
    n_rows: np.ndarray

    @classmethod
    def of(cls, code: np.ndarray, winner: np.ndarray, loser: np.ndarray, n_codes: int) -> OneSided:
        """Count.

        Args:
            code: Code of every text, (texts,).
            winner: Winning text of every decided row, (wins,).
            loser: Losing text, (wins,).
            n_codes: Number of codes.
        """
        apart = code[winner] != code[loser]
        winner, loser = winner[apart], loser[apart]
        lead = np.bincount(winner, minlength=len(code)) - np.bincount(loser, minlength=len(code))
        return cls(
            won=np.bincount(code[lead > 0], minlength=n_codes),
            n=np.bincount(code[lead != 0], minlength=n_codes),
            rows_won=np.bincount(code[winner], minlength=n_codes),
            n_rows=np.bincount(code[winner], minlength=n_codes) + np.bincount(code[loser], minlength=n_codes),
        )

    def bound(self, n_tests: int, n_opponents: np.ndarray | None = None) -> np.ndarray:
        """Lower bound of the share of texts on the more frequent side, over all codes and both sides, (codes,)."""
        n = self.n if n_opponents is None else np.minimum(self.n, n_opponents)
        share = np.maximum(self.won, self.n - self.won) / np.maximum(self.n, 1)
        return lower_bound(share * n, n, LEVEL / 2 / max(n_tests, 1))


def find_leaks(texts: Texts, wins: Wins) -> list[Finding]:
    """Signs of format that tell the chosen response from the rejected one."""
    winner, loser = texts.of_item[wins.winner], texts.of_item[wins.loser]
    found = []
    leaked = np.zeros(len(wins), dtype=np.bool_)
    for name, pattern in (STORED | WRITTEN).items():
        bears = texts.matches(pattern)
        finding = _judge(name, bears, winner, loser, wins, stored=name in STORED)
        if finding is not None:
            found.append(finding)
            if finding.severity == "error":
                leaked |= bears[winner] != bears[loser]
    return found + _find_edges(texts, winner, loser, wins, leaked)


def _judge(
    name: str, bears: np.ndarray, winner: np.ndarray, loser: np.ndarray, wins: Wins, *, stored: bool
) -> Finding | None:
    """A finding about one sign, where it is one-sided enough for its kind."""
    apart = bears[winner] != bears[loser]
    if not apart.any():
        return None
    sides = OneSided.of(bears.astype(np.int64), winner, loser, 2)
    n_tests = len(STORED) + len(WRITTEN)
    bound = float(sides.bound(n_tests, _opponents(bears, winner, loser, apart))[1])
    severity: Severity | None
    if stored:
        severity = "error" if bound >= LEAK else "warning" if bound > TELLS else None
    else:
        severity = "warning" if bound >= EDGE else None
    if severity is None:
        return None
    said = f"{name[0].upper()}{name[1:]}"
    share, side = _side(sides, 1)
    says = "tells chosen from rejected by format alone" if severity == "error" else "goes with one side"
    return Finding(
        name="format_leak" if severity == "error" else "format_sign",
        severity=severity,
        message=f"{said} {says}: in {count_of(int(apart.sum()), 'row')} one response has it and the other has not, "
        f"and the one that has it is {side} in {share:.0%} of them ({count_of(int(sides.n[1]), 'different text')})",
        advice=ADVICE if severity == "error" else MILD_ADVICE,
        count=int(apart.sum()),
        rows=some_rows(wins.row[apart]),
    )


def _find_edges(texts: Texts, winner: np.ndarray, loser: np.ndarray, wins: Wins, leaked: np.ndarray) -> list[Finding]:
    """Beginnings and ends that nearly always win or nearly always lose, whatever they are.

    Those whose rows are mostly accounted for, by a leak or by an edge in more rows, are left out.
    """
    candidates = []
    for place in ("begin", "end"):
        for width in WIDTHS:
            start, stop = (0, width) if place == "begin" else (-width, None)
            coded = pc.utf8_slice_codeunits(texts.text, start, stop).dictionary_encode()
            code = np.asarray(coded.indices.to_numpy(zero_copy_only=False))
            edges = coded.dictionary
            often = np.bincount(code, minlength=len(edges)) >= FEWEST
            whole = numbers(pc.utf8_length(edges)) == width  # a shorter text is no edge of this width
            sides = OneSided.of(code, winner, loser, len(edges))
            looked_at = np.flatnonzero(often & whole & (sides.n >= FEWEST))
            candidates.append((place, code, edges, sides, looked_at))
    n_tests = sum(len(looked_at) for *_, looked_at in candidates)
    suspects = []
    for place, code, edges, sides, looked_at in candidates:
        bound = sides.bound(n_tests)
        suspects += [
            (int(sides.n_rows[each]), place, code, edges[int(each)].as_py(), sides, int(each))
            for each in looked_at[bound[looked_at] >= EDGE].tolist()
        ]
    found = []
    suspects = sorted(suspects, key=lambda each: (-each[0], -len(each[3])))[:MOST_EDGES]
    for n_rows, place, code, edge, sides, number in suspects:
        bears = code == number
        apart = bears[winner] != bears[loser]
        opponents = _opponents(bears, winner, loser, apart)
        if leaked[apart].mean() > 0.5 or float(sides.bound(n_tests, opponents)[number]) < EDGE:
            continue
        leaked = leaked | apart
        share, side = _side(sides, number)
        bare = not any(character.isalnum() for character in edge)
        found.append(
            Finding(
                name="format_leak" if bare else "format_edge",
                severity="error" if bare else "warning",
                message=f"responses that {place} with {edge!r} are {side} in {share:.0%} of their "
                f"{count_of(n_rows, 'row')} against others ({count_of(int(sides.n[number]), 'different text')})",
                advice=ADVICE
                if bare
                else "look at the rows: one system's habit or a refusal, perhaps; a model will learn these words",
                count=n_rows,
                rows=some_rows(wins.row[apart]),
            )
        )
    return found


def _side(sides: OneSided, code: int) -> tuple[float, str]:
    """Share of the rows on the more frequent side of a code, and which it is."""
    share = float(sides.rows_won[code] / sides.n_rows[code])
    return (share, "chosen") if share >= 0.5 else (1 - share, "rejected")


def _opponents(bears: np.ndarray, winner: np.ndarray, loser: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Different texts without the sign that those with it met."""
    plain = np.where(bears[winner], loser, winner)[apart]
    return np.array(len(np.unique(plain)))
