"""From comparisons and a base model to a personal reward model (P-RM) or policy (P-DPO), in one call.

The same command run again goes on from its last whole checkpoint: a run that was killed ends with the weights of one
that was not. A vanilla reward model and vanilla DPO are the same calls with users {"kind": "uniform", "n_tokens": 0}.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from pluralign.comparisons import Comparisons
from pluralign.errors import ConfigError, DataError
from pluralign.files import plain, write_json
from pluralign.language_models.loading import check_tokenizer, load_tokenizer
from pluralign.language_models.packing import Place
from pluralign.language_models.personal import PersonalConfig, PersonalModel, PersonalPolicy, PersonalReward, Tuning
from pluralign.language_models.tokens import PreferenceTokens, tokenize
from pluralign.language_models.user_tokens import ClusterTokens, TextTokens
from pluralign.rewards.transformer import TransformerReward
from pluralign.training.data import PairDataset
from pluralign.training.reference import default_cache_dir, model_key, reference_log_probs, shard_key
from pluralign.training.settings import PolicySettings, RewardSettings, Settings, changed, check_kinds
from pluralign.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)
RUN, CHECKPOINTS, TOKENIZER = "run.json", "checkpoints", "tokenizer"
# Learning rate and schedule are those of P-RLHF's released code, which also warms up over 150 steps: `warmup_steps`.
ARGUMENTS: dict[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "cosine",
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "logging_steps": 10,
    "save_total_limit": 2,
    "report_to": "none",
    "dataloader_pin_memory": torch.cuda.is_available(),
}


def train_reward(
    comparisons: Comparisons,
    base: str | Path,
    *,
    out: str | Path,
    eval: Comparisons | None = None,
    settings: RewardSettings | None = None,
    args: TrainingArguments | Mapping[str, Any] | None = None,
    resume: bool = True,
    callbacks: list[TrainerCallback] | None = None,
    loading: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[PersonalReward, Any]:
    """Train a personal reward model.

    Args:
        comparisons: What to learn from.
        base: Hub id or folder of the language model.
        out: Folder of the model; checkpoints stand in `out/checkpoints` unless `args` says otherwise.
        eval: What to evaluate on, as `args` says when; users that `comparisons` lack are the generic user.
        settings: What the run depends on.
        args: `TrainingArguments`, or some of their fields; the rest are `ARGUMENTS`.
        resume: Go on where a killed run of the same call stopped. Else begin anew, over what is there.
        callbacks: The Trainer's.
        loading: What `from_pretrained` needs (dtype, attn_implementation, ...).
        changes: Fields of `settings`, by name.

    Returns:
        The model and its tokenizer.

    Raises:
        DataError: The comparisons cannot be read by a language model.
        ConfigError: A setting is not accepted, or `out` holds another run.
    """
    settings = changed(RewardSettings() if settings is None else settings, changes)
    arguments = make_arguments(args, out)
    tokenizer, tokens = prepare(comparisons, base, settings, loading)
    model = PersonalReward.make(
        make_config(base, tokens.user_ids, settings, head=settings.head), seed=settings.seed, **(loading or {})
    )
    place_users(model, settings.users)
    evaluated = None if eval is None else PairDataset(tokens=_tokens(eval, tokenizer, settings, tokens.user_ids))
    train(
        model, tokenizer, PairDataset(tokens=tokens), settings, arguments,
        out=out, eval=evaluated, resume=resume, callbacks=callbacks,
    )  # fmt: skip
    return model, tokenizer


def train_policy(
    comparisons: Comparisons,
    base: str | Path,
    *,
    out: str | Path,
    eval: Comparisons | None = None,
    settings: PolicySettings | None = None,
    args: TrainingArguments | Mapping[str, Any] | None = None,
    resume: bool = True,
    callbacks: list[TrainerCallback] | None = None,
    cache: str | Path | None = None,
    loading: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[PersonalPolicy, Any]:
    """Train a personal policy by direct preference optimisation.

    Args:
        comparisons: As in `train_reward`, like what is not said here.
        base: Hub id or folder of the language model, which is the reference too.
        out: As there.
        eval: As there.
        settings: As there.
        args: As there.
        resume: As there.
        callbacks: As there.
        cache: Folder where the reference's log-probabilities are kept; by default `default_cache_dir`.
        loading: As there.
        changes: As there.

    Returns:
        The model and its tokenizer.

    Raises:
        DataError: The comparisons cannot be read by a language model.
        ConfigError: A setting is not accepted, or `out` holds another run.
    """
    settings = changed(PolicySettings() if settings is None else settings, changes)
    arguments = make_arguments(args, out)
    tokenizer, tokens = prepare(comparisons, base, settings, loading)
    config = make_config(base, tokens.user_ids, settings, beta=settings.beta, loss=settings.loss)
    model = PersonalPolicy.make(config, seed=settings.seed, **(loading or {}))
    place_users(model, settings.users)
    model.to(arguments.device)

    def dataset(some: PreferenceTokens) -> PairDataset:
        reference = reference_log_probs(
            model,
            some,
            cache=default_cache_dir() if cache is None else cache,
            autocast=autocast_dtype(arguments),
            rank=arguments.process_index,
            world=arguments.world_size,
            progress=not arguments.disable_tqdm,
        )
        return PairDataset(tokens=some, reference=reference)

    evaluated = None if eval is None else dataset(_tokens(eval, tokenizer, settings, tokens.user_ids))
    train(
        model, tokenizer, dataset(tokens), settings, arguments,
        out=out, eval=evaluated, resume=resume, callbacks=callbacks,
    )  # fmt: skip
    return model, tokenizer


def train(
    model: PersonalModel,
    tokenizer: Any,
    data: PairDataset,
    settings: Settings,
    args: TrainingArguments,
    *,
    out: str | Path,
    eval: PairDataset | None = None,
    resume: bool = True,
    callbacks: list[TrainerCallback] | None = None,
) -> PreferenceTrainer:
    """Train a model that is at its start, and save it and its tokenizer in `out`.

    Raises:
        ConfigError: `out` or the checkpoints' folder holds a run with other settings or data.
    """
    check_tokenizer(tokenizer, model.get_input_embeddings().num_embeddings)
    trainer = PreferenceTrainer(model, args, settings, train=data, eval=eval, callbacks=callbacks)
    run(trainer, run_key(model, data, settings, args), resume=resume)
    if args.should_save:
        folder = Path(out)
        model.eval()
        if isinstance(model, PersonalReward):
            TransformerReward(
                model=model, tokenizer=tokenizer, max_prompt=settings.max_prompt, max_response=settings.max_response
            ).save(folder)
        else:
            model.save(folder)
            tokenizer.save_pretrained(folder / TOKENIZER)
        write_json(folder / "training.json", trainer.state.log_history)
    trainer.accelerator.wait_for_everyone()
    return trainer


def run(trainer: Trainer, note: dict[str, Any], *, resume: bool = True) -> None:
    """Train to the end, from the last whole checkpoint of the run that the note describes (`run_key`), if any.

    Raises:
        ConfigError: The checkpoints' folder holds another run.
    """
    args, checkpoints = trainer.args, Path(trainer.args.output_dir)
    with args.main_process_first(desc="looking for a run to go on with"):
        last = find_run(checkpoints, note, resume) if args.process_index == 0 else last_checkpoint(checkpoints)
    train_in_its_precision(trainer, None if last is None else str(last))
    trainer.accelerator.wait_for_everyone()


def train_in_its_precision(trainer: Trainer, checkpoint: str | None = None) -> None:
    """Train, and have the model compute as it did before.

    Under mixed precision the Trainer wraps the model's forward for good. What is then made of the model would be
    computed at another precision than by the same model read from its folder, and a reference be kept under the other
    one's name. `trainer.evaluate()` afterwards is not mixed either.
    """
    assert trainer.model is not None
    own = "forward" in vars(trainer.model)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        if not own:  # what unwrapping leaves lacks the decorators of the class's forward
            vars(model).pop("forward", None)


def make_arguments(args: TrainingArguments | Mapping[str, Any] | None, out: str | Path) -> TrainingArguments:
    """The Trainer's settings.

    Raises:
        ConfigError: There is no such field, or it does not take that value.
    """
    if isinstance(args, TrainingArguments):
        mine = copy.copy(args)
        mine.remove_unused_columns = False
        return mine
    check_kinds(TrainingArguments, args or {}, foreign=True)
    given = {"output_dir": str(Path(out) / CHECKPOINTS), **ARGUMENTS, **(args or {}), "remove_unused_columns": False}
    try:
        return TrainingArguments(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training arguments: {error}") from None


def autocast_dtype(args: TrainingArguments) -> torch.dtype | None:
    """What the Trainer computes in under mixed precision, or None: a reference must be computed alike."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None


def prepare(
    comparisons: Comparisons, base: str | Path, settings: Settings, loading: Mapping[str, Any] | None = None
) -> tuple[Any, PreferenceTokens]:
    """The base's tokenizer and what it makes of comparisons.

    Of the users those count who have a row, and those whom a description or a cluster places without one.
    """
    if not len(comparisons):
        raise DataError("there are no comparisons to learn from")
    source = {name: value for name, value in (loading or {}).items() if name in ("revision", "trust_remote_code")}
    tokenizer = load_tokenizer(base, **source)
    present = [comparisons.user_ids[i] for i in np.unique(comparisons.user)]
    placed = settings.users.get("described") or settings.users.get("assignment") or {}
    return tokenizer, _tokens(comparisons, tokenizer, settings, list(dict.fromkeys([*present, *placed])))


def _tokens(comparisons: Comparisons, tokenizer: Any, settings: Settings, user_ids: Any) -> PreferenceTokens:
    tokens = tokenize(
        comparisons, tokenizer, max_prompt=settings.max_prompt, max_response=settings.max_response
    ).for_users(user_ids)
    if tokens.cut:
        logger.warning("%s: %s; raise max_prompt or max_response to keep them whole", comparisons.name, tokens.cut)
    return tokens


def make_config(base: str | Path, user_ids: Any, settings: Settings, **more: Any) -> PersonalConfig:
    """What the model is."""
    users = {name: value for name, value in settings.users.items() if name not in ("assignment", "described")}
    if "described" in settings.users:
        users["width"] = len(next(iter(settings.users["described"].values())))
    return PersonalConfig(
        base=str(base),
        users=users,
        user_ids=list(user_ids),
        place=cast(Place, settings.place),
        tuning=cast(Tuning, settings.tuning),
        lora=None if settings.lora is None else dict(settings.lora),
        max_prompt=settings.max_prompt,
        max_response=settings.max_response,
        **more,
    )


def place_users(model: PersonalModel, users: Mapping[str, Any]) -> None:
    """Give hard clusters their users and texts their vectors.

    Raises:
        ConfigError: A user has none, or the user model takes none.
    """
    takes: dict[str, Any] = {}
    if isinstance(model.users, ClusterTokens) and model.users.hard:
        takes["assignment"] = model.users.assign
    if isinstance(model.users, TextTokens):
        takes["described"] = model.users.describe
    for name in ("assignment", "described"):
        if (name in users) != (name in takes):
            raise ConfigError(f"user model {model.users.kind} {'needs' if name in takes else 'has no'} {name}")
    for name, take in takes.items():
        missing = [user for user in model.user_ids if user not in users[name]]
        if missing:
            raise ConfigError(f"users {missing[:10]} have no {name}")
        take(torch.as_tensor(np.array([users[name][user] for user in model.user_ids])))


def run_key(model: PersonalModel, data: PairDataset, settings: Settings, args: TrainingArguments) -> dict[str, Any]:
    """What two runs must share for one to go on with the other's checkpoint."""
    tokens = data.tokens
    digest = sha256(shard_key(tokens, np.unique(np.concatenate([tokens.chosen, tokens.rejected]))).encode())
    for column in (tokens.chosen, tokens.rejected, tokens.user, tokens.outcome, tokens.weight):
        digest.update(np.ascontiguousarray(column).tobytes())
    names = (
        "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "num_train_epochs", "max_steps", "warmup_steps",
        "weight_decay", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
        "neftune_noise_alpha", "bf16", "fp16", "seed", "data_seed",
    )  # fmt: skip
    step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {
        "model": model.settings(),
        "base": model_key(model),
        "settings": plain(asdict(settings)),
        "pairs_of_a_step": step,
        "arguments": {name: plain(getattr(args, name)) for name in names},
        "data": digest.hexdigest(),
    }


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: the Trainer writes its state last."""
    found = []
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            found.append((int(path.name.split("-")[1]), path))
        except (OSError, ValueError):
            continue
    return max(found, default=(0, None))[1]


def find_run(folder: Path, note: dict[str, Any], resume: bool) -> Path | None:
    """The checkpoint to go on from, or None; notes in the folder what run it is."""
    path = folder / RUN
    if resume and path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        differ = [name for name in note if json.loads(json.dumps(plain(note[name]))) != kept.get(name)]
        if differ:
            raise ConfigError(
                f"{folder} holds another run: {', '.join(differ)} differ",
                hint="give this run a folder of its own, or begin anew there (--fresh, or resume=False)",
            )
        return last_checkpoint(folder)
    old = sorted(folder.glob("checkpoint-*"))
    if old and not path.is_file():
        raise ConfigError(f"{folder} holds checkpoints of a run that is not known; give this run a folder of its own")
    for each in old:
        shutil.rmtree(each)
    write_json(path, note)
    return None
