"""Fine-tune personal reward models on two real sets, beside frozen features on the same held-out rows."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from pluralign import datasets
from pluralign.comparisons import Comparisons
from pluralign.evaluation import Predictions, combine_seeds, mean_interval, other_users, paired_difference, score
from pluralign.features import Design, used_items
from pluralign.files import write_json
from pluralign.language_models.tiny import TinySettings, tiny_language_model
from pluralign.language_models.tokens import tokenize
from pluralign.studies.features import FeatureSource
from pluralign.studies.ladder import fit_ladder
from pluralign.studies.settings import StudySettings
from pluralign.studies.splitting import make_folds, split_study
from pluralign.studies.verdict import SHARED
from pluralign.training.margins import row_margins
from pluralign.training.settings import RewardSettings
from pluralign.training.train import train_reward
from pluralign.users import UNKNOWN, predict_decisions

HERE = Path(__file__).parent
OTHER = ", another user's"
POOLED = {"vanilla", "pooled"}  # what the other models of a family are compared with
AGAINST = "minus pooled", "minus another user's"


def busiest(table: Comparisons, prompts: int, users: int, rows: int, skip: int) -> Comparisons:
    """The `prompts` with most rows, their busiest users after the first `skip`, and at most `rows` rows of each."""
    rng = np.random.default_rng(0)
    of_row = table.items.prompt[table.chosen]
    table = table.take(np.isin(of_row, np.argsort(-np.bincount(of_row), kind="stable")[:prompts]))
    by_rows = np.lexsort((rng.random(table.n_users), -np.bincount(table.user, minlength=table.n_users)))
    order = rng.permutation(len(table))
    order = order[np.argsort(table.user[order], kind="stable")]
    first = np.searchsorted(table.user[order], table.user[order])
    kept = np.sort(order[np.arange(len(order)) - first < rows])
    taken = table.take(kept[np.isin(table.user[kept], by_rows[skip : skip + users])])
    present, user = np.unique(taken.user, return_inverse=True)
    return replace(taken, user=user.astype(np.int32), user_ids=tuple(table.user_ids[i] for i in present), users=None)


class Case(NamedTuple):
    """One split of a set: rows to learn from, rows held out, how they are divided, its seed, and all settings."""

    train: Comparisons
    test: Comparisons
    how: str
    seed: int
    config: dict[str, Any]

    @property
    def other(self) -> np.ndarray:
        """Somebody else for every user, whose model is the control."""
        return other_users(np.unique(self.train.user), self.test.n_users, seed=self.seed)


def divide(table: Comparisons, how: str, share: float, seed: int) -> tuple[Comparisons, Comparisons]:
    """Rows to learn from and rows held out: whole sources, or texts that no row to learn from has."""
    split = split_study(table, StudySettings(split=how, test=share, unseen=0), seed)
    return table.take(split.train), table.take(split.test)


def small_model(case: Case, steps: int, cache: Path) -> Path:
    """A language model of the texts of the training rows alone."""
    items = case.train.items
    prompts, responses = items.prompts.to_pylist(), items.response.to_pylist()
    documents = [(prompts[items.prompt[i]], responses[i]) for i in used_items(case.train)]
    settings = TinySettings(**case.config["language_model"], steps=steps, seed=case.seed)
    return tiny_language_model(documents, settings=settings, cache=cache)


def fine_tune(case: Case, base: Path, name: str, out: Path) -> dict[str, Predictions]:
    """A reward model, its epoch chosen on a part of the training rows: its own predictions and another user's."""
    config, test = case.config, case.test
    learn, choose = divide(case.train, case.how, config["choose"], case.seed)
    settings = RewardSettings(**config["models"][name], **config["reward"], seed=case.seed)
    model, tokenizer = train_reward(learn, base, out=out, eval=choose, settings=settings, args=config["training"])
    number = {user: i for i, user in enumerate(model.user_ids)}
    theirs = np.array([number.get(user, UNKNOWN) for user in test.user_ids], dtype=np.int32)
    tokens = tokenize(test, tokenizer, max_response=settings.max_response)
    whose = {name: test.user} | ({name + OTHER: case.other[test.user]} if settings.alpha else {})
    return {each: predict_decisions(test, row_margins(model, tokens, theirs[user])) for each, user in whose.items()}


def ladder(case: Case, encoder: str, cache: Path) -> dict[str, Predictions]:
    """Rungs on frozen features, everything chosen by folds of the training rows."""
    settings = StudySettings.of({"encoder": encoder, "split": case.how, **case.config["ladder"]})
    features = FeatureSource(case.train, encoder, cache_dir=cache).of(case.train)[2]  # of all items of the set
    design, held = Design.of(case.train, features), Design.of(case.test, features)
    rungs = fit_ladder(design, make_folds(design, settings, case.seed), settings.ladder(case.seed), settings.rungs)
    other = torch.as_tensor(case.other).long()[held.user]
    found = {name: rung.model.predict(held) for name, rung in rungs.items()}
    return found | {name + OTHER: rungs[name].model.predict(held, other) for name in rungs if name not in SHARED}


def kept(path: Path, test: Comparisons, make: Callable[[], dict[str, Predictions]]) -> dict[str, Predictions]:
    """What was predicted, from a file or made now."""
    began = time.monotonic()
    if not path.is_file():
        write_json(path, {name: each.chosen for name, each in make().items()})
    blank = predict_decisions(test, np.zeros(len(test)))
    chosen = {name: np.array(each) for name, each in json.loads(path.read_text()).items()}
    found = {name: replace(blank, chosen=each, best_other=1 - each) for name, each in chosen.items()}
    told = ", ".join(f"{name} {np.nanmean(each.correct):.3f}" for name, each in found.items())
    print(f"{path}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return found


def summarise(family: dict[str, list[Predictions]]) -> list[dict[str, Any]]:
    """A row for each model of a family, with its differences from the pooled one and from another user's."""
    joined = {name: combine_seeds(seeds) for name, seeds in family.items()}
    rows = []
    for name in (each for each in joined if not each.endswith(OTHER)):
        scores = score(joined[name])
        rows.append({"model": name, "accuracy": mean_interval(joined[name]), "log_prob": -scores.log_loss})
        rows[-1] |= {"users": scores.accuracy_users, "users_sd": scores.accuracy_users_sd}
        for what, against in zip(AGAINST, (POOLED & joined.keys(), {name + OTHER} & joined.keys()), strict=True):
            for base in against - {name}:
                gains = {each: paired_difference(joined[name], joined[base], each) for each in ("accuracy", "log_prob")}
                rows[-1][what] = gains
    return rows


def run_set(name: str, config: dict[str, Any], path: Path, out: Path, sentences: Path | None) -> dict[str, Any]:
    """All models on all splits of a set, in families: fine-tuned, and on each kind of frozen features."""
    some = config["sets"][name]
    table = busiest(datasets.load(some["name"], path, **some["options"]), **some["take"], skip=config["skip"])
    families: dict[str, dict[str, list[Predictions]]] = {}
    for seed in range(config["seeds"]):
        case = Case(*divide(table, some["split"], config["test"], seed), some["split"], seed, config)
        folder, small = out / name / str(seed), small_model(case, some["steps"], out / "language_models")
        jobs = {
            ("fine-tuned", model): partial(fine_tune, case, small, model, folder / "models" / model)
            for model in config["models"]
        }
        encoders = {"small model": f"hf:{small}"} | ({"sentence encoder": f"st:{sentences}"} if sentences else {})
        for kind, encoder in encoders.items():
            jobs[f"frozen {kind}", "ladder"] = partial(ladder, case, encoder, out / "features")
        for (family, part), make in jobs.items():
            found = kept(folder / f"{family} {part}.json".replace(" ", "_"), case.test, make)
            for model, predicted in found.items():
                families.setdefault(family, {}).setdefault(model, []).append(predicted)
    return {family: summarise(found) for family, found in families.items()}


def show(families: dict[str, list[dict[str, Any]]]) -> None:
    """Print the body of a table in Markdown: per cent, and points with their intervals."""
    for family, rows in families.items():
        for row in rows:
            gains = [row[what]["accuracy"] if what in row else None for what in AGAINST]
            cells = [family, row["model"], f"{100 * row['accuracy'].estimate:.1f}"]
            cells += [f"{100 * row['users']:.1f} ± {100 * row['users_sd']:.1f}"]
            cells += [f"{100 * g.estimate:+.1f} [{100 * g.low:+.1f}, {100 * g.high:+.1f}]" if g else "" for g in gains]
            print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="folder that holds ukpconvarg1/ and jester5k/")
    parser.add_argument("--out", type=Path, default=Path("studies/finetuned_rewards"))
    parser.add_argument("--config", type=Path, default=HERE / "config.yaml")
    parser.add_argument("--sentences", type=Path, help="folder of a sentence encoder, such as all-MiniLM-L6-v2")
    given = parser.parse_args()
    config = yaml.safe_load(given.config.read_text())
    for name in config["sets"]:
        families = run_set(name, config, given.path, given.out, given.sentences)
        versions = {each: version(each) for each in ("torch", "transformers", "numpy")}
        write_json(given.out / f"{name}.json", {"config": config, "versions": versions, "families": families})
        show(families)


if __name__ == "__main__":
    main()
