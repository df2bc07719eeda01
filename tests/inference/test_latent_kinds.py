"""Where latent users of a few kinds begin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pluralign.comparisons import from_attributes
from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.latent import fit_latent
from pluralign.inference.latent_elbo import LatentSettings, initial
from pluralign.inference.latent_encoder import place_latent
from pluralign.inference.latent_kinds import begin_at_kinds, fit_kinds

N_KINDS = 3
SETTINGS = LatentSettings(
    form="linear", prior="mixture", components=3, kinds=6, latent_dim=2, guided=False, steps=0, refit=False, width=3
)


def answers(n_users: int, n_pairs: int, *, seed: int) -> tuple[Design, np.ndarray]:
    """Users of three kinds, each of whom wants another of three attributes, and what kind each is of."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(400, 3))
    kind = np.arange(n_users) % N_KINDS
    owner = np.repeat(np.arange(n_users), n_pairs)
    first, second = rng.integers(0, 400, (2, n_users * n_pairs))
    second = np.where(first == second, (second + 1) % 400, second)
    ahead = items[first, kind[owner]] > items[second, kind[owner]]
    table = from_attributes(
        attributes=items,
        attribute_names=["a", "b", "c"],
        chosen=np.where(ahead, first, second),
        rejected=np.where(ahead, second, first),
        user=[f"user {i}" for i in owner],
        name="three kinds",
    )
    return Design.of(table, torch.as_tensor(items)), kind


def test_every_kind_has_its_head_and_the_surplus_has_died():
    design, _ = answers(150, 12, seed=0)
    head, log_share = fit_kinds(design, 6, 3, seed=0)
    along = head / head.norm(dim=1, keepdim=True)
    assert sorted(along.argmax(1).tolist()) == [0, 1, 2]
    assert float(along.max(1).values.min()) > 0.99
    torch.testing.assert_close(log_share.exp(), torch.full_like(log_share, 1 / 3), atol=0.08, rtol=0)


def test_untrained_users_are_placed_at_their_kind():
    # No optimizer step is taken: the encoder's first weights do it.
    found = fit_latent(answers(150, 12, seed=0)[0], SETTINGS)
    assert found.steps == 0
    assert not found.fell_back
    fresh, kind = answers(90, 12, seed=1)
    model = place_latent(found.model, fresh)
    component = model.posterior.log_weight.argmax(1).numpy()
    named = [np.bincount(kind[component == k], minlength=3).argmax() for k in range(3)]
    assert sorted(named) == [0, 1, 2]
    assert (np.asarray(named)[component] == kind).mean() > 0.95
    # By hand: the component's weight is the share times exp(-sum of costs), up to a constant.
    items = model.items(fresh.features)
    difference = items[fresh.chosen] - items[fresh.rejected]
    at = model.decoder["shift"] + model.prior_mean @ model.decoder["taste"].T
    cost = (np.log(2) - (difference[:, -1:] + difference[:, :-1] @ at.T)).clamp(min=0)
    total = torch.zeros(90, 3, dtype=cost.dtype).index_add(0, fresh.user, cost)
    expected = (model.prior_log_weight - total).log_softmax(1)
    torch.testing.assert_close(model.posterior.log_weight.exp(), expected.exp(), atol=1e-3, rtol=0)


def test_a_start_that_does_not_fit_is_named():
    with pytest.raises(ConfigError, match="only an unguided linear form with a mixture prior"):
        LatentSettings(kinds=5)
    design = answers(6, 4, seed=0)[0]
    narrow = LatentSettings(form="linear", prior="mixture", components=4, latent_dim=2, guided=False, hidden=8)
    model = initial(narrow, torch.zeros(3).double(), torch.eye(3).double(), torch.ones(3).double(), design.features)
    with pytest.raises(ConfigError, match="4 components, of 6 kinds, in 2 dimensions"):
        begin_at_kinds(model, design, 6)
