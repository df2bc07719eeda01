"""Time generation for several users of one prompt: with the prompt read once for all, and once for each.

    python benchmarks/generation.py --users 8 --prompt 100 350 1000 --new 40 --turns 5 --threads 2

A random Llama (`--size`), one token per user after the prompt, greedy, the end-of-sequence token never met, so that
every arm writes as many tokens. "each" is the same loop without a shared cache: the users are one batch, and every row
reads the prompt itself. "hf" is that batch in `generate` of transformers. "one by one" has a batch for every user, as a
server without batching does. Arms take turns in one process; ratios, of every arm to "shared", are medians over turns.
The bound is what counting tokens alone would give: users x (prompt + new) over prompt + users x new. What is written
costs more a token than what is read, because the few rows of a step do not fill a matrix product.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.policies.generation import generate
from pluralign.policies.policy import Policy

SIZES = {  # width, layers, heads, vocabulary
    "10M": (256, 6, 4, 8_000),
    "100M": (768, 12, 12, 16_000),
    "1B": (2048, 16, 32, 32_000),
}


class Words:
    """A tokenizer of numbers: the text "5 7" is the ids 5 and 7. Nothing ends a response."""

    eos_token_id = bos_token_id = None

    def __call__(self, texts: Any, **_: Any) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": [int(each) for each in texts.split()]}
        return {"input_ids": [[int(each) for each in text.split()] for text in texts]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))

    def get_vocab(self) -> dict[str, int]:
        return {"0": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="10M")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--prompt", type=int, nargs="+", default=[100, 350, 1000])
    parser.add_argument("--new", type=int, default=40)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--wall", action="store_true", help="wall time on a CPU too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    width, layers, heads, vocabulary = SIZES[args.size]
    torch.manual_seed(0)
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=8192,
            eos_token_id=None,
        )
    ).to(args.device, getattr(torch, args.dtype))
    lm.generation_config.eos_token_id = None
    names = [f"user {i}" for i in range(args.users)]
    config = PersonalConfig(users={"kind": "individual", "n_tokens": 1}, user_ids=names, tuning="frozen")
    model = PersonalPolicy.make(config, lm=lm)
    torch.nn.init.normal_(model.users.offset, std=0.5)
    policy = Policy(model.to(args.device), Words())

    def written(prompt: str, **settings: Any) -> list[tuple[int, ...]]:
        return [row[0].tokens for row in generate(policy, [prompt] * args.users, names, **settings)]

    def written_by_transformers(prompt: str, max_new_tokens: int) -> list[tuple[int, ...]]:
        text = [int(each) for each in prompt.split()]
        ids = torch.tensor([[*text, vocabulary + 1 + u] for u in range(args.users)], device=args.device)
        out = lm.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
        )
        return [tuple(row) for row in out[:, ids.shape[1] :].tolist()]

    def seconds(arm: Callable[..., Any], prompt: str, **settings: Any) -> tuple[float, Any]:
        clock = time.perf_counter if args.wall or args.device != "cpu" else time.process_time
        begin = clock()
        rows = arm(prompt, max_new_tokens=args.new, **settings)  # on the host, so all is done
        return clock() - begin, rows

    clock = "seconds of the clock" if args.wall or args.device != "cpu" else "seconds of CPU"
    parameters = sum(each.numel() for each in lm.parameters()) / 1e6
    print(f"{parameters:.0f}M parameters, {args.users} users, {args.new} new tokens, {args.device}, {clock}")
    arms: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "shared": (written, {}),
        "each": (written, {"share": False}),
        "hf": (written_by_transformers, {}),
        "one by one": (written, {"share": False, "batch_size": 1}),
    }
    print(f"{'prompt':>7}" + "".join(f"{name:>16}" for name in arms) + f"{'bound':>8}")
    for length in args.prompt:
        prompt = " ".join(map(str, torch.randint(3, vocabulary, (length,)).tolist()))
        times: dict[str, list[float]] = {name: [] for name in arms}
        agree = True
        for turn in range(args.turns + 1):
            texts = []
            for name, (arm, settings) in arms.items():
                spent, rows = seconds(arm, prompt, **settings)
                texts.append(rows)
                if turn:  # the first warms up
                    times[name].append(spent)
            agree &= all(each == texts[0] for each in texts)
        shown = ""
        for spent in times.values():
            ratio = median(other / shared for other, shared in zip(spent, times["shared"], strict=True))
            shown += f"{median(spent):8.2f} ({ratio:4.2f}x)"
        bound = args.users * (length + args.new) / (length + args.users * args.new)
        print(f"{length:>7}{shown}{bound:>7.2f}x{'' if agree else '  texts differ'}", flush=True)


if __name__ == "__main__":
    main()
