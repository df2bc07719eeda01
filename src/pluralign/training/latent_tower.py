"""A language model whose head reads [h(text); z]: VPL's reward model (arXiv 2408.10075) with a tuned target tower.

A text is a *target* or stands in a user's *context*. Targets pass through the tuned model, the *tower*; contexts are
read off features that the model gave before any tuning, each text once and for ever. Both are standardised alike and
end in a few coordinates, for targets by a matrix that is tuned. Encoder, prior and decoder are those of
`pluralign.users.latent`, so that a tower that has not moved yet is the latent model of its frozen features.

From the paper's released code it differs in that h is the hidden state of the last token and not the output of a
classification head; that z has one scale in training and evaluation, without clamps or normalisation; and in all that
`pluralign.users.latent` names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel

from pluralign.errors import ConfigError
from pluralign.features import Item, Standardizer
from pluralign.inference.latent_elbo import Bound, explain
from pluralign.inference.latent_encoder import Comparisons
from pluralign.inference.latent_prior import divergence
from pluralign.language_models.loading import load_language_model
from pluralign.language_models.packing import Packed, pack
from pluralign.language_models.packing import Sequence as Tokens
from pluralign.language_models.personal import PersonalConfig, PersonalModel
from pluralign.language_models.reading import reading
from pluralign.language_models.user_tokens import UserTokens
from pluralign.likelihoods import Decisions
from pluralign.rewards.transformer import read_texts
from pluralign.training.reference import model_key
from pluralign.users import UNKNOWN
from pluralign.users.latent import Gaussians, Latent

POSTERIOR = ("log_weight", "mean", "log_variance")
CONTEXT = ("context_theta", "context_coordinates")
STANDARD = ("columns", "center", "scale")
PACKED = tuple(each.name for each in fields(Packed))


class LatentHead(nn.Module):
    """The tensors of a `Latent` as parameters, for contexts and for targets, and how features are standardised.

    Attributes:
        how: Form, pooling, inputs and whether it is guided, as `Latent` has them.
        bound: What training maximises.
        learned: Names of the tensors that training moves.
        raw_dim: Width of a hidden state.
    """

    columns: Tensor
    center: Tensor
    scale: Tensor
    reference: Tensor

    def __init__(
        self, tensors: Mapping[str, Tensor], *, learned: Collection[str], bound: Bound, raw_dim: int, **how: Any
    ) -> None:
        super().__init__()
        self.learned, self.bound, self.raw_dim, self.how = tuple(learned), bound, raw_dim, how
        for name, value in tensors.items():
            if name in (*POSTERIOR, *CONTEXT, *STANDARD):
                self.register_buffer(name, value.clone())
            else:
                self.register_parameter(name, nn.Parameter(value.clone(), requires_grad=name in self.learned))

    @classmethod
    def of(cls, start: Latent, standardizer: Standardizer, *, prior: str, bound: Bound) -> LatentHead:
        """The head of a latent model of frozen features."""
        tensors: dict[str, Tensor] = {
            **{name: getattr(start, name) for name in ("theta", "coordinates", "reference")},
            **{f"decoder_{name}": value for name, value in start.decoder.items()},
            **{f"encoder_{name}": value for name, value in start.encoder.items()},
            **{f"prior_{name}": getattr(start, f"prior_{name}") for name in POSTERIOR},
            **{name: getattr(start, name) for name in POSTERIOR},
            "context_theta": start.theta,
            "context_coordinates": start.coordinates,
        }
        tensors = {name: value.float() for name, value in tensors.items()}
        tensors |= {"columns": standardizer.columns, "center": standardizer.mean, "scale": standardizer.scale}
        still = {"reference"}
        if not start.guided and start.form != "linear":
            still |= {"decoder_taste", "decoder_shift"}
        if prior == "normal":
            still |= {"prior_mean", "prior_log_variance"}
        if prior != "mixture":
            still.add("prior_log_weight")
        learned = [name for name in tensors if name not in {*still, *POSTERIOR, *CONTEXT, *STANDARD}]
        how = {name: getattr(start, name) for name in ("form", "pooling", "inputs", "guided")}
        return cls(tensors, learned=learned, bound=bound, raw_dim=standardizer.raw_dim, **how)

    def settings(self) -> dict[str, Any]:
        """What `blank` needs."""
        shapes = {name: list(value.shape) for name, value in self.state_dict().items()}
        own = {"learned": list(self.learned), "bound": self.bound, "raw_dim": self.raw_dim}
        return {"shapes": shapes, **own, **self.how}

    @classmethod
    def blank(cls, *, shapes: Mapping[str, Sequence[int]], **settings: Any) -> LatentHead:
        """A head of zeros, which a state dict fills."""
        types = {"columns": torch.int64, "center": torch.float64, "scale": torch.float64}
        tensors = {name: torch.zeros(*shape, dtype=types.get(name, torch.float32)) for name, shape in shapes.items()}
        return cls(tensors, **settings)

    def tables(self) -> list[nn.Parameter]:
        """Parameters with a row for each user: none, users are inferred."""
        return []

    @property
    def standardizer(self) -> Standardizer:
        """How features are brought to one scale."""
        columns, center, scale = (getattr(self, name).cpu() for name in STANDARD)
        return Standardizer(mean=center, scale=scale, columns=columns, raw_dim=self.raw_dim)

    def standardize(self, features: Float[Tensor, "texts raw"]) -> Float[Tensor, "texts kept"]:
        """Features on the scale of the frozen ones of the training texts."""
        return ((features[:, self.columns].double() - self.center) / self.scale).float()

    def latent(self, *, context: bool = False) -> Latent:
        """The model of targets, or of contexts."""

        def part(prefix: str) -> dict[str, Tensor]:
            named = dict(self.named_parameters())
            return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}

        prefix = "context_" if context else ""
        return Latent(
            theta=getattr(self, f"{prefix}theta"),
            coordinates=getattr(self, f"{prefix}coordinates"),
            decoder=part("decoder_"),
            encoder=part("encoder_"),
            **{f"prior_{name}": getattr(self, f"prior_{name}") for name in POSTERIOR},
            **{name: getattr(self, name) for name in POSTERIOR},
            reference=self.reference,
            **self.how,
        )

    def place(self, posterior: Gaussians) -> None:
        """Keep the posterior of the users that the model knows."""
        for name, value in zip(POSTERIOR, posterior, strict=True):
            self.register_buffer(name, value.detach().clone())


class LatentTower(PersonalModel):
    """A language model's body, LoRA on it, and a `LatentHead`.

    Attributes:
        head: None until `begin_at`.
    """

    task = "FEATURE_EXTRACTION"
    head: LatentHead | None

    def __init__(self, config: PersonalConfig, lm: Any, users: UserTokens) -> None:
        super().__init__(config, lm, users)
        kept = getattr(config, "latent", None)
        self.head = None if kept is None else LatentHead.blank(**kept)

    @staticmethod
    def read_base(base: str, **settings: Any) -> Any:
        return load_language_model(AutoModel, base, **settings)

    def begin_at(self, head: LatentHead) -> None:
        """Put a head on."""
        self.head = head.to(self.device)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"latent": None if self.head is None else self.head.settings()}

    def trained(self) -> dict[str, Tensor]:
        own = {} if self.head is None else self.head.state_dict()
        return super().trained() | {f"head.{name}": value for name, value in own.items()}

    def forward(self, **batch: Any) -> Float[Tensor, "rows values"]:
        """Hidden state of the last token of each sequence, (sequences, dim); or, given contexts, what `bound` says.

        `batch` are the fields of `Packed`, and the arguments of `bound` if any.

        Raises:
            ConfigError: The model gives no hidden states.
        """
        packed = Packed(**{name: batch.pop(name) for name in PACKED})
        output = self.read(self.lm, packed)
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None:
            raise ConfigError(
                f'"{self.config.base}" gives no last_hidden_state; a decoder or an encoder of transformers does'
            )
        features = hidden[packed.end_row, packed.end_column].float()[packed.branch]
        if not batch:
            return features
        with torch.autocast(features.device.type, enabled=False):
            return self.bound(features, **batch)

    def bound(
        self,
        features: Float[Tensor, "sequences dim"],
        *,
        context_items: Float[Tensor, "items width1"],
        context_chosen: Int[Tensor, " comparisons"],
        context_rejected: Int[Tensor, " comparisons"],
        context_outcome: Float[Tensor, " comparisons"],
        context_weight: Float[Tensor, " comparisons"],
        context_owner: Int[Tensor, " comparisons"],
        share: Float[Tensor, " contexts"],
        noise: Float[Tensor, "contexts 1 draws latent"],
        target_outcome: Float[Tensor, " terms"],
    ) -> Float[Tensor, "terms 4"]:
        """What each term adds to the bound, a mean over its contexts.

        Args:
            features: Hidden states of the terms' first responses, then of their second.
            context_items: Coordinates of the contexts' texts (`Latent.items`).
            context_chosen: First text of every comparison.
            context_rejected: Second.
            context_outcome: Probability that the first was preferred.
            context_weight: Weight.
            context_owner: The context that it is in; a term's contexts stand side by side.
            share: Of the context's divergence, which all targets of the user share.
            noise: Draws from N(0, I).
            target_outcome: Probability that the term's first response is preferred.

        Returns:
            log P, the share of KL(q || prior), all of it, and the margin, each (terms,); nats but for the margin.
        """
        head = self.head
        assert head is not None
        latent = head.latent()
        items = torch.cat([context_items, latent.items(head.standardize(features))])
        n, contexts = len(target_outcome), len(share)
        m, first = contexts // n, len(context_items)
        owner = torch.arange(contexts, device=items.device)
        target = first + owner // m

        def comparisons(chosen: Tensor, rejected: Tensor, outcome: Tensor, weight: Tensor, owner: Tensor) -> Any:
            index = torch.arange(len(chosen), device=items.device)
            decisions = Decisions(index=index, outcome=outcome, position=torch.zeros_like(outcome))
            return Comparisons(
                chosen=chosen, rejected=rejected, decisions=decisions, weight=weight, owner=owner, group=owner,
                n_users=contexts,
            )  # fmt: skip

        said = explain(
            latent,
            items,
            comparisons(context_chosen, context_rejected, context_outcome, context_weight, context_owner),
            comparisons(target, target + n, target_outcome.repeat_interleave(m), torch.ones_like(share), owner),
            noise,
            head.bound,
        )
        kl = divergence(latent.prior, said.message)[0]
        return torch.stack([said.log_prob, kl * share, kl, said.margin], dim=1).view(n, m, 4).mean(1)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class TowerEncoder:
    """A tower as an encoder of texts (`pluralign.features.Encoder`): prompt and response, tokenised as in training.

    Attributes:
        tower: The language model.
        tokenizer: Its tokenizer.
        frozen: Without what training added. A fully tuned tower must be at its start.
        max_prompt: Tokens of a prompt that are read.
        max_response: Tokens of a response that are read.
    """

    kind: ClassVar[str] = "tower"
    stored: ClassVar[str] = "float32"
    tower: LatentTower
    tokenizer: Any
    frozen: bool
    max_prompt: int | None = 512
    max_response: int | None = 512

    @property
    def identity(self) -> dict[str, object]:
        """What features depend on. Those of a tuned tower are not for a cache: it has no name that outlives it."""
        weights = model_key(self.tower) if self.frozen else f"tuned {id(self.tower)}"
        limits = {"max_prompt": self.max_prompt, "max_response": self.max_response}
        return {"kind": self.kind, "weights": weights, **limits}

    @property
    def dim(self) -> int:
        return int(self.tower.inner.config.get_text_config().hidden_size)

    def encode(self, items: Sequence[Item], *, device: str | None = None, batch_size: int = 32) -> np.ndarray:
        """Hidden states of the last tokens, (items, dim), float32; computed where the tower is."""
        tower = self.tower
        texts, number = read_texts(
            self.tokenizer, [each.prompt for each in items], [each.response for each in items],
            max_prompt=self.max_prompt, max_response=self.max_response,
        )  # fmt: skip
        lengths = texts.prompts.length[texts.prompt], texts.responses.length
        order = np.lexsort((lengths[1], texts.prompt, lengths[0]))[::-1].tolist()
        out = np.empty((len(order), self.dim), dtype=np.float32)
        bare = self.frozen and tower.config.tuning == "lora"
        with reading(tower), tower.without_adapter() if bare else nullcontext():
            for at in range(0, len(order), batch_size):
                some = order[at : at + batch_size]
                read = [
                    Tokens(prompt=texts.prompts[int(texts.prompt[i])], response=texts.responses[i], user=UNKNOWN)
                    for i in some
                ]
                packed = pack(read, **tower.layout).to(tower.get_input_embeddings().weight.device)
                out[some] = tower(**packed.tensors()).numpy(force=True)
        return out[number]
