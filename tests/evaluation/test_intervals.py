import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pluralign.errors import ConfigError, DataError
from pluralign.evaluation import Predictions, combine_seeds, holm, mean_interval, paired_difference
from pluralign.evaluation.intervals import _Sums


def predict(chosen, user, source=None, outcome=None, weight=None) -> Predictions:
    chosen = np.asarray(chosen, dtype=np.float64)
    n = len(chosen)
    return Predictions(
        chosen=chosen,
        best_other=1 - chosen,
        outcome=np.ones(n) if outcome is None else np.asarray(outcome, dtype=np.float64),
        user=np.asarray(user, dtype=np.int32),
        source=np.arange(n, dtype=np.int32) if source is None else np.asarray(source, dtype=np.int32),
        weight=np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64),
    )


def random_pair(seed: int, n: int = 60, n_users: int = 8) -> tuple[Predictions, Predictions]:
    rng = np.random.default_rng(seed)
    user, source, weight = rng.integers(0, n_users, n), rng.integers(0, 12, n), rng.uniform(0.5, 2, n)
    outcome = rng.choice([1.0, 1.0, 0.5, 0.0], n)
    a, b = rng.uniform(0.05, 0.95, (2, n))
    return predict(a, user, source, outcome, weight), predict(b, user, source, outcome, weight)


def test_accuracy_difference_by_hand():
    # User 0 gains 2 of 4, user 1 loses 1 of 1, the tie of user 2 does not count, user 3 is level: (2 - 1) / 6.
    user = [0, 0, 0, 0, 1, 2, 3]
    a = predict([0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9], user, outcome=[1, 1, 1, 1, 1, 0.5, 1])
    b = predict([0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.9], user, outcome=[1, 1, 1, 1, 1, 0.5, 1])
    interval = paired_difference(a, b, "accuracy")
    assert interval.estimate == pytest.approx(1 / 6)
    assert (interval.n_decisions, interval.n_users) == (6, 3)
    assert paired_difference(a, b, "accuracy", average="users").estimate == pytest.approx((0.5 - 1 + 0) / 3)


def test_log_loss_is_in_nats_and_lower_is_better():
    user = [0, 1, 2, 3, 4]
    sure, unsure = predict([0.8] * 5, user), predict([0.4] * 5, user)
    assert paired_difference(sure, unsure, "log_loss").estimate == pytest.approx(-np.log(2))
    assert paired_difference(sure, unsure, "log_prob").estimate == pytest.approx(np.log(2))
    assert paired_difference(sure, unsure, "brier").estimate == pytest.approx(0.04 - 0.36)


def test_equal_users_get_a_t_interval():
    # One decision per user, 6 users: t(5) = 2.570582, and the standard error is sd / sqrt(5) where Student has sqrt(6).
    gain = np.array([0.1, 0.9, 0.3, -0.2, 0.7, 0.0])
    a, b = predict(np.exp(gain - 1), range(6)), predict(np.full(6, np.exp(-1)), range(6))
    interval = paired_difference(a, b, "log_prob")
    half = 2.5705818 * gain.std(ddof=1) / np.sqrt(5)
    assert interval.degrees == pytest.approx(5)
    assert (interval.low, interval.high) == pytest.approx((gain.mean() - half, gain.mean() + half))


def test_the_standard_error_is_that_of_leaving_users_out():
    a, b = random_pair(3)
    left_out = [
        paired_difference(a.take(a.user != u), b.take(b.user != u), "log_loss").estimate for u in np.unique(a.user)
    ]
    interval = paired_difference(a, b, "log_loss")
    assert interval.standard_error == pytest.approx(np.sqrt(((np.array(left_out) - interval.estimate) ** 2).sum()))


def test_degrees_of_freedom_match_the_matrix_they_avoid():
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(7), [1, 2, 3, 5, 8, 13, 40])
    sums = _Sums.of(rng.normal(size=len(code)) + rng.normal(size=7)[code], rng.uniform(0.5, 2, len(code)), code)
    share = sums.size / sums.size.sum()
    error = sums.total - sums.mean * sums.size
    hat = np.eye(7) - share[:, None]  # error = hat @ total

    def expected(variances):
        return np.trace(hat @ np.diag(variances) @ hat.T)

    between = ((error**2).sum() - sums.within * expected(sums.square)) / expected(sums.size**2)
    covariance = hat @ np.diag(sums.within * sums.square + max(between, 0) * sums.size**2) @ hat.T
    matrix = covariance / np.outer(1 - share, 1 - share)
    assert sums.jackknife()[1] == pytest.approx(np.trace(matrix) ** 2 / (matrix**2).sum())


def test_one_user_with_most_decisions_leaves_few_degrees_of_freedom():
    user = np.repeat(np.arange(12), [200] + [5] * 11)
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.2, 0.2, 12)[user]
    a, b = predict(0.5 + noise, user), predict(np.full(len(user), 0.5), user)
    assert paired_difference(a, b).degrees < 4


@given(st.integers(0, 2**32 - 1), st.sampled_from(["user", "source", "both"]), st.sampled_from(["decisions", "users"]))
@settings(max_examples=40, deadline=None)
def test_swapping_the_models_mirrors_the_interval(seed, cluster, average):
    a, b = random_pair(seed)
    one = paired_difference(a, b, cluster=cluster, average=average)
    other = paired_difference(b, a, cluster=cluster, average=average)
    assert (one.estimate, one.low, one.high) == pytest.approx((-other.estimate, -other.high, -other.low))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["user", "source", "both"]))
@settings(max_examples=40, deadline=None)
def test_renaming_users_and_reordering_rows_change_nothing(seed, cluster):
    a, b = random_pair(seed)
    rng = np.random.default_rng(seed)
    order, name = rng.permutation(len(a)), rng.permutation(100)

    def renamed(p: Predictions) -> Predictions:
        return predict(p.chosen, name[p.user], p.source, p.outcome, p.weight).take(order)

    one, other = paired_difference(a, b, cluster=cluster), paired_difference(renamed(a), renamed(b), cluster=cluster)
    assert (one.low, one.high, one.degrees) == pytest.approx((other.low, other.high, other.degrees))


@pytest.mark.parametrize("cluster", ["user", "source", "both"])
@pytest.mark.parametrize("average", ["decisions", "users"])
def test_a_model_against_itself_is_exactly_nought(cluster, average):
    a, _ = random_pair(0)
    interval = paired_difference(a, a, cluster=cluster, average=average)
    assert (interval.estimate, interval.low, interval.high, interval.p_value) == (0, 0, 0, 1)


def test_bootstrap_agrees_with_the_jackknife_for_many_equal_users():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(200), 10)
    gain = rng.normal(0.1, 0.3, 200)[user] + rng.normal(0, 0.3, 2000)
    a, b = predict(np.exp(gain - 3), user), predict(np.full(2000, np.exp(-3)), user)
    jackknife = paired_difference(a, b, "log_prob")
    bootstrap = paired_difference(a, b, "log_prob", method="bootstrap", seed=1)
    width = jackknife.high - jackknife.low
    assert bootstrap.low == pytest.approx(jackknife.low, abs=0.08 * width)
    assert bootstrap.high == pytest.approx(jackknife.high, abs=0.08 * width)
    assert bootstrap == paired_difference(a, b, "log_prob", method="bootstrap", seed=1)


def test_bootstrap_of_a_model_against_itself_is_exactly_nought():
    a, _ = random_pair(0)
    interval = paired_difference(a, a, method="bootstrap")
    assert (interval.low, interval.high) == (0, 0)


def test_few_users_are_clustered_by_source_and_say_so():
    a, b = random_pair(1, n_users=4)
    interval = paired_difference(a, b, cluster="user")
    assert interval.few_users
    assert interval.cluster == "source"
    by_source = paired_difference(a, b, cluster="source")
    assert (interval.low, interval.high) == (by_source.low, by_source.high)
    assert not paired_difference(*random_pair(1, n_users=8)).few_users


def test_a_single_cluster_has_no_interval():
    a, b = predict([0.9, 0.8], [0, 0], [0, 0]), predict([0.5, 0.5], [0, 0], [0, 0])
    interval = paired_difference(a, b, "log_prob")
    assert interval.estimate == pytest.approx((np.log(0.9) + np.log(0.8)) / 2 - np.log(0.5))
    assert np.isnan([interval.low, interval.high, interval.p_value]).all()
    assert interval.as_dict()["low"] is None


def test_clustering_by_both_is_at_least_as_wide():
    a, b = random_pair(5)
    width = {}
    for cluster in ("user", "source", "both"):
        interval = paired_difference(a, b, cluster=cluster)
        width[cluster] = interval.high - interval.low
    assert width["both"] >= max(width["user"], width["source"]) - 1e-12


def test_splits_of_the_same_users_count_as_those_users_once():
    # Copies of one split bring no information: same estimate, same interval, not one sqrt(5) times narrower.
    a, b = random_pair(2, n=200, n_users=20)
    once = paired_difference(a, b)
    five = paired_difference(combine_seeds([a] * 5), combine_seeds([b] * 5))
    assert five.estimate == pytest.approx(once.estimate)
    assert five.standard_error == pytest.approx(once.standard_error)
    assert five.n_users == once.n_users


def test_splits_count_the_same_whatever_their_size():
    large, small = predict([0.9] * 8, [0] * 8), predict([0.1] * 2, [1] * 2)
    assert mean_interval(combine_seeds([large, small]), "accuracy").estimate == pytest.approx(0.5)


def test_empty_splits_are_named():
    with pytest.raises(DataError, match=r"the total weights of the splits are \[2.0, 0.0\]; each must be above 0"):
        combine_seeds([predict([0.9] * 2, [0, 1]), predict([], [])])


def test_holm_by_hand():
    # Sorted .01 .02 .03 times 3, 2, 1, and no smaller than the one before.
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, np.nan, 0.02])), [0.04, 0.03, np.nan, 0.04])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_models_of_different_rows_are_not_compared():
    a, b = predict([0.9, 0.8], [0, 1]), predict([0.9, 0.8], [0, 2])
    with pytest.raises(DataError, match="decision 1: user is 1 for one model and 2 for the other"):
        paired_difference(a, b)
    with pytest.raises(DataError, match="one model predicts 2 decisions and the other 1"):
        paired_difference(a, b.take(np.array([0])))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "auc"}, 'unknown metric "auc"; known: accuracy, brier, log_loss, log_prob, probability'),
        ({"cluster": "post"}, 'unknown cluster "post"; known: both, source, user'),
        ({"average": "median"}, 'unknown average "median"; known: decisions, users'),
        ({"method": "magic"}, 'unknown method "magic"; known: bootstrap, jackknife'),
        ({"level": 95.0}, "level is 95.0; it must be between 0 and 1"),
        ({"cluster": "both", "method": "bootstrap"}, 'the bootstrap has one kind of cluster, not "both"'),
    ],
)
def test_unknown_settings_are_named(settings, message):
    a, b = random_pair(0)
    with pytest.raises(ConfigError) as caught:
        paired_difference(a, b, **settings)
    assert str(caught.value) == message


def sizes_of(kind: str, n_users: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "equal":
        return np.full(n_users, 30)
    return np.maximum(np.exp(rng.normal(3.2, 0.6 if kind == "mild" else 1.0, n_users)), 3).astype(int)


def gains_of(kind: str, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    match kind:
        case "same":
            return np.full(len(size), 0.02)
        case "gaussian":
            return 0.03 + 0.07 * rng.normal(size=len(size))
        case "minority":
            return np.where(rng.random(len(size)) < 0.2, 0.25, 0.0)
        case _:
            return 0.02 + 0.05 * rng.normal(size=len(size)) + 0.04 * (np.log(size) - 3.2)


def drawn(sizes: str, gains: str, n_users: int, rng: np.random.Generator) -> tuple[Predictions, Predictions, float]:
    """Two models whose accuracies differ by a random gain of each user, and the sum of weight times true gain."""
    size = sizes_of(sizes, n_users, rng)
    gain = np.clip(gains_of(gains, size, rng), -0.3, 0.3)
    user = np.repeat(np.arange(n_users), size)
    u = rng.random(len(user))
    better, worse = u < (0.15 + gain / 2)[user], u > 1 - (0.15 - gain / 2)[user]
    a = predict(np.where(worse, 0.1, 0.9), user)
    return a, predict(np.where(better, 0.1, 0.9), user), float((size * gain).sum() / size.sum())


@pytest.mark.study
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("n_users", [20, 40, 200])
def test_coverage(n_users: int):
    rng = np.random.default_rng(n_users)
    for sizes in ("equal", "mild", "wild"):
        for gains in ("same", "gaussian", "minority", "busy"):
            truth = drawn(sizes, gains, 200_000, rng)[2]
            n_draws = 1500
            covered = 0
            for _ in range(n_draws):
                a, b, _ = drawn(sizes, gains, n_users, rng)
                interval = paired_difference(a, b, "accuracy")
                covered += interval.low <= truth <= interval.high
            # 93 to 97 %, widened by two standard errors of a share of 1,500 draws.
            print(n_users, sizes, gains, covered / n_draws)
            assert 0.93 - 0.013 <= covered / n_draws <= 0.97 + 0.013, (sizes, gains, covered / n_draws)


@pytest.mark.study
@pytest.mark.timeout(1800)
def test_coverage_of_two_ways():
    # 40 users times 60 sources, both with a gain of their own; 1,000 draws.
    rng = np.random.default_rng(0)
    covered, by_user = 0, 0
    for _ in range(1000):
        size = sizes_of("mild", 40, rng)
        user = np.repeat(np.arange(40), size)
        source = rng.integers(0, 60, len(user))
        gain = 0.1 * rng.normal(size=40)[user] + 0.1 * rng.normal(size=60)[source] + 0.3 * rng.normal(size=len(user))
        a, b = predict(np.exp(gain - 5), user, source), predict(np.full(len(user), np.exp(-5)), user, source)
        both = paired_difference(a, b, "log_prob", cluster="both")
        one = paired_difference(a, b, "log_prob")
        covered += both.low <= 0 <= both.high
        by_user += one.low <= 0 <= one.high
    print(covered, by_user)
    assert 0.93 <= covered / 1000 <= 0.985
    assert by_user < covered
