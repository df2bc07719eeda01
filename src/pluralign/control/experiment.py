"""From comparisons to policies that do what their user wants, from end to end, for every method alike.

For each seed: data are driven without rewards; thousands of simulated users compare states of it; every method fits a
reward to the same comparisons; the data are relabelled by it and an offline policy is learnt, or, in the maze, a plan
is made on the reward itself (`policy` "plan", the quick tier); and users whom no method has met, placed by their own
comparisons, are served from the same starts. Accuracy is on other comparisons of those users. All of it is kept under
one folder as it is made, and a run that was stopped goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pluralign.control import drawing
from pluralign.control.active import active_curve
from pluralign.control.evaluation import Acts, Featured, success_rates, swap_users, with_features
from pluralign.control.figures import draw_control, map_of
from pluralign.control.iql import OnStep, Policy, train_iql
from pluralign.control.noise import noise_curve
from pluralign.control.preferences import Sets, draw_sets
from pluralign.control.results import BASELINE, ORACLE, PERSONAL, ControlResult, claim, gather, row_folder, seed_folder
from pluralign.control.rewards import Personal, Reward, Scaling, batch_norm_denominators, fit_reward, relabel
from pluralign.control.settings import ControlSettings, make_task, read_row
from pluralign.control.tasks import Offline, Steered
from pluralign.files import write_json

Say = Callable[[str], None]
_ASKED = 5000  # states that questions may be about
_SHOWN = 6  # test users of each of two kinds whose paths are kept for pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class Met:
    """What a seed's methods are fitted to and tested on.

    Attributes:
        offline: The data.
        training: Comparisons of users to fit to.
        context: Of test users, to place them by.
        fresh: Other comparisons of the same users.
    """

    offline: Offline
    training: Sets
    context: Sets
    fresh: Sets

    @classmethod
    def draw(cls, task: Steered, settings: ControlSettings, seed: int) -> Met:
        """Drive, and let users compare states that were driven through."""
        offline = task.offline(settings.steps, seed=seed)
        kind = np.arange(settings.users) % len(task.users)
        seeds = np.random.SeedSequence(seed).generate_state(3).tolist()

        def sets(n_users: int, n_pairs: int, kind: np.ndarray | None, seed: int) -> Sets:
            return draw_sets(task, offline.after, n_users=n_users, n_pairs=n_pairs, kind=kind, seed=seed)

        return cls(
            offline=offline,
            training=sets(settings.sets, settings.pairs, None, seeds[0]),
            context=sets(settings.users, settings.pairs, kind, seeds[1]),
            fresh=sets(settings.users, settings.targets, kind, seeds[2]),
        )


def run_control(
    settings: ControlSettings,
    out: Path,
    *,
    task: Steered | None = None,
    say: Say = print,
    on_step: OnStep | None = None,
) -> ControlResult:
    """Run a steered task from end to end, going on from what `out` holds.

    Args:
        settings: Of everything.
        out: Folder of results: `control.json`, figures, and a folder per seed and row with its policy.
        task: A task of your own; None means that of the settings.
        say: Is told what has been done.
        on_step: Called as `train_iql` calls it.

    Raises:
        ConfigError: A setting is not accepted.
        CacheError: The folder holds a run of other settings.
    """
    task = make_task(settings) if task is None else task
    claim(settings, out, grows=("rows", "seeds", "curves"))
    for seed in settings.numbers:
        _run_seed(task, settings, seed, out, say, on_step)
    result = gather(task.users, settings, out)
    write_json(out / "control.json", result)
    draw_control(task, result, out)
    return result


def _run_seed(task: Steered, settings: ControlSettings, seed: int, out: Path, say: Say, on_step: OnStep | None) -> None:
    """Fit every reward and learn every policy of a seed that is not there yet."""
    missing = [row for row in settings.rows if not (row_folder(out, seed, row) / "result.json").is_file()]
    methods: list[str] = list(dict.fromkeys(read_row(row)[0] for row in missing))
    curves = settings.curves and not (seed_folder(out, seed) / "noise.json").is_file()
    if curves and PERSONAL not in methods:
        methods.append(PERSONAL)
    if not methods:
        return
    met = Met.draw(task, settings, seed)
    say(f"seed {seed}: {len(met.offline.episode):,} steps, {settings.sets:,} users who compare {settings.pairs} pairs")
    for method in methods:
        began = time.process_time()
        fitted = fit_reward(
            method, task, met.training, settings=settings.latent_settings(seed), pool=settings.pool, seed=seed
        )
        seconds = time.process_time() - began
        z = fitted.place(met.context)
        predicted = fitted.predict(met.fresh, z)
        words = fitted.words if isinstance(fitted, Personal) else ""
        kept = {"words": words, "seconds": seconds, "predicted": asdict(predicted), "maps": _maps(task, fitted, z)}
        write_json(seed_folder(out, seed) / f"{method}.json", kept)
        say(
            f"seed {seed}: {method}: {float(np.nanmean(predicted.correct)):.3f} of pairs right"
            + (words and f"; {words}")
        )
        for row in missing:
            if read_row(row)[0] == method:
                found = _run_row(task, settings, seed, met, fitted, z, row, row_folder(out, seed, row), on_step)
                say(f"seed {seed}: {row}: success {float(np.mean(found['success'])):.2f}")
        if curves and isinstance(fitted, Personal):
            _curves(task, settings, seed, met, fitted, out)
            say(f"seed {seed}: curves of questions and of wrong answers")


def _curves(task: Steered, settings: ControlSettings, seed: int, met: Met, fitted: Personal, out: Path) -> None:
    """What asking well saves, and what wrong answers do, for new users; both with figures."""
    folder = seed_folder(out, seed)
    row = next((row for row in settings.rows if read_row(row) == (PERSONAL, "spo")), None)
    acts = None
    if row is not None and settings.policy == "iql":
        acts = _acts(task, settings, Policy.load(row_folder(out, seed, row)))

    def success(z: np.ndarray, kind: np.ndarray) -> np.ndarray:
        if acts is None:
            return np.asarray(_planned(task, fitted, z, kind, "spo")["success"])
        return success_rates(task, acts, z, kind, seed=seed).success.astype(np.float64)

    some = np.random.default_rng(seed).permutation(len(met.offline.after))[:_ASKED]
    states = met.offline.after[some]
    asked = active_curve(fitted, task, states, success=success if row else None, seed=seed)
    drawing.save(asked.figure(), folder / "active.png")
    write_json(folder / "active.json", asked)
    noisy = noise_curve(fitted, task, states, shared=fit_reward(BASELINE, task, met.training, seed=seed), seed=seed)
    drawing.save(noisy.figure(), folder / "noise.png")
    write_json(folder / "noise.json", noisy)


def _maps(task: Steered, fitted: Reward, z: np.ndarray) -> dict[str, np.ndarray]:
    """Rewards for the first test user of each kind, and for one without comparisons, of what a picture shows."""
    places = map_of(task)
    if places is None:
        return {}
    latent = np.concatenate([z[: len(task.users)], fitted.unknown()[None]])
    reward = fitted.reward(fitted.sees(places), latent).T
    return {"users": reward[:-1], "unknown": reward[-1]}


def _run_row(
    task: Steered,
    settings: ControlSettings,
    seed: int,
    met: Met,
    fitted: Reward,
    z: np.ndarray,
    row: str,
    folder: Path,
    on_step: OnStep | None,
) -> dict[str, Any]:
    """Learn one policy, let it serve the test users, and keep what it did."""
    began = time.process_time()
    scaling: Scaling = read_row(row)[1]
    kind = met.context.kind
    found: dict[str, Any] = {"row": row, "kind": kind}
    if settings.policy == "plan":
        found |= _planned(task, fitted, z, kind, scaling)
    else:
        policy = _learn(task, settings, seed, met, fitted, scaling, folder, on_step)
        found |= _served(task, _acts(task, settings, policy), z, kind, fitted, seed)
    if scaling == "batch-norm":
        some = met.offline.after[: settings.comparators]
        found["denominators"] = batch_norm_denominators(fitted.reward(fitted.sees(some), z))
    found["seconds"] = time.process_time() - began
    write_json(folder / "result.json", found)
    return found


def _learn(
    task: Steered,
    settings: ControlSettings,
    seed: int,
    met: Met,
    fitted: Reward,
    scaling: Scaling,
    folder: Path,
    on_step: OnStep | None,
) -> Policy:
    """Learn a policy and keep it; `bayes` acts by the oracle's, if there is one, and only guesses what to tell it."""
    oracles = folder.with_name(f"{ORACLE}-{scaling}")
    if fitted.name == "bayes" and (oracles / "result.json").is_file():
        return Policy.load(oracles)
    table = relabel(
        fitted,
        met.offline.after,
        scaling=scaling,
        draws=settings.draws,
        comparators=settings.comparators,
        seed=seed,
    )
    data = with_features(task, met.offline) if settings.features else met.offline
    policy = train_iql(data, table, settings.iql_settings(), seed=seed, checkpoint=folder, on_step=on_step)
    policy.save(folder)
    (folder / "training.safetensors").unlink(missing_ok=True)
    return policy


def _acts(task: Steered, settings: ControlSettings, policy: Policy) -> Acts:
    """The policy as it acts on plain observations."""
    return Featured(policy=policy, task=task) if settings.features else policy


def _served(task: Steered, policy: Acts, z: np.ndarray, kind: np.ndarray, fitted: Reward, seed: int) -> dict[str, Any]:
    """What a policy did for the test users, and where z decides, with others' z and with none."""
    if fitted.latent_dim and len(np.unique(kind)) > 1:
        swap = swap_users(task, policy, z, kind, fitted.unknown(), seed=seed)
        own, swapped = swap.own, swap.as_dict()
        paths = {name: getattr(swap, name).path for name in ("own", "lent", "unknown")}
    else:
        own, swapped = success_rates(task, policy, z, kind, seed=seed), {}
        paths = {"own": own.path}
    most = _SHOWN if len(np.unique(kind)) == 2 else 1
    shown = np.concatenate([np.flatnonzero(kind == k)[:most] for k in np.unique(kind)])
    return {
        "success": own.success,
        "swapped": {name: each for name, each in swapped.items() if name != "own"},
        "shown": shown,
        "paths": {name: path[shown].round(4) for name, path in paths.items()},
    }


def _planned(task: Steered, fitted: Reward, z: np.ndarray, kind: np.ndarray, scaling: Scaling) -> dict[str, Any]:
    """From how many of the starts plans on the reward come to rest where the user wants."""
    from pluralign.control.maze import Maze
    from pluralign.control.planning import plan_for

    assert isinstance(task, Maze)

    def rests(latent: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        return plan_for(task, fitted, latent, wanted, scaling=scaling).success

    found: dict[str, Any] = {"success": rests(z, kind), "swapped": {}}
    if fitted.latent_dim and len(np.unique(kind)) > 1:
        lender = np.roll(np.arange(len(kind)), 1)  # kinds are in turn: the user before is of another kind
        nobody = np.broadcast_to(fitted.unknown(), z.shape).copy()
        found["swapped"] = {
            "lent": float(rests(z[lender], kind).mean()),
            "followed": float(rests(z[lender], kind[lender]).mean()),
            "unknown": float(rests(nobody, kind).mean()),
        }
    return found
