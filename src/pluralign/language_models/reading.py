"""A model's value of many sequences: log-probabilities of a policy, rewards of a reward model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pluralign.language_models.packing import Sequence, pack
from pluralign.types import FloatArray

# About how many tokens are read at a time. On a CPU four times as many take a third longer: larger tensors leave the
# caches, and their memory goes back to the system after every use.
BATCH_TOKENS = 4096


@contextmanager
def reading(model: torch.nn.Module) -> Iterator[None]:
    """Without gradients or dropout; the model's mode comes back."""
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(before)


def read_values(
    model: Any,
    n: int,
    sequence: Callable[[int], Sequence],
    batches: Iterable[np.ndarray],
    *,
    layout: Mapping[str, Any] | None = None,
    bar: tqdm[Any] | None = None,
) -> FloatArray:
    """A model's value of each of n sequences, (n,).

    Args:
        model: A `PersonalModel`.
        n: Number of sequences.
        sequence: Gives each by its number.
        batches: Numbers of the sequences that are read together; every number is in one batch.
        layout: How they are laid out; None is the model's own way.
        bar: Told how many were read.
    """
    values = np.empty(n)
    layout = model.layout if layout is None else layout
    device = model.get_input_embeddings().weight.device
    with reading(model):
        for rows in batches:
            packed = pack([sequence(i) for i in rows.tolist()], **layout).to(device)
            values[rows] = model(**packed.tensors()).double().numpy(force=True)
            if bar is not None:
                bar.update(len(rows))
    return values
