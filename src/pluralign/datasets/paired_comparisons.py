"""Complete paired-comparison experiments: every person judges every pair of a few objects.

An object is a one-hot attribute vector, so that a linear reward is one worth per object: the model of Bradley and
Terry (1952), whose worths are exp(theta) over their sum. From the R packages psychotools and psychotree (Strobl,
Wickelmaier and Zeileis 2011; Dittrich, Hatzinger and Katzenbeisser 1998).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pluralign.comparisons import Comparisons, Items
from pluralign.comparisons.table import index_items, index_texts
from pluralign.datasets.local_files import TEXT, decided, find_file, one_of, preferences, read_csv, with_users

ANSWERS = {"a": 1.0, "b": 0.0, "tie": 0.5}


def german_parties(path: Path) -> Comparisons:
    """Load 192 people's choices between six options of the German election of 2009, one of them none of the parties."""
    return _experiment(path, "german_parties_2009", name="german_parties")


def topmodel(path: Path) -> Comparisons:
    """Load 192 people's choices between six candidates of a television show of 2007."""
    return _experiment(path, "topmodel_2007", name="topmodel")


def first_names(path: Path) -> Comparisons:
    """Load 192 people's choices between six first names for a boy."""
    return _experiment(path, "first_names", name="first_names")


def cems_choice(path: Path, *, ties: str = "drop") -> Comparisons:
    """Load 301 students' choices between six universities for a semester abroad.

    Args:
        path: Folder of the files.
        ties: "drop", or "keep" the 487 undecided answers with outcome 0.5.
    """
    return _experiment(path, "cems_choice", ties=ties, name="cems_choice")


def sound_quality(path: Path, *, worths: str = "programme") -> Comparisons:
    """Load 40 people's repeated choices between eight reproduction modes of four musical programmes.

    The same person judges the same pair up to six times: `split` says whether before or after the listening training,
    and flips within a person measure noise.

    Args:
        path: Folder of the files.
        worths: "programme" gives each mode a worth in each programme, "mode" one worth in all.
    """
    one_of("worths", worths, ("programme", "mode"))
    return _experiment(path, "sound_quality", per_prompt=worths == "programme", name="sound_quality")


def _experiment(path: Path, stem: str, *, ties: str = "drop", per_prompt: bool = False, name: str) -> Comparisons:
    """Read a table of judgements; a pair of objects (of one prompt) is a source."""
    table = read_csv(path, f"{stem}.csv.gz", dict.fromkeys(("user", "a", "b", "choice"), TEXT))
    answer = preferences(table["choice"].to_pylist(), ANSWERS, f"{stem}.csv.gz, column choice")
    rows, second, outcome = decided(answer, ties)
    table = table.take(pa.array(rows))
    a, b = table["a"].to_pylist(), table["b"].to_pylist()
    where = table["prompt"].to_pylist() if "prompt" in table.column_names else [""] * len(table)
    prompt, prompts = index_texts(where)
    label, labels = index_texts([*a, *b])
    item, item_prompt, item_label = index_items(np.tile(prompt, 2), label)
    object_of_item, objects = index_texts(
        [
            f"{labels[k]} in {prompts[p]}" if per_prompt else str(labels[k])
            for p, k in zip(item_prompt, item_label, strict=True)
        ]
    )
    source, source_ids = index_texts(
        [f"{p} {min(x, y)}, {max(x, y)}".strip() for p, x, y in zip(where, a, b, strict=True)]
    )
    user, user_ids = index_texts(table["user"].to_pylist())
    loaded = Comparisons(
        items=Items(
            prompt=item_prompt,
            prompts=prompts,
            response=labels.take(pa.array(item_label)),
            attributes=np.eye(len(objects))[object_of_item],
            attribute_names=tuple(objects.to_pylist()),
        ),
        chosen=np.where(second, item[len(table) :], item[: len(table)]),
        rejected=np.where(second, item[: len(table)], item[len(table) :]),
        user=user,
        user_ids=tuple(user_ids.to_pylist()),
        source=source,
        source_ids=tuple(source_ids.to_pylist()),
        outcome=outcome,
        split=np.array(table["time"].to_pylist()) if "time" in table.column_names else None,
        format="numeric",
        name=name,
    )
    if find_file(path, f"{stem}.people.csv"):
        loaded = with_users(loaded, read_csv(path, f"{stem}.people.csv", {"user": TEXT}), "user")
    return loaded
