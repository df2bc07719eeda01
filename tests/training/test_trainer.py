"""The trainer's loss and gradients: against TRL's, and against itself divided otherwise."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from pluralign.errors import ConfigError, DataError
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy, PersonalReward
from pluralign.language_models.tokens import tokenize
from pluralign.training.data import PairDataset
from pluralign.training.reference import reference_log_probs
from pluralign.training.settings import PolicySettings, RewardSettings
from pluralign.training.trainer import PreferenceTrainer, disable_dropout

from .conftest import make_comparisons

VANILLA = {"users": {"kind": "uniform", "n_tokens": 0}, "alpha": 0.0}


def make_trainer(base_folder, tokenizer, folder, settings, *, comparisons=None, seed=0, **arguments) -> Any:
    """A trainer of a model that has moved from where it began."""
    comparisons = make_comparisons() if comparisons is None else comparisons
    tokens = tokenize(comparisons, tokenizer)
    kind = PersonalReward if isinstance(settings, RewardSettings) else PersonalPolicy
    head = {"head": settings.head} if isinstance(settings, RewardSettings) else {}
    config = PersonalConfig(
        base=str(base_folder),
        users=dict(settings.users),
        user_ids=list(tokens.user_ids),
        place=settings.place,
        tuning=settings.tuning,
        lora={"r": 4} if settings.tuning == "lora" else None,
        **head,
    )
    model = kind.make(config, seed=seed)
    reference = reference_log_probs(model, tokens, progress=False) if kind is PersonalPolicy else None
    shake(model)
    args = TrainingArguments(
        **{
            "output_dir": str(folder),
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "logging_steps": 1,
            "dataloader_pin_memory": False,
            **arguments,
        }
    )
    data = PairDataset(tokens=tokens, reference=reference)
    return PreferenceTrainer(model, args, settings, train=data, eval=data)


def shake(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.02 * torch.randn(value.shape, generator=generator))


def batch_of(trainer, rows) -> dict[str, Any]:
    return trainer.data_collator([trainer.train_dataset[int(row)] for row in rows])


def gradients(trainer, batches, n) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a step of some micro-batches."""
    trainer.model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(n))
        loss.backward()
        total += loss.item()
    return total, {
        name: value.grad.clone() for name, value in trainer.model.named_parameters() if value.grad is not None
    }


def plain(comparisons):
    """Rows as TRL reads them."""
    prompts, responses = comparisons.items.prompts.to_pylist(), comparisons.items.response.to_pylist()
    return [
        {"prompt": prompts[comparisons.items.prompt[c]], "chosen": responses[c], "rejected": responses[r]}
        for c, r in zip(comparisons.chosen.tolist(), comparisons.rejected.tolist(), strict=True)
    ]


def sure(comparisons):
    """The same comparisons without ties and weights."""
    from dataclasses import replace

    return replace(comparisons, outcome=None, weight=None)


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl")


def trl_trainer(trl, kind, base_folder, tokenizer, folder, **settings):
    from datasets import Dataset

    config, trainer = {
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "reward": (trl.RewardConfig, trl.RewardTrainer),
    }[kind]
    args = config(
        output_dir=str(folder), per_device_train_batch_size=8, report_to="none", bf16=False, max_length=None,
        gradient_checkpointing=False, disable_tqdm=True, disable_dropout=True, dataloader_pin_memory=False, **settings,
    )  # fmt: skip
    return trainer(
        model=str(base_folder),
        args=args,
        train_dataset=Dataset.from_list(plain(sure(make_comparisons(8)))),
        processing_class=tokenizer,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [("sigmoid", 0.0), ("ipo", 0.0), ("hinge", 0.0), ("robust", 0.2), ("exo_pair", 0.1),
     ("sigmoid_norm", 0.0), ("discopop", 0.0)],
)  # fmt: skip
def test_vanilla_dpo_is_trls(trl, base_folder, tokenizer, tmp_path, loss, smoothing):
    """Remark 5.3 of arXiv 2402.05133: alpha = 0 with a uniform, empty user model."""
    settings = PolicySettings(**VANILLA, tuning="full", beta=0.3, loss=loss, smoothing=smoothing)
    ours = make_trainer(base_folder, tokenizer, tmp_path, settings, comparisons=sure(make_comparisons(8)))
    theirs = trl_trainer(
        trl, "dpo", base_folder, tokenizer, tmp_path / "trl", beta=0.3, loss_type=[loss],
        label_smoothing=smoothing,
    )  # fmt: skip
    copy_weights(ours.model.lm, theirs.model)
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(8)])
    mine, own = gradients(ours, [batch_of(ours, range(8))], 8)
    their_loss = theirs.compute_loss(theirs.model, batch)
    their_loss.backward()
    assert mine == pytest.approx(their_loss.item(), rel=1e-5)
    compare_gradients(own, theirs.model)


@pytest.mark.filterwarnings("ignore")
def test_the_reference_is_trls(trl, base_folder, tokenizer, tmp_path):
    settings = PolicySettings(users={"kind": "individual", "n_tokens": 1})
    ours = make_trainer(base_folder, tokenizer, tmp_path, settings, comparisons=sure(make_comparisons(8)))
    theirs = trl_trainer(trl, "dpo", base_folder, tokenizer, tmp_path / "trl", precompute_ref_log_probs=True)
    loader = theirs.get_train_dataloader()  # which is what computes them
    data, tokens = loader.dataset, ours.train_dataset.tokens
    reference = ours.train_dataset.reference
    np.testing.assert_allclose(reference[tokens.chosen], data["ref_chosen_logps"][:], atol=1e-3)
    np.testing.assert_allclose(reference[tokens.rejected], data["ref_rejected_logps"][:], atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("centring", [0.0, 0.1])
def test_a_vanilla_reward_model_is_trls(trl, base_folder, tokenizer, tmp_path, centring):
    """Remark 5.2 of arXiv 2402.05133."""
    settings = RewardSettings(**VANILLA, tuning="full", centring=centring)
    ours = make_trainer(base_folder, tokenizer, tmp_path, settings, comparisons=sure(make_comparisons(8)))
    theirs = trl_trainer(
        trl, "reward", base_folder, tokenizer, tmp_path / "trl", center_rewards_coefficient=centring or None
    )
    copy_weights(ours.model.lm, theirs.model.model)
    with torch.no_grad():
        theirs.model.score.weight.copy_(ours.model.head.weight)
    mine, own = gradients(ours, [batch_of(ours, range(8))], 8)
    their_loss = theirs.compute_loss(theirs.model, theirs.data_collator([theirs.train_dataset[i] for i in range(8)]))
    their_loss.backward()
    assert mine == pytest.approx(their_loss.item(), rel=1e-5)
    torch.testing.assert_close(own.pop("head.weight"), theirs.model.score.weight.grad, rtol=1e-4, atol=1e-6)
    compare_gradients(own, theirs.model.model)


def copy_weights(source, target):
    values = {name.replace("embed_tokens.base", "embed_tokens"): value for name, value in source.state_dict().items()}
    target.load_state_dict({name: value for name, value in values.items() if ".users." not in name})


def compare_gradients(own, theirs):
    want = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    got = {name.removeprefix("lm.").replace("embed_tokens.base", "embed_tokens"): g for name, g in own.items()}
    shared = set(want) & set(got)
    assert len(shared) >= 20  # every matrix of both layers
    assert {name for name in want if name not in got} <= {"score.weight"}
    for name in shared:
        torch.testing.assert_close(got[name], want[name], rtol=1e-3, atol=1e-5, msg=name)


SETTINGS = [
    PolicySettings(place="after"),
    PolicySettings(place="before", users={"kind": "cluster", "n_tokens": 2, "n_clusters": 2}),
    RewardSettings(head="late"),
    RewardSettings(tuning="full", centring=0.1),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["after", "before", "late", "centred"])
def test_micro_batches_do_not_matter(base_folder, tokenizer, tmp_path, settings):
    trainer = make_trainer(base_folder, tokenizer, tmp_path, settings)
    rows = np.arange(11)
    whole = gradients(trainer, [batch_of(trainer, rows)], 11)
    for size in (1, 2, 4):
        parts = [batch_of(trainer, rows[i : i + size]) for i in range(0, 11, size)]  # the last is shorter
        loss, grads = gradients(trainer, parts, 11)
        assert loss == pytest.approx(whole[0], rel=1e-5)
        assert grads.keys() == whole[1].keys()
        for name, value in whole[1].items():
            torch.testing.assert_close(grads[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "settings", [SETTINGS[0], pytest.param(SETTINGS[1], marks=pytest.mark.study)], ids=["after", "before"]
)
def test_a_run_does_not_depend_on_its_division(base_folder, tokenizer, tmp_path, settings):
    # 22 rows in steps of 8: the last step has 6.
    runs = []
    for batch, accumulation in ((8, 1), (2, 4), (1, 8)):
        trainer = make_trainer(
            base_folder, tokenizer, tmp_path, settings, per_device_train_batch_size=batch, num_train_epochs=2,
            gradient_accumulation_steps=accumulation, optim="sgd",
        )  # fmt: skip
        trainer.train()
        losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
        runs.append((losses, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
    assert len(runs[0][0]) == 6
    for losses, values in runs[1:]:
        np.testing.assert_allclose(losses, runs[0][0], rtol=1e-4)
        for name, value in runs[0][1].items():
            torch.testing.assert_close(values[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_drawn_mixture_has_the_exact_loss_on_average(base_folder, tokenizer, tmp_path):
    """By summing over all draws for three rows, each with its probability."""
    from itertools import product

    from pluralign.training.data import Key

    exact = make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(alpha=0.3))
    drawn = make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(alpha=0.3, mixture="sampled"))
    want = exact.compute_loss(exact.model, batch_of(exact, range(3))).item()
    got = 0.0
    for personal in product([True, False], repeat=3):
        pairs = [drawn.train_dataset[Key(i, whose, not whose, True)] for i, whose in enumerate(personal)]
        p = np.prod([0.3 if whose else 0.7 for whose in personal])
        got += p * drawn.compute_loss(drawn.model, drawn.data_collator(pairs)).item()
    assert got == pytest.approx(want, rel=1e-5)


def test_alpha_one_trains_the_shared_vector_of_individuals_and_leaves_the_generic_cluster(
    base_folder, tokenizer, tmp_path
):
    one = {"alpha": 1.0}
    trainer = make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(**one))
    batch = next(iter(trainer.get_train_dataloader()))
    _, grads = gradients(trainer, [batch], 4)
    assert grads["users.generic"].abs().sum() > 0
    users = {"kind": "cluster", "n_tokens": 1, "n_clusters": 2}
    trainer = make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(users=users, **one))
    _, grads = gradients(trainer, [next(iter(trainer.get_train_dataloader()))], 4)
    assert "users.generic_logit" not in grads or not grads["users.generic_logit"].any()
    assert grads["users.logit"].abs().sum() > 0


@pytest.mark.parametrize("head", ["linear", "late"])
def test_absent_users_stand_still(base_folder, tokenizer, tmp_path, head):
    comparisons = make_comparisons(40, n_users=10)
    settings = RewardSettings(head=head)
    trainer = make_trainer(
        base_folder, tokenizer, tmp_path, settings, comparisons=comparisons, per_device_train_batch_size=3
    )
    table = trainer.model.users.offset
    tokens = trainer.train_dataset.tokens
    loader = trainer.get_train_dataloader()
    optimiser = trainer.create_optimizer()
    users_group = optimiser.param_groups[-1]
    assert users_group["weight_decay"] == 0.0
    assert {id(p) for p in users_group["params"]} == {id(p) for p in trainer.model.users.parameters()}
    stood = 0
    for batch, keys in zip(loader, loader.batch_sampler, strict=True):
        before = table.detach().clone()
        gradients(trainer, [batch], len(keys))
        optimiser.step()
        present = set(tokens.user[[key.row for key in keys]].tolist())
        moved = {int(i) for i in (table != before).flatten(1).any(1).nonzero()}
        assert moved == present
        stood += 10 - len(present)
    assert stood > 50


def test_a_users_own_learning_rate(base_folder, tokenizer, tmp_path):
    settings = PolicySettings(user_learning_rate=0.5)
    optimiser = make_trainer(base_folder, tokenizer, tmp_path, settings).create_optimizer()
    assert [group["lr"] for group in optimiser.param_groups] == [1e-2] * (len(optimiser.param_groups) - 1) + [0.5]


def test_a_vanilla_model_trains(base_folder, tokenizer, tmp_path):
    trainer = make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(**VANILLA), num_train_epochs=6)
    trainer.train()
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_nothing_to_train_is_named(base_folder, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match='the tuning is "frozen" and users have no tokens'):
        make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(**{**VANILLA, "tuning": "frozen"}))


def test_what_is_logged_and_evaluated(base_folder, tokenizer, tmp_path):
    trainer = make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(alpha=0.3), max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {"loss", "accuracy", "margin", "accuracy_generic", "margin_generic"} <= logged.keys()
    found = trainer.evaluate()
    loader = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    trainer.model.eval()
    batch = trainer.data_collator(loader)
    with torch.no_grad():
        loss, terms = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert found["eval_loss"] == pytest.approx(loss.item(), rel=1e-4)
    outcome = batch["outcome"][batch["personal"]]
    decided = outcome != 0.5
    right = (terms.margin[batch["personal"]] > 0) == (outcome > 0.5)
    assert found["eval_accuracy"] == pytest.approx(right[decided].double().mean().item())
    tokens = trainer.train_dataset.tokens
    each = [right.numpy()[(tokens.user == u) & decided.numpy()].mean() for u in range(3)]
    assert found["eval_accuracy_users"] == pytest.approx(np.mean(each))


def test_only_public_methods_are_overridden():
    from transformers import Trainer

    private = {name for name in vars(PreferenceTrainer) if name.startswith("_") and not name.startswith("__")}
    assert not {name for name in private if hasattr(Trainer, name)}


def test_dropout_is_off_unless_it_is_wanted(base_folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.attention_dropout = 0.5
    model = torch.nn.Sequential(LlamaForCausalLM(config), torch.nn.Dropout(0.5)).train()
    disable_dropout(model)
    ids = torch.arange(10)[None]
    assert torch.equal(model[0](ids).logits, model[0](ids).logits)
    assert torch.equal(model[1](torch.ones(9)), torch.ones(9))


def test_an_unknown_user_at_training(base_folder, tokenizer, tmp_path):
    settings = PolicySettings()
    trainer = make_trainer(base_folder, tokenizer, tmp_path, settings)
    data = PairDataset(
        tokens=trainer.train_dataset.tokens.for_users(["user 0"]), reference=trainer.train_dataset.reference
    )
    with pytest.raises(DataError, match="its user is not among the model's 3"):
        PreferenceTrainer(trainer.model, trainer.args, settings, train=data)
    PreferenceTrainer(trainer.model, trainer.args, PolicySettings(alpha=0.0), train=data)  # needs no user


def test_sequences_that_the_model_cannot_read_are_named_before_training(base_folder, tokenizer, tmp_path):
    trainer = make_trainer(base_folder, tokenizer, tmp_path, PolicySettings())
    trainer.model.inner.config.max_position_embeddings = 20
    with pytest.raises(DataError, match=r"sequences have more than the 20 tokens"):
        PreferenceTrainer(trainer.model, trainer.args, PolicySettings(), train=trainer.train_dataset)


def test_columns_must_stay(base_folder, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="remove_unused_columns is True"):
        make_trainer(base_folder, tokenizer, tmp_path, PolicySettings(), remove_unused_columns=True)
