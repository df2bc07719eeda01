"""Log-probabilities under the reference: what the language model thought before anybody's preferences.

P-RLHF's reference pi_SFT(y | x) knows no user, so its value belongs to a prompt and a response. Each is computed once,
however many comparisons, users and epochs it is in, and kept on disk under a key of the model's weights and the token
ids; another run on the same data with the same base reads it. (The released code computes it for every pair, twice,
in every epoch.)

The cache is a folder of shards. A shard is written whole or not at all, so a run that was killed goes on where it
stopped; several processes share the shards among them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn
from tqdm import tqdm

from pluralign.errors import ConfigError
from pluralign.files import replacing
from pluralign.language_models.reading import BATCH_TOKENS, read_values
from pluralign.language_models.tokens import PreferenceTokens
from pluralign.users import UNKNOWN

logger = logging.getLogger(__name__)
SHARD = 4096  # items
MOST_OF_ONE_PROMPT = 16  # what shares a row attends over all of it, which soon costs more than reading the prompt again
VERSION = 1


def default_cache_dir() -> Path:
    """The folder `reference` in that named by `PLURALIGN_CACHE`, else in `~/.cache/pluralign`."""
    return Path(os.environ.get("PLURALIGN_CACHE", Path.home() / ".cache" / "pluralign")) / "reference"


def reference_log_probs(
    model: Any,
    tokens: PreferenceTokens,
    *,
    cache: str | Path | None = None,
    batch_tokens: int = BATCH_TOKENS,
    autocast: torch.dtype | None = None,
    rank: int = 0,
    world: int = 1,
    progress: bool = True,
) -> np.ndarray:
    """Log-probability of every compared response under a policy without its users and its adapter.

    Args:
        model: A `PersonalPolicy`. One that is fully tuned must be at the start of its training.
        tokens: What to read.
        cache: Folder of caches; None keeps nothing, which several processes cannot do.
        batch_tokens: Most tokens, padding included, of a batch.
        autocast: What the policy is trained in under mixed precision. With another rounding of the reference its
            log-ratios would not begin at 0.
        rank: Number of this process.
        world: Number of processes; they must call this together.
        progress: Whether to show a progress bar.

    Returns:
        In nats, (items,), NaN for items that no row has.
    """
    items = np.unique(np.concatenate([tokens.chosen, tokens.rejected]))
    # Those of one prompt side by side, and prompts of one length: they will be read together.
    prompt = tokens.prompt[items]
    items = items[np.lexsort((items, prompt, tokens.prompts.length[prompt]))]
    shards = [items[i : i + SHARD] for i in range(0, len(items), SHARD)]
    values = np.full(len(tokens.prompt), np.nan, dtype=np.float32)
    if cache is None:
        if world > 1:
            raise ConfigError("several processes share the reference through its cache; name a folder for it")
        with tqdm(total=len(items), unit="response", desc="reference", disable=not progress) as bar:
            for shard in shards:
                values[shard] = _compute(model, tokens, shard, batch_tokens, autocast, bar)
        return values
    folder = Path(cache) / (model_key(model) + ("" if autocast is None else f"-{str(autocast).removeprefix('torch.')}"))
    paths = [folder / f"{shard_key(tokens, shard)}.safetensors" for shard in shards]
    mine = [i for i in range(len(shards)) if i % world == rank]
    found = {i: kept for i in mine if (kept := _read(paths[i], len(shards[i]))) is not None}
    if found and rank == 0:
        logger.info("reference: %d of %d shards were computed before", len(found), len(mine))
    missing = [i for i in mine if i not in found]
    with tqdm(
        total=sum(len(shards[i]) for i in missing),
        unit="response",
        desc="reference",
        disable=not (progress and missing),
    ) as bar:
        for i in missing:
            found[i] = _compute(model, tokens, shards[i], batch_tokens, autocast, bar)
            with replacing(paths[i]) as part:
                save_file({"log_prob": found[i]}, part)
    if world > 1:
        torch.distributed.barrier()
    for i, (path, shard) in enumerate(zip(paths, shards, strict=True)):
        kept = found[i] if i in found else _read(path, len(shard))
        if kept is None:  # written on a disk that this process does not see
            kept = _compute(model, tokens, shard, batch_tokens, autocast, tqdm(disable=True))
        values[shard] = kept
    return values


def model_key(model: Any) -> str:
    """Hash of the reference: the language model's settings and weights, without users and adapter."""
    digest = sha256(f"{VERSION} ".encode())
    digest.update(json.dumps(_plain_settings(model), sort_keys=True, default=str).encode())
    for name, value in sorted(base_parameters(model).items()):
        flat = value.detach().cpu().contiguous().view(-1)
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()[:32]


def base_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Parameters of the language model as it was before it met users, by name."""
    return {
        name.replace(".base_layer", ""): value  # PEFT's name for what its matrices stand beside
        for name, value in model.inner.named_parameters()
        if "lora_" not in name and ".users." not in name and "modules_to_save" not in name
    }


def _plain_settings(model: Any) -> dict[str, Any]:
    unrelated = ("_name_or_path", "transformers_version", "architectures", "use_cache")
    return {name: value for name, value in model.inner.config.to_dict().items() if name not in unrelated}


def shard_key(tokens: PreferenceTokens, items: np.ndarray) -> str:
    """Hash of the token ids of some items."""
    digest = blake2b(digest_size=16)
    for item in items.tolist():
        for part in (tokens.prompts, tokens.responses):
            i = int(tokens.prompt[item]) if part is tokens.prompts else item
            ids = part.ids[part.start[i] : part.start[i + 1]]
            digest.update(f"{len(ids)} ".encode())
            digest.update(ids.tobytes())
    return digest.hexdigest()


def _read(path: Path, n: int) -> np.ndarray | None:
    """A shard, or None where there is none that can be used."""
    try:
        value = load_file(path)["log_prob"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        logger.warning("%s cannot be read (%s); it is made anew", path, error)
        return None
    return value if value.shape == (n,) and np.isfinite(value).all() else None


def _compute(
    model: Any, tokens: PreferenceTokens, items: np.ndarray, batch_tokens: int, autocast: torch.dtype | None, bar: Any
) -> np.ndarray:
    layout = {**model.layout, "place": "none", "n_tokens": 0}
    mixed = torch.autocast(model.device.type, dtype=autocast, enabled=autocast is not None)
    with mixed, nullcontext() if model.config.tuning == "full" else model.without_adapter():
        values = read_values(
            model,
            len(items),
            lambda i: tokens.sequence(int(items[i]), UNKNOWN),
            item_batches(tokens, items, batch_tokens),
            layout=layout,
            bar=bar,
        )
    return values.astype(np.float32)


def item_batches(tokens: PreferenceTokens, items: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Runs of items, (n,) each, of at most `batch_tokens` tokens if each lay in a row of its own, few of one prompt."""
    prompt = tokens.prompt[items]
    length = tokens.prompts.length[prompt] + tokens.responses.length[items]
    first, same, longest = 0, 0, 0
    for i, each in enumerate(length.tolist()):
        same = same + 1 if i > first and prompt[i] == prompt[i - 1] else 1
        longest = max(longest, each)
        if i > first and (longest * (i + 1 - first) > batch_tokens or same > MOST_OF_ONE_PROMPT):
            yield np.arange(first, i)
            first, same, longest = i, 1, each
    if len(items):
        yield np.arange(first, len(items))
