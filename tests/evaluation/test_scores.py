import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import DataError
from pluralign.evaluation import Predictions, calibrate, score, score_users


def predict(chosen, user, outcome=None, weight=None, best_other=None) -> Predictions:
    chosen = np.asarray(chosen, dtype=np.float64)
    n = len(chosen)
    return Predictions(
        chosen=chosen,
        best_other=1 - chosen if best_other is None else np.asarray(best_other, dtype=np.float64),
        outcome=np.ones(n) if outcome is None else np.asarray(outcome, dtype=np.float64),
        user=np.asarray(user, dtype=np.int32),
        source=np.arange(n, dtype=np.int32),
        weight=np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64),
    )


def test_scores_by_hand():
    # User 0: right, right, undecided, tie. User 5: wrong (outcome 0 with chosen favoured), right with weight 3.
    scores = score(
        predict(
            [0.9, 0.6, 0.5, 0.8, 0.7, 0.75],
            [0, 0, 0, 0, 5, 5],
            outcome=[1, 1, 1, 0.5, 0, 1],
            weight=[1, 1, 1, 1, 1, 3],
        )
    )
    assert scores.accuracy == pytest.approx((1 + 1 + 0.5 + 0 + 3) / 7)
    assert scores.users.user.tolist() == [0, 5]
    assert scores.users.n_decided.tolist() == [3, 2]
    np.testing.assert_allclose(scores.users.accuracy, [2.5 / 3, 3 / 4])
    assert scores.accuracy_users == pytest.approx((2.5 / 3 + 3 / 4) / 2)
    assert scores.accuracy_users_sd == pytest.approx((2.5 / 3 - 3 / 4) / np.sqrt(2))
    tie = -(np.log(0.8) + np.log(0.2)) / 2
    total = -np.log(0.9) - np.log(0.6) - np.log(0.5) + tie - np.log(0.3) - 3 * np.log(0.75)
    assert scores.log_loss == pytest.approx(total / 8)
    assert scores.brier == pytest.approx((0.01 + 0.16 + 0.25 + 0.09 + 0.49 + 3 * 0.0625) / 8)
    assert (scores.n_decisions, scores.n_ties, scores.n_users) == (6, 1, 2)


def test_a_choice_among_several_is_right_where_the_chosen_leads():
    # 0.4 leads 0.35 and the rest; 0.3 does not lead 0.5.
    scores = score(predict([0.4, 0.3], [0, 0], best_other=[0.35, 0.5]))
    assert scores.accuracy == 0.5
    assert scores.log_loss == pytest.approx(-(np.log(0.4) + np.log(0.3)) / 2)


def test_the_worst_decile_is_the_worst_two_of_twenty_and_small_users_are_not_ranked():
    user = np.repeat(np.arange(21), [10] * 20 + [2])
    right = np.ones(len(user), dtype=bool)
    right[user == 3] = np.arange(10) < 2
    right[user == 7] = np.arange(10) < 5
    right[user == 20] = False
    scores = score(predict(np.where(right, 0.8, 0.2), user))
    assert scores.worst_decile_users == 2
    assert scores.worst_decile == pytest.approx((0.2 + 0.5) / 2)
    assert np.isnan(score(predict([0.9], [0])).worst_decile)
    assert score(predict([0.9], [0])).as_dict()["worst_decile"] is None


def test_equal_users_have_the_worst_decile_that_chance_gives():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(1000), 20)
    scores = score(predict(np.where(rng.random(len(user)) < 0.7, 0.7, 0.3), user))
    assert scores.worst_decile < 0.6
    assert scores.worst_decile == pytest.approx(scores.worst_decile_by_chance, abs=0.01)


def test_true_probabilities_are_calibrated_and_doubled_margins_are_not():
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 1.5, 40_000)
    won = rng.random(len(margin)) < 1 / (1 + np.exp(-margin))
    truth = 1 / (1 + np.exp(-np.where(won, margin, -margin)))
    doubled = 1 / (1 + np.exp(-2 * np.where(won, margin, -margin)))
    good, bad = (calibrate(predict(p, np.zeros(len(p)))) for p in (truth, doubled))
    assert good.error < 0.01
    assert (good.slope, good.intercept) == pytest.approx((1, 0), abs=0.05)
    assert bad.slope == pytest.approx(0.5, abs=0.03)
    assert bad.error > 0.05


def test_calibration_error_by_hand():
    # Favourites at 0.6 chosen 1 of 2, at 0.9 chosen 2 of 2, two bins: (0.1 + 0.1) / 2.
    calibration = calibrate(predict([0.6, 0.4, 0.9, 0.9], [0] * 4), n_bins=2)
    np.testing.assert_allclose(calibration.confidence, [0.6, 0.9])
    np.testing.assert_allclose(calibration.chosen, [0.5, 1.0])
    assert calibration.error == pytest.approx(0.1)


def test_a_tie_is_half_a_hit():
    calibration = calibrate(predict([0.7, 0.7], [0, 0], outcome=[0.5, 1]))
    assert calibration.chosen.tolist() == [0.75]


def test_recalibration_stays_finite_where_every_favourite_won():
    calibration = calibrate(predict([0.6, 0.7, 0.999999999999999], [0, 0, 0]))
    assert np.isfinite([calibration.slope, calibration.intercept]).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_order_of_rows_and_names_of_users_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    n = 50
    predictions = predict(
        rng.choice([0.2, 0.5, 0.6, 0.9], n), rng.integers(0, 6, n), rng.choice([0, 0.5, 1], n), rng.uniform(0.1, 2, n)
    )
    order, name = rng.permutation(n), rng.permutation(30)
    renamed = predict(predictions.chosen, name[predictions.user], predictions.outcome, predictions.weight).take(order)
    one, other = score(predictions).as_dict(), score(renamed).as_dict()
    for metric in ("accuracy", "log_loss", "brier", "accuracy_users", "accuracy_users_sd"):
        assert one[metric] == pytest.approx(other[metric])
    assert one["calibration"]["error"] == pytest.approx(other["calibration"]["error"])


def test_whole_weights_are_copies():
    weighted = predict([0.9, 0.3, 0.6], [0, 0, 1], weight=[2, 1, 3])
    copied = predict([0.9, 0.9, 0.3, 0.6, 0.6, 0.6], [0, 0, 0, 1, 1, 1])
    one, other = score(weighted), score(copied)
    assert one.accuracy == pytest.approx(other.accuracy)
    assert one.log_loss == pytest.approx(other.log_loss)
    np.testing.assert_allclose(one.users.log_loss, other.users.log_loss)
    assert one.calibration.slope == pytest.approx(other.calibration.slope)


def test_scores_are_plain_json():
    text = json.dumps(score(predict([0.9, 0.2], [0, 0])).as_dict(), allow_nan=False)
    assert json.loads(text)["accuracy"] == 0.5


def test_all_ties_have_a_log_loss_and_no_accuracy():
    scores = score(predict([0.9, 0.2], [0, 1], outcome=[0.5, 0.5]))
    assert np.isnan(scores.accuracy)
    assert scores.log_loss > 0
    assert np.isnan(score_users(predict([0.9], [0], outcome=[0.5])).accuracy[0])


def test_nothing_to_score_is_an_error():
    with pytest.raises(DataError, match="2 decisions, none with a weight above 0; there is nothing to score"):
        score(predict([0.9, 0.2], [0, 0], weight=[0, 0]))
