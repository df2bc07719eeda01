"""The public sets by name: what each is, where it comes from, and its loader."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pluralign.comparisons import Comparisons
from pluralign.datasets import (
    answer_pairs,
    argument_pairs,
    choice_panels,
    paired_comparisons,
    prism,
    rankings,
    ratings,
    tldr,
)
from pluralign.datasets.local_files import find_file, one_of
from pluralign.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A public set.

    Attributes:
        name: What it is called here.
        summary: One line: what was compared, by whom.
        origin: Where its files come from.
        licence: What its publishers allow, as they state it.
        folder: Name of the folder that holds its files.
        files: Files by which the folder is known, one of which suffices; none where they have no fixed names.
        hub: Its name on the Hugging Face hub, where it can be fetched from.
        loader: The function that reads it.
    """

    name: str
    summary: str
    origin: str
    licence: str
    folder: str
    files: tuple[str, ...]
    hub: str | None = None
    loader: Callable[..., Comparisons]

    @property
    def options(self) -> dict[str, Any]:
        """The loader's options with their defaults; its docstring explains them."""
        parameters = inspect.signature(self.loader).parameters
        return {"identical": "keep"} | {k: p.default for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}: {self.summary} [{options}] From {self.origin}. Licence: {self.licence}."


POLIS = "the repository compdemocracy/openData"
PSYCHO = "the R packages psychotools and psychotree"
MLOGIT = "the R package mlogit"

_ALL = (
    Dataset(
        name="jester",
        summary="4,019 people rate 100 jokes",
        origin="the R package recommenderlab (Jester5k)",
        licence="data free for research with citation (Goldberg et al. 2001); package GPL-2",
        folder="jester5k",
        files=("ratings_wide.csv.gz", "jokes.csv"),
        loader=ratings.jester,
    ),
    Dataset(
        name="ukpconvarg",
        summary="3,013 workers say which of two arguments convinces more",
        origin="the repository UKPLab/acl2016-convincing-arguments",
        licence="CC-BY 4.0",
        folder="ukpconvarg1",
        files=("arguments.csv.gz",),
        loader=argument_pairs.ukpconvarg,
    ),
    Dataset(
        name="polis",
        summary="4,502 people in four public conversations vote on each other's statements",
        origin=POLIS,
        licence="CC-BY 4.0, with attribution to The Computational Democracy Project",
        folder="polis_open",
        files=tuple(f"{each}.votes.csv.gz" for each in ratings.CONVERSATIONS),
        loader=ratings.polis,
    ),
    Dataset(
        name="news",
        summary="six evaluators compare a writer's and a model's summaries of the same news",
        origin="the repository Tiiiger/benchmark_llm_summarization",
        licence="none stated",
        folder="news_summ_pairs",
        files=("articles.jsonl.gz",),
        loader=answer_pairs.news,
    ),
    Dataset(
        name="lamp",
        summary="thirteen writers rank three versions of a creative paragraph",
        origin="the repository salesforce/creativity_eval",
        licence="BSD-3-Clause",
        folder="lamp_writing",
        files=("rankings.csv",),
        loader=rankings.lamp,
    ),
    Dataset(
        name="dices",
        summary="94 raters judge the safety of a chatbot's reply in each of 350 conversations",
        origin="the repository dmg-illc/JUDGE-BENCH (DICES-350)",
        licence="CC-BY 4.0",
        folder="dices350",
        files=("conversations.jsonl.gz",),
        loader=ratings.dices,
    ),
    Dataset(
        name="hh_hidden_context",
        summary="HH-RLHF test pairs relabelled for helpfulness and for harmlessness: two simulated users",
        origin="the repository cassidylaidlaw/hidden-context",
        licence="HH-RLHF MIT; none stated for the relabelling",
        folder="hh_hidden_context_test",
        files=("both_test.jsonl.gz",),
        loader=answer_pairs.hh_hidden_context,
    ),
    Dataset(
        name="pandalm",
        summary="three annotators who agree compare 999 pairs of answers (a control)",
        origin="the repository WeOpenML/PandaLM",
        licence="Apache-2.0",
        folder="pandalm_testset",
        files=("pairs.jsonl.gz",),
        loader=answer_pairs.pandalm,
    ),
    Dataset(
        name="tulu",
        summary="sixteen evaluators compare answers of Tulu 65B and of other models",
        origin="the repository allenai/open-instruct",
        licence="Apache-2.0",
        folder="tulu_human_eval",
        files=("pairs.jsonl.gz",),
        loader=answer_pairs.tulu,
    ),
    Dataset(
        name="swiss",
        summary="388 people choose nine times between two train routes (numeric)",
        origin="the R package apollo",
        licence="package GPL-2",
        folder="swiss_route_choice",
        files=("swiss_route_choice.csv.gz",),
        loader=choice_panels.swiss,
    ),
    Dataset(
        name="train_nl",
        summary="235 people choose between two train trips (numeric)",
        origin=MLOGIT,
        licence="package GPL (>= 2)",
        folder="train_nl",
        files=("train.csv.gz",),
        loader=choice_panels.train_nl,
    ),
    Dataset(
        name="electricity",
        summary="361 people choose among four electricity suppliers (numeric)",
        origin=MLOGIT,
        licence="package GPL (>= 2)",
        folder="electricity",
        files=("electricity.csv.gz",),
        loader=choice_panels.electricity,
    ),
    Dataset(
        name="swissmetro",
        summary="752 people choose among train, Swissmetro and car, as far as available (numeric)",
        origin="the repository michelbierlaire/biogeme",
        licence="Biogeme's: free use, mention of the package",
        folder="swissmetro",
        files=("swissmetro.csv.gz",),
        loader=choice_panels.swissmetro,
    ),
    Dataset(
        name="bank_card",
        summary="946 people choose between two credit cards (numeric)",
        origin="the R package bayesm",
        licence="package GPL (>= 2)",
        folder="bank_card",
        files=("choices.csv.gz",),
        loader=choice_panels.bank_card,
    ),
    Dataset(
        name="german_parties",
        summary="192 people compare the parties of the German election of 2009 (numeric)",
        origin=PSYCHO,
        licence="GPL-2 or GPL-3",
        folder="paired_comparisons",
        files=("german_parties_2009.csv.gz",),
        loader=paired_comparisons.german_parties,
    ),
    Dataset(
        name="topmodel",
        summary="192 people compare six candidates of a television show (numeric)",
        origin=PSYCHO,
        licence="GPL-2 or GPL-3",
        folder="paired_comparisons",
        files=("topmodel_2007.csv.gz",),
        loader=paired_comparisons.topmodel,
    ),
    Dataset(
        name="first_names",
        summary="192 people compare six first names (numeric)",
        origin=PSYCHO,
        licence="GPL-2 or GPL-3",
        folder="paired_comparisons",
        files=("first_names.csv.gz",),
        loader=paired_comparisons.first_names,
    ),
    Dataset(
        name="cems_choice",
        summary="301 students compare six universities (numeric)",
        origin=PSYCHO,
        licence="GPL-2 or GPL-3",
        folder="paired_comparisons",
        files=("cems_choice.csv.gz",),
        loader=paired_comparisons.cems_choice,
    ),
    Dataset(
        name="sound_quality",
        summary="40 people compare sound reproduction modes, the same pairs up to six times (numeric)",
        origin=PSYCHO,
        licence="GPL-2 or GPL-3",
        folder="paired_comparisons",
        files=("sound_quality.csv.gz",),
        loader=paired_comparisons.sound_quality,
    ),
    Dataset(
        name="cobbler",
        summary="six annotators rank fifteen models' answers to fifty questions, always shown in one order",
        origin="the repository minnesotanlp/cobbler",
        licence="none stated",
        folder="cobbler_rankings",
        files=("ranks.csv.gz",),
        loader=rankings.cobbler,
    ),
    Dataset(
        name="lfqa",
        summary="thirteen experts compare two long answers to a question of their field",
        origin="the repository carriex/lfqa_eval",
        licence="none stated",
        folder="lfqa_experts",
        files=("pairs.jsonl.gz",),
        loader=answer_pairs.lfqa,
    ),
    Dataset(
        name="popquorn",
        summary="262 people rate how offensive comments are, with demographics",
        origin="the repository Jiaxin-Pei/Potato-Prolific-Dataset",
        licence="none stated",
        folder="popquorn_offensiveness",
        files=("ratings.csv.gz",),
        loader=ratings.popquorn,
    ),
    Dataset(
        name="ccai",
        summary="899 Americans vote on rules for an AI (Collective Constitutional AI)",
        origin="the repository saffronh/ccai",
        licence="none stated",
        folder="ccai_votes",
        files=("votes.csv.gz",),
        loader=ratings.ccai,
    ),
    Dataset(
        name="tldr",
        summary="workers compare summaries of Reddit posts and news (summarize-from-feedback)",
        origin="the repository openai/summarize-from-feedback or the Hugging Face hub",
        licence="modified MIT; posts CC-BY 4.0",
        folder="summarize_from_feedback",
        files=(),
        hub=tldr.HUB,
        loader=tldr.tldr,
    ),
    Dataset(
        name="prism",
        summary="1,396 people choose among replies in conversations with language models, with a survey",
        origin="the Hugging Face hub",
        licence="people's texts CC-BY 4.0, models' replies CC-BY-NC 4.0",
        folder="prism",
        files=("survey.jsonl",),
        hub=prism.HUB,
        loader=prism.prism,
    ),
)
DATASETS = {dataset.name: dataset for dataset in _ALL}


def names() -> list[str]:
    """Names of the sets that have a loader."""
    return list(DATASETS)


def describe(name: str) -> Dataset:
    """Say what a set is, where it comes from, its licence and the options of its loader; `str` makes it one line.

    Raises:
        ConfigError: There is no set of that name.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        raise ConfigError(
            f'unknown data set "{name}"; known: {", ".join(DATASETS)}',
            hint=f"did you mean {close[0]}?"
            if close
            else "a file or folder of your own goes to `pluralign.comparisons.read`",
        )
    return DATASETS[name]


def load(name: str, path: str | Path | None = None, *, identical: str = "keep", **options: Any) -> Comparisons:
    """Load a public set.

    Args:
        name: One of `names()`.
        path: Folder of its files, or a folder that has this folder in it. Without it, sets that the Hugging Face hub
            has are fetched from there; no other loader uses the network.
        identical: What to do with comparisons of a text with itself, which a few sets have: "keep" or "drop" them.
        options: Options of the set's loader (see `describe`); texts such as "50" or "none" are read as the option's
            type.

    Raises:
        ConfigError: The name or an option is not accepted.
        DataError: The files are not there, or one of them is not what it should be.
    """
    dataset = describe(name)
    one_of("identical", identical, ("keep", "drop"))
    unknown = [option for option in options if option not in dataset.options]
    if unknown:
        raise ConfigError(f'{name} has no option "{unknown[0]}"; it has {", ".join(dataset.options)}')
    signature = inspect.signature(dataset.loader, eval_str=True)
    given = {key: _typed(key, value, signature.parameters[key].annotation) for key, value in options.items()}
    loaded = dataset.loader(_locate(dataset, None if path is None else Path(path)), **given)
    loaded = loaded if identical == "keep" else _without_identical(loaded)
    if not len(loaded):
        raise DataError(f"{name}: no comparison is left", hint="are the files whole? is an option too strict?")
    return loaded


def _locate(dataset: Dataset, path: Path | None) -> Path | None:
    """Folder of a set's files, or None for the hub."""
    if path is None:
        if dataset.hub is not None:
            return None
        raise DataError(
            f"{dataset.name} is read from local files ({', '.join(dataset.files)})",
            hint=f"get them from {dataset.origin} and name their folder with --path",
        )
    if not path.is_dir():
        raise DataError(f"there is no folder {path}", hint=f"{dataset.name} comes from {dataset.origin}")
    for folder in (path / dataset.folder, path):
        if folder.is_dir() and (not dataset.files or any(find_file(folder, file) for file in dataset.files)):
            return folder
    raise DataError(
        f"neither {path} nor a folder {dataset.folder} in it has {' or '.join(dataset.files)}",
        hint=f"get the files from {dataset.origin} and name their folder with --path",
    )


def _typed(option: str, value: Any, annotation: Any) -> Any:
    """Read a text, or a whole number where a fraction may stand, as the type of an option."""
    if isinstance(value, float) and annotation is not float:
        raise ConfigError(f"{option} is {value}; a whole number is needed")
    if not isinstance(value, str) or annotation is str:
        return float(value) if annotation is float and isinstance(value, int) else value
    words: dict[str, Any] = {"true": True, "false": False} if annotation is bool else {}
    if type(None) in get_args(annotation):
        words["none"] = None
    if value.lower() in words:
        return words[value.lower()]
    if annotation is bool:
        raise ConfigError(f"{option} is {value!r}; accepted: true, false")
    try:
        return float(value) if annotation is float else int(value)
    except ValueError:
        raise ConfigError(f"{option} is {value!r}; a number is needed") from None


def _without_identical(comparisons: Comparisons) -> Comparisons:
    """Leave out decisions in which an item is compared with itself."""
    keep = np.ones(comparisons.n_decisions, dtype=np.bool_)
    keep[comparisons.decision[comparisons.chosen == comparisons.rejected]] = False
    return comparisons.take_decisions(keep)
