"""Contexts of targets: what may be in them, and how they are drawn."""

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_columns
from pluralign.language_models.tokens import tokenize
from pluralign.training.data import Key, PairCollator
from pluralign.training.latent_data import Contexts, TargetCollator, TargetDataset
from pluralign.users import UNKNOWN

LAYOUT = {"place": "none", "vocab_size": 259, "n_tokens": 0}


@pytest.fixture(scope="module")
def tokens(tokenizer):
    """Two users; the first has four rows of three sources, weights 1, 2, 4, 8."""
    table = from_columns(
        prompt=["p", "p", "q", "r", "p", "q"],
        chosen=["a", "b", "c", "d", "e", "f"],
        rejected=["g", "h", "i", "j", "k", "l"],
        user=["ann"] * 4 + ["ben"] * 2,
        weight=np.array([1.0, 2.0, 4.0, 8.0, 1.0, 1.0]),
    )
    return tokenize(table, tokenizer)


def make(tokens, **settings):
    items = torch.arange(12.0)[:, None].expand(12, 3).contiguous()
    how = {"n_contexts": 2, "draws": 3, "latent_dim": 2, "seed": 0, **settings}
    return Contexts(items=items, tokens=tokens, **how)


def test_nothing_of_the_targets_source_is_in_a_context(tokens):
    contexts = make(tokens)
    for row in range(6):
        user, source = int(tokens.user[row]), int(tokens.source[row])
        for epoch in [None, *range(40)]:
            for rows in contexts.of(user, source, row, epoch).rows:
                assert (tokens.source[rows] != source).all()
                assert (tokens.user[rows] == user).all()


def test_contexts_are_none_to_all_of_what_is_allowed(tokens):
    found = {tuple(rows) for epoch in range(300) for rows in make(tokens).of(0, int(tokens.source[0]), 0, epoch).rows}
    assert found == {(), (2,), (3,), (2, 3)}  # row 1 is a sibling of row 0


def test_the_share_is_of_the_weight_left_out(tokens):
    left = {(): 15, (2,): 11, (3,): 7, (2, 3): 3}
    for epoch in range(30):
        drawn = make(tokens).of(0, int(tokens.source[0]), 0, epoch)
        assert drawn.share == pytest.approx([1 / left[tuple(rows)] for rows in drawn.rows])


def test_siblings_enter_together(tokens):
    for epoch in range(60):
        for rows in make(tokens).of(0, int(tokens.source[3]), 3, epoch).rows:
            assert (0 in rows) == (1 in rows)


def test_who_is_judged_has_all_of_it_and_pays_nothing(tokens):
    drawn = make(tokens).of(0, int(tokens.source[0]), 0, None)
    assert [rows.tolist() for rows in drawn.rows] == [[2, 3], [2, 3]]
    assert drawn.share == [0, 0]
    assert [rows.tolist() for rows in make(tokens).of(0, -1, 0, None).rows] == [[0, 1, 2, 3]] * 2
    assert [len(rows) for rows in make(tokens).of(UNKNOWN, 0, 0, None).rows] == [0, 0]


def test_a_draw_is_a_function_of_seed_epoch_and_row(tokens):
    one, again = make(tokens).of(0, 0, 0, 5), make(tokens).of(0, 0, 0, 5)
    assert np.array_equal(one.noise, again.noise)
    assert all(map(np.array_equal, one.rows, again.rows))
    for other in (make(tokens).of(0, 0, 0, 6), make(tokens).of(0, 0, 1, 5), make(tokens, seed=1).of(0, 0, 0, 5)):
        assert not np.array_equal(one.noise, other.noise)


def test_a_batch_indexes_the_matrix(tokens):
    contexts = make(tokens)
    dataset = TargetDataset(tokens=tokens, contexts=contexts)
    collate = TargetCollator(pairs=PairCollator(layout=LAYOUT, alpha=0.5), contexts=contexts)
    batch = collate([dataset[Key(0, True, True, True, None)], dataset[Key(4, True, False, True, 1)]])
    assert batch["personal"].tolist() == [True, False, True]
    # Context 0 and 1 are the first term's, with rows 2 and 3; 2 and 3 the generic one's, with none; 4 and 5 ben's.
    assert [(batch["context_owner"] == i).sum().item() for i in range(4)] == [2, 2, 0, 0]
    chosen = batch["context_items"][batch["context_chosen"], 0].long().tolist()
    assert chosen[:4] == tokens.chosen[[2, 3, 2, 3]].tolist()
    assert batch["context_weight"][:4].tolist() == [4, 8, 4, 8]
    assert batch["noise"].shape == (6, 1, 3, 2)
    assert batch["share"][:4].tolist() == [0, 0, 0, 0]
