"""The head that reads [h(text); z], and the tower under it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pluralign.errors import ConfigError
from pluralign.features import Standardizer
from pluralign.inference.latent_elbo import LatentSettings, initial
from pluralign.language_models.packing import Sequence, pack
from pluralign.language_models.personal import PersonalConfig
from pluralign.training.latent_tower import LatentHead, LatentTower
from pluralign.users import UNKNOWN


def make_head(*, bound="elbo", prior="normal", **settings):
    """A head of two features, standardised by themselves, and one latent dimension unless told."""
    how = LatentSettings(**{"latent_dim": 1, "width": 2, "hidden": 3, "prior": prior, **settings})
    g = torch.Generator().manual_seed(3)
    start = initial(
        how, torch.tensor([0.5, -1.0]), torch.eye(2), torch.tensor([1.5, 0.7]), torch.randn(4, 2, generator=g)
    )
    if how.form != "linear":  # a net that does something, and an encoder's that does too
        start.decoder["last"] += torch.randn(3, generator=g)
    start.encoder["head"] += 0.3 * torch.randn(start.encoder["head"].shape, generator=g)
    plain = Standardizer(mean=torch.zeros(2).double(), scale=torch.ones(2).double(), columns=torch.arange(2), raw_dim=2)
    return LatentHead.of(start, plain, prior=prior, bound=bound)


class Bare(LatentTower):
    """A head without a language model under it."""

    def __init__(self, head):
        torch.nn.Module.__init__(self)
        self.head = head


def make_batch(n_comparisons=3, *, terms=1, contexts=1, draws=5, latent=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    n = terms * contexts
    return {
        "context_items": torch.randn(2 * n_comparisons, 3, generator=g),
        "context_chosen": torch.arange(n_comparisons),
        "context_rejected": torch.arange(n_comparisons, 2 * n_comparisons),
        "context_outcome": torch.ones(n_comparisons),
        "context_weight": torch.ones(n_comparisons),
        "context_owner": torch.arange(n_comparisons) * n // max(n_comparisons, 1),
        "share": torch.full((n,), 0.25),
        "noise": torch.randn(n, 1, draws, latent, generator=g),
        "target_outcome": torch.ones(terms),
    }, torch.randn(2 * terms, 2, generator=g)


@pytest.mark.parametrize("bound", ["elbo", "predictive"])
def test_the_bound_of_one_user_by_hand(bound):
    """One comparison, an encoder that is one Newton posterior: z by a grid, KL and log P by their formulas."""
    head = make_head(form="linear", bound=bound)
    with torch.no_grad():
        head.encoder_head.zero_()
    batch, features = make_batch(1)
    said = Bare(head).bound(features, **batch)[0].tolist()

    item = batch["context_items"].double().numpy()
    pull, along = item[0, 2] - item[1, 2], (item[0, 0] - item[1, 0]) * head.decoder_taste[0, 0].item()
    grid = np.linspace(-8, 8, 200_001)
    log_post = norm.logpdf(grid) - np.logaddexp(0, -(pull + along * grid))
    mode = grid[log_post.argmax()]
    p = 1 / (1 + np.exp(-(pull + along * mode)))
    variance = 1 / (1 + p * (1 - p) * along**2)  # Laplace's
    kl = (variance + mode**2 - 1 - np.log(variance)) / 2

    x = (features[0] - features[1]).double().numpy()
    z = mode + variance**0.5 * batch["noise"].double().numpy().ravel()
    margin = x @ [0.5, -1.0] + x[0] / 1.5 * head.decoder_taste[0, 0].item() * z
    log_p = -np.logaddexp(0, -margin)
    want = log_p.mean() if bound == "elbo" else np.log(np.exp(log_p).mean())
    assert said == pytest.approx([want, kl / 4, kl, margin.mean()], abs=1e-4)


SHAPES = [{}, {"form": "linear"}, {"pooling": "attention", "inputs": "pairs"}, {"guided": False, "prior": "diagonal"}]


@pytest.mark.parametrize("settings", SHAPES)
def test_the_order_of_a_context_changes_nothing(settings):
    tower = Bare(make_head(latent_dim=2, **settings))
    batch, features = make_batch(6, latent=2)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    turned = {name: value[order] if name.startswith("context_") and name != "context_items" else value
              for name, value in batch.items()}  # fmt: skip
    torch.testing.assert_close(tower.bound(features, **turned), tower.bound(features, **batch))


@pytest.mark.parametrize("settings", SHAPES)
def test_without_a_context_z_is_drawn_from_the_prior(settings):
    tower = Bare(make_head(latent_dim=2, **settings))
    batch, features = make_batch(0, latent=2)
    _, share, kl, margin = tower.bound(features, **batch)[0].tolist()
    assert share == pytest.approx(0, abs=1e-6)
    assert kl == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        want = tower.head.latent().reward_at(features, batch["noise"][0, 0]).mean(1)
    assert margin == pytest.approx(float(want[0] - want[1]), abs=1e-5)


def test_a_term_is_the_mean_of_its_contexts():
    tower = Bare(make_head())
    batch, features = make_batch(4, contexts=2)
    each = []
    for which in range(2):
        kept = batch["context_owner"] == which
        one = {name: value[kept] if len(value) == len(kept) and name.startswith("context_") else value
               for name, value in batch.items()}  # fmt: skip
        one |= {"context_owner": torch.zeros(2, dtype=torch.int64), "context_items": batch["context_items"]}
        one |= {name: batch[name][which : which + 1] for name in ("share", "noise")}
        each.append(tower.bound(features, **one))
    torch.testing.assert_close(tower.bound(features, **batch), (each[0] + each[1]) / 2)


def test_a_choice_and_its_opposite_have_probability_one_together():
    tower = Bare(make_head(bound="predictive"))
    batch, features = make_batch(2)
    first = tower.bound(features, **batch)[0, 0].detach().exp()
    second = tower.bound(features.flip(0), **batch)[0, 0].detach().exp()
    assert float(first + second) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "still"),
    [({}, {"prior_mean", "prior_log_weight"}), ({"prior": "diagonal"}, {"prior_log_weight"}),
     ({"guided": False}, {"decoder_taste", "decoder_shift"})],
)  # fmt: skip
def test_what_is_learned(settings, still):
    head = make_head(**settings)
    assert still | {"reference"} <= {name for name, value in head.named_parameters() if not value.requires_grad}
    assert {"theta", "coordinates", "encoder_pair"} <= set(head.learned)
    assert not {"context_theta", "context_coordinates", "mean"} & dict(head.named_parameters()).keys()


def test_a_head_comes_back_from_its_settings():
    head = make_head(prior="diagonal")
    again = LatentHead.blank(**head.settings())
    again.load_state_dict(head.state_dict())
    for (name, mine), (other, theirs) in zip(head.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)
    assert (again.how, again.learned) == (head.how, head.learned)


def test_a_body_without_hidden_states_is_named(base_folder):
    tower = LatentTower.make(PersonalConfig(base=str(base_folder), tuning="frozen"))
    packed = pack([Sequence(prompt=(1, 5), response=(6, 7), user=UNKNOWN)], **tower.layout)
    assert tower(**packed.tensors()).shape == (1, 32)
    tower.lm.forward = lambda **_: SimpleNamespace(logits=torch.zeros(1, 4, 9))
    with pytest.raises(ConfigError, match="gives no last_hidden_state"):
        tower(**packed.tensors())
