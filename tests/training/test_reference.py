import numpy as np
import pytest
import torch

from pluralign.language_models.packing import Sequence, pack
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.language_models.tokens import tokenize
from pluralign.training import reference
from pluralign.training.reference import item_batches, model_key, reference_log_probs

from .conftest import make_comparisons


@pytest.fixture(scope="module")
def tokens(tokenizer):
    return tokenize(make_comparisons(), tokenizer)


def make_policy(base_folder, tuning="lora", n_tokens=2):
    config = PersonalConfig(
        base=str(base_folder),
        users={"kind": "individual", "n_tokens": n_tokens},
        user_ids=["user 0", "user 1", "user 2"],
        tuning=tuning,
        lora={"r": 4} if tuning == "lora" else None,
    )
    return PersonalPolicy.make(config)


@pytest.fixture
def counted(monkeypatch):
    """Number of passes of any policy."""
    calls = []
    forward = PersonalPolicy.forward
    monkeypatch.setattr(PersonalPolicy, "forward", lambda self, **batch: calls.append(1) or forward(self, **batch))
    return calls


def test_it_is_the_base_alone(base_folder, tokens):
    from transformers import AutoModelForCausalLM

    model = make_policy(base_folder)
    with torch.no_grad():  # as after some training
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    values = reference_log_probs(model, tokens, progress=False)
    base = AutoModelForCausalLM.from_pretrained(base_folder)
    for item in np.unique(tokens.chosen)[:4].tolist():
        one = tokens.sequence(item, 0)
        ids = torch.tensor([one.prompt + one.response])
        log_prob = base(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        assert values[item] == pytest.approx(log_prob[len(one.prompt) - 1 :].sum().item(), abs=1e-3)


@pytest.mark.parametrize("tuning", ["lora", "full", "frozen"])
def test_the_user_has_no_part_in_it(base_folder, tokens, tuning):
    plain, other = (
        reference_log_probs(make_policy(base_folder, tuning, n), tokens, progress=False) for n in (0, 3)
    )  # fmt: skip
    np.testing.assert_array_equal(plain, other)


def test_batches_do_not_matter(base_folder, tokens):
    model = make_policy(base_folder)
    whole = reference_log_probs(model, tokens, progress=False)
    ones = reference_log_probs(model, tokens, progress=False, batch_tokens=1)
    np.testing.assert_allclose(whole, ones, atol=1e-3)
    assert np.isfinite(whole[np.unique([tokens.chosen, tokens.rejected])]).all()


def test_it_is_computed_once(base_folder, tokens, tmp_path, counted):
    model = make_policy(base_folder)
    first = reference_log_probs(model, tokens, cache=tmp_path, progress=False)
    n = len(counted)
    assert n
    again = reference_log_probs(make_policy(base_folder, "full", 0), tokens, cache=tmp_path, progress=False)
    assert len(counted) == n  # another adapter and other users: the same reference
    np.testing.assert_array_equal(first, again)


def test_other_weights_have_another_cache(base_folder, tokens, tmp_path, counted):
    model = make_policy(base_folder)
    key = model_key(model)
    with torch.no_grad():
        next(iter(reference.base_parameters(model).values()))[0, 0] += 1e-3
    assert model_key(model) != key


def test_a_torn_shard_is_made_anew_and_the_rest_is_kept(base_folder, tokens, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(reference, "SHARD", 8)
    model = make_policy(base_folder)
    first = reference_log_probs(model, tokens, cache=tmp_path, progress=False)
    shards = sorted(tmp_path.rglob("*.safetensors"))
    assert len(shards) > 2
    shards[0].write_bytes(shards[0].read_bytes()[:-3])
    counted.clear()
    again = reference_log_probs(model, tokens, cache=tmp_path, progress=False)
    np.testing.assert_array_equal(first, again)
    assert len(counted) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_few_of_one_prompt_share_a_batch(tokens):
    items = np.zeros(100, dtype=np.int64)  # one prompt
    assert max(len(rows) for rows in item_batches(tokens, items, 10**9)) == reference.MOST_OF_ONE_PROMPT
    assert sum(len(rows) for rows in item_batches(tokens, items, 50)) == 100


def test_values_are_those_of_a_plain_pass(base_folder, tokens):
    model = make_policy(base_folder)
    values = reference_log_probs(model, tokens, progress=False)
    item = int(tokens.chosen[0])
    one = tokens.sequence(item, 0)
    packed = pack(
        [Sequence(prompt=one.prompt, response=one.response, user=-1)], place="none", vocab_size=259, n_tokens=0
    )
    with torch.no_grad(), model.without_adapter():
        assert values[item] == pytest.approx(model(**packed.tensors()).item(), abs=1e-3)
