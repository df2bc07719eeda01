import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from pluralign.comparisons import read
from pluralign.comparisons.table import from_columns
from pluralign.errors import ConfigError, DataError
from pluralign.language_models.personal import PersonalPolicy
from pluralign.policies.policy import Policy
from pluralign.rewards.transformer import TransformerReward
from pluralign.training.settings import PolicySettings, RewardSettings, changed
from pluralign.training.train import (
    last_checkpoint,
    make_arguments,
    train_in_its_precision,
    train_policy,
    train_reward,
)

from ..tiny_models import save_tiny_llama

ARGS = {
    "per_device_train_batch_size": 8, "learning_rate": 1e-2, "disable_tqdm": True, "logging_steps": 1, "max_steps": 6,
    "save_steps": 2, "save_strategy": "steps",
}  # fmt: skip
LORA = {"r": 4}


class Stop(TrainerCallback):
    """Dies after so many steps, as one does who is killed: nothing is saved on the way out."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def values(model):
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def test_a_reward_model_is_trained_and_can_be_loaded(base_folder, comparisons, tmp_path):
    model, _ = train_reward(comparisons, base_folder, out=tmp_path, args=ARGS, lora=LORA, eval=comparisons)
    kept = TransformerReward.load(tmp_path, device="cpu")
    trained = TransformerReward(model=model, tokenizer=kept.tokenizer)
    asked = ["say a:", "say bb:"], [" yes", " no"], ["user 1", "stranger"]
    np.testing.assert_array_equal(kept.score(*asked), trained.score(*asked))
    assert kept.user_ids == comparisons.user_ids
    assert (kept.max_prompt, kept.max_response) == (512, 512)


def test_a_policy_is_trained_and_can_be_loaded(base_folder, comparisons, tmp_path):
    model, _ = train_policy(
        comparisons, base_folder, out=tmp_path / "out", cache=tmp_path / "cache", args=ARGS, lora=LORA
    )
    kept = PersonalPolicy.load(tmp_path / "out")
    for (name, mine), theirs in zip(model.named_parameters(), kept.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    pickled = [path for path in (tmp_path / "out").iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not pickled


@pytest.mark.parametrize(
    "settings",
    [{"mixture": "sampled"}, pytest.param({"tuning": "full"}, marks=pytest.mark.study)],
    ids=["lora", "full"],
)
def test_a_run_that_died_ends_as_one_that_did_not(base_folder, comparisons, tmp_path, settings):
    def run(name, **more):
        return train_reward(comparisons, base_folder, out=tmp_path / name, args=ARGS, lora=LORA, **settings, **more)[0]

    whole = values(run("whole"))
    with pytest.raises(KeyboardInterrupt):
        run("torn", callbacks=[Stop(5)])
    assert last_checkpoint(tmp_path / "torn" / "checkpoints").name == "checkpoint-4"
    for name, value in values(run("torn")).items():
        assert torch.equal(value, whole[name]), name
    history = json.loads((tmp_path / "torn" / "training.json").read_text())
    assert [each["step"] for each in history if "loss" in each] == [1, 2, 3, 4, 5, 6]


def test_a_torn_checkpoint_is_passed_over(base_folder, comparisons, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_reward(comparisons, base_folder, out=tmp_path, args=ARGS, lora=LORA, callbacks=[Stop(5)])
    (tmp_path / "checkpoints" / "checkpoint-4" / "trainer_state.json").unlink()  # what is written last
    assert last_checkpoint(tmp_path / "checkpoints").name == "checkpoint-2"


def test_another_run_is_not_gone_on_with(base_folder, comparisons, tmp_path):
    def run(**more):
        return train_reward(comparisons, base_folder, out=tmp_path, args={**ARGS, "max_steps": 1}, lora=LORA, **more)

    run()
    with pytest.raises(ConfigError, match="holds another run: settings differ"):
        run(alpha=0.9)
    run(alpha=0.9, resume=False)
    assert json.loads((tmp_path / "checkpoints" / "run.json").read_text())["settings"]["alpha"] == 0.9


def test_other_weights_or_another_rounding_are_another_run(tmp_path, comparisons):
    def run(**more):
        args = {**ARGS, "max_steps": 1, **more}
        return train_reward(comparisons, base, out=tmp_path / "out", args=args, lora=LORA)

    base = save_tiny_llama(tmp_path / "base")
    run()
    with pytest.raises(ConfigError, match="holds another run: arguments differ"):
        run(bf16=True, use_cpu=True)
    save_tiny_llama(base, seed=1)
    with pytest.raises(ConfigError, match="holds another run: base differ"):
        run()


def test_a_models_own_forward_is_back_after_mixed_precision(base_folder, tmp_path):
    lm = AutoModelForCausalLM.from_pretrained(base_folder)
    args = TrainingArguments(str(tmp_path), use_cpu=True, bf16=True, max_steps=1, report_to="none", save_strategy="no")
    rows = [{"input_ids": [3, 4, 5], "labels": [3, 4, 5]}] * 2
    train_in_its_precision(Trainer(lm, args, train_dataset=rows))
    assert isinstance(lm(torch.tensor([[3]]), return_dict=False), tuple)  # the work of a decorator of `forward`
    assert lm(torch.tensor([[3]])).logits.dtype == torch.float32


def test_mixed_precision_begins_at_the_reference(base_folder, comparisons, tmp_path):
    for bf16 in (False, True):
        model, tokenizer = train_policy(
            comparisons, base_folder, out=tmp_path / str(bf16), cache=tmp_path / "cache", lora=LORA,
            users={"kind": "uniform", "n_tokens": 0}, alpha=0.0,
            args={**ARGS, "use_cpu": True, "bf16": bf16, "learning_rate": 0.0, "max_steps": 1},
        )  # fmt: skip
        first = json.loads((tmp_path / str(bf16) / "training.json").read_text())[0]
        assert abs(first["margin_generic"]) < 1e-4  # 4e-3 where the reference alone is in float32
        said = (["say a:"], [" yes"], [None])
        after, loaded = Policy(model, tokenizer), Policy.load(tmp_path / str(bf16), device="cpu")
        np.testing.assert_array_equal(after.log_prob(*said), loaded.log_prob(*said))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_full_tuning_is_in_float32_whatever_the_base_is_kept_in(tmp_path, comparisons):
    base = save_tiny_llama(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    args = {**ARGS, "learning_rate": 1e-6, "max_steps": 2}
    model, _ = train_policy(comparisons, base, out=tmp_path / "out", cache=tmp_path / "cache", args=args, tuning="full")
    start = PersonalPolicy.read_base(str(base)).model.layers[0].mlp.up_proj.weight
    end = model.lm.model.layers[0].mlp.up_proj.weight
    assert (start.dtype, end.dtype) == (torch.bfloat16, torch.float32)
    assert (end != start.float()).float().mean() > 0.9
    kept = PersonalPolicy.load(tmp_path / "out" / "checkpoints" / "checkpoint-2")
    assert torch.equal(kept.lm.model.layers[0].mlp.up_proj.weight, end)


def test_embeddings_can_have_lora_too(base_folder, comparisons, tmp_path):
    model, _ = train_reward(
        comparisons, base_folder, out=tmp_path, args=ARGS, lora={"r": 4, "target_modules": ["q_proj", "embed_tokens"]}
    )
    moved = [name for name, value in values(model).items() if "lora_embedding_B" in name and value.any()]
    assert len(moved) == 1
    kept = TransformerReward.load(tmp_path, device="cpu")
    trained = TransformerReward(model=model, tokenizer=kept.tokenizer)
    asked = ["say a:"], [" yes"], ["user 1"]
    np.testing.assert_array_equal(kept.score(*asked), trained.score(*asked))


@pytest.mark.study
def test_kill_minus_nine(base_folder, tmp_path):
    script = str(Path(__file__).parent / "distributed.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def command(name):
        return [sys.executable, script, "alone", str(tmp_path / name), str(base_folder)]

    subprocess.run(command("whole"), env=environment, check=True, capture_output=True, timeout=200)
    running = subprocess.Popen(command("torn"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "torn" / "checkpoints"
    until = time.monotonic() + 200
    while last_checkpoint(checkpoints) is None and time.monotonic() < until:
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (tmp_path / "torn" / "personal.safetensors").exists()
    subprocess.run(command("torn"), env=environment, check=True, capture_output=True, timeout=200)
    whole, torn = (PersonalPolicy.load(tmp_path / name) for name in ("whole", "torn"))
    for (name, value), other in zip(whole.named_parameters(), torn.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_users_without_a_row_are_generic(base_folder, comparisons, tmp_path):
    some = comparisons.take(comparisons.user != 1)
    model, _ = train_reward(some, base_folder, out=tmp_path, args={**ARGS, "max_steps": 1}, lora=LORA)
    assert model.user_ids == ["user 0", "user 2"]


def test_hard_clusters_and_descriptions_are_given_by_user(base_folder, comparisons, tmp_path):
    users = {"kind": "cluster", "hard": True, "n_clusters": 2, "n_tokens": 1}
    of = {"user 0": 1, "user 1": 0, "user 2": 1, "somebody": 0}
    args = {**ARGS, "max_steps": 1}
    model, _ = train_reward(
        comparisons, base_folder, out=tmp_path / "a", args=args, lora=LORA, users={**users, "assignment": of}
    )
    assert model.users.cluster.tolist() == [of[name] for name in model.user_ids]
    described = {f"user {i}": [float(i), 1.0] for i in range(3)}
    model, _ = train_reward(
        comparisons, base_folder, out=tmp_path / "b", args=args, lora=LORA,
        users={"kind": "text", "n_tokens": 1, "described": described},
    )  # fmt: skip
    assert model.users.described.tolist() == [described[name] for name in model.user_ids]
    some = comparisons.take(comparisons.user != 1)
    model, _ = train_reward(
        some, base_folder, out=tmp_path / "d", args=args, lora=LORA,
        users={"kind": "text", "n_tokens": 1, "described": described},
    )  # fmt: skip
    assert model.user_ids == ["user 0", "user 2", "user 1"]  # who has no answers is described all the same
    for given, message in (
        ({}, "user model cluster needs assignment"),
        ({"assignment": {"user 0": 1}}, r"users \['user 1', 'user 2'\] have no assignment"),
        ({"assignment": {**of, "user 0": 2}}, "user 0 is in cluster 2; it must be 0 to 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_reward(comparisons, base_folder, out=tmp_path / "c", args=args, users={**users, **given})
    with pytest.raises(ConfigError, match="user model individual has no assignment"):
        train_reward(
            comparisons, base_folder, out=tmp_path / "c", args=args,
            users={"kind": "individual", "n_tokens": 1, "assignment": of},
        )  # fmt: skip


def test_what_is_cut_is_said(base_folder, comparisons, tmp_path, caplog):
    train_reward(comparisons, base_folder, out=tmp_path, args={**ARGS, "max_steps": 1}, lora=LORA, max_prompt=8)
    assert "prompts lost their beginning; raise max_prompt" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.5}, "alpha is 1.5; it must be between 0 and 1"),
        ({"mixture": "half"}, 'mixture is "half"'),
        ({"place": "inside"}, 'place is "inside"'),
        ({"tuning": "some"}, 'tuning is "some"'),
        ({"loss": "ipo"}, "loss is ipo; a reward model's must be"),
        ({"head": "deep"}, 'head is "deep"'),
        ({"centring": -1.0}, "centring is -1"),
        ({"users": {}}, "have no kind"),
        ({"beta": 0.1}, "unknown setting beta; known: alpha, centring"),
        ({"user_learning_rate": -1.0}, "user_learning_rate is -1"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message):
        changed(RewardSettings(), changes)


def test_more_settings_that_cannot_be(base_folder, comparisons, tmp_path):
    with pytest.raises(ConfigError, match="beta is 0"):
        PolicySettings(beta=0.0)
    with pytest.raises(ConfigError, match=r"training arguments: .*learning_speed"):
        make_arguments({"learning_speed": 1.0}, tmp_path)
    for users, message in (
        ({"kind": "crowd", "n_tokens": 1}, 'unknown user model "crowd"'),
        ({"kind": "cluster", "n_tokens": 1}, "user model cluster: .*n_clusters"),
        ({"kind": "individual", "n_tokens": 1, "n_clusters": 3}, "user model individual: .*n_clusters"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_reward(comparisons, base_folder, out=tmp_path, args=ARGS, users=users)


def test_comparisons_that_cannot_be(base_folder, comparisons, tmp_path):
    with pytest.raises(DataError, match="no comparisons"):
        train_reward(comparisons.take(np.array([], dtype=int)), base_folder, out=tmp_path)
    empty = from_columns(prompt=["p"], chosen=["x"], rejected=[""], user=["u"])
    with pytest.raises(DataError, match="row 0: the rejected response is empty"):
        train_policy(empty, base_folder, out=tmp_path)
    path = tmp_path / "nobody.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n")
    with pytest.raises(DataError, match="user"):
        read(path)


def test_trainers_arguments_can_be_given_whole(base_folder, tmp_path):
    from transformers import TrainingArguments

    given = TrainingArguments(output_dir=str(tmp_path), learning_rate=0.5, report_to="none")
    args = make_arguments(given, tmp_path / "other")
    assert (args.output_dir, args.learning_rate, args.remove_unused_columns) == (str(tmp_path), 0.5, False)
    assert given.remove_unused_columns
