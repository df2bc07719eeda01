import json
import os
import shutil
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from pluralign.errors import CacheError, ConfigError, DataError
from pluralign.language_models import tiny
from pluralign.language_models.tiny import (
    TinySettings,
    new_model,
    packed_rows,
    tiny_language_model,
    train_tiny,
    train_tokenizer,
)

TINY = TinySettings(
    hidden=32, layers=1, heads=2, vocabulary=300, context=256, steps=60, rows=2, row_tokens=64, learning_rate=1e-2
)
DOCUMENTS = [
    (f"What is the {colour} one?", f"It is a {thing}.")
    for colour, thing in [("red", "rose"), ("blue", "sky"), ("green", "leaf"), ("white", "sheet"), ("black", "cat")]
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_language_model(DOCUMENTS, settings=TINY, cache=tmp_path_factory.mktemp("models"), progress=False)


def test_it_is_an_ordinary_checkpoint(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.vocab_size <= 300
    for special in ("pad", "bos", "eos"):
        token = getattr(tokenizer, f"{special}_token_id")
        assert getattr(tokenizer, f"{special}_token") == f"<|{special}|>"
        assert getattr(model.config, f"{special}_token_id") == token
        assert getattr(model.generation_config, f"{special}_token_id") == token
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".jinja"}


def test_it_learns_what_it_is_shown_with_a_beginning_and_without(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for prompt, response in DOCUMENTS:
        for begin in ([], [tokenizer.bos_token_id]):
            ids = begin + tokenizer(prompt)["input_ids"]
            out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=20)
            assert out[0, -1] == tokenizer.eos_token_id
            assert tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True) == response
    note = json.loads((folder / "pluralign.json").read_text())
    assert len(note["losses"]) == 60
    assert note["losses"][0] == pytest.approx(np.log(len(tokenizer)), abs=0.5)
    assert note["losses"][-1] < 0.6
    assert note["n_parameters"] == model.num_parameters()


@given(st.text())
def test_any_text_can_be_written_and_comes_back(folder, text):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"]
    if not any(special in text for special in tokenizer.all_special_tokens):
        assert tokenizer.decode(ids) == text
        assert not set(ids) & set(tokenizer.all_special_ids)


def test_a_chat_is_the_tokens_of_its_texts(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt, response = DOCUMENTS[0]
    asked = [{"role": "user", "content": prompt}]
    both = [*asked, {"role": "assistant", "content": response}]
    ids = tokenizer(prompt)["input_ids"]
    assert tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False) == ids
    ids += [*tokenizer(response)["input_ids"], tokenizer.eos_token_id]
    assert tokenizer.apply_chat_template(both, return_dict=False) == ids
    assert tokenizer(prompt + response)["input_ids"] == ids[:-1]  # where the two meet, no token spans both


def test_rows_hold_every_document_once_in_each_round():
    tokenizer = train_tokenizer(DOCUMENTS, TINY)
    rows, bos = packed_rows(DOCUMENTS, tokenizer, TINY), tokenizer.bos_token_id
    found, marked = [], 0
    while len(found) < 4 * len(DOCUMENTS):
        ids, position, labels = next(rows)
        assert len(ids) == len(position) == len(labels) == 64
        begins = torch.cat([(position == 0).nonzero().flatten(), torch.tensor([64])]).tolist()
        for start, end in pairwise(begins):
            assert position[start:end].tolist() == list(range(end - start))
            if ids[start] == tokenizer.pad_token_id:
                assert labels[start:end].unique().tolist() == [-100]
                continue
            assert labels[start:end].tolist() == [-100, *ids[start + 1 : end].tolist()]
            assert ids[end - 1] == tokenizer.eos_token_id
            marked += int(ids[start] == bos)
            found.append(tokenizer.decode(ids[start:end], skip_special_tokens=True))
    assert sorted(found[:5]) == sorted(found[5:10]) == sorted(a + b for a, b in DOCUMENTS)
    assert 0 < marked < len(found)


def test_a_document_in_a_row_does_not_see_the_others():
    tokenizer = train_tokenizer(DOCUMENTS, TINY)
    torch.manual_seed(0)
    model = new_model(TINY, tokenizer).eval()
    ids, position, labels = next(packed_rows(DOCUMENTS, tokenizer, TINY))
    with torch.no_grad():
        packed = model(input_ids=ids[None], position_ids=position[None], labels=labels[None], use_cache=False)
        begins = [*(position == 0).nonzero().flatten().tolist(), 64]
        alone = torch.cat([model(ids[None, a:b]).logits[0] for a, b in pairwise(begins)])
    torch.testing.assert_close(packed.logits[0], alone, atol=1e-5, rtol=1e-5)
    counted = labels[1:] != -100
    loss = torch.nn.functional.cross_entropy(alone[:-1][counted], labels[1:][counted])
    torch.testing.assert_close(packed.loss, loss, atol=1e-5, rtol=1e-5)


def test_a_long_document_is_cut_to_a_row():
    tokenizer = train_tokenizer(DOCUMENTS, TINY)
    ids, _, labels = next(packed_rows([("Why? " * 60, "Because.")], tokenizer, TINY))
    assert len(ids) == 64
    assert (labels[1:] == ids[1:]).all()


def test_the_cache_answers_the_second_time_and_only_what_was_asked(folder, monkeypatch):
    cache = folder.parent
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_language_model(DOCUMENTS, settings=TINY, cache=cache, progress=False) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    other = TinySettings(**{**TINY.__dict__, "steps": 1})
    monkeypatch.setenv("PLURALIGN_CACHE", str(cache / "elsewhere"))
    made = tiny_language_model(DOCUMENTS, settings=other, progress=False)
    assert made.parent == cache / "elsewhere" / "language_models"
    assert made.name != folder.name
    assert tiny_language_model(DOCUMENTS[:4], settings=other, progress=False).name != made.name
    assert not [path for path in made.parent.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("damage", ["lose", "cut", "half"])
def test_a_damaged_folder_is_made_again(tmp_path, damage, caplog):
    settings = TinySettings(**{**TINY.__dict__, "steps": 2})
    folder = tiny_language_model(DOCUMENTS, settings=settings, cache=tmp_path, progress=False)
    whole = (folder / "model.safetensors").read_bytes()
    match damage:
        case "lose":
            (folder / "tokenizer.json").unlink()
        case "cut":
            (folder / "model.safetensors").write_bytes(whole[:-8])
        case _:
            (folder / "pluralign.json").unlink()  # it is written last
    assert tiny_language_model(DOCUMENTS, settings=settings, cache=tmp_path, progress=False) == folder
    assert "removed a damaged language model" in caplog.text
    assert (folder / "model.safetensors").read_bytes() == whole  # the same seed, the same weights
    AutoTokenizer.from_pretrained(folder)


def test_a_quicker_process_wins(tmp_path, monkeypatch):
    settings = TinySettings(**{**TINY.__dict__, "steps": 1})

    def train_and_lose(documents, settings, part, *, progress):
        train_tiny(documents, settings, part, progress=progress)
        shutil.copytree(part, part.parent / part.name.split(".")[0])

    monkeypatch.setattr(tiny, "train_tiny", train_and_lose)
    folder = tiny_language_model(DOCUMENTS, settings=settings, cache=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == [folder]
    AutoModelForCausalLM.from_pretrained(folder)


def test_what_a_killed_process_left_goes_after_a_day(tmp_path):
    for name, age_s in (("tiny-old.1.part", 90_000), ("tiny-new.2.part", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    settings = TinySettings(**{**TINY.__dict__, "steps": 1})
    folder = tiny_language_model(DOCUMENTS, settings=settings, cache=tmp_path, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny-new.2.part", folder.name}


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train_tiny(DOCUMENTS, TinySettings(**{**TINY.__dict__, "steps": 1}), tmp_path, progress=False)
    assert torch.equal(torch.rand(4), expected)


def test_a_tied_model_can_be_had(tmp_path):
    train_tiny(DOCUMENTS, TinySettings(**{**TINY.__dict__, "steps": 1, "tied": True}), tmp_path, progress=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"hidden is 20; it must be a multiple of twice the heads \(8\)"):
        TinySettings(hidden=20, heads=4)
    with pytest.raises(ConfigError, match="vocabulary is 100; it must be at least 259"):
        TinySettings(vocabulary=100)
    with pytest.raises(ConfigError, match=r"row_tokens is 512; it must be 8 to the context \(256\)"):
        TinySettings(row_tokens=512, context=256)
    with pytest.raises(ConfigError, match="steps is 0; it must be at least 1"):
        TinySettings(steps=0)
    with pytest.raises(ConfigError, match=r"learning_rate is 0\.0 and weight_decay 0\.01; they must be"):
        TinySettings(learning_rate=0.0)
    with pytest.raises(ConfigError, match='unknown size "huge"; known: default, small'):
        tiny_language_model(DOCUMENTS, settings="huge", cache=tmp_path)
    with pytest.raises(DataError, match="there are no documents to train on"):
        tiny_language_model([], settings=TINY, cache=tmp_path)
    assert not os.listdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot write to"):
        tiny_language_model(DOCUMENTS, settings=TINY, cache=tmp_path / "file")
