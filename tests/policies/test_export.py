import json
import subprocess
import sys

import pytest
import torch

from pluralign.errors import ConfigError
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.policies.export import export, export_adapters, user_tokens, write_prompt
from pluralign.policies.generation import generate
from pluralign.policies.policy import Policy

from ..tiny_models import make_tokenizer

KINDS = [(base, place) for base in ("llama", "tied", "gpt2") for place in ("before", "after")]

# What a reader of the folders does who has never heard of this library.
READER = """
import json, sys
sys.modules["pluralign"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
results = {}
for name, (folder, adapter, texts) in json.loads(sys.argv[1]).items():
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    result = results[name] = {"texts": [], "logits": [], "greedy": [], "size": len(tokenizer)}
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        mask = torch.ones_like(ids)
        with torch.no_grad():
            result["logits"].append(model(input_ids=ids).logits[0, -1].tolist())
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
        result["greedy"].append(out[0, ids.shape[1]:].tolist())
        result["texts"].append(tokenizer.decode(out[0], skip_special_tokens=True))
    torch.manual_seed(0)
    wild = model.generate(
        input_ids=ids.expand(50, -1), attention_mask=mask.expand(50, -1), max_new_tokens=40, do_sample=True,
        temperature=100.0, top_k=0, eos_token_id=None,
    )
    result["wild"] = sorted(set(wild[:, ids.shape[1]:].flatten().tolist()))
print(json.dumps(results))
"""
CASES = {
    "merged": {"base": "llama", "place": "before"},
    "adapter": {"base": "tied", "place": "after", "merge": False},
    "absolute": {"base": "gpt2", "place": "after"},
    "full": {"base": "tied", "place": "before", "tuning": "full"},
    "nobody": {"base": "tied", "kind": "uniform", "n_tokens": 0},
}
PROMPT, USERS = "Say it", ["ann", "cy", None]


@pytest.fixture(scope="module")
def exports(make_policy, tmp_path_factory):
    """Policy, what was exported, and what a process without this library made of it, of each case."""
    folder = tmp_path_factory.mktemp("exports")
    made, tasks = {}, {}
    for name, case in CASES.items():
        settings = dict(case)
        merge = settings.pop("merge", True)
        policy = make_policy(**settings)
        exported = export(policy, folder / name, merge=merge)
        tokens = [exported.tokens.get(user or "", "") for user in USERS]
        texts = [token + PROMPT if exported.place == "before" else PROMPT + token for token in tokens]
        made[name] = policy, exported
        tasks[name] = str(exported.folder), str(exported.adapter or ""), texts
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(tasks)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    return {name: (*made[name], results[name]) for name in CASES}


@pytest.mark.parametrize("case", ["merged", "adapter", "absolute", "full"])
def test_transformers_alone_reads_the_checkpoint(exports, case):
    policy, exported, got = exports[case]
    vocabulary = policy.embedding.num_embeddings
    for user, logits in zip(USERS, got["logits"], strict=True):
        index = policy.user_index([user])[0]
        own = [vocabulary + (index + 1) * 2, vocabulary + (index + 1) * 2 + 1]
        ids = policy.tokenizer(PROMPT)["input_ids"]
        before = own + ids if exported.place == "before" else ids + own
        with torch.no_grad():
            mine = policy.model.lm(torch.tensor([before])).logits[0, -1]
        torch.testing.assert_close(torch.tensor(logits)[:vocabulary], mine, atol=1e-4, rtol=1e-4)
    mine = generate(policy, [PROMPT] * 3, USERS, max_new_tokens=12)
    assert [tuple(each) for each in got["greedy"]] == [row[0].tokens for row in mine]
    assert got["texts"] == [PROMPT + row[0].text for row in mine], "decoding skips the users' tokens"

    added = {each for own in exported.ids.values() for each in own}
    assert len(added) == 8
    assert not added & set(got["wild"]), "no added token is ever written"
    assert len(got["wild"]) > 200, "at such a temperature nearly everything else is"


def test_without_user_tokens_the_checkpoint_is_the_plain_one(exports):
    policy, exported, got = exports["nobody"]
    assert exported.tokens == {}
    assert got["size"] == len(policy.tokenizer)
    assert tuple(got["greedy"][0]) == generate(policy, [PROMPT], [None], max_new_tokens=12)[0][0].tokens
    assert json.loads((exported.folder / "config.json").read_text())["tie_word_embeddings"]


@pytest.mark.parametrize(("base", "place"), KINDS)
def test_a_server_that_ignores_the_generation_settings_can_hardly_write_a_user(make_policy, tmp_path, base, place):
    from transformers import AutoModelForCausalLM

    policy = make_policy(base, place=place)
    exported = export(policy, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    n = len(policy.tokenizer)
    ids = torch.randint(3, n, (20, 30), generator=torch.Generator().manual_seed(0))
    ids[:, 3:5] = torch.tensor(exported.ids["ann"])
    with torch.no_grad():
        logits = model(ids).logits
    added = sorted(each for own in exported.ids.values() for each in own)
    assert added == list(range(n, n + 8))
    assert (logits.argmax(-1) < n).all()
    for temperature in (0.5, 1.0, 10.0, 1e4):
        probability = (logits / temperature).softmax(-1)[..., added]
        assert (probability <= 1.001 / n).all()
    assert not model.config.tie_word_embeddings


def test_ids_that_fit_into_spare_rows_use_them(make_policy, tmp_path):
    """Many models have more rows than their tokenizer has tokens."""
    from transformers import AutoModelForCausalLM

    from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
    from pluralign.policies.policy import Policy

    from ..tiny_models import make_tokenizer, save_tiny_llama

    base = save_tiny_llama(tmp_path / "base", vocab_size=264)
    config = PersonalConfig(
        base=str(base), users={"kind": "individual", "n_tokens": 1}, user_ids=list("abcdefg"), tuning="frozen"
    )
    policy = Policy(PersonalPolicy.make(config).eval(), make_tokenizer())
    with torch.no_grad():
        policy.model.users.offset.copy_(torch.arange(7.0)[:, None, None].expand(7, 1, 32))
    exported = export(policy, tmp_path / "out")
    assert exported.ids == {name: [259 + i] for i, name in enumerate(["", *"abcdefg"])}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings().num_embeddings == 267
    torch.testing.assert_close(model.get_input_embeddings().weight[[259 + 4]], policy.model.users(torch.tensor([3]))[0])


def test_the_chat_template_writes_the_user_where_it_was_trained(make_policy, tmp_path):
    from transformers import AutoTokenizer

    chat = [{"role": "user", "content": "Hi"}]
    for place in ("before", "after"):
        policy = make_policy(place=place)
        exported = export(policy, tmp_path / place)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / place)
        settings = {"add_generation_prompt": True, "tokenize": False}
        text = tokenizer.apply_chat_template(chat, user_token=exported.tokens["bob"], **settings)
        own, rest = "<|user:bob:0|><|user:bob:1|>", "<user>Hi<assistant>"
        assert text == (own + rest if place == "before" else rest + own)
        generic = tokenizer.apply_chat_template(chat, **settings)
        assert generic == text.replace("user:bob", "generic")
        assert tokenizer(text)["input_ids"] == write_prompt(policy.tokenizer, exported, rest, "bob")
        assert len(tokenizer(own, split_special_tokens=True)["input_ids"]) == len(own), "a text can be read as a text"


def test_clusters_become_tokens(make_policy, tmp_path):
    policy = make_policy(kind="cluster", n_clusters=2, n_tokens=1)
    exported = export(policy, tmp_path, users=["bob"])
    assert exported.tokens == {
        "": "<|generic|>",
        "cluster:0": "<|cluster:0|>",
        "cluster:1": "<|cluster:1|>",
        "bob": "<|user:bob|>",
    }
    kept = json.loads((tmp_path / "user_tokens.json").read_text())
    assert kept == {"place": "after", "users": exported.tokens, "ids": exported.ids}
    from transformers import AutoModelForCausalLM

    rows = AutoModelForCausalLM.from_pretrained(tmp_path).get_input_embeddings().weight
    torch.testing.assert_close(rows[exported.ids["cluster:1"]], policy.model.users.blocks[1])


def test_export_leaves_the_policy_as_it_was(make_policy, tmp_path):
    policy = make_policy("tied")
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    size = len(policy.tokenizer)
    export(policy, tmp_path / "merged")
    export(policy, tmp_path / "apart", merge=False)
    after = policy.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(policy.tokenizer) == size
    assert policy.model.config.base == policy.model.lm.peft_config["default"].base_model_name_or_path


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's use of transformers
def test_adapters_of_clusters_load_beside_one_another(make_policy, bases, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policies = {f"cluster-{k}": make_policy(kind="uniform", n_tokens=0, seed=k) for k in range(2)}
    folders = export_adapters(policies, tmp_path)
    assert json.loads((folders["cluster-0"] / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        bases["llama"]
    )
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(bases["llama"]), folders["cluster-0"], adapter_name="cluster-0"
    )
    model.load_adapter(folders["cluster-1"], adapter_name="cluster-1")
    ids = torch.tensor([policies["cluster-0"].tokenizer("Say it")["input_ids"]])
    with torch.no_grad():
        for name, policy in policies.items():
            model.set_adapter(name)
            torch.testing.assert_close(model(ids).logits, policy.model.lm(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("modules", [["embed_tokens", "q_proj"], ["lm_head", "q_proj"]])
def test_an_adapter_of_the_embedding_leaves_a_tied_head_alone(bases, tmp_path, modules, place):
    from transformers import AutoModelForCausalLM

    config = PersonalConfig(
        base=str(bases["tied"]),
        users={"kind": "individual", "n_tokens": 1},
        user_ids=["ann"],
        place=place,
        lora={"target_modules": modules, "init_lora_weights": False},
    )
    policy = Policy(PersonalPolicy.make(config), make_tokenizer())
    with pytest.raises(ConfigError, match="the adapter changes the input embedding or the output head"):
        export(policy, tmp_path / "beside", merge=False)
    exported = export(policy, tmp_path / "merged")
    ids = torch.tensor([write_prompt(policy.tokenizer, exported, PROMPT, "ann")])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    own = policy.embedding.num_embeddings + 1
    mine = policy.model.lm(torch.where(ids == exported.ids["ann"][0], own, ids)).logits
    torch.testing.assert_close(theirs[..., : mine.shape[-1]], mine, atol=1e-4, rtol=1e-4)


def test_other_models_are_not_written_over(make_policy, bases, tmp_path):
    policy = make_policy()
    policy.save(tmp_path / "policy")
    for folder, name in ((tmp_path / "policy", "pluralign.json"), (bases["llama"], "config.json")):
        with pytest.raises(ConfigError, match=f"holds another model \\({name}\\)"):
            export(policy, folder)
    export(policy, tmp_path / "checkpoint")
    export(policy, tmp_path / "checkpoint")


def test_odd_names_are_spelled_so_that_each_is_one_token(make_policy):
    from pluralign.policies.export import add_tokens

    names = ["a b", "a%20b", "x|>y", "<|eos|>", "a:0", "Zoë", "日本", "line\nbreak", "A", "a", "\u00a0", "generic", "0"]
    tokens = [user_tokens(name, 1)[0] for name in names]
    assert tokens[:3] == ["<|user:a%20b|>", "<|user:a%2520b|>", "<|user:x%7C%3Ey|>"]
    assert tokens[5] == "<|user:Zoë|>"
    tokenizer = make_policy().tokenizer
    size = len(tokenizer)
    add_tokens(tokenizer, tokens)
    assert len(tokenizer) == size + len(names)
    for i, token in enumerate(tokens):
        assert tokenizer("ab" + token + "cd")["input_ids"][2:-2] == [size + i]
    assert user_tokens("a:0", 2) == ["<|user:a%3A0:0|>", "<|user:a%3A0:1|>"]


def test_a_tokenizer_that_begins_texts_is_warned_of(make_policy, tmp_path, caplog):
    from tokenizers.processors import TemplateProcessing

    policy = make_policy(place="before")
    export(policy, tmp_path / "bare")
    assert not caplog.records
    policy.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 1)]
    )
    exported = export(policy, tmp_path / "bos")
    assert "hand over ids, the user's from user_tokens.json" in caplog.text
    assert write_prompt(policy.tokenizer, exported, "Hi", "ann")[:3] == [*exported.ids["ann"], 1]


def test_faults_are_named(make_policy, tmp_path):
    policy = make_policy()
    with pytest.raises(ConfigError, match="does not know 'zoe', 'yan'"):
        export(policy, tmp_path, users=["ann", "zoe", "yan"])
    taken = make_policy()
    taken.tokenizer.add_tokens(["<|user:ann:0|>"])
    with pytest.raises(ConfigError, match=r"the vocabulary has <\|user:ann:0\|> already"):
        export(taken, tmp_path)
    plain = {"kind": "uniform", "n_tokens": 0}
    with pytest.raises(ConfigError, match="the policies have 2 bases"):
        export_adapters({"a": make_policy(**plain), "b": make_policy("tied", **plain)}, tmp_path)
    with pytest.raises(ConfigError, match="a has 2 tokens per user"):
        export_adapters({"a": make_policy()}, tmp_path)
    with pytest.raises(ConfigError, match='the tuning of a is "frozen"'):
        export_adapters({"a": make_policy(tuning="frozen", **plain)}, tmp_path)
    with pytest.raises(ConfigError, match=r'"\.\./a" cannot name a folder'):
        export_adapters({"../a": make_policy(**plain)}, tmp_path)
