"""The text of an item, as an encoder reads it, and the hash that names it in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pluralign.comparisons import Comparisons, Items
from pluralign.comparisons.chats import decode_chat
from pluralign.types import IntArray

KEY_BYTES = 16  # 128 bits: two of 10^9 texts share a key with probability 10^-21


class Item(NamedTuple):
    """A prompt and a response. Where `chat` is true both are lists of messages spelled as canonical JSON."""

    prompt: str
    response: str
    chat: bool = False

    def messages(self) -> list[dict[str, Any]]:
        """The conversation, prompt first. A prompt that is text is the user's turn, the response the assistant's."""
        if self.chat:
            return decode_chat(self.prompt) + decode_chat(self.response)
        prompt = [{"role": "user", "content": self.prompt}] if self.prompt else []
        return [*prompt, {"role": "assistant", "content": self.response}]

    def text(self, *, prompt: bool) -> str:
        """The response as plain text, after the prompt and a blank line where `prompt` is asked for."""
        if self.chat:
            messages = self.messages() if prompt else decode_chat(self.response)
            return "\n\n".join(message["content"] for message in messages)
        return f"{self.prompt}\n\n{self.response}" if prompt and self.prompt else self.response


def list_items(items: Items, *, chat: bool = False) -> list[Item]:
    """Return every item's prompt and response, in order."""
    prompts = items.prompts.to_pylist()
    responses = items.response.to_pylist()
    return [Item(prompts[p], r, chat) for p, r in zip(items.prompt.tolist(), responses, strict=True)]


def used_items(comparisons: Comparisons) -> IntArray:
    """Return the items that some row compares, ascending: what a fit on these rows may look at."""
    return np.unique(np.concatenate([comparisons.chosen, comparisons.rejected]))


def text_keys(items: Sequence[Item]) -> np.ndarray:
    """Hash every item's text, uint8 (items, 16). Lengths are hashed too, so that no two splits of a text collide."""

    def key(item: Item) -> bytes:
        prompt = item.prompt.encode("utf-8", "surrogatepass")
        head = f"{int(item.chat)} {len(prompt)} ".encode()
        return blake2b(head + prompt + item.response.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()

    return np.frombuffer(b"".join(map(key, items)), dtype=np.uint8).reshape(-1, KEY_BYTES)


def find_keys(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return where each wanted key stands among the known ones, -1 where it does not, int64 (wanted,)."""
    rows = pc.index_in(_binary(wanted), value_set=_binary(known))
    found = _numbers(rows).astype(np.int64)
    if rows.null_count:
        valid = np.unpackbits(np.frombuffer(rows.buffers()[0], np.uint8), bitorder="little")[: len(rows)]
        found[valid == 0] = -1
    return found


def distinct_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first place of every distinct key, (distinct,), and the number of each key's distinct one, (keys,)."""
    number = _numbers(_binary(keys).dictionary_encode().indices)
    _, first = np.unique(number, return_index=True)
    return first, number


def _numbers(array: pa.Array) -> np.ndarray:
    """View int32 numbers. Arrow's own conversions import pandas, which takes longer than a reload."""
    return np.frombuffer(array.buffers()[1], dtype=np.int32, count=len(array))


def _binary(keys: np.ndarray) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(keys))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, buffer])
