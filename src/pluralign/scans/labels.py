"""Odd labels, weights, texts and covariates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pluralign.comparisons import Comparisons, check
from pluralign.scans.findings import Finding, Severity, count_of, some_rows, some_users
from pluralign.scans.formats import STORED
from pluralign.scans.texts import Texts

LONG = 8_000  # characters: about 2,000 tokens, where encoders commonly cut
FEW = 0.005  # share of the rows below which what should not be there at all is a note
MANY = 0.05  # share of the rows from which what may happen by chance is more than a note
LEAST_EFFECTIVE = 0.1
ODD_TEXTS: dict[str, tuple[str, Severity, str, str]] = {
    "mojibake": (
        STORED["characters that were lost"],
        "warning",
        "have a response with characters that were lost in decoding (such as \ufffd or Ã©)",
        "read the file in the encoding it was written in, UTF-8 most likely",
    ),
    "label_in_text": (
        STORED["a label of its place"],
        "warning",
        "have a response that begins with a label (Response A, chosen:)",
        "strip the labels: they say where the response stood, or how it was judged",
    ),
    "email_address": (
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
        "note",
        "have a response with an e-mail address",
        "see whether they are real people's before the texts go anywhere",
    ),
}
# What `check` finds, with its severity and the way out.
CHECKED: dict[str, tuple[Severity, str]] = {
    "duplicate": ("note", "drop them if a row was stored twice; keep them if people were asked twice"),
    "single_comparison": ("note", "they help the common model only"),
    "empty_response": ("warning", "drop these rows, unless silence was an answer people saw"),
    "printed_list": ("warning", "read chats from jsonl or parquet as lists of messages"),
    "user_without_covariates": ("note", "tests of covariates leave them out"),
}


def find_checked(comparisons: Comparisons) -> list[Finding]:
    """What `comparisons.check` finds, with a severity and a way out, but for contradictions.

    Those are in `raters.find_contradicting_users`, which says how often and of how many.
    """
    found = []
    for each in check(comparisons):
        if each.name == "contradiction":
            continue
        severity, advice = CHECKED.get(each.name, ("note", "look at the rows"))
        if each.name == "duplicate" and each.count > MANY * len(comparisons):
            severity = "warning"
        elif each.count < FEW * len(comparisons):
            severity = "note"
        found.append(
            Finding(
                name=each.name,
                severity=severity,
                message=each.message,
                advice=advice,
                count=each.count,
                rows=each.rows,
            )
        )
    return found


def find_odd_labels(comparisons: Comparisons) -> list[Finding]:
    """Outcomes and weights that are not what they seem."""
    found = []
    n = len(comparisons)
    outcome = comparisons.outcome
    identical = comparisons.chosen == comparisons.rejected
    if comparisons.format != "numeric":
        response = comparisons.items.response
        if not len(np.flatnonzero(identical)):
            same = pc.equal(response.take(pa.array(comparisons.chosen)), response.take(pa.array(comparisons.rejected)))
            identical = np.asarray(same.to_numpy(zero_copy_only=False), np.bool_)
    if identical.any():
        strict = identical if outcome is None else identical & (outcome != 0.5)
        found.append(
            Finding(
                name="identical_responses",
                severity="warning" if strict.mean() >= FEW else "note",
                message=f"{count_of(int(identical.sum()), 'row')} compare a response with itself, "
                f"{int(strict.sum()):,} of them with a preference",
                advice="drop them: nothing can be learnt from them, and they count as half right",
                count=int(identical.sum()),
                rows=some_rows(identical),
            )
        )
    if outcome is not None:
        tied, soft = outcome == 0.5, (outcome != 0.5) & (outcome > 0) & (outcome < 1)
        if tied.all() and n:
            found.append(
                Finding(
                    name="all_ties",
                    severity="error",
                    message=f"all {n:,} rows are ties: there is nothing to learn",
                    advice="see whether `outcome` is the column you meant",
                    count=n,
                    rows=some_rows(tied),
                )
            )
        elif tied.any():
            found.append(
                Finding(
                    name="ties",
                    severity="note",
                    message=f"{count_of(int(tied.sum()), 'row')} ({tied.mean():.0%}) are ties",
                    advice="accuracy leaves them out; `pluralign.likelihoods` has models that use them",
                    count=int(tied.sum()),
                    rows=some_rows(tied),
                )
            )
        if soft.any():
            found.append(
                Finding(
                    name="soft_labels",
                    severity="note",
                    message=f"{count_of(int(soft.sum()), 'row')} ({soft.mean():.0%}) have a soft label",
                    advice="accuracy counts them by the side they lean to",
                    count=int(soft.sum()),
                    rows=some_rows(soft),
                )
            )
        if n and (outcome < 0.5).all():
            found.append(
                Finding(
                    name="outcome_reversed",
                    severity="warning",
                    message="the second response was preferred in every row",
                    advice="chosen and rejected, or the outcome, are probably the wrong way round",
                    count=n,
                    rows=some_rows(outcome < 0.5),
                )
            )
    if comparisons.weight is not None and n:
        weight = comparisons.weight[comparisons.first_row]
        total = weight.sum()
        effective = float(total**2 / np.maximum((weight**2).sum(), 1e-300)) if total > 0 else 0.0
        if effective < LEAST_EFFECTIVE * len(weight):
            heavy = weight >= np.sort(weight)[-max(1, round(effective)) :].min()
            found.append(
                Finding(
                    name="extreme_weights",
                    severity="warning",
                    message=f"weights are so unequal that {len(weight):,} decisions count as {effective:,.0f}",
                    advice="cap the weights, or say why so few decisions should speak for all",
                    count=int(heavy.sum()),
                    rows=some_rows(comparisons.first_row[heavy]),
                )
            )
        if (weight == 0).any():
            none = weight == 0
            found.append(
                Finding(
                    name="zero_weight",
                    severity="note",
                    message=f"{count_of(int(none.sum()), 'decision')} have weight 0 and count for nothing",
                    advice="leave them out if that is not what you meant",
                    count=int(none.sum()),
                    rows=some_rows(comparisons.first_row[none]),
                )
            )
    return found


def find_odd_texts(comparisons: Comparisons, texts: Texts) -> list[Finding]:
    """Responses that no reader can have meant."""
    found = []
    of_rows = texts.of_item[comparisons.chosen], texts.of_item[comparisons.rejected]

    def report(name: str, severity: Severity, odd: np.ndarray, message: str, advice: str) -> None:
        rows = odd[of_rows[0]] | odd[of_rows[1]]
        if rows.any():
            n = int(rows.sum())
            found.append(
                Finding(
                    name=name,
                    severity=severity if n >= FEW * len(comparisons) else "note",
                    message=f"{count_of(n, 'row')} {message}",
                    advice=advice,
                    count=n,
                    rows=some_rows(rows),
                )
            )

    for name, (pattern, severity, message, advice) in ODD_TEXTS.items():
        report(name, severity, texts.matches(pattern), message, advice)
    long = texts.n_characters > LONG
    report(
        "long_response",
        "note",
        long,
        f"have a response of more than {LONG:,} characters (the longest: {texts.n_characters.max(initial=0):,.0f})",
        "see how much of them your encoder reads: what is cut cannot be learnt, and being cut is a sign of length",
    )
    return found + _find_user_ids(comparisons, texts)


def _find_user_ids(comparisons: Comparisons, texts: Texts) -> list[Finding]:
    """Responses that name the user who judged them, among ids that are no ordinary word (a digit, 4 characters)."""
    ids = pa.array(comparisons.user_ids, type=pa.large_string())
    telling = pc.and_(pc.match_substring_regex(ids, pattern=r"\d"), pc.greater_equal(pc.utf8_length(ids), 4))
    telling = pc.and_(telling, pc.invert(pc.match_substring_regex(ids, pattern=r"^\d{1,5}$|\s")))
    known = np.flatnonzero(np.asarray(telling.to_numpy(zero_copy_only=False), np.bool_))
    if not len(known):
        return []
    owners = []
    for first in range(0, len(texts), 20_000):
        lists = pc.utf8_split_whitespace(texts.text.slice(first, 20_000))
        words = pc.utf8_trim(lists.flatten(), characters=".,;:!?()[]{}<>\"'`*#")
        place = pc.index_in(words, value_set=ids.take(pa.array(known)))
        hit = np.flatnonzero(np.asarray(place.is_valid().to_numpy(zero_copy_only=False), np.bool_))
        text = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False))[hit] + first
        user = known[np.asarray(place.take(pa.array(hit)).to_numpy(zero_copy_only=False), np.int64)]
        owners.append(text.astype(np.int64) * comparisons.n_users + user)
    named = np.unique(np.concatenate(owners)) if owners else np.zeros(0, dtype=np.int64)
    rows = np.zeros(len(comparisons), dtype=np.bool_)
    for item in (comparisons.chosen, comparisons.rejected):
        rows |= np.isin(texts.of_item[item].astype(np.int64) * comparisons.n_users + comparisons.user, named)
    if not rows.any():
        return []
    return [
        Finding(
            name="user_id_in_text",
            severity="warning",
            message=f"{count_of(int(rows.sum()), 'row')} have a response with the id of the very user who judged it",
            advice="take the ids out of the texts: a model can read from them whose row it is",
            count=int(rows.sum()),
            rows=some_rows(rows),
            users=some_users(comparisons.user_ids, np.unique(comparisons.user[rows])),
        )
    ]


def find_telling_covariates(comparisons: Comparisons) -> list[Finding]:
    """Columns of the users' table with another value for every user."""
    people = comparisons.users
    if people is None or comparisons.n_users < 10:
        return []
    names = []
    for name in people.column_names[1:]:
        column = people.column(name)
        filled = len(column) - column.null_count
        is_number = pa.types.is_floating(column.type)
        if filled >= 10 and not is_number and len(pc.unique(column.drop_null())) == filled:
            names.append(name)
    if not names:
        return []
    return [
        Finding(
            name="covariate_names_user",
            severity="note",
            message=f"{count_of(len(names), 'covariate has', 'covariates have')} another value for every user: "
            + ", ".join(names[:5]),
            advice="nothing can be tested with them, and they may tell who somebody is: leave them out",
            count=len(names),
        )
    ]
