import pytest
import torch
from torch import nn

from pluralign.training.tables import hold_absent_rows

OPTIMISERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS.keys())
def test_absent_users_stand_still_with_their_moments(make):
    table = nn.Parameter(torch.randn(4, 2, 3))
    optimiser = make([table])
    hold_absent_rows(optimiser, lambda: [table])

    def step(rows):
        optimiser.zero_grad()
        (table[rows] ** 2).sum().backward()
        optimiser.step()

    step([0, 1])
    held = table.detach().clone()
    moments = {k: v.clone() for k, v in optimiser.state[table].items() if v.shape == table.shape}
    assert moments
    step([1, 2])
    for row, moved in ((0, False), (1, True), (2, True), (3, False)):
        assert torch.equal(table[row], held[row]) != moved
        for name, value in moments.items():
            assert torch.equal(optimiser.state[table][name][row], value[row]) != moved, name


def test_present_users_move_as_they_would_alone():
    both = [nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    optimisers = [torch.optim.AdamW([each], lr=0.1) for each in both]
    hold_absent_rows(optimisers[0], lambda: both[:1])
    for _ in range(3):
        for table, optimiser in zip(both, optimisers, strict=True):
            optimiser.zero_grad()
            (table**2).sum().backward()
            optimiser.step()
    assert torch.equal(*both)


def test_without_the_hooks_they_drift():
    # What the module is for: were it not so, the first test would pass for nothing.
    table = nn.Parameter(torch.ones(2, 2))
    optimiser = torch.optim.AdamW([table], lr=0.1, weight_decay=0.0)
    for rows in ([0], [1]):
        optimiser.zero_grad()
        (table[rows] ** 2).sum().backward()
        held = table[0].detach().clone()
        optimiser.step()
    assert not torch.equal(table[0], held)
