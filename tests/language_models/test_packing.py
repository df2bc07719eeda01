import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralign.errors import ConfigError, DataError
from pluralign.language_models.packing import PAD, Sequence, pack, tree_mask
from pluralign.language_models.user_tokens import UNKNOWN

A = Sequence(prompt=(11, 12, 13), response=(21, 22), user=0)
B = Sequence(prompt=(11, 12, 13), response=(31,), user=0)
C = Sequence(prompt=(14,), response=(41, 42, 43), user=UNKNOWN)
SETTINGS = {"vocab_size": 100, "n_tokens": 1}

ids = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)
triples = st.lists(st.tuples(ids, ids, st.integers(-1, 2)), min_size=1, max_size=6)


def test_a_shared_row_is_worked_by_hand():
    packed = pack([A, B, C], place="none", share=True, **SETTINGS)
    assert packed.input_ids.tolist() == [[11, 12, 13, 21, 22, 31], [0, 0, 14, 41, 42, 43]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 3], [0, 0, 0, 1, 2, 3]]
    assert packed.segment.tolist() == [[0, 0, 0, 1, 1, 2], [PAD, PAD, 0, 1, 1, 1]]
    assert packed.first == 2
    assert packed.target.tolist() == [21, 22, 31, 41, 42, 43]
    assert packed.target_row.tolist() == [0, 0, 0, 1, 1, 1]
    assert packed.target_column.tolist() == [2, 3, 2, 2, 3, 4]
    assert packed.target_branch.tolist() == [0, 0, 1, 2, 2, 2]
    assert packed.end_column.tolist() == [4, 5, 5]
    assert packed.shared


def test_rows_apart_are_worked_by_hand():
    packed = pack([A, C], place="none", share=False, **SETTINGS)
    assert packed.input_ids.tolist() == [[11, 12, 13, 21, 22, 0], [0, 0, 14, 41, 42, 43]]
    assert packed.segment.tolist() == [[0, 0, 0, 1, 1, PAD], [PAD, PAD, 0, 1, 1, 1]]
    assert not packed.shared


def test_users_stand_before_the_prompt_or_after_it():
    before = pack([A, C], place="before", share=False, **SETTINGS)
    assert before.input_ids.tolist() == [[101, 11, 12, 13, 21, 22, 0], [0, 0, 100, 14, 41, 42, 43]]
    after = pack([A, C], place="after", share=False, **SETTINGS)
    assert after.input_ids.tolist() == [[11, 12, 13, 101, 21, 22, 0], [0, 0, 14, 100, 41, 42, 43]]
    assert after.target_column[:2].tolist() == [3, 4]  # the user's token foretells the response's first
    assert after.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 0]


def test_users_of_one_prompt_share_it_where_they_stand_after_it():
    both = [A, Sequence(prompt=A.prompt, response=A.response, user=UNKNOWN)]
    assert len(pack(both, place="after", share=True, **SETTINGS).input_ids) == 1
    assert len(pack(both, place="before", share=True, **SETTINGS).input_ids) == 2


def test_what_reads_the_same_is_read_once():
    other = Sequence(prompt=A.prompt, response=A.response, user=1)
    packed = pack([A, other, A], place="none", **SETTINGS)
    assert packed.branch.tolist() == [0, 0, 0]
    assert packed.user.tolist() == [0, 1, 0]
    assert len(packed.end_row) == 1
    assert pack([A, other, A], place="before", **SETTINGS).branch.tolist() == [0, 1, 0]


def test_rows_are_shared_where_it_saves_a_fifth():
    long, short = tuple(range(50)), tuple(range(2))

    def pair(prompt, response):
        return [Sequence(prompt=prompt, response=(each, *response), user=0) for each in (7, 8)]

    assert pack(pair(long, short), place="none", **SETTINGS).shared
    assert not pack(pair(short, long), place="none", **SETTINGS).shared
    assert not pack(pair(long, short), place="none", share=False, **SETTINGS).shared


def test_rows_longer_than_the_limit_are_not_shared():
    pair = [Sequence(prompt=tuple(range(50)), response=(each, 2), user=0) for each in (7, 8)]
    assert not pack(pair, place="none", share_limit=53, **SETTINGS).shared
    assert pack(pair, place="none", share_limit=54, **SETTINGS).shared
    assert not pack(pair, place="none", share_limit=0, **SETTINGS).shared


def test_the_mask_is_worked_by_hand():
    seen = tree_mask(torch.tensor([[PAD, 0, 1, 1, 2]]))[0, 0]
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0],  # padding sees padding
        [0, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 0, 0, 1],  # the second branch does not see the first
    ]


@given(triples, st.sampled_from(["before", "after", "none"]), st.sampled_from([True, False, None]))
def test_every_sequence_is_there_whole(triples, place, share):
    """Reading a branch by the mask gives the sequence, at the positions 0, 1, 2, ..., and its targets its response."""
    given_sequences = [Sequence(prompt=p, response=r, user=u) for p, r, u in triples]
    packed = pack(given_sequences, place=place, share=share, **SETTINGS)
    mask = tree_mask(packed.segment)[:, 0]
    for i, each in enumerate(given_sequences):
        b = packed.branch[i]
        row, end = packed.end_row[b], packed.end_column[b]
        seen = mask[row, end]
        own = [] if place == "none" else [101 + each.user]
        wanted = [*own, *each.prompt, *each.response] if place == "before" else [*each.prompt, *own, *each.response]
        assert packed.input_ids[row, seen].tolist() == wanted
        assert packed.position_ids[row, seen].tolist() == list(range(len(wanted)))
        of_branch = packed.target_branch == b
        assert tuple(packed.target[of_branch].tolist()) == each.response
        columns = packed.target_column[of_branch]
        foretelling = packed.position_ids[row, columns]
        assert foretelling.tolist() == list(range(len(wanted) - len(each.response) - 1, len(wanted) - 1))
        assert (columns >= packed.first).all()
        assert mask[row, end][columns].all()


def test_it_moves_to_a_device_whole():
    packed = pack([A, B], place="none", **SETTINGS)
    moved = packed.to("meta")
    assert moved.input_ids.device.type == "meta"
    assert moved.first == packed.first
    assert moved.tensors().keys() == packed.tensors().keys()


@pytest.mark.parametrize(
    ("given_sequences", "settings", "error", "message"),
    [
        ([], {}, ConfigError, "no sequences"),
        ([Sequence(prompt=(), response=(1,), user=0)], {}, DataError, "a prompt has no tokens"),
        ([Sequence(prompt=(1,), response=(), user=0)], {}, DataError, "a response has no tokens"),
        (
            [A],
            {"place": "after", "longest": 5},
            DataError,
            r"6 tokens \(3 of prompt, 1 of the user, 2 of response\), and the model reads at most 5",
        ),
    ],
)
def test_what_cannot_be_packed(given_sequences, settings, error, message):
    with pytest.raises(error, match=message):
        pack(given_sequences, **{"place": "none", **SETTINGS, **settings})


def test_a_user_before_an_empty_prompt_foretells_its_response():
    packed = pack([Sequence(prompt=(), response=(5, 2), user=0)], place="before", **SETTINGS)
    assert packed.input_ids.tolist() == [[101, 5, 2]]
    assert packed.target_column.tolist() == [0, 1]
