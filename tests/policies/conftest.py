"""A policy of each kind, with users far enough from one another to write different texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..tiny_models import make_tokenizer, save_tiny_gpt2, save_tiny_llama


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Rotary positions with a head of its own, the same with a tied head, and learned absolute positions."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "llama": save_tiny_llama(folder / "llama"),
        "tied": save_tiny_llama(folder / "tied", tied=True),
        "gpt2": save_tiny_gpt2(folder / "gpt2"),
    }


@pytest.fixture(scope="session")
def make_policy(bases) -> Callable[..., Any]:
    """Make a policy of users ann, bob and cy, as if it had been trained."""

    def make(base: str = "llama", *, place: str = "after", tuning: str = "lora", seed: int = 0, **users: Any) -> Any:
        import torch

        from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
        from pluralign.policies.policy import Policy

        config = PersonalConfig(
            base=str(bases[base]),
            users={"kind": "individual", "n_tokens": 2, **users},
            user_ids=["ann", "bob", "cy"],
            place=place,
            tuning=tuning,
            lora={"r": 2, "lora_alpha": 4, "fan_in_fan_out": base == "gpt2"},
        )
        model = PersonalPolicy.make(config, seed=seed, attn_implementation="eager" if base == "gpt2" else "sdpa")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.startswith("users.") or "lora_" in name:
                    value += 0.3 * torch.randn(value.shape, generator=generator)
        return Policy(model.eval(), make_tokenizer())

    return make
