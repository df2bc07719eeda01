import numpy as np
import pytest

from pluralign.errors import DataError
from pluralign.policies.reward_callable import reward_function


class Wordy:
    """ann likes long texts, bob short ones, nobody is indifferent."""

    def __init__(self):
        self.asked = []

    def score(self, prompts, responses, users):
        self.asked += list(zip(prompts, responses, users, strict=True))
        sign = {"ann": 1.0, "bob": -1.0}
        return np.array([sign.get(u, 0.0) * len(r) for r, u in zip(responses, users, strict=True)])


def test_the_column_says_whose_reward_it_is():
    call = reward_function(Wordy())
    texts = {"prompts": ["a"] * 4, "completions": ["one", "three", "three", "one"]}
    assert call(**texts, user=["ann", "bob", "zoe", None], trainer_state=None) == [3, -5, 0, 0]
    assert call(**texts) == [0, 0, 0, 0], "no column, no user"
    other = reward_function(Wordy(), column="annotator")
    assert other(**texts, annotator=["ann"] * 4, user=["bob"] * 4) == [3, 5, 5, 3]
    fixed = reward_function(Wordy(), user="bob", name="cluster_1")
    assert fixed(**texts, user=["ann"] * 4) == [-3, -5, -5, -3]
    assert fixed.__name__ == "cluster_1"


def test_names_may_be_numbers():
    class Numbered:
        def score(self, prompts, responses, users):
            return np.array([float(user) for user in users])

    assert reward_function(Numbered())(prompts=["a"] * 2, completions=["b"] * 2, user=[3, 7]) == [3, 7]


def test_nothing_is_scored_twice():
    reward = Wordy()
    call = reward_function(reward)
    for _ in range(3):
        call(prompts=["a", "a", "b"], completions=["x", "x", "x"], user=["ann", "ann", "bob"])
    assert len(reward.asked) == 2
    forgetful = reward_function(reward, remember=0)
    for _ in range(3):
        forgetful(prompts=["a"], completions=["x"], user=["ann"])
    assert len(reward.asked) == 5


def test_conversations_arrive_as_chats():
    reward = Wordy()
    chat, answer = [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Yo"}]
    reward_function(reward)(prompts=[chat], completions=[answer], user=["ann"])
    assert reward.asked == [
        ('[{"content":"Hi","role":"user"}]', '[{"content":"Yo","role":"assistant"}]', "ann"),
    ]


def test_lengths_must_agree():
    with pytest.raises(DataError, match="2 prompts, 2 completions and 1 users"):
        reward_function(Wordy())(prompts=["a"] * 2, completions=["b"] * 2, user=["ann"])
