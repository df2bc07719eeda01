"""What the commands print and write."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pluralign.comparisons import load, read, save
from pluralign.rewards import LinearReward

FEW = ["--rungs", "pooled,cluster", "--seeds", "1", "--max-clusters", "2", "--starts", "2"]


@pytest.fixture(scope="module")
def fitted(run_once, numbers, tmp_path_factory):
    """Folders of a pooled model and of clusters."""
    folder = tmp_path_factory.mktemp("fitted")
    assert run_once("fit", numbers, "--out", folder / "pooled").code == 0
    arguments = ("--users", "cluster", "--clusters", 2, "--soft", "--starts", 2, "--ridge", 1)
    assert run_once("fit", numbers, *arguments, "--out", folder / "cluster").code == 0
    return folder


@pytest.fixture(scope="module")
def studied(run_once, numbers, tmp_path_factory):
    """What `study` said, and its folder."""
    folder = tmp_path_factory.mktemp("studied")
    return run_once("study", numbers, "--out", folder, *FEW), folder


def test_fit_prints_one_json_object_and_nothing_else(run, numbers):
    done = run("fit", numbers, "--users", "cluster", "--clusters", 2, "--soft", "--starts", 2, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert found["users"] == "cluster"
    assert (found["n_comparisons"], found["n_users"]) == (360, 12)
    assert found["n_parameters"] == 2 * 3 + 1
    assert sum(found["shares"]) == pytest.approx(1)
    assert len(found["shares"]) == 2
    assert -360 * np.log(2) < found["log_likelihood"] < 0


@pytest.mark.parametrize("users", ["pooled", "reliability", "basis", "individual"])
def test_every_user_model_can_be_fitted_and_loaded(run, numbers, users, tmp_path):
    extra = ["--rank", 1] if users == "basis" else []
    done = run("fit", numbers, "--users", users, *extra, "--ridge", 1, "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["users"] == users
    assert found["log_likelihood"] < 0
    assert json.loads((tmp_path / "fit.json").read_text()) == found
    assert LinearReward.load(tmp_path).users.kind == users


def test_fit_says_what_it_fitted(run, numbers):
    done = run("fit", numbers, "--ridge", 1)
    assert "pooled" in done.out
    assert "360 comparisons of 12 users" in done.out


def test_a_path_is_printed_as_it_is_however_long_and_whatever_brackets_it_has(run, numbers, tmp_path):
    out = tmp_path / ("long " * 30) / "[bold]models"
    assert f"saved in {out}\n" in run("fit", numbers, "--ridge", 1, "--out", out).out


def test_study_writes_and_prints_its_verdict(run, studied, numbers):
    done, folder = studied
    assert done.code == 0, done.err
    verdict = json.loads((folder / "results.json").read_text())["verdict"]
    assert f"{verdict['answer'].capitalize()}." in done.out
    assert (folder / "report.html").is_file()
    assert f"models in {folder / 'models'}\n" in done.out
    again = run("study", numbers, "--out", folder, *FEW, "--json")
    assert json.loads(again.out) == json.loads((folder / "results.json").read_text())
    assert json.loads(run("evaluate", folder / "models" / "pooled", numbers, "--json").out)["n_comparisons"] == 360


def test_a_yaml_file_says_what_flags_say_and_flags_win(run, studied, numbers, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("rungs: [pooled, cluster]\nseeds: 1\nclusters: [1, 2]\nstarts: 2\nlevel: 0.9\nseed: 5\n")
    by_file = json.loads(run("study", numbers, "--config", config, "--seed", 0, "--json").out)
    by_flags = json.loads((studied[1] / "results.json").read_text())
    assert by_file["settings"] == by_flags["settings"] | {"level": 0.9}
    assert by_file["seeds"] == by_flags["seeds"]


def test_evaluate_compares_with_the_unknown_user_and_with_pooled(run, fitted, numbers):
    done = run("evaluate", fitted / "cluster", numbers, "--pooled", fitted / "pooled", "--json")
    found = json.loads(done.out)
    assert found["users"] == "cluster"
    assert found["n_comparisons_of_unknown_users"] == 0
    assert found["gain_over_pooled"]["log_prob"]["low"] > 0  # on the rows it was fitted to, in two camps
    assert found["gain_over_unknown_user"]["accuracy"]["estimate"] > 0
    shown = run("evaluate", fitted / "cluster", numbers, "--pooled", fitted / "pooled")
    assert "over the pooled model" in shown.out
    assert "log loss" in shown.out


def test_adapt_places_new_users_by_their_own_rows(run, fitted, numbers, tmp_path):
    table = load(numbers)
    new = replace(table, user_ids=tuple(f"new {name}" for name in table.user_ids))
    save(new, tmp_path / "new")
    done = run("adapt", fitted / "cluster", tmp_path / "new", "--out", tmp_path / "placed", "--json")
    assert json.loads(done.out) == {"users": "cluster", "n_users": 12, "n_comparisons": 360}
    placed = LinearReward.load(tmp_path / "placed")
    assert placed.user_ids == (*table.user_ids, *new.user_ids)
    fit = LinearReward.load(fitted / "cluster")
    # Those it was fitted to stay as they were, and the same rows under new names are placed where the fit has them.
    assert placed.users.membership[:12].numpy() == pytest.approx(fit.users.membership.numpy(), abs=0)
    assert placed.users.membership[12:].numpy() == pytest.approx(fit.users.membership.numpy(), abs=1e-3)
    assert "placed 12 users" in run("adapt", fitted / "cluster", tmp_path / "new").out


def test_adapt_leaves_out_names_without_rows(run, fitted, numbers, tmp_path):
    table = load(numbers)
    new = replace(table, user_ids=(*table.user_ids[1:], "zoe"))
    save(new.take(np.flatnonzero(new.user == 11)), tmp_path / "new")
    done = run("adapt", fitted / "cluster", tmp_path / "new", "--out", tmp_path / "placed")
    assert "placed 1 users from 30 comparisons; saved with the 12 that the model knew in" in done.out
    assert LinearReward.load(tmp_path / "placed").user_ids == (*table.user_ids, "zoe")


@pytest.mark.parametrize("kind", ["pooled", "cluster"])
def test_adapt_refuses_users_it_knows_and_the_models_own_folder(run, fitted, numbers, kind):
    before = {file: file.read_bytes() for file in (fitted / kind).iterdir() if file.is_file()}
    done = run("adapt", fitted / kind, numbers)
    assert done.code == 2
    names = ", ".join(load(numbers).user_ids[:5])
    assert f"error: the model knows {names} and 7 more already; only users who are new to it can be placed" in done.err
    assert "fit again to all rows" in done.err
    done = run("adapt", fitted / kind, numbers, "--out", fitted / "other" / ".." / kind)
    assert done.code == 2
    assert "the folder of the model itself" in done.err
    assert {file: file.read_bytes() for file in (fitted / kind).iterdir() if file.is_file()} == before


def test_encode_keeps_what_it_encoded(run, texts, tmp_path):
    arguments = ("encode", texts, "--encoder", "style", "--cache", tmp_path / "cache", "--json")
    first = json.loads(run(*arguments).out)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")}
    assert first["items"] == len(read(texts).items)
    assert first["dim"] == 28
    assert files
    assert json.loads(run(*arguments).out) == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")} == files


def test_encode_has_a_frozen_default_for_texts_and_for_numbers(run, texts, numbers, tmp_path):
    for data, name, dim in ((texts, "style", 28), (numbers, "attributes", 3)):
        done = run("encode", data, "--cache", tmp_path / "cache", "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert (found["encoder"], found["dim"]) == (name, dim)
    assert "features of style (" in run("encode", texts, "--cache", tmp_path / "cache").out


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_simulated_texts_are_read_back(run, tmp_path, ending):
    out = tmp_path / "new" / f"users.{ending}"
    done = run(
        *("simulate", out, "--users", 6, "--comparisons", 10, "--clusters", 2, "--shares", "0.5,0.5"),
        *("--noise", 0.2, "--seed", 3, "--json"),
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["comparisons"], found["users"]) == (60, 6)
    table = read(out)
    assert len(table) == 60
    assert table.n_users == 6
    truth = json.loads((tmp_path / "new" / "users.truth.json").read_text())
    assert truth["kind"] == "clusters"
    assert truth["noise"] == 0.2
    assert 0.5 < truth["ceiling"] <= 0.8
    assert 0.5 < truth["oracle_accuracy"] <= 1
    assert [user["user"] for user in truth["users"]] == [f"user {i}" for i in range(6)]
    assert sorted(user["cluster"] for user in truth["users"]) == [0, 0, 0, 1, 1, 1]
    assert {len(user["theta"]) for user in truth["users"]} == {len(truth["feature_names"])}
    assert json.loads(run("fit", out, "--encoder", "style", "--ridge", 1, "--json").out)["n_comparisons"] == 60


def test_simulated_numbers_are_a_folder(run, tmp_path):
    options = ("--features", "numeric", "--dim", 2, "--kind", "null", "--users", 4, "--comparisons", 8, "--choices", 3)
    assert run("simulate", tmp_path / "panel", *options).code == 0
    found = json.loads(run("fit", tmp_path / "panel", "--json").out)
    assert (found["n_comparisons"], found["n_rows"], found["n_parameters"]) == (32, 64, 2)


def test_the_same_seed_simulates_the_same_rows(run, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("simulate", tmp_path / f"{name}.jsonl", "--users", 4, "--comparisons", 5, "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.jsonl").read_text() for name in "abc")
    assert a == b != c


def test_options_of_the_simulation_reach_it(run):
    options = ["features=numeric", "dim=2", "kind=null", "n_users=3", "comparisons_per_user=9"]
    done = run("fit", "simulated", *(part for option in options for part in ("--option", option)), "--json")
    assert json.loads(done.out)["n_comparisons"] == 27


def test_columns_under_other_names(run, texts, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(texts.read_text().replace('"user":', '"worker":'))
    assert run("fit", file, "--column", "user=worker", "--encoder", "style", "--ridge", 1, "--json").code == 0


def test_data_sets_are_listed(run):
    found = json.loads(run("datasets", "--json").out)
    assert {"jester", "swiss", "prism"} <= set(found)
    assert "--option" in run("datasets", "jester").out


@pytest.mark.data
def test_two_latent_classes_of_route_choice_have_the_published_likelihood(run, data_dir):
    # R package gmnl and Biogeme print -1552.534 (SOURCE.md of the data set).
    done = run(
        *("fit", "swiss", "--path", data_dir / "swiss_route_choice", "--users", "cluster", "--clusters", 2, "--soft"),
        *("--starts", 20, "--json"),
    )
    assert json.loads(done.out)["log_likelihood"] == pytest.approx(-1552.534, abs=0.01)


def test_a_file_stands_in_place_of_flags_and_flags_win_over_it(run, numbers, texts, tmp_path):
    config = tmp_path / "flags.yaml"
    config.write_text("users: cluster\nclusters: 2\nridge: 1\nstarts: 2\njson: true\n")
    found = json.loads(run("fit", numbers, "--config", config).out)
    assert (found["users"], found["n_clusters"]) == ("cluster", 2)
    found = json.loads(run("fit", numbers, "--config", config, "--clusters", 3).out)
    assert found["n_clusters"] == 3
    config.write_text(f"batch_size: 4\ncache: {tmp_path / 'cache'}\n")  # names as in Python are taken too
    assert run("encode", texts, "--config", config).code == 0
    assert (tmp_path / "cache").is_dir()


@pytest.mark.parametrize("column", ["user=annotator", "[user=annotator]", "{user: annotator}"])
def test_a_flag_that_may_be_repeated_is_one_value_a_list_or_a_mapping_in_a_file(run, texts, tmp_path, column):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(texts.read_text().replace('"user":', '"annotator":'))
    config = tmp_path / "flags.yaml"
    config.write_text(f"ridge: 1\ncolumn: {column}\n")
    done = run("fit", rows, "--config", config, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["n_users"] == json.loads(run("fit", texts, "--ridge", 1, "--json").out)["n_users"]
