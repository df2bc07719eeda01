import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from pluralign.errors import ConfigError
from pluralign.training.objectives import LOSSES, check_loss, preference_loss

MARGINS = torch.tensor([-2.0, -0.1, 0.0, 0.3, 4.0])
SMOOTHED = {"sigmoid": 0.1, "sigmoid_norm": 0.1, "robust": 0.1, "exo_pair": 0.1}


def loss_of(ratio, outcome, loss, *, beta=0.5):
    return preference_loss(ratio, outcome, loss=loss, beta=beta, smoothing=SMOOTHED.get(loss, 0.0))


def test_a_clear_choice_costs_minus_log_sigmoid():
    loss = preference_loss(MARGINS, torch.ones(5), beta=0.5)
    torch.testing.assert_close(loss, -logsigmoid(0.5 * MARGINS))


def test_by_hand():
    # m = 0.5 * 2 = 1: hinge max(0, 1 - 1), ipo (2 - 1 / (2 * 0.5))^2.
    two, sure = torch.tensor([2.0]), torch.ones(1)
    assert loss_of(two, sure, "hinge").item() == 0.0
    assert loss_of(-two, sure, "hinge").item() == 2.0
    assert loss_of(two, sure, "ipo").item() == 1.0
    p = 1 / (1 + math.exp(-1))
    by_hand = p * math.log(p / 0.9) + (1 - p) * math.log((1 - p) / 0.1)
    assert loss_of(two, sure, "exo_pair").item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@given(outcome=st.floats(0, 1))
def test_an_outcome_is_a_mixture_of_both_choices(loss, outcome):
    share = torch.full((5,), outcome)
    both = share * loss_of(MARGINS, torch.ones(5), loss) + (1 - share) * loss_of(MARGINS, torch.zeros(5), loss)
    torch.testing.assert_close(loss_of(MARGINS, share, loss), both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_swapping_the_responses_swaps_the_outcome(loss):
    outcome = torch.tensor([0.0, 0.2, 0.5, 1.0, 0.9])
    swapped = loss_of(-MARGINS, 1 - outcome, loss)
    torch.testing.assert_close(loss_of(MARGINS, outcome, loss), swapped, rtol=1e-5, atol=1e-6)


def test_robust_is_unbiased():
    # A choice is flipped with probability 0.1; the expected loss is that of the choice that was meant.
    meant = preference_loss(MARGINS, torch.ones(5))
    robust = preference_loss(MARGINS, torch.full((5,), 0.9), loss="robust", smoothing=0.1)
    torch.testing.assert_close(robust, meant)


def test_a_tied_pair_pulls_to_a_margin_of_zero():
    margin = torch.zeros(1, requires_grad=True)
    preference_loss(margin, torch.full((1,), 0.5)).backward()
    assert margin.grad.item() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "bco"}, 'unknown loss "bco"; known: sigmoid'),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"smoothing": 0.5}, "smoothing is 0.5"),
        ({"loss": "hinge", "smoothing": 0.1}, "hinge has none"),
        ({"loss": "exo_pair"}, "exo_pair needs it above 0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_loss(**{"loss": "sigmoid", "beta": 0.5, "smoothing": 0.0, **settings})


def test_a_table_of_rewards_reaches_the_vote_share():
    """Lemma 3.2 of arXiv 2402.05133: sigmoid(margin) is the share of users who chose the first response."""
    share = torch.tensor([0.5, 0.6, 0.75, 0.9])
    votes = torch.cat([torch.ones(4, 100), torch.zeros(4, 100)], dim=1)  # a vote for the first, one for the second
    weight = torch.cat([share[:, None].expand(4, 100), (1 - share)[:, None].expand(4, 100)], dim=1)
    margin = torch.zeros(4, requires_grad=True)
    optimiser = torch.optim.LBFGS([margin], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure():
        optimiser.zero_grad()
        wide = margin[:, None].expand_as(votes)
        loss = (preference_loss(wide.flatten(), votes.flatten()) * weight.flatten()).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(torch.sigmoid(margin.detach()), share, atol=1e-4, rtol=0)


def test_minorities_move_with_the_majority():
    """Lemma 3.3 of arXiv 2402.05133: the pooled optimum lies between the groups, nearer to the larger one.

    |p - p_minority| = P(majority) |p_majority - p_minority|, and the minority is never nearer: with >=, because groups
    of one size, or of one mind, are a tie that the paper's strict inequality leaves out.
    """
    for majority, p_major, p_minor in ((0.7, 0.9, 0.2), (0.5, 0.8, 0.3), (0.6, 0.6, 0.6)):
        margin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([margin], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

        def closure(margin=margin, optimiser=optimiser, parts=((majority, p_major), (1 - majority, p_minor))):
            optimiser.zero_grad()
            loss = sum(w * preference_loss(margin, torch.tensor([p], dtype=torch.float64)) for w, p in parts).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        p = torch.sigmoid(margin).item()
        assert abs(p - p_minor) == pytest.approx(majority * abs(p_major - p_minor), abs=1e-5)
        assert abs(p - p_major) == pytest.approx((1 - majority) * abs(p_major - p_minor), abs=1e-5)
        assert abs(p - p_minor) >= abs(p - p_major) - 1e-5
