"""Recompute DPL's jailbreak table from the released outputs, with the intervals that it lacks."""

import argparse
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.stats import binomtest

from pluralign.datasets.jailbreak import KINDS, SAFE, TRAINED_ON, UNSAFE, jailbreak_outputs
from pluralign.errors import DataError
from pluralign.evaluation import Predictions, paired_difference
from pluralign.likelihoods import Categorical, MeanVariance
from pluralign.types import FloatArray

HERE = Path(__file__).parent
FAMILIES = {"mean_and_variance": MeanVariance(), "categorical": Categorical(10)}


def jailbroken(outputs: FloatArray, kind: str, level: float | None) -> FloatArray:
    """1 for every prompt whose unsafe response has at least the safe one's reward: its mean, or its quantile."""
    numbers = torch.as_tensor(outputs)
    if kind == "base":
        reward = numbers[..., 0]
    else:
        family = FAMILIES[kind]
        reward = family.mean(numbers) if level is None else family.quantile(numbers, level)
    return (reward[:, UNSAFE] >= reward[:, SAFE]).double().numpy()


def as_predictions(broken: FloatArray) -> Predictions:
    """The prompts as decisions, each a cluster of its own, whose accuracy is the jailbreak rate."""
    prompt, one = np.arange(len(broken), dtype=np.int32), np.ones(len(broken))
    return Predictions(chosen=broken, best_other=1 - broken, outcome=one, user=prompt, source=prompt, weight=one)


def table(path: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each model: rates by mean and by quantile with Wilson's intervals, and the paired difference."""
    rows = []
    outputs = jailbreak_outputs(path)
    for trained_on in TRAINED_ON:
        for kind in KINDS:
            row: dict[str, Any] = {"trained_on": trained_on, "kind": kind}
            found = {"mean": jailbroken(outputs[trained_on, kind], kind, None)}
            if kind != "base":
                found["quantile"] = jailbroken(outputs[trained_on, kind], kind, config["level"])
            for name, broken in found.items():
                ends = binomtest(int(broken.sum()), len(broken)).proportion_ci(config["confidence"], method="wilson")
                row[name] = {"rate": float(broken.mean()), "low": float(ends.low), "high": float(ends.high)}
            if kind != "base":
                pair = as_predictions(found["quantile"]), as_predictions(found["mean"])
                settings = {"metric": "accuracy", "level": config["confidence"]}
                row["quantile minus mean"] = paired_difference(*pair, **settings).as_dict()
                boot = {"method": "bootstrap", "n_boot": config["resamples"], "seed": config["seed"]}
                again = paired_difference(*pair, **settings, **boot)
                row["bootstrap"] = [again.low, again.high]
            rows.append(row)
    return rows


def misses(rows: list[dict[str, Any]], expected: dict[str, Any]) -> list[str]:
    """Rates that differ from the paper's."""
    return [
        f"{row['trained_on']} {row['kind']}, {by}: {row[by]['rate']:.4f}; the paper has {paper:.4f}"
        for row in rows
        for by in ("mean", "quantile")
        if by in row
        and abs(row[by]["rate"] - (paper := expected[by][row["trained_on"]][row["kind"]])) > expected["tolerance"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="folder of outputs.json.gz")
    parser.add_argument("--out", type=Path, help="write the table as JSON into this folder (results/ keeps ours)")
    given = parser.parse_args()
    config, expected = (yaml.safe_load((HERE / name).read_text()) for name in ("config.yaml", "expected.yaml"))
    rows = table(given.path, config)
    for row in rows:
        line = f"{row['trained_on']:9}{row['kind']:18}{100 * row['mean']['rate']:6.2f} %"
        if "quantile" in row:
            change = row["quantile minus mean"]
            line += f" -> {100 * row['quantile']['rate']:6.2f} %   difference {100 * change['estimate']:+6.2f} points "
            line += f"({100 * change['low']:+.1f} to {100 * change['high']:+.1f}), p = {change['p_value']:.2g}"
        print(line)
    if given.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
        versions = {"python": platform.python_version(), "torch": version("torch"), "numpy": version("numpy")}
        record = {"config": config, "commit": commit, "versions": versions, "rows": rows}
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{config['seed']}.json").write_text(json.dumps(record, indent=1) + "\n")
    wrong = misses(rows, expected)
    if wrong:
        raise DataError("; ".join(wrong))


if __name__ == "__main__":
    main()
