"""Scoring texts for users by a fine-tuned language model."""

import json

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_columns
from pluralign.errors import CacheError, ConfigError, DataError
from pluralign.language_models.packing import Sequence, pack
from pluralign.language_models.personal import PersonalConfig, PersonalReward
from pluralign.language_models.tokens import prompt_ids, response_ids
from pluralign.rewards.transformer import TransformerReward
from pluralign.users import UNKNOWN

from ..tiny_models import make_tokenizer, save_tiny_llama

NAMES = ["ann", "bob", "cat"]
PROMPTS = ["Why?", "Why?", "How do I boil an egg?", "Why?", "How do I boil an egg?", "Why?"]
RESPONSES = ["Because.", "Nobody knows, and so it goes.", "Seven minutes.", "Because.", "Ask.", "Because."]
USERS = ["ann", "bob", "ann", None, "nobody", "ann"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "base")


def make(base, **settings):
    users = {"kind": "individual", "n_tokens": 1}
    model = PersonalReward.make(PersonalConfig(base=str(base), **{"users": users, "user_ids": NAMES, **settings}))
    with torch.no_grad():
        for value in model.trained().values():
            value.add_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    return TransformerReward(model=model, tokenizer=make_tokenizer())


@pytest.fixture(scope="module")
def linear(base):
    return make(base)


@pytest.fixture(scope="module")
def late(base):
    return make(base, head="late")


@pytest.fixture(params=["linear", "late"])
def reward(request):
    return request.getfixturevalue(request.param)


def alone(reward, prompt, response, user):
    """One text in a batch of its own."""
    asked, said = prompt_ids(reward.tokenizer, prompt), response_ids(reward.tokenizer, prompt, response)
    index = NAMES.index(user) if user in NAMES else UNKNOWN
    sequence = Sequence(prompt=tuple(asked), response=tuple(said), user=index)
    return reward.model(**pack([sequence], **reward.model.layout).tensors()).item()


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_text_has_the_reward_that_it_has_alone(reward, batch_size):
    found = reward.score(PROMPTS, RESPONSES, USERS, batch_size=batch_size)
    wanted = [alone(reward, *each) for each in zip(PROMPTS, RESPONSES, USERS, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert found[0] == found[5]
    assert abs(found[0] - found[3]) > 1e-3  # ann is not the generic user


def count_branches(reward, monkeypatch):
    """Texts that every call of the model reads."""
    seen = []
    forward = PersonalReward.forward
    monkeypatch.setattr(
        PersonalReward, "forward", lambda self, **batch: seen.append(len(batch["end_row"])) or forward(self, **batch)
    )
    return seen


def test_a_late_head_reads_each_text_once_whoever_asks(linear, late, monkeypatch):
    for reward, wanted in ((late, 2), (linear, 8)):
        seen = count_branches(reward, monkeypatch)
        texts = [(prompt, response, user) for prompt, response in (("a", "b"), ("c", "d")) for user in [*NAMES, None]]
        reward.score(*map(list, zip(*texts * 2, strict=True)), batch_size=1)
        assert sum(seen) == wanted
        monkeypatch.undo()


def test_one_shared_token_is_read_once_for_everybody(base, monkeypatch):
    reward = make(base, users={"kind": "uniform", "n_tokens": 1})
    seen = count_branches(reward, monkeypatch)
    found = reward.score(["a"] * 3, ["b"] * 3, ["ann", "bob", None])
    assert seen == [1]
    assert len(set(found)) == 1


def test_chats_are_read_by_the_template(linear):
    chat = '[{"content":"Why?","role":"user"}]'
    answer = '[{"content":"Because.","role":"assistant"}]'
    found = linear.score([chat, chat, "Why?", ""], [answer, "Because.", "Because.", answer], ["ann"] * 4)
    assert found[0] == found[1]
    assert len({*found}) == 3
    wanted = alone(linear, [{"role": "user", "content": "Why?"}], [{"role": "assistant", "content": "Because."}], "ann")
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def pairs():
    return from_columns(
        prompt=["Why?", "Why?", "How?"],
        chosen=["Because.", "No.", "So."],
        rejected=["No.", "Because.", "Thus it is done."],
        user=["ann", "nobody", "cat"],
        outcome=np.array([1.0, 0.5, 1.0]),
    )


def test_predictions_are_the_logistic_of_the_margins(reward, pairs):
    predictions = reward.predict(pairs)
    chosen = reward.score(["Why?", "Why?", "How?"], ["Because.", "No.", "So."], ["ann", None, "cat"])
    rejected = reward.score(["Why?", "Why?", "How?"], ["No.", "Because.", "Thus it is done."], ["ann", None, "cat"])
    np.testing.assert_allclose(predictions.chosen, 1 / (1 + np.exp(rejected - chosen)), rtol=1e-5)
    np.testing.assert_allclose(predictions.best_other, 1 - predictions.chosen)
    assert predictions.outcome.tolist() == [1, 0.5, 1]
    assert predictions.user.tolist() == pairs.user.tolist()


def test_the_unknown_user_predicts_for_everybody(linear, pairs):
    generic = linear.predict(pairs, unknown=True)
    np.testing.assert_allclose(generic.chosen[1], linear.predict(pairs).chosen[1], rtol=1e-5)
    assert abs(generic.chosen[0] - linear.predict(pairs).chosen[0]) > 1e-3
    np.testing.assert_allclose(generic.chosen[0] + generic.chosen[1], 1, rtol=1e-5)


def test_a_choice_among_three_is_multinomial(late):
    three = from_columns(
        prompt=["Why?"] * 2, chosen=["a", "a"], rejected=["b", "c"], user=["ann"] * 2, choice=np.array([0, 0])
    )
    odds = np.exp(late.score(["Why?"] * 3, ["a", "b", "c"], ["ann"] * 3))
    predictions = late.predict(three)
    np.testing.assert_allclose(predictions.chosen, odds[:1] / odds.sum(), rtol=1e-5)
    np.testing.assert_allclose(predictions.best_other, odds[1:].max() / odds.sum(), rtol=1e-5)


def test_it_comes_back_bit_for_bit(reward, tmp_path):
    reward.save(tmp_path)
    again = TransformerReward.load(tmp_path, device="cpu")
    assert np.array_equal(again.score(PROMPTS, RESPONSES, USERS), reward.score(PROMPTS, RESPONSES, USERS))
    assert (again.max_prompt, again.max_response, again.user_ids) == (512, 512, tuple(NAMES))


def test_what_is_cut_is_said(linear, caplog):
    short = TransformerReward(model=linear.model, tokenizer=linear.tokenizer, max_prompt=6, max_response=4)
    found = short.score(["say: Why?", "y: Why?"], ["Because.", "Beca..."], [None, None])
    assert found[0] == found[1]
    assert caplog.messages == ["2 prompts lost their beginning and 2 responses their end"]
    caplog.clear()
    short.predict(from_columns(prompt=["12345678"], chosen=["a"], rejected=["b"], user=["ann"]))
    assert caplog.messages == ["1 prompt lost its beginning"]


def test_nothing_to_score(linear):
    assert linear.score([], [], []).shape == (0,)


def test_scoring_leaves_the_model_in_its_mode(linear):
    linear.model.train()
    linear.score(["a"], ["b"], [None])
    assert linear.model.training
    linear.model.eval()


def test_lengths_must_agree(linear):
    with pytest.raises(DataError, match="1 prompts, 2 responses and 1 users were given"):
        linear.score(["a"], ["b", "c"], [None])


def test_a_text_longer_than_the_model_is_named(linear):
    with pytest.raises(DataError, match="the model reads at most 256"):
        linear.score(["a" * 300], ["b"], [None])


def test_a_tokenizer_of_another_model(linear):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["one more"])
    with pytest.raises(ConfigError, match="ids go up to 259, and the model's embedding has 259 rows"):
        TransformerReward(model=linear.model, tokenizer=tokenizer)


def test_folders_that_hold_no_reward(linear, tmp_path):
    with pytest.raises(CacheError, match="holds no personal model"):
        TransformerReward.load(tmp_path)
    linear.model.save(tmp_path)
    with pytest.raises(CacheError, match="holds no whole reward model: there is no tokenizer"):
        TransformerReward.load(tmp_path)
    linear.save(tmp_path)
    assert json.loads((tmp_path / "reward.json").read_text()) == {"max_prompt": 512, "max_response": 512}
    (tmp_path / "reward.json").unlink()
    with pytest.raises(CacheError, match=r"there is no reward\.json"):
        TransformerReward.load(tmp_path)
