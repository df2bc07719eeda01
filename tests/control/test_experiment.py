"""A whole control experiment, small: what is written, that it goes on, and what it refuses."""

import json

import numpy as np
import pytest

from pluralign.control.experiment import run_control
from pluralign.control.results import row_folder
from pluralign.control.settings import ControlSettings, make_task, read_row
from pluralign.errors import CacheError, ConfigError

from .line import Line

SETTINGS = ControlSettings(
    task="line",
    rows=("oracle none", "bayes none", "btl spo", "vpl spo"),
    seeds=2,
    steps=1000,
    sets=300,
    pairs=4,
    users=20,
    targets=4,
    draws=16,
    comparators=50,
    latent={"latent_dim": 2, "guided": True, "steps": 50, "every": 25},
    iql={"steps": 400, "width": 32, "batch": 64, "learning_rate": 3e-3, "discount": 0.9, "target_rate": 0.02},
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out, said = tmp_path_factory.mktemp("control"), []
    return run_control(SETTINGS, out, task=Line(), say=said.append), out, said


def test_who_is_known_is_served_and_one_reward_for_all_goes_nowhere(ran):
    found, _, _ = ran
    rows, methods = {each.row: each for each in found.rows}, {each.method: each for each in found.methods}
    assert rows["oracle none"].success.overall.estimate > 0.9
    assert rows["vpl spo"].success.overall.estimate > 0.8
    assert rows["btl spo"].success.overall.estimate < 0.6
    assert rows["vpl spo"].over_baseline.estimate == pytest.approx(
        rows["vpl spo"].success.overall.estimate - rows["btl spo"].success.overall.estimate
    )
    assert methods["oracle"].accuracy.estimate == 1
    # Users of the line are opposites: any pair but a tie gives a user away, and the oracle's policy serves them.
    assert rows["bayes none"].success.overall.estimate == rows["oracle none"].success.overall.estimate
    assert methods["vpl"].accuracy.estimate > 0.9 > 0.7 > methods["btl"].accuracy.estimate


def test_behaviour_follows_the_comparisons_that_it_was_given(ran):
    swapped = {each.row: each.swapped for each in ran[0].rows}
    assert swapped["vpl spo"]["followed"] > 0.8 > 0.2 > swapped["vpl spo"]["lent"]
    assert swapped["btl spo"] == {}


def test_all_is_kept_as_json_and_pictures(ran):
    found, out, said = ran
    kept = json.loads((out / "control.json").read_text())
    assert kept["settings"]["rows"] == list(SETTINGS.rows)
    assert kept["rows"][3]["success"]["overall"]["estimate"] == found.rows[3].success.overall.estimate
    assert (out / "success.png").read_bytes()[:4] == b"\x89PNG"
    assert (row_folder(out, 1, "vpl spo") / "policy.safetensors").is_file()
    assert not list(out.rglob("training.safetensors"))
    assert sum("success" in each for each in said) == 8


def test_the_same_command_goes_on_from_what_is_there(ran):
    found, out, _ = ran
    path = row_folder(out, 1, "vpl spo") / "result.json"
    before = json.loads(path.read_text())
    path.unlink()
    said: list[str] = []
    again = run_control(SETTINGS, out, task=Line(), say=said.append)
    assert [each for each in said if "success" in each] == [
        f"seed 1: vpl spo: success {np.mean(before['success']):.2f}"
    ]
    after = json.loads(path.read_text())
    assert after["success"] == before["success"]
    assert again.rows[3].success == found.rows[3].success


def test_a_folder_of_other_settings_is_not_mixed_with_these(ran):
    with pytest.raises(CacheError, match="pairs was 4"):
        run_control(ControlSettings(**{**vars(SETTINGS), "pairs": 5}), ran[1], task=Line())


def test_settings_that_are_not_accepted():
    with pytest.raises(ConfigError, match='row "vpl spoo" is not known'):
        read_row("vpl spoo")
    with pytest.raises(ConfigError, match='unknown setting "pair"'):
        ControlSettings.of({"pair": 3})
    with pytest.raises(ConfigError, match="sets is 0"):
        ControlSettings.of({"sets": 0})
    with pytest.raises(ConfigError, match="not accepted"):
        ControlSettings.of({"iql": {"widht": 3}})
    with pytest.raises(ConfigError, match='policy "plan" is for the maze'):
        ControlSettings(task="table-top", policy="plan")
    with pytest.raises(ConfigError, match='unknown task "mase"'):
        make_task(ControlSettings(task="mase"))
    assert ControlSettings.of({"task": "ravens"}).task == "table-top"
    with pytest.raises(ConfigError, match="maze does not take"):
        make_task(ControlSettings(options={"goal": "two"}))
