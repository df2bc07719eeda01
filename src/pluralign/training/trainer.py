"""A trainer of personal reward models and policies: `transformers.Trainer` with a loss on pairs.

Only public methods are overridden, so that launchers, sharding, mixed precision, gradient checkpointing, logging and
resuming are the Trainer's own. A step's loss is the sum over its pairs divided by their number, whatever micro-batches
and processes the step is divided into. Where several processes train, start them with `torchrun` or
`accelerate launch`.

The Trainer's checkpoints hold weights as safetensors, and the optimizer's state as torch files, which it reads with
`weights_only`; a finished model (`save`) has no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from pluralign.errors import ConfigError, DataError
from pluralign.language_models.personal import PersonalModel
from pluralign.language_models.tokens import PreferenceTokens
from pluralign.language_models.user_tokens import UserTokens
from pluralign.training.data import PairCollator, PairDataset, StepLoader, StepSampler
from pluralign.training.objectives import PER_TOKEN, preference_loss
from pluralign.training.settings import RewardSettings, Settings
from pluralign.training.tables import hold_absent_rows

OWN = ("labels", "pair", "personal", "outcome", "weight", "reference", "length", "about")


@dataclass(frozen=True, eq=False)
class Terms:
    """What a batch comes to, one value for each term.

    Attributes:
        loss: Loss, unweighted, (terms,).
        margin: beta times the ratio, in nats, (terms,).
    """

    loss: Float[Tensor, " terms"]
    margin: Float[Tensor, " terms"]


class PreferenceTrainer(Trainer):
    """Trains a personal model on comparisons.

    Attributes:
        settings: What the run depends on.
    """

    def __init__(
        self,
        model: PersonalModel,
        args: TrainingArguments,
        settings: Settings,
        *,
        train: PairDataset | None = None,
        eval: PairDataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        """Prepare.

        Args:
            model: What is trained.
            args: The Trainer's own settings; `remove_unused_columns` must be False.
            settings: Ours.
            train: Comparisons to learn from, users numbered as the model has them.
            eval: Comparisons to evaluate on; users the model does not know are `UNKNOWN`.
            callbacks: As the Trainer's.
            optimizers: An optimizer and a schedule, where the Trainer's are not wanted; users have no learning rate of
                their own then.

        Raises:
            ConfigError: Several GPUs in one process, columns would be removed, or nothing would be trained.
            DataError: A comparison to learn from has a user the model does not know.
        """
        if args.n_gpu > 1:
            raise ConfigError(
                f"one process sees {args.n_gpu} GPUs, which torch.nn.DataParallel cannot share here",
                hint="start one process per GPU with torchrun, or name one GPU in CUDA_VISIBLE_DEVICES",
            )
        if args.remove_unused_columns:
            raise ConfigError("remove_unused_columns is True; comparisons have no columns that may go")
        self.settings = settings
        self.impersonal = settings.users["kind"] == "uniform"
        if train is not None and not self.impersonal and settings.alpha > 0:
            strangers = np.flatnonzero((train.tokens.user < 0) | (train.tokens.user >= len(model.user_ids)))
            if len(strangers):
                raise DataError(
                    f"row {strangers[0]}: its user is not among the model's {len(model.user_ids):,} "
                    f"({len(strangers):,} such rows)",
                    hint="leave these rows out, or train with alpha = 0",
                )
        if not settings.dropout:
            disable_dropout(model)
        for value in model.parameters():
            if not value.numel():
                value.requires_grad_(False)  # of no token: processes that train together would wait for its gradient
        if train is not None and not any(value.requires_grad for value in model.parameters()):
            raise ConfigError(
                f'the tuning is "{settings.tuning}" and users have no tokens, so there is nothing to train',
                hint="tune the language model (lora, full), or give users tokens",
            )
        layout = model.layout
        for part in (train, eval):
            if part is not None:
                check_lengths(part.tokens, layout)
        collator = PairCollator(
            layout=layout,
            alpha=settings.alpha,
            mixture=settings.mixture,
            impersonal=self.impersonal,
            share=settings.share,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train,
            eval_dataset=eval,
            compute_metrics=self.metrics_of,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.sums = torch.zeros(2, 3, device=args.device)  # personal and generic: terms, right ones, margins

    def terms(self, model: nn.Module, inputs: dict[str, Any]) -> Terms:
        """Run the model on a batch."""
        own = {name: inputs[name] for name in OWN}
        values = model(**{name: value for name, value in inputs.items() if name not in OWN}).float()
        scores = values - own["reference"]
        if self.settings.loss in PER_TOKEN:
            scores = scores / own["length"]
        first, second = scores.chunk(2)
        settings = self.settings
        loss = preference_loss(
            first - second, own["outcome"], loss=settings.loss, beta=settings.strength, smoothing=settings.smoothing
        )
        if isinstance(settings, RewardSettings) and settings.centring:
            loss = loss + settings.centring * (first + second) ** 2
        return Terms(loss, settings.strength * (first - second).detach())

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the weighted losses of a micro-batch over the number of pairs of its whole step."""
        terms = self.terms(model, inputs)
        counted = inputs["labels"] != -100
        n = counted.sum() if num_items_in_batch is None else num_items_in_batch
        loss = (terms.loss * inputs["weight"]).sum() / n
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # because gradients are averaged over processes
        self.count(terms, inputs, counted)
        return (loss, terms) if return_outputs else loss

    def count(self, terms: Terms, inputs: dict[str, Any], counted: Tensor) -> None:
        """Add a batch to what is logged next."""
        decided = counted[inputs["pair"]] & (inputs["outcome"] != 0.5)
        right = hits(terms.margin, inputs["outcome"])
        towards = torch.where(inputs["outcome"] > 0.5, terms.margin, -terms.margin)
        rows = torch.stack([torch.ones_like(right), right, towards], dim=1) * decided[:, None]
        self.sums.index_add_(0, (~inputs["personal"]).long(), rows.to(self.sums.dtype))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with accuracy and margin of the personal and the generic term since the last time."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self.sums, reduction="sum").tolist()
            for (n, right, margin), name in zip(sums, ("", "_generic"), strict=True):
                if n:
                    logs[f"accuracy{name}"] = right / n
                    logs[f"margin{name}"] = margin / n
            self.sums.zero_()
        super().log(logs, start_time)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Margins and losses of a batch, personal and generic, (pairs, 4), and outcome, weight and user, (pairs, 3)."""
        moved = {k: v.to(self.args.device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        with torch.no_grad(), self.compute_loss_context_manager():
            terms = self.terms(model, moved)
        values = torch.stack([terms.margin, terms.loss], dim=1)
        generic = values[~moved["personal"]]
        personal = generic if self.impersonal else values[moved["personal"]]
        return None, torch.cat([personal, generic], dim=1), moved["about"]

    def metrics_of(self, outputs: EvalPrediction) -> dict[str, float]:
        """Loss and accuracies of evaluated comparisons.

        `accuracy` is over comparisons, `accuracy_users` the mean over users of each one's. Ties have no accuracy.
        """
        margin, loss, margin_generic, loss_generic = torch.from_numpy(np.asarray(outputs.predictions)).T
        outcome, weight, user = torch.from_numpy(np.asarray(outputs.label_ids)).T
        alpha = 0.0 if self.impersonal else self.settings.alpha
        metrics = {"loss": float(((alpha * loss + (1 - alpha) * loss_generic) * weight).mean())}
        decided = outcome != 0.5
        if decided.any():
            _, index = user[decided].unique(return_inverse=True)
            n = torch.bincount(index)
            for name, values in (("", margin), ("_generic", margin_generic)):
                right = hits(values, outcome)[decided]
                metrics[f"accuracy{name}"] = float(right.mean())
                metrics[f"accuracy_users{name}"] = float((torch.bincount(index, weights=right) / n).mean())
        return metrics

    def get_train_dataloader(self) -> StepLoader:
        """Loader of this process's micro-batches."""
        train = self.train_dataset
        if not isinstance(train, PairDataset):
            raise ConfigError("there are no comparisons to learn from")
        args = self.args
        sampler = StepSampler(
            train.tokens.lengths(),
            batch=args.per_device_train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            rank=args.process_index,
            world=args.world_size,
            alpha=self.settings.alpha,
            mixture=self.settings.mixture,
            seed=self.settings.seed if args.data_seed is None else args.data_seed,
            drop_last=args.dataloader_drop_last,
        )
        workers = args.dataloader_num_workers
        return StepLoader(
            train,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            persistent_workers=args.dataloader_persistent_workers and workers > 0,
            prefetch_factor=args.dataloader_prefetch_factor if workers else None,
            generator=torch.Generator(),  # of its own: asking for a batch must not move the global one
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with users in a group of their own: no decay, and absent users stand still."""
        if self.optimizer is not None:
            return self.optimizer
        optimizer = super().create_optimizer(model)
        users = self.user_model().parameters()
        own = {id(value): value for value in users if value.requires_grad}
        for group in optimizer.param_groups:
            group["params"] = [value for value in group["params"] if id(value) not in own]
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        if own:
            rate = self.settings.user_learning_rate
            optimizer.add_param_group(
                {
                    "params": list(own.values()),
                    "weight_decay": 0.0,
                    "lr": self.args.learning_rate if rate is None else rate,
                }
            )
        hold_absent_rows(optimizer, lambda: self.user_model().tables())
        return optimizer

    def user_model(self) -> UserTokens:
        """The users of what is trained, whatever the model is wrapped in."""
        return self.accelerator.unwrap_model(self.model).users


def check_lengths(tokens: PreferenceTokens, layout: Mapping[str, Any]) -> None:
    """Check that every compared sequence fits into the model, before the first of them is met.

    Raises:
        DataError: One does not.
    """
    items = np.unique(np.concatenate([tokens.chosen, tokens.rejected]))
    length = tokens.prompts.length[tokens.prompt[items]] + layout["n_tokens"] + tokens.responses.length[items]
    longest = layout["longest"]
    if longest is not None and (length > longest).any():
        raise DataError(
            f"{int((length > longest).sum()):,} of {len(items):,} sequences have more than the {longest} tokens that "
            f"the model reads; the longest has {length.max()}",
            hint="set max_prompt and max_response so that their sum and the user's tokens fit",
        )


def hits(margin: Tensor, outcome: Tensor) -> Tensor:
    """1 where a margin has the sign of what was preferred, 0.5 where it is 0."""
    return torch.where(margin == 0, 0.5, ((margin > 0) == (outcome > 0.5)).to(margin.dtype))


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0: its layers', and the rates that attention reads from its module."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]
