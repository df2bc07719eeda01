import numpy as np
import pytest

from pluralign.errors import ConfigError, DataError
from pluralign.policies.best_of_n import best_of_n, choose_best
from pluralign.policies.scoring import RememberedReward, check_reward, score_texts, spell


class CountLetter:
    """ann likes the letter a, everybody else brevity."""

    def __init__(self, sd=False):
        self.asked, self.sd = [], sd

    def score(self, prompts, responses, users):
        self.asked += list(zip(prompts, responses, users, strict=True))
        value = np.array([r.count("a") if u == "ann" else -len(r) for r, u in zip(responses, users, strict=True)])
        return (value * 1.0, value * 0.0) if self.sd else value * 1.0


@pytest.mark.parametrize("sd", [False, True])
def test_each_user_gets_what_their_reward_likes_best(sd):
    texts = ["banana", "fig", "kiwi", "fig"]
    best = choose_best(["Which?", "Which?"], ["ann", None], [texts, texts], CountLetter(sd))
    assert best.texts == ["banana", "fig"]
    assert best.best.tolist() == [0, 1], "the first of equals"
    assert best.rewards.tolist() == [[3, 0, 0, 0], [-6, -3, -4, -3]]
    assert best.gain.tolist() == [3 - 0.75, -3 + 4]
    assert best.kl_bound == pytest.approx(np.log(4) - 0.75)


def test_what_occurs_twice_is_scored_once():
    reward = CountLetter()
    texts = ["banana", "fig", "fig"]
    choose_best(["Which?"] * 3, ["ann", "bob", "ann"], [texts] * 3, reward)
    assert len(reward.asked) == 4


def test_the_bound_is_the_divergence_of_the_best_of_two_fair_coins_or_more():
    """KL of the maximum of n uniform draws on m values from one draw, exactly; the bound is its limit for m large."""
    for n, m in [(2, 2), (4, 6), (16, 4096)]:
        k = np.arange(1, m + 1)
        p = (k / m) ** n - ((k - 1) / m) ** n
        divergence = (p * np.log(p * m)).sum()
        bound = choose_best(["?"], [None], [["x"] * n], CountLetter()).kl_bound
        assert divergence <= bound
        assert m < 100 or divergence == pytest.approx(bound, rel=0.01)


def test_candidates_of_a_policy(make_policy):
    policy = make_policy()
    prompts, users = ["Hi", "Hi", "Why"], ["ann", "bob", "ann"]
    settings = {"n": 4, "max_new_tokens": 6, "seed": 3}
    own = best_of_n(policy, CountLetter(), prompts, users, **settings)
    assert own.rewards.shape == (3, 4)
    assert (own.rewards.max(1) == np.take_along_axis(own.rewards, own.best[:, None], 1)[:, 0]).all()
    assert own.candidates[0] != own.candidates[1]
    shared = best_of_n(policy, CountLetter(), prompts, users, written_for="nobody", **settings)
    assert shared.candidates[0] == shared.candidates[1] != shared.candidates[2]
    assert shared.texts[1] == min(shared.candidates[1], key=len)


def test_chats_are_scored_in_one_spelling():
    chat = [{"role": "user", "content": "Hi"}]
    spelled = '[{"content":"Hi","role":"user"}]', '[{"content":"Yo","role":"assistant"}]'
    assert spell(chat, "Yo") == spell(chat, [{"role": "assistant", "content": "Yo"}]) == spell(*spelled) == spelled
    assert spell("Hi", "Yo") == ("Hi", "Yo")


def test_memory_answers_what_was_asked_and_forgets_the_oldest():
    reward = CountLetter()
    kept = RememberedReward(reward, capacity=2)
    asked = ["?"] * 3, ["a", "aa", "a"], ["ann", "ann", "ann"]
    assert kept.score(*asked).tolist() == [1, 2, 1]
    assert (kept.hits, kept.misses, len(reward.asked)) == (1, 2, 2)
    kept.score(["?"], ["a"], ["ann"])
    kept.score(["?"], ["aaa"], ["ann"])  # "aa" goes, "a" was asked for since
    kept.score(["?"], ["a"], ["ann"])
    assert (kept.hits, kept.misses) == (3, 3)
    assert kept.score(["?"], ["aa"], ["ann"]).tolist() == [2]
    assert kept.misses == 4
    # Nobody's reward is not that of a user called "".
    assert RememberedReward(CountLetter()).score(["?"] * 2, ["ab"] * 2, ["ann", None]).tolist() == [1, -2]


def test_more_at_once_than_the_memory_holds():
    kept = RememberedReward(CountLetter(), capacity=1)
    assert kept.score(["?"] * 3, ["a", "aa", "aaa"], ["ann"] * 3).tolist() == [1, 2, 3]
    assert kept.score(["?"] * 3, ["a", "aa", "aaa"], ["ann"] * 3).tolist() == [1, 2, 3]


def test_faults_are_named(make_policy):
    reward = CountLetter()
    with pytest.raises(DataError, match=r"prompts have \[1, 2\] candidates"):
        choose_best(["a", "b"], [None] * 2, [["x"], ["y", "z"]], reward)
    with pytest.raises(DataError, match=r"prompts have \[0\] candidates"):
        choose_best(["a"], [None], [[]], reward)
    with pytest.raises(DataError, match="1 prompts, 2 users and 1 rows"):
        choose_best(["a"], [None] * 2, [["x"]], reward)
    with pytest.raises(ConfigError, match='written_for is "all"'):
        best_of_n(make_policy(), reward, ["a"], [None], written_for="all")

    class Broken:
        def score(self, prompts, responses, users):
            return np.array([np.nan])

    with pytest.raises(DataError, match="the reward of 'x' for ann is nan"):
        score_texts(Broken(), ["a"], ["x"], ["ann"])
    with pytest.raises(DataError, match=r"2 texts have rewards of shape \(1,\)"):
        score_texts(Broken(), ["a", "b"], ["x", "y"], ["ann"] * 2)


def test_what_cannot_score_is_named(make_policy):
    check_reward(CountLetter())
    with pytest.raises(ConfigError, match="a Policy scores nothing"):
        check_reward(make_policy())
