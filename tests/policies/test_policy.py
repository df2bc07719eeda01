import numpy as np
import pytest
import torch

from pluralign.errors import CacheError, DataError
from pluralign.policies.generation import generate
from pluralign.policies.policy import Cluster, Policy


@pytest.mark.parametrize("tuning", ["lora", "full", "frozen"])
def test_what_was_saved_writes_the_same(make_policy, tmp_path, tuning):
    policy = make_policy(tuning=tuning, place="before")
    policy.save(tmp_path / "policy")
    again = Policy.load(tmp_path / "policy")
    assert again.user_ids == ("ann", "bob", "cy")
    asked = ["Hello", "What?", "Hello"], ["ann", "bob", None]
    assert generate(again, *asked, max_new_tokens=12) == generate(policy, *asked, max_new_tokens=12)
    responses = ["Yes.", "No, never.", "So."]
    np.testing.assert_array_equal(
        again.log_prob(asked[0], responses, asked[1]), policy.log_prob(asked[0], responses, asked[1])
    )


@pytest.mark.parametrize("place", ["before", "after"])
def test_log_prob_adds_up_the_words_and_the_end(make_policy, place):
    policy = make_policy(place=place)
    got = policy.log_prob(["Hello", "Hello", "Why"], ["Yes", "No", "So"], ["bob", None, "ann"], batch_size=2)
    vocabulary = policy.model.get_input_embeddings().num_embeddings
    for value, prompt, response, user in zip(
        got, ["Hello", "Hello", "Why"], ["Yes", "No", "So"], [1, -1, 0], strict=True
    ):
        asked, said = (policy.tokenizer(text)["input_ids"] for text in (prompt, response))
        own = [vocabulary + (user + 1) * 2, vocabulary + (user + 1) * 2 + 1]
        before = own + asked if place == "before" else asked + own
        said = [*said, policy.tokenizer.eos_token_id]
        with torch.no_grad():
            log_prob = policy.model.lm(torch.tensor([before + said])).logits[0].log_softmax(-1)
        expected = sum(log_prob[len(before) + i - 1, token].item() for i, token in enumerate(said))
        assert value == pytest.approx(expected, abs=1e-4)


def test_chats_have_log_probs_too(make_policy):
    from pluralign.comparisons.chats import encode_chat

    policy = make_policy()
    prompt, answer = [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Yo"}]
    forms = [
        (prompt, answer),
        (encode_chat(prompt), encode_chat(answer)),
        (prompt, "Yo"),
        ("<user>Hi<assistant>", "Yo"),
    ]
    values = policy.log_prob([p for p, _ in forms], [r for _, r in forms], ["ann"] * 4)
    np.testing.assert_allclose(values[1:3], values[0], atol=1e-5)
    assert values[0] == pytest.approx(values[3], abs=1e-4)


def test_names_clusters_and_nobody_have_indices(make_policy):
    policy = make_policy(kind="cluster", n_clusters=2)
    assert policy.user_index(["cy", "ann", "zoe", None, Cluster(0), Cluster(1), ""]) == [2, 0, -1, -1, 3, 4, -1]


def test_faults_are_named(make_policy, tmp_path):
    with pytest.raises(CacheError, match=r"no pluralign\.json"):
        Policy.load(tmp_path)
    make_policy().model.save(tmp_path / "bare")
    with pytest.raises(CacheError, match="holds no tokenizer"):
        Policy.load(tmp_path / "bare")
    with pytest.raises(DataError, match="1 prompts, 2 responses and 1 users"):
        make_policy().log_prob(["a"], ["b", "c"], ["ann"])


def test_a_policy_is_put_where_it_shall_compute(make_policy, tmp_path, monkeypatch):
    make_policy().save(tmp_path)
    assert Policy.load(tmp_path, device="meta").model.device.type == "meta"
    monkeypatch.setattr("pluralign.policies.policy.pick_device", lambda device: device or "meta")
    assert Policy.load(tmp_path).model.device.type == "meta"
