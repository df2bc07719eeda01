import json
from dataclasses import replace

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from pluralign.errors import CacheError, ConfigError, DataError
from pluralign.language_models.packing import Sequence, pack
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy, PersonalReward
from pluralign.language_models.user_tokens import UNKNOWN

NAMES = ["ann", "bob", "cat"]
FOLDERS = ["base_folder", "tied_folder", "absolute_folder"]
EMPTY = {"kind": "uniform", "n_tokens": 0}
OWN = {"kind": "individual", "n_tokens": 2}
EXACT = {"atol": 2e-5, "rtol": 1e-5}


def words(n, seed):
    return tuple(torch.randint(3, 259, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


LONG, SHORT = words(12, 1), words(3, 2)
SEQUENCES = [
    Sequence(prompt=prompt, response=words(n, 10 * n + len(prompt)), user=user)
    for prompt in (LONG, SHORT)
    for n, user in ((4, 0), (2, 0), (4, UNKNOWN), (3, 1))
]


def make(kind, folder, users=OWN, **settings):
    """A model in which nothing is zero: as if it had been trained."""
    model = kind.make(PersonalConfig(base=str(folder), users=dict(users), user_ids=NAMES, **settings))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.trained().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.randn(value.shape, generator=g).to(value.dtype))
    return model


def read(model, sequences, **settings):
    return model(**pack(sequences, **{**model.layout, **settings}).tensors())


@pytest.fixture
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_a_response_has_the_log_probability_that_transformers_gives_it(folder):
    base = AutoModelForCausalLM.from_pretrained(folder)
    model = PersonalPolicy.make(PersonalConfig(base=str(folder), users=EMPTY, tuning="frozen"))
    found = read(model, SEQUENCES)
    for i, each in enumerate(SEQUENCES):
        logits = base(torch.tensor([each.prompt + each.response])).logits[0, len(each.prompt) - 1 : -1]
        tokens = logits.log_softmax(-1).gather(1, torch.tensor(each.response)[:, None])
        torch.testing.assert_close(found[i], tokens.sum(), **EXACT)


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_a_users_rows_stand_in_the_text_as_words_do(folder):
    """The embeddings of the users' rows and of the words, read by transformers alone."""
    model = make(PersonalPolicy, folder, tuning="frozen", place="before")
    base = AutoModelForCausalLM.from_pretrained(folder)
    found = read(model, SEQUENCES)
    for i, each in enumerate(SEQUENCES):
        text = base.get_input_embeddings()(torch.tensor(each.prompt + each.response))
        rows = torch.cat([model.users(torch.tensor([each.user]))[0], text])
        start = len(rows) - len(each.response)
        logits = base(inputs_embeds=rows[None]).logits[0, start - 1 : -1]
        tokens = logits.log_softmax(-1).gather(1, torch.tensor(each.response)[:, None])
        torch.testing.assert_close(found[i], tokens.sum(), **EXACT)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_shared_rows_give_the_values_and_gradients_of_rows_apart(folder, kind, place):
    model = make(kind, folder, tuning="full", place=place)
    weight = torch.randn(len(SEQUENCES), generator=torch.Generator().manual_seed(3))
    found = {}
    for share in (True, False):
        model.zero_grad()
        values = read(model, SEQUENCES, share=share)
        (values * weight).sum().backward()
        found[share] = values, {name: value.grad for name, value in model.named_parameters()}
    torch.testing.assert_close(found[True][0], found[False][0], **EXACT)
    for name, gradient in found[True][1].items():
        torch.testing.assert_close(gradient, found[False][1][name], atol=1e-4, rtol=1e-3)


@settings(max_examples=15)
@given(st.sets(st.integers(0, len(SEQUENCES) - 1), min_size=1), st.sampled_from([True, False]))
def test_mates_and_padding_do_not_matter(kept, share):
    model = MODELS["policy"]
    whole = read(model, SEQUENCES)
    kept = sorted(kept, reverse=True)
    found = read(model, [SEQUENCES[i] for i in kept], share=share)
    torch.testing.assert_close(found, whole[kept], **EXACT)


MODELS = {}


@pytest.fixture(autouse=True, scope="module")
def _models(base_folder):
    MODELS["policy"] = make(PersonalPolicy, base_folder).requires_grad_(False)
    yield
    MODELS.clear()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
@pytest.mark.parametrize("folder", ["base_folder", "absolute_folder"], indirect=True)
def test_padding_on_either_side_changes_nothing(folder, kind, side):
    model = make(kind, folder)
    packed = pack(SEQUENCES[:3], **model.layout, share=False)
    blank = torch.zeros(3, 5, dtype=torch.int64)
    by = 5 if side == "left" else 0

    def wider(value, with_what):
        parts = [blank + with_what, value] if side == "left" else [value, blank + with_what]
        return torch.cat(parts, dim=1)

    padded = replace(
        packed,
        input_ids=wider(packed.input_ids, 7),
        position_ids=wider(packed.position_ids, 0),
        segment=wider(packed.segment, -1),
        first=packed.first + by,
        target_column=packed.target_column + by,
        end_column=packed.end_column + by,
    )
    torch.testing.assert_close(model(**padded.tensors()), model(**packed.tensors()), **EXACT)


@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
@pytest.mark.parametrize("users", ["individual", "basis"])
def test_without_offsets_everybody_is_the_generic_user(base_folder, kind, users):
    extra = {"rank": 2} if users == "basis" else {}
    model = kind.make(
        PersonalConfig(base=str(base_folder), users={"kind": users, "n_tokens": 2, **extra}, user_ids=NAMES)
    )
    own = read(model, [replace(each, user=2) for each in SEQUENCES])
    assert torch.equal(own, read(model, [replace(each, user=UNKNOWN) for each in SEQUENCES]))


@pytest.mark.parametrize("tuning", ["lora", "frozen"])
@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_the_reference_is_the_base_and_knows_no_user(folder, tuning):
    model = make(PersonalPolicy, folder, tuning=tuning)
    base = PersonalPolicy.make(PersonalConfig(base=str(folder), users=EMPTY, tuning="frozen"))
    with model.without_adapter():
        found = read(model, SEQUENCES, place="none")
        for user in (0, 2, UNKNOWN):
            assert torch.equal(read(model, [replace(e, user=user) for e in SEQUENCES], place="none")[3:], found[3:])
    assert torch.equal(found, read(base, SEQUENCES))
    assert not torch.allclose(found, read(model, SEQUENCES))


def test_a_fully_tuned_model_has_no_reference_in_it(base_folder):
    with pytest.raises(ConfigError, match="does not hold what it was"):
        make(PersonalPolicy, base_folder, tuning="full").without_adapter()


@pytest.mark.parametrize("folder", FOLDERS, indirect=True)
def test_reserved_ids_are_never_offered(folder):
    model = make(PersonalPolicy, folder)
    packed = pack(SEQUENCES, **model.layout)
    assert packed.input_ids.max() >= 259
    assert model.read(model.lm, packed).logits.shape[-1] == 259


@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
@pytest.mark.parametrize(
    ("folder", "tuning"),
    [
        ("base_folder", "lora"),
        ("base_folder", "frozen"),
        ("tied_folder", "lora"),
        ("tied_folder", "full"),
        ("absolute_folder", "full"),
    ],
    indirect=["folder"],
)
def test_a_model_comes_back_bit_for_bit(folder, kind, tuning, tmp_path):
    model = make(kind, folder, tuning=tuning)
    before = read(model, SEQUENCES)
    model.save(tmp_path / "shipped")
    model.save_pretrained(tmp_path / "checkpoint")
    for name in ("shipped", "checkpoint"):
        again = kind.load(tmp_path / name)
        assert torch.equal(read(again, SEQUENCES), before)
        assert again.user_ids == NAMES
        assert {*again.trained()} == {*model.trained()}
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".md"}
    assert torch.equal(read(model, SEQUENCES), before)  # saving leaves it as it was


@pytest.mark.parametrize(
    "users",
    [{"kind": "cluster", "n_tokens": 1, "n_clusters": 2, "hard": True}, {"kind": "text", "n_tokens": 1, "width": 2}],
)
def test_what_users_are_assigned_comes_back(base_folder, users, tmp_path):
    model = make(PersonalPolicy, base_folder, users)
    if users["kind"] == "text":
        model.users.describe(torch.tensor([[1.0, 2.0], [0.0, 0.0], [5.0, 0.0]]))
    else:
        model.users.assign(torch.tensor([1, 0, 1]))
    before = read(model, SEQUENCES)
    assert not torch.equal(before, read(make(PersonalPolicy, base_folder, users), SEQUENCES))
    model.save(tmp_path / "shipped")
    model.save_pretrained(tmp_path / "checkpoint")
    for name in ("shipped", "checkpoint"):
        assert torch.equal(read(PersonalPolicy.load(tmp_path / name), SEQUENCES), before)


def test_a_moved_base_is_named(base_folder, tmp_path):
    model = make(PersonalPolicy, base_folder)
    model.save(tmp_path)
    note = json.loads((tmp_path / "pluralign.json").read_text())
    (tmp_path / "pluralign.json").write_text(json.dumps({**note, "base": "./gone"}))
    with pytest.raises(ConfigError, match=r'there is no folder "\./gone"'):
        PersonalPolicy.load(tmp_path)
    assert torch.equal(read(PersonalPolicy.load(tmp_path, base=str(base_folder)), SEQUENCES), read(model, SEQUENCES))


@pytest.mark.parametrize("folder", ["base_folder", "absolute_folder"], indirect=True)
def test_a_linear_head_is_that_of_transformers_and_sees_no_padding(folder):
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, pad_token_id=0)
    mine = PersonalReward.make(PersonalConfig(base=str(folder), users=EMPTY, tuning="frozen"))
    with torch.no_grad():
        mine.head.weight.copy_(theirs.score.weight)
    found = read(mine, SEQUENCES, share=False)
    for i, each in enumerate(SEQUENCES):
        alone = theirs(torch.tensor([each.prompt + each.response])).logits[0, 0]
        torch.testing.assert_close(found[i], alone, **EXACT)


def test_a_late_head_is_the_user_times_the_state(base_folder):
    model = make(PersonalReward, base_folder, {"kind": "individual", "n_tokens": 1}, head="late")
    packed = pack(SEQUENCES, **model.layout)
    assert model.place == "none"
    assert packed.input_ids.max() < 259
    states = model.read(model.lm, packed).last_hidden_state[packed.end_row, packed.end_column][packed.branch]
    wanted = (states * model.users(packed.user)[:, 0]).sum(-1)
    torch.testing.assert_close(model(**packed.tensors()), wanted)


def test_a_late_head_reads_a_text_once_for_all_users(base_folder):
    model = make(PersonalReward, base_folder, {"kind": "individual", "n_tokens": 1}, head="late")
    packed = pack([replace(SEQUENCES[0], user=user) for user in (UNKNOWN, 0, 1, 2)], **model.layout)
    assert packed.input_ids.shape == (1, 16)
    assert len(set(model(**packed.tensors()).tolist())) == 4


@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
def test_absent_users_get_no_gradient(base_folder, kind):
    model = make(kind, base_folder)
    read(model, SEQUENCES).sum().backward()
    assert [bool(each.any()) for each in model.users.offset.grad] == [True, True, False]
    assert model.users.generic.grad.any()


def test_eager_attention_is_sdpa(base_folder):
    models = [
        PersonalPolicy.make(PersonalConfig(base=str(base_folder), users=OWN, user_ids=NAMES), attn_implementation=how)
        for how in ("eager", "sdpa")
    ]
    assert [model.inner.config._attn_implementation for model in models] == ["eager", "sdpa"]
    assert [model.share_limit for model in models] == [None, None]
    torch.testing.assert_close(read(models[0], SEQUENCES, share=True), read(models[1], SEQUENCES, share=True), **EXACT)


def test_whether_rows_can_be_shared_does_not_depend_on_mixed_precision(base_folder):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert make(PersonalPolicy, base_folder).share_limit is None


@pytest.mark.parametrize("tuning", ["lora", "full", "frozen"])
def test_what_a_checkpoint_lacks_is_known(base_folder, tuning, tmp_path):
    model = PersonalPolicy.make(PersonalConfig(base=str(base_folder), users=OWN, user_ids=NAMES, tuning=tuning))
    model.save_pretrained(tmp_path)
    missing = model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False).missing_keys
    assert sorted(missing) == model._keys_to_ignore_on_save


@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
def test_a_model_in_bfloat16(base_folder, kind, how, tmp_path):
    config = PersonalConfig(base=str(base_folder), users=OWN, user_ids=NAMES, tuning="full")
    model = kind.make(config, dtype=torch.bfloat16, attn_implementation=how)
    assert model.inner.dtype == torch.bfloat16
    assert model.users.generic.dtype == torch.float32
    assert model.share_limit is None
    shared, apart = (read(model, SEQUENCES, share=share) for share in (True, False))
    torch.testing.assert_close(shared, apart, atol=0.3, rtol=0.02)
    shared.sum().backward()
    assert model.users.offset.grad[0].any()
    model.save(tmp_path)
    assert torch.equal(read(kind.load(tmp_path, attn_implementation=how), SEQUENCES, share=True), shared)


@pytest.mark.parametrize("tuning", ["lora", "full", "frozen"])
@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
def test_checkpointing_activations_changes_no_gradient(base_folder, kind, tuning):
    found = []
    for checkpointing in (False, True):
        model = make(kind, base_folder, tuning=tuning).train()
        if checkpointing:
            # The name before transformers 5.23, which deprecates it.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
            assert any(getattr(each, "gradient_checkpointing", False) for each in model.inner.modules())
        read(model, SEQUENCES).sum().backward()
        found.append({name: each.grad for name, each in model.named_parameters() if each.requires_grad})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, **EXACT)


@pytest.mark.parametrize("folder", ["base_folder", "absolute_folder"], indirect=True)
def test_lora_leaves_head_and_users_alone(folder):
    model = make(PersonalReward, folder, lora={"r": 4})
    names = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name for name in names if "lora" not in name} == {"users.generic", "users.offset", "head.weight"}
    assert type(model.head) is torch.nn.Linear
    assert all(value.shape[0] == 4 for name, value in model.named_parameters() if "lora_A" in name)
    policy = make(PersonalPolicy, folder)
    assert not any("lm_head" in name for name in policy.trained())


ARCHITECTURES = {
    "Llama": {"num_key_value_heads": 2},
    "Mistral": {"num_key_value_heads": 2, "sliding_window": 64},
    "GPTNeo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 64},
    "GPTNeoX": {},
    "OPT": {"word_embed_proj_dim": 32, "ffn_dim": 64},
    "Bloom": {"n_layer": 2, "n_head": 4},
    "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LIMITS = {"Llama": None, "Mistral": 64, "GPTNeo": 64, "GPTNeoX": None, "OPT": None, "Bloom": 0, "Mpt": 0}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.filterwarnings("ignore:.*position_ids:FutureWarning")
def test_architectures_share_rows_as_far_as_they_can_and_lose_nothing(name):
    more = {"vocab_size": 259, "max_position_embeddings": 128, "initializer_range": 0.2, "init_std": 0.2}
    config = getattr(transformers, f"{name}Config")(**more, **SIZES, **ARCHITECTURES[name])
    torch.manual_seed(0)
    base = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    alone = [
        base(torch.tensor([each.prompt + each.response])).logits[0, len(each.prompt) - 1 : -1].log_softmax(-1)
        for each in SEQUENCES
    ]
    wanted = [a.gather(1, torch.tensor(e.response)[:, None]).sum() for a, e in zip(alone, SEQUENCES, strict=True)]
    model = PersonalPolicy.make(PersonalConfig(users=EMPTY, tuning="full"), lm=base)
    assert model.share_limit == LIMITS[name]
    packed = pack(SEQUENCES, **model.layout)
    assert packed.shared == (LIMITS[name] != 0)
    torch.testing.assert_close(model(**packed.tensors()), torch.stack(wanted), **EXACT)


def test_a_window_that_the_probe_runs_into_switches_sharing_off():
    config = transformers.MistralConfig(**SIZES, vocab_size=50, num_key_value_heads=2, sliding_window=4)
    model = PersonalPolicy.make(PersonalConfig(tuning="full"), lm=transformers.MistralForCausalLM(config))
    assert model.share_limit == 0


def test_an_architecture_that_reads_padding_is_named():
    config = transformers.RwkvConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, context_length=64)
    model = PersonalPolicy.make(PersonalConfig(tuning="full"), lm=transformers.RwkvForCausalLM(config))
    with pytest.raises(ConfigError, match="RwkvForCausalLM reads padding as if it were text"):
        read(model, SEQUENCES)


def test_an_embedding_for_every_layer_has_no_users(tmp_path):
    config = transformers.Gemma4TextConfig(
        **SIZES, vocab_size=50, vocab_size_per_layer_input=50, hidden_size_per_layer_input=8, num_key_value_heads=2,
        head_dim=8, global_head_dim=8, num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    lm = transformers.Gemma4ForCausalLM(config)
    with pytest.raises(ConfigError, match="Gemma4ForCausalLM has an embedding for every layer, in which users have no"):
        PersonalPolicy.make(PersonalConfig(users=OWN, user_ids=NAMES, tuning="full"), lm=lm)
    PersonalPolicy.make(PersonalConfig(users=EMPTY, tuning="full"), lm=lm)


def test_modules_that_cannot_be_adapted_are_named(base_folder):
    with pytest.raises(ConfigError, match=r"LoRA: Target modules \{'nope'\} not found"):
        make(PersonalPolicy, base_folder, lora={"target_modules": ["nope"]})


def test_a_sequence_longer_than_the_model_is_named(absolute_folder):
    model = make(PersonalPolicy, absolute_folder)
    long = Sequence(prompt=words(250, 0), response=words(5, 0), user=0)
    with pytest.raises(DataError, match=r"257 tokens \(250 of prompt, 2 of the user, 5 of response\).*at most 256"):
        pack([long], **model.layout)
    read(model, [replace(long, prompt=long.prompt[1:])])


def test_starting_points_depend_on_the_seed_alone(base_folder):
    def state(seed):
        config = PersonalConfig(base=str(base_folder), users=OWN, user_ids=NAMES)
        return PersonalReward.make(config, seed=seed).trained()

    torch.manual_seed(5)
    first = state(0)
    torch.manual_seed(6)
    draw = torch.rand(1)
    torch.manual_seed(6)
    second, other = state(0), state(1)
    assert torch.equal(torch.rand(1), draw)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_model_that_is_there_already_says_where_it_came_from(base_folder):
    lm = AutoModelForCausalLM.from_pretrained(base_folder)
    model = PersonalPolicy.make(PersonalConfig(users=OWN, user_ids=NAMES), lm=lm)
    assert model.config.base == str(base_folder)
    assert model.inner is lm
    assert not model.training


@pytest.mark.parametrize("kind", [PersonalPolicy, PersonalReward])
def test_users_and_head_go_where_the_model_is(base_folder, kind):
    config = PersonalConfig(base=str(base_folder), users=OWN, user_ids=NAMES)
    model = kind.make(config, lm=kind.read_base(str(base_folder)).to("meta"))
    assert {each.device.type for each in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tuning": "half"}, 'tuning is "half"; it must be lora, full or frozen'),
        ({"place": "behind"}, 'place is "behind"; it must be before or after'),
        ({"head": "early"}, 'head is "early"; it must be linear or late'),
        ({"head": "late"}, "a late head is one vector per user; n_tokens is 2"),
        ({"user_ids": ["ann", "bob", "ann"]}, 'user "ann" is there twice'),
        ({"users": {**OWN, "n_users": 5}}, "there are 3 names for 5 users"),
    ],
)
def test_settings_that_cannot_be(base_folder, wrong, message):
    config = PersonalConfig(base=str(base_folder), users=OWN, user_ids=NAMES)
    for name, value in wrong.items():
        setattr(config, name, value)
    with pytest.raises(ConfigError, match=message):
        PersonalReward.make(config)


def test_folders_that_hold_no_model(base_folder, tmp_path):
    with pytest.raises(CacheError, match=r"holds no personal model: there is no pluralign\.json"):
        PersonalPolicy.load(tmp_path)
    make(PersonalPolicy, base_folder).save(tmp_path)
    with pytest.raises(CacheError, match="does not hold a PersonalReward"):
        PersonalReward.load(tmp_path)
    (tmp_path / "adapter").rename(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="holds no whole model: there is no adapter/"):
        PersonalPolicy.load(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "adapter")
    note = json.loads((tmp_path / "pluralign.json").read_text())
    note["users"] |= {"kind": "uniform"}
    (tmp_path / "pluralign.json").write_text(json.dumps(note))
    with pytest.raises(CacheError, match=r"has an unknown tensor users\.offset"):
        PersonalPolicy.load(tmp_path)
    (tmp_path / "personal.safetensors").unlink()
    with pytest.raises(CacheError, match=r"there is no personal\.safetensors"):
        PersonalPolicy.load(tmp_path)


@pytest.mark.parametrize("name", ["pluralign.json", "personal.safetensors", "adapter/adapter_model.safetensors"])
def test_files_that_are_cut_off_are_named(base_folder, tmp_path, name):
    make(PersonalPolicy, base_folder).save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CacheError, match=f"{name} is damaged"):
        PersonalPolicy.load(tmp_path)
    path.unlink()
    with pytest.raises(CacheError, match=f"there is no {path.name}"):
        PersonalPolicy.load(tmp_path)


def test_an_adapter_of_another_model_is_named(base_folder, absolute_folder, tmp_path):
    make(PersonalPolicy, base_folder).save(tmp_path)
    with pytest.raises(CacheError, match=r"belongs to another language model: \d+ of its matrices, such as .*lora_A"):
        PersonalPolicy.load(tmp_path, base=str(absolute_folder))
