"""Towers for latent users, from comparisons to a model that places people it has never seen."""

import json

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from pluralign.comparisons import from_columns
from pluralign.errors import ConfigError, DataError
from pluralign.features import Standardizer, used_items
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.inference.pooled import fit_pooled
from pluralign.training.latent_reward import LatentReward, context_design
from pluralign.training.latent_tower import LatentTower, TowerEncoder
from pluralign.training.latent_train import (
    LatentRewardSettings,
    LatentTrainer,
    choose_ridge_basis,
    of_users,
    train_latent_reward,
)
from pluralign.training.settings import changed

from .conftest import TASTES, make_tastes

pytestmark = pytest.mark.usefixtures("whole_runs")  # shapes are checked for `test_latent_reward.py`


class Stop(TrainerCallback):
    """Dies after so many steps, as one does who is killed."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def few(**args):
    return {**TASTES, "args": {**TASTES["args"], "save_strategy": "no", **args}}


def test_two_tastes_of_new_users_from_eight_comparisons(trained_latent, base_folder, tastes):
    trained, _ = trained_latent
    reward = trained.reward
    new = make_tastes(8, 30, first=100, seed=7)
    half = new.source % 2 == 0  # placed by some questions, asked others
    told, test = new.take(half), new.take(~half)
    told = told.take(np.concatenate([np.flatnonzero(told.user == user)[:8] for user in range(8)]))
    assert np.bincount(told.user).tolist() == [8] * 8
    placed = reward.place(told).predict(test)
    features = reward.frozen_features(tastes)
    standardizer = Standardizer.fit(features, used_items(tastes))
    pooled, _ = fit_pooled(context_design(tastes, features, standardizer), ridge=1.0)
    one = pooled.predict(context_design(test, reward.frozen_features(test), standardizer))
    assert np.mean(one.correct) < 0.65
    assert np.mean(placed.correct) > 0.9
    # By half the users' own choices, not by a reward for everybody: those of the opposite taste would be wrong.
    swapped = reward.place(told).predict(test, unknown=True)
    assert np.mean(swapped.correct) < 0.7


def test_it_says_that_z_is_used(trained_latent):
    trained, folder = trained_latent
    assert trained.diagnosis.active_units == 1
    assert trained.diagnosis.accuracy["own"] > trained.diagnosis.accuracy["shuffled"] + 0.2
    assert not trained.diagnosis.collapsed
    assert trained.words.startswith("not collapsed")
    history = json.loads((folder / "training.json").read_text())
    assert [each["kl"] > 0.1 for each in history if "loss" in each] == [True] * 8
    kept = json.loads((folder / "diagnosis.json").read_text())
    assert kept["tower"]["kl"] == pytest.approx(trained.diagnosis.kl)
    assert kept["words"] == trained.words


@pytest.fixture(scope="module")
def watched(base_folder, tmp_path_factory):
    """A run on users who are alike: what it found, its log, its trainer, and how many texts each pass read."""
    patch, folder, seen = pytest.MonkeyPatch(), tmp_path_factory.mktemp("alike"), {}
    forward, encode, init = LatentTower.forward, TowerEncoder.encode, LatentTrainer.__init__
    why = ["target"]

    def counted(self, **batch):
        seen.setdefault("trained" if self.training else why[-1], []).append(len(batch["end_row"]))
        return forward(self, **batch)

    def noted(self, items, **settings):
        why.append("frozen" if self.frozen else "tuned")
        try:
            return encode(self, items, **settings)
        finally:
            why.pop()

    def kept(self, *positional, **named):
        init(self, *positional, **named)
        seen["trainer"] = self

    patch.setattr(LatentTower, "forward", counted)
    patch.setattr(TowerEncoder, "encode", noted)
    patch.setattr(LatentTrainer, "__init__", kept)
    data = make_tastes(6, 10, alike=True)
    settings = few(max_steps=3, gradient_accumulation_steps=2, per_device_train_batch_size=4, eval_strategy="steps",
                   eval_steps=1, bf16=True, use_cpu=True, activation_checkpointing=True)  # fmt: skip
    how = {**TASTES["latent"], "kl_weight": 0.4, "warmup": 4}
    found = train_latent_reward(data, base_folder, out=folder, contexts=3, **settings | {"latent": how})
    patch.undo()
    return found, json.loads((folder / "training.json").read_text()), data, seen


def test_users_who_are_alike_collapse_and_it_is_said(watched):
    found = watched[0]
    assert found.diagnosis.collapsed
    assert found.words.startswith("collapsed")


def test_a_context_is_read_once_and_a_target_once_a_step(watched):
    _, _, data, seen = watched
    texts = set(zip(data.items.prompt.tolist(), data.items.response.to_pylist(), strict=True))
    assert sum(seen["frozen"]) == len(texts)
    # Three steps of two micro-batches of four pairs; three contexts each cost no pass, and none reads its texts again.
    assert len(seen["trained"]) == 6
    assert all(2 <= n <= 8 for n in seen["trained"])


def test_the_kl_is_logged_and_its_weight_counts_optimizer_steps(watched):
    history = watched[1]
    assert [each["kl_weight"] for each in history if "kl" in each] == pytest.approx([0.1, 0.2, 0.3])
    assert len([each for each in history if "eval_accuracy" in each]) == 3


def test_micro_batches_do_not_matter(watched):
    trainer = watched[3]["trainer"]
    keys = [key for batch in list(trainer.get_train_dataloader().batch_sampler)[:2] for key in batch]
    targets = [trainer.train_dataset[key] for key in keys]
    assert len(targets) == 8

    def gradients(parts):
        trainer.model.zero_grad()
        total = 0.0
        for part in parts:
            loss = trainer.compute_loss(trainer.model, trainer.data_collator(part), num_items_in_batch=torch.tensor(8))
            loss.backward()
            total += loss.item()
        named = trainer.model.named_parameters()
        return total, {name: value.grad.clone() for name, value in named if value.grad is not None}

    whole = gradients([targets])
    loss, grads = gradients([targets[:3], targets[3:4], targets[4:]])
    assert loss == pytest.approx(whole[0], rel=1e-5)
    assert {"head.theta", "head.coordinates", "head.encoder_pair"} <= grads.keys()
    assert any("lora_B" in name and value.abs().max() > 0 for name, value in grads.items())
    for name, value in whole[1].items():
        torch.testing.assert_close(grads[name], value, rtol=1e-3, atol=1e-5, msg=name)


def values(reward):
    return {name: value.detach().clone() for name, value in reward.tower.trained().items()}


def test_a_run_that_died_ends_as_one_that_did_not(base_folder, tmp_path):
    data, settings = make_tastes(6, 10), {**TASTES, "args": {**TASTES["args"], "max_steps": 4}}

    def run(name, **more):
        return train_latent_reward(data, base_folder, out=tmp_path / name, **settings, **more).reward

    whole = values(run("whole"))
    with pytest.raises(KeyboardInterrupt):
        run("torn", callbacks=[Stop(3)])
    torn = values(run("torn"))
    assert whole.keys() == torn.keys()
    for name, value in whole.items():
        assert torch.equal(torn[name], value), name
    history = json.loads((tmp_path / "torn" / "training.json").read_text())
    assert [each["step"] for each in history if "loss" in each] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"users": {"kind": "individual", "n_tokens": 1}}, "those of a tower are"),
        ({"latent": {"form": "pairwise"}}, 'form is "pairwise"'),
        ({"latent": {"dims": 3}}, "unexpected keyword argument 'dims'"),
        ({"latent": {"latent_dim": 0}}, "latent_dim is 0"),
        ({"contexts": 0}, "contexts is 0; it must be at least 1"),
        ({"loss": "hinge"}, "the bound is that of a plain sigmoid"),
    ],
)
def test_settings_that_cannot_be(more, message):
    with pytest.raises(ConfigError, match=message):
        changed(LatentRewardSettings(), more)


def test_settings_are_filled_in():
    settings = changed(LatentRewardSettings(seed=3), {"latent": {"latent_dim": 2}})
    assert settings.how == LatentSettings(latent_dim=2, seed=3)


def test_data_that_cannot_be(base_folder, tmp_path):
    three = from_columns(
        prompt=["q"] * 2, chosen=["a", "a"], rejected=["b", "c"], user=["ann"] * 2, choice=np.array([0, 0])
    )
    with pytest.raises(DataError, match="a tower learns from pairs"):
        train_latent_reward(three, base_folder, out=tmp_path)
    one = from_columns(prompt=["q"] * 2, chosen=["a", "a"], rejected=["b", "c"], user=["ann", "ben"])
    with pytest.raises(DataError, match="source"):
        train_latent_reward(one, base_folder, out=tmp_path)
    with pytest.raises(ConfigError, match="every row has the same source"):
        train_latent_reward(one, base_folder, out=tmp_path, eval=one, ridge=1.0)


def test_a_user_who_is_not_the_models_is_named(trained_latent, base_folder, tastes, tmp_path):
    trained, _ = trained_latent
    from transformers import TrainingArguments

    from pluralign.language_models.tokens import tokenize
    from pluralign.training.latent_data import Contexts, TargetDataset

    tower = trained.reward.tower
    tokens = tokenize(tastes, trained.reward.tokenizer).for_users(["somebody else"])
    contexts = Contexts(items=torch.zeros(1, 1), tokens=tokens, n_contexts=1, draws=1, latent_dim=1, seed=0)
    args = TrainingArguments(output_dir=str(tmp_path), remove_unused_columns=False, report_to="none")
    with pytest.raises(DataError, match="row 0: its user is not among the model's 24"):
        LatentTrainer(tower, args, LatentRewardSettings(), train=TargetDataset(tokens=tokens, contexts=contexts))


def test_tastes_that_cancel_do_not_silence_the_basis(trained_latent):
    few = make_tastes(8, 12)
    features = trained_latent[0].reward.frozen_features(few)[:, :6]
    design = context_design(few, features, Standardizer.fit(features))
    _, report = fit_pooled(design)
    chosen = choose_ridge_basis(design, report.ridge, LatentSettings(latent_dim=1))
    assert report.ridge >= 100 * chosen


def test_rows_of_some_users(tastes):
    some = of_users(tastes, ["user 3", "nobody", "user 1"])
    assert some.user_ids == ("user 3", "nobody", "user 1")
    assert np.bincount(some.user).tolist() == [10, 0, 10]
    assert np.array_equal(some.source, tastes.source[np.isin(tastes.user, [1, 3])])


@pytest.mark.study
def test_a_fully_tuned_tower_reads_contexts_as_its_base_did(base_folder, tmp_path):
    data = make_tastes(6, 8)
    found = train_latent_reward(data, base_folder, out=tmp_path, **few(max_steps=2) | {"tuning": "full", "lora": None})
    again = LatentReward.load(tmp_path, device="cpu")
    new = make_tastes(2, 4, first=9)
    assert torch.equal(again.place(new).posterior.mean, found.reward.place(new).posterior.mean)
    assert again.frozen.tower is not again.tower
    tuned = again.linear.design(new, progress=False).features
    frozen = again.linear.standardizer.transform(again.frozen_features(new))
    assert float((tuned - frozen).abs().max()) > 1e-3
