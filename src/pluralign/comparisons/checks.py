"""What is odd about a table of comparisons, but no reason to refuse it.

`read` refuses what cannot be right; what is reported here is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pluralign.comparisons.table import Comparisons, index_items, index_pairs
from pluralign.types import IntArray

N_SAMPLED = 5
PRINTED_LIST = r"^\s*\[\s*(\"|'|\{).*\]\s*$"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something odd.

    Attributes:
        name: What it is called: contradiction, duplicate, single_comparison, empty_response, printed_list,
            user_without_covariates.
        count: How many there are, of what the message says.
        rows: The first rows that show it, numbered from 0 as in `Comparisons.take`.
        message: What it is and what it does.
    """

    name: str
    count: int
    rows: tuple[int, ...]
    message: str


def check(comparisons: Comparisons) -> list[Finding]:
    """Look for what is odd; an empty list where nothing is."""
    found = [find_contradictions(comparisons), find_duplicates(comparisons), find_single(comparisons)]
    if comparisons.format == "text":
        found += [find_empty(comparisons), find_printed_lists(comparisons)]
    found.append(find_uncovered(comparisons))
    return [finding for finding in found if finding is not None]


def report(name: str, count: int, rows: np.ndarray, message: str) -> Finding | None:
    """A finding, if there is anything to report."""
    if not count:
        return None
    return Finding(name=name, count=count, rows=tuple(rows[:N_SAMPLED].tolist()), message=f"{count} {message}")


def find_contradictions(comparisons: Comparisons) -> Finding | None:
    """Pairs that one user decided both ways."""
    chosen, rejected = comparisons.chosen, comparisons.rejected
    lean = np.ones(len(comparisons)) if comparisons.outcome is None else 2 * comparisons.outcome - 1
    toward_lower = np.sign(np.where(chosen < rejected, lean, -lean))
    key = index_items(index_pairs(chosen, rejected), comparisons.user)[0]
    n_keys = int(key.max(initial=-1)) + 1
    both = (np.bincount(key, toward_lower > 0, n_keys) > 0) & (np.bincount(key, toward_lower < 0, n_keys) > 0)
    return report(
        "contradiction",
        int(both.sum()),
        np.flatnonzero(both[key]),
        "pairs were decided both ways by one user; kept: they bound the accuracy that any model can reach",
    )


def find_duplicates(comparisons: Comparisons) -> Finding | None:
    """Rows that repeat an earlier one: same user, items and outcome; a decision counts if all of its rows do."""
    key, _, _ = index_items(comparisons.chosen, comparisons.rejected)
    key, _, _ = index_items(key, comparisons.user)
    if comparisons.outcome is not None:
        key, _, _ = index_items(key, np.unique(comparisons.outcome, return_inverse=True)[1].astype(np.int32))
    first = np.zeros(len(key), dtype=np.bool_)
    first[np.unique(key, return_index=True)[1]] = True
    new = np.bincount(comparisons.decision, first, comparisons.n_decisions) > 0
    again = np.flatnonzero(~new[comparisons.decision])
    return report(
        "duplicate", len(again), again, "rows repeat an earlier row of the same user; kept, each counts in full"
    )


def find_single(comparisons: Comparisons) -> Finding | None:
    """Users with a single decision."""
    user: IntArray = comparisons.user[comparisons.first_row]
    n_own = np.bincount(user, minlength=comparisons.n_users)
    return report(
        "single_comparison",
        int(np.count_nonzero(n_own == 1)),
        comparisons.first_row[n_own[user] == 1],
        "users made a single comparison; kept, but nothing personal can be tested on them",
    )


def find_empty(comparisons: Comparisons) -> Finding | None:
    """Responses without a character other than blanks."""
    import pyarrow.compute as pc

    blank = pc.equal(pc.utf8_trim_whitespace(comparisons.items.response), "")
    return report_rows(comparisons, "empty_response", blank, "rows have an empty response; kept")


def find_printed_lists(comparisons: Comparisons) -> Finding | None:
    """Responses that are a list as Python or JSON prints it."""
    import pyarrow.compute as pc

    printed = pc.match_substring_regex(comparisons.items.response, "(?s)" + PRINTED_LIST)
    return report_rows(
        comparisons,
        "printed_list",
        printed,
        "rows have a response that looks like a printed list; kept: if only one side of the pair has them, a model "
        "learns the brackets; if they are chats, read them from jsonl or parquet as lists of messages",
    )


def report_rows(comparisons: Comparisons, name: str, is_odd: pa.BooleanArray, message: str) -> Finding | None:
    """A finding about the rows that have an odd item."""
    odd = is_odd.to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(odd[comparisons.chosen] | odd[comparisons.rejected])
    return report(name, len(rows), rows, message)


def find_uncovered(comparisons: Comparisons) -> Finding | None:
    """Users of whom the table of covariates knows nothing."""
    if comparisons.users is None or comparisons.users.num_columns < 2:
        return None
    blank = np.ones(comparisons.n_users, dtype=np.bool_)
    for name in comparisons.users.column_names[1:]:
        blank &= comparisons.users.column(name).is_null().to_numpy()
    return report(
        "user_without_covariates",
        int(blank.sum()),
        np.flatnonzero(blank[comparisons.user]),
        "users have no covariates in the users' table; kept",
    )
