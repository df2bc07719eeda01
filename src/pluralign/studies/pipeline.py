"""The study: split, encode, fit the ladder, choose inside the training rows, predict what was held out, decide.

Each seed is one split with its own fits. What it predicts is written to OUT/seeds as soon as it is there, so that a
study that was stopped goes on with the next seed. Figures are over all seeds; a user is one cluster of an interval,
however many seeds it was tested in.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
import torch

from pluralign.comparisons import Comparisons
from pluralign.evaluation import (
    Predictions,
    Table,
    compare,
    draw_contexts,
    feasible_sizes,
    other_users,
    shuffle_membership,
)
from pluralign.features import Design
from pluralign.files import write_json
from pluralign.inference.adapt import adapt
from pluralign.inference.heads import fit_heads
from pluralign.rewards import LinearReward
from pluralign.studies.asking import ask_unseen, check_askable, query_curves
from pluralign.studies.conclusion import best_of_taste, conclude
from pluralign.studies.diagnosis import Diagnosis, diagnose
from pluralign.studies.features import FeatureSource, Step, say_nothing
from pluralign.studies.groups import cluster_gains
from pluralign.studies.kept import Kept, SeedResult
from pluralign.studies.ladder import LADDER, Rung, choose_rung, fit_ladder
from pluralign.studies.latent import describe_latent
from pluralign.studies.results import summarise
from pluralign.studies.settings import StudySettings
from pluralign.studies.splitting import make_folds, split_study
from pluralign.studies.verdict import SHARED, Verdict
from pluralign.types import IntArray
from pluralign.users import UNKNOWN, Clusters, Pooled

logger = logging.getLogger(__name__)

OTHER = "another user's"
RANDOM = "random clusters"


@dataclass(frozen=True, eq=False, kw_only=True)
class Study:
    """A finished study.

    Attributes:
        comparisons: The data.
        settings: What was asked.
        seeds: What each split showed.
        table: Every rung and control on the same held-out decisions of seen users.
        unseen: Tables of unseen users by number m of their own comparisons.
        verdict: What to train.
        diagnosis: Whether and how users differ, and whether the data can be trusted.
        models: Every rung fitted to all rows, its settings chosen among them.
        results: All of it as plain values: `results.json`.
    """

    comparisons: Comparisons
    settings: StudySettings
    seeds: tuple[SeedResult, ...]
    table: Table
    unseen: dict[int, Table]
    verdict: Verdict
    diagnosis: Diagnosis
    models: dict[str, LinearReward]
    results: dict[str, object]


def run_study(
    comparisons: Comparisons,
    settings: StudySettings | None = None,
    *,
    out: Path | None = None,
    cache_dir: Path | None = None,
    device: str = "cpu",
    jobs: int = 1,
    on_step: Step = say_nothing,
) -> Study:
    """Run the whole study.

    Args:
        comparisons: The data.
        settings: Defaults where None.
        out: Folder for results, models and what is needed to go on after a stop; None writes nothing.
        cache_dir: Feature cache; None means OUT/cache, or no cache without `out`.
        device: Where encoders and fits run.
        jobs: Splits fitted at a time, each in a process of its own with one thread. More than one needs the usual
            `if __name__ == "__main__":` in a script.
        on_step: Called with a few words at the beginning of each step.

    Raises:
        DataError: Too few sources, users or rows for the splits that were asked for.
    """
    settings = settings or StudySettings()
    if cache_dir is None and out is not None:
        cache_dir = out / "cache"
    if comparisons.weight is not None and not 0.5 <= (mean := comparisons.weight.mean()) <= 2:
        logger.warning("A row weighs %.3g on average, and counts as so many comparisons; divide if it should not", mean)
    source = FeatureSource(comparisons, settings.encoder, cache_dir=cache_dir, device=device, on_step=on_step)
    kept = Kept(out, comparisons, settings, source.identity)
    numbers = range(settings.seed, settings.seed + settings.seeds)
    found = {seed: result for seed in numbers if (result := kept.read(seed)) is not None}
    missing = [seed for seed in numbers if seed not in found]
    if jobs > 1 and missing:
        source.prepare()
        with _processes(min(jobs, len(missing))) as pool:
            futures = [pool.submit(_run_apart, source, settings, seed, kept) for seed in missing]
            on_step("fit the ladder to all rows")
            whole = fit_whole(comparisons, settings, source)
            for done, future in enumerate(as_completed(futures)):
                on_step(f"{done} of {len(missing)} splits are done")
                found[future.result().seed] = future.result()
    else:
        for seed in missing:
            found[seed] = run_seed(comparisons, settings, seed, source, on_step)
            kept.write(found[seed])
        on_step("fit the ladder to all rows")
        whole = fit_whole(comparisons, settings, source)
    seeds = [found[seed] for seed in numbers]
    table, unseen = tabulate(seeds, settings)
    diagnosis = diagnose(
        comparisons,
        settings,
        whole.design,
        whole.rungs,
        reference=whole.cluster,
        seeds=seeds,
        personal=best_of_taste(seeds),
        cache_dir=cache_dir,
        on_step=on_step,
    )
    described = {name: rung.described for name, rung in whole.rungs.items()}
    gains = [] if whole.cluster is None else cluster_gains(seeds, whole.cluster, level=settings.level)
    verdict = conclude(
        seeds, table, settings, described=described, reference=whole.cluster, gains=gains, diagnosis=diagnosis
    )
    latent = describe_latent(
        whole.rungs.get("latent"),
        whole.design,
        reference=whole.cluster,
        user_ids=comparisons.user_ids,
        seed=settings.seed,
    )
    results = summarise(
        comparisons,
        settings,
        source.identity,
        seeds,
        table,
        unseen,
        verdict,
        diagnosis,
        reference=whole.cluster,
        gains=gains,
        latent=latent,
        curves=query_curves(seeds, settings),
    )
    if out is not None:
        for name in LADDER:
            if name not in whole.models:
                shutil.rmtree(out / "models" / name, ignore_errors=True)  # of a study that stood there before
        for name, model in whole.models.items():
            model.save(out / "models" / name)
        write_json(out / "results.json", results)
    return Study(
        comparisons=comparisons,
        settings=settings,
        seeds=tuple(seeds),
        table=table,
        unseen=unseen,
        verdict=verdict,
        diagnosis=diagnosis,
        models=whole.models,
        results=results,
    )


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes with one thread each; this process keeps to one thread as well meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin_apart)
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:  # a split takes minutes: who stops a study does not wait for it
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _begin_apart() -> None:
    """One thread; Ctrl-C is the parent's to answer, and no process outlives a parent that was killed."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def _run_apart(source: FeatureSource, settings: StudySettings, seed: int, kept: Kept) -> SeedResult:
    """`run_seed` in another process, which keeps the result itself: it is not lost if this one is stopped."""
    result = run_seed(source.comparisons, settings, seed, source, say_nothing)
    kept.write(result)
    return result


def run_seed(
    comparisons: Comparisons, settings: StudySettings, seed: int, source: FeatureSource, on_step: Step
) -> SeedResult:
    """Split, fit and predict once."""
    split = split_study(comparisons, settings, seed)
    train = comparisons.take(split.train)
    features = source.of(train)[2]
    designs = {
        name: Design.of(comparisons.take(getattr(split, name)), features)
        for name in ("train", "test", "unseen_adapt", "unseen_test")
    }
    design, test = designs["train"], designs["test"]
    check_askable(design, settings)
    folds = make_folds(design, settings, seed)
    on_step(f"split {seed + 1 - settings.seed} of {settings.seeds}: fit the ladder")
    rungs = fit_ladder(design, folds, settings.ladder(seed), settings.rungs)
    on_step(f"split {seed + 1 - settings.seed} of {settings.seeds}: choose a rung")
    candidate, evidence = choose_rung(design, folds, rungs)

    known = np.unique(train.user)
    other = torch.as_tensor(other_users(known, comparisons.n_users, seed=seed) if len(known) > 1 else known)
    predicted, unknown = {}, {}
    for name, rung in rungs.items():
        predicted[name] = rung.model.predict(test)
        unknown[name] = rung.model.predict(test, torch.full_like(test.user, UNKNOWN))
        if name not in SHARED and len(known) > 1:
            predicted[f"{name}, {OTHER}"] = rung.model.predict(test, other.long()[test.user])
        if isinstance(rung.model, Clusters):
            at_random = _deal_out(rung.model, design, rungs["pooled"], known, seed)
            predicted[f"{name}, {RANDOM}"] = at_random.predict(test)
    clusters = rungs["cluster"].model if "cluster" in rungs else None
    asked: dict[str, Predictions] = {}
    if settings.query_rungs:
        on_step(f"split {seed + 1 - settings.seed} of {settings.seeds}: ask unseen users")
        unseen = Design.of(comparisons.take(np.concatenate([split.unseen_adapt, split.unseen_test])), features)
        asked = ask_unseen(rungs, unseen, designs["unseen_adapt"].n_decisions, settings, seed)
    return SeedResult(
        seed=seed,
        candidate=candidate,
        evidence=[asdict(each) for each in evidence],
        rungs={
            name: {"settings": rung.settings, "choice": rung.choice, "described": rung.described}
            for name, rung in rungs.items()
        },
        test=predicted,
        unknown=unknown,
        unseen=_place_unseen(rungs, designs["unseen_adapt"], designs["unseen_test"], settings, seed),
        asked=asked,
        cluster=_cluster_of(clusters, known) if isinstance(clusters, Clusters) else np.empty(0, dtype=np.int32),
        counts={
            f"{name}_{what}": count
            for name, part in designs.items()
            for what, count in (
                ("decisions", part.n_decisions),
                ("users", len(part.user.unique())),
                ("sources", len(part.source.unique())),
            )
        },
    )


def _deal_out(model: Clusters, design: Design, pooled: Rung, known: np.ndarray, seed: int) -> Clusters:
    """Clusters of the same sizes whose members were drawn at random, each with a reward fitted to them."""
    shuffled = shuffle_membership(model.membership.numpy(force=True), seed=seed, known=known)
    membership = torch.as_tensor(shuffled, device=design.features.device)
    assert isinstance(pooled.model, Pooled)
    fit = fit_heads(
        design,
        ridge=model.shares.new_full((model.n_clusters,), pooled.settings["ridge"]),
        group_weight=membership,
        center=pooled.model.theta.expand(model.n_clusters, -1),
    )
    return replace(model, theta=fit.theta, membership=membership)


def _cluster_of(model: Clusters, known: np.ndarray) -> np.ndarray:
    cluster = np.full(model.n_users, -1, dtype=np.int32)
    cluster[known] = model.membership.argmax(1).numpy(force=True)[known]
    return cluster


def _place_unseen(
    rungs: Mapping[str, Rung], pool: Design, test: Design, settings: StudySettings, seed: int
) -> dict[str, Predictions]:
    """Place unseen users from m of their own decisions on training sources; predict theirs on test sources.

    All m are scored on the same decisions, of the users who have as many as the largest m.
    """
    user = pool.user.numpy(force=True)
    sizes = feasible_sizes(user, sizes=settings.contexts, min_test=0)
    if not sizes:
        return {}
    count = torch.bincount(pool.user, minlength=pool.n_users)
    enough = (count >= max(sizes[-1], 1))[test.user]
    if not bool(enough.any()):
        return {}
    test = test.take(enough)
    predicted = {}
    for m, context in zip(sizes, draw_contexts(user, sizes=sizes, seed=seed), strict=True):
        keep = torch.zeros(pool.n_decisions, dtype=torch.bool, device=pool.user.device)
        keep[torch.as_tensor(context, dtype=torch.int64)] = True
        own = pool.take(keep)
        for name, rung in rungs.items():
            predicted[f"{name}/{m}"] = adapt(rung.model, own).predict(test)
    return predicted


def tabulate(seeds: list[SeedResult], settings: StudySettings) -> tuple[Table, dict[int, Table]]:
    """The table of seen users, and one for each m of unseen users."""

    def controls(names: Mapping[str, object]) -> list[str]:
        return [name for name in names if name.endswith((OTHER, RANDOM))]

    names = [name for name in seeds[0].test if all(name in seed.test for seed in seeds)]
    names.sort(key=lambda name: (LADDER.index(name.partition(",")[0]), name != name.partition(",")[0]))
    joined = {name: [seed.test[name] for seed in seeds] for name in names}
    table = compare(joined, controls=controls(joined), level=settings.level)
    shared = set.intersection(*(set(seed.unseen) for seed in seeds))
    sizes = sorted({int(key.split("/")[1]) for key in shared})
    unseen = {
        m: compare(
            {name: [seed.unseen[f"{name}/{m}"] for seed in seeds] for name in LADDER if f"{name}/{m}" in shared},
            level=settings.level,
        )
        for m in sizes
    }
    return table, unseen


@dataclass(frozen=True, eq=False, kw_only=True)
class Whole:
    """Every rung fitted to all rows, its settings chosen anew among all of them.

    Attributes:
        design: All rows.
        rungs: By name.
        models: The same rungs, ready to score texts.
    """

    design: Design
    rungs: dict[str, Rung]
    models: dict[str, LinearReward]

    @property
    def cluster(self) -> IntArray | None:
        """Most likely cluster of every user who has a row, -1 for others, (users,); None without the rung."""
        model = self.rungs["cluster"].model if "cluster" in self.rungs else None
        return _cluster_of(model, self.design.user.unique().numpy(force=True)) if isinstance(model, Clusters) else None


def fit_whole(comparisons: Comparisons, settings: StudySettings, source: FeatureSource) -> Whole:
    """Fit every rung to all rows."""
    encoder, standardizer, features = source.of(comparisons)
    design = Design.of(comparisons, features)
    rungs = fit_ladder(
        design, make_folds(design, settings, settings.seed), settings.ladder(settings.seed), settings.rungs
    )
    models = {
        name: LinearReward(users=rung.model, user_ids=comparisons.user_ids, encoder=encoder, standardizer=standardizer)
        for name, rung in rungs.items()
    }
    return Whole(design=design, rungs=rungs, models=models)
