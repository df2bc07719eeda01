"""A Hugging Face causal LM that knows users: as a policy, and as a reward model.

Both hold a language model whose input embedding also answers for users (`PersonalEmbedding`) and read batches that
`pack` made. They are `PreTrainedModel`s, so that `transformers.Trainer` saves, resumes and shards them; what a
checkpoint of theirs holds is the trained parameters alone.

A saved model is a folder of safetensors and JSON: `pluralign.json`, `personal.safetensors` (users and head), and the
language model as `adapter/` (LoRA, PEFT's format), `model/` (full tuning, an ordinary checkpoint) or a name (frozen).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pluralign.errors import CacheError, ConfigError
from pluralign.files import replacing, write_json
from pluralign.language_models.conditioning import PersonalEmbedding
from pluralign.language_models.loading import load_language_model, quiet, read_json
from pluralign.language_models.packing import PAD, Packed, Place, tree_mask
from pluralign.language_models.probing import check_padding, sees_trees
from pluralign.language_models.user_tokens import (
    UserTokens,
    from_vocabulary,
    make_user_tokens,
    normal,
    start,
)

Model = TypeVar("Model", bound="PersonalModel")
Tuning: TypeAlias = Literal["lora", "full", "frozen"]
Head: TypeAlias = Literal["linear", "late"]
WEIGHTS = "adapter_model.safetensors"  # PEFT's name
SETTINGS, PERSONAL, ADAPTER, MODEL, CHECKPOINT = (
    "pluralign.json",
    "personal.safetensors",
    "adapter",
    "model",
    "model.safetensors",
)
# Names under which configurations say how far a token sees. GPT-Neo counts columns of the row, others positions.
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "attention_window_size")
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


class PersonalConfig(PreTrainedConfig):
    """What a personal model is, tensors apart.

    Attributes:
        base: Hub id or folder of the language model.
        users: Settings of the user model, as `UserTokens.settings` gives them.
        user_ids: The users' names, in the order of their indices.
        place: Where the user's tokens stand.
        tuning: What of the language model is trained: LoRA matrices, everything, or nothing.
        lora: Settings of `peft.LoraConfig`, where `tuning` is "lora".
        head: A reward model's: "linear" reads the last hidden state of a text with the user in it; "late" is
            <e_u, h>, h of a text without, so that one pass serves every user.
        beta: A policy's: how strongly the reference held it in training.
        loss: What it was trained by; that of some measures a response by its log-ratio per token.
        max_prompt: Most tokens of a prompt in training; None is all.
        max_response: Most tokens of a response.
    """

    model_type = "pluralign"

    def __init__(
        self,
        *,
        base: str = "",
        users: dict[str, Any] | None = None,
        user_ids: list[str] | tuple[str, ...] = (),
        place: Place = "after",
        tuning: Tuning = "lora",
        lora: dict[str, Any] | None = None,
        head: Head = "linear",
        beta: float = 0.5,
        loss: str = "sigmoid",
        max_prompt: int | None = 512,
        max_response: int | None = 512,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.base, self.users, self.user_ids = base, dict(users or {}), list(user_ids)
        self.place, self.tuning, self.head = place, tuning, head
        self.lora = {**LORA, **(lora or {})} if tuning == "lora" else None
        self.beta, self.loss, self.max_prompt, self.max_response = beta, loss, max_prompt, max_response


class PersonalModel(PreTrainedModel):
    """What policy and reward share: the language model, its users, saving and loading.

    Attributes:
        lm: The language model, a `PeftModel` where LoRA is trained.
        users: The user model.
    """

    config: PersonalConfig
    config_class = PersonalConfig
    base_model_prefix = "lm"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True  # losses are divided by the number of pairs of a whole step, not of a micro-batch
    task: ClassVar[str]
    lm: Any
    users: UserTokens

    def __init__(self, config: PersonalConfig, lm: Any, users: UserTokens) -> None:
        super().__init__(config)
        # Before `lm`, whose embedding holds it too: a parameter goes by its first name.
        self.users = users.to(lm.get_input_embeddings().weight.device)
        self._no_split_modules = getattr(lm, "_no_split_modules", None)
        if config.tuning == "lora":
            lm = _with_lora(lm, {"task_type": self.task, **(config.lora or {})})
        elif config.tuning == "frozen":
            lm.requires_grad_(False)
        elif config.tuning != "full":
            raise ConfigError(f'tuning is "{config.tuning}"; it must be lora, full or frozen')
        if config.place not in ("before", "after"):
            raise ConfigError(f'place is "{config.place}"; it must be before or after')
        self.lm = lm

    def read_users(self) -> None:
        """Have the input embedding answer for users.

        Raises:
            ConfigError: The model asks another embedding for every id too, as Gemma 4's small ones do.
        """
        embedding, config = self.lm.get_input_embeddings(), self.inner.config.get_text_config()
        # Gemma 3n has fewer rows there than words, and passes over ids that are beyond.
        n_rows = config.vocab_size_per_layer_input if getattr(config, "hidden_size_per_layer_input", 0) else 0
        if self.users.n_tokens and n_rows >= len(embedding.weight):
            raise ConfigError(
                f"{type(self.inner).__name__} has an embedding for every layer, in which users have no rows",
                hint="take another language model, a reward model with a late head, or users without tokens",
            )
        self.inner.set_input_embeddings(PersonalEmbedding(embedding, self.users))

    @staticmethod
    def read_base(base: str, **settings: Any) -> Any:
        """The language model named by a hub id or a folder."""
        raise NotImplementedError

    @classmethod
    def make(cls: type[Model], config: PersonalConfig, *, seed: int = 0, lm: Any = None, **settings: Any) -> Model:
        """A model at the start of its training.

        Args:
            config: What it is. The width of the users is the model's where `users` does not say.
            seed: Where the users' rows, the head and LoRA's matrices begin.
            lm: The language model, where it is there already.
            settings: Passed on to `from_pretrained` (dtype, device_map, attn_implementation, ...). What is trained as a
                whole is read in float32 where no dtype is given: to bfloat16 most steps are less than its rounding.
        """
        if config.tuning == "full":
            settings.setdefault("dtype", torch.float32)
        lm = cls.read_base(config.base, **settings) if lm is None else lm
        config.base = config.base or lm.name_or_path
        embedding = lm.get_input_embeddings()
        config.users = {"kind": "uniform", "n_tokens": 0, "n_users": len(config.user_ids), **config.users}
        config.users.setdefault("dim", embedding.embedding_dim)
        if len(set(config.user_ids)) < len(config.user_ids):
            twice = next(name for name in config.user_ids if config.user_ids.count(name) > 1)
            raise ConfigError(f'user "{twice}" is there twice; users\' names must differ')
        if config.user_ids and config.users["n_users"] != len(config.user_ids):
            raise ConfigError(f"there are {len(config.user_ids)} names for {config.users['n_users']} users")
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config, lm, make_user_tokens(**config.users))
        model.begin(embedding.weight.detach(), generator)
        return model.eval()

    def begin(self, vocabulary: Float[Tensor, "words dim"], generator: torch.Generator) -> None:
        """Fill what training starts from."""
        start(self.users, from_vocabulary(vocabulary, generator), generator)

    @property
    def user_ids(self) -> list[str]:
        return self.config.user_ids

    @property
    def place(self) -> Place:
        return self.config.place if self.users.n_tokens else "none"

    @property
    def inner(self) -> Any:
        """The language model without PEFT's wrapping."""
        return self.lm.get_base_model() if self.config.tuning == "lora" else self.lm

    @property
    def layout(self) -> dict[str, Any]:
        """What `pack` needs to know of the model, by keyword."""
        return {
            "place": self.place,
            "vocab_size": self.get_input_embeddings().num_embeddings,
            "n_tokens": self.users.n_tokens if self.place != "none" else 0,
            "share_limit": self.share_limit,
            "longest": getattr(self.inner.config, "max_position_embeddings", None),
        }

    @cached_property
    def share_limit(self) -> int | None:
        """Longest row that several sequences may share; None is any, 0 none.

        Rows are shared by a mask for every pair of tokens and by explicit positions. Some architectures do not honour
        these (ALiBi, state spaces, flash attention), which a few random tokens tell, once; where a token sees through a
        window, a row must fit into it, which the configuration tells.
        """
        config = self.inner.config
        if config._attn_implementation not in ("sdpa", "eager"):
            return 0
        if not sees_trees(self):
            check_padding(self)
            return 0
        if set(getattr(config, "layer_types", None) or ["unknown"]) == {"full_attention"}:
            return None
        windows = [getattr(config, name, None) for name in WINDOWS]
        return min((each for each in windows if isinstance(each, int)), default=None)

    def read(self, module: nn.Module, packed: Packed, **more: Any) -> Any:
        """One pass of the language model, or of its body, over a batch; it is given what it knows of."""
        known = inspect.signature(self.inner.forward).parameters
        settings = {"position_ids": packed.position_ids, **more}
        return module(
            input_ids=packed.input_ids,
            attention_mask=self.attention(packed),
            use_cache=False,
            **{name: value for name, value in settings.items() if name in known},
        )

    def attention(self, packed: Packed) -> Tensor:
        """Attention mask of a batch: plain where no row has several branches, else who sees whom."""
        if not packed.shared:
            return (packed.segment != PAD).long()
        return self.as_mask(tree_mask(packed.segment))

    def as_mask(self, seen: Bool[Tensor, "rows one length width"]) -> Tensor:
        """Who sees whom, as the attention that is in use reads it: as it is, or as numbers to add."""
        if self.inner.config._attn_implementation == "sdpa":
            return seen
        dtype = self.get_input_embeddings().weight.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)

    def without_adapter(self) -> AbstractContextManager[None]:
        """A context in which the language model is what it was before training (LoRA and frozen alone)."""
        if self.config.tuning == "full":
            raise ConfigError("a fully tuned model does not hold what it was; load its base")
        return self.lm.disable_adapter() if self.config.tuning == "lora" else nullcontext()

    def get_input_embeddings(self) -> Any:
        return self.lm.get_input_embeddings()

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """Give a tied LM head the embedding's rows again, which sharding may have parted."""
        head = self.inner.get_output_embeddings()
        if head is not None and self.inner.config.tie_word_embeddings:
            head.weight = self.get_input_embeddings().weight

    @property
    def _keys_to_ignore_on_save(self) -> list[str]:
        """What a checkpoint lacks on purpose: the Trainer warns of it otherwise."""
        return sorted(set(self.state_dict()) - set(self.trained()))

    def trained(self) -> dict[str, Tensor]:
        """Parameters that training moves, and buffers of the user model, by name."""
        values = {name: value for name, value in self.named_parameters() if value.requires_grad}
        return values | {f"users.{name}": value for name, value in self.users.named_buffers()}

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        state_dict: dict[str, Tensor] | None = None,
        is_main_process: bool = True,
        **_: Any,
    ) -> None:
        """Write a training checkpoint: what was trained, in one file, as `Trainer` reads it to go on."""
        if not is_main_process:
            return
        mine = self.trained()
        values = mine if state_dict is None else {name: value for name, value in state_dict.items() if name in mine}
        folder = Path(save_directory)
        _write_tensors(folder / CHECKPOINT, values)
        write_json(folder / SETTINGS, self.settings())

    def settings(self) -> dict[str, Any]:
        """What `load` needs, tensors apart."""
        names = ("base", "users", "user_ids", "place", "tuning", "lora", "head", "beta", "loss")
        limits = ("max_prompt", "max_response")
        return {"model": type(self).__name__, **{name: getattr(self.config, name) for name in (*names, *limits)}}

    def save(self, folder: str | Path) -> None:
        """Write the model to use and to ship."""
        folder = Path(folder)
        mine = {name: value for name, value in self.state_dict().items() if not name.startswith("lm.")}
        _write_tensors(folder / PERSONAL, mine)
        if self.config.tuning == "lora":
            # PEFT asks the hub about the base's vocabulary unless it is told not to save embeddings.
            self.lm.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
        elif self.config.tuning == "full":
            own = self.lm.get_input_embeddings()
            try:
                if isinstance(own, PersonalEmbedding):
                    self.lm.set_input_embeddings(own.base)
                with quiet():
                    self.lm.save_pretrained(folder / MODEL)
            finally:
                self.lm.set_input_embeddings(own)
        write_json(folder / SETTINGS, self.settings())

    @classmethod
    def load(cls: type[Model], folder: str | Path, *, base: str | None = None, **settings: Any) -> Model:
        """Read what `save` or a training checkpoint holds.

        Args:
            folder: The model's folder.
            base: The language model, where it no longer lies where it did.
            settings: Passed on to `from_pretrained`.

        Raises:
            CacheError: The folder holds no model of this kind, it is damaged, or its base is another.
        """
        folder = Path(folder)
        path = folder / SETTINGS
        if not path.is_file():
            raise CacheError(f"{folder} holds no personal model: there is no {SETTINGS}")
        kept = read_json(path)
        if kept.pop("model", None) != cls.__name__:
            raise CacheError(f"{folder} does not hold a {cls.__name__}")
        config = PersonalConfig(**kept)
        config.base = base or config.base
        shipped = (folder / PERSONAL).is_file()
        if not shipped and not (folder / CHECKPOINT).is_file():
            raise CacheError(f"{folder} holds no whole model: there is no {PERSONAL}")
        for tuning, part in (("lora", ADAPTER), ("full", MODEL)):
            if shipped and config.tuning == tuning and not (folder / part).is_dir():
                raise CacheError(f"{folder} holds no whole model: there is no {part}/")
        if config.tuning == "full" and not shipped:
            settings.setdefault("dtype", torch.float32)  # as `make`
        lm = cls.read_base(str(folder / MODEL) if shipped and config.tuning == "full" else config.base, **settings)
        model = cls(config, lm, make_user_tokens(**config.users))
        if shipped:
            own = {name for name in model.state_dict() if not name.startswith("lm.")}
            values = _read_tensors(folder / PERSONAL, own)
            if config.tuning == "lora":
                load_adapter(model.lm, folder / ADAPTER)
        else:
            values = _read_tensors(folder / CHECKPOINT, set(model.trained()))
        try:
            model.load_state_dict(values, strict=False)
        except RuntimeError as error:  # tensors of other shapes
            raise CacheError(f"{folder} holds users of another model: {error}") from error
        return model.eval()


class PersonalPolicy(PersonalModel):
    """A language model that writes for a user: log-probabilities of responses."""

    task = "CAUSAL_LM"

    def __init__(self, config: PersonalConfig, lm: Any, users: UserTokens) -> None:
        super().__init__(config, lm, users)
        self.read_users()

    @staticmethod
    def read_base(base: str, **settings: Any) -> Any:
        return load_language_model(AutoModelForCausalLM, base, **settings)

    def forward(self, **batch: Any) -> Float[Tensor, " sequences"]:
        """Log-probability of each sequence's response given what stands before it, in nats, (sequences,).

        `batch` are the fields of `Packed`.
        """
        packed = Packed(**batch)
        kept = packed.input_ids.shape[1] - packed.first
        column = packed.target_column - packed.first
        head = self.inner.get_output_embeddings()
        before = head.register_forward_pre_hook(
            lambda _, states: (states[0][:, -kept:][packed.target_row, column][None],)  # some models keep all columns
        )
        try:
            picked = self.read(self.lm, packed, logits_to_keep=kept).logits[0]
        finally:
            before.remove()
        tokens = -cross_entropy(picked.float(), packed.target, reduction="none")
        return tokens.new_zeros(len(packed.end_row)).index_add(0, packed.target_branch, tokens)[packed.branch]


class PersonalReward(PersonalModel):
    """A language model that scores a response for a user.

    P-RLHF's P-RM: a user's tokens in the text and a linear head on the last hidden state ("linear"), or the user as the
    head ("late"). The hidden state is the response's last token's, wherever a batch puts it.
    """

    task = "FEATURE_EXTRACTION"

    def __init__(self, config: PersonalConfig, lm: Any, users: UserTokens) -> None:
        if config.head not in ("linear", "late"):
            raise ConfigError(f'head is "{config.head}"; it must be linear or late')
        if config.head == "late" and users.n_tokens != 1:
            raise ConfigError(f"a late head is one vector per user; n_tokens is {users.n_tokens}")
        super().__init__(config, lm, users)
        if config.head == "linear":
            self.head = nn.Linear(users.dim, 1, bias=False, device=lm.get_input_embeddings().weight.device)
            self.read_users()

    @staticmethod
    def read_base(base: str, **settings: Any) -> Any:
        return load_language_model(AutoModel, base, **settings)

    @property
    def place(self) -> Place:
        return "none" if self.config.head == "late" else super().place

    def begin(self, vocabulary: Float[Tensor, "words dim"], generator: torch.Generator) -> None:
        """Soft tokens start in the vocabulary; a head at random, small as the model's own weights at their start."""
        small = normal(getattr(self.inner.config, "initializer_range", None) or 0.02, generator)
        if self.config.head == "late":
            start(self.users, small, generator)
        else:
            start(self.users, from_vocabulary(vocabulary, generator), generator)
            with torch.no_grad():
                self.head.weight.copy_(small(self.head.weight.shape))

    def forward(self, **batch: Any) -> Float[Tensor, " sequences"]:
        """Reward of each sequence for its user; `batch` are the fields of `Packed`."""
        packed = Packed(**batch)
        hidden = self.read(self.lm, packed).last_hidden_state[packed.end_row, packed.end_column]
        if self.config.head == "linear":
            return self.head(hidden.to(self.head.weight))[packed.branch, 0]
        vectors = self.users(packed.user)[:, 0]
        return (hidden.to(vectors)[packed.branch] * vectors).sum(-1)


def _with_lora(lm: Any, settings: dict[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model

    turned = any(isinstance(each, Conv1D) for each in lm.modules())  # GPT-2 keeps its matrices transposed
    with warnings.catch_warnings():
        # PEFT asks for the attribute by the name that transformers is leaving.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        try:
            return get_peft_model(lm, LoraConfig(**{"fan_in_fan_out": turned, **settings}))
        except ValueError as error:  # no such modules, or modules that are not to be adapted (Mamba's)
            raise ConfigError(f"LoRA: {error}", hint="name modules of the model in lora's target_modules") from error


def load_adapter(lm: Any, folder: Path) -> None:
    """Give a language model the adapter that was saved in a folder.

    Raises:
        CacheError: It is not there, it is damaged, or it belongs to another language model.
    """
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    path = folder / WEIGHTS
    if not path.is_file():  # PEFT would ask the hub
        raise CacheError(f"{folder} holds no adapter: there is no {WEIGHTS}")
    try:
        found: Any = set_peft_model_state_dict(lm, load_peft_weights(str(folder), device="cpu"))
    except SafetensorError as error:
        raise CacheError(f"{path} is damaged: {error}") from error
    except RuntimeError as error:
        raise CacheError(f"{path} belongs to another language model: {error}") from error
    apart = [*found.unexpected_keys, *(name for name in found.missing_keys if "lora_" in name)]
    if apart:
        raise CacheError(f"{path} belongs to another language model: {len(apart)} of its matrices, such as {apart[0]}")


def _write_tensors(path: Path, values: dict[str, Tensor]) -> None:
    with replacing(path) as part:
        save_file({name: value.detach().cpu().contiguous() for name, value in values.items()}, part)


def _read_tensors(path: Path, names: Set[str]) -> dict[str, Tensor]:
    """Read tensors and check that they are those of these names.

    Raises:
        CacheError: There is no such file, it is damaged, or others are there.
    """
    if not path.is_file():
        raise CacheError(f"{path.parent} holds no personal model: there is no {path.name}")
    try:
        values = load_file(path)
    except SafetensorError as error:
        raise CacheError(f"{path} is damaged: {error}") from error
    if values.keys() != names:
        wrong = sorted(names ^ values.keys())[0]
        raise CacheError(f"{path} {'has no' if wrong in names else 'has an unknown'} tensor {wrong}")
    return values
