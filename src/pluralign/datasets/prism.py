"""PRISM: 1,396 people from 75 countries talk to language models, with a survey about each (Kirk et al. 2024).

In every turn one reply was chosen to continue with: it is compared with each rejected reply, given the conversation so
far (the chosen replies of earlier turns), as chat messages. A conversation is a source. Covariates of the users come
from the survey, a nested answer under `question.part`.

`filter="p-rlhf"` is the selection and the split of P-RLHF (arXiv 2402.05133; its public notebook), down to the random
numbers: turns whose texts are too long are left out, then conversations without any turn left, then nine users in ten
are "seen" and a tenth of their conversations is "test" like all those of the others. Unlike there, long histories stay
whole, for cutting them is the encoder's business. What it gives is in `EXPECTED`, and `check_counts(path)` holds the
real files against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pluralign.comparisons import Comparisons, from_columns
from pluralign.comparisons.chats import encode_chat
from pluralign.datasets.local_files import find_file, one_of, read_jsonl, with_users
from pluralign.errors import DataError

HUB = "HannahRoseKirk/prism-alignment"
MAX_CHARS = 2300  # of a user's message and a reply together, in P-RLHF
SPLIT_SEED = 123

EXPECTED = {
    "users": 1_396,
    "conversations": 8_011,
    "conversations left out by p-rlhf": ("c2536", "c4146"),
    "users seen by p-rlhf": 1_234,
    "users unseen by p-rlhf": 162,
}


Message = tuple[int, bool, Any, bool, Any]  # turn, whether by the user, text, whether chosen, score


@dataclass(frozen=True)
class Reply:
    """A model's reply and its score, from 1 to 100."""

    text: str
    score: float


@dataclass(frozen=True)
class Turn:
    """What the user said, and the replies that were chosen (normally one) and rejected."""

    said: tuple[str, ...]
    chosen: tuple[Reply, ...]
    rejected: tuple[Reply, ...]


@dataclass(frozen=True)
class Conversation:
    """One conversation of one user."""

    name: str
    user: str
    turns: tuple[Turn, ...]


def prism(path: Path | None, *, filter: str = "none", ties: str = "chosen", weight: str = "none") -> Comparisons:
    """Load one comparison per rejected reply of every turn.

    Args:
        path: Folder of survey.jsonl and of conversations.jsonl (or utterances.jsonl, the same data in long format), or
            None for the hub's copy, which downloads.
        filter: "none" takes all turns with a chosen and a rejected reply; "p-rlhf" (module docstring) sets `split` too.
        ties: A reply scored like the chosen one is rejected all the same ("chosen", as in the papers), a "tie" of
            outcome 0.5, or left out ("drop").
        weight: "none", or "score": the difference of the scores, over 100.

    Raises:
        DataError: A file or row is not what it should be, or no comparison is left.
        ConfigError: An option is not accepted.
    """
    one_of("filter", filter, ("none", "p-rlhf"))
    one_of("ties", ties, ("chosen", "tie", "drop"))
    one_of("weight", weight, ("none", "score"))
    survey, conversations = _read(path)
    split_of: dict[str, str] = {}
    if filter == "p-rlhf":
        conversations, split_of = _select(survey, conversations)
    rows = [row for each in conversations for row in _comparisons(each, MAX_CHARS if filter == "p-rlhf" else None)]
    gap = np.array([chosen.score - rejected.score for _, _, chosen, rejected in rows], dtype=np.float64)
    if ties == "drop":
        rows, gap = [row for row, tied in zip(rows, gap == 0, strict=True) if not tied], gap[gap != 0]
    if not rows:
        raise DataError("prism: no comparison is left", hint="a turn needs a chosen and a rejected reply")
    loaded = from_columns(
        prompt=[prompt for _, prompt, _, _ in rows],
        chosen=[encode_chat([_message("assistant", chosen.text)]) for _, _, chosen, _ in rows],
        rejected=[encode_chat([_message("assistant", rejected.text)]) for _, _, _, rejected in rows],
        user=[each.user for each, _, _, _ in rows],
        source=[each.name for each, _, _, _ in rows],
        outcome=np.where(gap == 0, 0.5, 1.0) if ties == "tie" else None,
        weight=gap / 100 if weight == "score" else None,
        split=np.array([split_of[each.name] for each, _, _, _ in rows]) if split_of else None,
        format="chat",
        name="prism",
    )
    return with_users(loaded, _covariates(survey), "user_id")


def check_counts(path: Path | None) -> dict[str, object]:
    """Count what `EXPECTED` has, and hold the two against each other.

    Args:
        path: Folder of the real files, or None for the hub's copy, which downloads.

    Returns:
        The counts, which are those expected.

    Raises:
        DataError: A count differs, or a file or row is not what it should be.
    """
    survey, conversations = _read(path)
    kept, split_of = _select(survey, conversations)
    seen = {each.user for each in kept if split_of[each.name] == "train"}
    found: dict[str, object] = {
        "users": len({each.user for each in conversations}),
        "conversations": len(conversations),
        "conversations left out by p-rlhf": tuple(
            sorted({each.name for each in conversations} - {each.name for each in kept})
        ),
        "users seen by p-rlhf": len(seen),
        "users unseen by p-rlhf": len({each.user for each in kept} - seen),
    }
    for what, expected in EXPECTED.items():
        if found[what] != expected:
            raise DataError(f"prism: {what}: {found[what]} here, {expected} in the papers")
    return found


def _read(path: Path | None) -> tuple[list[dict[str, Any]], list[Conversation]]:
    """Survey answers and conversations."""
    if path is None:
        return _fetch("survey"), _of_histories(_fetch("conversations"))
    survey = read_jsonl(path, "survey.jsonl", ("user_id",))
    if find_file(path, "conversations.jsonl"):
        history = ("conversation_id", "user_id", "conversation_history")
        return survey, _of_histories(read_jsonl(path, "conversations.jsonl", history))
    reply = ("conversation_id", "user_id", "turn", "user_prompt", "model_response", "if_chosen", "score")
    return survey, _of_utterances(read_jsonl(path, "utterances.jsonl", reply))


def _fetch(config: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return load_dataset(HUB, config, split="train").to_list()
    except Exception as error:  # the hub client raises many kinds
        raise DataError(
            f"{HUB} ({config}) cannot be fetched from the Hugging Face hub: {error}",
            hint="fetch the files elsewhere and name their folder with --path",
        ) from error


def _of_histories(rows: Iterable[dict[str, Any]]) -> list[Conversation]:
    """Conversations from their list of messages."""
    return [
        _conversation(
            row["conversation_id"],
            row["user_id"],
            [
                (each["turn"], each["role"] == "user", each["content"], bool(each.get("if_chosen")), each.get("score"))
                for each in row["conversation_history"]
            ],
        )
        for row in rows
    ]


def _of_utterances(rows: Iterable[dict[str, Any]]) -> list[Conversation]:
    """Conversations from one row per reply, each of which repeats what the user said."""
    found: dict[str, tuple[str, list[Message]]] = {}
    heard = set()
    for row in rows:
        name, turn = row["conversation_id"], row["turn"]
        messages = found.setdefault(name, (row["user_id"], []))[1]
        if (name, turn) not in heard:
            heard.add((name, turn))
            messages.append((turn, True, row["user_prompt"], False, None))
        messages.append((turn, False, row["model_response"], bool(row["if_chosen"]), row["score"]))
    return [_conversation(name, user, messages) for name, (user, messages) in found.items()]


def _conversation(name: str, user: str, messages: list[Message]) -> Conversation:
    """Sort messages into turns."""
    turns: dict[int, Turn] = {}
    for number, by_user, text, chosen, score in messages:
        if not isinstance(text, str):
            raise DataError(f"prism: conversation {name}, turn {number} holds {text!r}, which is not a text")
        turn = turns.get(number, Turn((), (), ()))
        reply = Reply(text, float("nan") if score is None else float(score))
        if by_user:
            turn = replace(turn, said=(*turn.said, text))
        elif chosen:
            turn = replace(turn, chosen=(*turn.chosen, reply))
        else:
            turn = replace(turn, rejected=(*turn.rejected, reply))
        turns[number] = turn
    return Conversation(name, user, tuple(turns[number] for number in sorted(turns)))


def _comparisons(conversation: Conversation, max_chars: int | None) -> list[tuple[Conversation, str, Reply, Reply]]:
    """The comparisons of a conversation: itself, the chat so far, the chosen and a rejected reply."""
    rows: list[tuple[Conversation, str, Reply, Reply]] = []
    chat: list[dict[str, str]] = []
    for turn in conversation.turns:
        chat += [_message("user", text) for text in turn.said[:1]]
        if turn.said and turn.chosen and turn.rejected:
            prompt, length = encode_chat(chat), len(turn.said[0])
            if max_chars is None or length + len(turn.chosen[0].text) < max_chars:
                rows += [
                    (conversation, prompt, turn.chosen[0], rejected)
                    for rejected in turn.rejected
                    if max_chars is None or length + len(rejected.text) <= max_chars
                ]
        chat += [_message("assistant", reply.text) for reply in turn.chosen[:1]]
    return rows


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _is_short(turn: Turn) -> bool:
    """Whether P-RLHF counts a turn when it decides which conversations to leave out (all replies must fit here)."""
    if not (turn.said and turn.chosen and turn.rejected):
        return False
    return all(len(turn.said[0]) + len(reply.text) <= MAX_CHARS for reply in (turn.chosen[0], *turn.rejected))


def _select(
    survey: list[dict[str, Any]], conversations: list[Conversation]
) -> tuple[list[Conversation], dict[str, str]]:
    """The conversations that P-RLHF keeps, and the split of each."""
    people = [row["user_id"] for row in survey if row.get("num_completed_conversations") != 0]
    kept = [each for each in conversations if any(_is_short(turn) for turn in each.turns)]
    return kept, _split(people, kept)


def _split(people: list[str], conversations: list[Conversation]) -> dict[str, str]:
    """Split of every conversation, by the random numbers of P-RLHF's notebook."""
    of_user: dict[str, list[str]] = {user: [] for user in people}
    for each in conversations:
        of_user.setdefault(each.user, []).append(each.name)
    users = np.array([user for user, names in of_user.items() if names])
    rng = np.random.RandomState(SPLIT_SEED)
    rng.shuffle(users)
    n_seen = int(len(users) * 0.9)
    split: dict[str, str] = {}
    for i, user in enumerate(users):
        names = np.array(of_user[user])
        if i < n_seen:
            rng.shuffle(names)
        n_train = int(len(names) * 0.9) if i < n_seen else 0
        split |= {str(name): "train" if j < n_train else "test" for j, name in enumerate(names)}
    return split


def _covariates(survey: list[dict[str, Any]]) -> pa.Table:
    """Survey answers, one column each; the parts of a nested answer are columns of their own."""
    flat: list[dict[str, Any]] = []
    for row in survey:
        flat.append({})
        for key, value in row.items():
            nested = value.items() if isinstance(value, dict) else [(None, value)]
            flat[-1] |= {key if part is None else f"{key}.{part}": answer for part, answer in nested}
    columns = {key: [row.get(key) for row in flat] for key in dict.fromkeys(key for row in flat for key in row)}
    return pa.table({key: _column(values) for key, values in columns.items()})


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # answers of several kinds
        return pa.array([None if value is None else str(value) for value in values])
