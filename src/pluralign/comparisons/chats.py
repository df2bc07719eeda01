"""Chats as text: one spelling for one list of messages, so that equal chats are one item.

A chat is TRL's conversational format, a list of messages such as {"role": "user", "content": "Hello"}. Keys are
sorted, blanks left out and keys without a value dropped (Arrow gives every message all the keys that any has).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pluralign.errors import DataError

Message = Mapping[str, Any]


def encode_chat(messages: Any) -> str:
    """Spell a list of messages as canonical JSON.

    Raises:
        DataError: `messages` is no list of messages, each with a role and a content that are texts.
    """
    fault = find_chat_fault(messages)
    if fault is not None:
        raise DataError(fault, hint='a chat is a list of messages such as {"role": "user", "content": "Hello"}')
    kept = [{key: value for key, value in message.items() if value is not None} for message in messages]
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def decode_chat(text: str) -> list[dict[str, Any]]:
    """Return the messages that `encode_chat` spelled; an empty text (no prompt) is an empty list."""
    return json.loads(text) if text else []


def read_chat(text: str) -> list[dict[str, Any]] | None:
    """Return the messages that a text spells, or None where it is a plain text."""
    if not text.startswith("[{"):
        return None
    try:
        messages = json.loads(text)
    except ValueError:
        return None
    return None if find_chat_fault(messages) else messages


def find_chat_fault(messages: object) -> str | None:
    """Say what keeps a value from being a chat, or None."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return f"{messages!r} is not a list of messages"
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            return f"message {i + 1} is {message!r}, which has no role and content"
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                return f"message {i + 1} has {key} {message.get(key)!r}, which is not a text"
            fault = find_text_fault(message[key])
            if fault is not None:
                return f"message {i + 1}: {key} {fault}"
    return None


def find_text_fault(text: str) -> str | None:
    """Say what keeps a text from being written as UTF-8, or None."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has {text[error.start]!a} at character {error.start + 1}, half of a character that was cut in two"
    return None


def divide_chats(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Number of leading messages that two conversations share: their implicit prompt.

    The last message of each is always its response's.
    """
    n = 0
    while n < min(len(chosen), len(rejected)) - 1 and chosen[n] == rejected[n]:
        n += 1
    return n
