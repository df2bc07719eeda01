"""Comparisons as token ids: every distinct prompt and response tokenised once.

The tokenisation is TRL's, so that a model trained here reads what one trained there reads: a text prompt with the
tokenizer's own special tokens, its response as it continues the prompt, an end-of-sequence token after it; a chat
through the tokenizer's chat template, which says itself how a turn ends. Two things differ. Where a token would lie
astride the end of the prompt, TRL cuts the prompt before it, so that training sees a context that generation never
does; here the prompt stays whole and the rest is tokenised by itself. And a prompt without a token begins with the
beginning-of-sequence token (where there is none, the end-of-sequence token), because something must foretell the
response's first token.

Too long a prompt loses its beginning (not its beginning-of-sequence token), too long a response its end and with it
its end-of-sequence token. How many were cut is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.comparisons.chats import decode_chat
from pluralign.errors import ConfigError, DataError
from pluralign.features.texts import used_items
from pluralign.language_models.packing import Sequence
from pluralign.types import FloatArray, IntArray
from pluralign.users import UNKNOWN

Messages = List[dict[str, Any]]
BATCH = 1024  # texts handed to a tokenizer at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Ragged:
    """Lists of token ids, one after the other.

    Attributes:
        ids: All of them, (tokens,).
        start: Where each begins, and where the last ends, (lists + 1,).
    """

    ids: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, lists: Iterable[List[int]]) -> Ragged:
        arrays = [np.asarray(each, dtype=np.int32) for each in lists]
        start = np.concatenate([[0], np.cumsum([len(each) for each in arrays], dtype=np.int64)]).astype(np.int64)
        return cls(ids=np.concatenate([np.empty(0, dtype=np.int32), *arrays]), start=start)

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, i: int) -> tuple[int, ...]:
        return tuple(self.ids[self.start[i] : self.start[i + 1]].tolist())

    @property
    def length(self) -> np.ndarray:
        """Number of tokens of each list, (lists,)."""
        return np.diff(self.start)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreferenceTokens:
    """Comparisons as token ids; rows, items, prompts and users are numbered as in the table they come from.

    Attributes:
        prompts: Ids of every prompt; none for a prompt that no row has.
        responses: Ids of every item's response; none for an item that no row has.
        prompt: Prompt of every item, (items,).
        chosen: Item of the chosen response, (rows,).
        rejected: Item of the rejected response, (rows,).
        user: User index, (rows,), `UNKNOWN` the generic user.
        outcome: 1 where `chosen` was preferred, 0.5 a tie, soft labels between, (rows,).
        weight: Weight of every row, (rows,).
        source: What every row was drawn from, (rows,).
        user_ids: The users' names.
        cut_prompts: Number of prompts that lost their beginning.
        cut_responses: Number of responses that lost their end.
    """

    prompts: Ragged
    responses: Ragged
    prompt: IntArray
    chosen: IntArray
    rejected: IntArray
    user: IntArray
    outcome: FloatArray
    weight: FloatArray
    source: IntArray
    user_ids: tuple[str, ...]
    cut_prompts: int = 0
    cut_responses: int = 0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.chosen)

    @property
    def cut(self) -> str:
        """What was cut, in words; empty where nothing was."""
        parts = [
            f"{number:,} {what}{'s' if number > 1 else ''} lost {'their' if number > 1 else 'its'} {which}"
            for number, what, which in (
                (self.cut_prompts, "prompt", "beginning"),
                (self.cut_responses, "response", "end"),
            )
            if number
        ]
        return " and ".join(parts)

    def sequence(self, item: int, user: int) -> Sequence:
        """An item as `pack` reads it, for a user (`UNKNOWN` the generic one)."""
        return Sequence(prompt=self.prompts[int(self.prompt[item])], response=self.responses[item], user=user)

    def lengths(self) -> np.ndarray:
        """Number of tokens of each row's prompt, or of its two responses: whichever differs more from row to row.

        A batch pads the two apart, so rows of like length waste little. (rows,).
        """
        own = self.responses.length
        prompts, responses = self.prompts.length[self.prompt[self.chosen]], own[self.chosen] + own[self.rejected]
        return prompts if prompts.std() > responses.std() else responses

    def take(self, rows: np.ndarray) -> PreferenceTokens:
        """Some rows, by index or mask; items, prompts and users keep their numbers."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows)
        names = ("chosen", "rejected", "user", "outcome", "weight", "source")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def for_users(self, user_ids: List[str]) -> PreferenceTokens:
        """The same rows with users numbered as in `user_ids`; a user who is not there becomes `UNKNOWN`."""
        number = {name: i for i, name in enumerate(user_ids)}
        there = np.array([number.get(name, UNKNOWN) for name in self.user_ids], dtype=np.int32)
        user = np.where(self.user >= 0, there[self.user], UNKNOWN) if len(there) else self.user
        return replace(self, user=user.astype(np.int32), user_ids=tuple(user_ids))


def tokenize(
    comparisons: Comparisons, tokenizer: Any, *, max_prompt: int | None = 512, max_response: int | None = 512
) -> PreferenceTokens:
    """Tokenise what the rows of a table compare.

    Args:
        comparisons: Texts or chats.
        tokenizer: A Hugging Face tokenizer; for chats one with a chat template.
        max_prompt: Most tokens of a prompt, or None.
        max_response: Most tokens of a response, or None.

    Raises:
        DataError: Items are numbers, or a row has an empty response.
        ConfigError: The tokenizer lacks a chat template or an end-of-sequence token, or a limit is below 1.
    """
    for name, limit in (("max_prompt", max_prompt), ("max_response", max_response)):
        if limit is not None and limit < 1:
            raise ConfigError(f"{name} is {limit}; it must be at least 1")
    if comparisons.format == "numeric":
        raise DataError("items are vectors of numbers; a language model reads texts or chats")
    chat = comparisons.format == "chat"
    items = comparisons.items
    used = used_items(comparisons)
    prompts = [_read(each, chat) for each in items.prompts.to_pylist()]
    responses = dict(
        zip(used.tolist(), (_read(each, chat) for each in items.response.take(used).to_pylist()), strict=True)
    )
    _check_responses(comparisons, responses)

    of_prompt: list[list[int]] = [[] for _ in prompts]
    used_prompts = np.unique(items.prompt[used]).tolist()
    for p, ids in zip(used_prompts, _prompts(tokenizer, [prompts[p] for p in used_prompts]), strict=True):
        of_prompt[p] = ids
    of_item: list[list[int]] = [[] for _ in range(len(items))]
    pairs = [(prompts[items.prompt[i]], of_prompt[items.prompt[i]], responses[i]) for i in used.tolist()]
    for i, ids in zip(used.tolist(), _responses(tokenizer, pairs), strict=True):
        of_item[i] = ids
    cut_prompts, cut_responses = (
        sum(limit is not None and len(ids) > limit for ids in lists)
        for lists, limit in ((of_prompt, max_prompt), (of_item, max_response))
    )
    n = len(comparisons)
    return PreferenceTokens(
        prompts=Ragged.of(shorten_prompt(ids, max_prompt, tokenizer) for ids in of_prompt),
        responses=Ragged.of(ids[:max_response] for ids in of_item),
        prompt=items.prompt,
        chosen=comparisons.chosen,
        rejected=comparisons.rejected,
        user=comparisons.user,
        outcome=np.ones(n) if comparisons.outcome is None else comparisons.outcome,
        weight=np.ones(n) if comparisons.weight is None else comparisons.weight,
        source=comparisons.source,
        user_ids=comparisons.user_ids,
        cut_prompts=cut_prompts,
        cut_responses=cut_responses,
    )


def prompt_ids(tokenizer: Any, prompt: str | Messages) -> list[int]:
    """Ids of one prompt, a text or a list of messages, whole."""
    return next(_prompts(tokenizer, [prompt]))


def response_ids(tokenizer: Any, prompt: str | Messages, response: str | Messages) -> list[int]:
    """Ids of one response to a prompt, its end-of-sequence token among them, whole.

    Args:
        tokenizer: The tokenizer.
        prompt: A text or a list of messages.
        response: A text, or a list of messages; a text that answers a list is the assistant's.
    """
    if isinstance(response, str) and not isinstance(prompt, str):
        response = [{"role": "assistant", "content": response}]
    return next(_responses(tokenizer, [(prompt, prompt_ids(tokenizer, prompt), response)]))


def shorten_prompt(ids: list[int], limit: int | None, tokenizer: Any) -> list[int]:
    """The last `limit` ids of a prompt; its beginning-of-sequence token, where it has one, stays the first."""
    if limit is None or len(ids) <= limit:
        return ids
    marked = tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id and limit > 1
    return [ids[0], *ids[len(ids) - limit + 1 :]] if marked else ids[len(ids) - limit :]


def _read(text: str, chat: bool) -> str | Messages:
    return decode_chat(text) if chat else text


def _check_responses(comparisons: Comparisons, responses: dict[int, str | Messages]) -> None:
    empty = [item for item, each in responses.items() if _says_nothing(each)]
    if empty:
        rows = np.isin(comparisons.chosen, empty), np.isin(comparisons.rejected, empty)
        row = int(np.flatnonzero(rows[0] | rows[1])[0])
        which = "chosen" if rows[0][row] else "rejected"
        raise DataError(
            f"row {row}: the {which} response is empty ({int((rows[0] | rows[1]).sum()):,} such rows)",
            hint="drop these rows: a language model learns nothing of what a response says from one that says nothing",
        )


def _says_nothing(response: str | Messages) -> bool:
    if isinstance(response, str):
        return not response.strip()
    return all(not each["content"].strip() and set(each) <= {"role", "content"} for each in response)


def _prompts(tokenizer: Any, prompts: List[Any]) -> Iterator[list[int]]:
    """Ids of prompts."""
    for first in range(0, len(prompts), BATCH):
        block = prompts[first : first + BATCH]
        chat = not isinstance(block[0], str)
        texts = [_render(tokenizer, each, prompt=True) if chat else each for each in block]
        lists = _encode(tokenizer, texts, special=not chat)
        for ids in lists:
            yield ids or _beginning(tokenizer)


def _responses(tokenizer: Any, items: List[tuple[Any, list[int], Any]]) -> Iterator[list[int]]:
    """Ids of responses, each given by its prompt, the prompt's ids and itself."""
    for first in range(0, len(items), BATCH):
        block = items[first : first + BATCH]
        chat = not isinstance(block[0][0], str)
        whole: list[str] = []  # prompts and responses, and the responses by themselves
        rest: list[str] = []
        for prompt, _, response in block:
            if chat:
                before = _render(tokenizer, prompt, prompt=True)
                text = _render(tokenizer, [*prompt, *response], prompt=False)
                # Some templates end the prompt with what a finished turn lacks (an empty thought, say).
                n = len(before) if text.startswith(before) else _shared(before, text)
                rest.append(text[n:])
            else:
                rest.append(_ended(tokenizer, response))
                text = prompt + rest[-1]
            whole.append(text)
        lists = _encode(tokenizer, whole, special=not chat)
        goes_on = [ids[: len(start)] == start for (_, start, _), ids in zip(block, lists, strict=True)]
        alone = [text for text, on in zip(rest, goes_on, strict=True) if not on]
        apart = iter(_encode(tokenizer, alone, special=False))
        for (_, start, _), ids, on in zip(block, lists, goes_on, strict=True):
            yield ids[len(start) :] if on else next(apart)


def _shared(a: str, b: str) -> int:
    """Number of leading characters that two texts share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _ended(tokenizer: Any, response: str) -> str:
    end = tokenizer.eos_token
    if end is None:
        raise ConfigError("the tokenizer has no end-of-sequence token; set its eos_token")
    return response if response.endswith(end) else response + end


def _beginning(tokenizer: Any) -> list[int]:
    for each in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if each is not None:
            return [each]
    raise ConfigError(
        "a prompt has no tokens, and the tokenizer has neither a bos_token nor an eos_token to begin with"
    )


def _render(tokenizer: Any, messages: Any, *, prompt: bool) -> str:
    if not messages:
        return ""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ConfigError(
            "the comparisons are chats and the tokenizer has no chat template",
            hint="set tokenizer.chat_template, or give prompts and responses as texts",
        )
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)


def _encode(tokenizer: Any, texts: List[str], *, special: bool = True) -> list[list[int]]:
    """Ids of texts, without an end-of-sequence token that the tokenizer adds of its own."""
    if not texts:
        return []
    lists = tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    bare = tokenizer("", add_special_tokens=special)["input_ids"]
    adds_end = end is not None and bare[-1:] == [end] and len(bare) > (begin == end)
    return [ids[:-1] for ids in lists] if adds_end else lists
