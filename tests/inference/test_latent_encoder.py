"""The set encoder: order, number and direction of comparisons."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pluralign.features import Design
from pluralign.inference.adapt import adapt
from pluralign.inference.latent_elbo import LatentSettings, initial
from pluralign.inference.latent_encoder import Panel, place_latent, read
from pluralign.likelihoods import Decisions
from pluralign.users import Latent

KINDS = [
    {"guided": guided, "pooling": pooling, "inputs": inputs, "prior": prior}
    for guided, pooling, inputs, prior in [
        (True, "mean", "differences", "normal"),
        (True, "attention", "pairs", "mixture"),
        (False, "mean", "differences", "mixture"),
        (False, "attention", "pairs", "normal"),
    ]
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def build(**settings) -> Latent:
    """A model whose nets are all at work, as after training."""
    model = initial(LatentSettings(latent_dim=2, hidden=6, **settings), draw(5), draw(5, 5), draw(5).abs(), draw(3, 5))
    g = torch.Generator().manual_seed(3)
    moved = {
        name: each + 0.3 * torch.randn(each.shape, generator=g, dtype=each.dtype)
        for name, each in model.encoder.items()
    }
    return replace(model, encoder=moved)


def comparisons(n: int, user: Tensor | None = None, *, n_users: int = 1, outcome: Tensor | None = None) -> Design:
    g = torch.Generator().manual_seed(n)
    first = torch.randint(0, 20, (n,), generator=g)
    return Design(
        features=draw(20, 5),
        chosen=first,
        rejected=(first + torch.randint(1, 20, (n,), generator=g)) % 20,
        decisions=Decisions(
            index=torch.arange(n),
            outcome=torch.ones(n).double() if outcome is None else outcome,
            position=torch.zeros(n).double(),
        ),
        user=torch.zeros(n, dtype=torch.int64) if user is None else user,
        weight=torch.ones(n).double(),
        source=torch.arange(n),
        n_users=n_users,
    )


def permuted(design: Design, order: Tensor) -> Design:
    return replace(
        design,
        chosen=design.chosen[order],
        rejected=design.rejected[order],
        user=design.user[order],
        source=design.source[order],
        decisions=replace(design.decisions, outcome=design.decisions.outcome[order]),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_comparisons_does_not_matter(kind):
    model = build(**kind)
    design = comparisons(30, torch.arange(30) % 4, n_users=4)
    shuffled = permuted(design, torch.randperm(30, generator=torch.Generator().manual_seed(1)))
    for mine, theirs in zip(
        place_latent(model, design).posterior, place_latent(model, shuffled).posterior, strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_chosen_and_rejected_changes_the_posterior(kind):
    model, design = build(**kind), comparisons(6)
    swapped = replace(design, chosen=design.rejected, rejected=design.chosen)
    mine, theirs = (place_latent(model, each).posterior.center for each in (design, swapped))
    assert float((mine - theirs).abs().max()) > 0.05
    # An outcome of 0 says the same as the swapped pair.
    said = comparisons(6, outcome=torch.zeros(6).double())
    torch.testing.assert_close(place_latent(model, said).posterior.center, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_said_anything_is_the_prior_exactly(kind):
    model = build(**kind)
    design = comparisons(6, torch.tensor([0, 0, 0, 2, 2, 2]), n_users=4)
    placed = adapt(model, design)
    assert placed.n_users == 4
    for part, prior in zip(placed.posterior, model.prior, strict=True):
        for silent in (1, 3):
            assert torch.equal(part[silent], prior[0])
    assert not torch.equal(placed.mean[0], model.prior_mean)


@pytest.mark.parametrize("kind", KINDS)
def test_saying_everything_twice_makes_the_posterior_tighter_as_weights_do(kind):
    model, design = build(**kind), comparisons(5)
    twice = replace(comparisons(10), chosen=design.chosen.repeat(2), rejected=design.rejected.repeat(2))
    heavy = replace(design, weight=2 * design.weight)
    once, double, weighted = (place_latent(model, each).posterior for each in (design, twice, heavy))
    if len(model.prior_log_weight) == 1:  # a mixture may spread over its components
        assert bool((double.log_variance < once.log_variance).all())
    for mine, theirs in zip(double, weighted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_choice_among_three_is_one_decision():
    model, design = build(), comparisons(4)
    two = replace(
        design,
        decisions=replace(design.decisions, index=torch.tensor([0, 0, 1, 1])),
        user=design.user[:2],
        weight=design.weight[:2],
        source=design.source[:2],
    )
    assert bool(place_latent(model, two).mean.isfinite().all())
    items = model.items(design.features)
    own = Panel(two).of(torch.tensor([0]))
    assert own.decisions.count == 2
    # Without the nets, the precision is the sum over the choices of (v . v) p (1 - p) over their other items.
    plain = initial(LatentSettings(latent_dim=2), draw(5), draw(5, 5), draw(5).abs(), draw(3, 5))
    assert bool((read(plain, items, own).precision > 0).all())


def test_the_first_newton_step_by_hand(monkeypatch):
    # One comparison at margin 0: slope 1/2, curvature 1/4. Along v the message is v / 2 and v^2 / 4.
    monkeypatch.setattr("pluralign.inference.latent_encoder.N_STEPS", 1)
    model = initial(
        LatentSettings(latent_dim=1), torch.zeros(1).double(), torch.eye(1).double(), torch.ones(1).double(),
        torch.zeros(1, 1).double(),
    )  # fmt: skip
    x = torch.tensor([[3.0], [1.0]]).double()
    design = replace(comparisons(1), features=x, chosen=torch.tensor([0]), rejected=torch.tensor([1]))
    message = read(model, model.items(design.features), Panel(design).of(torch.tensor([0])))
    assert float(message.linear) == pytest.approx(2 / 2)
    assert float(message.precision) == pytest.approx(4 / 4)


def test_a_panel_finds_the_comparisons_of_any_users():
    user = torch.tensor([2, 0, 2, 1, 0, 2])
    design = comparisons(6, user, n_users=4)
    own = Panel(design).of(torch.tensor([2, 3, 0]))
    assert own.owner.tolist() == [0, 0, 0, 2, 2]
    assert own.chosen.tolist() == design.chosen[[0, 2, 5, 1, 4]].tolist()
    assert own.n_users == 3
