"""Scoring texts and features for any user."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pluralign.comparisons import encode_chat
from pluralign.errors import CacheError, DataError
from pluralign.features import Item
from pluralign.populations import simulate
from pluralign.rewards import LinearReward
from pluralign.studies.fitting import fit

PROMPTS = ["How do I boil an egg?", "How do I boil an egg?", "Why is the sky blue?"]
RESPONSES = [
    "Seven minutes.",
    "First, fill a pot with water!\n\n- then wait\n- then eat",
    "Perhaps because of the air.",
]
FOLDER_OF_A_TEXT_MODEL = {
    "encoder.json",
    "encoder.safetensors",
    "reward.json",
    "standardizer.safetensors",
    "users.json",
    "users.safetensors",
}


@pytest.fixture(scope="module")
def texts() -> LinearReward:
    comparisons = simulate(n_users=8, comparisons_per_user=20, n_prompts=20, n_clusters=2, seed=1).comparisons
    return fit(comparisons, users="cluster", clusters=2, soft=True, ridge=1.0, starts=2).reward


@pytest.fixture(scope="module")
def numbers() -> LinearReward:
    comparisons = simulate(
        features="numeric", dim=3, n_users=8, comparisons_per_user=30, n_clusters=2, n_prompts=20, seed=1
    ).comparisons
    return fit(comparisons, users="individual", ridge=1.0).reward


def test_a_text_model_scores_the_same_once_loaded(texts, tmp_path):
    texts.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FOLDER_OF_A_TEXT_MODEL
    users = ["user 0", "user 5", None]
    for mine, theirs in zip(
        LinearReward.load(tmp_path).score(PROMPTS, RESPONSES, users),
        texts.score(PROMPTS, RESPONSES, users),
        strict=True,
    ):
        assert np.array_equal(mine, theirs)


def test_a_numeric_model_scores_the_same_once_loaded(numbers, tmp_path):
    numbers.save(tmp_path)
    features = np.random.default_rng(0).normal(size=(4, 3))
    users = ["user 0", "user 5", None, "nobody"]
    loaded = LinearReward.load(tmp_path)
    for mine, theirs in zip(
        loaded.score_features(features, users), numbers.score_features(features, users), strict=True
    ):
        assert np.array_equal(mine, theirs)
    assert loaded.user_ids == numbers.user_ids


def test_none_and_an_unknown_name_are_the_prior(numbers):
    features = np.random.default_rng(0).normal(size=(2, 3))
    none, unknown = numbers.score_features(features, [None] * 2), numbers.score_features(features, ["", "user 99"])
    assert np.array_equal(none[0], unknown[0])
    assert np.array_equal(none[1], unknown[1])
    phi = numbers.standardizer.transform(features)
    assert none[0] == pytest.approx((phi @ numbers.users.theta).numpy())
    prior = (phi @ numbers.users.axes.T) ** 2 @ numbers.users.scale**2
    assert none[1] == pytest.approx(prior.sqrt().numpy())


def test_a_known_user_is_surer_than_an_unknown_one(numbers):
    features = np.random.default_rng(0).normal(size=(2, 3))
    known, unknown = numbers.score_features(features, ["user 0"] * 2), numbers.score_features(features, [None] * 2)
    assert (known[1] < unknown[1]).all()
    assert not np.allclose(known[0], unknown[0])


def test_each_score_depends_on_its_own_row_alone(texts):
    users = ["user 0", None, "user 5"]
    mean, sd = texts.score(PROMPTS, RESPONSES, users)
    order = [2, 0, 1]
    shuffled = texts.score(*([part[i] for i in order] for part in (PROMPTS, RESPONSES, users)))
    assert shuffled[0] == pytest.approx(mean[order], rel=1e-6)
    assert shuffled[1] == pytest.approx(sd[order], rel=1e-6)
    alone = [texts.score([p], [r], [u])[0][0] for p, r, u in zip(PROMPTS, RESPONSES, users, strict=True)]
    assert alone == pytest.approx(mean, rel=1e-5)


def test_nothing_has_no_score(numbers):
    mean, sd = numbers.score_features(np.empty((0, 3)), [])
    assert mean.shape == sd.shape == (0,)


def test_predictions_are_of_each_own_user_or_of_nobody(numbers):
    comparisons = simulate(
        features="numeric", dim=3, n_users=8, comparisons_per_user=30, n_clusters=2, n_prompts=20, seed=1
    ).comparisons
    own, nobody = numbers.predict(comparisons), numbers.predict(comparisons, unknown=True)
    assert own.log_prob.mean() > nobody.log_prob.mean()
    assert torch.equal(numbers.user_index(["user 1", "nobody"]), torch.tensor([1, -1]))


@pytest.mark.parametrize("short", [0, 1, 2])
def test_lengths_that_differ_are_said(texts, short):
    given = [PROMPTS, RESPONSES, [None] * 3]
    given[short] = given[short][:2]
    lengths = ["3"] * 3
    lengths[short] = "2"
    with pytest.raises(DataError, match="{} prompts, {} responses and {} users were given".format(*lengths)):
        texts.score(*given)


def test_features_of_another_width_or_number_are_said(numbers):
    with pytest.raises(DataError, match="features have 4 columns; the standardizer knows 3"):
        numbers.score_features(np.zeros((2, 4)), [None] * 2)
    with pytest.raises(DataError, match="2 rows of features and 3 users were given"):
        numbers.score_features(np.zeros((2, 3)), [None] * 3)
    other = simulate(features="numeric", dim=4, n_users=3, comparisons_per_user=5).comparisons
    with pytest.raises(DataError, match="features have 4 columns"):
        numbers.predict(other)


def test_a_model_of_numbers_scores_no_texts(numbers):
    with pytest.raises(DataError, match='fitted on "attributes" features') as error:
        numbers.score(PROMPTS, RESPONSES, [None] * 3)
    assert error.value.hint == "score vectors with `score_features`"


def test_a_folder_without_a_model_is_said(tmp_path):
    with pytest.raises(CacheError, match=r"holds no reward model: there is no reward\.json"):
        LinearReward.load(Path(tmp_path))


def test_what_many_users_share_is_encoded_once(texts):
    read = []

    class Spy:
        def encode(self, items):
            read.extend(items)
            return texts.encoder.encode(items)

    spy = replace(texts, encoder=texts.encoder)
    object.__setattr__(spy, "encoder", Spy())
    users = [f"user {i}" for i in range(6)]
    prompts, responses = ["Why?"] * 6, ["Because.", "Ask her!"] * 3
    assert np.array_equal(spy.score(prompts, responses, users)[0], texts.score(prompts, responses, users)[0])
    assert [item.response for item in read] == ["Because.", "Ask her!"]


def test_chats_are_scored_as_chats(texts):
    chat = encode_chat([{"role": "user", "content": "Why?"}]), encode_chat([{"role": "assistant", "content": "So!"}])
    expected = texts.encoder.encode([Item(*chat, True)])
    mean, _ = texts.score([chat[0], "Why?"], [chat[1], chat[1]], ["user 1"] * 2)
    assert mean[0] == texts.score_features(expected, ["user 1"])[0][0]
    assert mean[1] != mean[0], "an answer to a plain text is a plain text, whatever it spells"
