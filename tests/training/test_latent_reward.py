"""A tower as it is shipped: placing, scoring, saving."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pluralign.errors import CacheError, DataError
from pluralign.features import Standardizer, encode, used_items
from pluralign.inference.latent_elbo import LatentSettings, initial
from pluralign.inference.latent_encoder import place_latent
from pluralign.language_models.personal import PersonalConfig
from pluralign.policies.evaluation import evaluate_reward
from pluralign.training.latent_reward import LatentReward, context_design, fixed
from pluralign.training.latent_tower import LatentHead, LatentTower, TowerEncoder

from .conftest import make_tastes

ASKED = ["q1:", "q2:", "q1:"], [" aaa.", " zzz", " zzz.."]


@pytest.fixture(scope="module")
def new():
    return make_tastes(4, 8, first=100, seed=5)


def test_a_tower_that_has_not_moved_is_the_latent_model_of_its_features(base_folder, tokenizer, tastes, new):
    tower = LatentTower.make(PersonalConfig(base=str(base_folder), user_ids=tastes.user_ids, lora={"r": 4}))
    raw = encode(tastes, TowerEncoder(tower=tower, tokenizer=tokenizer, frozen=True))
    standardizer = Standardizer.fit(raw, used_items(tastes))
    design = context_design(tastes, raw, standardizer)
    g, dim = torch.Generator().manual_seed(0), design.dim
    theta, directions = torch.randn(dim, generator=g), torch.randn(dim, 4, generator=g)
    how = LatentSettings(latent_dim=2, hidden=4, width=4)
    model = initial(how, theta, directions, torch.full((4,), 8.0), torch.randn(3, dim, generator=g))
    model.decoder["last"] += torch.randn(4, generator=g)  # a net that says something
    model = place_latent(fixed(model, design.features.dtype), design)
    tower.begin_at(LatentHead.of(model, standardizer, prior="normal", bound="predictive"))
    reward = LatentReward.of(tower, tokenizer)
    want, sd = model.reward(design.features, torch.zeros(len(tastes.items), dtype=torch.int64))
    prompts, responses = tastes.items.prompts.to_pylist(), tastes.items.response.to_pylist()
    asked = [prompts[i] for i in tastes.items.prompt], responses
    got = reward.place(tastes).score(*asked, [tastes.user_ids[0]] * len(responses))
    np.testing.assert_allclose(got[0], want, atol=1e-4)
    np.testing.assert_allclose(got[1], sd, atol=1e-4)
    theirs = place_latent(model, context_design(new, reward.frozen_features(new), standardizer))
    np.testing.assert_allclose(reward.place(new).posterior.mean, theirs.posterior.mean, atol=1e-4)
    chosen = reward.place(tastes).predict(tastes).chosen
    np.testing.assert_allclose(chosen, model.predict(design).chosen, atol=1e-4)


def test_it_comes_back_bit_for_bit(trained_latent, tastes, new):
    trained, folder = trained_latent
    again = LatentReward.load(folder, device="cpu")
    for users in (["user 0", "user 1", None], ["nobody", "user 3", "user 3"]):
        for mine, theirs in zip(trained.reward.score(*ASKED, users), again.score(*ASKED, users), strict=True):
            assert np.array_equal(mine, theirs)
    assert again.user_ids == tastes.user_ids
    for mine, theirs in zip(trained.reward.place(new).posterior, again.place(new).posterior, strict=True):
        assert torch.equal(mine, theirs)
    assert not [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_other_users_can_be_saved(trained_latent, new, tmp_path):
    placed = trained_latent[0].reward.place(new)
    placed.save(tmp_path)
    again = LatentReward.load(tmp_path, device="cpu")
    assert again.user_ids == new.user_ids
    users = ["user 100", "user 103", "user 0"]
    assert np.array_equal(again.score(*ASKED, users)[0], placed.score(*ASKED, users)[0])


def test_somebody_unknown_is_the_prior(trained_latent, tastes):
    reward = trained_latent[0].reward
    stranger = reward.score(*ASKED, [None] * 3)[0]
    assert np.array_equal(stranger, reward.score(*ASKED, ["nobody"] * 3)[0])
    nothing = make_tastes(2, 4, first=50).take(np.zeros(8, dtype=bool))
    silent = reward.place(nothing)
    np.testing.assert_allclose(silent.score(*ASKED, ["user 50"] * 3)[0], stranger, atol=1e-5)
    assert abs(stranger - reward.score(*ASKED, ["user 0"] * 3)[0]).max() > 1e-3
    assert np.array_equal(reward.predict(tastes, unknown=True).chosen, reward.place(nothing).predict(tastes).chosen)


def test_the_order_of_what_a_user_said_changes_nothing(trained_latent, new):
    reward = trained_latent[0].reward
    turned = new.take(np.random.default_rng(0).permutation(len(new)))
    torch.testing.assert_close(reward.place(turned).posterior.mean, reward.place(new).posterior.mean)


def test_a_reward_at_a_point_of_the_latent_space(trained_latent):
    reward = trained_latent[0].reward
    point = reward.posterior.mean[:2, 0]
    tight = replace(reward, posterior=type(reward.posterior)(*(
        value if i < 2 else torch.full_like(value, -60.0) for i, value in enumerate(reward.posterior)
    )))  # fmt: skip
    for who in range(2):
        want = tight.score(*ASKED, [reward.user_ids[who]] * 3)[0]
        np.testing.assert_allclose(reward.score_at(*ASKED, point)[:, who], want, atol=1e-4)
    with pytest.raises(DataError, match="3 prompts and 1 responses were given"):
        reward.score_at(ASKED[0], ["a"], point)


def test_evaluation_takes_it(trained_latent, tastes):
    reward = trained_latent[0].reward
    found = evaluate_reward(reward.linear, tastes)
    assert found.n_known_users == 24
    assert found.top.estimate == pytest.approx(reward.predict(tastes).correct.mean())


def test_features_that_are_there_are_not_read_again(trained_latent, new, monkeypatch):
    reward = trained_latent[0].reward
    features, want = reward.frozen_features(new), reward.place(new)
    monkeypatch.setattr(LatentTower, "forward", lambda *_, **__: pytest.fail("a text was read"))
    assert torch.equal(reward.place(new, features=features).posterior.mean, want.posterior.mean)


def test_texts_without_features_are_named(trained_latent, new):
    reward = trained_latent[0].reward
    features = np.zeros((len(new.items), 32), dtype=np.float32)
    with pytest.raises(DataError, match=rf"{len(new.items)} texts and 3 rows of features were given"):
        reward.place(new, features=features[:3])
    item = int(new.chosen[0])
    features[item] = np.nan
    text = new.items.response.to_pylist()[item]
    with pytest.raises(DataError, match=rf"'{text}' is in a context and has no features \(1 such texts\)"):
        reward.place(new, features=features)
    # A text that no row has may be without.
    some = new.take((new.chosen != item) & (new.rejected != item))
    assert reward.place(some, features=features).user_ids == new.user_ids


def test_folders_that_hold_no_tower(trained_latent, tmp_path):
    with pytest.raises(CacheError, match="holds no personal model"):
        LatentReward.load(tmp_path)
    trained_latent[0].reward.tower.save(tmp_path)
    with pytest.raises(CacheError, match="holds no whole reward model: there is no tokenizer"):
        LatentReward.load(tmp_path)
