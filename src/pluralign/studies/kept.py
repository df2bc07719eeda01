"""What a study keeps on disk of each finished split, so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pluralign import __version__
from pluralign.comparisons import Comparisons
from pluralign.evaluation import Predictions
from pluralign.files import replacing, write_json
from pluralign.studies.settings import StudySettings

_OWN = ("chosen", "best_other")  # what differs between models of one set of decisions
_SHARED = tuple(each.name for each in fields(Predictions) if each.name not in _OWN)


@dataclass(frozen=True, eq=False, kw_only=True)
class SeedResult:
    """What one split showed.

    Attributes:
        seed: Of the split.
        candidate: The rung that cross-validation chose inside the training rows.
        evidence: That cross-validation, one row per rung.
        rungs: Settings, evidence and words of each rung.
        counts: Decisions, users and sources on each side.
        test: Predictions of the seen users' test decisions by rung, and by control ("basis, another user's").
        unknown: Predictions of the same decisions with the unknown user's model, by rung.
        unseen: Predictions of unseen users' test decisions, placed from m of their own: "basis/4" is m = 4.
        asked: Predictions of unseen users' test decisions after n questions, by rung and method: "basis/random/4".
        cluster: Cluster of every user in the cluster rung, -1 for users without training rows; empty without the rung.
    """

    seed: int
    candidate: str
    evidence: list[dict[str, Any]]
    rungs: dict[str, dict[str, Any]]
    counts: dict[str, int]
    test: dict[str, Predictions]
    unknown: dict[str, Predictions]
    unseen: dict[str, Predictions]
    asked: dict[str, Predictions] = field(default_factory=dict)
    cluster: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))


class Kept:
    """The finished splits of one study in a folder; nothing where the folder is None.

    A study with other data, settings or version has another fingerprint, and what was kept of it is not used.
    """

    def __init__(self, folder: Path | None, comparisons: Comparisons, settings: StudySettings, encoder: object) -> None:
        self.folder = None if folder is None else folder / "seeds"
        self.fingerprint = "" if folder is None else _fingerprint(comparisons, settings, encoder)

    def read(self, seed: int) -> SeedResult | None:
        """A split that was finished before, or None where there is none, or none that can be read or belongs here."""
        if self.folder is None:
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            plain = json.loads((self.folder / f"{seed}.json").read_text(encoding="utf-8"))
            if plain.pop("fingerprint") != self.fingerprint:
                return None
            packed = (self.folder / f"{seed}.safetensors").read_bytes()
            if plain.pop("digest") != sha256(packed).hexdigest():
                return None
            arrays = load(packed)
            return SeedResult(
                **plain,
                test=_unpack(arrays, "test"),
                unknown=_unpack(arrays, "unknown"),
                unseen=_unpack(arrays, "unseen"),
                asked=_unpack(arrays, "asked"),
                cluster=arrays["cluster"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
            return None  # missing or damaged: the split is made again

    def write(self, result: SeedResult) -> None:
        """Keep a split. The note comes last: where it is, the arrays are."""
        if self.folder is None:
            return
        from safetensors.numpy import save

        arrays = {"cluster": result.cluster}
        for group in ("test", "unknown", "unseen", "asked"):
            arrays |= _pack(getattr(result, group), group)
        packed = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        with replacing(self.folder / f"{result.seed}.safetensors") as part:
            part.write_bytes(packed)
        plain = {name: getattr(result, name) for name in ("seed", "candidate", "evidence", "rungs", "counts")}
        marks = {"fingerprint": self.fingerprint, "digest": sha256(packed).hexdigest()}
        write_json(self.folder / f"{result.seed}.json", plain | marks)


def _pack(predictions: Mapping[str, Predictions], group: str) -> dict[str, np.ndarray]:
    """All models of a group predict the same decisions, so what they share is kept once."""
    arrays: dict[str, np.ndarray] = {}
    for name, each in predictions.items():
        arrays |= {f"{group}|{own}|{name}": getattr(each, own) for own in _OWN}
        arrays |= {f"{group}|{shared}": getattr(each, shared) for shared in _SHARED}
    return arrays


def _unpack(arrays: Mapping[str, np.ndarray], group: str) -> dict[str, Predictions]:
    start = f"{group}|chosen|"
    names = [name.removeprefix(start) for name in arrays if name.startswith(start)]
    return {
        name: Predictions(
            **{own: arrays[f"{group}|{own}|{name}"] for own in _OWN},
            **{shared: arrays[f"{group}|{shared}"] for shared in _SHARED},
        )
        for name in names
    }


def _fingerprint(comparisons: Comparisons, settings: StudySettings, encoder: object) -> str:
    # How many seeds there are changes none of them, so a study is extended by asking for more.
    apart = ("seeds", "seed", "level", "worthwhile", "draws")
    chosen = {name: value for name, value in asdict(settings).items() if name not in apart}
    digest = sha256(json.dumps([__version__, chosen, encoder], sort_keys=True).encode())
    items = comparisons.items
    columns = ("chosen", "rejected", "user", "source", "outcome", "weight", "choice", "position")
    for array in (*(getattr(comparisons, column) for column in columns), items.prompt, items.attributes):
        digest.update(b"|" if array is None else np.ascontiguousarray(array).tobytes())
    for texts in (items.prompts, items.response, comparisons.user_ids):
        digest.update(json.dumps(list(map(str, texts))).encode())
    return digest.hexdigest()
