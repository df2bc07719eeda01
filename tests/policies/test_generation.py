import numpy as np
import pytest
import torch

from pluralign.errors import ConfigError, DataError
from pluralign.policies.generation import draw, generate
from pluralign.policies.policy import Cluster

KINDS = [(base, place) for base in ("llama", "tied", "gpt2") for place in ("before", "after")]
PROMPTS = ["Say it", "A much longer prompt than that one", "Say it", "Why?", "Why?", "Say it"]
USERS = ["ann", "bob", "bob", "cy", None, "ann"]


def tokens(rows):
    return [[each.tokens for each in row] for row in rows]


@pytest.mark.parametrize(("base", "place"), KINDS)
def test_a_batch_writes_what_each_request_gets_alone(make_policy, base, place):
    policy = make_policy(base, place=place)
    settings = {"max_new_tokens": 12}
    together = tokens(generate(policy, PROMPTS, USERS, **settings))
    alone = [tokens(generate(policy, [p], [u], **settings))[0] for p, u in zip(PROMPTS, USERS, strict=True)]
    assert together == alone
    assert together == tokens(generate(policy, PROMPTS, USERS, share=False, batch_size=4, **settings))
    assert together[0] == together[5]
    assert together[0] != together[2], "ann and bob were made to differ"


@pytest.mark.parametrize(("base", "place"), KINDS)
def test_greedy_tokens_are_the_likeliest_after_what_stands_before_them(make_policy, base, place):
    """An oracle without cache, mask or positions: the whole text read anew for each token."""
    policy = make_policy(base, place=place)
    lm, embedding = policy.model.lm, policy.model.get_input_embeddings()
    got = generate(policy, PROMPTS, USERS, max_new_tokens=10)
    for prompt, user, (response,) in zip(PROMPTS, USERS, got, strict=True):
        ids = policy.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        first = embedding.num_embeddings + (policy.user_index([user])[0] + 1) * 2
        own = [first, first + 1]
        so_far = own + ids if place == "before" else ids + own
        with torch.no_grad():
            for token in response.tokens:
                assert lm(torch.tensor([so_far])).logits[0, -1].argmax() == token
                so_far.append(token)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_without_users_it_is_generate_of_transformers(make_policy, base, penalty):
    policy = make_policy(base, kind="uniform", n_tokens=0)
    prompts = ["Say it", "A longer prompt", "x"]
    ours = generate(policy, prompts, [None] * 3, max_new_tokens=15, repetition_penalty=penalty)
    lm = policy.model.lm
    for prompt, (response,) in zip(prompts, ours, strict=True):
        ids = policy.tokenizer(prompt, return_tensors="pt")["input_ids"]
        plain = lm.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=15,
            do_sample=False,
            repetition_penalty=penalty,
        )
        assert tuple(plain[0, ids.shape[1] :].tolist()) == response.tokens


def test_uneven_groups_of_users_write_what_each_gets_alone(make_policy, monkeypatch):
    """Rows with empty slots; a model of whose trees nobody knows; and one whose trees must be short."""
    policy = make_policy()
    prompts = ["Say it"] * 4 + ["A longer prompt"] * 3 + ["Why?"] * 4
    users = ["ann", "bob", "cy", None, "ann", "bob", "cy", "cy", None, "bob", "ann"]
    settings = {"max_new_tokens": 12, "repetition_penalty": 1.2}
    alone = [generate(policy, [p], [u], **settings)[0] for p, u in zip(prompts, users, strict=True)]
    seen = []
    for limit in (None, 0, 40):
        monkeypatch.setitem(vars(policy.model), "share_limit", limit)
        calls = []
        hook = policy.model.get_input_embeddings().register_forward_hook(lambda _, a, __, c=calls: c.append(a[0].shape))
        assert generate(policy, prompts, users, **settings) == alone
        hook.remove()
        seen.append(calls[3 if limit == 0 else 2])  # where no trees are seen, a user's two tokens are read one by one
    assert seen == [(3, 4), (11, 1), (11, 1)], "four branches of three prompts, or a row each"


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_sample_depends_on_its_seed_and_not_on_its_batch(make_policy, place):
    policy = make_policy(place=place)
    settings = {"max_new_tokens": 8, "do_sample": True, "n": 3, "temperature": 1.3, "top_p": 0.9}
    one = tokens(generate(policy, PROMPTS, USERS, seed=1, batch_size=1, **settings))
    assert one == tokens(generate(policy, PROMPTS, USERS, seed=1, batch_size=7, **settings))
    assert one == tokens(generate(policy, PROMPTS, USERS, seed=1, share=False, **settings))
    assert one != tokens(generate(policy, PROMPTS, USERS, seed=2, **settings))
    assert len(set(one[0])) > 1


def test_repetition_penalty_and_ngrams_meet_no_reserved_id(make_policy):
    from transformers import LogitsProcessorList, NoRepeatNGramLogitsProcessor

    policy = make_policy(place="before")
    processors = LogitsProcessorList([NoRepeatNGramLogitsProcessor(2)])
    settings = {"max_new_tokens": 20, "repetition_penalty": 1.5}
    rows = generate(policy, ["aa", "bcd"], ["ann", "bob"], processors=processors, **settings)
    for (response,) in rows:
        pairs = list(zip(response.tokens, response.tokens[1:], strict=False))
        assert len(pairs) == len(set(pairs)) > 5


def test_rows_that_are_done_leave_the_batch_and_others_go_on(make_policy):
    """Every second request ends at once; the rest must write as if they had been alone."""
    from transformers import LogitsProcessorList

    policy = make_policy()
    ends_early = {tuple(policy.tokenizer(p)["input_ids"]) for p in ("b", "d", "f")}

    class EndSome:
        def __call__(self, ids, scores):
            for r, row in enumerate(ids.tolist()):
                ended = row[-1] if len(row) > 1 else None
                if ended is None and tuple(row) in ends_early:
                    scores[r] = -torch.inf
                    scores[r, 2] = 0.0
            return scores

    chain = LogitsProcessorList([EndSome()])
    prompts, users = list("abcdef"), ["ann"] * 6
    got = generate(policy, prompts, users, processors=chain, max_new_tokens=9)
    alone = [generate(policy, [p], ["ann"], processors=chain, max_new_tokens=9)[0] for p in prompts]
    assert got == alone
    assert [len(row[0].tokens) == 1 and row[0].finished and row[0].text == "" for row in got] == [False, True] * 3


def test_shared_prompts_are_read_once(make_policy):
    policy = make_policy()
    assert policy.model.share_limit is None  # asks the model, once
    read = []
    hook = policy.model.get_input_embeddings().register_forward_hook(lambda _, args, __: read.append(args[0].numel()))
    try:
        generate(policy, ["A prompt of some length"] * 8, ["ann", "bob"] * 4, max_new_tokens=1)
        generate(policy, ["A prompt of some length"] * 8, ["ann", "bob"] * 4, max_new_tokens=1, share=False)
    finally:
        hook.remove()
    n = len("A prompt of some length")
    assert read == [n, 8 * 2, 8 * n, 8 * 2]


def test_an_unknown_name_is_the_generic_user(make_policy):
    policy = make_policy()
    generic, unknown, empty, ann = generate(policy, ["Hi there"] * 4, [None, "nobody", "", "ann"], max_new_tokens=9)
    assert generic == unknown == empty != ann


def test_a_cluster_is_the_user_who_belongs_to_it_alone(make_policy):
    policy = make_policy(kind="cluster", n_clusters=2, hard=True)
    policy.model.users.cluster.copy_(torch.tensor([1, 0, 1]))
    rows = generate(policy, ["Hi"] * 5, ["ann", "bob", "cy", Cluster(0), Cluster(1)], max_new_tokens=9)
    ann, bob, cy, first, second = rows
    assert ann == cy == second
    assert bob == first != second
    soft = make_policy(kind="cluster", n_clusters=2)
    with torch.no_grad():
        soft.model.users.logit[0] = torch.tensor([100.0, -100.0])
    ann, first = generate(soft, ["Hi"] * 2, ["ann", Cluster(0)], max_new_tokens=9)
    assert ann == first
    with pytest.raises(ConfigError, match=r"no cluster 2; the model's users \(cluster\) have 2"):
        generate(policy, ["Hi"], [Cluster(2)])
    with pytest.raises(ConfigError, match=r"no cluster 0; the model's users \(individual\) have 0"):
        generate(make_policy(), ["Hi"], [Cluster(0)])


def test_chats_are_read_through_the_template_however_they_are_given(make_policy):
    from pluralign.comparisons.chats import encode_chat

    policy = make_policy()
    chat = [{"role": "user", "content": "Hello"}]
    text = "<user>Hello<assistant>"
    rows = generate(policy, [chat, encode_chat(chat), text], ["ann"] * 3, max_new_tokens=9)
    assert rows[0] == rows[1] == rows[2]
    not_a_chat = generate(policy, ['[{"a":1}]'], ["ann"], max_new_tokens=3)
    assert len(not_a_chat[0][0].tokens) == 3


def test_a_prompt_without_room_loses_its_beginning_and_that_is_said(make_policy, caplog):
    policy = make_policy("gpt2")
    long = "".join("abcdefgh"[i % 8] for i in range(300))
    (row,) = generate(policy, [long], ["ann"], max_new_tokens=6)
    assert "1 prompts lost their beginning: there is room for 248 tokens" in caplog.text
    assert row == generate(policy, [long[-248:]], ["ann"], max_new_tokens=6)[0]
    assert row != generate(policy, [long[:248]], ["ann"], max_new_tokens=6)[0]
    with pytest.raises(ConfigError, match="max_new_tokens is 300, which leaves no room"):
        generate(policy, ["Hi"], ["ann"], max_new_tokens=300)


def test_sampling_has_the_frequencies_of_the_softmax():
    logits = torch.tensor([[0.3, -torch.inf, 1.2, -0.5]])
    expected = logits.double().softmax(1)[0]
    uniform = torch.from_numpy((np.arange(100_000) + 0.5) / 100_000)
    drawn = draw(logits.expand(100_000, -1), uniform)
    shares = torch.bincount(drawn, minlength=4) / 100_000
    torch.testing.assert_close(shares.double(), expected, atol=2e-5, rtol=0)


def test_the_largest_uniform_number_draws_a_possible_token():
    logits = torch.tensor([[0.1, 0.7, 0.2, -torch.inf], [-torch.inf, 0.0, -torch.inf, -torch.inf]])
    last = torch.tensor([1 - 2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(logits, last).tolist() == [2, 1]
    assert draw(logits, torch.zeros(2)).tolist() == [0, 1]


def test_settings_out_of_range_are_named(make_policy):
    policy = make_policy()
    with pytest.raises(DataError, match="2 prompts and 1 users"):
        generate(policy, ["a", "b"], ["ann"])
    for settings, message in [
        ({"n": 2}, "all responses to a prompt are one"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"max_prompt": 0}, "max_prompt is 0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            generate(policy, ["a"], ["ann"], **settings)
    assert generate(policy, [], []) == []
