"""Policies on language models of other kinds: what they write and what is exported is the plain model's."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from pluralign.errors import ConfigError
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.policies.export import export, write_prompt
from pluralign.policies.generation import generate
from pluralign.policies.policy import Policy

from ..tiny_models import SIZE, make_tokenizer, save_random

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
MIXED = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 8, "num_key_value_heads": 2}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "use_mamba_kernels": False}
ARCHITECTURES = {
    "Gemma": {"num_key_value_heads": 1, "head_dim": 8},  # multiplies what its embedding holds
    "Mistral": {"num_key_value_heads": 2, "sliding_window": 8},
    "Mamba": {"state_size": 8},  # has states in the place of keys and values
    "Jamba": {**JAMBA, "num_key_value_heads": 2},  # has both
    "Qwen3Next": {**MIXED, **LINEAR, **EXPERTS, "shared_expert_intermediate_size": 32},
}
PROMPTS = ["Say it", "A much longer prompt than that one", "Say it", "Say it"]
USERS = ["ann", "bob", "bob", None]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def policy(request, tmp_path_factory):
    """A policy of two tokens per user after the prompt, as if it had been trained."""
    config = getattr(transformers, f"{request.param}Config")(
        **SIZE, **SIZES, initializer_range=0.2, max_position_embeddings=128, **ARCHITECTURES[request.param]
    )
    folder = tmp_path_factory.mktemp("models") / request.param
    save_random(getattr(transformers, f"{request.param}ForCausalLM"), config, folder)
    users = {"kind": "individual", "n_tokens": 2}
    settings = PersonalConfig(base=str(folder), users=users, user_ids=["ann", "bob"], tuning="full")
    model = PersonalPolicy.make(settings)
    with torch.no_grad():
        model.users.offset.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    return Policy(model, make_tokenizer())


def test_it_writes_what_the_whole_text_read_anew_says(policy):
    got = generate(policy, PROMPTS, USERS, max_new_tokens=8)
    for prompt, user, (response,) in zip(PROMPTS, USERS, got, strict=True):
        first = policy.embedding.num_embeddings + (policy.user_index([user])[0] + 1) * 2
        so_far = [*policy.tokenizer(prompt)["input_ids"], first, first + 1]
        with torch.no_grad():
            for token in response.tokens:
                assert policy.model.lm(torch.tensor([so_far]), use_cache=False).logits[0, -1].argmax() == token
                so_far.append(token)


def test_the_checkpoint_has_the_same_logits(policy, tmp_path):
    exported = export(policy, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    n = policy.embedding.num_embeddings
    for prompt, user in zip(PROMPTS, USERS, strict=True):
        first = n + (policy.user_index([user])[0] + 1) * 2
        ids = [*policy.tokenizer(prompt)["input_ids"], first, first + 1]
        with torch.no_grad():
            mine = policy.model.lm(torch.tensor([ids]), use_cache=False).logits[0, -1]
            ids = write_prompt(policy.tokenizer, exported, prompt, user or "")
            logits = plain(torch.tensor([ids]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(logits[:n], mine, atol=1e-4, rtol=1e-4)


def test_a_model_without_a_cache_is_named():
    config = transformers.OpenAIGPTConfig(**SIZE, n_embd=32, n_layer=1, n_head=2, n_positions=64)
    lm = transformers.OpenAIGPTLMHeadModel(config)
    policy = Policy(PersonalPolicy.make(PersonalConfig(tuning="full"), lm=lm), make_tokenizer())
    with pytest.raises(ConfigError, match="OpenAIGPTLMHeadModel keeps no cache that could be written with"):
        generate(policy, ["Say it"], [None], max_new_tokens=2)
