"""What the commands of language models do with a policy for each cluster: train, judge, export."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pluralign.cli.commands import Source
from pluralign.cli.language_settings import arguments, check_tables, find_base, hard_clusters, joined, read_settings
from pluralign.cli.printing import print_json, print_line
from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError
from pluralign.studies.settings import read_yaml

if TYPE_CHECKING:
    from pluralign.policies.evaluation import Evaluation

# Settings of `train_cluster_policies` that `--set` and a YAML file reach, beside those of a policy.
OF_CLUSTERS = (
    "n_clusters",
    "max_rounds",
    "soft",
    "start",
    "features",
    "n_starts",
    "held_out",
    "refit",
    "cache",
    "loading",
    "seed",
)


def train(
    source: Source,
    base: str,
    out: Path,
    config: Path | None,
    flags: Mapping[str, Any],
    more: Mapping[str, object],
    *,
    clusters_from: Path | None,
    fresh: bool,
    json: bool,
) -> None:
    from pluralign.training.cluster_policies import train_cluster_policies
    from pluralign.training.settings import PolicySettings, check_kinds

    comparisons = source.load()
    given: dict[str, Any] = read_settings((read_yaml(config) if config else {}) | dict(more))
    given |= {name: value for name, value in flags.items() if value is not None}
    known = {*OF_CLUSTERS, *(each.name for each in fields(PolicySettings))}
    own = {name: value for name, value in given.items() if name in known}
    check_kinds(train_cluster_policies, own)
    PolicySettings(**{name: value for name, value in own.items() if name not in OF_CLUSTERS})  # tried, as those are
    check_tables(own)
    if clusters_from is not None:
        found = hard_clusters(clusters_from)
        n_clusters = {name: own[name] for name in ("n_clusters",) if name in own}
        own |= joined(n_clusters, {"n_clusters": found["n_clusters"]}, "--clusters-from")
        own["assignment"] = found["assignment"]
    with redirect_stdout(sys.stderr):
        policies = train_cluster_policies(
            comparisons,
            find_base(base, progress=True),
            out=out,
            args=arguments({name: value for name, value in given.items() if name not in known}, out),
            resume=not fresh,
            **own,
        )
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that trained together one speaks
    if json:
        print_json({"model": str(out), **policies.as_dict()})
        return
    sizes = ", ".join(map(str, np.bincount(policies.cluster, minlength=policies.n_clusters).tolist()))
    print_line(
        f"{policies.n_clusters} clusters of {len(policies.user_ids):,} users ({sizes}), an adapter each in "
        f"{out}/cluster-K, everybody's in {out}/generic"
    )


def judge(
    folder: Path, comparisons: Comparisons, *, pooled: Path | None, beta: float | None, cache: Path
) -> Evaluation:
    """Evaluate the policies of clusters; `cache` is where a training left the reference of what it held out."""
    from pluralign.policies.evaluation import evaluate_clusters
    from pluralign.training.cluster_policies import ClusterPolicies

    if pooled is not None:
        raise ConfigError(
            "--pooled is given, but policies of clusters are compared with everybody's, which they hold",
            hint="leave --pooled out",
        )
    policies = ClusterPolicies.load(folder)
    if beta is not None:
        policies = replace(policies, settings=replace(policies.settings, beta=beta))
    return evaluate_clusters(policies, comparisons, cache=cache)


def export(folder: Path, out: Path, users: list[str] | None, *, merge: bool, json: bool) -> None:
    from pluralign.policies.export import SERVED
    from pluralign.policies.export import export_clusters as write
    from pluralign.training.cluster_policies import ClusterPolicies

    if users:
        raise ConfigError(
            "--user is given, but the policies of clusters have no tokens of users",
            hint=f"leave --user out; {SERVED} in the folder says which policy serves whom",
        )
    policies = ClusterPolicies.load(folder)
    folders = write(policies, out, merge=merge)
    if json:
        print_json({"folder": str(out), "policies": {name: str(each) for name, each in folders.items()}})
    else:
        what = "an ordinary checkpoint" if merge else "a LoRA adapter"
        print_line(
            f"{what} for each of {policies.n_clusters} clusters and for everybody in {out}; {SERVED} says which "
            "serves whom"
        )
