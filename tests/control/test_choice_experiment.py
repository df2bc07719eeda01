"""Choices and the didactic example from end to end, small."""

import json
from dataclasses import replace
from shutil import copytree

import pytest

from pluralign.control.choice_experiment import ChoiceSettings, run_choice
from pluralign.control.didactic_experiment import DidacticSettings, run_didactic
from pluralign.errors import CacheError, ConfigError
from pluralign.files import plain

QUICK = {"steps": 150, "every": 50, "users": 64, "hidden": 16}


@pytest.fixture(scope="module")
def tidied(tmp_path_factory):
    out, said = tmp_path_factory.mktemp("tidy"), []
    settings = ChoiceSettings.of(
        {"task": "tidy", "contexts": [1, 6], "seeds": 2, "sets": 300, "users": 100, "latent": QUICK}
    )
    return run_choice(settings, out, say=said.append), out, said


def test_nobody_beats_the_exact_posterior_and_one_reward_for_all_does_not_listen(tidied):
    cells = {(row.method, row.context): row for row in tidied[0].rows}
    for size in (1, 6):
        assert cells["bayes", size].below_bayes is None
        assert cells["vpl", size].below_bayes.estimate > -0.03
        assert cells["btl", size].success.overall.estimate < 0.9
    assert cells["btl", 1].success.overall.estimate == cells["btl", 6].success.overall.estimate
    assert cells["vpl", 6].success.overall.estimate > cells["vpl", 1].success.overall.estimate > 0.7
    # Three objects of five are agreed on; with one answer about any of the five the exact posterior is right in
    # 3/5 + 2/5 (2/5 + 3/5 / 2) of them on average.
    assert cells["bayes", 1].success.overall.estimate == pytest.approx(0.6 + 0.4 * 0.7, abs=0.03)


def test_what_is_written(tidied):
    found, out, said = tidied
    kept = json.loads((out / "control.json").read_text())
    assert [row["method"] for row in kept["rows"]] == ["btl", "vpl", "bayes"] * 2
    assert kept["rows"][1]["success"]["overall"]["estimate"] == found.rows[1].success.overall.estimate
    assert (out / "success.png").stat().st_size > 1000
    assert len(list(out.glob("choices-*.png"))) == 4
    assert len(said) == 4


def test_a_run_goes_on_with_the_seeds_that_are_missing(tidied, tmp_path):
    whole, out, _ = tidied
    copytree(out, tmp_path / "again")
    (tmp_path / "again" / "seed-1" / "result.json").unlink()
    said = []
    again = run_choice(whole.settings, tmp_path / "again", say=said.append)
    assert [words.split(":")[0] for words in said] == ["seed 1"] * 2
    assert plain(again.rows) == plain(whole.rows)
    assert {row.success.overall.cluster for row in again.rows} == {"both"}  # users and trainings
    with pytest.raises(CacheError, match="holds a run of other settings: sets was 300"):
        run_choice(replace(whole.settings, sets=301), tmp_path / "again")


def test_the_minority_gets_what_the_majority_wants():
    settings = ChoiceSettings.of(
        {"task": "tidy", "contexts": [6], "majority": 0.8, "seeds": 1, "sets": 300, "users": 300, "latent": QUICK}
    )
    found = {row.method: row for row in run_choice(settings, say=lambda _: None).rows}
    assert found["btl"].success.kinds["by material"].estimate == 1
    assert found["btl"].success.kinds["by function"].estimate == pytest.approx(0.6)
    assert found["vpl"].success.kinds["by function"].estimate > 0.75


def test_modes_of_the_didactic_example():
    settings = DidacticSettings.of({"seeds": 1, "pairs": 8, "sets": 300, "users": 40, "latent": QUICK})
    found = run_didactic(settings, say=lambda _: None)
    rows = {row.method: row for row in found.rows}
    assert found.majority == pytest.approx(0.669, abs=0.005)
    assert rows["btl"].accuracy.estimate == pytest.approx(found.majority, abs=0.08)
    assert rows["btl"].over_baseline is None
    assert len(rows["vpl"].likeness) == len(rows["vpl"].peak) == 4
    assert len(set(rows["btl"].peak)) == 1  # one reward, whoever asks


def test_settings_that_are_not_accepted():
    with pytest.raises(ConfigError, match='unknown task "tidi"'):
        ChoiceSettings.of({"task": "tidi"})
    with pytest.raises(ConfigError, match=r"contexts are \[4, 2\]"):
        ChoiceSettings.of({"contexts": [4, 2]})
    with pytest.raises(ConfigError, match="rearrange does not take"):
        ChoiceSettings.of({"options": {"agree": 3}})
    with pytest.raises(ConfigError, match="pairs is 0"):
        DidacticSettings.of({"pairs": 0})
    with pytest.raises(ConfigError, match="didactic does not take"):
        run_didactic(DidacticSettings.of({"options": {"mode": 3}}))
