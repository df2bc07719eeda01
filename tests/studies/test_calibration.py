"""What the verdict says of populations whose truth is known: that there is nothing, noise alone, or two camps."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from pluralign.features import Design, Standardizer
from pluralign.inference.choose_clusters import choose_clusters
from pluralign.populations import simulate

SETTINGS = {"seeds": 1, "clusters": [1, 2, 3], "ranks": [0, 1, 2], "starts": 4, "folds": 3, "unseen": 0.0}


def run_studies(population: dict, seeds: range) -> list[dict]:
    """The verdict of one study for each seed, in two processes."""
    script = Path(__file__).with_name("calibrate.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = []
    for part in (seeds[::2], seeds[1::2]):
        task = json.dumps({"population": population, "settings": SETTINGS, "seeds": list(part)})
        command = [sys.executable, str(script), task]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(line) for output in outputs for line in output.splitlines()]


@pytest.mark.study
@pytest.mark.timeout(3000)
def test_a_planted_null_recommends_pooled_at_least_95_times_of_100():
    population = {"kind": "null", "features": "numeric", "dim": 3, "n_users": 20, "comparisons_per_user": 30}
    found = run_studies(population, range(100))
    counts = Counter(each["rung"] for each in found)
    assert len(found) == 100
    assert counts["pooled"] >= 95, counts


@pytest.mark.study
@pytest.mark.timeout(3000)
def test_reliability_alone_never_recommends_a_model_of_taste():
    population = {"kind": "reliability", "features": "numeric", "dim": 3, "n_users": 40, "comparisons_per_user": 40}
    found = run_studies({**population, "reliability_sd": 1.0, "noise": 0.0}, range(20))
    counts = Counter(each["rung"] for each in found)
    assert len(found) == 20
    assert set(counts) <= {"pooled", "reliability"}, counts
    assert counts["reliability"] >= 10, counts  # the difference is there to be found


@pytest.mark.study
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("features", ["numeric", "text"])
def test_two_camps_under_a_quarter_of_noise_are_found(features):
    for seed in range(4):
        population = simulate(
            kind="clusters",
            n_clusters=2,
            n_users=40,
            comparisons_per_user=200,
            noise=0.25,
            features=features,
            seed=seed,
        )
        raw = population.features.astype(np.float64)
        phi = Standardizer.fit(raw, np.arange(len(raw))).transform(raw)
        choice = choose_clusters(Design.of(population.comparisons, phi), range(1, 6), ridge=1.0, n_starts=8, seed=seed)
        assert choice.n_clusters == 2, seed
        found = choice.fit.model.membership.argmax(1).numpy()
        assert adjusted_rand_score(population.tastes.cluster, found) >= 0.95, seed  # one of 40 misplaced is 0.90
