"""Contexts, schedules, settings, and what a training step may and may not see."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pluralign.errors import ConfigError
from pluralign.features import Design
from pluralign.inference.latent_elbo import LatentSettings, hold_out, initial, negative_bound, split_contexts, train
from pluralign.inference.latent_encoder import Panel
from pluralign.likelihoods import Decisions
from pluralign.users import latent as users_latent

SMALL = LatentSettings(latent_dim=2, hidden=8, steps=6, every=2, users=8)


@pytest.fixture
def planted(population):
    g = torch.Generator().manual_seed(0)
    theta, basis = torch.randn(4, generator=g), torch.randn(4, 2, generator=g)
    design, _ = population(theta=theta, basis=basis, n_users=12, n_decisions=20)
    # four decisions of a user share a source
    return replace(design, source=torch.arange(design.n_decisions) // 4)


def start(design, settings=SMALL):
    dim = design.dim
    return initial(settings, torch.zeros(dim), torch.eye(dim), torch.ones(dim), design.features[:3])


@given(st.integers(0, 10_000))
def test_no_target_has_itself_or_a_sibling_in_its_context(seed):
    g = torch.Generator().manual_seed(seed)
    n, n_users = 40, 5
    design = Design(
        features=torch.randn(10, 3, generator=g),
        chosen=torch.randint(0, 5, (n,), generator=g),
        rejected=torch.randint(5, 10, (n,), generator=g),
        decisions=Decisions(index=torch.arange(n), outcome=torch.ones(n), position=torch.zeros(n)),
        user=torch.randint(0, n_users, (n,), generator=g),
        weight=torch.ones(n),
        source=torch.randint(0, 6, (n,), generator=g),
        n_users=n_users,
    )
    own = Panel(design).of(torch.arange(design.n_users))
    context, targets = split_contexts(own, g)
    assert not set(context.group.tolist()) & set(targets.group.tolist())
    assert len(context.weight) + len(targets.weight) == design.n_decisions


def test_the_schedule_counts_optimizer_steps():
    settings = LatentSettings(kl_weight=0.4, warmup=4)
    assert [settings.weight_at(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert LatentSettings(kl_weight=0.4, warmup=0).weight_at(0) == 0.4
    assert not LatentSettings(kl_weight=0.0).variational


def test_looking_at_held_out_rows_changes_nothing_about_training(planted):
    out = hold_out(planted, 0.2, 0)
    part, held = planted.take(~out), planted.take(out)
    blind = train(start(part), part, SMALL, steps=6)[0]
    _, looks = train(start(part), part, replace(SMALL, every=1, patience=99), held=held)
    seldom, few = train(start(part), part, replace(SMALL, every=6, patience=99), held=held)
    assert [look.kl_weight for look in looks] == [0.0, *(SMALL.weight_at(step) for step in range(6))]
    assert [look.step for look in few] == [0, 6]
    assert looks[6].log_prob == few[1].log_prob
    last = train(start(part), part, SMALL, steps=6)[0]
    assert all(torch.equal(each, last.encoder[name]) for name, each in blind.encoder.items())
    if few[1].log_prob + few[1].few > few[0].log_prob + few[0].few:
        assert all(torch.equal(each, blind.encoder[name]) for name, each in seldom.encoder.items())


def test_every_item_is_embedded_once_for_a_fit(planted, monkeypatch):
    seen = []
    original = users_latent.Latent.items

    def counting(self, features):
        seen.append(len(features))
        return original(self, features)

    model = start(planted)
    monkeypatch.setattr(users_latent.Latent, "items", counting)
    train(model, planted, replace(SMALL, draws=7), steps=5)
    assert seen == [len(planted.features)]  # whatever the number of steps, contexts and draws


def test_the_bound_is_a_mean_over_targets_and_its_weight_is_the_divergence(planted):
    model, g = start(planted), torch.Generator().manual_seed(0)
    own = Panel(planted).of(torch.arange(planted.n_users))
    context, targets = split_contexts(own, g)
    items = model.items(planted.features)

    def bound(**settings):
        how = replace(SMALL, **settings)
        weight = how.kl_weight
        return negative_bound(model, items, context, targets, how, weight, torch.Generator().manual_seed(1))

    none, one, two = (float(bound(kl_weight=weight)) for weight in (0.0, 1.0, 2.0))
    assert one > none
    assert two - one == pytest.approx(one - none, rel=1e-4)
    # log of a mean is above the mean of the logs
    assert float(bound(bound="predictive", kl_weight=0.0)) < float(bound(bound="elbo", kl_weight=0.0))
    # bits that are free cost what they would if they were used
    assert float(bound(kl_weight=1.0, free_bits=50.0)) > one
    assert float(bound(kl_weight=0.0, swap_weight=1.0)) > none


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "deep"}, 'unknown form "deep"; known: linear, scalar, pairwise'),
        ({"prior": "flow"}, 'unknown prior "flow"; known: normal, diagonal, mixture'),
        ({"latent_dim": 0}, "latent_dim is 0; it must be at least 1"),
        ({"kl_weight": -1.0}, "kl_weight is -1.0; it must be at least 0"),
        ({"held_out": 1.0}, "held_out is 1.0; it must lie between 0 and 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
    ],
)
def test_settings_that_are_not_accepted(settings, message, whole_runs):
    with pytest.raises(ConfigError, match=message):
        LatentSettings(**settings)


def test_one_source_cannot_be_parted(planted):
    with pytest.raises(ConfigError, match="every row has the same source; latent users need two"):
        hold_out(replace(planted, source=torch.zeros_like(planted.source)), 0.1, 0)


def test_a_direction_in_which_no_items_differ_is_left_out():
    # One-hot items: the sum of all features is the same for everybody, and a deviation of 0 is no unit to measure in.
    directions = torch.tensor([[1.0, 2.0], [-1.0, 2.0]])
    model = initial(SMALL, torch.zeros(2), directions, torch.tensor([0.5, 0.0]), torch.eye(2))
    assert model.coordinates.tolist() == [[2.0, 0.0], [-2.0, 0.0]]
    rounded = initial(SMALL, torch.zeros(2), directions, torch.tensor([0.5, 1e-7]), torch.eye(2))
    assert rounded.coordinates.tolist() == [[2.0, 0.0], [-2.0, 0.0]]
