"""The study from end to end, on populations whose truth is known."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from pluralign.errors import DataError
from pluralign.rewards import LinearReward
from pluralign.studies.ladder import LADDER
from pluralign.studies.pipeline import run_study


@pytest.fixture(scope="module")
def planted(population, quick, tmp_path_factory):
    """Two camps; the study and its folder."""
    out = tmp_path_factory.mktemp("planted")
    settings = quick(rungs=("pooled", "cluster", "basis"), clusters=(2,), ranks=(1,), folds=2)
    return run_study(population(n_users=24, comparisons_per_user=50), settings, out=out), out


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def results(planted):
    return json.loads((planted[1] / "results.json").read_text(), parse_constant=refuse)


def test_two_camps_are_to_be_personalised(planted):
    verdict = planted[0].verdict
    assert verdict.answer == "personalise"
    assert verdict.gain.low > 0
    assert verdict.gain_accuracy.estimate > 0.1
    assert verdict.gain.cluster == "user"
    assert verdict.gain.n_users == 19


def test_nobody_gains_by_what_is_not_theirs(planted):
    table = planted[0].table
    for control in ("cluster, another user's", "cluster, random clusters", "basis, another user's"):
        assert table[control].control
        model = control.partition(",")[0]
        assert table[control].scores.accuracy < table[model].scores.accuracy - 0.05
        assert table[control].gains["log_prob"].estimate < table[model].gains["log_prob"].low


def test_the_results_hold_what_was_found_and_what_it_depends_on(results, planted):
    study = planted[0]
    assert results["settings"] == json.loads(json.dumps(study.settings.to_dict()))
    assert results["encoder"] == {"kind": "attributes"}
    assert results["versions"]["torch"]
    assert results["pluralign"]
    assert results["python"]
    assert results["data"]["decisions"] == 24 * 50
    assert results["data"]["users"] == 24
    assert results["data"]["decisions_per_user"] == {"median": 50, "min": 50, "max": 50}
    assert results["verdict"]["answer"] == "personalise"
    assert {row["name"] for row in results["ladder"]["rows"]} >= {"pooled", "cluster", "basis"}
    assert set(results["unknown_user"]) == {"pooled", "cluster", "basis"}
    assert [table["n_context"] for table in results["unseen_users"]] == [0, 2, 4]
    assert len(results["users"]) == 19
    assert {"user", "decisions", "gain_accuracy", "gain_log_prob"} <= set(results["users"][0])
    (seed,) = results["seeds"]
    assert seed["counts"]["train_users"] == 19
    assert seed["counts"]["unseen_test_users"] == 5
    assert seed["candidate"] in seed["rungs"]
    assert len(seed["cross_validation"]) == 3


def test_each_cluster_is_judged_on_its_own_rows(results, planted):
    rows = results["clusters"]
    assert [row["cluster"] for row in rows] == [1, 2]
    assert sum(row["users"] for row in rows) == 19
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    decisions = sum(row["gain_accuracy"]["n_decisions"] for row in rows)
    assert decisions == len(planted[0].seeds[0].test["pooled"])
    for row in rows:
        gain = row["accuracy_own"]["estimate"] - row["accuracy_pooled"]["estimate"]
        assert row["gain_accuracy"]["estimate"] == pytest.approx(gain)


def test_unseen_users_are_judged_on_the_same_decisions_for_every_m(planted):
    counts = {m: table["pooled"].accuracy.n_decisions for m, table in planted[0].unseen.items()}
    assert list(counts) == [0, 2, 4]
    assert len(set(counts.values())) == 1
    gains = [table["cluster"].gains["log_prob"].estimate for table in planted[0].unseen.values()]
    assert gains[2] > max(gains[0], 0)  # four comparisons tell which camp a user is of


def test_the_models_load_and_score_as_they_did(planted):
    study, out = planted
    features = np.random.default_rng(0).normal(size=(5, 3))
    users = ["user 0", "user 1", "user 23", "nobody", None]
    for name, model in study.models.items():
        loaded = LinearReward.load(out / "models" / name)
        for mine, theirs in zip(
            loaded.score_features(features, users), model.score_features(features, users), strict=True
        ):
            assert np.array_equal(mine, theirs), name


def test_the_same_study_again_gives_the_same_results(population, quick):
    comparisons, settings = population(seed=2), quick(rungs=("pooled", "cluster"), clusters=(2,))
    first, second = (run_study(comparisons, settings).results for _ in range(2))
    assert first == second


def test_every_rung_can_be_asked_for(population, quick):
    found = run_study(population(n_users=8, comparisons_per_user=16), quick(rungs=LADDER, clusters=(2,), ranks=(1,)))
    assert set(found.models) == set(LADDER)


def test_pooled_is_fitted_whatever_was_asked_for(population, quick):
    found = run_study(population(), quick(rungs=("cluster",), clusters=(2,)))
    assert list(found.models) == ["pooled", "cluster"]


def test_few_users_keep_nobody_unseen_and_are_judged_on_sources(population, quick):
    # Fewer than five users are no sample of users.
    found = run_study(population(n_users=4), quick(rungs=("pooled", "cluster"), clusters=(2,)))
    assert found.unseen == {}
    assert found.seeds[0].counts["unseen_test_decisions"] == 0
    assert found.table["cluster"].gains["log_prob"].cluster == "source"
    six = run_study(population(n_users=6), quick(rungs=("pooled", "cluster"), clusters=(2,)))
    assert six.unseen == {}
    assert six.table["cluster"].gains["log_prob"].cluster == "user"


def test_a_single_user_is_studied_without_controls(population, quick):
    found = run_study(population(n_users=1, n_clusters=1, comparisons_per_user=60), quick())
    assert found.verdict.answer == "do not personalise"
    assert not any("another" in row.name for row in found.table.rows)


def test_ties_soft_labels_and_weights_go_through(population, quick, tmp_path):
    comparisons = population()
    rng = np.random.default_rng(0)
    n = len(comparisons)
    soft = replace(comparisons, outcome=rng.choice([1.0, 0.8, 0.5, 0.2], n), weight=rng.uniform(0.5, 2.0, n))
    found = run_study(soft, quick(clusters=(2,)), out=tmp_path)
    accuracy = found.table["pooled"].accuracy
    decided = (found.seeds[0].test["pooled"].outcome != 0.5).sum()
    assert accuracy.n_decisions == decided < len(found.seeds[0].test["pooled"])
    json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)


def test_weights_far_from_one_are_spoken_of(population, quick, caplog):
    table = population(n_users=4)
    run_study(replace(table, weight=np.full(len(table), 100.0)), quick(rungs=("pooled",)))
    assert "A row weighs 100 on average, and counts as so many comparisons" in caplog.text


def test_one_comparison_of_each_user_shows_no_taste(population, quick):
    found = run_study(population(n_users=60, comparisons_per_user=1), quick(unseen=0.0))
    assert found.verdict.answer == "cannot tell yet"
    assert "could have shown a difference of taste" in found.verdict.reason


def test_no_model_of_an_earlier_study_is_left(population, quick, tmp_path):
    for rungs in (("pooled", "cluster"), ("pooled", "basis")):
        run_study(population(), quick(rungs=rungs, clusters=(2,), ranks=(1,)), out=tmp_path)
        assert {each.name for each in (tmp_path / "models").iterdir()} == set(rungs)


def test_choices_among_four_count_as_one_decision_each(population, quick):
    comparisons = population(n_choices=4)
    assert len(comparisons) == 3 * comparisons.n_decisions
    found = run_study(comparisons, quick(rungs=("pooled", "cluster"), clusters=(2,), folds=2))
    counts = found.seeds[0].counts
    parts = ("train", "test", "unseen_adapt", "unseen_test")
    assert sum(counts[f"{part}_decisions"] for part in parts) == comparisons.n_decisions
    assert found.table["cluster"].scores.accuracy > found.table["pooled"].scores.accuracy


def test_users_with_one_comparison_are_kept(population, quick):
    comparisons = population(n_users=16, comparisons_per_user=[1] * 4 + [30] * 12)
    found = run_study(comparisons, quick(clusters=(2,), unseen=0.0))
    assert found.results["data"]["decisions_per_user"]["min"] == 1
    assert len(found.models["cluster"].user_ids) == 16


@pytest.mark.parametrize("split", ["item", "last"])
def test_other_ways_of_holding_out(population, quick, split):
    found = run_study(population(n_prompts=5), quick(rungs=("pooled", "cluster"), clusters=(2,), split=split, test=0.4))
    assert found.seeds[0].counts["test_decisions"] > 0


def test_a_table_from_one_source_cannot_be_split(population, quick):
    with pytest.raises(DataError, match="at least 2 sources, there are 1"):
        run_study(population(n_prompts=1), quick())


def test_a_study_killed_at_any_time_goes_on(tmp_path, population, quick):
    from pluralign.comparisons import save

    save(population(), tmp_path / "data")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pluralign", "study", str(tmp_path / "data"), "--out", str(out)]
    command += ["--rungs", "pooled", "--seeds", "12", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=heed,
        )

    def heed() -> None:
        """Ctrl-C stops it also where the tests run in the background, where shells have it ignored."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = run("--jobs", "2")
    while not (out / "seeds" / "0.json").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # its own processes end with it, and let go of its output
    assert not (out / "results.json").exists()
    kept = (out / "seeds" / "0.json").stat().st_mtime_ns

    before = len(list((out / "seeds").glob("*.json")))
    process = run("--jobs", "2")
    while len(list((out / "seeds").glob("*.json"))) == before:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors

    process = run("--jobs", "1")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert (out / "seeds" / "0.json").stat().st_mtime_ns == kept
    assert json.loads(printed) == json.loads((out / "results.json").read_text())
    assert len(json.loads(printed)["seeds"]) == 12


def test_splits_fitted_side_by_side_are_the_splits_fitted_one_by_one(tmp_path, population, quick):
    comparisons, settings = population(), quick(seeds=2)
    apart = run_study(comparisons, settings, out=tmp_path, jobs=2)
    assert apart.results["ladder"] == run_study(comparisons, settings).results["ladder"]
    assert sorted(each.name for each in (tmp_path / "seeds").glob("*.json")) == ["0.json", "1.json"]


def test_the_table_climbs_the_ladder_each_model_followed_by_its_controls(planted):
    assert [row.name for row in planted[0].table.rows] == [
        "pooled",
        "cluster",
        "cluster, another user's",
        "cluster, random clusters",
        "basis",
        "basis, another user's",
    ]


def test_the_results_say_whether_users_differ_and_what_each_cluster_likes(results):
    differ = results["heterogeneity"]
    assert differ["tests"]["taste"]["p_bootstrap"] == pytest.approx(1 / 20)  # the least that 19 draws can give
    shares = [differ["components"][name]["estimate"] for name in ("taste", "reliability", "chance")]
    assert sum(shares) == pytest.approx(1)
    assert shares[0] > 0.1
    assert differ["power"]["detectable"] > 0
    assert len(differ["similarity"]["user"]) == len(differ["similarity"]["cosine"]) == 24
    assert len(differ["projection"]["two"]) == 24
    assert set(differ["missing"]) == {"covariates"}
    assert [row["cluster"] for row in results["likes"]] == [1, 2]
    assert results["scan"]["n_rows_scanned"] == 24 * 50
    verdict = results["verdict"]
    assert (verdict["kind"], verdict["n_clusters"]) == ("taste", 2)
    assert verdict["losers"]["share"] < 0.5


def test_a_part_that_cannot_be_made_says_why(population, quick):
    found = run_study(population(n_users=1, n_clusters=1, comparisons_per_user=60), quick())
    assert found.diagnosis.tests is None
    assert "users" in found.diagnosis.missing["tests"]
    assert found.diagnosis.similarity is None
    assert found.diagnosis.missing["likes"] == "the users are one cluster"
