"""A study that was stopped goes on, and takes nothing that is not its own."""

import json

import numpy as np
import pytest

from pluralign.studies import pipeline
from pluralign.studies.kept import Kept
from pluralign.studies.pipeline import run_study


@pytest.fixture(scope="module")
def comparisons(population):
    return population()


@pytest.fixture(scope="module")
def settings(quick):
    return quick(rungs=("pooled",), seeds=2)


@pytest.fixture
def finished(tmp_path, comparisons, settings):
    """A study of two splits whose last step was cut off, and what it would have written."""
    run_study(comparisons, settings, out=tmp_path)
    results = (tmp_path / "results.json").read_text()
    (tmp_path / "results.json").unlink()
    return tmp_path, results


@pytest.fixture
def fitted(monkeypatch):
    """The seeds that are fitted from here on."""
    seeds = []
    run_seed = pipeline.run_seed

    def count(comparisons, settings, seed, source, on_step):
        seeds.append(seed)
        return run_seed(comparisons, settings, seed, source, on_step)

    monkeypatch.setattr(pipeline, "run_seed", count)
    return seeds


def test_finished_splits_are_not_fitted_again(finished, comparisons, settings, fitted):
    out, results = finished
    run_study(comparisons, settings, out=out)
    assert fitted == []
    assert json.loads((out / "results.json").read_text()) == json.loads(results)


def test_what_is_read_is_what_was_written(tmp_path, comparisons, quick):
    settings = quick(rungs=("pooled", "cluster"), clusters=(2,))
    study = run_study(comparisons, settings, out=tmp_path)
    kept = Kept(tmp_path, comparisons, settings, {"kind": "attributes"}).read(0)
    (made,) = study.seeds
    assert kept is not None
    assert kept.candidate == made.candidate
    assert kept.counts == made.counts
    assert np.array_equal(kept.cluster, made.cluster)
    for group in ("test", "unknown", "unseen"):
        mine, theirs = getattr(kept, group), getattr(made, group)
        assert set(mine) == set(theirs)
        assert len(mine)
        for name in mine:
            for field in ("chosen", "best_other", "outcome", "user", "source", "weight"):
                assert np.array_equal(getattr(mine[name], field), getattr(theirs[name], field)), (group, name, field)


def test_asking_for_more_splits_fits_the_new_ones_alone(finished, comparisons, quick, fitted):
    run_study(comparisons, quick(rungs=("pooled",), seeds=3), out=finished[0])
    assert fitted == [2]


def test_other_settings_are_fitted_anew(finished, comparisons, quick, fitted):
    run_study(comparisons, quick(rungs=("pooled",), seeds=2, folds=3), out=finished[0])
    assert fitted == [0, 1]


def test_other_data_are_fitted_anew(finished, comparisons, settings, fitted):
    run_study(comparisons.take(np.arange(len(comparisons) - 1)), settings, out=finished[0])
    assert fitted == [0, 1]


@pytest.mark.parametrize("name", ["0.json", "0.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed", "overwritten"])
def test_a_damaged_split_is_made_again(finished, comparisons, settings, fitted, name, damage):
    out, results = finished
    file = out / "seeds" / name
    whole = file.read_bytes()
    match damage:
        case "truncated":
            file.write_bytes(whole[: len(whole) // 2])
        case "emptied":
            file.write_bytes(b"")
        case "removed":
            file.unlink()
        case "overwritten":
            file.write_bytes(whole[:-8] + b"\0\0\1\0\0\0\0\0" if name.endswith("safetensors") else b"[1, 2]")
    run_study(comparisons, settings, out=out)
    assert fitted == [0]
    assert json.loads((out / "results.json").read_text()) == json.loads(results)


def test_what_a_killed_writer_left_behind_is_not_read(finished, comparisons, settings, fitted):
    out, _ = finished
    file = out / "seeds" / "1.safetensors"
    file.rename(file.with_name("1.safetensors.4242.part"))
    run_study(comparisons, settings, out=out)
    assert fitted == [1]


def test_without_a_folder_nothing_is_kept(comparisons, settings):
    assert Kept(None, comparisons, settings, {}).read(0) is None
