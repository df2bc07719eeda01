"""A Hugging Face causal LM that knows users: as a policy, and as a reward model.

Both hold a language model whose input embedding also answers for users (`PersonalEmbedding`) and read batches that
`pack` made. They are `PreTrainedModel`s, so that `transformers.Trainer` saves, resumes and shards them; what a
checkpoint of theirs holds is the trained parameters alone.

A saved model is a folder of safetensors and JSON: `pluralign.json`, `personal.safetensors` (users and head), and the
language model as `adapter/` (LoRA, PEFT's format), `model/` (full tuning, an ordinary checkpoint) or a name (frozen).
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from pluralign.errors import CacheError, ConfigError
from pluralign.files import replacing, write_json
from pluralign.language_models.conditioning import PersonalEmbedding
from pluralign.language_models.packing import PAD, Packed, Place, tree_mask
from pluralign.language_models.user_tokens import UserTokens, make_user_tokens, start

Tuning: TypeAlias = Literal["lora", "full", "frozen"]
Head: TypeAlias = Literal["linear", "late"]
SETTINGS, PERSONAL, ADAPTER, MODEL, CHECKPOINT = (
    "pluralign.json",
    "personal.safetensors",
    "adapter",
    "model",
    "model.safetensors",
)
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
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.base, self.users, self.user_ids = base, dict(users or {}), list(user_ids)
        self.place, self.tuning, self.head = place, tuning, head
        self.lora = {**LORA, **(lora or {})} if tuning == "lora" else None


class PersonalModel(PreTrainedModel):
    """What policy and reward share: the language model, its users, saving and loading.

    Attributes:
        lm: The language model, a `PeftModel` where LoRA is trained.
        users: The user model.
    """

    config_class = PersonalConfig
    base_model_prefix = "lm"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True  # losses are divided by the number of pairs of a whole step, not of a micro-batch
    task: ClassVar[str]
    lm: Any
    users: UserTokens

    def __init__(self, config: PersonalConfig, lm: nn.Module, users: UserTokens) -> None:
        super().__init__(config)
        self.users = users  # before `lm`, whose embedding holds it too: a parameter goes by its first name
        self._no_split_modules = getattr(lm, "_no_split_modules", None)
        if config.tuning == "lora":
            from peft import LoraConfig, get_peft_model

            lm = get_peft_model(lm, LoraConfig(task_type=self.task, **(config.lora or {})))
        elif config.tuning == "frozen":
            lm.requires_grad_(False)
        elif config.tuning != "full":
            raise ConfigError(f'tuning is "{config.tuning}"; it must be lora, full or frozen')
        self.lm = lm

    @staticmethod
    def read_base(base: str, **settings: Any) -> Any:
        """The language model named by a hub id or a folder."""
        raise NotImplementedError

    @classmethod
    def make(cls, config: PersonalConfig, *, seed: int = 0, lm: Any = None, **settings: Any) -> Self:
        """A model at the start of its training.

        Args:
            config: What it is. The width of the users is the model's where `users` does not say.
            seed: Where the users' rows, the head and LoRA's matrices begin.
            lm: The language model, where it is there already.
            settings: Passed on to `from_pretrained` (dtype, device_map, attn_implementation, ...).
        """
        lm = cls.read_base(config.base, **settings) if lm is None else lm
        embedding = lm.get_input_embeddings()
        config.users = {"kind": "uniform", "n_tokens": 0, "n_users": len(config.user_ids), **config.users}
        config.users.setdefault("dim", embedding.embedding_dim)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config, lm, make_user_tokens(**config.users))
        model.begin(embedding.weight.detach(), generator)
        return model

    def begin(self, vocabulary: Float[Tensor, "words dim"], generator: torch.Generator) -> None:
        """Fill what training starts from."""
        start(self.users, vocabulary, generator)

    @property
    def user_ids(self) -> list[str]:
        return self.config.user_ids

    @property
    def place(self) -> Place:
        return self.config.place if self.users.n_tokens else "none"

    def attention(self, segment: Int[Tensor, "rows length"], shared: bool) -> Tensor:
        """Attention mask of a batch: plain where no row has several branches, else who sees whom."""
        if not shared:
            return (segment != PAD).long()
        seen = tree_mask(segment)
        if self.lm.config._attn_implementation == "sdpa":
            return seen
        dtype = self.lm.get_input_embeddings().weight.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)

    def without_adapter(self) -> AbstractContextManager[None]:
        """A context in which the language model is what it was before training (LoRA and frozen alone)."""
        if self.config.tuning == "full":
            raise ConfigError("a fully tuned model does not hold what it was; load its base")
        return self.lm.disable_adapter() if self.config.tuning == "lora" else nullcontext()

    # What the trainer asks of a model goes to the language model.
    def get_input_embeddings(self) -> nn.Module:
        return self.lm.get_input_embeddings()

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        self.lm.gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        self.lm.gradient_checkpointing_disable()

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
        names = ("base", "users", "user_ids", "place", "tuning", "lora", "head")
        return {"model": type(self).__name__, **{name: getattr(self.config, name) for name in names}}

    def save(self, folder: str | Path) -> None:
        """Write the model to use and to ship."""
        folder = Path(folder)
        mine = {name: value for name, value in self.state_dict().items() if not name.startswith("lm.")}
        _write_tensors(folder / PERSONAL, mine)
        if self.config.tuning == "lora":
            self.lm.save_pretrained(folder / ADAPTER)
        elif self.config.tuning == "full":
            own = self.lm.get_input_embeddings()
            try:
                if isinstance(own, PersonalEmbedding):
                    self.lm.set_input_embeddings(own.base)
                self.lm.save_pretrained(folder / MODEL)
            finally:
                self.lm.set_input_embeddings(own)
        write_json(folder / SETTINGS, self.settings())

    @classmethod
    def load(cls, folder: str | Path, *, base: str | None = None, **settings: Any) -> Self:
        """Read what `save` or a training checkpoint holds.

        Args:
            folder: The model's folder.
            base: The language model, where it no longer lies where it did.
            settings: Passed on to `from_pretrained`.

        Raises:
            CacheError: The folder holds no model of this kind.
        """
        folder = Path(folder)
        path = folder / SETTINGS
        if not path.is_file():
            raise CacheError(f"{folder} holds no personal model: there is no {SETTINGS}")
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("model") != cls.__name__:
            raise CacheError(f"{folder} does not hold a {cls.__name__}")
        config = PersonalConfig(**kept)
        config.base = base or config.base
        full = folder / MODEL
        lm = cls.read_base(str(full) if full.is_dir() else config.base, **settings)
        model = cls(config, lm, make_user_tokens(**config.users))
        if (folder / PERSONAL).is_file():
            values = load_file(folder / PERSONAL)
            if config.tuning == "lora":
                from peft.utils import load_peft_weights, set_peft_model_state_dict

                set_peft_model_state_dict(model.lm, load_peft_weights(str(folder / ADAPTER), device="cpu"))
        else:
            values = load_file(folder / CHECKPOINT)
        model.load_state_dict(values, strict=False)
        return model.eval()


class PersonalPolicy(PersonalModel):
    """A language model that writes for a user: log-probabilities of responses."""

    task = "CAUSAL_LM"

    def __init__(self, config: PersonalConfig, lm: nn.Module, users: UserTokens) -> None:
        super().__init__(config, lm, users)
        inner = self.lm.get_base_model() if config.tuning == "lora" else self.lm
        inner.set_input_embeddings(PersonalEmbedding(inner.get_input_embeddings(), users))

    @staticmethod
    def read_base(base: str, **settings: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(base, **settings)

    def forward(self, *, return_tokens: bool = False, **batch: Any) -> Tensor:
        """Log-probability of each sequence's response given what stands before it, in nats, (sequences,).

        Args:
            return_tokens: Give those of the tokens instead, (targets,).
            batch: Fields of `Packed`.
        """
        packed = Packed(**batch)
        logits = self.lm(
            input_ids=packed.input_ids,
            attention_mask=self.attention(packed.segment, packed.shared),
            position_ids=packed.position_ids,
            logits_to_keep=packed.input_ids.shape[1] - packed.first,
            use_cache=False,
        ).logits
        picked = logits[packed.target_row, packed.target_column - packed.first]
        tokens = -cross_entropy(picked.float(), packed.target, reduction="none")
        if return_tokens:
            return tokens
        return tokens.new_zeros(len(packed.end_row)).index_add(0, packed.target_branch, tokens)[packed.branch]


class PersonalReward(PersonalModel):
    """A language model that scores a response for a user.

    P-RLHF's P-RM: a user's tokens in the text and a linear head on the last hidden state ("linear"), or the user as the
    head ("late"). The hidden state is the response's last token's, wherever a batch puts it.
    """

    task = "FEATURE_EXTRACTION"

    def __init__(self, config: PersonalConfig, lm: nn.Module, users: UserTokens) -> None:
        if config.head not in ("linear", "late"):
            raise ConfigError(f'head is "{config.head}"; it must be linear or late')
        if config.head == "late" and users.n_tokens != 1:
            raise ConfigError(f"a late head is one vector per user; n_tokens is {users.n_tokens}")
        super().__init__(config, lm, users)
        if config.head == "linear":
            self.head = nn.Linear(users.dim, 1, bias=False)
            inner = self.lm.get_base_model() if config.tuning == "lora" else self.lm
            inner.set_input_embeddings(PersonalEmbedding(inner.get_input_embeddings(), users))

    @staticmethod
    def read_base(base: str, **settings: Any) -> Any:
        return AutoModel.from_pretrained(base, **settings)

    @property
    def place(self) -> Place:
        return "none" if self.config.head == "late" else super().place

    def begin(self, vocabulary: Float[Tensor, "words dim"], generator: torch.Generator) -> None:
        """Soft tokens start in the vocabulary; a head at random, small as the model's own weights at their start."""
        scale = getattr(self.lm.config, "initializer_range", None) or 0.02
        with torch.no_grad():
            if self.config.head == "late":
                for name, value in self.users.named_parameters():
                    if name in ("generic", "blocks"):
                        value.copy_(scale * torch.randn(value.shape, generator=generator))
                    elif name == "logit":
                        value.copy_(torch.randn(value.shape, generator=generator))
            else:
                start(self.users, vocabulary, generator)
                self.head.weight.copy_(scale * torch.randn(self.head.weight.shape, generator=generator))

    def forward(self, **batch: Any) -> Float[Tensor, " sequences"]:
        """Reward of each sequence for its user; `batch` are the fields of `Packed`."""
        packed = Packed(**batch)
        hidden = self.lm(
            input_ids=packed.input_ids,
            attention_mask=self.attention(packed.segment, packed.shared),
            position_ids=packed.position_ids,
            use_cache=False,
        ).last_hidden_state[packed.end_row, packed.end_column]
        if self.config.head == "linear":
            return self.head(hidden.to(self.head.weight.dtype))[packed.branch, 0]
        vectors = self.users(packed.user)[:, 0]
        return (hidden.to(vectors.dtype)[packed.branch] * vectors).sum(-1)


def _write_tensors(path: Path, values: dict[str, Tensor]) -> None:
    with replacing(path) as part:
        save_file({name: value.detach().cpu().contiguous() for name, value in values.items()}, part)
