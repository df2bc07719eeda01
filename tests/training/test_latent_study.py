"""Towers for latent users on dialogues of two planted tastes, against what else there is, on the same held-out rows."""

from dataclasses import replace

import numpy as np
import pytest

from pluralign.evaluation import combine_seeds, mean_interval, paired_difference
from pluralign.features import Standardizer, used_items
from pluralign.inference.adapt import adapt
from pluralign.inference.latent import fit_latent
from pluralign.inference.pooled import fit_pooled
from pluralign.populations.dialogues import embedded_language_model, simulate_dialogues
from pluralign.rewards.transformer import TransformerReward
from pluralign.training.latent_reward import context_design
from pluralign.training.latent_train import LatentRewardSettings, train_latent_reward
from pluralign.training.train import train_reward

pytestmark = [pytest.mark.study, pytest.mark.timeout(1200), pytest.mark.usefixtures("whole_runs")]
SEEDS, M = (0, 1, 2), 8
ARGS = {
    "per_device_train_batch_size": 16,
    "num_train_epochs": 3,
    "learning_rate": 2e-3,
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 1000,
}
PRM = {"users": {"kind": "individual", "n_tokens": 1}, "head": "late", "user_learning_rate": 0.02}


@pytest.fixture(scope="module")
def base():
    return embedded_language_model(settings="small", n_topics=4, progress=False)


def make_world(seed):
    """Comparisons to learn from, those of users in training and of ten others held out, and what the others said."""
    world = simulate_dialogues(
        n_users=40, comparisons_per_user=60, n_topics=4, noise=0.03, shares=(0.7, 0.3), test=0.4, seed=seed
    )
    rng = np.random.default_rng(seed)
    picked = (rng.permutation(np.flatnonzero(world.cluster == group))[:n] for group, n in ((0, 7), (1, 3)))
    new = np.isin(np.arange(40), np.concatenate(list(picked)))
    told = world.train.take(new[world.train.user])
    told = told.take(np.concatenate([np.flatnonzero(told.user == user)[:M] for user in np.flatnonzero(new)]))
    rows = world.train.take(~new[world.train.user])
    return rows, world.test.take(~new[world.test.user]), world.test.take(new[world.test.user]), told


def judge(seed, base, folder):
    """Predictions by method, for users in training and for new ones."""
    rows, seen, new, told = make_world(seed)
    found = {}
    model, tokenizer = train_reward(rows, base, out=folder / "P-RM", args=ARGS, seed=seed, **PRM)
    reward = TransformerReward(model=model, tokenizer=tokenizer)
    found["P-RM"] = reward.predict(seen), reward.predict(new)  # of new users it knows the generic one
    how = LatentRewardSettings(latent={"latent_dim": 2}, seed=seed)
    trained = train_latent_reward(rows, base, out=folder / "tower", eval=seen, settings=how, args=ARGS)
    tower = trained.reward
    found["tower"] = tower.predict(seen), tower.place(told).predict(new)
    features = tower.frozen_features(rows)  # the items are those of all four tables
    standardizer = Standardizer.fit(features, used_items(rows))
    learn, known, others, few = (context_design(each, features, standardizer) for each in (rows, seen, new, told))
    pooled, report = fit_pooled(learn)
    latent = fit_latent(learn, how.how, ridge=report.ridge, start=pooled.theta).model
    found["frozen latent"] = latent.predict(known), adapt(latent, few).predict(others)
    found["frozen pooled"] = pooled.predict(known), pooled.predict(others)
    return found, trained.diagnosis


def apart(predictions, seed):
    """Each seed's users and sources are others."""
    return replace(predictions, user=predictions.user + 1000 * seed, source=predictions.source + 1000 * seed)


def test_a_tower_places_new_users_and_serves_known_ones(base, tmp_path):
    runs = []
    for seed in SEEDS:
        found, diagnosis = judge(seed, base, tmp_path / str(seed))
        assert not diagnosis.collapsed, diagnosis.words
        runs.append(found)
    seen, new = (
        {name: combine_seeds([apart(run[name][which], seed) for seed, run in zip(SEEDS, runs, strict=True)])
         for name in runs[0]} for which in (0, 1)
    )  # fmt: skip
    for what, table in (("in training", seen), (f"new, {M} comparisons", new)):
        for name, predictions in table.items():
            each = [f"{np.nanmean(run[name][0 if table is seen else 1].correct):.3f}" for run in runs]
            over = paired_difference(table["tower"], predictions, "accuracy")
            print(f"{what:22s} {name:14s} {mean_interval(predictions)} {each} tower over it {over}")
    for name in ("P-RM", "frozen pooled"):
        assert paired_difference(new["tower"], new[name], "accuracy").low > 0
    assert paired_difference(seen["tower"], seen["frozen pooled"], "accuracy").low > 0.05
    for name in ("P-RM", "frozen latent"):
        assert paired_difference(seen["tower"], seen[name], "accuracy").low > -0.04
    assert paired_difference(new["tower"], new["frozen latent"], "accuracy").low > -0.06


def test_a_tower_that_starts_from_nothing_collapses_and_says_so(base, tmp_path):
    rows, seen, _, _ = make_world(0)
    scratch = {"latent_dim": 2, "guided": False, "steps": 0, "bound": "elbo", "kl_weight": 1.0, "warmup": 0,
               "inputs": "pairs"}  # fmt: skip
    trained = train_latent_reward(rows, base, out=tmp_path, eval=seen, latent=scratch, args=ARGS)
    assert trained.diagnosis.collapsed
    assert trained.words.startswith("collapsed")
