"""What each cluster likes: the comparisons, the columns and the words in which it differs from the other users.

Everything here describes the rows that are given, those that clusters were found from among them: a cluster found in
noise has differences too, chosen as they were to be large. Whether there are clusters is the verdict's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.comparisons import Comparisons, decode_chat
from pluralign.comparisons.table import index_pairs, index_texts
from pluralign.errors import ConfigError
from pluralign.features import Design, Standardizer, Style, list_items, used_items
from pluralign.features.cache import encode_items
from pluralign.heterogeneity.columns import ColumnDifference, compare_columns, users_apart
from pluralign.heterogeneity.words import Word, compare_words
from pluralign.inference.heads import EXACT_DIM, fit_heads
from pluralign.users import Clusters

MAX_TEXT = 1000
CUT = " [cut]"
MAX_DECISIONS = 50_000  # from which columns and words are counted
MAX_ITEMS = 20_000  # texts that are read for it
_LOOKED_AT = 5000  # pairs of largest difference among which diverse ones are sought
_NOTABLE = 0.2  # weight of the others below which nobody is called their opposite
_SURE = 3.0  # a margin beyond it counts as this: who chooses so in 95 % of cases is no surer at 20 logits


@dataclass(frozen=True, kw_only=True)
class LikedPair:
    """Two responses, of which a cluster prefers one more than the other users do.

    Texts are as they came, but for their length: at most 1,000 characters, and " [cut]" where more were.

    Attributes:
        prompt: What was answered; empty where there is no prompt.
        preferred: The response that the cluster's reward puts first.
        other: The other one.
        margin: The cluster's reward of the first minus that of the second, in logits.
        margin_others: The same for the other clusters, each by its share.
        observed: Share of the members' decisions between the two that went to `preferred`; None without one.
        n_observed: Those decisions.
        observed_others: The same share of the other users' decisions.
        n_observed_others: Those decisions.
    """

    prompt: str
    preferred: str
    other: str
    margin: float
    margin_others: float
    observed: float | None
    n_observed: int
    observed_others: float | None
    n_observed_others: int


@dataclass(frozen=True, kw_only=True)
class ClusterLikes:
    """What one cluster likes.

    Attributes:
        cluster: Its number, from 1 as in `results.json`.
        share: Of the users with rows, by probability of membership.
        users: Users whose most likely cluster it is.
        comparisons: The comparisons that set it apart most, each about another prompt and other responses.
        columns: Style columns, or attributes of numeric items, clearest difference first.
        words: Words liked more than by others, then words liked less; none for numeric items.
        note: From how many rows columns and words were counted, where not from all.
    """

    cluster: int
    share: float
    users: int
    comparisons: tuple[LikedPair, ...]
    columns: tuple[ColumnDifference, ...]
    words: tuple[Word, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class UserApart:
    """A user who weighs some columns unlike everybody else.

    Attributes:
        user: Name.
        n_decisions: Their decisions.
        columns: Where they stand apart, clearest first.
        detail: The first of them in words.
    """

    user: str
    n_decisions: int
    columns: tuple[ColumnDifference, ...]
    detail: str


def likes(
    comparisons: Comparisons,
    membership: np.ndarray,
    *,
    model: Clusters | None = None,
    features: Float[Tensor, "items dim"] | None = None,
    n_comparisons: int = 5,
    n_columns: int = 10,
    n_words: int = 15,
    cache_dir: Path | None = None,
    seed: int = 0,
) -> tuple[ClusterLikes, ...]:
    """Say what each cluster likes.

    Args:
        comparisons: The rows.
        membership: Cluster of every user from 0, -1 for a user of none, (users,), or probabilities, (users, clusters).
        model: The clusters' rewards; None fits a reward to each cluster's members, on `features` if given and else on
            the columns.
        features: Of the items, as the model was fitted on.
        n_comparisons: Comparisons of each cluster at most.
        n_columns: Columns of each at most.
        n_words: Words at most of those liked, and of those shunned.
        cache_dir: Cache of the style columns.
        seed: Of the rows drawn where there are more than columns and words are counted from.

    Returns:
        One entry per cluster that a user with rows is in, in order.

    Raises:
        ConfigError: A membership of other users, a model without its features or of another number of clusters.
    """
    member = _membership(comparisons, membership)
    if model is not None:
        if features is None:
            raise ConfigError("the clusters' rewards are given without features", hint="give the items' features too")
        if model.n_clusters != member.shape[1]:
            raise ConfigError(f"the model has {model.n_clusters} clusters and the membership {member.shape[1]}")
    some = _sample(comparisons, seed)
    design, names = column_design(some, cache_dir)
    together = comparisons.format == "numeric" and design.dim < EXACT_DIM
    columns = compare_columns(design, names, member, together=together) if names else ((),) * member.shape[1]
    words = _words(some, member, n_words)
    if model is not None and features is not None:
        theta = model.theta
    else:
        rows = Design.of(comparisons, design.features if features is None else features)
        features = rows.features
        weights = torch.as_tensor(member).to(features)
        theta = fit_heads(rows, ridge=weights.new_ones(member.shape[1]), group_weight=weights).theta
    pairs = _pairs(comparisons, member, features @ theta.T.to(features), n_comparisons)
    present = np.zeros(comparisons.n_users, dtype=np.bool_)
    present[comparisons.user] = True
    best = np.where(member.sum(1) > 0, member.argmax(1), -1)[present]
    total = member[present].sum()
    note = f"columns and words are from {some.n_decisions:,} of {comparisons.n_decisions:,} decisions, drawn at random"
    return tuple(
        ClusterLikes(
            cluster=k + 1,
            share=float(member[present, k].sum() / total),
            users=int((best == k).sum()),
            comparisons=pairs[k],
            columns=columns[k][:n_columns],
            words=words[k],
            note=note if some.n_decisions < comparisons.n_decisions else "",
        )
        for k in range(member.shape[1])
        if member[present, k].sum() > 0
    )


def name_users_apart(
    comparisons: Comparisons, *, level: float = 0.05, n_users: int = 20, cache_dir: Path | None = None, seed: int = 0
) -> tuple[UserApart, ...]:
    """Name the users whose taste in a column is not the others', each compared with all others.

    Args:
        comparisons: The rows.
        level: Chance that anybody is named where all users weigh all columns alike.
        n_users: How many at most, clearest first.
        cache_dir: Cache of the style columns.
        seed: Of the rows drawn where there are too many to read.
    """
    some = _sample(comparisons, seed)
    design, names = column_design(some, cache_dir)
    found = []
    for each in (users_apart(design, names, level=level) if names else ())[:n_users]:
        top = each.columns[0]
        opposite = top.weight * top.weight_others < 0 and abs(top.weight_others) > _NOTABLE
        against = " the opposite of" if opposite else ""
        name = comparisons.user_ids[each.user]
        detail = (
            f"{name} weighs {top.name} by {top.weight:+.2f} logits per standard deviation,{against} the others' "
            f"{top.weight_others:+.2f}"
        )
        found.append(UserApart(user=name, n_decisions=each.n_decisions, columns=each.columns, detail=detail))
    return tuple(found)


def column_design(comparisons: Comparisons, cache_dir: Path | None = None) -> tuple[Design, tuple[str, ...]]:
    """Rows on standardised style columns of the responses, or on the attributes of numeric items; and their names.

    Items that no row uses are not read. Columns that are the same in all items used are left out, maybe all of them.
    """
    used = used_items(comparisons)
    if comparisons.format == "numeric" and comparisons.items.attributes is not None:
        raw, names = comparisons.items.attributes, comparisons.items.attribute_names
    else:
        style = Style()
        raw, names = np.zeros((len(comparisons.items), style.dim), dtype=np.float32), style.names
        items = list_items(comparisons.items, chat=comparisons.format == "chat")
        raw[used] = encode_items([items[i] for i in used], style, cache_dir=cache_dir, progress=False)
    if not (raw[used] != raw[used[:1]]).any():
        return Design.of(comparisons, torch.zeros((len(raw), 0), dtype=torch.float64)), ()
    scaler = Standardizer.fit(raw, used)
    return Design.of(comparisons, scaler.transform(raw, dtype=torch.float64)), scaler.names(names)


def cut_text(text: str) -> str:
    """A text of at most 1,000 characters, marked where it was longer."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - len(CUT)] + CUT


def _membership(comparisons: Comparisons, membership: np.ndarray) -> Float[np.ndarray, "users clusters"]:
    membership = np.asarray(membership)
    if membership.ndim not in (1, 2) or len(membership) != comparisons.n_users:
        shape, n = membership.shape, comparisons.n_users
        raise ConfigError(f"membership has shape {shape}; it must be ({n},) or ({n}, clusters) for {n} users")
    if membership.ndim == 1:
        n_clusters = max(int(membership.max(initial=0)) + 1, 1)
        table = np.zeros((len(membership), n_clusters))
        known = np.flatnonzero(membership >= 0)
        table[known, membership[known]] = 1
        return table
    return membership.astype(np.float64)


def _sample(comparisons: Comparisons, seed: int) -> Comparisons:
    """Decisions drawn at random, as many as are quick to read."""
    n, n_items = comparisons.n_decisions, len(used_items(comparisons))
    most = MAX_DECISIONS
    if comparisons.format != "numeric" and n_items > MAX_ITEMS:
        most = min(most, n * MAX_ITEMS // n_items)
    if n <= most:
        return comparisons
    kept = np.zeros(n, dtype=np.bool_)
    kept[np.random.default_rng(seed).permutation(n)[:most]] = True
    return comparisons.take_decisions(kept)


def _words(comparisons: Comparisons, member: np.ndarray, n_words: int) -> tuple[tuple[Word, ...], ...]:
    if comparisons.format == "numeric":
        return ((),) * member.shape[1]
    used = used_items(comparisons)
    items = list_items(comparisons.items, chat=comparisons.format == "chat")
    texts = [items[i].text(prompt=False) for i in used]
    weight = np.ones(len(comparisons)) if comparisons.weight is None else comparisons.weight.astype(np.float64)
    if comparisons.outcome is not None:
        weight = weight * (2 * comparisons.outcome - 1)  # a tie says nothing of words
    chosen, rejected = np.searchsorted(used, comparisons.chosen), np.searchsorted(used, comparisons.rejected)
    return compare_words(texts, chosen, rejected, comparisons.user, weight, member, n_words=n_words)


def _pairs(
    comparisons: Comparisons, member: np.ndarray, score: Float[Tensor, "items clusters"], n: int
) -> list[tuple[LikedPair, ...]]:
    """For each cluster the pairs in the data whose margin is furthest above the others' margin.

    Margins count up to `_SURE`, or the pairs of largest difference would be those of outlying items, about which all
    are sure; what is left equal goes to the pair that members decided most often.
    """
    pair = index_pairs(comparisons.chosen, comparisons.rejected)
    _, first_row = np.unique(pair, return_index=True)
    chosen, rejected = comparisons.chosen[first_row], comparisons.rejected[first_row]
    reward = score.double().numpy(force=True)
    margin = reward[chosen] - reward[rejected]
    shares = member.sum(0) / max(member.sum(), 1e-12)
    response = index_texts(comparisons.items.response)[0]
    many_prompts = len(np.unique(comparisons.items.prompt[used_items(comparisons)])) > 1
    found = []
    for k in range(member.shape[1]):
        rest = np.where(np.arange(len(shares)) == k, 0, shares)
        others = margin @ (rest / max(rest.sum(), 1e-12))
        # Turned so that the cluster's own margin is above 0.
        sign = np.where(margin[:, k] < 0, -1.0, 1.0)
        apart = sign * (np.clip(margin[:, k], -_SURE, _SURE) - np.clip(others, -_SURE, _SURE))
        decided = np.bincount(pair, weights=member[comparisons.user, k], minlength=len(first_row))
        top = np.lexsort((-decided, -apart.round(1)))[:_LOOKED_AT]
        picked = _diverse(
            top[apart[top] > 0], comparisons.items.prompt[chosen], response[chosen], response[rejected], n, many_prompts
        )
        liked = []
        for i in picked:
            a, b = int(chosen[i]), int(rejected[i])
            a, b = (a, b) if sign[i] > 0 else (b, a)
            own, own_n = _observed(comparisons, pair == pair[first_row[i]], a, member[:, k])
            theirs, theirs_n = _observed(comparisons, pair == pair[first_row[i]], a, member.sum(1) - member[:, k])
            liked.append(
                LikedPair(
                    prompt=cut_text(_prompt(comparisons, a)),
                    preferred=cut_text(_response(comparisons, a)),
                    other=cut_text(_response(comparisons, b)),
                    margin=float(sign[i] * margin[i, k]),
                    margin_others=float(sign[i] * others[i]),
                    observed=own,
                    n_observed=own_n,
                    observed_others=theirs,
                    n_observed_others=theirs_n,
                )
            )
        found.append(tuple(liked))
    return found


def _diverse(
    order: np.ndarray, prompt: np.ndarray, first: np.ndarray, second: np.ndarray, n: int, many_prompts: bool
) -> list[int]:
    """The first n pairs no two of which share a prompt or a response."""
    prompts: set[int] = set()
    responses: set[int] = set()
    picked: list[int] = []
    for i in order.tolist():
        if len(picked) == n:
            break
        if (many_prompts and prompt[i] in prompts) or {int(first[i]), int(second[i])} & responses:
            continue
        picked.append(i)
        prompts.add(int(prompt[i]))
        responses |= {int(first[i]), int(second[i])}
    return picked


def _observed(
    comparisons: Comparisons, rows: np.ndarray, preferred: int, belongs: np.ndarray
) -> tuple[float | None, int]:
    """Share of the decisions between two items that went to the first, weighted by membership, and how many."""
    at = np.flatnonzero(rows)
    at = at[belongs[comparisons.user[at]] > 0]
    weight = belongs[comparisons.user[at]] * (1 if comparisons.weight is None else comparisons.weight[at])
    outcome = np.ones(len(at)) if comparisons.outcome is None else comparisons.outcome[at]
    went = np.where(comparisons.chosen[at] == preferred, outcome, 1 - outcome)
    n = int((belongs[comparisons.user[at]] > 0.5).sum())
    return (round(float((weight * went).sum() / weight.sum()), 4), n) if weight.sum() > 0 and n else (None, n)


def _prompt(comparisons: Comparisons, item: int) -> str:
    text = comparisons.items.prompts[int(comparisons.items.prompt[item])].as_py()
    return "\n\n".join(m["content"] for m in decode_chat(text)) if comparisons.format == "chat" else text


def _response(comparisons: Comparisons, item: int) -> str:
    """The response's text; of a numeric item its name, and its attributes where those are not the name again."""
    text = comparisons.items.response[item].as_py()
    if comparisons.format == "chat":
        return "\n\n".join(m["content"] for m in decode_chat(text))
    attributes = comparisons.items.attributes
    if attributes is None:
        return text
    named = zip(comparisons.items.attribute_names, attributes[item], strict=True)
    told = ", ".join(f"{name} {value:g}" for name, value in named if value)
    return text if told == f"{text} 1" else f"{text}: {told}"
