import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

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


def test_a_tokenizer_must_fit_the_model(tokenizer):
    check_tokenizer(tokenizer, 259)
    check_tokenizer(tokenizer, 320)
    with pytest.raises(ConfigError, match="ids go up to 258, and the model's embedding has 258 rows"):
        check_tokenizer(tokenizer, 258)
