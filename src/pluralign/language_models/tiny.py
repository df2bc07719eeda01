"""A small language model trained here, for a machine that reaches no hub.

It is an ordinary checkpoint folder, which `AutoModelForCausalLM` and `AutoTokenizer` load, so that nothing else needs
to know that it is ours: a Llama in float32 with a byte-level BPE tokenizer, trained from scratch on (prompt, response)
texts. A document is prompt, response, `<|eos|>`, and in half of the documents `<|bos|>` goes first, so that the model
reads prompts with it and without. The tokenizer adds neither by itself, and the chat template writes what the text
has: a chat of one request and its answer is the same tokens as the two texts.

The output head is not tied to the input embedding. Where rows of the input embedding stand for users they must be free
to move without becoming words that the model may say; and at this vocabulary the second matrix costs next to nothing.

Documents are packed into rows with positions that begin anew in each, which `transformers` reads as attention within
a document alone: there is little padding, and no step sees documents of one length only.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from pluralign.errors import CacheError, ConfigError, DataError
from pluralign.features.pretrained import no_loading_bars
from pluralign.files import write_json

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
NOTE = "pluralign.json"  # written last: settings, texts, checksums of the other files
VERSION = 1  # of what a folder holds; raised when the same settings and texts would give another model
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)

Document: TypeAlias = tuple[str, str]


@final
@dataclass(frozen=True, kw_only=True)
class TinySettings:
    """What a model trained here depends on, besides its texts.

    Attributes:
        hidden: Width of the hidden states, a multiple of twice `heads`.
        layers: Transformer blocks.
        heads: Attention heads of each.
        vocabulary: Most tokens of the tokenizer, at least 259: 256 bytes and three of its own.
        context: Longest sequence that the configuration promises, in tokens. Positions are rotary and cost nothing.
        tied: Whether the output head is the input embedding.
        steps: Optimiser steps.
        rows: Rows of each step.
        row_tokens: Tokens of each row; a longer document is cut.
        learning_rate: Its largest value: warmed up over a twentieth of the steps, then down to 0 by a cosine.
        weight_decay: Of the matrices.
        seed: Of the first weights and of the order of the documents.
    """

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    vocabulary: int = 2048
    context: int = 2048
    tied: bool = False
    steps: int = 1000
    rows: int = 4
    row_tokens: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "context", "steps", "rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.hidden % (2 * self.heads):
            raise ConfigError(f"hidden is {self.hidden}; it must be a multiple of twice the heads ({2 * self.heads})")
        if self.vocabulary < 259:
            raise ConfigError(f"vocabulary is {self.vocabulary}; it must be at least 259, the bytes and three tokens")
        if not 8 <= self.row_tokens <= self.context:
            raise ConfigError(f"row_tokens is {self.row_tokens}; it must be 8 to the context ({self.context})")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ConfigError(
                f"learning_rate is {self.learning_rate} and weight_decay {self.weight_decay}; they must be above 0 "
                "and at least 0"
            )


# For the project's own texts: all topics in about a minute on one core, or four of them in a quarter of a minute.
SIZES = {
    "default": TinySettings(),
    "small": TinySettings(hidden=96, steps=300),
}


def tiny_language_model(
    documents: Sequence[Document],
    *,
    settings: TinySettings | str = "default",
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Return the folder of a model trained on these documents: from the cache, or trained now.

    A folder appears whole or not at all. One that is damaged (a file missing, or another than was written) is made
    again, and what a killed process left is removed after a day. Two processes that train the same model at once both
    do the work, and the first to end leaves the folder.

    Args:
        documents: (prompt, response) texts.
        settings: Of the model and its training, or the name of one of `SIZES`.
        cache: Folder to keep models in; None is `default_cache_dir`.
        progress: Whether to show a progress bar (on a terminal only).

    Raises:
        ConfigError: An unknown size.
        DataError: There are no documents.
        CacheError: The cache cannot be written.
    """
    settings = find_size(settings)
    root = default_cache_dir() if cache is None else Path(cache)
    key = _key(documents, settings)
    folder = root / f"tiny-{key[:16]}"
    if _whole(folder, key):
        return folder
    part = root / f"{folder.name}.{os.getpid()}.part"
    for old in root.glob("tiny-*.part"):
        if time.time() - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True)
    try:
        if folder.exists():
            logger.warning("removed a damaged language model, which will be trained again: %s", folder)
            shutil.rmtree(folder, ignore_errors=True)
        try:
            train_tiny(documents, settings, part, progress=progress)
            part.rename(folder)
        except OSError as error:
            if not _whole(folder, key):  # else another process was quicker
                raise CacheError(
                    f"cannot write to {root}: {error}", hint="name another folder for the cache"
                ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def train_tiny(
    documents: Sequence[Document],
    settings: TinySettings,
    folder: str | os.PathLike[str],
    *,
    progress: bool = True,
) -> None:
    """Train a tokenizer and a model on documents and save both as a checkpoint folder.

    Files are safetensors and JSON, beside the template of chats. `pluralign.json` holds the settings, the loss of
    every step in nats per token, the seconds it took and the number of parameters.

    Args:
        documents: (prompt, response) texts; they are read in random order, as often as the steps need.
        settings: Of the model and its training.
        folder: Where to save; made if it does not exist.
        progress: Whether to show a progress bar (on a terminal only).

    Raises:
        DataError: There are no documents.
    """
    if not documents:
        raise DataError("there are no documents to train on", hint="give (prompt, response) texts")
    began = time.monotonic()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(documents, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = new_model(settings, tokenizer)
    losses = _fit(model, tokenizer, documents, settings, progress=progress)
    with no_loading_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    note = {
        "key": _key(documents, settings),
        "settings": asdict(settings),
        "n_documents": len(documents),
        "n_parameters": sum(each.numel() for each in model.parameters()),
        "seconds": round(time.monotonic() - began, 1),
        "losses": [round(loss, 4) for loss in losses],
        "files": {path.name: _checksum(path) for path in sorted(folder.iterdir()) if path.name != NOTE},
    }
    write_json(folder / NOTE, note)


def train_tokenizer(documents: Sequence[Document], settings: TinySettings) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE tokenizer from documents. Any text can be written in it; it adds no token by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for document in documents for text in document), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=settings.context,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def new_model(settings: TinySettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights, from torch's global generator as `transformers` draws them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden,
            intermediate_size=-(-8 * settings.hidden // 3 // 32) * 32,  # as Llama has it: 8/3 of the width, rounded up
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=settings.context,
            tie_word_embeddings=settings.tied,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            dtype="float32",
            initializer_range=settings.hidden**-0.5 / 2,  # the usual 0.02 is for widths of hundreds
        )
    )


def default_cache_dir() -> Path:
    """The folder `language_models` in that named by `PLURALIGN_CACHE`, else in `~/.cache/pluralign`."""
    return Path(os.environ.get("PLURALIGN_CACHE", Path.home() / ".cache" / "pluralign")) / "language_models"


def find_size(settings: TinySettings | str) -> TinySettings:
    """Settings as they are, or those of this name.

    Raises:
        ConfigError: An unknown name.
    """
    if isinstance(settings, TinySettings):
        return settings
    if settings not in SIZES:
        raise ConfigError(f'unknown size "{settings}"; known: {", ".join(sorted(SIZES))}')
    return SIZES[settings]


def _fit(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: Sequence[Document],
    settings: TinySettings,
    *,
    progress: bool,
) -> list[float]:
    """Train in place; return the loss of every step, in nats per token."""
    matrices = [each for each in model.parameters() if each.dim() > 1]
    vectors = [each for each in model.parameters() if each.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
    )
    warm = max(1, settings.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1.0, (step + 1) / warm) * (1 + np.cos(np.pi * step / settings.steps)) / 2,
    )
    losses: list[float] = []
    model.train()
    rows = packed_rows(documents, tokenizer, settings)
    with tqdm(total=settings.steps, unit="step", desc="train", disable=None if progress else True) as bar:
        for _ in range(settings.steps):
            ids, position, labels = (torch.stack(each) for each in zip(*islice(rows, settings.rows), strict=True))
            loss = model(input_ids=ids, position_ids=position, labels=labels, use_cache=False).loss
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    model.eval()
    return losses


def packed_rows(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast, settings: TinySettings
) -> Iterator[tuple[Int[Tensor, " tokens"], Int[Tensor, " tokens"], Int[Tensor, " tokens"]]]:
    """Rows of whole documents, without end: every document once, in random order, then all again in another.

    Yields:
        Token ids, positions that begin at 0 in each document, and labels, -100 where a document begins and in the
        padding (a document of its own); each (row_tokens,).
    """
    texts = tokenizer([prompt for prompt, _ in documents], add_special_tokens=False)["input_ids"]
    answers = tokenizer([response for _, response in documents], add_special_tokens=False)["input_ids"]
    bos, eos, pad, width = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, settings.row_tokens
    # A stream of its own: texts drawn from the bare seed would say by their style which documents have a beginning.
    rng = np.random.default_rng([settings.seed, VERSION])

    def filled(ids: list[int], position: list[int], labels: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        room = width - len(ids)
        return (
            torch.tensor(ids + [pad] * room),
            torch.tensor(position + list(range(room))),
            torch.tensor(labels + [-100] * room),
        )

    ids: list[int] = []
    position: list[int] = []
    labels: list[int] = []
    while True:
        order, marked = rng.permutation(len(documents)).tolist(), (rng.random(len(documents)) < 0.5).tolist()
        for i in order:
            document = ([bos] * marked[i] + texts[i] + answers[i] + [eos])[:width]
            if len(ids) + len(document) > width:
                yield filled(ids, position, labels)
                ids, position, labels = [], [], []
            ids += document
            position += range(len(document))
            labels += [-100, *document[1:]]


def _key(documents: Sequence[Document], settings: TinySettings) -> str:
    digest = sha256(json.dumps({"version": VERSION, "settings": asdict(settings)}, sort_keys=True).encode())
    for document in documents:
        digest.update(json.dumps(document, ensure_ascii=False).encode())
    return digest.hexdigest()


def _whole(folder: Path, key: str) -> bool:
    """Whether a folder holds the model of this key, each file as it was written."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return note["key"] == key and all(_checksum(folder / name) == each for name, each in note["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _checksum(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
