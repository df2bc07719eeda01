import shutil

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, T5Config, T5Model

from pluralign.errors import ConfigError
from pluralign.language_models.loading import check_tokenizer, load_language_model, load_tokenizer

from ..tiny_models import make_tokenizer


def test_a_tokenizer_comes_back(base_folder, tokenizer):
    again = load_tokenizer(base_folder)
    assert again("Grüße")["input_ids"] == tokenizer("Grüße")["input_ids"]
    assert (again.pad_token_id, again.eos_token_id) == (0, 2)


def test_without_a_padding_token_the_end_stands_in(tmp_path):
    make_tokenizer(pad=False).save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id == load_tokenizer(tmp_path).eos_token_id == 2


@pytest.mark.parametrize(
    ("base", "message"),
    [("./nowhere", 'there is no folder "./nowhere"'), ("nobody/nothing", 'cannot read the .* "nobody/nothing"')],
)
def test_bases_that_are_not_there(base, message):
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(base)
    with pytest.raises(ConfigError, match=message):
        load_language_model(AutoModelForCausalLM, base)


def test_the_body_is_read_without_a_word(base_folder, capfd, caplog):
    load_language_model(AutoModel, str(base_folder))
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_weights_that_are_not_there_are_not_made_up(base_folder, tmp_path):
    AutoModel.from_pretrained(base_folder).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks 1 of the weights of LlamaForCausalLM, the first is lm_head.weight"):
        load_language_model(AutoModelForCausalLM, str(tmp_path))
    assert load_language_model(AutoModel, str(tmp_path)).dtype == torch.float32


def test_weights_that_are_cut_off_are_named(base_folder, tmp_path):
    folder = shutil.copytree(base_folder, tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ConfigError, match=r"cannot read the language model .*incomplete"):
        load_language_model(AutoModelForCausalLM, str(folder))


def test_an_encoder_with_a_decoder_is_named(tmp_path):
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5Model(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is an encoder with a decoder \(T5Model\)"):
        load_language_model(AutoModel, str(tmp_path))
    with pytest.raises(ConfigError, match=r"T5Config.* for this kind of AutoModel: AutoModelForCausalLM\.$"):
        load_language_model(AutoModelForCausalLM, str(tmp_path))


@pytest.mark.parametrize(
    ("file", "message"),
    [("adapter_config.json", "holds an adapter"), ("personal.safetensors", "holds a personal model")],
)
def test_what_stands_on_a_language_model_is_none(base_folder, tmp_path, file, message):
    folder = shutil.copytree(base_folder, tmp_path / "model")
    (folder / file).touch()
    for call in (load_tokenizer, lambda base: load_language_model(AutoModelForCausalLM, base)):
        with pytest.raises(ConfigError, match=message):
            call(str(folder))


def test_a_tokenizer_must_fit_the_model(tokenizer):
    check_tokenizer(tokenizer, 259)
    check_tokenizer(tokenizer, 320)
    with pytest.raises(ConfigError, match="ids go up to 258, and the model's embedding has 258 rows"):
        check_tokenizer(tokenizer, 258)
