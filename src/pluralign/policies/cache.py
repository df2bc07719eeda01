"""A cache of keys and values that seldom moves when it grows.

transformers' `DynamicCache` lays all keys and values of a layer out anew for every token that is written. Here a layer
takes more room than it needs, a token's keys and values are written into it, and all move only when it is full. Layers
that are not plain (sliding windows, state spaces, ...) are left as transformers makes them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

LEAST_ROOM = 64  # columns


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer, (rows, heads, columns, dim): the first columns of buffers that have more."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.buffers: tuple[Tensor, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new columns, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        had = self.get_seq_length()
        length = had + key_states.shape[-2]
        if not self.buffers or length > self.buffers[0].shape[-2]:
            kept = (self.keys, self.values) if had else (key_states[:, :, :0], value_states[:, :, :0])
            self.hold(*kept, room=max(length + length // 2, LEAST_ROOM))
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, had:length] = new
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with some rows, or several times with one: what beam search asks of every kind of layer."""
        if self.get_seq_length():
            self.hold(self.keys[beam_idx], self.values[beam_idx], room=self.buffers[0].shape[-2])

    def hold(self, *kept: Tensor, room: int) -> None:
        """Move keys and values into new buffers."""
        length = kept[0].shape[-2]
        self.buffers = tuple(each.new_empty(*each.shape[:2], room, each.shape[3]) for each in kept)
        for buffer, each in zip(self.buffers, kept, strict=True):
            buffer[:, :, :length] = each
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)


def make_cache(config: Any) -> DynamicCache:
    """An empty cache for the model of a configuration."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(each) is DynamicLayer else each for each in cache.layers]
    return cache
