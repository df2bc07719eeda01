"""PRISM on small files of the published schema; P-RLHF's counts of users need the real ones."""

import json

import numpy as np
import pytest

from pluralign import datasets
from pluralign.comparisons.chats import decode_chat, encode_chat
from pluralign.datasets import prism
from pluralign.errors import DataError


def said(turn, text):
    return {"turn": turn, "role": "user", "content": text}


def reply(turn, text, score, chosen=False):
    message = {"turn": turn, "role": "model", "content": text, "score": score, "if_chosen": chosen}
    return {**message, "model_name": "m", "within_turn_id": 0}


def conversation(name, user, *history):
    return {"conversation_id": name, "user_id": user, "conversation_turns": 1, "conversation_history": list(history)}


def person(user, completed=1, **answers):
    return {"user_id": user, "num_completed_conversations": completed, **answers}


def write(folder, survey, conversations):
    for name, rows in (("survey", survey), ("conversations", conversations)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


TWO_TURNS = conversation(
    "c1", "u1",
    said(0, "Hi"), reply(0, "A", 40), reply(0, "B", 90, chosen=True), reply(0, "C", 90),
    said(1, "And?"), reply(1, "D", 10, chosen=True), reply(1, "E", 5),
)  # fmt: skip
SURVEY = [person("u0", 0), person("u1", age="25-34", stated_prefs={"values": 80, "other": None})]


def test_one_comparison_per_rejected_reply(tmp_path):
    write(tmp_path, SURVEY, [TWO_TURNS])
    loaded = datasets.load("prism", tmp_path)
    prompts, response = loaded.items.prompts.to_pylist(), loaded.items.response.to_pylist()
    last = [(decode_chat(response[c])[0]["content"], decode_chat(response[r])[0]["content"])
            for c, r in zip(loaded.chosen, loaded.rejected, strict=True)]  # fmt: skip
    assert last == [("B", "A"), ("B", "C"), ("D", "E")]
    assert decode_chat(prompts[loaded.items.prompt[loaded.chosen[2]]]) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "And?"},
    ]
    assert response[loaded.chosen[0]] == encode_chat([{"role": "assistant", "content": "B"}])
    assert loaded.source.tolist() == [0, 0, 0]
    assert loaded.format == "chat"
    assert (loaded.outcome, loaded.weight, loaded.split) == (None, None, None)
    answers = {"age": "25-34", "stated_prefs.values": 80, "stated_prefs.other": None, "num_completed_conversations": 1}
    assert loaded.users.to_pylist() == [answers]


def test_utterances_tell_the_same(tmp_path):
    write(tmp_path, SURVEY, [TWO_TURNS])
    whole = datasets.load("prism", tmp_path)
    (tmp_path / "conversations.jsonl").unlink()
    prompts = {0: "Hi", 1: "And?"}
    rows = [
        {"utterance_id": f"ut{i}", "conversation_id": "c1", "user_id": "u1", "turn": m["turn"], "score": m["score"],
         "user_prompt": prompts[m["turn"]], "model_response": m["content"], "if_chosen": m["if_chosen"]}
        for i, m in enumerate(TWO_TURNS["conversation_history"]) if m["role"] == "model"
    ]  # fmt: skip
    (tmp_path / "utterances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    long = datasets.load("prism", tmp_path)
    assert long.items.response.to_pylist() == whole.items.response.to_pylist()
    assert long.items.prompts.to_pylist() == whole.items.prompts.to_pylist()
    assert (long.chosen.tolist(), long.rejected.tolist()) == (whole.chosen.tolist(), whole.rejected.tolist())


def test_without_a_path_the_hub_is_asked(tmp_path, monkeypatch):
    hub = pytest.importorskip("datasets")
    tables = {"survey": SURVEY, "conversations": [TWO_TURNS]}
    monkeypatch.setattr(hub, "load_dataset", lambda name, config, split: hub.Dataset.from_list(tables[config]))
    fetched = datasets.load("prism")
    write(tmp_path, SURVEY, [TWO_TURNS])
    local = datasets.load("prism", tmp_path)
    assert fetched.items.response.to_pylist() == local.items.response.to_pylist()
    assert fetched.items.prompts.to_pylist() == local.items.prompts.to_pylist()


def test_equal_scores_and_weights(tmp_path):
    write(tmp_path, SURVEY, [TWO_TURNS])
    assert datasets.load("prism", tmp_path, ties="tie").outcome.tolist() == [1, 0.5, 1]
    assert len(datasets.load("prism", tmp_path, ties="drop")) == 2
    np.testing.assert_allclose(datasets.load("prism", tmp_path, weight="score").weight, [0.5, 0, 0.05])


def test_p_rlhf_leaves_long_turns_out(tmp_path):
    fits = "x" * (prism.MAX_CHARS - 2)  # with "Hi", exactly at the limit
    write(tmp_path, [person(f"u{i}") for i in range(4)], [
        conversation("all", "u0", said(0, "Hi"), reply(0, "A", 9, chosen=True), reply(0, fits, 1)),
        conversation("long", "u1", said(0, "Hi"), reply(0, "A", 9, chosen=True), reply(0, fits + "x", 1)),
        conversation("mixed", "u2", said(0, "Hi"), reply(0, "A", 9, chosen=True), reply(0, "B", 1),
                     said(1, "Hi"), reply(1, fits, 9, chosen=True), reply(1, "B", 1)),
        conversation("one reply", "u3", said(0, "Hi"), reply(0, "A", 9, chosen=True)),
    ])  # fmt: skip
    loaded = datasets.load("prism", tmp_path, filter="p-rlhf")
    # A chosen reply at the limit is too long for a comparison, a rejected one is not.
    assert [loaded.source_ids[i] for i in loaded.source] == ["all", "mixed"]
    assert [datasets.load("prism", tmp_path).source_ids[i] for i in (0, 1, 2)] == ["all", "long", "mixed"]


def test_p_rlhf_splits_users_and_their_conversations(tmp_path):
    people = [person(f"u{i}") for i in range(20)]
    talks = [
        conversation(f"c{i}.{j}", f"u{i}", said(0, "Hi"), reply(0, "A", 9, chosen=True), reply(0, "B", 1))
        for i in range(20)
        for j in range(1 if i < 2 else 10)
    ]
    write(tmp_path, people, talks)
    loaded = datasets.load("prism", tmp_path, filter="p-rlhf")
    train = [
        int(((loaded.user == loaded.user_ids.index(f"u{i}")) & (loaded.split == "train")).sum()) for i in range(20)
    ]
    # Eighteen of twenty are seen; a seen user's ten conversations fall nine to one, a single one goes to test.
    order = np.random.RandomState(123).permutation(20)
    unseen = set(order[18:].tolist()) | {0, 1}
    assert train == [0 if i in unseen else 9 for i in range(20)]


def test_counts_are_held_against_the_papers(tmp_path, monkeypatch):
    much = "x" * prism.MAX_CHARS
    talks = [
        conversation(f"c{i}.{j}", f"u{i}", said(0, "Hi"), reply(0, "A", 9, chosen=True), reply(0, "B", 1))
        for i in range(20)
        for j in range(10)
    ]
    long = conversation("long", "u0", said(0, "Hi"), reply(0, "A", 9, chosen=True), reply(0, much, 1))
    write(tmp_path, [person(f"u{i}") for i in range(20)], [*talks, long])
    with pytest.raises(DataError, match=r"prism: users: 20 here, 1396 in the papers"):
        prism.check_counts(tmp_path)
    # Of 20 users 18 are seen; nothing of P-RLHF's but the one conversation is too long.
    small = {
        "users": 20,
        "conversations": 201,
        "conversations left out by p-rlhf": ("long",),
        "users seen by p-rlhf": 18,
        "users unseen by p-rlhf": 2,
    }
    monkeypatch.setattr(prism, "EXPECTED", small)
    assert prism.check_counts(tmp_path) == small
    for what, wrong in (("conversations left out by p-rlhf", ()), ("users seen by p-rlhf", 17)):
        monkeypatch.setattr(prism, "EXPECTED", {**small, what: wrong})
        with pytest.raises(DataError, match=f"prism: {what}: "):
            prism.check_counts(tmp_path)


def test_bad_files_are_named(tmp_path):
    write(tmp_path, SURVEY, [conversation("c1", "u1", said(0, None))])
    with pytest.raises(DataError, match="prism: conversation c1, turn 0 holds None, which is not a text"):
        datasets.load("prism", tmp_path)
    write(tmp_path, SURVEY, [conversation("c1", "u1", said(0, "Hi"))])
    with pytest.raises(DataError, match="prism: no comparison is left"):
        datasets.load("prism", tmp_path)
    (tmp_path / "conversations.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no utterances.jsonl"):
        datasets.load("prism", tmp_path)
