"""Train a tower for latent users (VPL with LoRA), from comparisons and a base model, in one call.

The start is `fit_latent` on the base's frozen features: decoder, encoder and prior are there before the first step of
the language model, which is what keeps z from collapsing (measured in `docs/latent_language_models.md`). The bound is
that of `pluralign.inference.latent_elbo`, a target at a time: with C a context drawn for the target,

    E_q(z | C) log P(target | z)  -  weight(step) KL(q || prior) / (weight of what the user said outside of C),

where "predictive" has log E P. The divergence's share is what makes the sum over all targets of a user count it once.
Steps of the schedule are the optimizer's; evaluation moves nothing. `free_bits` and `swap_weight` guide the start
alone, because neither is a sum over targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from pluralign.comparisons import Comparisons, split_by_source
from pluralign.comparisons.columns import show
from pluralign.errors import ConfigError, DataError
from pluralign.features import Design, Standardizer, encode, used_items
from pluralign.files import write_json
from pluralign.inference.basis import fit_basis
from pluralign.inference.latent import fit_latent
from pluralign.inference.latent_diagnosis import LatentDiagnosis, diagnose_latent
from pluralign.inference.latent_elbo import LatentSettings, hold_out, mean_log_prob
from pluralign.inference.pooled import default_ridges, fit_pooled
from pluralign.language_models.loading import check_tokenizer
from pluralign.language_models.tokens import tokenize
from pluralign.training.latent_data import Contexts, TargetCollator, TargetDataset
from pluralign.training.latent_reward import LatentReward, context_design
from pluralign.training.latent_tower import LatentHead, LatentTower, TowerEncoder
from pluralign.training.settings import Settings, changed, check_kinds
from pluralign.training.train import make_arguments, make_config, prepare, run, run_key
from pluralign.training.trainer import OWN, PreferenceTrainer, Terms
from pluralign.users import UNKNOWN

DIAGNOSIS = "diagnosis.json"


@dataclass(frozen=True, kw_only=True)
class LatentRewardSettings(Settings):
    """A tower for latent users.

    Attributes:
        users: The kind, which is "latent".
        alpha: As of `Settings`; below 1 the prior is trained to predict as well, as the generic user is in P-RLHF.
        latent: Of the start and of the bound: a `LatentSettings`, or some of its fields.
        contexts: Contexts drawn for a target in a step; the target is read once.
        ridge: Precision of the priors of the pooled reward and of the basis on frozen features, where the start begins;
            None chooses both by held-out sources.
        user_learning_rate: Of the head: decoder, encoder and prior.
    """

    users: Mapping[str, Any] = field(default_factory=lambda: {"kind": "latent"})
    alpha: float = 1.0
    latent: LatentSettings | Mapping[str, Any] = field(default_factory=LatentSettings)
    contexts: int = 4
    ridge: float | None = None
    user_learning_rate: float | None = 1e-3

    def __post_init__(self) -> None:
        """Check."""
        super().__post_init__()
        if not isinstance(self.latent, LatentSettings):
            if not isinstance(self.latent, Mapping):
                raise ConfigError(f"latent is {show(self.latent)}; it must be a table")
            check_kinds(LatentSettings, self.latent, of="latent: ")
            try:
                given = LatentSettings(**{"seed": self.seed, **self.latent})
            except TypeError as error:
                raise ConfigError(f"latent: {error}") from None
            object.__setattr__(self, "latent", given)
        if dict(self.users) != {"kind": "latent"}:
            raise ConfigError(f'users are {dict(self.users)}; those of a tower are {{"kind": "latent"}}')
        if self.loss != "sigmoid" or self.smoothing:
            raise ConfigError(f"loss is {self.loss}, smoothing {self.smoothing}; the bound is that of a plain sigmoid")
        if self.how.form == "pairwise":
            raise ConfigError('form is "pairwise", whose reward compares two texts', hint='take "scalar" or "linear"')
        if self.contexts < 1:
            raise ConfigError(f"contexts is {self.contexts}; it must be at least 1")

    @property
    def how(self) -> LatentSettings:
        """Settings of start and bound."""
        return cast(LatentSettings, self.latent)


@dataclass(frozen=True, eq=False)
class LatentTerms(Terms):
    """Terms, and the divergence of each term's posterior from the prior, in nats, (terms,)."""

    kl: Tensor


class LatentTrainer(PreferenceTrainer):
    """Trains a tower; what is the same as for P-RM is `PreferenceTrainer`'s."""

    def __init__(
        self,
        model: LatentTower,
        args: TrainingArguments,
        settings: LatentRewardSettings,
        *,
        train: TargetDataset,
        eval: TargetDataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        super().__init__(model, args, settings, train=train, eval=eval, callbacks=callbacks)
        pairs = cast(Any, self).data_collator
        self.data_collator = TargetCollator(pairs=pairs, contexts=train.contexts)
        self.kl = torch.zeros(2, device=args.device)  # sum and number

    def terms(self, model: nn.Module, inputs: dict[str, Any]) -> LatentTerms:
        """Run the model on a batch; the KL's weight is that of the optimizer step."""
        read = {name: value for name, value in inputs.items() if name not in OWN}
        log_prob, share, kl, margin = model(**read, target_outcome=inputs["outcome"]).unbind(1)
        weight = cast(LatentRewardSettings, self.settings).how.weight_at(self.state.global_step)
        return LatentTerms(weight * share - log_prob, margin.detach(), kl.detach())

    def count(self, terms: Terms, inputs: dict[str, Any], counted: Tensor) -> None:
        """Add a batch to what is logged next."""
        super().count(terms, inputs, counted)
        kept = counted[inputs["pair"]] & inputs["personal"]
        self.kl += torch.stack([cast(LatentTerms, terms).kl[kept].sum(), kept.sum()])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the mean divergence of contexts' posteriors from the prior and its weight in the last step."""
        if "loss" in logs:
            total, n = self.accelerator.reduce(self.kl, reduction="sum").tolist()
            logs["kl"] = total / max(n, 1)
            settings = cast(LatentRewardSettings, self.settings)
            logs["kl_weight"] = settings.how.weight_at(max(self.state.global_step - 1, 0))
            self.kl.zero_()
        super().log(logs, start_time)

    def user_model(self) -> Any:
        """The head, which has a learning rate of its own."""
        return self.accelerator.unwrap_model(self.model).head


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedLatent:
    """What `train_latent_reward` makes.

    Attributes:
        reward: The tower; its users are those of the training rows, placed by all of these.
        diagnosis: Whether z collapsed, on held-out sources of these users; None where there are none.
        start: The same of the frozen start, on sources held out within the training rows.
    """

    reward: LatentReward
    diagnosis: LatentDiagnosis | None
    start: LatentDiagnosis

    @property
    def words(self) -> str:
        """Both in a few sentences."""
        said = (
            "not diagnosed: no held-out row is of a user in training"
            if self.diagnosis is None
            else self.diagnosis.words
        )
        return f"{said}; the start on frozen features: {self.start.words}"


def train_latent_reward(
    comparisons: Comparisons,
    base: str | Path,
    *,
    out: str | Path,
    eval: Comparisons | None = None,
    settings: LatentRewardSettings | None = None,
    args: TrainingArguments | Mapping[str, Any] | None = None,
    resume: bool = True,
    callbacks: list[TrainerCallback] | None = None,
    cache: str | Path | None = None,
    loading: Mapping[str, Any] | None = None,
    **changes: Any,
) -> TrainedLatent:
    """Train a reward model for latent users.

    Args:
        comparisons: What to learn from.
        base: Hub id or folder of the language model.
        out: Folder of the model, as of `train_reward`.
        eval: Held-out sources, for the diagnosis and where `args` wants to evaluate. None holds out a share of the
            sources of `comparisons` (`latent.held_out`), which nothing is learnt from; users are placed by them too.
        settings: What the run depends on.
        args: `TrainingArguments`, or some of their fields.
        resume: Go on where a killed run of the same call stopped.
        callbacks: The Trainer's.
        cache: Folder of frozen features; None keeps none.
        loading: What `from_pretrained` needs.
        changes: Fields of `settings`, by name.

    Raises:
        DataError: The comparisons cannot be read by a language model, or are choices among more than two.
        ConfigError: A setting is not accepted, `out` holds another run, or all rows have one source.
    """
    settings = changed(LatentRewardSettings() if settings is None else settings, changes)
    arguments = make_arguments(args, out)
    if comparisons.choice is not None:
        raise DataError("some rows are parts of a choice among several; a tower learns from pairs")
    told = comparisons
    if eval is None:
        split = split_by_source(comparisons, settings.how.held_out, seed=settings.seed)
        comparisons, eval = comparisons.take(split.train), comparisons.take(split.test)
    tokenizer, tokens = prepare(comparisons, base, settings, loading)
    user_ids, how = tokens.user_ids, settings.how
    config = make_config(base, user_ids, settings)
    config.users = {}  # users have no tokens
    tower = LatentTower.make(config, seed=settings.seed, **(loading or {})).to(arguments.device)
    check_tokenizer(tokenizer, tower.get_input_embeddings().num_embeddings)
    limits = {"max_prompt": settings.max_prompt, "max_response": settings.max_response}
    encoder = TowerEncoder(tower=tower, tokenizer=tokenizer, frozen=True, **limits)

    def features(some: Comparisons) -> np.ndarray:
        return encode(some, encoder, cache_dir=cache, progress=not arguments.disable_tqdm)

    frozen = features(comparisons)
    standardizer = Standardizer.fit(frozen, used_items(comparisons))
    design = context_design(of_users(comparisons, user_ids), frozen, standardizer)
    pooled, report = fit_pooled(design, ridge=settings.ridge)
    found = fit_latent(
        design,
        replace(how, fall_back=False),
        ridge=report.ridge,
        ridge_basis=choose_ridge_basis(design, report.ridge, how) if settings.ridge is None else settings.ridge,
        start=pooled.theta,
    )
    held = of_users(eval, user_ids)
    guessed = None
    if len(held):
        apart = frozen if held.items is comparisons.items else features(held)
        guessed = pooled.predict(context_design(held, apart, standardizer))

    head = LatentHead.of(found.model, standardizer, prior=how.prior, bound=how.bound)
    tower.begin_at(head)
    coordinates = head.latent(context=True).items(standardizer.transform(frozen, dtype=torch.float32).to(tower.device))
    contexts = Contexts(
        items=coordinates.detach().cpu(), tokens=tokens, n_contexts=settings.contexts, draws=how.draws,
        latent_dim=how.latent_dim, seed=settings.seed,
    )  # fmt: skip
    asked = tokenize(eval, tokenizer, **limits).for_users(user_ids)
    number = {name: i for i, name in enumerate(comparisons.source_ids)}
    there = np.array([number.get(name, -1) for name in eval.source_ids], dtype=np.int32)
    trainer = LatentTrainer(
        tower,
        arguments,
        settings,
        train=TargetDataset(tokens=tokens, contexts=contexts),
        eval=TargetDataset(tokens=replace(asked, source=there[asked.source]), contexts=contexts),
        callbacks=callbacks,
    )
    run(trainer, run_key(tower, trainer.train_dataset, settings, arguments), resume=resume)

    tower.eval()
    bare = LatentReward.of(tower, tokenizer, **limits)
    placed = bare.place(of_users(comparisons, user_ids), features=frozen)
    diagnosis = None
    if guessed is not None:
        diagnosis = diagnose_latent(
            placed.users,
            placed.linear.design(held, progress=False),
            pooled=guessed,
            everybody=placed.users,
            users=torch.arange(len(user_ids)),
            variational=how.variational,
            seed=how.seed,
        )
    everybody = [told.user_ids[i] for i in np.unique(told.user)]
    trained = TrainedLatent(
        reward=bare.place(of_users(told, everybody), features=frozen), diagnosis=diagnosis, start=found.diagnosis
    )
    if arguments.should_save:
        trained.reward.save(out)
        write_json(Path(out) / "training.json", trainer.state.log_history)
        write_json(Path(out) / DIAGNOSIS, {"words": trained.words, "tower": diagnosis, "start": found.diagnosis})
    trainer.accelerator.wait_for_everyone()
    return trained


def choose_ridge_basis(design: Design, ridge: float, how: LatentSettings) -> float:
    """The ridge of the basis that predicts held-out sources best; the larger among equals.

    Where tastes cancel there is nothing for a pooled reward to learn, and its own ridge would silence the basis too.

    Args:
        design: Training rows on frozen features.
        ridge: Of the pooled reward.
        how: What is held out, and the rank.
    """
    out = hold_out(design, how.held_out, how.seed)
    part, held = design.take(~out), design.take(out)
    rank = min(how.latent_dim, design.dim)

    def told(ridge_basis: float) -> float:
        found = fit_basis(part, rank, ridge=ridge, ridge_basis=ridge_basis, max_evaluations=60, tolerance=1e-5)
        return mean_log_prob(found.model.predict(held))

    return max((each for each in sorted(default_ridges(design).tolist(), reverse=True) if each), key=told)


def of_users(comparisons: Comparisons, user_ids: Sequence[str]) -> Comparisons:
    """The rows of some users, numbered as they are here; items and sources keep their numbers."""
    number = {name: i for i, name in enumerate(user_ids)}
    there = np.array([number.get(name, UNKNOWN) for name in comparisons.user_ids], dtype=np.int32)
    own = comparisons.take(there[comparisons.user] >= 0)
    return replace(own, user=there[own.user], user_ids=tuple(user_ids), users=None)
