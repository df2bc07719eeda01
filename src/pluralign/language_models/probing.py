"""What an architecture makes of masks and padding, told by its hidden states of a few random tokens."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from pluralign.errors import ConfigError
from pluralign.language_models.packing import Sequence, pack
from pluralign.language_models.user_tokens import UNKNOWN

if TYPE_CHECKING:
    from pluralign.language_models.personal import PersonalModel


def sees_trees(model: PersonalModel) -> bool:
    """Whether the last tokens of three branches have the same hidden states in one row and in three."""
    prompt, *responses = _random_ids(model, 4, 6)
    sequences = [Sequence(prompt=prompt, response=each, user=UNKNOWN) for each in responses]
    apart = _end_states(model, sequences, share=False)
    try:
        together = _end_states(model, sequences, share=True)
    except Exception:  # an architecture raises what it likes at a mask that it does not know
        return False
    return bool((_unlike(model, together, apart) <= 1).all())


def check_padding(model: PersonalModel) -> None:
    """Check that prompts are read the same by themselves and where a longer one in their batch pads them.

    Raises:
        ConfigError: None of three is: the architecture does not heed the mask.
    """
    long, *short = (Sequence(prompt=ids, response=ids[:2], user=UNKNOWN) for ids in _random_ids(model, 4, 24))
    short = [replace(each, prompt=each.prompt[:n]) for each, n in zip(short, (3, 6, 12), strict=True)]
    padded = _end_states(model, [*short, long], share=False)[:-1]
    alone = torch.cat([_end_states(model, [each], share=False) for each in short])
    if (_unlike(model, padded, alone) > 1).all():  # one may be: experts that are as good as equal change places
        raise ConfigError(
            f"{type(model.inner).__name__} reads padding as if it were text: what it makes of a text would depend "
            "on the texts beside it",
            hint="take a language model of another architecture",
        )


def _random_ids(model: PersonalModel, n: int, length: int) -> list[tuple[int, ...]]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(model.get_input_embeddings().num_embeddings, (n, length), generator=draw)
    return [tuple(each) for each in ids.tolist()]


def _unlike(
    model: PersonalModel, states: Float[Tensor, "texts width"], others: Float[Tensor, "texts width"]
) -> Float[Tensor, " texts"]:
    """How much each row differs from the one that it should be, in units of what rounding may do."""
    rounding = 1e-3 if model.get_input_embeddings().weight.dtype == torch.float32 else 5e-2
    return (states - others).abs().amax(1) / (rounding * others.abs().max())


def _end_states(model: PersonalModel, sequences: Several[Sequence], *, share: bool) -> Float[Tensor, "texts width"]:
    """Hidden states of the sequences' last tokens."""
    embedding, training, body = model.get_input_embeddings(), model.training, model.inner.base_model
    if body is model.inner:  # Llama 4 does not name the body of its LM
        body = getattr(body, "model", body)
    packed = pack(sequences, place="none", vocab_size=embedding.num_embeddings, n_tokens=0, share=share).to(
        embedding.weight.device
    )
    model.eval()
    try:
        # Under autocast rows of different shapes would differ by its rounding.
        with torch.no_grad(), torch.autocast(embedding.weight.device.type, enabled=False):
            hidden = model.read(body, packed).last_hidden_state
    finally:
        model.train(training)
    return hidden[packed.end_row, packed.end_column].float()
