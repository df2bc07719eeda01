"""The same thing twice: across splits, across sources, and nearly the same."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pluralign.comparisons import Comparisons
from pluralign.comparisons.table import index_items, index_pairs
from pluralign.scans.findings import Finding, Severity, count_of, some_rows
from pluralign.scans.texts import Texts
from pluralign.scans.twins import find_twins

TRAINING, TESTING = ("train",), ("test", "val", "dev", "eval", "held", "unseen")
MANY = 0.01  # share of the rows from which a near duplicate across splits is more than a note


def find_split_leaks(
    comparisons: Comparisons, texts: Texts | None, split: np.ndarray, *, near: float, seed: int
) -> list[Finding]:
    """What stands in more than one split: rows, pairs, sources, prompts, and nearly equal responses.

    Args:
        comparisons: The table.
        texts: Its responses; None for numeric items.
        split: Name of every row's split, (rows,); rows without one ("" or None) are left out. Where the names are not
            of training and testing (a panel's waves, say), what they share is a note.
        near: Least overlap of two texts that counts as nearly the same.
        seed: Of the search for near duplicates.
    """
    names = np.array(["" if name is None else str(name) for name in split.tolist()])
    labels, code = np.unique(names, return_inverse=True)
    counted = names != ""
    n_rows = np.bincount(code[counted], minlength=len(labels))
    if (n_rows > 0).sum() < 2:
        return []
    largest = int(np.argmax(n_rows))
    held = counted & (code != largest)  # rows that one would test on
    n_held = int(held.sum())
    pair = index_pairs(comparisons.chosen, comparisons.rejected)
    repeats = index_items(pair, comparisons.user)[0]
    prompt = comparisons.items.prompt[comparisons.chosen]
    several_prompts = len(np.unique(prompt)) > 1
    judged = _are_for_testing(labels[n_rows > 0])
    found: list[Finding] = []
    same_rows = held & _in_several(repeats, code, counted)
    looked_for: list[tuple[str, np.ndarray, Severity, str, str, bool]] = [
        (
            "row_in_several_splits",
            repeats,
            "error",
            "repeat a pair that the same user answered in another split",
            "drop them from one side: the answer is known from the other",
            True,
        ),
        (
            "pair_in_several_splits",
            pair,
            "warning",
            "compare a pair that other users answered in another split",
            "split by pair (a source), or say that the test is of known pairs",
            True,
        ),
        (
            "source_in_several_splits",
            comparisons.source,
            "warning",
            "come from a source that has rows in another split",
            "split by source: siblings share texts, and what is learnt from one is known of the other",
            True,
        ),
        (
            "prompt_in_several_splits",
            prompt,
            "warning",
            "answer a prompt that has rows in another split",
            "split by prompt, or say that the test is of known prompts",
            several_prompts,
        ),
    ]
    for name, key, severity, is_so, advice, apply in looked_for:
        if not apply:
            continue
        rows = held & _in_several(key, code, counted)
        if name != "row_in_several_splits":
            rows &= ~same_rows
        if name == "prompt_in_several_splits" and any(each.name == "source_in_several_splits" for each in found):
            continue  # said already
        if rows.any():
            found.append(
                Finding(
                    name=name,
                    severity=severity if judged else "note",
                    message=f"{count_of(int(rows.sum()), 'row')} outside the split {str(labels[largest])!r} "
                    f"({rows.sum() / n_held:.1%} of {n_held:,}) {is_so}",
                    advice=advice,
                    count=int(rows.sum()),
                    rows=some_rows(rows),
                )
            )
    if texts is not None:
        found += _find_near(comparisons, texts, code, counted, held, labels, largest, near=near, seed=seed)
    return found


def _find_near(
    comparisons: Comparisons,
    texts: Texts,
    code: np.ndarray,
    counted: np.ndarray,
    held: np.ndarray,
    labels: np.ndarray,
    largest: int,
    *,
    near: float,
    seed: int,
) -> list[Finding]:
    """Responses that are nearly, but not quite, those of another split."""
    number = np.concatenate([texts.of_item[comparisons.chosen], texts.of_item[comparisons.rejected]])[
        np.tile(counted, 2)
    ]
    side = np.tile(code, 2)[np.tile(counted, 2)]
    low = np.full(len(texts), np.iinfo(np.int64).max)
    high = np.full(len(texts), -1)
    np.minimum.at(low, number, side)
    np.maximum.at(high, number, side)
    in_held = np.zeros(len(texts), dtype=np.bool_)
    in_held[texts.of_item[comparisons.chosen[held]]] = in_held[texts.of_item[comparisons.rejected[held]]] = True
    # Those of the largest split first: each other text is then compared with one of them in every bucket.
    order = np.flatnonzero(high >= 0)
    order = order[np.argsort(in_held[order], kind="stable")]
    twins = find_twins(texts.text.take(pa.array(order)), threshold=near, seed=seed)
    one, other = order[twins.first], order[twins.second]
    across = (high[one] < low[other]) | (high[other] < low[one])
    marked = np.zeros(len(texts), dtype=np.bool_)
    marked[one[across]] = marked[other[across]] = True
    rows = held & (marked[texts.of_item[comparisons.chosen]] | marked[texts.of_item[comparisons.rejected]])
    if not rows.any():
        return []
    share = rows.sum() / held.sum()
    judged = _are_for_testing(labels[np.unique(code[counted])])
    return [
        Finding(
            name="near_duplicate_across_splits",
            severity="warning" if judged and share >= MANY else "note",
            message=f"{count_of(int(rows.sum()), 'row')} outside the split {str(labels[largest])!r} ({share:.1%}) have "
            f"a response whose runs of three words overlap by {near:.0%} or more (Jaccard) with one of another split, "
            "without being the same",
            advice="put both on one side, or count how much better the rows with a twin are predicted than the rest",
            count=int(rows.sum()),
            rows=some_rows(rows),
        )
    ]


def find_fine_sources(
    comparisons: Comparisons, texts: Texts, prompts: Texts, *, near: float, seed: int
) -> list[Finding]:
    """Sources that are not apart: they share a prompt, or a response has a near duplicate in another source."""
    found = []
    prompt = comparisons.items.prompt[comparisons.chosen]
    keys = np.unique(prompt.astype(np.int64) * len(comparisons.source_ids) + comparisons.source)
    n_sources = np.bincount(keys // len(comparisons.source_ids), minlength=len(comparisons.items.prompts))
    blank = np.array([text == "" for text in comparisons.items.prompts.to_pylist()])
    shared = (n_sources > 1) & ~blank
    if shared.any() and (n_sources > 0).sum() > 1:
        rows = shared[prompt]
        found.append(
            Finding(
                name="prompt_in_several_sources",
                severity="note",
                message=f"{count_of(int(shared.sum()), 'prompt')} of {int((n_sources > 0).sum()):,} have several "
                f"sources, with {rows.mean():.0%} of the rows: a split by source puts one prompt on both sides",
                advice="if what is learnt of a prompt's responses must not be known at the test, let the prompt be the "
                "source",
                count=int(shared.sum()),
                rows=some_rows(rows),
            )
        )
    for what, which, of_rows in (
        ("response", texts, (texts.of_item[comparisons.chosen], texts.of_item[comparisons.rejected])),
        ("prompt", prompts, (prompts.of_item[prompt],)),
    ):
        low = np.full(len(which), np.iinfo(np.int32).max)
        high = np.full(len(which), -1)
        for number in of_rows:
            np.minimum.at(low, number, comparisons.source)
            np.maximum.at(high, number, comparisons.source)
        lone = np.flatnonzero(low == high)  # one in several sources is shared exactly, and no question
        if len(lone) < 2:
            continue
        twins = find_twins(which.text.take(pa.array(lone)), threshold=near, seed=seed)
        one, other = lone[twins.first], lone[twins.second]
        across = low[one] != low[other]
        marked = np.zeros(len(which), dtype=np.bool_)
        marked[one[across]] = marked[other[across]] = True
        if not marked.any():
            continue
        rows = np.logical_or.reduce([marked[number] for number in of_rows])
        found.append(
            Finding(
                name=f"near_duplicate_{what}",
                severity="note",
                message=f"{count_of(int(marked.sum()), what)} of {len(which):,} nearly repeat one of another source "
                f"(runs of three words overlap by {near:.0%} or more), in {rows.mean():.1%} of the rows",
                advice="give near duplicates one source before splitting, so that the test is of texts not seen",
                count=int(marked.sum()),
                rows=some_rows(rows),
            )
        )
    return found


def _are_for_testing(labels: np.ndarray) -> bool:
    """Whether the names of splits say that some rows are for training and others for testing."""
    said = [str(label).lower() for label in labels]
    return any(name.startswith(TRAINING) for name in said) and any(name.startswith(TESTING) for name in said)


def _in_several(key: np.ndarray, code: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Rows whose key occurs in more than one split, (rows,)."""
    n = int(key.max(initial=-1)) + 1
    low = np.full(n, np.iinfo(np.int64).max)
    high = np.full(n, -1)
    np.minimum.at(low, key[counted], code[counted])
    np.maximum.at(high, key[counted], code[counted])
    return (high > low)[key]
