"""Margins of rows: each (item, user) read once, in whatever batches."""

import numpy as np
import pytest
import torch

from pluralign.language_models.packing import pack
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy, PersonalReward
from pluralign.language_models.tokens import tokenize
from pluralign.training.data import PairCollator, PairDataset
from pluralign.training.margins import item_values, row_margins
from pluralign.training.settings import PolicySettings
from pluralign.training.train import make_arguments, make_config
from pluralign.training.trainer import PreferenceTrainer

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


@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm", "ipo"])
def test_a_policy_is_judged_by_the_reward_of_its_loss(base_folder, comparisons, tokenizer, loss, tmp_path):
    tokens = tokenize(comparisons, tokenizer)
    settings = PolicySettings(loss=loss, tuning="frozen", seed=1)
    model = PersonalPolicy.make(make_config(base_folder, tokens.user_ids, settings, beta=0.5, loss=loss))
    reference = np.random.default_rng(0).normal(-20, 5, len(tokens.prompt)).astype(np.float32)
    data = PairDataset(tokens=tokens, reference=reference)
    trainer = PreferenceTrainer(model, make_arguments({"use_cpu": True}, tmp_path), settings, train=data)
    batch = PairCollator(layout=model.layout, alpha=1.0)([data[row] for row in range(len(tokens))])
    with torch.no_grad():
        margin = trainer.terms(model, batch).margin[batch["personal"]]
    found = row_margins(model, tokens, tokens.user, reference=reference, beta=0.5)
    np.testing.assert_allclose(found, margin, atol=1e-4)
    model.save(tmp_path)
    assert PersonalPolicy.load(tmp_path).config.loss == loss


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
