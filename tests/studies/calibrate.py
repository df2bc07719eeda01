"""Judge many small simulated populations and print a JSON line for each: `python calibrate.py SETTINGS`.

A script, so that the studies run in processes of their own, without the checks of shapes that slow them down. The
models of all rows, which the verdict does not look at, are not fitted.
"""

import json
import sys

import torch

from pluralign.populations import simulate
from pluralign.studies.conclusion import conclude
from pluralign.studies.features import FeatureSource, say_nothing
from pluralign.studies.pipeline import run_seed, tabulate
from pluralign.studies.settings import StudySettings


def main(population: dict, settings: dict, seeds: list[int]) -> None:
    torch.set_num_threads(1)
    for seed in seeds:
        comparisons = simulate(**population, seed=seed).comparisons
        asked = StudySettings.of({**settings, "seed": seed})
        found = [run_seed(comparisons, asked, seed, FeatureSource(comparisons), say_nothing)]
        verdict = conclude(found, tabulate(found, asked)[0], asked)
        shown = {"rung": verdict.rung, "candidate": verdict.candidate, "gain": verdict.gain.estimate}
        print(json.dumps(shown | {"seed": seed, "answer": verdict.answer}), flush=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
