import pytest
import torch
from torch import nn

from pluralign.errors import ConfigError
from pluralign.language_models.conditioning import PersonalEmbedding, user_token_ids
from pluralign.language_models.user_tokens import UNKNOWN, make_user_tokens


@pytest.fixture
def embedding():
    torch.manual_seed(0)
    users = make_user_tokens("individual", n_users=3, n_tokens=2, dim=4)
    with torch.no_grad():
        users.generic.normal_()
        users.offset.normal_()
    return PersonalEmbedding(nn.Embedding(10, 4), users)


def test_reserved_ids_are_worked_by_hand():
    assert user_token_ids(UNKNOWN, vocab_size=10, n_tokens=2) == [10, 11]
    assert user_token_ids(2, vocab_size=10, n_tokens=2) == [16, 17]
    assert user_token_ids(2, vocab_size=10, n_tokens=0) == []


def test_reserved_ids_read_their_users_rows(embedding):
    own, generic = (user_token_ids(user, vocab_size=10, n_tokens=2) for user in (1, UNKNOWN))
    rows = embedding(torch.tensor([[3, *own, 9], [*generic, 0, own[1]]]))
    users = embedding.users(torch.tensor([1, UNKNOWN]))
    assert torch.equal(rows[0, 1:3], users[0])
    assert torch.equal(rows[1, :2], users[1])
    assert torch.equal(rows[1, 3], users[0, 1])
    assert torch.equal(rows[0, [0, 3]], embedding.base(torch.tensor([3, 9])))


def test_text_without_users_is_read_as_before_and_still_reaches_every_parameter(embedding):
    ids = torch.tensor([[1, 2, 3]])
    rows = embedding(ids)
    assert torch.equal(rows, embedding.base(ids))
    rows.sum().backward()
    assert all(not each.grad.any() for each in embedding.users.parameters())


def test_users_take_on_the_precision_of_the_model(embedding):
    embedding.base.to(torch.bfloat16)
    rows = embedding(torch.tensor([12, 1]))
    assert rows.dtype == torch.bfloat16
    rows.float().sum().backward()
    assert embedding.users.offset.grad.dtype == torch.float32
    assert embedding.users.offset.grad[0, 0].any()


def test_what_multiplies_words_multiplies_users(embedding):
    rows = embedding(torch.tensor([12, 1]))
    embedding.base.embed_scale = 3.0
    assert torch.equal(embedding(torch.tensor([12]))[0], 3 * rows[0])


def test_another_width_is_an_error():
    with pytest.raises(ConfigError, match="users have width 4, the model's embedding 5"):
        PersonalEmbedding(nn.Embedding(10, 5), make_user_tokens("uniform", n_users=0, n_tokens=1, dim=4))
