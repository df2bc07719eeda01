import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nct, t

from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Predictions, paired_difference
from pluralign.heterogeneity.power import _power, needed, power_of
from pluralign.populations import simulate


def predict(chosen, user, source=None) -> Predictions:
    chosen = np.asarray(chosen, dtype=np.float64)
    n = len(chosen)
    return Predictions(
        chosen=chosen,
        best_other=1 - chosen,
        outcome=np.ones(n),
        user=np.asarray(user, dtype=np.int32),
        source=np.arange(n, dtype=np.int32) if source is None else np.asarray(source, dtype=np.int32),
        weight=np.ones(n),
    )


def nats(values, user) -> tuple[Predictions, Predictions]:
    """Two models whose log-probabilities differ by the values."""
    return predict(np.exp(np.asarray(values) - 4), user), predict(np.full(len(values), np.exp(-4)), user)


def test_students_power():
    # R: power.t.test(power = 0.8, delta = 0.5, sd = 1, type = "one.sample") has n = 33.36713.
    assert _power(0.5, 1 / 33.36713, 1.0, 32.36713, 0.95) == pytest.approx(0.8, abs=1e-6)
    assert _power(0.0, 1.0, 1.0, 20.0, 0.95) == pytest.approx(0.05, abs=1e-9)


def test_users_needed_by_hand():
    # 34 users by Student's test; the jackknife's standard error is sqrt(n / (n - 1)) larger, which takes one more.
    assert needed(0.5, 10, between=1.0, within=0.0) == 35
    # Twice the variance, half of it within users: two decisions each bring it to 1.5.
    assert needed(0.5, 2, between=1.0, within=1.0) == needed(0.5, 1, between=1.5**0.5, within=0.0)
    assert needed(1e-4, 1, between=1.0, within=0.0) is None


def test_variances_by_hand():
    # Four decisions each, users' means 0 and 2 with deviations of 1 around them: within 4/3 (8 * 1 / 6), and the
    # variance of means, 5 users of 0 and 5 of 2, is 10/9 = between + within / 4.
    user = np.repeat(np.arange(10), 4)
    values = np.repeat([0.0, 2.0], 20) + np.tile([1.0, -1.0], 20)
    found = power_of(*nats(values, user), metric="log_prob")
    assert (found.n_users, found.n_decisions_per_user) == (10, 4)
    assert found.within**2 == pytest.approx(4 / 3)
    assert found.between**2 == pytest.approx(10 / 9 - 1 / 3)
    assert found.standard_error == pytest.approx((10 / 9 / 10) ** 0.5)
    at_detectable = power_of(*nats(values, user), metric="log_prob", gains=[found.detectable])
    assert at_detectable.curve[0].power == pytest.approx(0.8, abs=1e-6)


def test_accuracy_is_in_points():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(40), 25)
    found = power_of(predict(rng.random(1000), user), predict(rng.random(1000), user))
    # Two coins differ on half of the decisions: within is 100 sqrt(1/2), and no user gains more than another.
    assert found.within == pytest.approx(70.7, abs=3)
    assert found.standard_error == pytest.approx(70.7 / 1000**0.5, rel=0.2)
    assert found.needed[0].n_users > found.needed[-1].n_users
    assert "training comparisons are held fixed" in found.note


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_power_rises_with_the_gain_and_the_unit_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 9, 60)
    values = rng.normal(size=60)
    found = power_of(*nats(values, user), metric="log_prob", gains=[0.1, 0.2, 0.5, 1.0])
    power = [at.power for at in found.curve]
    assert power == sorted(power)
    halved = power_of(*nats(values / 2, user), metric="log_prob", gains=[0.05, 0.1, 0.25, 0.5])
    assert [at.power for at in halved.curve] == pytest.approx(power, abs=1e-6)


def rates(n_users: int, per_user, tau: float, gain: float, n_draws: int, seed: int = 0) -> tuple[float, float]:
    """How often the interval excludes 0 over fresh draws of users, and the mean power that each draw estimates."""
    rng = np.random.default_rng(seed)
    seen, power = [], []
    user = np.repeat(np.arange(n_users), np.resize(per_user, n_users))
    for _ in range(n_draws):
        values = gain + tau * rng.normal(size=n_users)[user] + 0.5 * rng.normal(size=len(user))
        pair = nats(values, user)
        found = paired_difference(*pair, "log_prob")
        seen.append(found.low > 0 or found.high < 0)
        power.append(power_of(*pair, metric="log_prob", gains=[gain], wanted=[]).curve[0].power)
    return float(np.mean(seen)), float(np.mean(power))


def test_power_is_the_rate_at_which_a_gain_is_seen():
    simulated, estimated = rates(30, [4, 8, 30], tau=0.1, gain=0.08, n_draws=200)
    assert 0.3 < simulated < 0.9
    assert estimated == pytest.approx(simulated, abs=0.08)  # two standard errors of the simulated rate, and 2 points


def personal_and_pooled(seed: int, n_users: int, per_user) -> tuple[Predictions, Predictions]:
    """Held-out decisions of fresh users, by rewards that are theirs but for noise, and by the mean reward."""
    rng = np.random.default_rng(seed)
    population = simulate(
        n_users=n_users,
        comparisons_per_user=rng.permutation(np.resize(per_user, n_users)).tolist(),
        kind="individual",
        spread=0.9,
        signal=1.5,
        features="numeric",
        seed=seed,
    )
    table, theta = population.comparisons, population.tastes.theta
    x = population.features[table.chosen] - population.features[table.rejected]
    own = theta + 0.1 * rng.normal(size=theta.shape)
    return tuple(  # type: ignore[return-value]
        predict(0.1 + 0.8 / (1 + np.exp(-margin)), table.user, table.source)
        for margin in ((x * own[table.user]).sum(1), x @ theta.mean(0))
    )


@pytest.mark.study
@pytest.mark.usefixtures("whole_runs")
@pytest.mark.parametrize("metric", ["accuracy", "log_prob"])
@pytest.mark.parametrize(("n_users", "per_user"), [(40, [20]), (60, [5, 10, 40]), (150, [10])])
def test_estimated_power_is_within_five_points_of_the_simulated(metric, n_users, per_user):
    pairs = [personal_and_pooled(seed, n_users, per_user) for seed in range(400)]
    unit = 100 if metric == "accuracy" else 1
    found = [paired_difference(*pair, metric) for pair in pairs]
    gain = unit * float(np.mean([each.estimate for each in found]))
    simulated = np.mean([each.low > 0 or each.high < 0 for each in found])
    estimated = np.mean([power_of(*pair, metric=metric, gains=[gain], wanted=[]).curve[0].power for pair in pairs])
    assert estimated == pytest.approx(simulated, abs=0.05)


def test_a_gain_takes_decisions_on_which_the_models_differ():
    # 50 users of 20 decisions; the models differ on one decision of each of two users, once either way.
    user = np.repeat(np.arange(50), 20)
    pooled = np.full(1000, 0.7)
    personal = pooled.copy()
    personal[0] = 0.3
    pooled[-1] = 0.3
    found = power_of(predict(personal, user), predict(pooled, user))
    assert found.standard_error == pytest.approx(0.14, abs=0.01)
    # At a gain of g points the mean square is 100 g at least: at one point a standard error of sqrt(99 / 1000).
    seen = next(row.power for row in found.curve if row.gain == 1.0)
    assert seen == pytest.approx(nct.sf(t.ppf(0.975, 49), 49, 1 / (99 / 1000) ** 0.5), abs=0.06)
    assert found.detectable > 0.7  # not 2.8 standard errors of 0.14


def test_few_users_are_asked_new_sources():
    rng = np.random.default_rng(0)
    user, source = np.arange(90) % 3, np.arange(90) // 3
    found = power_of(predict(rng.random(90), user, source), predict(rng.random(90), user, source))
    assert found.needed == ()
    assert found.note == "3 users are no sample of users: the power is that of new sources for these users"


def test_messages():
    user = np.repeat(np.arange(6), 5)
    one = predict(np.full(30, 0.7), user)
    with pytest.raises(DataError, match="the two models score alike on every held-out decision"):
        power_of(one, one)
    with pytest.raises(DataError, match="1 users and 1 sources have held-out decisions"):
        power_of(predict([0.7], [0]), predict([0.2], [0]))
    with pytest.raises(ConfigError, match='unknown metric "brier"; known: accuracy, log_prob'):
        power_of(one, one, metric="brier")
    with pytest.raises(ConfigError, match=r"power is 80.0; it must be between 0 and 1"):
        power_of(one, one, power=80.0)
    with pytest.raises(ConfigError, match=r"gain is 0.0 and n_decisions 5; they must be above 0 and at least 1"):
        needed(0.0, 5, between=1.0, within=1.0)
