import numpy as np
import pytest
import torch

from pluralign.language_models.packing import Sequence
from pluralign.language_models.personal import PersonalConfig, PersonalPolicy
from pluralign.language_models.reading import read_values, reading

SEQUENCES = [
    Sequence(prompt=(5, 6, 7, 8)[: 1 + i % 3], response=(9, 10 + i), user=user)
    for i, user in enumerate((0, 1, -1, 0, 1, -1, 0))
]


@pytest.fixture(scope="module")
def model(base_folder):
    users = {"kind": "individual", "n_tokens": 1}
    return PersonalPolicy.make(PersonalConfig(base=str(base_folder), users=users, user_ids=["ann", "bob"]))


class Bar:
    n = 0

    def update(self, n):
        self.n += n


def test_a_value_is_its_sequences_whatever_it_is_read_with(model):
    bar, n = Bar(), len(SEQUENCES)
    alone = read_values(model, n, SEQUENCES.__getitem__, [np.array([i]) for i in range(n)], bar=bar)
    assert bar.n == n
    assert len(set(alone.round(4))) == n
    mixed = read_values(model, n, SEQUENCES.__getitem__, np.split(np.array([6, 1, 4, 0, 2, 5, 3]), [3, 5]))
    np.testing.assert_allclose(mixed, alone, atol=1e-5)
    layout = {**model.layout, "place": "none", "n_tokens": 0}
    nobodys = read_values(model, n, SEQUENCES.__getitem__, [np.arange(n)], layout=layout)
    assert (abs(nobodys - alone) > 1e-4).all()


def test_the_models_mode_comes_back(model):
    model.train()
    with reading(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    assert model.training
    assert all(module.training for module in model.modules())
