"""Unseen users asked question by question within a study, and latent users in its results."""

import json

import numpy as np
import pytest
import torch

from pluralign.errors import DataError
from pluralign.features import Design
from pluralign.inference.latent import fit_latent
from pluralign.inference.latent_elbo import LatentSettings
from pluralign.studies.kept import Kept
from pluralign.studies.ladder import Rung
from pluralign.studies.latent import describe_latent
from pluralign.studies.pipeline import run_study

METHODS = {"random", "uncertainty", "d_optimal", "information_gain"}


@pytest.fixture(scope="module")
def comparisons(population):
    return population(n_users=30, comparisons_per_user=40)


@pytest.fixture(scope="module")
def settings(quick):
    return quick(rungs=("pooled", "cluster"), clusters=(2,), seeds=2, query_rungs=("cluster",), questions=3)


@pytest.fixture(scope="module")
def asked(comparisons, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("asked")
    return run_study(comparisons, settings, out=out), out


def test_curves_are_over_all_splits_and_begin_where_nobody_is_known(asked):
    study, out = asked
    (curve,) = json.loads((out / "results.json").read_text())["query_curves"]
    assert curve["rung"] == "cluster"
    assert set(curve["methods"]) == METHODS
    first = {name: row["accuracy"][0] for name, row in curve["methods"].items()}
    assert all(each == first["random"] for each in first.values())
    assert [len(row["accuracy"]) for row in curve["methods"].values()] == [4] * 4
    # Six unseen users in each split, some of them in both.
    assert 6 <= curve["n_users"] <= 12
    total = sum((seed.asked["cluster/random/0"].outcome != 0.5).sum() for seed in study.seeds)
    assert first["random"]["n_decisions"] == total
    gain = curve["methods"]["information_gain"]["gain_over_random"]
    assert gain[0]["estimate"] == 0
    known = curve["methods"]["information_gain"]["log_prob"]
    assert known[3]["estimate"] > known[0]["estimate"]


def test_the_same_decisions_are_tested_whatever_was_asked(asked):
    for seed in asked[0].seeds:
        first, *others = seed.asked.values()
        assert all((each.user == first.user).all() and (each.source == first.source).all() for each in others)
        assert not set(first.user.tolist()) & set(seed.test["pooled"].user.tolist())


def test_what_was_asked_is_kept(asked, comparisons, settings):
    study, out = asked
    kept = Kept(out, comparisons, settings, {"kind": "attributes"}).read(1)
    assert set(kept.asked) == set(study.seeds[1].asked)
    for name, each in kept.asked.items():
        assert np.array_equal(each.chosen, study.seeds[1].asked[name].chosen)


def test_nobody_is_asked_unless_it_was_asked_for(population, quick):
    found = run_study(population(), quick(rungs=("pooled",)))
    assert found.seeds[0].asked == {}
    assert found.results["query_curves"] == []
    assert found.results["latent"] is None


def test_nobody_can_be_asked_where_nobody_is_unseen(population, quick):
    settings = quick(rungs=("pooled", "cluster"), clusters=(2,), query_rungs=("cluster",))
    found = run_study(population(n_users=4), settings)
    assert found.results["query_curves"] == []


def test_choices_are_refused_before_anything_is_fitted(population, quick):
    settings = quick(rungs=("pooled", "cluster"), clusters=(2,), query_rungs=("cluster",))
    with pytest.raises(DataError, match="query_rungs asks for curves of pairs"):
        run_study(population(n_choices=4), settings)


def rung_of(design: Design, **given: object) -> Rung:
    found = fit_latent(design, LatentSettings(steps=25, hidden=8, **given))  # type: ignore[arg-type]
    return Rung(
        model=found.model,
        log_likelihood=0.0,
        settings={"active_units": found.diagnosis.active_units},
        choice=[],
        described="",
        refit=lambda rows: found.model,
    )


def test_latent_users_are_mapped_by_the_means_of_their_z(population):
    table = population(n_users=30, comparisons_per_user=40)
    design = Design.of(table, torch.as_tensor(table.items.attributes).float())
    cluster = np.arange(30) % 2
    cluster[3] = -1
    for latent_dim in (2, 3):
        rung = rung_of(design, latent_dim=latent_dim, fall_back=False)
        laid = describe_latent(rung, design, reference=cluster, user_ids=table.user_ids, seed=0)["map"]
        assert laid["user"] == table.user_ids
        assert laid["cluster"] == tuple(cluster + 1)
        assert laid["method"] == ("z" if latent_dim == 2 else "t-SNE")
        if latent_dim == 2:
            assert laid["two"] == pytest.approx(rung.model.posterior.center.numpy(), abs=1e-3)


def test_users_at_the_prior_have_no_map(population):
    table = population(n_users=12, n_clusters=1)
    design = Design.of(table, torch.as_tensor(table.items.attributes).float())
    rung = rung_of(design, latent_dim=2)
    found = describe_latent(rung, design, reference=None, user_ids=table.user_ids, seed=0)
    assert found["diagnosis"]["active_units"] == 0
    assert found["map"] is None
    assert describe_latent(None, design, reference=None, user_ids=table.user_ids, seed=0) is None
