"""DPL's jailbreak table, from the released outputs by the library's own quantiles."""

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from pluralign.datasets.jailbreak import FILE, KINDS, TRAINED_ON, jailbreak_outputs
from pluralign.errors import DataError
from pluralign.likelihoods import Categorical, MeanVariance

RECIPE = Path(__file__).parents[2] / "recipes" / "dpl_jailbreak"
# Rates in per cent: base, mean-variance by mean and by the 1 % quantile, categorical by mean and by quantile.
PAPER = {
    "helpful": (52.41, 59.36, 54.55, 60.96, 58.29),
    "harmless": (3.74, 1.60, 4.81, 4.28, 4.28),
    "both": (25.13, 30.48, 20.32, 32.09, 13.37),
}


def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dpl_jailbreak", RECIPE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
def test_the_papers_table_to_all_its_digits(data_dir):
    outputs = jailbreak_outputs(data_dir / "dpl_jailbreak")
    normal, atoms = MeanVariance(), Categorical(10)
    for trained_on, printed in PAPER.items():
        base, spread, categorical = (torch.as_tensor(outputs[trained_on, kind]) for kind in KINDS)
        rewards = (
            base[..., 0],
            normal.mean(spread),
            normal.quantile(spread, 0.01),
            atoms.mean(categorical),
            atoms.quantile(categorical, 0.01),
        )
        rates = [100 * float((reward[:, 1] >= reward[:, 0]).double().mean()) for reward in rewards]
        assert [round(rate, 2) for rate in rates] == list(printed)


@pytest.mark.data
def test_the_recipe_meets_its_expectations_and_says_what_chance_could_do(data_dir):
    run, expected = recipe(), yaml.safe_load((RECIPE / "expected.yaml").read_text())
    rows = run.table(data_dir / "dpl_jailbreak", yaml.safe_load((RECIPE / "config.yaml").read_text()))
    assert len(rows) == 9
    assert run.misses(rows, expected) == []
    (best,) = [row for row in rows if (row["trained_on"], row["kind"]) == ("both", "categorical")]
    change = best["quantile minus mean"]
    # 60 unsafe prompts become 25. By hand: n differences of -1, 0 and 1, delete-one jackknife and t.
    assert change["estimate"] == pytest.approx(-35 / 187)
    assert -0.26 < change["low"] < change["high"] < -0.12
    assert best["bootstrap"] == pytest.approx([change["low"], change["high"]], abs=0.01)
    expected["quantile"]["both"]["categorical"] = 0.14
    assert run.misses(rows, expected) == ["both categorical, quantile: 0.1337; the paper has 0.1400"]


def write(folder: Path, models: object) -> Path:
    with gzip.open(folder / FILE, "wt") as file:
        json.dump(models, file)
    return folder


def small() -> dict[str, list[list[list[float]]]]:
    return {
        (on if kind == "base" else f"{on}_{kind}"): [[[0.0] * width] * 2] * 3
        for on in TRAINED_ON
        for kind, width in KINDS.items()
    }


def test_models_are_named_by_training_set_and_kind(tmp_path):
    outputs = jailbreak_outputs(write(tmp_path, small()))
    assert len(outputs) == 9
    assert outputs["both", "categorical"].shape == (3, 2, 10)


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"has no outputs\.json\.gz"):
        jailbreak_outputs(tmp_path)
    models = small()
    del models["both_categorical"]
    with pytest.raises(DataError, match="has no model both_categorical; it has helpful, "):
        jailbreak_outputs(write(tmp_path, models))
    models = small() | {"harmless": [[[0.0, 1.0]] * 2]}
    with pytest.raises(DataError, match=r"harmless has shape \(1, 2, 2\); expected finite numbers, \(prompts, 2, 1\)"):
        jailbreak_outputs(write(tmp_path, models))
    models = small() | {"harmless": [[[0.0], [0.0]], [[0.0]]]}
    with pytest.raises(DataError, match="harmless is not an array of numbers"):
        jailbreak_outputs(write(tmp_path, models))
    (tmp_path / FILE).write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        jailbreak_outputs(tmp_path)
