"""What the commands do: settings from flags and YAML, one call into the library, and its result printed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluralign.cli.printing import (
    Talk,
    print_evaluation,
    print_fit,
    print_json,
    print_line,
    print_questions,
    print_scan,
    print_study,
    stderr,
    stdout,
)
from pluralign.comparisons import Comparisons, write_jsonl
from pluralign.comparisons import save as save_table
from pluralign.errors import ConfigError
from pluralign.evaluation import mean_interval, paired_difference, score
from pluralign.files import write_json
from pluralign.studies.data import load
from pluralign.studies.features import Step
from pluralign.studies.fitting import FitSettings
from pluralign.studies.settings import StudySettings, read_yaml

if TYPE_CHECKING:
    from pluralign.queries import Enquiry


@dataclass(frozen=True)
class Source:
    """DATA and the flags that say how to read it."""

    data: str
    path: Path | None
    column: list[str] | None
    option: list[str] | None

    def load(self) -> Comparisons:
        columns = _assignments("--column", self.column)
        return load(self.data, path=self.path, columns=columns or None, **settings_of("--option", self.option))

    def load_pool(self) -> Comparisons:
        """The same where nobody needs to have chosen yet: rows of a file may be without a user."""
        from pluralign import datasets
        from pluralign.comparisons.writing import INDEX
        from pluralign.queries import read_pool

        named = self.data == "simulated" or self.data in datasets.names() or self.data.startswith("hf:")
        if named or self.path or self.option or not Path(self.data).exists() or (Path(self.data) / INDEX).is_file():
            return self.load()
        return read_pool(self.data, columns=_assignments("--column", self.column))


def study(
    source: Source,
    out: Path | None,
    config: Path | None,
    flags: Mapping[str, object],
    *,
    cache: Path | None,
    device: str,
    jobs: int | None,
    json: bool,
) -> None:
    from pluralign.reports import write_report
    from pluralign.studies.pipeline import run_study
    from pluralign.studies.splitting import check_preferred

    check_folder("--out", out)
    check_folder("--cache", cache)
    check_device(device)
    given = (read_yaml(config) if config else {}) | {name: value for name, value in flags.items() if value is not None}
    settings = StudySettings.of(given)
    with _steps() as on_step:
        on_step("read the comparisons")
        comparisons = source.load()
        check_preferred(comparisons)
        jobs = jobs or _default_jobs(comparisons, device)
        result = run_study(comparisons, settings, out=out, cache_dir=cache, device=device, jobs=jobs, on_step=on_step)
        if out is not None:
            on_step("write the report")
            page = write_report(out)
    if json:
        print_json(result.results)
        return
    print_study(result.results)
    if out is not None:
        print_line(f"\nreport in {page}, numbers in {out / 'results.json'}, models in {out / 'models'}")


def scan(source: Source, *, strict: bool, json: bool, **settings: Any) -> None:
    from pluralign.scans import scan as look

    with _steps() as on_step:
        on_step("read the comparisons")
        comparisons = source.load()
        on_step("scan")
        found = look(comparisons, **settings)
    if json:
        print_json(found)
    else:
        print_scan(comparisons, found)
    if strict and found.worst == "error":
        sys.exit(1)


def report(folder: Path, *, json: bool) -> None:
    from pluralign.reports import write_report

    page = write_report(folder)
    found = {"report": str(page), "figures": str(folder / "figures"), "tables": str(folder / "tables")}
    if json:
        print_json(found)
    else:
        print_line(f"report in {page}, figures in {found['figures']}, numbers in {found['tables']}")


def encode(source: Source, encoder: str | None, cache: Path, *, device: str, batch_size: int, json: bool) -> None:
    from pluralign.features import Trainable, make_encoder
    from pluralign.features import encode as encode_items

    check_folder("--cache", cache)
    check_device(device)
    comparisons = source.load()
    frozen = "attributes" if comparisons.format == "numeric" else "style"
    name = frozen if encoder in (None, "auto") else encoder
    reader = make_encoder(name)
    if isinstance(reader, Trainable):
        raise ConfigError(
            "tfidf learns from the training rows of each split, so there is nothing to encode ahead of a study",
            hint="name a frozen encoder: --encoder st:MODEL, hf:MODEL or style",
        )
    features = encode_items(comparisons, reader, cache_dir=cache, device=device, batch_size=batch_size)
    found = {
        "encoder": name,
        "items": features.shape[0],
        "dim": features.shape[1],
        "dtype": str(features.dtype),
        "cache": str(cache),
    }
    if json:
        print_json(found)
    else:
        print_line(f"{found['items']:,} items x {found['dim']} features of {name} ({found['dtype']}) in {cache}")


def fit(
    source: Source,
    settings: FitSettings,
    encoder: str,
    cache: Path | None,
    out: Path | None,
    *,
    device: str,
    json: bool,
) -> None:
    from pluralign.studies.fitting import fit as fit_users

    check_folder("--out", out)
    check_folder("--cache", cache)
    check_device(device)
    with _steps() as on_step:
        on_step("read the comparisons")
        comparisons = source.load()
        on_step(f"fit {settings.users}")
        found = fit_users(comparisons, settings, encoder=encoder, cache_dir=cache, device=device)
    if out is not None:
        found.reward.save(out)
        write_json(out / "fit.json", found.as_dict())
    if json:
        print_json(found.as_dict())
    else:
        print_fit(found.as_dict())
        if out is not None:
            print_line(f"saved in {out}")


def evaluate(model: Path, source: Source, pooled: Path | None, *, json: bool) -> None:
    from pluralign.rewards import LinearReward

    reward = LinearReward.load(model)
    shared = None if pooled is None else LinearReward.load(pooled)
    if shared is not None and shared.users.kind != "pooled":
        raise ConfigError(
            f"--pooled is {pooled}, which holds a model of kind {shared.users.kind}; it must be a pooled one",
            hint="`pluralign fit --out` without --users writes one, and a study has it in OUT/models/pooled",
        )
    comparisons = source.load()
    own, unknown = reward.predict(comparisons), reward.predict(comparisons, unknown=True)
    known = reward.user_index(comparisons.user_ids)[comparisons.user[comparisons.first_row]] >= 0
    found: dict[str, Any] = {
        "users": reward.users.kind,
        "n_comparisons": len(own),
        "n_comparisons_of_unknown_users": int((~known).sum()),
        "scores": score(own).as_dict(),
        "accuracy": mean_interval(own),
        "accuracy_unknown_user": mean_interval(unknown),
        "gain_over_unknown_user": {m: paired_difference(own, unknown, m) for m in ("accuracy", "log_prob")},
    }
    if shared is not None:
        base = shared.predict(comparisons)
        found["gain_over_pooled"] = {m: paired_difference(own, base, m) for m in ("accuracy", "log_prob")}
    if json:
        print_json(found)
    else:
        print_evaluation(found)


def adapt(model: Path, source: Source, out: Path | None, *, json: bool) -> None:
    from dataclasses import replace

    from pluralign.inference.adapt import adapt as place_users
    from pluralign.rewards import LinearReward
    from pluralign.users.joining import join_users

    check_folder("--out", out)
    if out is not None and out.resolve() == model.resolve():
        raise ConfigError(
            f"--out is {out}, the folder of the model itself", hint="name another folder; the model stays as it is"
        )
    reward = LinearReward.load(model)
    comparisons = drop_absent(source.load())
    fitted = set(reward.user_ids)
    known = [name for name in comparisons.user_ids if name in fitted]
    if known:
        shown = ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
        raise ConfigError(
            f"the model knows {shown} already; only users who are new to it can be placed",
            hint="leave their rows out, or give them other names; to learn more of them, fit again to all rows",
        )
    users = place_users(reward.users, reward.design(comparisons))
    if out is not None:
        names = (*reward.user_ids, *comparisons.user_ids)
        replace(reward, users=join_users(reward.users, users), user_ids=names).save(out)
    found = {"users": users.kind, "n_users": users.n_users, "n_comparisons": comparisons.n_decisions}
    if json:
        print_json(found)
    else:
        where = f"; saved with the {len(reward.user_ids):,} that the model knew in {out}" if out else ""
        print_line(f"placed {users.n_users:,} users from {comparisons.n_decisions:,} comparisons{where}")


def ask(
    model: Path,
    pool: Source,
    answers: str | None,
    user: str | None,
    *,
    n: int,
    method: str,
    epsilon: float,
    seed: int,
    json: bool,
) -> None:
    from pluralign.queries.pool import show_prompt, show_response
    from pluralign.queries.regions import regions

    enquiry = _enquiry(model, pool, answers, user)
    proposal = enquiry.propose(n, method=method, seed=seed)
    predicted, value = enquiry.belief.predictive(), enquiry.value()
    found = {
        **_whom(enquiry),
        "method": method,
        "questions": [
            {
                "row": int(enquiry.origin[row]),
                "prompt": show_prompt(enquiry.pool, row),
                "first": show_response(enquiry.pool, enquiry.pool.chosen[row]),
                "second": show_response(enquiry.pool, enquiry.pool.rejected[row]),
                "probability": float(predicted[row]),
                "score": float(score),
            }
            for row, score in zip(proposal.rows.tolist(), proposal.scores, strict=True)
        ],
        "regions": [each._asdict() for each in regions(enquiry.placed)],
        "resembles": [each._asdict() for each in enquiry.resembles()],
        "value": {"gain": value.best, "perfect": value.perfect, "epsilon": epsilon, "enough": value.stop(epsilon)},
    }
    if json:
        print_json(found)
    else:
        print_questions(found)


def interview(
    model: Path,
    pool: Source,
    answers: str | None,
    user: str | None,
    *,
    n: int,
    method: str,
    epsilon: float,
    out: Path | None,
    seed: int,
    json: bool,
) -> None:
    from pluralign.queries import interview as hold
    from pluralign.queries.regions import regions

    check_folder("--out", out)
    enquiry = _enquiry(model, pool, answers, user)
    numeric = enquiry.pool.format == "numeric"
    file = None if out is None else out / ("answers" if numeric else "answers.jsonl")
    if file is not None and file.exists():
        raise ConfigError(f"{file} exists", hint="name another folder; earlier answers can be given with --answers")
    talk = Talk(stderr if json else stdout)

    def keep(known: Enquiry) -> None:
        talk.place(regions(known.placed), known.resembles())
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            (save_table if numeric else write_jsonl)(known.table(), file)

    ended = hold(enquiry, talk.put, n=n, epsilon=epsilon, method=method, seed=seed, on_answer=keep)
    known = ended.enquiry
    if out is not None:
        known.finished().save(out)
    found = {
        **_whom(known),
        "method": method,
        "reason": ended.reason,
        "n_answered_now": len(known.rows),
        "n_skipped": ended.skipped,
        "regions": [each._asdict() for each in regions(known.placed)],
        "resembles": [each._asdict() for each in known.resembles()],
        "value": None
        if ended.value is None
        else {"gain": ended.value.best, "perfect": ended.value.perfect, "epsilon": epsilon},
        "answers": str(file) if file is not None and len(known.rows) else None,
        "out": None if out is None else str(out),
    }
    if json:
        print_json(found)
    else:
        talk.end(found)


def _enquiry(model: Path, pool: Source, answers: str | None, user: str | None) -> Enquiry:
    from pluralign.queries import Enquiry
    from pluralign.rewards import LinearReward

    earlier = None if answers is None else load(answers)
    return Enquiry.of(LinearReward.load(model), pool.load_pool(), user=user, answers=earlier, progress=False)


def _whom(enquiry: Enquiry) -> dict[str, Any]:
    """Who is asked, and on what grounds."""
    return {
        "users": enquiry.model.kind,
        "user": enquiry.name,
        "known": enquiry.known,
        "n_answers": enquiry.answers.n_decisions,
        "n_pairs_left": int(enquiry.open.sum()),
    }


def simulate(out: Path, *, json: bool, **settings: Any) -> None:
    from pluralign.comparisons import save, to_table, write_jsonl
    from pluralign.files import replacing
    from pluralign.populations import simulate as draw
    from pluralign.populations import simulate_dialogues

    kind = settings["features"]
    if out.suffix not in (("",) if kind == "numeric" else (".jsonl", ".parquet")):
        accepted = "a folder (a name without an ending)" if kind == "numeric" else "a .jsonl or .parquet file"
        raise ConfigError(f"{out} cannot hold {kind} features; OUT must be {accepted}")
    check_folder("OUT", out if kind == "numeric" else out.parent)
    if kind == "dialogues":
        names = ("n_users", "comparisons_per_user", "noise", "seed")
        settings = {name: settings[name] for name in names} | {"shares": settings["shares"] or (0.7, 0.3)}
        population = simulate_dialogues(**settings).population
    else:
        population = draw(**settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "numeric":
        save(population.comparisons, out)
    elif out.suffix == ".parquet":
        from pyarrow.parquet import write_table

        with replacing(out) as part:
            write_table(to_table(population.comparisons), part)
    else:
        write_jsonl(population.comparisons, out)
    truth = out.with_suffix(".truth.json")
    write_json(truth, {**population.truth(), "settings": settings})
    found = {
        "comparisons": population.comparisons.n_decisions,
        "users": population.comparisons.n_users,
        "out": str(out),
        "truth": str(truth),
    }
    if json:
        print_json(found)
    else:
        print_line(f"{found['comparisons']:,} comparisons of {found['users']:,} users in {out}, the truth in {truth}")


def datasets(name: str | None, *, json: bool) -> None:
    from pluralign import datasets as sets

    shown = [name] if name else sets.names()
    found = {each: sets.describe(each) for each in shown}
    if json:
        print_json({each: {"summary": found[each].summary, "options": found[each].options} for each in shown})
        return
    for each in shown:
        stdout.print(f"[bold]{each:20s}[/bold] {found[each].summary}", highlight=False)
        if name:
            stdout.print(f"from {found[each].origin}; licence: {found[each].licence}", highlight=False)
            for option, default in found[each].options.items():
                stdout.print(f"  --option {option}={default}", highlight=False)


def _default_jobs(comparisons: Comparisons, device: str) -> int:
    """One split per core where copies of the features are small beside a machine's memory, else one at a time."""
    small = len(comparisons.items) <= 50_000 and len(comparisons) <= 500_000
    return (os.cpu_count() or 1) if small and device == "cpu" else 1


def drop_absent(comparisons: Comparisons) -> Comparisons:
    """The same rows, without the users who have none."""
    from dataclasses import replace

    import numpy as np

    present, user = np.unique(comparisons.user, return_inverse=True)
    return replace(
        comparisons,
        user=user.astype(np.int32),
        user_ids=tuple(comparisons.user_ids[i] for i in present),
        users=None if comparisons.users is None else comparisons.users.take(present),
    )


def check_folder(flag: str, folder: Path | None) -> None:
    """Say before anything is computed that results could not be written.

    Raises:
        ConfigError: What should be a folder is a file, or lies in one, or nothing may be written there.
    """
    for place in [] if folder is None else [folder, *folder.parents]:
        if place.exists():
            if not place.is_dir():
                raise ConfigError(f"{flag} is {folder}, and {place} is a file", hint="name a folder, which may be new")
            if not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"{flag} is {folder}, and {place} may not be written to", hint="name another folder")
            return


def check_device(device: str) -> None:
    """Say before anything is read that there is no such device.

    Raises:
        ConfigError: Torch does not know it, or it is not there.
    """
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (AssertionError, RuntimeError) as error:  # torch built without CUDA asserts
        known = "cpu" + (f", cuda (:0 to :{torch.cuda.device_count() - 1})" if torch.cuda.is_available() else "")
        raise ConfigError(f'--device is "{device}", which is not here; accepted here: {known}') from error


@contextmanager
def _steps() -> Iterator[Step]:
    """Say on stderr what is being done: a spinner on a terminal, a line each elsewhere."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    if not stderr.is_terminal:
        yield lambda step: print(step, file=sys.stderr, flush=True)
        return
    with stderr.status("start") as status:
        yield lambda step: status.update(step)


def _assignments(flag: str, given: list[str] | None) -> dict[str, str]:
    """`name=value` texts as a mapping."""
    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f'{flag} is "{text}"; it must be name=value')
        found[name] = value
    return found


def settings_of(flag: str, given: list[str] | None) -> dict[str, Any]:
    """`name=value` texts as a mapping of values, read as YAML reads them."""
    return {name: _value(text) for name, text in _assignments(flag, given).items()}


def numbers(flag: str, text: str) -> list[float]:
    """The numbers of a flag such as 0.5,0.3,0.2."""
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise ConfigError(f'{flag} is "{text}"; it must be numbers with commas between, as 0.5,0.3,0.2') from None


def _value(text: str) -> object:
    """A flag's text as YAML reads it: 50 is a number, true is true. But `null` is a kind of population."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if value is None else value
