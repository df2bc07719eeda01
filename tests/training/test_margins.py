"""Margins of rows: each (item, user) read once, in whatever batches."""

import numpy as np
import pytest
import torch

from pluralign.language_models.packing import pack
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy, PersonalReward
from pluralign.language_models.tokens import tokenize
from pluralign.training.margins import item_values, row_margins

KINDS = {
    "policy, after": (PersonalPolicy, {"place": "after"}),
    "policy, before": (PersonalPolicy, {"place": "before"}),
    "reward, after": (PersonalReward, {"place": "after"}),
    "reward, late": (PersonalReward, {"head": "late"}),
}


@pytest.fixture(params=KINDS)
def model(request, base_folder):
    kind, more = KINDS[request.param]
    users = {"kind": "individual", "n_tokens": 1}
    config = PersonalConfig(base=str(base_folder), users=users, user_ids=["a", "b", "c"], tuning="frozen", **more)
    model = kind.make(config)
    with torch.no_grad():
        model.users.offset.normal_(generator=torch.Generator().manual_seed(0))
    return model.eval()


@pytest.mark.parametrize("batch_tokens", [1, 200, 16384])
def test_an_item_is_worth_what_it_is_alone(model, comparisons, tokenizer, batch_tokens):
    tokens = tokenize(comparisons, tokenizer)
    item, user = (each.ravel() for each in np.meshgrid(np.arange(4), [-1, 0, 2]))
    with torch.no_grad():
        pairs = zip(item.tolist(), user.tolist(), strict=True)
        alone = [model(**pack([tokens.sequence(*each)], **model.layout).tensors()).item() for each in pairs]
    found = item_values(model, tokens, item, user, batch_tokens=batch_tokens)
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-4)


def test_a_margin_is_the_chosen_reward_less_the_rejected_and_less_the_reference(model, comparisons, tokenizer):
    tokens = tokenize(comparisons, tokenizer)
    user = np.zeros(len(comparisons), dtype=np.int64)
    reference = np.arange(len(comparisons.items), dtype=np.float64)
    worth = item_values(model, tokens, np.arange(len(comparisons.items)), np.zeros(len(comparisons.items), dtype=int))
    worth = 0.5 * (worth - reference)
    expected = worth[comparisons.chosen] - worth[comparisons.rejected]
    np.testing.assert_allclose(row_margins(model, tokens, user, reference=reference, beta=0.5), expected, atol=1e-4)


def test_a_late_head_reads_a_text_once_for_all_users(base_folder, comparisons, tokenizer, monkeypatch):
    users = {"kind": "individual", "n_tokens": 1}
    names = [str(i) for i in range(100)]
    config = PersonalConfig(base=str(base_folder), users=users, user_ids=names, tuning="frozen", head="late")
    model = PersonalReward.make(config)
    assert model.share_limit != 0  # asked for here, because its probe reads too
    read = []
    monkeypatch.setattr(model, "attention", lambda packed, own=model.attention: read.append(packed) or own(packed))
    tokens = tokenize(comparisons, tokenizer)
    item_values(model, tokens, np.zeros(100, dtype=np.int64), np.arange(100))
    assert [len(packed.end_row) for packed in read] == [1]
