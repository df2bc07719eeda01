"""Time training on preferences against trl: pairs per second of DPO, P-DPO and reward models.

    python benchmarks/preference_training.py --lengths tldr --repeats 5 --threads 2

trl's DPOTrainer and RewardTrainer are used unmodified, and as they are meant to be: dropout off, gradient checkpointing
off, one float32 model for all. Every arm is a fresh copy of the same random Llama and sees the same pairs in batches of
the same size; ours go through `PreferenceTrainer`, as `train_policy` makes it. P-RLHF's public code trains on every
pair twice, once for its user and once for the generic user, with the reference evaluated each time; "trl, duplicated"
is that, with the user as one word of the prompt. A pair is counted once however often an arm reads it.

Arms take turns in one process, so that a ratio compares neighbours in time; it is printed as the median over turns and
its range. The reference is counted: trl's as trl does it, in every step; ours, which is computed once per pair and kept
on disk, divided by the number of epochs, 1 and 2, and left out where it is on disk already. "trl, reference first" is
trl's own `precompute_ref_log_probs`, counted likewise. The first step of every turn is left out (allocations, lazy
imports). trl is timed on a few steps of a turn and ours on a whole epoch, because our batches are of like lengths. On a
CPU times are of the process, so that a busy machine blurs less; `--wall` takes the clock.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ[name] = "1"  # trl calls the hub when a trainer is made

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainingArguments,
)

from datasets import Dataset, disable_progress_bars
from pluralign.language_models.packing import Place
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy, PersonalReward
from pluralign.language_models.tokens import PreferenceTokens, Ragged
from pluralign.training.data import PairDataset
from pluralign.training.reference import reference_log_probs
from pluralign.training.settings import PolicySettings, RewardSettings
from pluralign.training.trainer import PreferenceTrainer

VOCABULARY = 8000
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
BETA, LEARNING_RATE = 0.1, 1e-5
# Mean and spread (standard deviation of the logarithm) of the tokens of prompts and of responses.
LENGTHS = {
    "tldr": ((350, 0.25), (40, 0.25)),
    "chat": ((112, 0.7), (273, 0.5)),
    "even": ((150, 0.3), (150, 0.3)),
    "short-prompt": ((20, 0.3), (200, 0.3)),
    "long-prompt": ((500, 0.2), (20, 0.3)),
}


@dataclass(frozen=True)
class Pair:
    """Token ids of a comparison and its user."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    user: int


def draw_pairs(lengths: str, n: int, n_users: int, seed: int) -> list[Pair]:
    rng = np.random.default_rng(seed)
    (prompt, prompt_spread), (response, response_spread) = LENGTHS[lengths]

    def text(mean: float, spread: float) -> tuple[int, ...]:
        size = int(np.clip(rng.lognormal(np.log(mean) - spread**2 / 2, spread), 4, 1000))
        return tuple(rng.integers(len(SPECIAL) + n_users, VOCABULARY, size).tolist())

    end = (SPECIAL.index("</s>"),)
    return [
        Pair(
            text(prompt, prompt_spread),
            text(response, response_spread) + end,
            text(response, response_spread) + end,
            int(rng.integers(n_users)),
        )
        for _ in range(n)
    ]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token, so that text has the lengths that were drawn."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {**{word: i for i, word in enumerate(SPECIAL)}}
    words |= {f"w{i}": i for i in range(len(SPECIAL), VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def random_llama(given: argparse.Namespace) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=given.hidden,
            intermediate_size=int(given.hidden * 8 / 3) // 16 * 16,
            num_hidden_layers=given.layers,
            num_attention_heads=max(1, given.hidden // 64),
            num_key_value_heads=max(1, given.hidden // 64),
            max_position_embeddings=4096,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).to(given.device)


class Clock:
    """Seconds, of the process on a CPU unless told otherwise, after all that was asked of a device is done."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.cuda = given.device.startswith("cuda")
        self.read = time.perf_counter if self.cuda or given.wall else time.process_time

    def __call__(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return self.read()


class StepTimes(TrainerCallback):
    """The clock at the end of every step."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.ends = clock, list[float]()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ends.clear()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(self.clock())

    def per_step(self) -> float:
        """Seconds of a step, from the end of one to the end of the next; the first is left out."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def common(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Training arguments of every arm."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": given.batch,
        "learning_rate": LEARNING_RATE,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
        "use_cpu": given.device == "cpu",
        "dataloader_pin_memory": False,
    }


# An arm is called with the number of the turn and returns seconds per pair: of training, and of a reference made once.
Arm = Callable[[int], tuple[float, float]]


def trl_arm(
    method: str, pairs: list[Pair], given: argparse.Namespace, *, duplicated: bool = False, first: bool = False
) -> Arm:
    """trl's trainer on pairs, or on every pair for its user and for the generic one (a word of the prompt each)."""
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    clock, folder = Clock(given), TemporaryDirectory()
    steps = StepTimes(clock)

    def text(ids: tuple[int, ...]) -> str:
        return " ".join(f"w{i}" for i in ids if i >= len(SPECIAL))

    rows = []
    for pair in pairs:
        for user in (pair.user, given.users - 1) if duplicated else (None,):
            own = "" if user is None else f"w{len(SPECIAL) + user} "
            rows.append(
                {
                    "prompt": own + text(pair.prompt),
                    "chosen": " " + text(pair.chosen),
                    "rejected": " " + text(pair.rejected),
                }
            )
    settings: dict[str, Any] = {
        **common(given, folder.name),
        "max_steps": (given.steps + 1) * (2 if duplicated else 1),
        "bf16": False,
        "max_length": None,
    }
    data = Dataset.from_list(rows)
    shared: dict[str, Any] = {"train_dataset": data, "processing_class": word_tokenizer(), "callbacks": [steps]}
    once = 0.0
    if method == "dpo":
        begin = clock()
        trainer: Any = DPOTrainer(
            model=random_llama(given),
            ref_model=random_llama(given),
            args=DPOConfig(**settings, beta=BETA, precompute_ref_log_probs=first),
            **shared,
        )
        once = (clock() - begin) / len(pairs) if first else 0.0
    else:
        from transformers import LlamaForSequenceClassification

        body = random_llama(given).model
        scorer = LlamaForSequenceClassification(LlamaConfig(**{**body.config.to_dict(), "num_labels": 1}))
        scorer.model = body
        trainer = RewardTrainer(model=scorer, args=RewardConfig(**settings), **shared)

    def turn(number: int) -> tuple[float, float]:
        trainer.args.data_seed = number
        with redirect_stdout(None):  # the summary of the run
            trainer.train()
        return steps.per_step() / given.batch * (2 if duplicated else 1), once

    turn.folder = folder  # type: ignore[attr-defined]  # lives as long as the arm
    return turn


def own_arm(method: str, pairs: list[Pair], given: argparse.Namespace, *, users: str, place: Place = "after") -> Arm:
    """Our trainer on the same pairs, a whole epoch a turn; of users both terms of the loss, theirs and the generic."""
    clock, folder = Clock(given), TemporaryDirectory()
    steps = StepTimes(clock)
    tokens = PreferenceTokens(
        prompts=Ragged.of(pair.prompt for pair in pairs),
        responses=Ragged.of(ids for pair in pairs for ids in (pair.chosen, pair.rejected)),
        prompt=np.repeat(np.arange(len(pairs)), 2).astype(np.int32),
        chosen=np.arange(0, 2 * len(pairs), 2, dtype=np.int32),
        rejected=np.arange(1, 2 * len(pairs), 2, dtype=np.int32),
        user=np.array([pair.user for pair in pairs], dtype=np.int32),
        outcome=np.ones(len(pairs)),
        weight=np.ones(len(pairs)),
        source=np.arange(len(pairs), dtype=np.int32),
        user_ids=tuple(str(u) for u in range(given.users)),
    )
    user_model = {"kind": users, "n_tokens": int(users != "uniform")}
    config = PersonalConfig(
        users=user_model, user_ids=list(tokens.user_ids), place=place, tuning="full", head=given.head
    )
    model: PersonalPolicy | PersonalReward
    settings: PolicySettings | RewardSettings
    reference = None
    if method == "dpo":
        model = PersonalPolicy.make(config, lm=random_llama(given)).to(given.device)
        settings = PolicySettings(users=user_model, place=place, tuning="full", beta=BETA)
        plain = PersonalPolicy.make(PersonalConfig(tuning="frozen"), lm=random_llama(given)).to(given.device)
        reference = reference_log_probs(plain, tokens, progress=False)
    else:
        model = PersonalReward.make(config, lm=random_llama(given).model).to(given.device)
        settings = RewardSettings(users=user_model, place=place, tuning="full", head=given.head)
    trainer = PreferenceTrainer(
        model,
        TrainingArguments(**common(given, folder.name), num_train_epochs=1, remove_unused_columns=False),
        settings,
        train=PairDataset(tokens=tokens, reference=reference),
        callbacks=[steps],
    )
    some = tokens.take(np.arange(min(len(pairs), 8 * given.batch)))

    def turn(number: int) -> tuple[float, float]:
        once = 0.0
        if method == "dpo":
            begin = clock()
            reference_log_probs(plain, some, progress=False)
            once = (clock() - begin) / len(some)
        trainer.args.data_seed = number
        with redirect_stdout(None):
            trainer.train()
        return steps.per_step() / given.batch, once

    turn.folder = folder  # type: ignore[attr-defined]
    return turn


def compare(title: str, arms: dict[str, Arm], baseline: str, given: argparse.Namespace) -> None:
    """Let the arms take turns, then print each one's pairs per second and its ratio to the baseline."""
    times = {name: np.array([(0.0, 0.0)] * given.repeats) for name in arms}
    for turn in range(given.repeats):
        for name, arm in arms.items():
            times[name][turn] = arm(turn)
    print(f"\n{title}, {given.lengths}: prompt and response {[mean for mean, _ in LENGTHS[given.lengths]]} tokens")
    for name, seconds in times.items():
        epochs = {", 1 epoch": 1.0, ", 2 epochs": 0.5, ", reference on disk": 0.0} if seconds[:, 1].any() else {"": 0.0}
        for told, share in epochs.items():
            cost = seconds[:, 0] + seconds[:, 1] * share
            base = times[baseline][:, 0]
            ratio = base / cost
            print(
                f"  {name + told:46s} {1 / np.median(cost):8.2f} pairs/s   {np.median(ratio):5.2f}x  "
                f"({ratio.min():.2f} to {ratio.max():.2f})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", choices=[*LENGTHS, "all"], default="tldr")
    parser.add_argument("--methods", nargs="+", choices=("dpo", "p-dpo", "rm", "p-rm"), default=["dpo", "p-dpo"])
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of trl's in a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--head", choices=("linear", "late"), default="linear", help="of our reward models")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="wall time on a CPU too")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore")
    disable_progress_bars()
    for lengths in LENGTHS if given.lengths == "all" else (given.lengths,):
        given.lengths = lengths
        pairs = draw_pairs(lengths, given.pairs, given.users, seed=0)
        if "dpo" in given.methods:
            arms = {
                "trl": trl_arm("dpo", pairs, given),
                "trl, reference first": trl_arm("dpo", pairs[: given.batch * (given.steps + 1)], given, first=True),
                "ours": own_arm("dpo", pairs, given, users="uniform"),
            }
            compare("DPO", arms, "trl", given)
        if "p-dpo" in given.methods:
            arms = {
                "trl, duplicated": trl_arm("dpo", pairs, given, duplicated=True),
                "ours, user after the prompt": own_arm("dpo", pairs, given, users="individual"),
                "ours, user before the prompt": own_arm("dpo", pairs, given, users="individual", place="before"),
            }
            compare("P-DPO", arms, "trl, duplicated", given)
        if "rm" in given.methods:
            arms = {
                "trl": trl_arm("rm", pairs, given),
                "ours": own_arm("rm", pairs, given, users="uniform"),
            }
            compare("reward model", arms, "trl", given)
        if "p-rm" in given.methods:
            arms = {
                "trl, duplicated": trl_arm("rm", pairs, given, duplicated=True),
                "ours, user after the prompt": own_arm("rm", pairs, given, users="individual"),
                "ours, user before the prompt": own_arm("rm", pairs, given, users="individual", place="before"),
            }
            compare("P-RM", arms, "trl, duplicated", given)


if __name__ == "__main__":
    main()
