"""Random language models of a few thousand parameters, and a tokenizer that can write any text."""

from __future__ import annotations

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path
from typing import Any

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
VOCABULARY = 259
SIZE = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32"}


def make_tokenizer(*, pad: bool = True, template: str | None = TEMPLATE) -> Any:
    """A tokenizer of bytes: ids 0, 1, 2 are pad, bos and eos; it adds none of them by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [PAD, BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        **({"pad_token": PAD} if pad else {"additional_special_tokens": [PAD]}),
    )


def save_tiny_llama(folder: str | Path, *, tied: bool = False, seed: int = 0, **settings: Any) -> Path:
    """Save a random Llama (rotary positions) with its tokenizer; `settings` go to its configuration."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "tie_word_embeddings": tied,
    }
    return save_random(LlamaForCausalLM, LlamaConfig(**{**SIZE, **config, **settings}), folder, seed=seed)


def save_tiny_gpt2(folder: str | Path, *, seed: int = 0, **settings: Any) -> Path:
    """Save a random GPT-2 (learned absolute positions, tied embeddings) with its tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return save_random(GPT2LMHeadModel, GPT2Config(**{**SIZE, **config, **dropout, **settings}), folder, seed=seed)


def save_random(kind: Any, config: Any, folder: str | Path, *, seed: int = 0) -> Path:
    """Save a model of a class and a configuration, weights random, with the tokenizer."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return Path(folder)
