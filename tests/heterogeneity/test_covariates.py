"""Covariates: statistics worked by hand, planted links named, and a level that holds when users are dealt anew."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, kruskal, spearmanr

from pluralign.errors import ConfigError
from pluralign.heterogeneity.covariates import compare_covariates


def only(tests, covariate: str, against: str = "cluster"):
    (found,) = [test for test in tests if test.covariate == covariate and test.against == against]
    return found


def test_statistics_are_those_of_scipy():
    rng = np.random.default_rng(0)
    cluster, age = rng.integers(0, 3, 200), rng.integers(18, 80, 200)
    country = rng.choice(["de", "fr", "it"], 200)
    taste = rng.normal(size=(200, 1))
    tests = compare_covariates(pa.table({"age": age, "country": country}), cluster, taste, n_permutations=19)
    table = np.zeros((3, 3))
    np.add.at(table, (np.unique(country, return_inverse=True)[1], cluster), 1)
    v = np.sqrt(chi2_contingency(table, correction=False).statistic / (200 * 2))
    assert only(tests, "country").statistic == pytest.approx(v)
    # With ties corrected, Kruskal and Wallis's H is (n - 1) times the ranks' eta squared.
    h = kruskal(*(age[cluster == k] for k in range(3))).statistic
    assert only(tests, "age").statistic == pytest.approx(h / 199)
    rho = spearmanr(age, taste[:, 0]).statistic
    assert only(tests, "age", "taste direction 1").statistic == pytest.approx(rho)


def test_a_planted_link_is_said_in_words():
    # 40 users over 50 of whom 30 in the second cluster; 60 others of whom 15.
    age = np.repeat([60, 30], [40, 60]) + np.tile(np.arange(10), 10)
    cluster = np.concatenate([np.repeat([1, 0], [30, 10]), np.repeat([1, 0], [15, 45])])
    users = pa.table({"age": age, "expert": np.where(cluster == 1, "yes", "no")})
    tests = compare_covariates(users, cluster, cluster[:, None] + 0.01 * age[:, None])
    assert tests[0].p_value == 0.0005
    assert only(tests, "age").kind == "number"
    # Over the median, 38: the 40, of whom 30, and six aged 39, of whom 1; 31 of 46 and 14 of 54.
    assert only(tests, "age").detail == "users with age over 38: 67 % in cluster 2, others 26 %"
    assert only(tests, "expert").statistic == pytest.approx(1)
    assert only(tests, "expert").detail == "users with expert no: 100 % in cluster 1, others 0 %"
    assert only(tests, "expert", "taste direction 1").detail.startswith("users with expert")
    # Four tests: Holm multiplies the smallest by 4.
    assert tests[0].p_adjusted == pytest.approx(0.002)


def test_missing_values_and_rare_categories():
    n = 60
    users = pa.table(
        {
            "id": [f"u{i}" for i in range(n)],
            "constant": ["same"] * n,
            "gaps": [None if i % 3 == 0 else "" if i % 3 == 1 else "ab"[i % 2] for i in range(n)],
            "money": [float("nan") if i < 20 else float(i) for i in range(n)],
            "towns": ["rome"] * 30 + ["oslo"] * 20 + [f"village {i}" for i in range(10)],
        }
    )
    tests = compare_covariates(users, np.arange(n) % 2, n_permutations=19)
    assert {test.covariate for test in tests} == {"gaps", "money", "towns"}
    assert only(tests, "gaps").n_users == 20
    assert only(tests, "money").n_users == 40
    assert only(tests, "towns").n_users == 60
    assert "village" not in only(tests, "towns").detail


def test_users_without_a_cluster_or_a_taste_are_left_out():
    age = np.arange(40)
    cluster = np.where(age < 10, -1, age % 2)
    taste = np.where(age < 30, age, np.nan)[:, None].astype(float)
    tests = compare_covariates(pa.table({"age": age}), cluster, taste, n_permutations=19)
    assert only(tests, "age").n_users == 30
    along = only(tests, "age", "taste direction 1")
    assert along.n_users == 30
    assert along.statistic == pytest.approx(1)
    assert "further up direction 1" in along.detail


def test_numbers_of_few_values_are_categories_unless_said_otherwise():
    users = pa.table({"level": np.arange(40) % 4})
    cluster = np.arange(40) % 2
    assert compare_covariates(users, cluster, n_permutations=9)[0].kind == "category"
    assert compare_covariates(users, cluster, kinds={"level": "number"}, n_permutations=9)[0].kind == "number"


@given(st.integers(0, 2**32 - 1))
def test_renaming_clusters_and_categories_changes_no_statistic(seed):
    rng = np.random.default_rng(seed)
    cluster, kind, value = rng.integers(0, 3, 60), rng.integers(0, 4, 60), rng.normal(size=60)
    taste = rng.normal(size=(60, 1))
    first = compare_covariates(
        pa.table({"kind": [f"k{i}" for i in kind], "value": value}), cluster, taste, n_permutations=1
    )
    order, names = rng.permutation(3), rng.permutation(4)
    second = compare_covariates(
        pa.table({"kind": [f"k{i}" for i in names[kind]], "value": 3 * value + 7}),
        order[cluster],
        -taste,
        n_permutations=1,
    )
    a = {(test.covariate, test.against): abs(test.statistic) for test in first}
    b = {(test.covariate, test.against): abs(test.statistic) for test in second}
    assert a == pytest.approx(b)


def test_the_level_holds_when_users_are_dealt_anew():
    rng = np.random.default_rng(0)
    n, rejected, families = 40, [], []
    cluster, taste = np.repeat([0, 1, 2], [25, 10, 5]), rng.standard_t(3, size=(n, 1))
    users = pa.table({"age": rng.integers(18, 70, n), "place": rng.choice(list("aaab"), n)})
    for seed in range(100):
        dealt = users.take(pa.array(rng.permutation(n)))
        tests = compare_covariates(dealt, cluster, taste, n_permutations=99, seed=seed)
        rejected += [test.p_value <= 0.05 for test in tests]
        families.append(min(test.p_adjusted for test in tests) <= 0.05)
    # 400 tests, some of them dependent: 5 % has a standard error of about 1.2 %.
    assert 0.02 < np.mean(rejected) < 0.08
    assert np.mean(families) < 0.1


def test_what_cannot_be_asked_is_said():
    users = pa.table({"age": [1.0, 2.0], "place": ["a", "b"]})
    with pytest.raises(ConfigError, match="clusters are of 3 users; the table has 2"):
        compare_covariates(users, np.zeros(3, dtype=np.int64))
    with pytest.raises(ConfigError, match='no covariate "size"; known: age, place'):
        compare_covariates(users, np.array([0, 1]), kinds={"size": "number"})
    with pytest.raises(ConfigError, match='covariate "place" is string, which is no number'):
        compare_covariates(users, np.array([0, 1]), kinds={"place": "number"})
    with pytest.raises(ConfigError, match="n_permutations is 0; it must be at least 1"):
        compare_covariates(users, np.array([0, 1]), n_permutations=0)
