import json
from dataclasses import replace

import numpy as np
import pytest

from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Predictions, compare, user_gains


def made(seed: int, lift: float, n_users: int = 30) -> Predictions:
    """Predictions of a model whose margins are those of the baseline of the same seed plus `lift`."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), 20).astype(np.int32)
    chosen = 1 / (1 + np.exp(-(rng.normal(0.5, 1, len(user)) + lift * (user % 3 != 0))))
    return Predictions(
        chosen=chosen,
        best_other=1 - chosen,
        outcome=np.ones(len(user)),
        user=user,
        source=np.arange(len(user), dtype=np.int32),
        weight=np.ones(len(user)),
    )


def test_gains_are_personal_minus_pooled_and_better_is_above_nought():
    table = compare(
        {"pooled": made(0, 0), "cluster": made(0, 0.5), "other user": made(0, -0.5)}, controls=["other user"]
    )
    assert table["pooled"].gains == {}
    assert table["cluster"].gains["log_prob"].low > 0
    assert table["cluster"].gains["accuracy"].estimate == pytest.approx(
        table["cluster"].scores.accuracy - table["pooled"].scores.accuracy
    )
    assert table["other user"].gains["log_prob"].high < 0
    assert table["other user"].control
    # Two rows are compared with the baseline, one of them a control: Holm has one p-value to adjust.
    assert table["other user"].p_adjusted is None
    assert table["cluster"].p_adjusted == table["cluster"].gains["log_prob"].p_value


def test_p_values_are_adjusted_for_the_number_of_models():
    table = compare({"pooled": made(0, 0), "cluster": made(0, 0.5), "basis": made(1, 0)})
    assert table["cluster"].p_adjusted == pytest.approx(2 * table["cluster"].gains["log_prob"].p_value)


def test_splits_are_joined_and_shown():
    table = compare({"pooled": [made(0, 0), made(1, 0)], "cluster": [made(0, 0.5), made(1, 0.3)]})
    gain = table["cluster"]
    assert table.n_seeds == 2
    assert gain.gain_by_seed["log_prob"].mean() == pytest.approx(gain.gains["log_prob"].estimate)
    assert gain.gains["log_prob"].n_users == 30


def test_the_table_is_plain_json():
    table = compare({"pooled": made(0, 0), "cluster": made(0, 0.5)})
    plain = json.loads(json.dumps(table.as_dict(), allow_nan=False))
    assert [row["name"] for row in plain["rows"]] == ["pooled", "cluster"]
    assert plain["rows"][1]["gains"]["accuracy"]["estimate"] == table["cluster"].gains["accuracy"].estimate


def test_missing_and_unequal_models_are_named():
    with pytest.raises(ConfigError, match='no model "pooled"; known: cluster'):
        compare({"cluster": made(0, 0)})
    with pytest.raises(ConfigError, match='model "cluster" has 2 splits and "pooled" has 1'):
        compare({"pooled": made(0, 0), "cluster": [made(0, 0), made(1, 0)]})
    with pytest.raises(DataError, match="one model predicts 600 decisions and the other 400"):
        compare({"pooled": made(0, 0, 20), "cluster": made(0, 0, 30)})


def test_who_gains_and_who_loses_by_hand():
    baseline = replace(made(0, 0, 2).take(np.array([0, 1, 20, 21])), chosen=np.full(4, 0.5), best_other=np.full(4, 0.5))
    chosen = np.array([0.5 * np.e**0.5, 0.5 * np.e**0.1, 0.25, 0.25])
    gains = user_gains(replace(baseline, chosen=chosen, best_other=1 - chosen), baseline)
    np.testing.assert_allclose(gains.log_prob, [0.3, -np.log(2)])
    np.testing.assert_allclose(gains.accuracy, [0.5, -0.5])
    np.testing.assert_allclose(gains.standard_error, [0.2, 0], atol=1e-12)  # 0.5 and 0.1: sd 0.283, over sqrt(2)
