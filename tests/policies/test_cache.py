import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicSlidingWindowLayer

from pluralign.policies.cache import LEAST_ROOM, RoomyLayer, make_cache

CONFIG = LlamaConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2, num_key_value_heads=1)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_it_holds_what_the_cache_of_transformers_holds(seed, steps):
    generator = torch.Generator().manual_seed(seed)
    ours, theirs, rows = make_cache(CONFIG), DynamicCache(config=CONFIG), 3
    for new in steps:
        for layer in range(2):
            keys, values = torch.randn(2, rows, 1, new, 4, generator=generator)
            for mine, other in zip(ours.update(keys, values, layer), theirs.update(keys, values, layer), strict=True):
                assert torch.equal(mine, other)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(5, 0) == theirs.get_mask_sizes(5, 0)
        some = torch.randint(rows, (int(torch.randint(1, 5, (), generator=generator)),), generator=generator)
        rows = len(some)
        for cache in (ours, theirs):
            cache.reorder_cache(some)


def test_what_was_written_stays_where_it_is():
    layer = RoomyLayer()
    keys = torch.randn(2, 1, LEAST_ROOM // 2, 4)
    first, _ = layer.update(keys, keys)
    place = first.data_ptr()
    for _ in range(LEAST_ROOM // 4):
        more, _ = layer.update(keys[:, :, :1], keys[:, :, :1])
        assert more.data_ptr() == place
    assert keys.data_ptr() != place, "the caller's tensor is not written to"
    moved, _ = layer.update(keys, keys)
    assert moved.data_ptr() != place
    assert torch.equal(moved[:, :, : LEAST_ROOM // 2], keys)


@pytest.mark.parametrize("window", [8, None])
def test_layers_with_a_window_are_left_as_they_are(window):
    config = MistralConfig(num_hidden_layers=2, hidden_size=8, num_attention_heads=2, sliding_window=window)
    kinds = {type(each) for each in make_cache(config).layers}
    assert kinds == {DynamicSlidingWindowLayer if window else RoomyLayer}
