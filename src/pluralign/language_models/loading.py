"""Read a causal language model and its tokenizer from a folder or from the hub.

The hub is asked only for what is named by a hub id; a folder is read where it lies. Code that comes with a model runs
only where `trust_remote_code=True` is given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pluralign.errors import CacheError, ConfigError
from pluralign.features.pretrained import check_source, is_folder, no_loading_bars


def load_language_model(kind: Any, base: str, **settings: Any) -> Any:
    """Read a language model.

    Args:
        kind: `AutoModelForCausalLM`, or `AutoModel` for the body alone.
        base: Folder or hub id.
        settings: Passed on to `from_pretrained` (dtype, revision, device_map, attn_implementation, ...).

    Raises:
        ConfigError: There is no such model, it is damaged, no causal model or an adapter alone, or it lacks weights,
            which would be random.
    """
    check_source(base, settings.get("revision"))
    _check_whole(base)
    try:
        with quiet():
            model, info = kind.from_pretrained(_place(base), output_loading_info=True, **settings)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).partition("\nModel type should be one of")[0]  # hundreds of names
        raise ConfigError(f'cannot read the language model "{base}": {reason}') from error
    _check_whole(base, adapted=getattr(model, "_hf_peft_config_loaded", False))
    if model.config.is_encoder_decoder:
        raise ConfigError(f'"{base}" is an encoder with a decoder ({type(model).__name__}); a causal model is needed')
    # A pooler stands above the hidden states, and nothing here reads it.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ConfigError(
            f'"{base}" lacks {len(missing)} of the weights of {type(model).__name__}, the first is {missing[0]}; '
            "they would be random"
        )
    return model


def load_tokenizer(base: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Read a tokenizer from a folder or a hub id.

    Where it has no padding token, its end-of-sequence token stands in. What is padded here goes by masks, so no
    end of a sequence is ever taken for padding; a trainer that masks by token id would lose it.

    Raises:
        ConfigError: There is no such tokenizer, or the base is no whole language model.
    """
    from transformers import AutoTokenizer

    check_source(str(base), revision)
    _check_whole(str(base))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            _place(str(base)), revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f'cannot read the tokenizer "{base}": {error}') from error
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_tokenizer(tokenizer: Any, n_embeddings: int) -> None:
    """Check that a model has a row for every token; the ids after its last row are the users'.

    An embedding with more rows than there are tokens (padded to a round number, as many are) is fine.

    Raises:
        ConfigError: The tokenizer has ids that the model lacks.
    """
    highest = max(tokenizer.get_vocab().values())
    if highest >= n_embeddings:
        raise ConfigError(
            f"the tokenizer's ids go up to {highest}, and the model's embedding has {n_embeddings} rows",
            hint="take the tokenizer that belongs to the model, or resize the model's embedding and train its new rows",
        )


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        CacheError: It is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CacheError(f"{path} is damaged: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and from listing weights that nobody asked for (a reward's LM head)."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_loading_bars():
            yield
    finally:
        logging.set_verbosity(level)


def _check_whole(base: str, *, adapted: bool = False) -> None:
    """Refuse what belongs to a language model and is none by itself: its reference would be the model below it."""
    folder = Path(base).expanduser()
    if adapted or (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f'"{base}" holds an adapter (PEFT), not a whole language model',
            hint="merge it into its base and save that (merge_and_unload, save_pretrained)",
        )
    if (folder / "personal.safetensors").is_file() or (folder / "clusters.json").is_file():
        raise ConfigError(
            f'"{base}" holds a personal model, which is no base for another',
            hint="name its base, or an ordinary checkpoint that `pluralign export` made of it",
        )


def _place(base: str) -> str:
    return str(Path(base).expanduser()) if is_folder(base) else base
