from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pluralign.errors import ConfigError
from pluralign.language_models.tokens import tokenize
from pluralign.training.data import PairCollator, PairDataset, StepSampler
from pluralign.users import UNKNOWN

LAYOUT = {"place": "after", "vocab_size": 300, "n_tokens": 1, "share_limit": None, "longest": None}


def steps_of(samplers, accumulation):
    """Keys of every step, over all processes."""
    batches = [list(each) for each in samplers]
    assert len({len(each) for each in batches}) == 1
    assert all(len(each) == len(sampler) for each, sampler in zip(batches, samplers, strict=True))
    return [
        sorted(key for each in batches for batch in each[i : i + accumulation] for key in batch if key.counted)
        for i in range(0, len(batches[0]), accumulation)
    ]


@given(
    n=st.integers(8, 60),
    division=st.sampled_from([(1, 8, 1), (2, 2, 2), (4, 2, 1), (2, 1, 4)]),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_a_step_is_the_same_however_it_is_divided(n, division, seed, epoch):
    lengths = np.random.default_rng(seed).integers(5, 50, n)

    def plan(batch, accumulation, world):
        samplers = [
            StepSampler(
                lengths, batch=batch, accumulation=accumulation, rank=rank, world=world, alpha=0.4, mixture="sampled",
                seed=seed,
            )
            for rank in range(world)
        ]  # fmt: skip
        for each in samplers:
            each.set_epoch(epoch)
        return steps_of(samplers, accumulation)

    whole = plan(8, 1, 1)
    assert plan(*division) == whole
    assert sorted(key.row for step in whole for key in step) == list(range(n))
    assert [len(step) for step in whole[:-1]] == [8] * (len(whole) - 1)


def test_rows_of_like_length_go_together():
    lengths = np.random.default_rng(0).integers(10, 200, 512)
    sampler = StepSampler(lengths, batch=8)
    spread = np.mean([np.ptp(lengths[rows]) for rows in sampler.order()])
    assert spread < 25  # at random 8 of them span about 150


def test_epochs_differ_and_repeat():
    sampler = StepSampler(np.ones(40, dtype=int), batch=8)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert first != second
    assert first == list(sampler)


def test_users_are_dropped_as_often_as_alpha_says():
    sampler = StepSampler(np.ones(4000, dtype=int), batch=8, alpha=0.3, mixture="sampled")
    personal, generic = sampler.terms()
    assert (personal != generic).all()
    assert abs(personal.mean() - 0.3) < 0.03
    sampler.set_epoch(1)
    assert (sampler.terms()[0] != personal).any()


@pytest.mark.parametrize(("alpha", "both"), [(1.0, (True, False)), (0.0, (False, True)), (0.5, (True, True))])
def test_no_term_without_weight_is_formed(alpha, both):
    personal, generic = StepSampler(np.ones(8, dtype=int), batch=8, alpha=alpha).terms()
    assert (personal.all(), generic.all()) == both
    assert (personal.any(), generic.any()) == both


def test_too_few_rows_for_a_step():
    with pytest.raises(ConfigError, match="3 comparisons do not fill one step of 8"):
        StepSampler(np.ones(3, dtype=int), batch=8, drop_last=True)


def test_a_batch_by_hand(tokenizer, comparisons):
    tokens = tokenize(comparisons, tokenizer)
    reference = -np.arange(len(tokens.prompt), dtype=np.float32)
    data = PairDataset(tokens=tokens, reference=reference)
    batch = PairCollator(layout=LAYOUT, alpha=0.25)([data[3], data[5]])
    assert batch["labels"].tolist() == [1, 1]
    assert batch["pair"].tolist() == [0, 0, 1, 1]
    assert batch["personal"].tolist() == [True, False, True, False]
    w = tokens.weight
    torch.testing.assert_close(
        batch["weight"], torch.tensor([0.25 * w[3], 0.75 * w[3], 0.25 * w[5], 0.75 * w[5]]).float()
    )
    c, r = tokens.chosen, tokens.rejected
    assert batch["reference"].tolist() == [-c[3], -c[3], -c[5], -c[5], -r[3], -r[3], -r[5], -r[5]]
    u = tokens.user
    assert batch["user"].tolist() == [u[3], UNKNOWN, u[5], UNKNOWN] * 2
    assert batch["length"][:2].tolist() == [tokens.responses.length[c[3]]] * 2


def test_a_row_that_is_there_for_company_does_not_count(tokenizer, comparisons):
    data = PairDataset(tokens=tokenize(comparisons, tokenizer))
    sampler = StepSampler(data.tokens.lengths()[:9], batch=4, rank=1, world=2)  # one row is left for two processes
    last = list(sampler)[-1]
    batch = PairCollator(layout=LAYOUT)([data[key] for key in last])
    assert batch["labels"].tolist() == [-100]
    assert batch["weight"].tolist() == [0.0]


def test_one_user_for_all_needs_one_term(tokenizer, comparisons):
    data = PairDataset(tokens=tokenize(comparisons, tokenizer))
    batch = PairCollator(layout=LAYOUT, alpha=0.25, impersonal=True)([data[3], data[5]])
    assert batch["personal"].tolist() == [False, False]
    assert batch["weight"].tolist() == data.tokens.weight[[3, 5]].tolist()


def test_workers_lay_out_the_same(tokenizer, comparisons):
    data = PairDataset(tokens=tokenize(comparisons, tokenizer))

    def batches(workers):
        sampler = StepSampler(data.tokens.lengths(), batch=4, alpha=0.5, mixture="sampled")
        collator = PairCollator(layout=LAYOUT, mixture="sampled")
        return list(DataLoader(data, batch_sampler=sampler, collate_fn=collator, num_workers=workers))

    for one, other in zip(batches(0), batches(2), strict=True):
        for name, value in one.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def test_rows_can_be_taken(tokenizer, comparisons):
    tokens = tokenize(comparisons, tokenizer)
    some = tokens.take(tokens.user == 1)
    assert (some.user == 1).all()
    assert replace(some).sequence(int(some.chosen[0]), 1) == tokens.sequence(int(some.chosen[0]), 1)
