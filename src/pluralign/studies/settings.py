"""Every number a study depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pluralign.errors import ConfigError
from pluralign.studies.ladder import LADDER, LadderSettings

SPLITS = ("source", "item", "last")


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings of `pluralign study`; a YAML file names them by the same words.

    Attributes:
        encoder: What turns items into features: "auto" is attributes for numeric items and tfidf for text.
        rungs: Rungs of the ladder to fit, of `LADDER`. `pooled` is always fitted.
        seeds: Number of splits, each with its own fits; every figure is over all of them.
        split: How test rows are held out: by "source" (siblings stay together), by "item" (no test item was ever seen
            in training) or "last" (the last share of each user's decisions).
        test: Share of the data held out.
        unseen: Share of the users kept out of training altogether, 0 for none.
        contexts: Numbers of an unseen user's own comparisons it is placed from.
        folds: Folds of the cross-validation inside the training rows.
        ridge: Prior precision of the shared reward; None chooses it.
        clusters: Numbers of clusters tried.
        ranks: Ranks of `basis` tried.
        covariance: Prior covariance of `individual`: "auto" is full for few features and isotropic for many.
        starts: Restarts of the clusters' EM.
        level: Level of every interval.
        seed: Where the seeds begin.
    """

    encoder: str = "auto"
    rungs: tuple[str, ...] = LADDER
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
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [rung for rung in self.rungs if rung not in LADDER]
        if unknown:
            raise ConfigError(f'unknown rung "{unknown[0]}"; known: {", ".join(LADDER)}')
        if self.split not in SPLITS:
            raise ConfigError(f'unknown split "{self.split}"; known: {", ".join(SPLITS)}')
        for name, low, high in (("test", 0.0, 1.0), ("level", 0.0, 1.0)):
            if not low < getattr(self, name) < high:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie between {low:g} and {high:g}")
        if not 0 <= self.unseen < 1:
            raise ConfigError(f"unseen is {self.unseen}; it must be at least 0 and below 1")
        for name, least in (("seeds", 1), ("folds", 2), ("starts", 1)):
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
            seed=seed,
        )

    @classmethod
    def of(cls, given: Mapping[str, object]) -> StudySettings:
        """Settings from a mapping (a YAML file, flags); lists become tuples.

        Raises:
            ConfigError: A name that is no setting.
        """
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise ConfigError(f'unknown setting "{name}"; known: {", ".join(sorted(known))}')
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def read_yaml(path: Path) -> dict[str, object]:
    """Read a YAML mapping of settings.

    Raises:
        ConfigError: No such file, not YAML, or not a mapping.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no settings file {path}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds {type(value).__name__}, not a mapping of settings")
    return value
