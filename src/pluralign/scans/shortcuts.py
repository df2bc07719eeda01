"""What predicts choices without being a taste: length, format, the response alone, what others chose of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from pluralign.comparisons import Comparisons
from pluralign.evaluation import Predictions, mean_interval
from pluralign.scans.findings import Baseline, Finding, Severity, range_of, some_rows
from pluralign.scans.formats import format_columns
from pluralign.scans.predicting import Held, baseline, predict_margin
from pluralign.scans.texts import Texts, hash_words
from pluralign.scans.wins import Wins
from pluralign.types import FloatArray

NOTED, WARNED, FATAL = 0.0, 0.4, 0.8  # of the way from chance to certainty, at the interval's lower end: 0.5, 0.7, 0.9
LEAST_GAIN = 0.02  # over chance, below which an accuracy is listed and not remarked on
MOST_RESPONSES = 20_000  # decisions that the baseline of the words is fitted to
_N_WORDS = 2**18


def find_shortcuts(texts: Texts, held: Held, *, seed: int) -> tuple[list[Finding], list[Baseline]]:
    """Score length alone, format alone and the words of the response alone."""
    findings, baselines = [], []
    length = np.log1p(np.stack([texts.n_characters, texts.n_words], axis=1))
    for name, columns, words, advice in (
        (
            "length",
            length,
            "length alone",
            (
                "report the length baseline beside every accuracy; if length is no part of what people were asked to "
                "judge, balance it, or train with it as a column of its own and drop that at use"
            ),
        ),
        (
            "format",
            format_columns(texts),
            "format alone (markup, white space, capitals, how a response begins and ends)",
            (
                "look at the rows: format that comes from how the two sides were produced or stored, and not from "
                "what people saw, must be made the same on both sides before anything is trained"
            ),
        ),
    ):
        predictions = held.predict(spread(columns, texts))
        if predictions is None:
            continue
        shown = baseline(name, held, predictions, words + " scores {} here")
        baselines.append(shown)
        found = remark(f"{name}_shortcut", shown, advice, held, predictions)
        if found:
            findings.append(found)
    response = predict_by_words(texts, held, seed=seed)
    if response is not None:
        part, predictions = response
        baselines.append(
            baseline(
                "response",
                part,
                predictions,
                "the words of the responses alone, without prompt and user, score {} here: what a model can learn "
                "whatever it was asked and by whom; content as well as artefacts, so no fault by itself",
            )
        )
    return findings, baselines


def remark(name: str, shown: Baseline, advice: str, held: Held, predictions: Predictions) -> Finding | None:
    """A finding about a baseline that is better than chance; the better, the worse."""
    accuracy, chance = shown.accuracy, shown.chance
    way = (accuracy.low - chance) / (1 - chance)
    if not way > NOTED or accuracy.estimate < chance + LEAST_GAIN:
        return None
    severity: Severity = "error" if way >= FATAL else "warning" if way >= WARNED else "note"
    also = {
        "error": "; labels that a rule predicts so well were made by one, or the format gives them away",
        "warning": "; a reward model can get most of its accuracy from it",
        "note": "; it may be taste, and any model should be held against it",
    }[severity]
    return Finding(
        name=name,
        severity=severity,
        message=shown.message + also,
        advice=advice,
        count=accuracy.n_decisions,
        rows=some_rows(held.rows_of(predictions, right=True)),
        accuracy=accuracy,
    )


def spread(columns: FloatArray, texts: Texts) -> FloatArray:
    """Columns of texts as columns of items; unused items get zeros, (items, columns)."""
    of_item = texts.of_item
    return np.where((of_item >= 0)[:, None], columns[np.maximum(of_item, 0)], 0.0)


def predict_by_words(texts: Texts, held: Held, *, seed: int) -> tuple[Held, Predictions] | None:
    """Logistic regression on the words of the responses, weighted by rarity, in each fold.

    It is fitted to rows as pairs; a choice among several is predicted from their scores. None where there are too few.
    """
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    part = held
    if held.table.n_decisions > MOST_RESPONSES:
        drawn = Held.draw(held.table, MOST_RESPONSES, seed)
        if drawn is None:
            return None
        part = drawn
    table = part.table
    text = texts.of_item
    used, place = np.unique(np.concatenate([text[table.chosen], text[table.rejected]]), return_inverse=True)
    counts = count_words(texts, used)
    shared = np.flatnonzero(np.bincount(counts.indices, minlength=_N_WORDS) > 1)
    wins = Wins.of(table)
    if not len(wins) or not len(shared):
        return None
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, shared])
    difference = weighted[place[: len(table)]] - weighted[place[len(table) :]]
    sign = np.where(wins.turned, -1.0, 1.0)
    # Every other row the other way round: with one class alone there is nothing to fit.
    flip = np.where(np.arange(len(wins)) % 2 == 0, 1.0, -1.0)
    x = csr_array(difference[wins.row].multiply((sign * flip)[:, None]))
    outcome = np.ones(len(table)) if table.outcome is None else table.outcome
    importance = np.abs(2 * outcome - 1) * (1 if table.weight is None else table.weight)
    trains = part.folds.trains.numpy()[part.folds.group.numpy()][table.decision[wins.row]] > 0
    margin = np.zeros((len(table), len(part.folds)))
    for fold in range(len(part.folds)):
        some = np.flatnonzero(trains[:, fold])
        if len(np.unique(flip[some])) < 2:
            return None
        model = LogisticRegression(C=4.0, fit_intercept=False, solver="liblinear", max_iter=1000)
        model.fit(x[some], flip[some], sample_weight=importance[wins.row][some])
        margin[:, fold] = difference @ model.coef_[0]
    return part, part.predict_margins(margin)


def count_words(texts: Texts, used: np.ndarray) -> csr_array:
    """Words of some texts by hash, (used, hashes)."""
    columns, sizes = [], []
    for words in hash_words(texts.text.take(pa.array(used))):
        columns.append((words.word % np.uint64(_N_WORDS)).astype(np.int32))
        sizes.append(np.diff(words.start))
    start = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    column = np.concatenate(columns)
    counts = csr_array((np.ones(len(column)), column, start), shape=(len(used), _N_WORDS))
    counts.sum_duplicates()
    return counts


def score_popularity(comparisons: Comparisons) -> tuple[Baseline | None, Predictions | None]:
    """Predict each decision by what *other users* made of the same responses.

    The reward of a response is the logit of the share of its comparisons that it won in others' eyes (one half of a
    win and of a loss added). Decisions with a response that nobody else has compared are left out.

    Returns:
        The baseline and the predictions; None where fewer than 20 decisions, or a twentieth of them, are left.
    """
    wins = Wins.of(comparisons)
    n_items = len(comparisons.items)
    item = np.concatenate([wins.winner, wins.loser])
    user = np.tile(wins.user, 2)
    won = np.repeat([1.0, 0.0], len(wins))
    total = np.bincount(item, minlength=n_items)
    total_won = np.bincount(item, weights=won, minlength=n_items)
    keys, cell = np.unique(user.astype(np.int64) * n_items + item, return_inverse=True)
    own, own_won = np.bincount(cell), np.bincount(cell, weights=won)
    n_others = (total[keys % n_items] - own)[cell]
    won_others = (total_won[keys % n_items] - own_won)[cell]
    reward = np.log(won_others + 0.5) - np.log(n_others - won_others + 0.5)
    margin = np.zeros(len(comparisons))
    seen = np.zeros(len(comparisons), dtype=np.bool_)
    half = len(wins)
    margin[wins.row] = np.where(wins.turned, -1, 1) * (reward[:half] - reward[half:])
    seen[wins.row] = (n_others[:half] > 0) & (n_others[half:] > 0)
    known = np.bincount(comparisons.decision, ~seen, comparisons.n_decisions) == 0
    if known.sum() < max(20, 0.05 * comparisons.n_decisions):
        return None, None
    predictions = predict_margin(comparisons, margin).take(known)
    accuracy = mean_interval(predictions)
    size = np.bincount(comparisons.decision, minlength=comparisons.n_decisions)[known] + 1
    shown = Baseline(
        name="popularity",
        accuracy=accuracy,
        chance=float((1 / size).mean()),
        held_out_by="user",
        message=f"how often others chose the same responses scores {range_of(accuracy)} here, on the "
        f"{known.mean():.0%} of the decisions whose responses others compared: what a model can reach that knows every "
        "response and nobody's taste",
    )
    return shown, predictions
