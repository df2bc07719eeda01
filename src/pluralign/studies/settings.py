"""Every number a study depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from pluralign.errors import ConfigError
from pluralign.studies.ladder import LADDER, RUNGS, LadderSettings

LAST_SEED = 2**31 - 1  # scikit-learn's end at 2^32 - 1, and a study counts its splits upwards from the seed
SPLITS = ("source", "item", "last")
_REALS = ("test", "unseen", "level", "ridge", "worthwhile")
COVARIANCES = ("auto", "isotropic", "diagonal", "full")


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings of `pluralign study`; a YAML file names them by the same words.

    Attributes:
        encoder: What turns items into features: "auto" is attributes for numeric items and tfidf for text.
        rungs: Rungs of the ladder to fit, of `LADDER`; all but `latent` by default. `pooled` is always fitted.
        seeds: Number of splits, each with its own fits; every figure is over all of them.
        split: How test rows are held out: by "source" (siblings stay together), by "item" (no test item was ever seen
            in training) or "last" (the last share of each user's decisions).
        test: Share of the data held out.
        unseen: Share of the users kept out of training altogether, 0 for none.
        contexts: Numbers of an unseen user's own comparisons it is placed from.
        folds: Folds of the cross-validation inside the training rows.
        ridge: Prior precision of the shared reward and of the clusters' around it; None chooses it.
        clusters: Numbers of clusters tried.
        ranks: Ranks of `basis` tried.
        covariance: Prior covariance of `individual`: "auto" is full for few features and isotropic for many.
        starts: Restarts of the clusters' EM.
        latent_dim: Numbers that describe a user of `latent`.
        query_rungs: Rungs, of those fitted, for which unseen users are asked question by question, so that the study
            shows what asking well saves; none by default, for it takes time.
        questions: Asked of each of them at most.
        level: Level of every interval, and one minus that of the tests.
        worthwhile: Smallest gain in accuracy, a share, that would be worth a model for each user: the verdict is
            "cannot tell yet" where it can be neither shown nor ruled out.
        draws: Draws from the null of each test of whether users differ.
        seed: Where the seeds begin.
    """

    encoder: str = "auto"
    rungs: tuple[str, ...] = RUNGS
    seeds: int = 3
    split: str = "source"
    test: float = 0.25
    unseen: float = 0.2
    contexts: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32)
    folds: int = 4
    ridge: float | None = None
    clusters: tuple[int, ...] = tuple(range(1, 9))
    ranks: tuple[int, ...] = (0, 1, 2, 4, 8)
    covariance: str = "auto"
    starts: int = 20
    latent_dim: int = 4
    query_rungs: tuple[str, ...] = ()
    questions: int = 8
    level: float = 0.95
    worthwhile: float = 0.01
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [rung for rung in self.rungs if rung not in LADDER]
        if unknown:
            raise ConfigError(f'unknown rung "{unknown[0]}"; known: {", ".join(LADDER)}')
        idle = [rung for rung in self.query_rungs if rung not in self.rungs or rung == "pooled"]
        if idle:
            askable = [rung for rung in self.rungs if rung != "pooled"]
            raise ConfigError(
                f'query_rungs names "{idle[0]}"; it must be of the rungs fitted that have something to ask: '
                f"{', '.join(askable) or 'none'}"
            )
        if self.split not in SPLITS:
            raise ConfigError(f'unknown split "{self.split}"; known: {", ".join(SPLITS)}')
        if self.covariance not in COVARIANCES:
            raise ConfigError(f'unknown covariance "{self.covariance}"; known: {", ".join(COVARIANCES)}')
        for name in ("test", "level"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        check_ridge(self.ridge)
        check_seed(self.seed)
        for name in ("unseen", "worthwhile"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        for name, least in (
            ("seeds", 1),
            ("folds", 2),
            ("starts", 1),
            ("latent_dim", 1),
            ("questions", 1),
            ("draws", 19),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def ladder(self, seed: int) -> LadderSettings:
        """What the rungs try in one split."""
        return LadderSettings(
            ridge=self.ridge,
            clusters=self.clusters,
            ranks=self.ranks,
            covariance=self.covariance,
            starts=self.starts,
            latent_dim=self.latent_dim,
            seed=seed,
        )

    @classmethod
    def of(cls, given: Mapping[str, object]) -> StudySettings:
        """Settings from a mapping (a YAML file, flags); lists become tuples.

        Raises:
            ConfigError: A name that is no setting, or a value of another kind than it has.
        """
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise ConfigError(f'unknown setting "{name}"; known: {", ".join(sorted(known))}')
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        _check_types(values)
        reals = {name: float(values[name]) for name in _REALS if values.get(name) is not None}
        return cls(**values | reals)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def _check_types(values: Mapping[str, object]) -> None:
    """What a YAML file may have got wrong: a number in quotes, one value where a list is asked for."""
    accepted: dict[str, tuple[Callable[[object], bool], tuple[str, ...]]] = {
        "a name": (lambda value: isinstance(value, str), ("encoder", "split", "covariance")),
        "a whole number": (_is_whole, ("seeds", "folds", "starts", "latent_dim", "questions", "draws", "seed")),
        "a number": (
            lambda value: _is_whole(value) or isinstance(value, float),
            ("test", "unseen", "level", "worthwhile"),
        ),
        "a number, or nothing": (
            lambda value: value is None or _is_whole(value) or isinstance(value, float),
            ("ridge",),
        ),
        "a list of rungs": (lambda value: isinstance(value, tuple), ("rungs", "query_rungs")),
        "a list of whole numbers of at least 1": (partial(_are_whole, least=1), ("clusters",)),
        "a list of whole numbers of at least 0": (partial(_are_whole, least=0), ("ranks", "contexts")),
    }
    for words, (fits, names) in accepted.items():
        for name in names:
            if name in values and not fits(values[name]):
                raise ConfigError(f"{name} is {values[name]!r}; it must be {words}")


def check_seed(seed: int) -> None:
    """Refuse a seed that some generator cannot begin at.

    Raises:
        ConfigError: It is below 0 or above `LAST_SEED`.
    """
    if not 0 <= seed <= LAST_SEED:
        raise ConfigError(f"seed is {seed}; it must be from 0 to {LAST_SEED}")


def check_ridge(ridge: float | None) -> None:
    """Refuse a ridge that no fit can have.

    Raises:
        ConfigError: It is below 0, infinite, or not a number.
    """
    if ridge is not None and not 0 <= ridge < math.inf:
        raise ConfigError(f"ridge is {ridge}; it must be at least 0" + (" and finite" if ridge == math.inf else ""))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_whole(value: object, least: int) -> bool:
    return isinstance(value, tuple) and bool(value) and all(_is_whole(each) and each >= least for each in value)


def read_yaml(path: Path) -> dict[str, object]:
    """Read a YAML mapping of settings.

    Raises:
        ConfigError: No such file, not a file, not YAML, or not a mapping.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no settings file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        what = "it is a folder" if path.is_dir() else error
        raise ConfigError(f"the settings file {path} cannot be read: {what}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}, not a mapping of settings")
    return value
