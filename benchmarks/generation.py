"""Time generation for several users of one prompt: with the prompt read once for all, and once for each.

    python benchmarks/generation.py --users 8 --prompt 100 350 1000 --new 40 --turns 5 --threads 2

A random Llama (`--size`), one token per user after the prompt, greedy, the end-of-sequence token never met, so that
every arm writes as many tokens. "each" is the same loop without a shared cache: the users are one batch, and every row
reads the prompt itself. "one by one" has a batch for every user, as a server without batching does. Arms take turns in
one process; ratios are medians over turns. The bound is what counting tokens alone would give: users x (prompt + new)
over prompt + users x new.
"""

from __future__ import annotations

import argparse
import os
import time
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

    def seconds(prompt: str, **settings: Any) -> tuple[float, Any]:
        begin = time.perf_counter() if args.device != "cpu" else time.process_time()
        rows = generate(policy, [prompt] * args.users, names, max_new_tokens=args.new, **settings)
        if args.device != "cpu":
            torch.cuda.synchronize()
            return time.perf_counter() - begin, rows
        return time.process_time() - begin, rows

    clock = "seconds of the clock" if args.device != "cpu" else "seconds of CPU"
    parameters = sum(each.numel() for each in lm.parameters()) / 1e6
    print(f"{parameters:.0f}M parameters, {args.users} users, {args.new} new tokens, {args.device}, {clock}")
    head = f"{'prompt':>7} {'shared':>8} {'each':>8} {'one by one':>11}"
    print(f"{head} {'each/shared':>12} {'1by1/shared':>12} {'bound':>6}")
    for length in args.prompt:
        prompt = " ".join(map(str, torch.randint(3, vocabulary, (length,)).tolist()))
        arms = {"shared": {}, "each": {"share": False}, "one by one": {"share": False, "batch_size": 1}}
        times: dict[str, list[float]] = {name: [] for name in arms}
        agree = True
        for turn in range(args.turns + 1):
            texts = []
            for name, settings in arms.items():
                spent, rows = seconds(prompt, **settings)
                texts.append([row[0].tokens for row in rows])
                if turn:  # the first warms up
                    times[name].append(spent)
            agree &= texts[0] == texts[1] == texts[2]
        each, single = (
            median(other / shared for other, shared in zip(times[name], times["shared"], strict=True))
            for name in ("each", "one by one")
        )
        bound = args.users * (length + args.new) / (length + args.users * args.new)
        shown = " ".join(f"{median(times[name]):{width}.2f}" for name, width in zip(arms, (8, 8, 11), strict=True))
        print(f"{length:>7} {shown} {each:>12.2f} {single:>12.2f} {bound:>6.2f}{'' if agree else '  texts differ'}")


if __name__ == "__main__":
    main()
