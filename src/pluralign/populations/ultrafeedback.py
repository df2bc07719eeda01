"""UF-P-2 and UF-P-4: users who each judge by one of UltraFeedback's four ratings (VPL, arXiv 2408.10075).

UltraFeedback has ratings of every answer for helpfulness, honesty, instruction following and truthfulness. Each pair of
the cleaned binarised set is joined with the ratings of its two answers, and user "honesty" prefers the one rated higher
for honesty.

Two readings, because the paper and the script released with it differ:

- `paper`: UF-P-2 (helpfulness and honesty) has the pairs on which the two users strictly disagree; UF-P-4 the pairs
  that are not unanimous, each without the users to whom it is a tie.
- `released`: in both, the pairs on which the labels of all four attributes are not the same, for all of the users; an
  attribute rated alike is labelled by a coin. So UF-P-2 has many pairs on which its two users agree, and accuracy has a
  ceiling below 1 that the paper's reading has not.

Ambiguous in the paper: whether a tied attribute makes a pair controversial. Here it does not; two attributes must
strictly disagree. An earlier script calls a pair controversial where any label is the reverse of the binarised choice,
all four included.

The published counts are in `EXPECTED`. They need the real files and have not been verified here. The released split is
of rows; here it is of prompts, so that no prompt is on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pluralign.comparisons import Comparisons, from_columns
from pluralign.datasets.local_files import one_of, read_lines
from pluralign.errors import ConfigError, DataError
from pluralign.types import FloatArray

ATTRIBUTES = ("helpfulness", "honesty", "instruction_following", "truthfulness")
RATINGS_HUB = "openbmb/UltraFeedback"
PAIRS_HUB = "argilla/ultrafeedback-binarized-preferences-cleaned"

# What the paper and its repository print; not verified here.
EXPECTED = {
    "rows of the binarised set": 60_917,
    "rated pairs": 60_833,
    "UF-P-2, rows per user, about": 4_000,
    "UF-P-4, rows per user, about": 7_500,
    "labels that differ from the binarised choice, ties by a coin": (9_163, 10_459, 8_274, 14_910),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class RatedPairs:
    """Pairs of answers and their ratings.

    Attributes:
        prompt: (pairs,).
        chosen: The answer chosen in the binarised set, (pairs,).
        rejected: The other, (pairs,).
        rating: Ratings from 1 to 5, (pairs, 2, 4): of the chosen and of the rejected answer, by `ATTRIBUTES`.
        n_left_out: Pairs without all eight ratings, or with an empty or twice the same answer.
    """

    prompt: tuple[str, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    rating: FloatArray
    n_left_out: int

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def gap(self) -> FloatArray:
        """How much higher the chosen answer is rated, (pairs, 4)."""
        return self.rating[:, 0] - self.rating[:, 1]


def read_rated_pairs(ratings: Path | None = None, pairs: Path | None = None) -> RatedPairs:
    """Join the pairs of the binarised set with UltraFeedback's ratings, by prompt and answer.

    Args:
        ratings: UltraFeedback: a .jsonl or .parquet file or a folder of such files, or None for the hub's copy. Rows
            have `instruction` and `completions`, each with `response` and `annotations` (attribute -> `Rating`).
        pairs: The cleaned binarised set, likewise; rows have `prompt`, and `chosen` and `rejected` as chats.

    Raises:
        DataError: A file is absent or not what it should be, a rating is no number or "N/A", or nothing joins.
    """
    wanted: dict[tuple[str, str], FloatArray | None] = {}
    rows = []
    for where, row in _rows(pairs, PAIRS_HUB, ("prompt", "chosen", "rejected")):
        answers = [_answer(row[name], f"{where}, {name}") for name in ("chosen", "rejected")]
        rows.append((row["prompt"], *answers))
        wanted |= {(row["prompt"], answer): None for answer in answers}
    for where, row in _rows(ratings, RATINGS_HUB, ("instruction", "completions")):
        for completion in row["completions"]:
            key = (row["instruction"], completion["response"])
            if key in wanted and wanted[key] is None:
                wanted[key] = _ratings(completion, where)
    kept = [
        row
        for row in rows
        if row[1]
        and row[2]
        and row[1] != row[2]
        and wanted[row[0], row[1]] is not None
        and wanted[row[0], row[2]] is not None
    ]
    if not kept:
        raise DataError(
            f"none of {len(rows)} pairs has ratings of both answers",
            hint="are the two sets those of the same prompts? are prompts and answers unchanged?",
        )
    prompt, chosen, rejected = zip(*kept, strict=True)
    return RatedPairs(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        rating=np.array([[wanted[p, c], wanted[p, r]] for p, c, r in kept], dtype=np.float64),
        n_left_out=len(rows) - len(kept),
    )


def simulate_uf_p(
    rated: RatedPairs, n_users: int = 2, *, reading: str = "paper", test: float = 0.1, seed: int = 42
) -> Comparisons:
    """Let each user choose by its own attribute.

    Args:
        rated: The pairs (`read_rated_pairs`).
        n_users: 2 (helpfulness and honesty) or 4 (all).
        reading: "paper" or "released" (module docstring).
        test: Share of the prompts in the split "test".
        seed: Of the coins and of the split.

    Returns:
        Users are named after their attributes, sources are prompts, and `split` says "train" or "test".

    Raises:
        ConfigError: A setting that is not accepted.
        DataError: No comparison is left.
    """
    one_of("n_users", n_users, (2, 4))
    one_of("reading", reading, ("paper", "released"))
    if not 0 <= test < 1:
        raise ConfigError(f"test is {test}; it is a share, from 0 to below 1")
    rng = np.random.default_rng(seed)
    sign: FloatArray = np.sign(rated.gap)
    if reading == "released":
        sign = np.where(sign == 0, rng.choice([-1.0, 1.0], sign.shape), sign)
    among = sign[:, :2] if reading == "paper" and n_users == 2 else sign
    disputed = (among.max(axis=1) > 0) & (among.min(axis=1) < 0)
    own = np.where(disputed[:, None], sign[:, :n_users], 0)
    pair, user = np.nonzero(own)
    if not len(pair):
        raise DataError(f"no user has a comparison left of {len(rated)} rated pairs")
    first = own[pair, user] > 0
    prompts = sorted(set(rated.prompt))
    held = set(rng.permutation(prompts)[: round(test * len(prompts))].tolist())
    return from_columns(
        prompt=[rated.prompt[i] for i in pair],
        chosen=[(rated.chosen if f else rated.rejected)[i] for i, f in zip(pair, first, strict=True)],
        rejected=[(rated.rejected if f else rated.chosen)[i] for i, f in zip(pair, first, strict=True)],
        user=[ATTRIBUTES[u] for u in user],
        split=np.array(["test" if rated.prompt[i] in held else "train" for i in pair]),
        name=f"UF-P-{n_users} ({reading})",
    )


def _rows(path: Path | None, hub: str, keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a set, each with where it stands."""
    if path is None:
        yield from ((f"{hub}, row {i + 1}", row) for i, row in enumerate(_fetch(hub)))
        return
    files = [path] if path.is_file() else sorted(each for ending in _READERS for each in path.rglob(f"*{ending}"))
    if not files:
        raise DataError(f"{path} has no {', '.join(_READERS)} file", hint="name a file, or the folder that holds them")
    for file in files:
        ending = next((each for each in _READERS if file.name.endswith(each)), None)
        if ending is None:
            raise DataError(f"{file} is not among the kinds that are read: {', '.join(_READERS)}")
        for i, row in enumerate(_READERS[ending](file)):
            missing = [key for key in keys if key not in row]
            if missing:
                raise DataError(f"{file}, row {i + 1} has no {missing[0]}; it has {', '.join(row)}")
            yield f"{file}, row {i + 1}", row


def _read_parquet(path: Path) -> Iterable[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}", hint="fetch the file again") from error


_READERS = {".jsonl": read_lines, ".jsonl.gz": read_lines, ".parquet": _read_parquet}


def _fetch(hub: str) -> Iterable[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return load_dataset(hub, split="train")
    except Exception as error:  # the hub client raises many kinds
        raise DataError(
            f"{hub} cannot be fetched from the Hugging Face hub: {error}",
            hint="fetch its files elsewhere and name them",
        ) from error


def _answer(chat: Any, where: str) -> str:
    """The assistant's text of a chat, or the text itself."""
    if isinstance(chat, str):
        return chat
    texts = [m.get("content") for m in chat or () if isinstance(m, dict) and m.get("role") == "assistant"]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise DataError(f"{where} is {str(chat)[:60]!r}; a text, or a chat with one answer by the assistant, is needed")
    return texts[0]


def _ratings(completion: dict[str, Any], where: str) -> FloatArray | None:
    """The four ratings, or None where one is missing ("N/A")."""
    found = []
    for name in ATTRIBUTES:
        value = (completion.get("annotations") or {}).get(name)
        value = value.get("Rating") if isinstance(value, dict) else value
        if value is None or value == "N/A":
            return None
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            raise DataError(f"{where}: the rating of {name} is {value!r}; a number or N/A is needed") from None
    return np.array(found)
